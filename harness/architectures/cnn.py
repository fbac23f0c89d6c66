"""Plain convolutional network in the manner of VGG (Simonyan and Zisserman 2015, arXiv:1409.1556), in 1-D or 2-D.

Stem, `depth` blocks of 3-wide convolutions, maximum pooling after a third and two thirds of them (rounded up), after
which the channels double; global average pooling and a linear head.
"""

from torch import nn

from harness.architectures import dimensions, halvings
from harness.layers import block, network

CONVOLUTIONS = True
PRODUCTS = 9


def build(cell, shape, classes):
    kernel, c, blocks = (3,) * dimensions(cell, shape), cell.width, []
    pool_after = halvings(cell.depth)
    for i in range(1, cell.depth + 1):
        wide = c * 2 if i - 1 in pool_after else c
        blocks.append(block(cell, c, wide, kernel, pool=i in pool_after))
        c = wide
    return network(cell, shape, classes, nn.Sequential(*blocks), c, kernel)
