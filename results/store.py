"""A folder of Parquet files, or objects under a prefix, one a trial and table, or merged of many. A file is absent or
complete.

Names that begin with a dot are temporary and never read. Rows of other tables than `runs` count only through the
(run_id, trial) of an accepted row of `runs`, which is written last: what a crash leaves behind is without effect.
What a store says follows from its rows, whatever files they are in and however often.
"""

import functools
import hashlib
import uuid
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from results.errors import StoreError
from results.files import batches, listing, retrying, stage
from results.places import Place, at, locate
from results.schema import MEASURED, SCHEMAS, columns_of

FINISHED = ("done", "diverged")
KEYS = {"curves": ["run_id", "epoch", "split"], "layers": ["run_id", "epoch", "block", "site"]}  # of a row that counts
MARK = ".store-"
VERSIONS = (
    "run_id",
    "trial",
    "started_at",
    "engine",
    "seed_block",
    "memory_bytes",
    "code",
    "data",
    "device",
    "status",
)  # what decides which row counts


class Made(NamedTuple):
    """What made the accepted row of a finished run."""

    code: str
    data: str
    engine: str
    seed_block: int | None  # None where it was written before there was a choice
    device: str | None = None
    memory_bytes: int | None = None  # of a seed, up to a fifth more; None where it was not measured


class Store:
    """The store in a folder, which appears with the first write, or at s3://bucket/prefix."""

    def __init__(self, path: str | Path | Place):
        self.path = locate(path)

    def is_there(self) -> bool:
        return at(self.path).is_there(self.path, SCHEMAS, f"{MARK}*")

    def check_there(self) -> None:
        """StoreError unless there is a store."""
        if not self.is_there():
            raise StoreError(f"{self.path}: there is no store")

    def check_writable(self) -> None:
        """StoreError unless files can be made here and in the tables' folders. Leaves nothing behind."""
        at(self.path).check_writable(self.path, SCHEMAS)

    def write(self, tables: Mapping[str, pa.Table], durable: bool = True) -> None:
        """Write the tables of one trial, `runs` last. Equal content makes one file, other content never overwrites.

        durable: wait until the disk has it; only what can be made again, as the stores of benchmarks, goes without.
        """
        for name in sorted(tables, key=lambda name: name == "runs"):
            rows = tables[name]
            trial = rows["trial"][0].as_py()
            path = self.path / name / f"{trial}-{_content_hash(name, rows)}.parquet"
            at(path).publish(stage(path, rows, durable), path, durable)

    def mark(self) -> str:
        """What tells this store from a folder that takes its place, as that under a disk which went away.

        Made where there is none; of two that are made at once, either will do. StoreError where it cannot be.
        """
        try:
            marks = at(self.path).find(self.path, f"{MARK}*")
            if not marks:
                marks = [self.path / f"{MARK}{uuid.uuid4().hex}"]
                at(self.path).touch(marks[0])
            return marks[0].name
        except OSError as error:
            raise StoreError(f"{self.path}: cannot be written: {error.strerror}") from None

    def check_mark(self, mark: str) -> None:
        """StoreError where this is not the store that had this mark."""
        if not at(self.path).exists(self.path / mark):
            raise StoreError(f"{self.path}: is not the store that the sweep began with; is its disk gone?")

    def files(self, name: str) -> list[Place]:
        return listing(self.path / name)

    def finished(self) -> dict[str, Made]:
        """By run_id of each finished run, what made its accepted row."""
        return self.fates()[0]

    def failed(self) -> set[str]:
        """run_ids of which every attempt failed."""
        return self.fates()[1]

    def fates(self) -> tuple[dict[str, Made], set[str]]:
        """(finished(), failed()), for which the files are read once."""
        chosen = one_a_run(self._rows("runs", VERSIONS))
        is_failed = pc.equal(chosen["status"], "failed")
        return _made(chosen.filter(is_finished(chosen))), set(chosen.filter(is_failed)["run_id"].to_pylist())

    def read(self, name: str, of: pa.Table | None = None) -> pa.Table:
        """Rows of table `name` that count. In `runs`, one a run: its accepted finished row, else its last failed one.

        of: accepted rows of `runs`, or their run_id and trial alone. Of the other tables only the rows that belong to them
        are given, and `runs` is not read again.
        """
        if name == "runs":
            return one_a_run(self._rows("runs")).sort_by("run_id")
        if of is None:
            accepted = one_a_run(self._rows("runs", VERSIONS))
            accepted = accepted.filter(is_finished(accepted))
        else:
            accepted = of.select(["run_id", "trial"]).drop_null().cast(columns_of("runs", ("run_id", "trial")))
        # A conflict leaves other rows of one trial: one of each key stands for it, so that nothing counts twice.
        if name == "examples":
            return _one_a_trial(self._rows(name, keep=lambda rows: pc.is_in(rows["trial"], accepted["trial"])))

        def counts(rows: pa.Table) -> pa.ChunkedArray:
            at = pc.index_in(rows["run_id"], accepted["run_id"])
            return pc.equal(accepted["trial"].take(at), rows["trial"])

        return _one_a_key(self._rows(name, keep=counts), KEYS[name])

    def find(self, run_ids: pa.Array, extra: range) -> tuple[pa.Table, pa.Table]:
        """The accepted rows of these runs, one for each id in its place, null where there is none; and all finished rows
        with seeds in `extra`. The files are read once.
        """

        def keep(rows: pa.Table) -> pa.ChunkedArray:
            return pc.or_kleene(pc.is_in(rows["run_id"], run_ids), _has_seed(rows, extra))

        rows = one_a_run(self._rows("runs", keep=keep))
        return rows.take(pc.index_in(run_ids, rows["run_id"])), rows.filter(_has_seed(rows, extra))

    def conflicts(self) -> pd.DataFrame:
        """Finished rows of one run by one engine, code and data whose measurements differ: a broken promise."""
        rows = self._repeated().drop_duplicates(["run_id", "engine", "code", "data", *MEASURED])
        rows = rows[rows.duplicated(["run_id", "engine", "code", "data"], keep=False)]
        return rows.sort_values(["run_id", "trial"], ignore_index=True)

    def replicates(self) -> pd.DataFrame:
        """Finished rows of runs that more than one engine made, with equal code and data."""
        rows = self._repeated().drop_duplicates(["run_id", "engine", "code", "data"])
        rows = rows[rows.duplicated(["run_id", "code", "data"], keep=False)]
        return rows.sort_values(["run_id", "trial"], ignore_index=True)

    def _repeated(self) -> pd.DataFrame:
        """The finished rows of all runs that have several, in an order that follows from their content."""
        rows = self._rows("runs", ("run_id", "status"), keep=is_finished)
        repeated = repeats(rows["run_id"])
        if not len(repeated):
            return SCHEMAS["runs"].empty_table().to_pandas()
        rows = self._rows("runs", keep=lambda rows: pc.and_(is_finished(rows), pc.is_in(rows["run_id"], repeated)))
        return _ordered(rows.to_pandas())

    def _rows(self, name: str, columns: Iterable[str] | None = None, keep=None) -> pa.Table:
        """All rows of all files with today's columns (or only `columns`); with `keep`, those that it gives true for."""
        schema = columns_of(name, columns)

        def read() -> pa.Table:
            tables = (batch.rows for batch in batches(self.files(name), name, columns))
            return pa.concat_tables(
                [schema.empty_table(), *(rows.filter(keep(rows)) if keep else rows for rows in tables)]
            )

        return retrying(read)


def is_finished(rows: pa.Table) -> pa.ChunkedArray:
    return pc.is_in(rows["status"], pa.array(FINISHED))


def _has_seed(rows: pa.Table, seeds: range) -> pa.ChunkedArray:
    """Which rows are finished and of one of these consecutive seeds."""
    within = pc.and_(pc.greater_equal(rows["seed"], seeds.start), pc.less(rows["seed"], seeds.stop))
    return pc.and_(is_finished(rows), within)


def repeats(column: pa.ChunkedArray) -> pa.Array:
    """Values that a column holds more than once."""
    counts = pc.value_counts(column)
    return counts.field("values").filter(pc.greater(counts.field("counts"), 1))


def _ordered(rows: pd.DataFrame) -> pd.DataFrame:
    """Rows of `runs` in an order that does not depend on the files: first by what decides which row counts."""
    first = [column for column in VERSIONS if column != "run_id"]
    return rows.sort_values([*first, *rows.columns.difference(first)])


def one_a_run(rows: pa.Table) -> pa.Table:
    """One row a run: its accepted finished one, else its last failed one. Only runs with several rows need the rule."""
    several = pc.is_in(rows["run_id"], repeats(rows["run_id"]))
    if not pc.any(several).as_py():
        return rows
    repeated = rows.filter(several)
    ordered = _ordered(repeated.to_pandas())
    finished = ordered[ordered["status"].isin(FINISHED)]
    accepted = _accepted(finished)
    failed = ordered[~ordered["run_id"].isin(accepted["run_id"])].sort_values(["started_at", "trial"])
    chosen = pd.concat([accepted, failed.drop_duplicates("run_id", keep="last")])
    return pa.concat_tables([rows.filter(pc.invert(several)), repeated.take(chosen.index.to_numpy())])


def _accepted(finished: pd.DataFrame) -> pd.DataFrame:
    """Of finished rows, one a run: made by the code and data of its newest row, and of those the smallest trial id.

    The rows come in order of trial and start, and keep it where they are equal in what they are sorted by.
    """
    version = pd.Series(
        list(zip(finished["code"].fillna(""), finished["data"].fillna(""), strict=True)), finished.index
    )
    newest = finished.sort_values(["started_at", "trial"]).drop_duplicates("run_id", keep="last")
    newest_version = dict(zip(newest["run_id"], version[newest.index], strict=True))
    same_version = [newest_version[run_id] == each for run_id, each in zip(finished["run_id"], version, strict=True)]
    return finished[np.array(same_version, dtype=bool)].drop_duplicates("run_id")


def _made(rows: pa.Table) -> dict[str, Made]:
    """By run_id. There are few Made for many runs, so each is one object."""
    rows = rows.set_column(rows.column_names.index("memory_bytes"), "memory_bytes", _few(rows["memory_bytes"]))
    columns = [rows[name].combine_chunks().dictionary_encode("encode") for name in Made._fields]
    which = np.zeros(len(rows), dtype=np.int64)
    for column in columns:
        which = which * len(column.dictionary) + column.indices.to_numpy()
    _, first, which = np.unique(which, return_index=True, return_inverse=True)
    made = [Made(*(column[i].as_py() for column in columns)) for i in first.tolist()]
    return dict(zip(rows["run_id"].to_pylist(), map(made.__getitem__, which.tolist()), strict=True))


def _few(numbers: pa.ChunkedArray) -> pa.ChunkedArray:
    """Rounded up to four for each power of 2, so that there are few; what is no size becomes null."""
    rounded = pc.power(2.0, pc.divide(pc.ceil(pc.multiply(pc.log2(pc.cast(numbers, pa.float64())), 4)), 4))
    return pc.if_else(pc.greater(numbers, 0), pc.cast(rounded, pa.int64(), safe=False), None)


def _one_a_key(rows: pa.Table, keys: list[str]) -> pa.Table:
    """Rows sorted by keys; of several with equal keys the first by its other columns."""
    rows = rows.sort_by([(name, "ascending") for name in keys])
    if len(rows) < 2 or not pc.any(_same_as_before(rows, keys)).as_py():
        return rows
    others = {f"other {i}": _sortable(rows[c]) for i, c in enumerate(rows.column_names) if c not in keys}
    order = pc.sort_indices(
        pa.table({**{key: rows[key] for key in keys}, **others}),
        [(name, "ascending") for name in (*keys, *others)],
    )
    rows = rows.take(order)
    first = pc.invert(_same_as_before(rows, keys))
    return rows.filter(pa.concat_arrays([pa.array([True]), first]))


def _sortable(column: pa.ChunkedArray) -> pa.ChunkedArray | pa.Array:
    """A column, or the words for its lists, which Arrow does not sort."""
    return pa.array(map(repr, column.to_pylist())) if pa.types.is_nested(column.type) else column


def _same_as_before(rows: pa.Table, keys: list[str]) -> pa.Array:
    """Of each row but the first, whether its keys are those of the row before it."""
    columns = [rows[key].combine_chunks() for key in keys]
    return functools.reduce(pc.and_, (pc.equal(column[1:], column[:-1]) for column in columns))


def _one_a_trial(rows: pa.Table) -> pa.Table:
    """Rows of `examples` sorted by trial; of several of one trial the first by its content."""
    rows = rows.sort_by("trial")
    first: dict[str, int] = {}
    for i, trial in enumerate(rows["trial"].to_pylist()):
        if trial in first:
            first[trial] = min(first[trial], i, key=lambda i: repr(rows.slice(i, 1).to_pylist()))
        else:
            first[trial] = i
    return rows.take(list(first.values())) if len(first) < len(rows) else rows


def _content_hash(name: str, rows: pa.Table) -> str:
    """Hash of what was measured: without times, machines and versions, so that a repeated trial is the same file."""
    names = [*MEASURED, "run_id", "error"] if name == "runs" else rows.column_names
    content = hashlib.sha256()
    for column in sorted(names):
        content.update(repr((column, rows[column].to_pylist())).encode())
    return content.hexdigest()[:16]
