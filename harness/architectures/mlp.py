"""Multilayer perceptron: stem, `depth` blocks of `width` units, linear head. Space is flattened into channels."""

from collections import OrderedDict
from math import prod

from torch import nn

from harness.layers import Flatten, Weight, block, flow

CONVOLUTIONS = False
CONSTANT_WIDTH = True


def build(cell, shape, classes):
    c = flow(cell, cell.width)
    return nn.Sequential(
        OrderedDict(
            flatten=Flatten(),
            stem=Weight(prod(shape), c),
            blocks=nn.Sequential(*(block(cell, cell.width, cell.width) for _ in range(cell.depth))),
            head=Weight(c, classes),
        )
    )
