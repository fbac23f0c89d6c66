"""Fashion-MNIST (Xiao et al. 2017, arXiv:1708.07747): 60,000 + 10,000 grey images of 28×28 pixels, 10 classes.

Looked for in $NORMORDER_DATA, then where Debian's package dataset-fashion-mnist puts it, else downloaded there (or to
~/.cache/normorder). Whatever the source, the unpacked files must have the SHA-256 given here.
"""

import gzip
import hashlib
import zlib
from pathlib import Path

import numpy as np

from harness.datasets import DataError, Examples, data_home
from harness.datasets._files import find_or_download

FLIPS = True  # a shirt in a mirror is a shirt; of shoes and bags, both sides occur
DEBIAN = Path("/usr/share/datasets/fashion-mnist")
SOURCE = "http://fashion-mnist.s3-website.eu-central-1.amazonaws.com/"
# By file, SHA-256 of the file as its authors publish it (packed; Debian packs anew) and of what is in it.
FILES = {
    "train-images-idx3-ubyte.gz": (
        "3aede38d61863908ad78613f6a32ed271626dd12800ba2636569512369268a84",
        "c59f468a2f672dc815687fe0f83887768d799fd8a3f3276145d20f83aa44d888",
    ),
    "train-labels-idx1-ubyte.gz": (
        "a04f17134ac03560a47e3764e11b92fc97de4d1bfaf8ba1a3aa29af54cc90845",
        "bad3541b69d912435c50bb6ba87bec294ff4f6a2e1246121d8633921760443d9",
    ),
    "t10k-images-idx3-ubyte.gz": (
        "346e55b948d973a97e58d2351dde16a484bd415d4595297633bb08f03db6a073",
        "5b4141f0afbad91edebe8549f8fcffe087ea10ca49f1dbef5c9a5cd8815ce37b",
    ),
    "t10k-labels-idx1-ubyte.gz": (
        "67da17c76eaffca5446c3361aaab5c3cd6d1c2608764d35dfb1850b086bf8dd5",
        "0402a96d92fd2663957122ceb108a494c5af83dab82d92729df917d7dec38c34",
    ),
}


def load():
    x_train, y_train, x_test, y_test = (_read(_find(name), name) for name in FILES)
    return Examples(x_train[:, None], y_train, x_test[:, None], y_test, classes=10)  # x (N, 1, 28, 28)


def _find(name: str) -> Path:
    """The file, downloaded if it is nowhere."""
    otherwise = "put it into $NORMORDER_DATA or install Debian's dataset-fashion-mnist"
    folders = (data_home() / "fashion-mnist", data_home(), DEBIAN)
    return find_or_download(SOURCE + name, FILES[name][0], folders, otherwise)


def _read(path: Path, name: str) -> np.ndarray:
    """An IDX file of bytes: (N, 28, 28) or (N,) uint8."""
    try:
        content = gzip.decompress(path.read_bytes())
    except (OSError, EOFError, zlib.error) as error:
        raise DataError(f"{path}: cannot be read: {error}") from None
    if hashlib.sha256(content).hexdigest() != FILES[name][1]:
        raise DataError(f"{path}: wrong checksum, so not the file of Fashion-MNIST")
    dimensions = content[3]
    shape = np.frombuffer(content, ">i4", count=dimensions, offset=4)
    return np.frombuffer(content, np.uint8, offset=4 + 4 * dimensions).reshape(shape)
