"""CIFAR-10 (Krizhevsky 2009, Learning Multiple Layers of Features from Tiny Images): 50,000 + 10,000 colour images of
32×32 pixels, 10 classes.

Its binary version: six files of 10,000 rows, each a byte for the class and 3,072 for the pixels (red, green, blue). They
are looked for in the folder cifar-10-batches-bin of $NORMORDER_DATA (or of ~/.cache/normorder), else unpacked there from
cifar-10-binary.tar.gz, which lies beside it or is downloaded, and must have the SHA-256 given here. Of the files, no
checksum was found to compare with: they must have that size, and as many images of each class as are published.
"""

import contextlib
import hashlib
import tarfile
import tempfile
import zlib
from pathlib import Path

import numpy as np

from harness.datasets import DataError, Examples, data_home
from harness.datasets._files import find_or_download

FLIPS = True  # no class is another one in a mirror
SOURCE = "https://www.cs.toronto.edu/~kriz/cifar-10-binary.tar.gz"
SHA256 = "c4a38c50a1bc5f3a1c5537f2155ab9d68f9f25eb1ed8d9ddda3db29a59bca1dd"
FOLDER = "cifar-10-batches-bin"
TRAIN, TEST = tuple(f"data_batch_{i}.bin" for i in range(1, 6)), "test_batch.bin"
ROWS, CLASSES, SHAPE = 10_000, 10, (3, 32, 32)
ROW = 1 + 3 * 32 * 32  # bytes


def load():
    folder = data_home() / FOLDER
    if not folder.exists():
        otherwise = f"put it, or its folder {FOLDER}, into $NORMORDER_DATA"
        _unpack(find_or_download(SOURCE, SHA256, [data_home()], otherwise), folder)
    (*train, test) = (_read(folder / name) for name in (*TRAIN, TEST))
    x, y = (np.concatenate(arrays) for arrays in zip(*train, strict=True))
    for labels in (y, test[1]):
        if (np.bincount(labels, minlength=CLASSES) != len(labels) // CLASSES).any():
            raise DataError(f"{folder}: not CIFAR-10, which has equally many images of each class")
    return Examples(x, y, *test, classes=CLASSES)


def _read(path: Path) -> tuple[np.ndarray, np.ndarray]:
    """Images (ROWS, 3, 32, 32) and classes (ROWS,) of a file, uint8."""
    try:
        if (size := path.stat().st_size) != ROWS * ROW:
            raise DataError(f"{path}: {size:,} bytes where a file of CIFAR-10 has {ROWS * ROW:,}")
        table = np.frombuffer(path.read_bytes(), np.uint8).reshape(ROWS, ROW)
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror or error}") from None
    labels = table[:, 0]
    if labels.max() >= CLASSES:
        raise DataError(f"{path}: class {labels.max()} in row {labels.argmax()}; classes are 0 to {CLASSES - 1}")
    return table[:, 1:].reshape(ROWS, *SHAPE), labels


def _unpack(archive: Path, folder: Path) -> None:
    """Write the six files of the archive into `folder`, which appears whole. Paths in the archive decide nothing."""
    try:
        with archive.open("rb") as file:
            if hashlib.file_digest(file, "sha256").hexdigest() != SHA256:
                raise DataError(f"{archive}: wrong checksum, so not the archive of CIFAR-10")
        with tempfile.TemporaryDirectory(prefix=".cifar-10-", dir=folder.parent) as scratch:
            whole = Path(scratch) / FOLDER
            whole.mkdir()
            with tarfile.open(archive) as packed:
                for name in (*TRAIN, TEST):
                    (whole / name).write_bytes(packed.extractfile(f"{FOLDER}/{name}").read())
            with contextlib.suppress(OSError):  # another process was first
                whole.rename(folder)
            folder.stat()
    except (OSError, EOFError, zlib.error, tarfile.TarError, KeyError, AttributeError) as error:
        reason = getattr(error, "strerror", None) or error
        raise DataError(f"{archive}: cannot be unpacked into {folder}: {reason}") from None
