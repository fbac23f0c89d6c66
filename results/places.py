"""Where files of a store lie, and the module that knows how to handle them there.

results/disk.py and results/objects.py have the same functions, but for what only one of them can do.
"""

import re
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import ModuleType
from typing import TypeVar

from results import disk, objects
from results.errors import StoreError

Place = Path | objects.Address  # of a store, of one of its tables or of a file

T = TypeVar("T")


def at(path: Place) -> ModuleType:
    """What lists, reads, writes and removes files there."""
    return disk if isinstance(path, Path) else objects


def locate(text: str | Path | objects.Address) -> Place:
    """The place of a store as users give it. StoreError where there can be none."""
    if isinstance(text, objects.Address):
        return text
    if not str(text):
        raise StoreError("an empty path: a store is a folder or s3://bucket/prefix")
    scheme = re.match(r"([A-Za-z][A-Za-z0-9+.-]*):/", str(text))
    if scheme is None or (scheme[1] != "s3" and "://" not in str(text)):
        return disk.locate(text)
    if not str(text).startswith(objects.SCHEME):
        one = "s3:/ with one slash" if scheme[1] == "s3" else f"{scheme[1]}://"
        raise StoreError(f"{one}: a store is a folder or {objects.SCHEME}bucket/prefix")
    return objects.locate(str(text))


def over(ask: Callable[[Place], T], paths: Iterable[Place], beside: Place | None = None) -> Iterator[T]:
    """ask(path) of each, in order; many at once where one of them, or `beside`, is an address: answers take round trips."""
    paths = list(paths)
    if not any(isinstance(path, objects.Address) for path in (*paths[:1], beside)):
        yield from map(ask, paths)
        return
    with ThreadPoolExecutor(objects.READERS) as pool:
        yield from pool.map(ask, paths)
