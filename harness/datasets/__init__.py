"""Data sets, a file each; the file's name is the data set's name. `load` finds the file and asks it for the examples.

A file defines `load()` -> Examples: all training examples (the validation part is cut here, in the same way for every
data set) and the test examples, as they come, not yet standardised. It states `FLIPS = True` where the mirror image of an
example is one of the same class. `npz:NAME` is the file NAME.npz of a user's own, by `npz.load(NAME)`.
"""

import hashlib
import importlib
import os
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import NamedTuple

import numpy as np

from grids import WrongUse
from harness import mirrors, plugins

VALIDATION_SHARE = 0.1
SPLIT_SEED = 20_150_211  # of the cut between training and validation examples, the same for every run
ROUNDING = 1e-12  # of a channel's mean: what varies by less is constant, in float64 and in every shorter type
AT_ONCE = 4096  # examples that are standardised together, in float64: all of CIFAR-10 would take gigabytes


class DataError(WrongUse):
    """One line: which file or data set, and what is wrong with it."""


class Examples(NamedTuple):
    """x (N, C, *space) of any number type, y (N,) of classes 0 to classes - 1. flips: as a data set's file states it."""

    x_train: np.ndarray
    y_train: np.ndarray
    x_test: np.ndarray
    y_test: np.ndarray
    classes: int
    flips: bool = False


@dataclass(frozen=True, eq=False)
class Data:
    """What trainings see. x float32 (N, C, *space), standardised with the training part's mean and sd of each channel."""

    name: str
    x_train: np.ndarray
    y_train: np.ndarray  # int64 (N,)
    x_val: np.ndarray
    y_val: np.ndarray
    x_test: np.ndarray
    y_test: np.ndarray
    classes: int
    checksum: str  # 16 hexadecimal digits of the SHA-256 of all arrays of the whole set
    flips: bool = False  # whether mirror images are of the same class
    part: tuple[int, float] = (
        0,
        0.0,
    )  # train_size and label_noise of the cells that see this; the whole set by default

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of one example: (C, *space)."""
        return self.x_train.shape[1:]


def load(name: str) -> Data:
    """The data set `name`, split and standardised. DataError where a file is missing or is not what it should be."""
    kind, *file = name.split(":", 1)
    if plugin := plugins.module("datasets", kind):
        examples = _of_plugin(kind, plugin)
    else:
        examples = importlib.import_module(f"harness.datasets.{kind}").load(*file)
    return prepare(name, examples._replace(flips=examples.flips or mirrors(kind)))


def _of_plugin(name: str, plugin: ModuleType) -> Examples:
    """What its load gives. DataError where it fails or gives something else."""
    try:
        examples = plugin.load()
    except Exception as error:  # whatever it does
        raise DataError(f"plug-in {name}: load() failed: {type(error).__name__}: {error}") from None
    if not isinstance(examples, Examples):
        raise DataError(f"plug-in {name}: load() must give harness.datasets.Examples, not {type(examples).__name__}")
    return examples


def prepare(name: str, examples: Examples) -> Data:
    """Cut the validation part by a fixed seed, standardise everything with the training part's statistics."""
    x, y, x_test, y_test, classes, flips = examples
    permutation = np.random.default_rng(SPLIT_SEED).permutation(len(x))
    held_out = round(len(x) * VALIDATION_SHARE)
    val, train = np.sort(permutation[:held_out]), permutation[held_out:]
    axes = (0, *range(2, x.ndim))
    mean = x[train].mean(axis=axes, keepdims=True, dtype=np.float64)
    sd = x[train].std(axis=axes, keepdims=True, dtype=np.float64)
    sd = np.where(sd <= ROUNDING * np.abs(mean), 1, sd)

    def standardised(part: np.ndarray) -> np.ndarray:
        scaled = np.empty(part.shape, np.float32)
        with np.errstate(over="ignore"):  # what float32 does not hold is told
            for start in range(0, len(part), AT_ONCE):
                scaled[start : start + AT_ONCE] = (part[start : start + AT_ONCE] - mean) / sd
        if not np.isfinite(scaled).all():
            raise DataError(f"data set {name}: a number is not finite, or too far from those of the training part")
        return scaled

    def classes_of(part: np.ndarray) -> np.ndarray:
        if len(part) and not (part.min() >= 0 and part.max() < classes and (part == np.round(part)).all()):
            raise DataError(f"data set {name}: a class must be one of 0 to {classes - 1}")
        return np.ascontiguousarray(part, dtype=np.int64)

    arrays = [
        *(standardised(x[train]), classes_of(y[train])),
        *(standardised(x[val]), classes_of(y[val])),
        *(standardised(x_test), classes_of(y_test)),
    ]
    checksum = hashlib.sha256()
    for array in arrays:
        checksum.update(array.data)
    return Data(name, *arrays, classes=classes, checksum=checksum.hexdigest()[:16], flips=flips)


def data_home() -> Path:
    """Where generated and downloaded data are kept: $NORMORDER_DATA, else ~/.cache/normorder."""
    return Path(os.environ.get("NORMORDER_DATA") or Path.home() / ".cache" / "normorder").expanduser()
