"""MNIST-1D (Greydanus 2020, arXiv:2011.14439): 40 points of a shifted, scaled, noisy digit-like curve, 10 classes.

The standard 4,000 training examples (package mnist1d, its default arguments, seed 42), and 10,000 test examples by the
same generator with another seed: with the usual 1,000, most of the spread of accuracy differences would come from the
test set. Generating takes seconds, so the arrays are kept in `data_home()` with a checksum.
"""

import hashlib
import random
import uuid

import numpy as np

from harness.datasets import DataError, Examples, data_home
from harness.datasets._files import arrays

TRAIN, TEST, TEST_SEED = 4000, 10_000, 1042
NAMES = ("x_train", "y_train", "x_test", "y_test")
VERSION = "0.0.2.post1"  # of the package's generator that made the file


def load():
    path = data_home() / f"mnist1d-{VERSION}-{TRAIN}-{TEST}.npz"
    if not path.exists():
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            _generate(path)
        except OSError as error:
            raise DataError(f"{path}: cannot be written: {error.strerror}") from None
    try:
        file = arrays(path, (*NAMES, "sha256"))
    except ValueError as error:
        raise DataError(f"{path}: not the generated MNIST-1D ({error}); delete it to have it made again") from None
    made = [file[name] for name in NAMES]
    if str(file["sha256"]) != _sha256(made):
        raise DataError(f"{path}: wrong checksum; delete it to have it made again")
    return Examples(*made, classes=10)


def _sha256(arrays: list[np.ndarray]) -> str:
    return hashlib.sha256(b"".join(array.tobytes() for array in arrays)).hexdigest()


def _generate(path) -> None:
    from mnist1d.data import get_dataset_args, make_dataset  # imports matplotlib, which costs a second

    args = get_dataset_args()
    python_state, numpy_state = random.getstate(), np.random.get_state()  # noqa: NPY002 the package seeds them
    try:
        standard = make_dataset(args)
        args.num_samples, args.train_split, args.seed = TEST, 0.0, TEST_SEED
        other = make_dataset(args)
    finally:
        random.setstate(python_state)
        np.random.set_state(numpy_state)  # noqa: NPY002
    # Each set comes divided by its own sd, which shows in `t`; put the test set in the units of the training set.
    # Its mean was subtracted too: of 400,000 numbers, so the shift between the sets is some thousandths of an sd.
    x_test = other["x_test"] * (standard["t"][-1] / other["t"][-1])
    made = [standard["x"], standard["y"], x_test, other["y_test"]]
    made = [np.ascontiguousarray(a[:, None] if a.ndim == 2 else a, a.dtype) for a in made]  # (N, 1, 40), (N,)
    made = [a.astype(np.float32) if a.dtype == np.float64 else a.astype(np.int64) for a in made]
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex}.tmp.npz")
    np.savez_compressed(temporary, **dict(zip(NAMES, made, strict=True)), sha256=_sha256(made))
    temporary.replace(path)
