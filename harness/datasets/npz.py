"""A data set of a user's own: `npz:NAME` in a grid is the file NAME.npz in $NORMORDER_DATA (or in ~/.cache/normorder).

Its arrays: x_train and x_test, numbers (N, C), (N, C, L) or (N, C, H, W); y_train and y_test, whole numbers from 0 (N,).
If it likes, `classes`, their number (otherwise those that occur in y_train, without a gap), and `flips`, true where the
mirror image of an example is of the same class. The validation part is cut from the training examples, as everywhere.
"""

from pathlib import Path

import numpy as np

from grids import LARGEST as MOST_CLASSES
from grids import own_file_error
from harness.datasets import DataError, Examples, data_home
from harness.datasets._files import arrays

NEEDED, OPTIONAL = ("x_train", "y_train", "x_test", "y_test"), ("classes", "flips")
FEWEST = 10  # training examples: of fewer, the validation part would have none
LARGEST = 1e30  # of the numbers: their squares fit float64, whatever their number
DIMENSIONS = (2, 3, 4)


def load(name: str) -> Examples:
    if error := own_file_error(name):
        raise DataError(f"data set npz:{name}: {error}")
    path = data_home() / f"{name}.npz"
    try:
        file = arrays(path, NEEDED, OPTIONAL)
    except ValueError as error:
        raise DataError(
            f"{path}: cannot be read: {error}; it must be an .npz file with {', '.join(NEEDED)}, and no pickles"
        ) from None
    for part, fewest in (("train", FEWEST), ("test", 1)):
        _check(path, part, file[f"x_{part}"], file[f"y_{part}"], fewest)
    if file["x_train"].shape[1:] != file["x_test"].shape[1:]:
        shapes = " and ".join(str(file[x].shape[1:]) for x in ("x_train", "x_test"))
        raise DataError(f"{path}: examples of x_train and x_test have the shapes {shapes}; they must be equal")
    classes = _classes(path, file)
    flips = _scalar(path, file, "flips", "b", "true or false", False)
    if flips and file["x_train"].ndim == 2:
        raise DataError(f"{path}: flips is true, but examples (C,) without space have no mirror image")
    return Examples(*(file[name] for name in NEEDED), classes, flips)


def _check(path: Path, part: str, x: np.ndarray, y: np.ndarray, fewest: int) -> None:
    """DataError for examples and labels that no training could use."""
    if x.dtype.kind not in "biuf":
        raise DataError(f"{path}: x_{part} is of type {x.dtype}; it must be numbers")
    if x.ndim not in DIMENSIONS or 0 in x.shape[1:]:
        raise DataError(f"{path}: x_{part} has shape {x.shape}; it must be (N, C), (N, C, L) or (N, C, H, W)")
    if len(x) < fewest:
        raise DataError(f"{path}: x_{part} has {len(x)} examples; there must be at least {fewest}")
    if x.dtype.kind == "f" and not (abs(float(x.min())) <= LARGEST and abs(float(x.max())) <= LARGEST):  # nor NaN
        raise DataError(f"{path}: x_{part} must have finite numbers, up to {LARGEST:g}")
    if y.dtype.kind not in "iu":
        raise DataError(f"{path}: y_{part} is of type {y.dtype}; it must be whole numbers, 0 to classes - 1")
    if y.shape != x.shape[:1]:
        raise DataError(f"{path}: y_{part} has shape {y.shape} where x_{part} has {len(x)} examples; it must be (N,)")
    if y.min() < 0:
        raise DataError(f"{path}: y_{part} has the class {y.min()}; classes are 0 to classes - 1")


def _classes(path: Path, file: dict[str, np.ndarray]) -> int:
    occurring = np.unique(file["y_train"])
    found = _scalar(path, file, "classes", "iu", "a whole number", len(occurring))
    if not 2 <= found <= MOST_CLASSES:
        raise DataError(f"{path}: {found} classes; there must be 2 to {MOST_CLASSES:,}")
    for y in ("y_train", "y_test"):
        if (largest := file[y].max()) >= found:
            where = "as `classes` says" if "classes" in file else "as many as occur in y_train"
            raise DataError(f"{path}: {y} has the class {largest}; there are 0 to {found - 1}, {where}")
    return found


def _scalar(path: Path, file: dict[str, np.ndarray], name: str, kinds: str, words: str, default: int | bool):
    """The single value of an optional array."""
    if name not in file:
        return default
    if file[name].shape != () or file[name].dtype.kind not in kinds:
        raise DataError(f"{path}: {name} must be {words}")
    return file[name].item()
