"""Join stores that were filled apart: `merge` copies the files of several stores into one. No source is changed.

A file's name stands for its content, so what is there already is not copied again. Only the times and machines of a
repeated trial are not in its name: where two files of one name have other bytes, the second one is kept beside the first
under a name that ends in a hash of its bytes. So no row is lost, and which store came first makes no difference to what
the merged one says, which follows from its rows.
"""

import contextlib
import hashlib
from collections.abc import Sequence
from typing import NamedTuple

from results.errors import StoreError, Vanished
from results.files import read_file, retrying, trials
from results.places import Place, at, over
from results.schema import SCHEMAS, columns_of
from results.store import Store
from results.thinning import is_thinned, mark_thinned


class Merge(NamedTuple):
    """What a merge did."""

    copied: int  # files
    there: int  # files that the target had already

    def __str__(self) -> str:
        return f"copied {self.copied:,} files, {self.there:,} were there already"


LEDGER = ".merged"  # folder in a store: what was copied into it, since a compaction gives its files other names


def merge(sources: Sequence[Store], target: Store) -> Merge:
    """Copy what `sources` hold into `target`, `runs` last. StoreError where one cannot be read or the target written.

    Every file is read and checked before the first is copied, so that a damaged source leaves the target as it was. A sweep
    may write to a source meanwhile: what is copied of its `runs` was listed first, when the rest of it was there.
    """
    for source in sources:
        source.check_there()
    target.check_writable()
    others = [source for source in sources if not at(source.path).same(source.path, target.path)]
    for source in others:
        for name in SCHEMAS:
            retrying(lambda source=source, name=name: _check(source, name))
    if any(map(is_thinned, others)):
        mark_thinned(target)
    known = _known(target)
    copied: list[str] = []
    there = sum(retrying(lambda source=source: _copy(source, target, known, copied)) for source in others)
    if copied:
        try:
            text = "\n".join(sorted(copied)) + "\n"
            place = target.path / LEDGER / f"{hashlib.sha256(text.encode()).hexdigest()[:16]}.txt"
            at(place).publish(at(place).stage(place, text.encode()), place)
        except OSError as error:
            raise StoreError(f"{target.path / LEDGER}: cannot be written: {error.strerror}") from None
    return Merge(len(copied), there)


def forget(store: Store) -> None:
    """Forget what was merged into a store, so that a merge brings it again: where files of it were lost."""
    for path in _ledger(store):
        with contextlib.suppress(FileNotFoundError):
            at(path).remove(path)


def _ledger(store: Store) -> list[Place]:
    return at(store.path).find(store.path / LEDGER, "*.txt")


class _Known(NamedTuple):
    """What a target says it has, and what it holds: it may have lost files, or be a copy that ends with the ledger."""

    entries: set[str]  # of the ledger
    trials: dict[str, set[str]]  # by table; empty without a ledger, which alone they are held against


def _known(target: Store) -> _Known:
    entries = {line for path in _ledger(target) for line in at(path).read(path).decode(errors="replace").splitlines()}
    tables = SCHEMAS if entries else ()
    return _Known(entries, {name: retrying(lambda name=name: trials(target.files(name), name)) for name in tables})


def _check(source: Store, name: str) -> None:
    for _ in over(lambda path: len(read_file(path, columns_of(name))), source.files(name)):
        pass


def _copy(source: Store, target: Store, known: _Known, copied: list[str]) -> int:
    """Copy the files of a store, add them to `copied`, give the number of those that were there.

    Vanished where a compaction of the source was faster.
    """
    runs = source.files("runs")
    there = 0
    for name in SCHEMAS:
        if name != "runs":
            there += _copy_files(source.files(name), target, name, known, copied)
    return there + _copy_files(runs, target, "runs", known, copied)


def _copy_files(paths: Sequence[Place], target: Store, name: str, known: _Known, copied: list[str]) -> int:
    """Copy files of a table that the target does not have, add them to `copied`, give the number of the others."""

    def copy(path: Place) -> bool:
        content = at(path).read(path)
        digest = hashlib.sha256(content).hexdigest()[:16]
        entry = f"{name}/{path.name} {digest}"
        places = [target.path / name / path.name, target.path / name / f"{path.stem}-{digest}.parquet"]
        told = entry in known.entries and trials([path], name) <= known.trials[name]
        if told or any(_holds(place, content) for place in places):
            return False
        read_file(path, columns_of(name))  # it may have come since all were checked
        place = places[at(places[0]).exists(places[0])]
        try:
            at(place).publish(at(place).stage(place, content), place)
        except OSError as error:
            raise StoreError(f"{place}: cannot be written: {error.strerror}") from None
        copied.append(entry)
        return True

    return sum(not new for new in over(copy, paths, beside=target.path))


def _holds(place: Place, content: bytes) -> bool:
    with contextlib.suppress(Vanished):  # where the target is compacted meanwhile
        return at(place).exists(place) and at(place).read(place) == content
    return False
