"""Inception blocks as in GoogLeNet (Szegedy et al. 2015, arXiv:1409.4842), in 1-D or 2-D.

A block has four branches, side by side over channels: a 1-wide unit; a 1-wide and a 3-wide one; a 1-wide and a 5-wide one;
3-wide maximum pooling of stride 1 and a 1-wide one. Each convolution is a unit of the order. Stem, `depth` blocks, maximum
pooling after a third and two thirds of them (rounded up), global average pooling and a linear head. Ours: one width for all
of it, of which each branch has a quarter (at least one channel), its 1-wide reduction too; no auxiliary classifiers.
"""

from torch import nn

from harness.architectures import dimensions, halvings
from harness.branches import Parallel
from harness.layers import MaxPool, block, network

CONVOLUTIONS = True
UNITS = 6
PRODUCTS = 1.4


def build(cell, shape, classes):
    space = dimensions(cell, shape)
    quarters = [max(1, (cell.width + rest) // 4) for rest in (3, 2, 1, 0)]
    c, blocks = cell.width, []
    for i in range(1, cell.depth + 1):
        blocks.append(_block(cell, c, quarters, space, pool=i in halvings(cell.depth)))
        c = sum(quarters)
    return network(cell, shape, classes, nn.Sequential(*blocks), c, (3,) * space)


def _block(cell, c_in, quarters, space, pool):
    """The maximum over windows of all branches is that of each, so every branch pools its own channels."""
    one, three, five = ((size,) * space for size in (1, 3, 5))
    a, b, c, d = quarters
    branches = [
        nn.Sequential(block(cell, c_in, a, one, pool=pool)),
        nn.Sequential(block(cell, c_in, b, one), block(cell, b, b, three, pool=pool)),
        nn.Sequential(block(cell, c_in, c, one), block(cell, c, c, five, pool=pool)),
        nn.Sequential(MaxPool(space, 3, 1, 1), block(cell, c_in, d, one, pool=pool)),
    ]
    return Parallel(cell, branches)
