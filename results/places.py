"""Where files of a store lie, and the module that knows how to handle them there."""

from pathlib import Path
from types import ModuleType

from results import disk

Place = Path  # of a store, of one of its tables or of a file


def at(path: Place) -> ModuleType:
    """What lists, reads, writes and removes files there."""
    return disk


def locate(text: str | Path) -> Place:
    """The place of a store as users give it. StoreError where there can be none."""
    return disk.locate(text)
