"""Keep a store small: `compact` merges the files of many trials into few large ones. `validate` is in validation.py.

Why no row is ever lost, whoever else compacts, sweeps, reads or crashes meanwhile:

1. The name of a merged file is a hash of the names of its inputs, which are hashes of content in their turn. So a name
   stands for one content, and writing it again, or over an equal one, changes nothing.
2. An input is removed only after it was read in full, after the file with all its rows has its name on the disk, and
   only if it is still the file that was read (a repeated trial may have taken its name with other times).
3. So at any time each row is in some file: when a file is removed, its rows are in the merged one, or, if that was
   removed too, in the one that it went into, and so on. That chain ends in a file that is there. It cannot come back
   to the removed one, since the name of each link is a hash over the name of the link before it.
4. A crash between writing and removing leaves rows twice, and so may two compactions at once. What a store says does
   not depend on how often a row is there.

On object storage there is no rename, and none is needed: a put is atomic, so 2 holds where the object with all rows is
there when its put returns, and is seen by every listing and reading that begins later (S3 is strongly consistent). What
is still to be put waits on this machine. An input is "still the file that was read" by its entity tag. Between asking
for the tag and removing the object another may take its name, as a file may between stat and unlink: then the times and
machine of a repeated trial are lost, and what was measured is in the merged file, since it is in the name. A listing of
more than 1,000 names comes in several answers, so it is no single moment there either, and is made twice as well.

Only rows of `runs` that are equal in every column, times included, and meet in one merged file become one. No row is
left out because another file has it: that file might go for the same reason.

A merged file is `full` when it holds files.MOST_ROWS rows or files.MOST_BYTES, and is never touched again; the rest is a
`part`, merged again once as many bytes as it has came after it. So each row is written a number of times that grows as
the logarithm of the store, and parts at least double in size from one to the next: there are few.
"""

import contextlib
import hashlib
from collections.abc import Sequence
from typing import NamedTuple

import pyarrow as pa
import pyarrow.compute as pc

from results.errors import StoreError, Vanished
from results.files import (
    FULL,
    MERGED,
    PART,
    batches,
    identify,
    retrying,
    stage,
)
from results.places import Place, at, over
from results.schema import SCHEMA_VERSION, SCHEMAS
from results.store import Store, repeats

MANY = 500  # small files


class Compaction(NamedTuple):
    """What a compaction did."""

    merged: int  # files that went
    into: int  # files that came

    def __str__(self) -> str:
        return f"merged {self.merged:,} files into {self.into:,}" if self.merged else "no files to merge"


def needs_compaction(store: Store) -> bool:
    """Whether a table has more than MANY small files."""
    return any(sum(not path.name.startswith(MERGED) for path in store.files(name)) > MANY for name in SCHEMAS)


def compact(store: Store) -> Compaction:
    """Merge small files of each table. StoreError names a file that cannot be read; nothing is merged then.

    Temporary files that killed writers left a day ago or more are removed.
    """
    for name in SCHEMAS:
        at(store.path).remove_stale(store.path / name)
    return retrying(lambda: _compact(store))


def _compact(store: Store) -> Compaction:
    staged: dict[Place, object] = {}  # by the name to come
    read: dict[Place, tuple] = {}
    try:
        for name in SCHEMAS:
            chosen = _inputs(store.files(name))
            inputs = dict(zip(chosen, over(identify, chosen), strict=True))
            for paths, rows, full in batches(list(inputs), name, strict=True):
                if len(paths) > 1:
                    target = paths[0].with_name(_merged_name(paths, full))
                    rows = rows.replace_schema_metadata({"schema_version": str(SCHEMA_VERSION)})
                    staged[target] = stage(target, _distinct(rows) if name == "runs" else rows)
                    read |= {path: inputs[path] for path in paths}
        for target, rows in staged.items():
            at(target).publish(rows, target)
    except OSError as error:  # of reading there is StoreError already
        raise StoreError(f"{store.path}: cannot be written: {error.strerror}") from None
    finally:
        for target, rows in staged.items():
            at(target).discard(rows)
    for _ in over(lambda path: _remove(path, read[path]), read.keys() - staged.keys()):
        pass
    return Compaction(len(read), len(staged))


def _inputs(files: Sequence[Place]) -> list[Place]:
    """The small files, and each part for which as many bytes came together before it, the smallest first."""
    chosen = [path for path in files if not path.name.startswith(MERGED)]
    size = sum(at(path).size(path) for path in chosen)
    parts = sorted((at(path).size(path), path) for path in files if path.name.startswith(PART))
    for bytes_of_part, path in parts:
        if bytes_of_part <= size:
            chosen.append(path)
            size += bytes_of_part
    return sorted(chosen)


def _merged_name(inputs: Sequence[Place], full: bool) -> str:
    names = "\n".join(sorted(path.name for path in inputs))
    return f"{FULL if full else PART}{hashlib.sha256(names.encode()).hexdigest()[:32]}.parquet"


def _distinct(runs: pa.Table) -> pa.Table:
    """Rows that are equal in every column once."""
    repeated = pc.is_in(runs["run_id"], repeats(runs["run_id"]))
    if not pc.any(repeated).as_py():
        return runs
    rows = runs.filter(repeated)
    first = ~rows.to_pandas().duplicated().to_numpy()
    return pa.concat_tables([runs.filter(pc.invert(repeated)), rows.filter(pa.array(first))]).combine_chunks()


def _remove(path: Place, read: tuple) -> None:
    """Remove a file if it is still the one that was read."""
    with contextlib.suppress(Vanished, FileNotFoundError):  # another compaction was faster
        try:
            if identify(path) == read:
                at(path).remove(path)
        except PermissionError as error:
            raise StoreError(f"{path}: cannot be removed: {error.strerror}") from None
