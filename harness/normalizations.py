"""Normalizations in the layout of harness/layout.py."""

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from grids import Cell
from harness.layout import Layer, copied, fold, unfold


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
        return copied(twin, s, **{name: getattr(self, name) for name in tensors})


def normalization(cell: Cell, name: str, channels: int, space: int) -> Layer:
    """The layer that an order, a stem or a head names, for activations with so many dimensions of space."""
    match name:
        case "bn":
            return BatchNorm(channels, space, cell.bn_momentum, cell.bn_eps)
    raise AssertionError(f"no normalization {name}")
