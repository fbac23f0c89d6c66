"""Blocks with several paths: the sum of a residual block, the channels of parallel branches side by side.

The units of a path come from `harness.layers.block`, so the order acts inside of it; what joins the paths neither
normalises nor activates. What follows the addition of a residual block is the recipe field `after_sum`, whatever the order.
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import nn

from grids import Cell
from harness.layers import block, flow, named_layers
from harness.layout import Layer, channels_last, fold, unfold


def side_by_side(parts: Sequence[torch.Tensor], groups: int) -> torch.Tensor:
    """Channels of each group next to one another: several (B, groups · C_i, *space) -> (B, groups · sum of C_i, *space)"""
    pieces = zip(*(part.chunk(groups, 1) for part in parts), strict=True)
    return torch.cat([piece for group in pieces for piece in group], 1)


class Join(Layer):
    """The outputs of parallel branches as one: a list of (S, maps · C_i, B, *space) -> (S, maps · sum of C_i, B, *space).

    maps: of which maxout is still to take the maximum. A channel keeps its place in each of them.
    """

    def __init__(self, maps: int):
        super().__init__()
        self.maps = maps

    def forward(self, parts):
        joined = side_by_side([fold(part) for part in parts], len(parts[0]) * self.maps)
        return unfold(joined, parts[0])

    def solo(self, s):
        return _JoinTwin(self.maps)


class _JoinTwin(nn.Module):
    """A list of (B, maps · C_i, *space) -> (B, maps · sum of C_i, *space)"""

    def __init__(self, maps: int):
        super().__init__()
        self.maps = maps

    def forward(self, parts):
        return torch.cat([part.unflatten(1, (self.maps, -1)) for part in parts], 2).flatten(1, 2)


class Parallel(nn.Module):
    """Branches that see the same input, their outputs side by side over channels."""

    def __init__(self, cell: Cell, branches: Sequence[nn.Module]):
        super().__init__()
        self.branches = nn.ModuleList(branches)
        self.join = Join(flow(cell, 1))

    def forward(self, x):
        return self.join([branch(x) for branch in self.branches])


class Shortcut(Layer):
    """Past a branch with a stride of 2: (S, maps · C_in, B, *space) -> (S, maps · C_out, B, *space / 2), C_out > C_in.

    Channels are padded with zeros, as in option A of He et al. 2015 (arXiv:1512.03385): a shortcut without parameters,
    which no initial weights, normalization or order can touch. Space is halved by the average of windows of 2 instead of
    taking each second place, which would drop three quarters of an image (He et al. 2018, arXiv:1812.01187, ResNet-D); of
    an odd size the last window is smaller, as a convolution of stride 2 has it.
    """

    def __init__(self, space: int, maps: int, c_in: int, c_out: int):
        super().__init__()
        self.space, self.maps, self.more = space, maps, c_out - c_in

    def forward(self, x):
        mean = (F.avg_pool1d, F.avg_pool2d)[self.space - 1](fold(x), 2, ceil_mode=True)
        groups = len(x) * self.maps
        zeros = channels_last(mean.new_zeros(len(mean), groups * self.more, *mean.shape[2:]))
        return unfold(side_by_side([mean, zeros], groups), x)

    def solo(self, s):
        return _ShortcutTwin(self.space, self.maps, self.more)


class _ShortcutTwin(nn.Module):
    """(B, maps · C_in, *space) -> (B, maps · C_out, *space / 2)"""

    def __init__(self, space: int, maps: int, more: int):
        super().__init__()
        self.mean, self.maps, self.more = (nn.AvgPool1d, nn.AvgPool2d)[space - 1](2, ceil_mode=True), maps, more

    def forward(self, x):
        x = self.mean(x).unflatten(1, (self.maps, -1))  # (B, maps, C_in, *space / 2)
        return F.pad(x, [0, 0] * (x.ndim - 3) + [0, self.more]).flatten(1, 2)


class Sum(nn.Module):
    """shortcut(x) + branch(x), and then what `cell.after_sum` names: (S, flow(c), B, *space), both ways.

    c: channels of what the branch gives. space: its dimensions. shortcut: x itself where there is none.
    """

    def __init__(self, cell: Cell, branch: nn.Module, c: int, space: int, shortcut: nn.Module | None = None):
        super().__init__()
        self.branch, self.shortcut = branch, shortcut or nn.Identity()
        self.after = named_layers(cell, "after_sum", flow(cell, c), space)

    def forward(self, x):
        return self.after(self.shortcut(x) + self.branch(x))


class Residual(Sum):
    """A sum around two units, whose shortcut may halve space: (S, flow(c_in), B, *space) -> (S, flow(c_out), ...).

    The branch is two units of the order; `cell.branch_end` says what the last one keeps behind its weight. He et al. 2015
    have order weight-bn-act, branch_end norm, after_sum act; their full pre-activation of 2016 (arXiv:1603.05027) is order
    bn-act-weight with after_blocks bn-act, their batch normalization after the addition branch_end weight, after_sum bn-act.
    """

    def __init__(self, cell: Cell, c_in: int, c_out: int, kernel: tuple[int, ...] = (), stride: int = 1):
        space = len(kernel)
        branch = nn.Sequential(
            block(cell, c_in, c_out, kernel, stride), block(cell, c_out, c_out, kernel, end=cell.branch_end)
        )
        shortcut = None if stride == 1 else Shortcut(space, flow(cell, 1), c_in, c_out)
        super().__init__(cell, branch, c_out, space, shortcut)
