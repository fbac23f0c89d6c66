"""Residual network (He et al. 2015, arXiv:1512.03385) of 3-wide convolutions, in 1-D or 2-D.

Stem, `depth` residual blocks of two units each, global average pooling and a linear head. After a third and two thirds of
the blocks (rounded up) the channels double and space is halved: by a stride of 2 in the next block's first unit.
"""

from torch import nn

from harness.architectures import dimensions, halvings
from harness.branches import Residual
from harness.layers import network

CONVOLUTIONS = True
UNITS = 2
PRODUCTS = 18


def build(cell, shape, classes):
    kernel, c, blocks = (3,) * dimensions(cell, shape), cell.width, []
    for i in range(cell.depth):
        stride = 2 if i in halvings(cell.depth) else 1
        blocks.append(Residual(cell, c, c * stride, kernel, stride))
        c *= stride
    return network(cell, shape, classes, nn.Sequential(*blocks), c, kernel, residual=True)
