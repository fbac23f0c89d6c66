"""Files of a store: they appear whole or not at all, may be merged while they are read, and are named when unreadable."""

import contextlib
import hashlib
import io
import os
import platform
import stat
import time
import uuid
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple, TypeVar

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from grids import WrongUse
from results.schema import SCHEMA_VERSION, columns_of, conform

MERGED = FULL, PART = (
    "full-",
    "part-",
)  # how names of compacted files begin; those of trials begin with a hexadecimal digit
STALE_S = 86_400.0  # age of a temporary file that nobody will finish, wherever its writer ran
TRIES = 10  # of a reading that a compaction disturbs
MOST_ROWS, MOST_BYTES = 250_000, 128_000_000  # of a batch, and so of a compacted file; a file is never divided
THREADS = min(4, os.cpu_count() or 1)
PORTION_FILES, PORTION_BYTES = 64, 8_000_000  # read at once: files on disk, several times that in memory

T = TypeVar("T")


def _machine() -> str:
    """Of this machine since it started, and of what it can see of its processes: elsewhere their numbers mean nothing."""
    words = [platform.node()]
    for path in (Path("/proc/sys/kernel/random/boot_id"), Path("/proc/self/ns/pid")):
        with contextlib.suppress(OSError):
            words.append(str(path.readlink()) if path.is_symlink() else path.read_text())
    return hashlib.sha256("".join(words).encode()).hexdigest()[:12]


WRITER = _machine()


class StoreError(WrongUse):
    """One line: which path, and what is wrong with it."""


class Unavailable(StoreError):
    """A file that cannot be read now, by no fault of its own: too little memory, too many open files, a failing disk."""


class Vanished(StoreError):
    """A listed file is not there any more: another process has merged it into a larger one."""


def stage(path: Path, rows: pa.Table, durable: bool = True) -> Path:
    """Write rows under a temporary name beside `path`, which readers leave out, and give that name."""
    finished = io.BytesIO()
    pq.write_table(rows, finished, compression="zstd", write_page_checksum=True)
    return stage_bytes(path, finished.getbuffer(), durable)


def stage_bytes(path: Path, content: bytes | memoryview, durable: bool = True) -> Path:
    """Write a whole file under a temporary name beside `path`, and give that name."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{WRITER}.{os.getpid()}.{uuid.uuid4().hex}.tmp")
    try:
        with temporary.open("wb") as file:
            file.write(content)
            file.flush()
            if durable:
                os.fsync(file.fileno())
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    return temporary


def is_abandoned(temporary: Path) -> bool:
    """Whether nobody will finish a temporary file: its process is gone from this machine, or it is STALE_S old."""
    with contextlib.suppress(ValueError):
        *_, writer, process, _, _ = temporary.name.split(".")
        if writer == WRITER and not Path("/proc", str(int(process))).exists() and Path("/proc/self").exists():
            return True
    return time.time() - temporary.stat().st_mtime > STALE_S


def publish(temporary: Path, path: Path, durable: bool = True) -> None:
    """Give a staged file its name."""
    try:
        temporary.replace(path)
        if durable:
            folder = os.open(path.parent, os.O_RDONLY)
            try:
                os.fsync(folder)
            finally:
                os.close(folder)
    finally:
        temporary.unlink(missing_ok=True)


def remove_stale(folder: Path) -> int:
    """Remove temporary files that were left by killed writers; give their number."""
    removed = 0
    for path in folder.glob(".*.tmp"):
        with contextlib.suppress(OSError):  # another process may do the same
            if is_abandoned(path):
                path.unlink()
                removed += 1
    return removed


def retrying(ask: Callable[[], T]) -> T:
    """The answer of `ask`, asked again where a file vanished meanwhile; at last Vanished."""
    for _ in range(TRIES - 1):
        try:
            return ask()
        except Vanished:
            continue
    return ask()


def listing(folder: Path) -> list[Path]:
    """The files of a table, by name.

    A listing is no single moment: it may miss a merged file that came after it began, and inputs that went before it
    ended. Merged files come before their inputs go, so a second listing shows whether the first can have missed one.
    """
    names = _names(folder)
    for _ in range(TRIES):
        again = _names(folder)
        if not any(name.startswith(MERGED) for name in again - names):
            break
        names = again
    return [folder / name for name in sorted(names)]


def _names(folder: Path) -> set[str]:
    try:
        return {name for name in os.listdir(folder) if name.endswith(".parquet") and not name.startswith(".")}  # noqa: PTH208 ten times as fast
    except (FileNotFoundError, NotADirectoryError):
        if os.path.lexists(folder):
            raise StoreError(f"{folder}: not a folder, where the files of a table are due") from None
        return set()
    except OSError as error:
        raise StoreError(f"{folder}: cannot be read: {error.strerror}") from None


class Batch(NamedTuple):
    """Rows of consecutive whole files."""

    paths: list[Path]
    rows: pa.Table
    full: bool


def batches(
    paths: Sequence[Path],
    name: str,
    columns: Iterable[str] | None = None,
    strict: bool = False,
    unreadable: Callable[[StoreError], None] | None = None,
) -> Iterator[Batch]:
    """Rows of files, put together until they are MOST_ROWS or MOST_BYTES: full, by less than a file too much.

    strict: a column that this program does not know is an error. unreadable: is told of each file that is left out
    since it cannot be read, which is an error without it.
    """
    schema = columns_of(name, columns)
    group: list[Path] = []
    tables: list[pa.Table] = []
    rows = size = 0
    for path, read in _read_files(paths, schema, strict):
        if isinstance(read, StoreError):
            if unreadable is None or isinstance(read, Vanished):
                raise read
            unreadable(read)
            continue
        group.append(path)
        tables.append(read)
        rows, size = rows + len(read), size + read.nbytes
        full = rows >= MOST_ROWS or size >= MOST_BYTES
        if full or len(tables) >= 512:  # many small arrays need more memory than their numbers
            tables = [_joined(tables, schema)]
        if full:
            yield Batch(group, tables[0], full)
            group, tables, rows, size = [], [], 0, 0
    if group:
        yield Batch(group, _joined(tables, schema), False)


def trials(paths: Sequence[Path], name: str) -> set[str]:
    """The trials that have rows in these files of a table."""
    return {each for batch in batches(paths, name, ("trial",)) for each in pc.unique(batch.rows["trial"]).to_pylist()}


def _joined(tables: Sequence[pa.Table], schema: pa.Schema) -> pa.Table:
    return pa.Table.from_arrays(pa.concat_tables(tables).combine_chunks().columns, schema=schema)


def _read_files(paths: Sequence[Path], schema: pa.Schema, strict: bool) -> Iterator[tuple[Path, pa.Table | StoreError]]:
    def read(path: Path) -> pa.Table | StoreError:
        try:
            return read_file(path, schema, strict)
        except StoreError as error:
            return error

    with ThreadPoolExecutor(THREADS) as pool:
        for portion in _portions(paths):
            yield from zip(portion, pool.map(read, portion), strict=True)


def _portions(paths: Sequence[Path]) -> Iterator[list[Path]]:
    portion: list[Path] = []
    size = 0
    for path in paths:
        portion.append(path)
        size += identify(path)[-1]
        if len(portion) >= PORTION_FILES or size >= PORTION_BYTES:
            yield portion
            portion, size = [], 0
    yield portion


def identify(path: Path) -> tuple[int, ...]:
    """What tells a file from another that has taken its name: inode, time of change, and bytes. Vanished if gone."""
    about = _about(path)
    return about.st_ino, about.st_mtime_ns, about.st_size


def _about(path: Path) -> os.stat_result:
    """Of the file, or of a link that leads to nothing or to itself. Vanished if neither is there."""
    try:
        return path.stat()
    except OSError:
        try:
            return path.lstat()
        except FileNotFoundError:
            raise Vanished(f"{path}: vanished while the store was read") from None
        except OSError as error:
            raise StoreError(f"{path}: cannot be read: {error.strerror}") from None


def read_file(path: Path, schema: pa.Schema, strict: bool = False) -> pa.Table:
    """All rows of a file, with the columns of `schema`. StoreError names a file that cannot be read."""
    if not stat.S_ISREG(_about(path).st_mode):  # a pipe would be waited for
        raise StoreError(f"{path}: not a readable Parquet file: it is a folder, a pipe or a link to no file")
    try:
        with pq.ParquetFile(path, page_checksum_verification=True) as file:
            found = file.schema_arrow
            version = (found.metadata or {}).get(b"schema_version", b"").decode()
            if version != str(SCHEMA_VERSION):
                raise StoreError(f"{path}: schema version {version or 'none'}, this program reads {SCHEMA_VERSION}")
            names = set(found.names)
            if len(names) < len(found.names):
                raise StoreError(f"{path}: not a readable Parquet file: it has a column twice")
            if strict and (unknown := names.difference(schema.names)):
                raise StoreError(
                    f"{path}: has columns of a later program, which would be lost: {', '.join(sorted(unknown))}"
                )
            # Files are read in parallel already; threads within one cost a third more.
            wanted = [column for column in schema.names if column in names]
            return conform(file.read(columns=wanted, use_threads=False), schema)
    except FileNotFoundError:
        raise Vanished(f"{path}: vanished while the store was read") from None
    except (pa.ArrowException, OSError, UnicodeError) as error:
        if isinstance(error, MemoryError) or getattr(error, "errno", None):
            raise Unavailable(f"{path}: cannot be read: {str(error).splitlines()[0]}") from None
        raise StoreError(f"{path}: not a readable Parquet file: {str(error).splitlines()[0]}") from None
