"""Layers that train S seeds at once in the layout of harness/layout.py, and the block that an order names."""

from collections import OrderedDict
from collections.abc import Callable, Mapping
from itertools import takewhile
from math import prod

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from grids import NONE, Cell
from harness import NORMS, plugins
from harness.drawing import initial
from harness.initialisation import gain, parse
from harness.layout import Layer, channels_last, copied, fold, unfold
from harness.normalizations import GroupNorm, Normalization, normalization

MAXOUT_MAPS = 2  # k, the linear maps of which maxout takes the maximum


class Weight(Layer):
    """Linear map (kernel = ()) or convolution that keeps the space, of each seed.

    weight (S, C_out, C_in, *kernel), bias (S, C_out) or None. (S, C_in, B, *space) -> (S, C_out, B, *space / stride)
    Biases begin at 0, weights as `init` says (harness/drawing.py) times `init_gain`, those of each of `maps` by themselves;
    lsuv.py ends what that is.
    """

    def __init__(
        self,
        c_in: int,
        c_out: int,
        kernel: tuple[int, ...] = (),
        stride: int = 1,
        gain: float = 1.0,
        bias: bool = True,
        init: str = "he",
        init_gain: float = 1.0,
        maps: int = 1,
    ):
        super().__init__()
        if any(size % 2 == 0 for size in kernel):
            raise ValueError(f"kernel {kernel}: sizes must be odd, so that the convolution keeps the space")
        self.kernel, self.stride, self.gain, self.init, self.init_gain = kernel, stride, gain, init, init_gain
        self.maps = maps
        self.declare("weight", c_out, c_in, *kernel)
        if bias:
            self.declare("bias", c_out)
        else:
            self.register_parameter("bias", None)

    def draw(self, name, shape, rng):
        if name == "bias":
            return np.zeros(shape)
        return initial(self.init, rng.standard_normal(shape), self.gain, self.init_gain, self.maps)

    def forward(self, x):
        if not self.kernel:  # (S, C_out, B)
            return (
                torch.bmm(self.weight, x) if self.bias is None else torch.baddbmm(self.bias[..., None], self.weight, x)
            )
        convolution = (F.conv1d, F.conv2d)[len(self.kernel) - 1]
        padding = tuple(size // 2 for size in self.kernel)
        weight, bias = self.weight.flatten(0, 1), None if self.bias is None else self.bias.flatten()
        return unfold(convolution(channels_last(fold(x)), weight, bias, self.stride, padding, groups=len(x)), x)

    def solo(self, s):
        c_out, c_in = self.weight.shape[1:3]
        bias = self.bias is not None
        if not self.kernel:
            twin = nn.Linear(c_in, c_out, bias)
        else:
            kind = (nn.Conv1d, nn.Conv2d)[len(self.kernel) - 1]
            padding = tuple(size // 2 for size in self.kernel)
            twin = kind(c_in, c_out, self.kernel, self.stride, padding, bias=bias)
        return copied(twin, s, **self.state_dict())


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
        return copied(nn.PReLU(), s, weight=self.weight)


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
        return x.unflatten(1, (MAXOUT_MAPS, -1)).max(1).values  # at a tie the gradient of the first, as in Maxout


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


def activation(name: str, parameter: float | None) -> nn.Module:
    """The module of an activation, ours or a plug-in's."""
    make = MAKE_ACTIVATION.get(name) or plugins.module("activations", name).activation
    return make(parameter)


class Block(nn.Sequential):
    """The layers of one order, each under its name in the order."""


def maps(cell: Cell) -> int:
    """Channels before the activation for each channel after it: k for maxout, else 1."""
    return MAXOUT_MAPS if parse(cell.activation)[0] == "maxout" else 1


def flow(cell: Cell, channels: int) -> int:
    """Channels that flow between blocks of `channels`: k times as many where maxout comes before the weight."""
    names = cell.order.split("-")
    return channels * maps(cell) if names.index("act") < names.index("weight") else channels


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
    weight: Callable[[int, int], Layer] | None = None,
) -> Block:
    """The block that `cell.order` names: (S, flow(c_in), B, *space) -> (S, flow(c_out), B, *space / stride).

    pool: it halves the space by max pooling, at its end or, as `cell.pool` says, right before its normalization.
    end: what it keeps behind its weight, as `ending` has it. weight: gives the weight layer, from channels to channels, in
    place of a linear map or a convolution; `kernel` then only tells how many dimensions space has.
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
                how = gain(cell.activation), cell.bias, cell.init, cell.init_gain, wide // c_out
                layers[layer] = weight(c, wide) if weight else Weight(c, wide, kernel, stride, *how)
                c = wide
            case "act":
                layers[layer] = activation(name, parameter)
                c //= maps(cell)
            case "drop":
                layers[layer] = Dropout(cell.dropout)
            case "pool":
                layers[layer] = MaxPool(len(kernel))
            case norm:
                layers[norm] = normalization(cell, norm, c, len(kernel))
    return Block(layers)


def named_layers(cell: Cell, field: str, channels: int, space: int) -> nn.Sequential:
    """The layers that `after_sum` or `after_blocks` names, each under its name. ValueError for maxout."""
    names = [] if getattr(cell, field) == NONE else getattr(cell, field).split("-")
    if "act" in names and maps(cell) > 1:
        raise ValueError(
            f"{field} = {'-'.join(names)!r}: maxout gives half of the channels that it gets, so it cannot stand here; "
            "there are none and the normalizations"
        )
    name, parameter = parse(cell.activation)
    layers = OrderedDict()
    for each in names:
        layers[each] = activation(name, parameter) if each == "act" else normalization(cell, each, channels, space)
    return nn.Sequential(layers)


def network(
    cell: Cell,
    shape: tuple[int, ...],
    classes: int,
    blocks: nn.Module,
    c_out: int | None = None,
    kernel: tuple[int, ...] = (),
    residual: bool = False,
) -> nn.Sequential:
    """Stem, blocks, head: what stands at the ends of a net is decided here, for every architecture.

    shape: of an example, (C, *space). c_out: channels of the last block, cell.width where it is not given. kernel: of the
    stem; without one, space is flattened into channels first, with one the head takes the mean over space. The stem is a
    weight layer and, as `cell.stem_norm` says, a normalization; the head a linear layer, before which `cell.head_norm` may
    put one. Before the mean over space stands what `cell.after_blocks` says. residual: `blocks` ends in a sum with what its
    last block began with, and what `cell.after_sum` says. ValueError for what cannot work.
    """
    channels, space = flow(cell, cell.width), len(kernel)
    last = flow(cell, cell.width if c_out is None else c_out)
    parts = OrderedDict()
    if not kernel:
        parts["flatten"] = Flatten()
    parts["stem"] = Weight(shape[0] if kernel else prod(shape), channels, kernel, init=cell.init)
    if cell.stem_norm != NONE:
        parts["stem_norm"] = normalization(cell, cell.stem_norm, channels, space)
    parts["blocks"] = blocks
    after = named_layers(cell, "after_blocks", last, space)
    if len(after):
        parts["after_blocks"] = after
    if kernel:
        *_, end = (each for each in blocks.modules() if isinstance(each, Block))
        ends = {f"order {cell.order}": end}
        if residual:  # the sum hides the branch
            ends = {f"after_sum = {cell.after_sum}": named_layers(cell, "after_sum", last, space)}
        _check_end(ends | {f"after_blocks = {cell.after_blocks}": after})
        parts["mean"] = MeanSpace()
    if cell.head_norm != NONE:
        parts["head_norm"] = normalization(cell, cell.head_norm, last, 0)
    parts["head"] = Weight(last, classes, init=cell.init)
    return nn.Sequential(parts)


def _passes_on(layer: nn.Module) -> bool:
    """Whether what a layer gives in evaluations is what it is given."""
    return isinstance(layer, Dropout | nn.Identity) or (isinstance(layer, nn.LeakyReLU) and layer.negative_slope == 1)


def _check_end(ends: Mapping[str, nn.Sequential]) -> None:
    """ValueError where the mean over space, which follows, would be the same of every example. ends: what acts last."""
    layers = [(layer, where) for where, end in ends.items() for layer in end]
    acting = reversed([each for each in layers if not _passes_on(each[0])])
    for layer, where in takewhile(lambda each: isinstance(each[0], Normalization), acting):  # which keep a mean of 0
        if isinstance(layer, GroupNorm) and layer.each_channel:
            raise ValueError(
                f"{where}: before the mean over space each channel is normalized over space, of which that leaves nothing "
                "but the shift, so that logits would ignore the example"
            )
