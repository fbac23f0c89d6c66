"""Networks, a file each; the file's name is the architecture's name. `build` finds the file and asks it for a network.

A file states `CONVOLUTIONS` (whether any weight layer has a kernel) and, if so, `CONSTANT_WIDTH = True` (every block has
cell.width channels), `UNITS` (how often a block has the layers of the order) and `PRODUCTS` (see harness.products). It
defines `build(cell, shape, classes)`: a torch module of the layers in harness.layers and harness.per_seed, from
(S, C, B, *space) to logits (S, classes, B). `network` puts `stem` and `head` around its `blocks`, and everything in `blocks`
that has weights comes from `block`, but for what `cell.after_sum` puts behind an addition. The paths of the parameters are
what their draws follow from, so a deeper network must keep the paths of a shallower one.
"""

import importlib
from math import ceil, sqrt

from torch import nn

from grids import Cell
from harness import plugins
from harness.layers import maps


def build(cell: Cell, shape: tuple[int, ...], classes: int) -> nn.Module:
    """The network of `cell` for examples of `shape` (C, *space), its tensors still without seeds and values."""
    if cell.maxout_width == "matched" and maps(cell) > 1:
        cell = cell.model_copy(update={"width": max(1, round(cell.width / sqrt(maps(cell))))})
    module = plugins.module("architectures", cell.architecture)
    module = module or importlib.import_module(f"harness.architectures.{cell.architecture}")
    return module.build(cell, shape, classes)


def dimensions(cell: Cell, shape: tuple[int, ...]) -> int:
    """Of space, for a network that halves it twice. ValueError where there is too little."""
    _, *space = shape
    if not space or min(space) < 4:
        raise ValueError(
            f"{cell.architecture} needs a space of at least 4 in each dimension to pool twice; examples have {shape}"
        )
    return len(space)


def halvings(depth: int, parts: int = 3) -> set[int]:
    """After which blocks, counted from 1, space is halved: a third and two thirds of them, rounded up; or other parts."""
    return {ceil(depth / parts), ceil(2 * depth / parts)}
