"""Network in network (Lin et al. 2013, arXiv:1312.4400), in 1-D or 2-D: a block is a perceptron that slides over space.

Stem, `depth` blocks of a 3-wide unit and two 1-wide ones, maximum pooling after a third and two thirds of the blocks
(rounded up), global average pooling. Ours: one width for all of it, and a linear head behind the average, where theirs
averages a last block's map of each class.
"""

from torch import nn

from harness.architectures import dimensions, halvings
from harness.layers import block, network

CONVOLUTIONS = True
UNITS = 3
PRODUCTS = 5


def build(cell, shape, classes):
    c, space = cell.width, dimensions(cell, shape)
    wide, point = (3,) * space, (1,) * space
    blocks = [
        nn.Sequential(
            block(cell, c, c, wide), block(cell, c, c, point), block(cell, c, c, point, pool=i in halvings(cell.depth))
        )
        for i in range(1, cell.depth + 1)
    ]
    return network(cell, shape, classes, nn.Sequential(*blocks), c, wide)
