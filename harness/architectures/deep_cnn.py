"""Deep plain network that ends wide, in 1-D or 2-D: stem and `depth` blocks are depth + 1 convolutions, 3-wide.

Of Kanungo's article on the sequence of batch normalization and activation are 15 convolutions, 64 channels at the tenth and
a batch of 32: depth = 14, width = 64, batch = 32. The rest is ours: stem and first quarter of the blocks (rounded up) have
width / 4 channels, those up to the half width / 2, the others width (so 5 convolutions have 16, 3 have 32 and 7 have 64);
maximum pooling where the channels double, global average pooling and a linear head. Depths of 1 and 2 do not reach width.
"""

from torch import nn

from harness.architectures import dimensions, halvings
from harness.layers import block, network

CONVOLUTIONS = True
PRODUCTS = 0.6


def build(cell, shape, classes):
    kernel, pool_after = (3,) * dimensions(cell, shape), sorted(halvings(cell.depth, parts=4))
    narrow = c = max(1, cell.width // 4)
    blocks = []
    for i in range(1, cell.depth + 1):
        pooled = sum(i > end for end in pool_after)
        wide = max(1, cell.width // (4, 2, 1)[pooled])
        blocks.append(block(cell, c, wide, kernel, pool=i in pool_after))
        c = wide
    stem = cell.model_copy(update={"width": narrow})
    return network(stem, shape, classes, nn.Sequential(*blocks), c, kernel)
