"""Files of a store: they appear whole or not at all, may be merged while they are read, and are named when unreadable."""

import io
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple, TypeVar

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from results.errors import OutOfReach, StoreError, Vanished
from results.places import Place, at
from results.schema import SCHEMA_VERSION, columns_of, conform

MERGED = FULL, PART = (
    "full-",
    "part-",
)  # how names of compacted files begin; those of trials begin with a hexadecimal digit
TRIES = 10  # of a reading that a compaction disturbs
MOST_ROWS, MOST_BYTES = 250_000, 128_000_000  # of a batch, and so of a compacted file; a file is never divided
PORTION_FILES, PORTION_BYTES = 64, 8_000_000  # read at once: files on disk, several times that in memory

T = TypeVar("T")


def stage(path: Place, rows: pa.Table, durable: bool = True) -> object:
    """Write rows where readers do not look; gives what at(path).publish makes the file of."""
    return at(path).stage(path, serialised(rows), durable)


def serialised(rows: pa.Table, small: bool = False) -> memoryview:
    """The bytes of a file. small: fewer, in more time; numbers byte by byte, which pays where their last bytes are alike."""
    finished, how = io.BytesIO(), {}
    if small:
        numbers = [field.name for field in rows.schema if pa.types.is_floating(field.type)]
        others = [name for name in rows.column_names if name not in numbers]
        how = {"compression_level": 19, "use_byte_stream_split": numbers, "use_dictionary": others}
    pq.write_table(rows, finished, compression="zstd", write_page_checksum=True, **how)
    return finished.getbuffer()


def retrying(ask: Callable[[], T]) -> T:
    """The answer of `ask`, asked again where a file vanished meanwhile; at last Vanished."""
    for _ in range(TRIES - 1):
        try:
            return ask()
        except Vanished:
            continue
    return ask()


def listing(folder: Place) -> list[Place]:
    """The files of a table, by name.

    A listing is no single moment: it may miss a merged file that came after it began, and inputs that went before it
    ended. Merged files come before their inputs go, so a second listing shows whether the first can have missed one.
    """
    names = at(folder).names(folder)
    for _ in range(TRIES):
        again = at(folder).names(folder)
        if not any(name.startswith(MERGED) for name in again.keys() - names.keys()):
            break
        names = again
    return [at(folder).listed(folder, name, names[name]) for name in sorted(names)]


class Batch(NamedTuple):
    """Rows of consecutive whole files."""

    paths: list[Place]
    rows: pa.Table
    full: bool


def batches(
    paths: Sequence[Place],
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
    group: list[Place] = []
    tables: list[pa.Table] = []
    rows = size = 0
    for path, read in _read_files(paths, schema, strict):
        if isinstance(read, StoreError):
            if unreadable is None or isinstance(read, Vanished | OutOfReach):
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


def trials(paths: Sequence[Place], name: str) -> set[str]:
    """The trials that have rows in these files of a table."""
    return {each for batch in batches(paths, name, ("trial",)) for each in pc.unique(batch.rows["trial"]).to_pylist()}


def _joined(tables: Sequence[pa.Table], schema: pa.Schema) -> pa.Table:
    return pa.Table.from_arrays(pa.concat_tables(tables).combine_chunks().columns, schema=schema)


def _read_files(
    paths: Sequence[Place], schema: pa.Schema, strict: bool
) -> Iterator[tuple[Place, pa.Table | StoreError]]:
    def read(path: Place) -> pa.Table | StoreError:
        try:
            return read_file(path, schema, strict)
        except StoreError as error:
            return error

    if not paths:
        return
    with ThreadPoolExecutor(at(paths[0]).READERS) as pool:
        for portion in _portions(paths):
            yield from zip(portion, pool.map(read, portion), strict=True)


def _portions(paths: Sequence[Place]) -> Iterator[list[Place]]:
    portion: list[Place] = []
    size = 0
    for path in paths:
        portion.append(path)
        size += at(path).size(path)
        if len(portion) >= PORTION_FILES or size >= PORTION_BYTES:
            yield portion
            portion, size = [], 0
    yield portion


def identify(path: Place) -> tuple:
    """What tells a file from another that has taken its name; its bytes are the last of it. Vanished if gone."""
    return at(path).identify(path)


def read_file(path: Place, schema: pa.Schema, strict: bool = False) -> pa.Table:
    """All rows of a file, with the columns of `schema`. StoreError names a file that cannot be read."""
    try:
        with at(path).opened(path) as file:
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
            raise OutOfReach(f"{path}: cannot be read: {str(error).splitlines()[0]}") from None
        raise StoreError(f"{path}: not a readable Parquet file: {str(error).splitlines()[0]}") from None
