"""Files of a store in a folder that this machine sees. places.py says when this is asked, and when objects.py."""

import contextlib
import hashlib
import os
import platform
import stat
import time
import uuid
from collections.abc import Iterable, Iterator
from pathlib import Path

import pyarrow.parquet as pq

from results.errors import StoreError, Vanished

STALE_S = 86_400.0  # age of a temporary file that nobody will finish, wherever its writer ran
READERS = min(4, os.cpu_count() or 1)  # threads


def _machine() -> str:
    """Of this machine since it started, and of what it can see of its processes: elsewhere their numbers mean nothing."""
    words = [platform.node()]
    for path in (Path("/proc/sys/kernel/random/boot_id"), Path("/proc/self/ns/pid")):
        with contextlib.suppress(OSError):
            words.append(str(path.readlink()) if path.is_symlink() else path.read_text())
    return hashlib.sha256("".join(words).encode()).hexdigest()[:12]


WRITER = _machine()


def locate(text: str | Path) -> Path:
    """The folder of a store. StoreError where there can be none."""
    try:
        path = Path(text).expanduser().absolute()
        if path.exists() and not path.is_dir():
            raise StoreError(f"{path}: not a folder, so it cannot be a store")
    except (OSError, RuntimeError) as error:  # a name too long, a folder without access, the home of nobody
        raise StoreError(f"{text}: cannot be a store: {getattr(error, 'strerror', None) or error}") from None
    return path


def is_there(root: Path, tables: Iterable[str], mark: str) -> bool:
    """Whether there is a store: with a table, or just begun, which its mark says."""
    return any(os.path.lexists(root / name) for name in tables) or any(root.glob(mark))


def same(root: Path, other: object) -> bool:
    """Whether two stores are one."""
    return isinstance(other, Path) and root.resolve() == other.resolve()


def check_writable(root: Path, tables: Iterable[str]) -> None:
    """StoreError unless files can be made here and in the tables' folders. Leaves nothing behind."""
    for path in (root, *(root / name for name in tables)):
        folder = path
        while not folder.exists():
            if folder.is_symlink():
                raise StoreError(f"{folder}: a link to nothing, so {root} cannot be a store")
            folder = folder.parent
        if not folder.is_dir():
            raise StoreError(f"{folder}: not a folder, so {root} cannot be a store")
        probe = folder / f".{uuid.uuid4().hex}.tmp"
        try:
            probe.touch(exist_ok=False)
            probe.unlink()
        except OSError as error:
            raise StoreError(f"{path}: cannot be written: {error.strerror}") from None


def names(folder: Path) -> dict[str, int | None]:
    """The names of a table's files, with their bytes where a listing tells them."""
    try:
        found = os.listdir(folder)  # noqa: PTH208 ten times as fast
    except (FileNotFoundError, NotADirectoryError):
        if os.path.lexists(folder):
            raise StoreError(f"{folder}: not a folder, where the files of a table are due") from None
        return {}
    except OSError as error:
        raise StoreError(f"{folder}: cannot be read: {error.strerror}") from None
    return dict.fromkeys(name for name in found if name.endswith(".parquet") and not name.startswith("."))


def listed(folder: Path, name: str, size: int | None) -> Path:
    """The file of a name that was listed."""
    return folder / name


def find(folder: Path, pattern: str) -> list[Path]:
    """Files of a folder whose names match, sorted."""
    return sorted(path for path in folder.glob(pattern) if path.is_file())


def exists(path: Path) -> bool:
    return path.exists()


def identify(path: Path) -> tuple[int, ...]:
    """What tells a file from another that has taken its name: inode, time of change, and bytes. Vanished if gone."""
    about = _about(path)
    return about.st_ino, about.st_mtime_ns, about.st_size


def size(path: Path) -> int:
    """Bytes. Vanished if gone."""
    return _about(path).st_size


def _about(path: Path) -> os.stat_result:
    """Of the file, or of a link that leads to nothing or to itself. Vanished if neither is there."""
    try:
        return path.stat()
    except OSError:
        with _telling(path):
            return path.lstat()


@contextlib.contextmanager
def _telling(path: Path) -> Iterator[None]:
    """Errors of reading as one line."""
    try:
        yield
    except FileNotFoundError:
        raise Vanished(f"{path}: vanished while the store was read") from None
    except OSError as error:
        raise StoreError(f"{path}: cannot be read: {error.strerror}") from None


def opened(path: Path) -> pq.ParquetFile:
    """A context that gives a file to be read as Parquet."""
    if not stat.S_ISREG(_about(path).st_mode):  # a pipe would be waited for
        raise StoreError(f"{path}: not a readable Parquet file: it is a folder, a pipe or a link to no file")
    return pq.ParquetFile(path, page_checksum_verification=True)


def read(path: Path) -> bytes:
    """The whole of a file. Vanished if gone."""
    with _telling(path):
        return path.read_bytes()


def touch(path: Path) -> None:
    """Make an empty file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.touch()


def stage(path: Path, content: bytes | memoryview, durable: bool = True) -> Path:
    """Write a whole file under a temporary name beside `path`, which readers leave out, and give that name."""
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


def publish(staged: Path, path: Path, durable: bool = True) -> None:
    """Give a staged file its name."""
    try:
        staged.replace(path)
        if durable:
            folder = os.open(path.parent, os.O_RDONLY)
            try:
                os.fsync(folder)
            finally:
                os.close(folder)
    finally:
        discard(staged)


def discard(staged: Path) -> None:
    """Remove what was staged and not published."""
    staged.unlink(missing_ok=True)


def remove(path: Path) -> None:
    path.unlink()


def move(path: Path, to: Path) -> None:
    to.parent.mkdir(parents=True, exist_ok=True)
    path.rename(to)


def is_abandoned(temporary: Path) -> bool:
    """Whether nobody will finish a temporary file: its process is gone from this machine, or it is STALE_S old."""
    with contextlib.suppress(ValueError):
        *_, writer, process, _, _ = temporary.name.split(".")
        if writer == WRITER and not Path("/proc", str(int(process))).exists() and Path("/proc/self").exists():
            return True
    return time.time() - temporary.stat().st_mtime > STALE_S


def remove_stale(folder: Path) -> int:
    """Remove temporary files that were left by killed writers; give their number."""
    removed = 0
    for path in folder.glob(".*.tmp"):
        with contextlib.suppress(OSError):  # another process may do the same
            if is_abandoned(path):
                path.unlink()
                removed += 1
    return removed
