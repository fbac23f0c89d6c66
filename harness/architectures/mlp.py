"""Multilayer perceptron: stem, `depth` blocks of `width` units, linear head. Space is flattened into channels."""

from torch import nn

from harness.layers import block, network

CONVOLUTIONS = False
CONSTANT_WIDTH = True
PRODUCTS = 1


def build(cell, shape, classes):
    blocks = nn.Sequential(*(block(cell, cell.width, cell.width) for _ in range(cell.depth)))
    return network(cell, shape, classes, blocks)
