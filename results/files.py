"""Files of a store: they appear whole or not at all, and what cannot be read is named."""

import io
import os
import uuid
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq


def stage(path: Path, rows: pa.Table, durable: bool = True) -> Path:
    """Write rows under a temporary name beside `path`, which readers leave out, and give that name."""
    finished = io.BytesIO()
    pq.write_table(rows, finished, compression="zstd", write_page_checksum=True)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex}.tmp")
    try:
        with temporary.open("wb") as file:
            file.write(finished.getbuffer())
            file.flush()
            if durable:
                os.fsync(file.fileno())
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    return temporary


def publish(temporary: Path, path: Path, durable: bool = True) -> None:
    """Give a staged file its name."""
    temporary.replace(path)
    if durable:
        folder = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)
