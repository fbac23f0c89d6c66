"""Normalizations in the layout of harness/layout.py, by the names that orders give them.

Each takes a mean and a variance over some numbers, and then has a scale and a shift for each channel, unless
`affine = false`:

| name | over | of |
|---|---|---|
| bn | batch and space | each channel (Ioffe and Szegedy 2015, arXiv:1502.03167); in evaluation by running averages |
| ln | channels and space | each example (Ba, Kiros and Hinton 2016, arXiv:1607.06450) |
| gn | the channels of a group and space | each example (Wu and He 2018, arXiv:1803.08494) |
| in | space | each channel of each example (Ulyanov, Vedaldi and Lempitsky 2016, arXiv:1607.08022) |
| rms | channels and space | each example, no mean and no shift (Zhang and Sennrich 2019, arXiv:1910.07467) |
"""

from math import gcd, prod

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from grids import Cell
from harness.layout import Layer, channels_last, copied, fold, unfold

FEW = 8  # channels of a group, below which images are normalised faster with each channel's space together in memory


class Normalization(Layer):
    """What all of them share: (S, C, B, *space) -> the same; where `affine`, a scale (1) and a shift (0) a channel.

    `space` counts the dimensions of *space.
    """

    SHIFTS = True

    def __init__(self, channels: int, space: int = 0, eps: float = 1e-5, affine: bool = True):
        super().__init__()
        self.channels, self.space, self.eps, self.affine = channels, space, eps, affine
        for name, there in (("weight", affine), ("bias", affine and self.SHIFTS)):
            if there:
                self.declare(name, channels)
            else:
                self.register_parameter(name, None)

    def draw(self, name, shape, rng):
        return np.ones(shape) if name in ("weight", "running_var") else np.zeros(shape)

    def flat(self) -> tuple[torch.Tensor | None, torch.Tensor | None]:
        """Scale and shift for torch's kernels, to which seeds are more channels: (S·C,), (S·C,)"""
        return tuple(None if each is None else each.view(-1) for each in (self.weight, self.bias))

    def twin(self, s: int, module: nn.Module) -> nn.Module:
        """`module` with this layer's tensors of seed s."""
        return copied(module, s, **self.state_dict())


class BatchNorm(Normalization):
    """bn. `momentum` is the share of a batch in the running averages, of which the variance is the unbiased one."""

    def __init__(self, channels: int, space: int = 0, momentum: float = 0.1, eps: float = 1e-5, affine: bool = True):
        super().__init__(channels, space, eps, affine)
        self.momentum = momentum
        self.declare("running_mean", channels, buffer=True)
        self.declare("running_var", channels, buffer=True)

    def forward(self, x):
        if self.training and x.ndim == 3:
            return self._over_rows(x)
        averages = self.running_mean.view(-1), self.running_var.view(-1)
        return unfold(F.batch_norm(fold(x), *averages, *self.flat(), self.training, self.momentum, self.eps), x)

    def _over_rows(self, x: torch.Tensor) -> torch.Tensor:
        """Where there is no space, the batch of a channel is a row of memory, and so a group of group normalization.

        Its kernels are the faster ones: (20, 64, 100) forward 74 against 178 µs, with backward 170 against 288 (minima of 7
        on one core of an AVX512 x86).
        """
        s, c, b = x.shape
        if b == 1:
            raise ValueError("bn without space needs a batch of at least 2 examples: of one the variance is unknown")
        rows = x.reshape(1, s * c, b).contiguous()  # the mean over images gives none
        y, mean, rstd = torch.native_group_norm(rows, *self.flat(), 1, s * c, b, s * c, self.eps)
        with torch.no_grad():
            variance = (rstd.pow(-2) - self.eps).abs() * (b / (b - 1))  # rounding may leave −1e-12 where it is 0
            self.running_mean.lerp_(mean.view(s, c), self.momentum)
            self.running_var.lerp_(variance.view(s, c), self.momentum)
        return y.view(s, c, b)

    def solo(self, s):
        kind = nn.BatchNorm2d if self.space == 2 else nn.BatchNorm1d
        return self.twin(s, kind(self.channels, self.eps, self.momentum, self.affine))


class GroupNorm(Normalization):
    """ln (one group), gn, and in (a group for each channel).

    ValueError where a group is a single number of each example: whatever that is, it would become 0.
    """

    def __init__(self, groups: int, channels: int, space: int = 0, eps: float = 1e-5, affine: bool = True):
        super().__init__(channels, space, eps, affine)
        self.groups, self.size = groups, channels // groups
        if not space and self.size == 1:
            self._refuse()

    @property
    def each_channel(self) -> bool:
        """Whether the mean over space of what it gives does not depend on the example."""
        return self.size == 1

    def _refuse(self) -> None:
        raise ValueError(
            f"normalization of {self.channels} channels in {self.groups} groups without space: of each example a group "
            "would be one number, which becomes 0; it needs more channels a group, or space, which 'in' always needs"
        )

    def forward(self, x):
        if x.ndim == 3:
            return _standardised(x, self.groups, self.weight, self.bias, self.eps, centred=True)
        if self.size * prod(x.shape[3:]) == 1:
            self._refuse()
        images, groups = fold(x), len(x) * self.groups
        if x.ndim == 5 and self.size < FEW:
            # Measured forward and backward at (100, 16, 28, 28), minima of 15 on one core: 8 groups 7.5 against 9.9 ms, 16
            # groups 8.6 against 18.2, but 2 groups 8.1 against 2.6.
            return unfold(channels_last(F.group_norm(images.contiguous(), groups, *self.flat(), self.eps)), x)
        return unfold(F.group_norm(images, groups, *self.flat(), self.eps), x)

    def solo(self, s):
        if self.each_channel:
            kind = nn.InstanceNorm2d if self.space == 2 else nn.InstanceNorm1d
            return self.twin(s, kind(self.channels, self.eps, affine=self.affine))
        return self.twin(s, nn.GroupNorm(self.groups, self.channels, self.eps, self.affine))


class RMSNorm(Normalization):
    """rms: divided by the root of the mean square, and scaled."""

    SHIFTS = False

    def forward(self, x):
        return _standardised(x, 1, self.weight, None, self.eps, centred=False)

    def solo(self, s):
        kind = _RMSNormTwin if self.space else nn.RMSNorm
        return self.twin(s, kind(self.channels, self.eps, self.affine))


class _RMSNormTwin(nn.RMSNorm):
    """torch.nn has none with a scale for each channel of several numbers. (B, C, *space) -> the same"""

    def forward(self, x):
        y = F.rms_norm(x, x.shape[1:], eps=self.eps)
        return y if self.weight is None else y * self.weight.view(-1, *[1] * (x.ndim - 2))


def _standardised(x, groups, weight, bias, eps, centred):
    """Over space and the channels of each group, of each example of (S, C, B, *space)."""
    per_channel = (len(x), groups, -1, *[1] * (x.ndim - 2))  # (S, G, C/G, 1, ...)
    weight, bias = (None if each is None else each.view(per_channel) for each in (weight, bias))
    grouped = x.unflatten(1, (groups, -1))  # (S, G, C/G, B, *space)
    return _Standardise.apply(grouped, weight, bias, eps, centred, (2, *range(4, grouped.ndim))).flatten(1, 2)


class _Standardise(torch.autograd.Function):
    """weight · (x − mean) / sqrt(variance + eps) + bias, mean and variance over `dims`; not `centred`: mean 0.

    torch's kernels want the numbers of a group together in memory, which they are not where the batch is the last axis.
    Forward and backward at (20, 64, 100), in one group: these operations 0.48 ms, under autograd 0.62, layer_norm of the
    transposed 0.86, group_norm of the folded 1.22 (minima of 15 on one core of an AVX512 x86).
    """

    @staticmethod
    def forward(ctx, x, weight, bias, eps, centred, dims):
        away = x - x.mean(dims, keepdim=True) if centred else x
        scale = (away * away).mean(dims, keepdim=True).add_(eps).rsqrt_()
        y = away * scale
        ctx.save_for_backward(y, scale, weight)
        ctx.centred, ctx.dims, ctx.shifts = centred, dims, bias is not None
        if weight is None:
            return y
        return y * weight if bias is None else torch.addcmul(bias, y, weight)

    @staticmethod
    def backward(ctx, gradient):
        y, scale, weight = ctx.saved_tensors
        examples = tuple(range(3, gradient.ndim))
        along = gradient * y
        of_weight = None if weight is None else along.sum(examples, keepdim=True)
        of_bias = gradient.sum(examples, keepdim=True) if ctx.shifts else None
        if weight is not None:
            gradient, along = gradient * weight, along * weight
        if ctx.centred:
            gradient = gradient - gradient.mean(ctx.dims, keepdim=True)
        of_x = torch.addcmul(gradient, y, along.mean(ctx.dims, keepdim=True), value=-1).mul_(scale)
        return of_x, of_weight, of_bias, None, None, None


def normalization(cell: Cell, name: str, channels: int, space: int) -> Normalization:
    """The layer that an order, a stem or a head names, for activations with so many dimensions of space."""
    fields = {"space": space, "eps": cell.bn_eps, "affine": cell.affine}
    match name:
        case "bn":
            return BatchNorm(channels, momentum=cell.bn_momentum, **fields)
        case "ln":
            return GroupNorm(1, channels, **fields)
        case "gn":
            return GroupNorm(gcd(cell.groups, channels), channels, **fields)
        case "in":
            return GroupNorm(channels, channels, **fields)
        case "rms":
            return RMSNorm(channels, **fields)
    raise AssertionError(f"no normalization {name}")
