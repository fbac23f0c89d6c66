"""Handwritten digits of 8×8 pixels (Alpaydin and Kaynak 1998), carried by scikit-learn: 1,797 images, 10 classes.

The last 20 % of the file (360 images) are the test set.
"""

from sklearn.datasets import load_digits

from harness.datasets import Examples

TEST = 360


def load():
    digits = load_digits()
    x, y = digits.images[:, None], digits.target  # (1797, 1, 8, 8)
    return Examples(x[:-TEST], y[:-TEST], x[-TEST:], y[-TEST:], classes=10)
