"""Residual multilayer perceptron: stem, `depth` residual blocks of two units of `width`, linear head. Space is flattened."""

from torch import nn

from harness.branches import Residual
from harness.layers import network

CONVOLUTIONS = False
CONSTANT_WIDTH = True
UNITS = 2
PRODUCTS = 2


def build(cell, shape, classes):
    blocks = nn.Sequential(*(Residual(cell, cell.width, cell.width) for _ in range(cell.depth)))
    return network(cell, shape, classes, blocks, residual=True)
