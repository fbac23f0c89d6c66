"""Layers that train S seeds at once, and the block that an order names.

A layer is declared with the shapes of one seed; `stacking.stack` gives every parameter and buffer its leading seed axis.
Activations are (S, C, B, *space): S seeds, C channels, B batch, *space nothing, (L,) or (H, W). Folding seeds into
channels is then free and gives torch's kernels their own layout. `solo(s)` of a layer is seed s as torch.nn modules.
"""

from collections import OrderedDict
from math import prod, sqrt

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from grids import NONE, Cell
from harness import NORMS
from harness.initialisation import gain, parse

MAXOUT_MAPS = 2  # k, the linear maps of which maxout takes the maximum


def fold(x: torch.Tensor) -> torch.Tensor:
    """(S, C, B) -> (1, S·C, B); (S, C, B, *space) -> (B, S·C, *space). Views both."""
    return x.flatten(0, 1)[None] if x.ndim == 3 else x.movedim(2, 0).flatten(1, 2)


def unfold(y: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
    """Undo `fold`; the S of x and its layout tell how."""
    return y[0].unflatten(0, (len(x), -1)) if x.ndim == 3 else y.unflatten(1, (len(x), -1)).movedim(0, 2)


def channels_last(x: torch.Tensor) -> torch.Tensor:
    """Images and 2-D kernels (·, C, H, W) with their channels together in memory, which convolutions on a CPU prefer.

    Measured at 28×28, widths 8 to 32, one thread: a training step 1.2 to 1.4 times as fast. Later layers keep it.
    """
    if x.ndim != 4:
        return x
    x = x.contiguous(memory_format=torch.channels_last)
    # One channel passes for either format, and the layers after it would get the other one.
    return x if x.shape[1] > 1 else x.as_strided(x.shape, (x.shape[2] * x.shape[3], 1, x.shape[3], 1))


def _copied(module: nn.Module, s: int, **tensors: torch.Tensor) -> nn.Module:
    """`module` with its tensors overwritten by those of seed s, in their dtype and on their device."""
    first = next(iter(tensors.values()))
    module = module.to(device=first.device, dtype=first.dtype)
    with torch.no_grad():
        for name, value in tensors.items():
            getattr(module, name).copy_(value[s])
    return module


class Layer(nn.Module):
    """What every layer can do: draw its tensors for one seed, and become torch.nn modules for one seed."""

    def draw(self, name: str, shape: tuple[int, ...], rng: np.random.Generator) -> np.ndarray:
        """Initial value of parameter or buffer `name`, one seed."""
        raise AssertionError(f"{type(self).__name__} has no tensors")

    def solo(self, s: int) -> nn.Module:
        raise AssertionError(f"{type(self).__name__} has no twin")

    def declare(self, name: str, *shape: int, buffer: bool = False) -> None:
        """A parameter or buffer of one seed, without values until `stack` draws them."""
        empty = torch.empty(shape, device="meta")
        if buffer:
            self.register_buffer(name, empty)
        else:
            self.register_parameter(name, nn.Parameter(empty))


class Weight(Layer):
    """Linear map (kernel = ()) or convolution that keeps the space, of each seed; zero bias, normal weights.

    weight (S, C_out, C_in, *kernel), bias (S, C_out). (S, C_in, B, *space) -> (S, C_out, B, *space / stride)
    """

    def __init__(self, c_in: int, c_out: int, kernel: tuple[int, ...] = (), stride: int = 1, gain: float = 1.0):
        super().__init__()
        if any(size % 2 == 0 for size in kernel):
            raise ValueError(f"kernel {kernel}: sizes must be odd, so that the convolution keeps the space")
        self.kernel, self.stride, self.gain = kernel, stride, gain
        self.declare("weight", c_out, c_in, *kernel)
        self.declare("bias", c_out)

    def draw(self, name, shape, rng):
        if name == "bias":
            return np.zeros(shape)
        return rng.standard_normal(shape) * (self.gain / sqrt(prod(shape[1:])))

    def forward(self, x):
        if not self.kernel:
            return torch.baddbmm(self.bias[..., None], self.weight, x)  # (S, C_out, B)
        convolution = (F.conv1d, F.conv2d)[len(self.kernel) - 1]
        padding = tuple(size // 2 for size in self.kernel)
        weight, bias = self.weight.flatten(0, 1), self.bias.flatten()
        return unfold(convolution(channels_last(fold(x)), weight, bias, self.stride, padding, groups=len(x)), x)

    def solo(self, s):
        c_out, c_in = self.weight.shape[1:3]
        if not self.kernel:
            twin = nn.Linear(c_in, c_out)
        else:
            kind = (nn.Conv1d, nn.Conv2d)[len(self.kernel) - 1]
            twin = kind(c_in, c_out, self.kernel, self.stride, tuple(size // 2 for size in self.kernel))
        return _copied(twin, s, weight=self.weight, bias=self.bias)


class BatchNorm(Layer):
    """Batch normalization (Ioffe and Szegedy 2015) of each channel of each seed, with scale, shift and running averages.

    `momentum` (0.1) and `eps` (1e-5) are torch's defaults; the running variance is the unbiased one. `space` counts the
    dimensions of *space: only the twin asks.
    """

    def __init__(self, channels: int, space: int = 0, momentum: float = 0.1, eps: float = 1e-5):
        super().__init__()
        self.space, self.momentum, self.eps = space, momentum, eps
        self.declare("weight", channels)
        self.declare("bias", channels)
        self.declare("running_mean", channels, buffer=True)
        self.declare("running_var", channels, buffer=True)

    def draw(self, name, shape, rng):
        return np.ones(shape) if name in ("weight", "running_var") else np.zeros(shape)

    def forward(self, x):
        if self.training and x.ndim == 3:
            return self._over_rows(x)
        tensors = (self.running_mean, self.running_var, self.weight, self.bias)
        y = F.batch_norm(fold(x), *(t.view(-1) for t in tensors), self.training, self.momentum, self.eps)
        return unfold(y, x)

    def _over_rows(self, x: torch.Tensor) -> torch.Tensor:
        """Where there is no space, the batch of a channel is a row of memory, and so a group of group normalization.

        Its kernels are the faster ones: (20, 64, 100) forward 74 against 178 µs, with backward 170 against 288 (minima of 7
        on one core of an AVX512 x86).
        """
        s, c, b = x.shape
        weight, bias = self.weight.view(-1), self.bias.view(-1)
        y, mean, rstd = torch.native_group_norm(x.reshape(1, s * c, b), weight, bias, 1, s * c, b, s * c, self.eps)
        with torch.no_grad():
            variance = (rstd.pow(-2) - self.eps).abs() * (b / (b - 1))  # rounding may leave −1e-12 where it is 0
            self.running_mean.lerp_(mean.view(s, c), self.momentum)
            self.running_var.lerp_(variance.view(s, c), self.momentum)
        return y.view(s, c, b)

    def solo(self, s):
        kind = nn.BatchNorm2d if self.space == 2 else nn.BatchNorm1d
        twin = kind(self.weight.shape[1], self.eps, self.momentum)
        tensors = ("weight", "bias", "running_mean", "running_var")
        return _copied(twin, s, **{name: getattr(self, name) for name in tensors})


class PReLU(Layer):
    """max(x, 0) + slope · min(x, 0) with one learnt slope a layer and seed (He et al. 2015), as in torch.nn.PReLU."""

    def __init__(self, slope: float):
        super().__init__()
        self.slope = slope
        self.declare("weight", 1)

    def draw(self, name, shape, rng):
        return np.full(shape, self.slope)

    def forward(self, x):
        slope = self.weight.view(-1, *[1] * (x.ndim - 1))  # (S, 1, 1, ...)
        return torch.where(x > 0, x, slope * x)

    def solo(self, s):
        return _copied(nn.PReLU(), s, weight=self.weight)


class Maxout(Layer):
    """Maximum over k = 2 maps (Goodfellow et al. 2013, arXiv:1302.4389): (S, 2·C, B, *space) -> (S, C, B, *space).

    The maps are the channels c and C + c of the weight layer before it, which is therefore twice as wide: a block of
    C channels has about twice the parameters of a block with another activation. The recipe field
    `maxout_width = "matched"` divides the width by sqrt(2) instead, which makes the parameters about equal.
    """

    def forward(self, x):
        return _Maximum.apply(x)

    def solo(self, s):
        return _MaxoutTwin()


class _Maximum(torch.autograd.Function):
    """The maximum of the first and second half of the channels, at a tie the first.

    Autograd's own gradient of torch.maximum costs seven times as much (1.48 ms against 0.22 ms for (20, 128, 100)).
    """

    @staticmethod
    def forward(ctx, x):
        a, b = x.chunk(MAXOUT_MAPS, dim=1)
        first = a >= b
        ctx.save_for_backward(first)
        return torch.maximum(a, b)

    @staticmethod
    def backward(ctx, gradient):
        (first,) = ctx.saved_tensors
        part = gradient * first
        return torch.cat((part, gradient - part), 1)


class _MaxoutTwin(nn.Module):
    """torch.nn has no maxout. (B, 2·C, *space) -> (B, C, *space)"""

    def forward(self, x):
        return x.unflatten(1, (MAXOUT_MAPS, -1)).amax(1)


class LeCunTanh(nn.Module):
    """1.7159 · tanh(2x / 3) (LeCun et al. 1998, Efficient BackProp)."""

    def forward(self, x):
        return 1.7159 * torch.tanh(x * (2 / 3))


class Dropout(Layer):
    """Dropout whose masks come from a generator for each seed, which `stack` provides as `generators`."""

    def __init__(self, rate: float):
        super().__init__()
        self.rate = rate
        self.generators: list[torch.Generator] = []

    def forward(self, x):
        if not self.training or self.rate == 0:
            return x
        return torch.stack([dropped(each, self.rate, g) for each, g in zip(x, self.generators, strict=True)])

    def solo(self, s):
        return _DropoutTwin(self.rate, self.generators[s])


def dropped(x: torch.Tensor, rate: float, generator: torch.Generator) -> torch.Tensor:
    """(C, B, *space) of one seed with a share `rate` set to 0 and the rest scaled up."""
    keep = torch.rand(x.shape, generator=generator, device=x.device) >= rate
    return x * keep / (1 - rate)


class _DropoutTwin(nn.Dropout):
    """nn.Dropout that draws the masks of its seed, from where that seed's generator stands now."""

    def __init__(self, rate: float, generator: torch.Generator):
        super().__init__(rate)
        self.generator = torch.Generator(generator.device)
        self.generator.set_state(generator.get_state())

    def forward(self, x):
        if not self.training or self.p == 0:
            return x
        return dropped(x.movedim(0, 1), self.p, self.generator).movedim(1, 0)


class Flatten(Layer):
    """Space into channels: (S, C, B, *space) -> (S, C·space, B)."""

    def forward(self, x):
        return x.movedim(2, -1).flatten(1, -2)

    def solo(self, s):
        return nn.Flatten()


class MeanSpace(Layer):
    """Global average pooling: (S, C, B, *space) -> (S, C, B)."""

    def forward(self, x):
        folded = fold(x)
        mean = (F.adaptive_avg_pool1d, F.adaptive_avg_pool2d)[folded.ndim - 3](folded, 1)  # keeps the memory format
        return unfold(mean, x).flatten(2)

    def solo(self, s):
        return _MeanSpaceTwin()


class _MeanSpaceTwin(nn.Module):
    """(B, C, *space) -> (B, C)"""

    def forward(self, x):
        return nn.functional.adaptive_avg_pool1d(x.flatten(2), 1)[..., 0]


class MaxPool(Layer):
    """Maximum over windows in each of `space` dimensions: of 2 with stride 2, where an odd last place is left out.

    With another window, stride and padding as torch has them; what is padded is never the maximum.
    """

    def __init__(self, space: int, window: int = 2, stride: int = 2, padding: int = 0):
        super().__init__()
        self.space, self.how = space, (window, stride, padding)

    def forward(self, x):
        return unfold((F.max_pool1d, F.max_pool2d)[self.space - 1](fold(x), *self.how), x)

    def solo(self, s):
        return (nn.MaxPool1d, nn.MaxPool2d)[self.space - 1](*self.how)


# How each activation is made from its parameter. What acts on each number alone is torch's own module in both layouts.
MAKE_ACTIVATION = {
    "identity": lambda _: nn.Identity(),
    "relu": lambda _: nn.ReLU(),
    "leaky_relu": nn.LeakyReLU,
    "prelu": PReLU,
    "elu": nn.ELU,
    "gelu": lambda _: nn.GELU(),
    "silu": lambda _: nn.SiLU(),
    "selu": lambda _: nn.SELU(),
    "softplus": lambda _: nn.Softplus(),
    "tanh": lambda _: nn.Tanh(),
    "sigmoid": lambda _: nn.Sigmoid(),
    "softsign": lambda _: nn.Softsign(),
    "lecun_tanh": lambda _: LeCunTanh(),
    "maxout": lambda _: Maxout(),
}


class Block(nn.Sequential):
    """The layers of one order, each under its name in the order."""


def maps(cell: Cell) -> int:
    """Channels before the activation for each channel after it: k for maxout, else 1."""
    return MAXOUT_MAPS if parse(cell.activation)[0] == "maxout" else 1


def flow(cell: Cell, channels: int) -> int:
    """Channels that flow between blocks of `channels`: k times as many where maxout comes before the weight."""
    names = cell.order.split("-")
    return channels * maps(cell) if names.index("act") < names.index("weight") else channels


def normalization(cell: Cell, name: str, channels: int, space: int) -> Layer:
    """The layer that an order, a stem or a head names, for activations with so many dimensions of space."""
    match name:
        case "bn":
            return BatchNorm(channels, space, cell.bn_momentum, cell.bn_eps)
    raise AssertionError(f"no normalization {name}")


def ending(order: str, end: str) -> list[str]:
    """The layers of an order; behind its weight all of them ("order"), no activation ("norm") or nothing ("weight")."""
    names = order.split("-")
    last = names.index("weight") + 1
    behind = {"order": names[last:], "norm": [each for each in names[last:] if each != "act"], "weight": []}
    return names[:last] + behind[end]


def block(
    cell: Cell,
    c_in: int,
    c_out: int,
    kernel: tuple[int, ...] = (),
    stride: int = 1,
    pool: bool = False,
    end: str = "order",
) -> Block:
    """The block that `cell.order` names: (S, flow(c_in), B, *space) -> (S, flow(c_out), B, *space / stride).

    pool: it halves the space by max pooling, at its end or, as `cell.pool` says, right before its normalization.
    end: what it keeps behind its weight, as `ending` has it.
    """
    name, parameter = parse(cell.activation)
    names = ending(cell.order, end)
    wide = c_out * maps(cell) if "act" in names else c_out  # no maximum is taken of a weight that no activation follows
    if pool:
        early = [i for i, each in enumerate(names) if each in NORMS] if cell.pool == "before" else []
        names.insert(early[0] if early else len(names), "pool")
    layers, c = OrderedDict(), flow(cell, c_in)
    for layer in names:
        match layer:
            case "weight":
                layers[layer] = Weight(c, wide, kernel, stride, gain(cell.activation))
                c = wide
            case "act":
                layers[layer] = MAKE_ACTIVATION[name](parameter)
                c //= maps(cell)
            case "drop":
                layers[layer] = Dropout(cell.dropout)
            case "pool":
                layers[layer] = MaxPool(len(kernel))
            case norm:
                layers[norm] = normalization(cell, norm, c, len(kernel))
    return Block(layers)


def network(
    cell: Cell,
    shape: tuple[int, ...],
    classes: int,
    blocks: nn.Module,
    c_out: int | None = None,
    kernel: tuple[int, ...] = (),
) -> nn.Sequential:
    """Stem, blocks, head: what stands at the ends of a net is decided here, for every architecture.

    shape: of an example, (C, *space). c_out: channels of the last block, cell.width where it is not given. kernel: of the
    stem; without one, space is flattened into channels first, with one the head takes the mean over space. The stem is a
    weight layer and, as `cell.stem_norm` says, a normalization; the head a linear layer, before which `cell.head_norm` may
    put one. ValueError for what cannot work.
    """
    channels, space = flow(cell, cell.width), len(kernel)
    last = flow(cell, cell.width if c_out is None else c_out)
    parts = OrderedDict()
    if not kernel:
        parts["flatten"] = Flatten()
    parts["stem"] = Weight(shape[0] if kernel else prod(shape), channels, kernel)
    if cell.stem_norm != NONE:
        parts["stem_norm"] = normalization(cell, cell.stem_norm, channels, space)
    parts["blocks"] = blocks
    if kernel:
        parts["mean"] = MeanSpace()
    if cell.head_norm != NONE:
        parts["head_norm"] = normalization(cell, cell.head_norm, last, 0)
    parts["head"] = Weight(last, classes)
    return nn.Sequential(parts)
