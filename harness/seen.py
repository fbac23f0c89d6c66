"""What of a data set a cell sees: `train_size` and `label_noise`, and whether the cell can be trained on it. No torch here.

Whoever has a cell and a data set asks `seen`; so data sets are handed around, and shared with workers, whole.
"""

from dataclasses import replace
from weakref import WeakKeyDictionary

import numpy as np

from grids import OWN, Cell
from harness import mirrors, names
from harness.datasets import Data, DataError

NOISE_SEED = 20_150_212  # of wrong labels, the same for all seeds and arms
WHOLE = (0, 0.0)

_parts: WeakKeyDictionary[Data, dict[tuple[int, float], Data]] = WeakKeyDictionary()


def seen(data: Data, cell: Cell) -> Data:
    """`data` with the training part that `cell` is trained on. Of data that is such a part already, the same.

    train_size: the first so many of the training part, whose order is by chance: smaller sizes are within larger ones.
    Standardisation stays that of the whole training part, so that an example has the same numbers at each size.
    label_noise: each training example has a fixed number in [0, 1) and a fixed other class, which is its label where
    the number is below the noise; so what is wrong at one level is wrong at each higher one. Validation and test
    examples keep their labels; what is measured on the training part is measured against the labels trained with.
    """
    part = cell.train_size, cell.label_noise
    if part == data.part:
        return data
    assert data.part == WHOLE, f"{data.name}: a part {data.part} is asked for another one, {part}"
    parts = _parts.setdefault(data, {})
    if part not in parts:
        parts[part] = _part(data, *part)
    return parts[part]


def _part(data: Data, train_size: int, label_noise: float) -> Data:
    """Images are a view of the whole set's, labels without noise too."""
    if problem := _too_large(train_size, data):
        raise DataError(problem)
    n = train_size or len(data.x_train)
    y = data.y_train
    if label_noise:
        rng = np.random.default_rng(NOISE_SEED)
        below = rng.random(len(y)) < label_noise
        other = (y + rng.integers(1, data.classes, len(y))) % data.classes
        y = np.where(below, other, y)
    return replace(data, x_train=data.x_train[:n], y_train=y[:n], part=(train_size, label_noise))


def misfit(cell: Cell, data: Data) -> str | None:
    """Why `cell` cannot be trained on `data`, in a line; None where it can."""
    name, examples, space = data.name, cell.train_size or len(data.x_train), data.shape[1:]
    if problem := _too_large(cell.train_size, data):
        return problem
    if cell.batch > examples:
        part = f"train_size = {cell.train_size}" if cell.train_size else f"the training part of {name}"
        return f"batch = {cell.batch}: larger than {part} ({examples} examples)"
    if cell.label_noise and data.classes < 2:
        return f"label_noise = {cell.label_noise:g}: {name} has a single class"
    if cell.shift and not space:
        return f"shift = {cell.shift}: examples of {name} have no space to be shifted in"
    if cell.shift and cell.shift >= min(space):
        return f"shift = {cell.shift}: must be less than {min(space)}, the smallest dimension of {name}"
    if cell.flip and not data.flips:
        flipping = ", ".join(filter(mirrors, names("datasets")))
        return (
            f"flip = true: the mirror image of an example of {name} may be of another class, or of none; "
            f"there are {flipping}, and {OWN} files in which `flips` is true"
        )
    return None


def _too_large(train_size: int, data: Data) -> str | None:
    if train_size > len(data.x_train):
        return f"train_size = {train_size}: larger than the training part of {data.name} ({len(data.x_train)} examples)"
    return None
