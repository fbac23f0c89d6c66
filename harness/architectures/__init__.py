"""Networks, a file each; the file's name is the architecture's name. `build` finds the file and asks it for a network.

A file states `CONVOLUTIONS` (whether any weight layer has a kernel) and, if so, `CONSTANT_WIDTH = True` (every block has
cell.width channels); it defines `build(cell, shape, classes)`: a torch module of the layers in harness.layers, from
(S, C, B, *space) to logits (S, classes, B). `network` puts `stem` and `head` around its `blocks`, and
everything in `blocks` that has weights comes from `block`. The paths of the parameters are what their draws follow
from, so a deeper network must keep the paths of a shallower one.
"""

import importlib
from math import sqrt

from torch import nn

from grids import Cell
from harness.layers import maps


def build(cell: Cell, shape: tuple[int, ...], classes: int) -> nn.Module:
    """The network of `cell` for examples of `shape` (C, *space), its tensors still without seeds and values."""
    if cell.maxout_width == "matched" and maps(cell) > 1:
        cell = cell.model_copy(update={"width": max(1, round(cell.width / sqrt(maps(cell))))})
    return importlib.import_module(f"harness.architectures.{cell.architecture}").build(cell, shape, classes)
