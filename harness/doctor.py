"""What works on this machine, and what to do about the rest."""

import os
import platform
import shutil
import sys
import time
from collections.abc import Callable, Iterator
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import NamedTuple

from grids import WrongUse
from harness import HERE, names
from harness.datasets import DataError, data_home, load
from harness.datasets._files import without_downloads
from harness.provenance import provenance
from results import Store, StoreError

LIBRARIES = ("torch", "ray", "numpy", "pyarrow", "pandas", "scipy", "statsmodels", "seaborn")
GB = 1e9
LEAST_FREE = 2 * GB  # of memory and of a disk, below which a word is due
CARRIED = ("npz",)  # what is no data set by itself


class Finding(NamedTuple):
    """state: 'works'; 'note', where something is less than it may be; 'fails'."""

    what: str
    state: str
    words: str


def examine(stores: Path, starts: Callable[[], int]) -> Iterator[Finding]:
    """What is found, one after the other. stores: the folder of stores. starts: starts Ray here and gives its slots."""
    yield _python()
    yield from map(_library, LIBRARIES)
    yield from _torch()
    yield _memory()
    yield from (_disk(what, folder) for what, folder in (("data folder", data_home()), ("stores", stores)))
    yield from map(_data, (name for name in names("datasets") if name not in CARRIED))
    yield from _stores(stores)
    yield _ray(starts)
    commit = provenance()["commit"]
    changed = " with changes" if commit.endswith("+") else ""
    told = f"commit {commit[:12]}{changed}" if commit else "not a git checkout"
    yield Finding("code", "works", f"{HERE.parent}, {told}")


def _python() -> Finding:
    fine = sys.version_info >= (3, 11)
    words = platform.python_version() + ("" if fine else ": 3.11 or later is needed")
    return Finding("Python", "works" if fine else "fails", words)


def _library(name: str) -> Finding:
    try:
        return Finding(name, "works", version(name))
    except PackageNotFoundError:
        return Finding(name, "fails", "is not installed: pip install -c constraints.txt -e .")


def _torch() -> Iterator[Finding]:
    try:
        import torch
    except (ImportError, OSError) as error:
        yield Finding("cores", "fails", f"torch cannot be imported: {error}")
        return
    allowed = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    capability = torch.backends.cpu.get_cpu_capability()
    yield Finding("cores", "works", f"{allowed} of {os.cpu_count()}, {platform.machine()}, {capability}")
    if torch.cuda.is_available():
        kinds = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
        yield Finding("GPUs", "works", f"{len(kinds)}: {', '.join(dict.fromkeys(kinds))}")
    else:
        yield Finding("GPUs", "note", "none that torch can use: trials run on cores")


def _memory() -> Finding:
    try:
        lines = (line.split() for line in Path("/proc/meminfo").read_text().splitlines())
        sizes = {name.rstrip(":"): 1024 * int(size) for name, size, *_ in lines}
        free, total = sizes["MemAvailable"], sizes["MemTotal"]
    except (OSError, KeyError, ValueError):
        return Finding("memory", "note", "cannot be told on this system")
    return Finding("memory", "works" if free > LEAST_FREE else "note", f"{free / GB:.1f} GB free of {total / GB:.1f}")


def _disk(what: str, folder: Path) -> Finding:
    there = folder
    while not there.exists():
        there = there.parent
    if not os.access(there, os.W_OK | os.X_OK):
        return Finding(what, "fails", f"{folder}: {there} cannot be written")
    free = shutil.disk_usage(there).free
    return Finding(what, "works" if free > LEAST_FREE else "note", f"{folder}, {free / GB:.1f} GB free")


def _data(name: str) -> Finding:
    try:
        with without_downloads():
            data = load(name)
    except DataError as error:
        return Finding(f"data set {name}", "note", str(error))
    except Exception as error:  # whatever its file does
        return Finding(f"data set {name}", "fails", f"{type(error).__name__}: {error}")
    sizes = " / ".join(f"{len(x):,}" for x in (data.x_train, data.x_val, data.x_test))
    return Finding(f"data set {name}", "works", f"{sizes} examples for training / validation / test")


def _stores(folder: Path) -> Iterator[Finding]:
    for path in sorted(folder.iterdir()) if folder.is_dir() else ():
        try:
            store = Store(path)
            store.check_there()
            finished, failed = store.fates()
        except StoreError as error:
            yield Finding(f"store {path.name}", "note", str(error))
            continue
        words = f"{len(finished):,} runs finished" + (f", {len(failed):,} failed" if failed else "")
        yield Finding(f"store {path.name}", "note" if failed else "works", words)


def _ray(starts: Callable[[], int]) -> Finding:
    begun = time.monotonic()
    try:
        slots = starts()
    except (WrongUse, ImportError, OSError) as error:
        return Finding("Ray", "fails", str(error))
    return Finding("Ray", "works", f"starts in {time.monotonic() - begun:.0f} s, with {slots} slots")
