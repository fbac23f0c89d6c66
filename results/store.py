"""A folder of Parquet files, one a trial and table. A file is absent or complete; nothing in it ever changes.

Names that begin with a dot are temporary and never read. Rows of `curves` and `examples` count only through the
(run_id, trial) of an accepted row of `runs`, which is written last: what a crash leaves behind is without effect.
"""

import hashlib
import uuid
from collections.abc import Iterable, Mapping
from pathlib import Path

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from grids import WrongUse
from results.files import publish, stage
from results.schema import MEASURED, SCHEMA_VERSION, SCHEMAS, conform

FINISHED = ("done", "diverged")


class StoreError(WrongUse):
    """One line: which path, and what is wrong with it."""


class Store:
    """The store in folder `path`; the folder appears with the first write."""

    def __init__(self, path: str | Path):
        try:
            self.path = Path(path).expanduser().absolute()
            if self.path.exists() and not self.path.is_dir():
                raise StoreError(f"{self.path}: not a folder, so it cannot be a store")
        except (OSError, RuntimeError) as error:  # a name too long, a folder without access, the home of nobody
            raise StoreError(f"{path}: cannot be a store: {getattr(error, 'strerror', None) or error}") from None

    def check_writable(self) -> None:
        """StoreError unless files can be made here and in the tables' folders. Leaves nothing behind."""
        for path in (self.path, *(self.path / name for name in SCHEMAS)):
            folder = path
            while not folder.exists():
                folder = folder.parent
            if not folder.is_dir():
                raise StoreError(f"{folder}: not a folder, so {self.path} cannot be a store")
            probe = folder / f".{uuid.uuid4().hex}.tmp"
            try:
                probe.touch(exist_ok=False)
                probe.unlink()
            except OSError as error:
                raise StoreError(f"{path}: cannot be written: {error.strerror}") from None

    def write(self, tables: Mapping[str, pa.Table], durable: bool = True) -> None:
        """Write the tables of one trial, `runs` last. Equal content makes one file, other content never overwrites.

        durable: wait until the disk has it; only what can be made again, as the stores of benchmarks, goes without.
        """
        for name in sorted(tables, key=lambda name: name == "runs"):
            rows = tables[name]
            trial = rows["trial"][0].as_py()
            _place(self.path / name / f"{trial}-{_content_hash(name, rows)}.parquet", rows, durable)

    def files(self, name: str) -> list[Path]:
        return sorted(path for path in (self.path / name).glob("*.parquet") if not path.name.startswith("."))

    def finished(self) -> dict[str, tuple[str, str]]:
        """By run_id of each finished run, the versions of code and data that made its accepted row."""
        rows = self._rows("runs", columns=["run_id", "trial", "status", "code", "data", "started_at"]).to_pandas()
        rows = _accepted(rows[rows["status"].isin(FINISHED)])
        return dict(zip(rows["run_id"], zip(rows["code"], rows["data"], strict=True), strict=True))

    def failed(self) -> set[str]:
        """run_ids of which every attempt failed."""
        rows = self._rows("runs", columns=["run_id", "status"]).to_pandas()
        return set(rows["run_id"][rows["status"] == "failed"]) - set(rows["run_id"][rows["status"] != "failed"])

    def read(self, name: str) -> pa.Table:
        """Rows of table `name` that count. In `runs`, one a run: its accepted finished row, else its last failed one."""
        if name == "runs":
            rows = self._rows("runs").to_pandas()
            is_finished = rows["status"].isin(FINISHED)
            accepted = _accepted(rows[is_finished])
            failed = rows[~is_finished & ~rows["run_id"].isin(accepted["run_id"])]
            failed = failed.sort_values(["started_at", "trial"]).drop_duplicates("run_id", keep="last")
            rows = pd.concat([accepted, failed]).sort_values("run_id", ignore_index=True)
            return pa.Table.from_pandas(rows, schema=SCHEMAS["runs"], preserve_index=False)
        runs = self._rows("runs", columns=["run_id", "trial", "status", "code", "data", "started_at"]).to_pandas()
        accepted = _accepted(runs[runs["status"].isin(FINISHED)])[["run_id", "trial"]]
        rows = self._rows(name).to_pandas()
        # A conflict leaves two files of one trial: the first stands for it, so that no row counts twice.
        if name == "examples":
            rows = rows[rows["trial"].isin(accepted["trial"])].drop_duplicates("trial").sort_values("trial")
        else:
            keys = ["run_id", "epoch", "split"]
            rows = rows.merge(accepted, on=["run_id", "trial"]).drop_duplicates(keys).sort_values(keys)
        return pa.Table.from_pandas(rows, schema=SCHEMAS[name], preserve_index=False)

    def conflicts(self) -> pd.DataFrame:
        """Finished rows of one run by one engine, code and data whose measurements differ: a broken promise."""
        rows = self._rows("runs").to_pandas()
        rows = rows[rows["status"].isin(FINISHED)].drop_duplicates(["run_id", "engine", "code", "data", *MEASURED])
        return rows[rows.duplicated(["run_id", "engine", "code", "data"], keep=False)].sort_values(["run_id", "trial"])

    def replicates(self) -> pd.DataFrame:
        """Finished rows of runs that more than one engine made, with equal code and data."""
        rows = self._rows("runs").to_pandas()
        rows = rows[rows["status"].isin(FINISHED)].drop_duplicates(["run_id", "engine", "code", "data"])
        return rows[rows.duplicated(["run_id", "code", "data"], keep=False)].sort_values(["run_id", "trial"])

    def _rows(self, name: str, columns: Iterable[str] | None = None) -> pa.Table:
        """All rows of all files, in the order of the files' names, with today's columns (or only `columns`)."""
        schema = SCHEMAS[name]
        tables = [_read(path, name, columns) for path in self.files(name)]
        if columns is not None:
            schema = pa.schema([schema.field(column) for column in columns])
        return pa.concat_tables(tables) if tables else schema.empty_table()


def _accepted(finished: pd.DataFrame) -> pd.DataFrame:
    """Of finished rows, one a run: made by the code and data of its newest row, and of those the smallest trial id."""
    newest = finished.sort_values(["started_at", "trial"]).drop_duplicates("run_id", keep="last")
    same_version = finished.merge(newest[["run_id", "code", "data"]], on=["run_id", "code", "data"])
    return same_version.sort_values(["trial", "started_at"]).drop_duplicates("run_id")


def _read(path: Path, name: str, columns: Iterable[str] | None) -> pa.Table:
    try:
        with pq.ParquetFile(path, page_checksum_verification=True) as file:
            version = (file.schema_arrow.metadata or {}).get(b"schema_version", b"").decode()
            if version != str(SCHEMA_VERSION):
                raise StoreError(f"{path}: schema version {version or 'none'}, this program reads {SCHEMA_VERSION}")
            wanted = None if columns is None else [c for c in columns if c in file.schema_arrow.names]
            read = conform(file.read(columns=wanted), name)
    except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
        raise StoreError(f"{path}: not a readable Parquet file: {str(error).splitlines()[0]}") from None
    return read if columns is None else read.select(list(columns))


def _content_hash(name: str, rows: pa.Table) -> str:
    """Hash of what was measured: without times, machines and versions, so that a repeated trial is the same file."""
    names = [*MEASURED, "run_id", "error"] if name == "runs" else rows.column_names
    content = hashlib.sha256()
    for column in sorted(names):
        content.update(repr((column, rows[column].to_pylist())).encode())
    return content.hexdigest()[:16]


def _place(path: Path, rows: pa.Table, durable: bool) -> None:
    """Make `path` appear whole or not at all."""
    temporary = stage(path, rows, durable)
    try:
        publish(temporary, path, durable)
    finally:
        temporary.unlink(missing_ok=True)
