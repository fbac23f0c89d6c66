"""Fashion-MNIST at a size for studies of convolutional networks on two cores: its first 10,000 training images and all of
its 10,000 test images, each of 14×14 pixels, the means of 2×2 of the original ones.

A convolution has a quarter of the multiplications that it has at 28×28, an epoch a twenty-fourth of those of an epoch over
all images. The test set stays whole, since the standard error that it adds to an accuracy depends on its size.
"""

import numpy as np

from harness.datasets import fashion_mnist

FLIPS = True  # as in fashion_mnist
TRAIN = 10_000


def load():
    whole = fashion_mnist.load()
    x_train, y_train = _halved(whole.x_train[:TRAIN]), whole.y_train[:TRAIN]
    return whole._replace(x_train=x_train, y_train=y_train, x_test=_halved(whole.x_test))


def _halved(x: np.ndarray) -> np.ndarray:
    """Means of 2×2 pixels, float32, exact: (N, 1, 28, 28) -> (N, 1, 14, 14)"""
    n, c, height, width = x.shape
    return x.reshape(n, c, height // 2, 2, width // 2, 2).mean((3, 5), dtype=np.float32)
