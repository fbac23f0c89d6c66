"""Files of data sets: where they are looked for, their download, arrays in them. Nothing that a file says is run."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path
from zipfile import is_zipfile

import numpy as np

from harness.datasets import DataError

_downloads = ContextVar("downloads", default=True)


@contextmanager
def without_downloads() -> Iterator[None]:
    """Within it a file that is nowhere is a DataError, which says that it would be downloaded."""
    token = _downloads.set(False)
    try:
        yield
    finally:
        _downloads.reset(token)


def find_or_download(url: str, sha256: str, folders: Sequence[Path], otherwise: str) -> Path:
    """The file at the end of `url`, from the first of the folders that has it, else downloaded into the first of all.

    A download without this SHA-256 is not kept. otherwise: what the user can do where there is none, in words.
    """
    name = url.rpartition("/")[2]
    for folder in folders:
        if (folder / name).exists():
            return folder / name
    if not _downloads.get():
        raise DataError(f"{name}: not on this machine; it is downloaded when first used, or {otherwise}")
    import pooch  # seldom needed, and slow to import

    pooch.get_logger().setLevel("WARNING")
    try:
        return Path(pooch.retrieve(url, f"sha256:{sha256}", fname=name, path=folders[0]))
    except Exception as error:
        places = " or ".join(map(str, folders))
        reason = f"not in {places}, and its download failed ({type(error).__name__})"
        raise DataError(f"{name}: {reason}; {otherwise}") from None


def arrays(path: Path, needed: Sequence[str], optional: Sequence[str] = ()) -> dict[str, np.ndarray]:
    """Arrays of an .npz file by name. ValueError, of one line, where one is missing or no array; pickles are never read."""
    try:
        with path.open("rb") as raw:
            if not is_zipfile(raw):
                raise ValueError("not an .npz file")
            raw.seek(0)
            with np.load(raw, allow_pickle=False) as file:
                if missing := [name for name in needed if name not in file]:
                    raise ValueError(f"has no array {', '.join(missing)}")
                found = {name: file[name] for name in (*needed, *optional) if name in file}
    except OSError as error:
        raise ValueError(error.strerror or str(error)) from None
    except Exception as error:  # zipfile, zlib, tokenize and NumPy have a dozen kinds for what is damaged
        raise ValueError((str(error) or type(error).__name__).splitlines()[0]) from None
    for name, array in found.items():
        if not isinstance(array, np.ndarray):  # NumPy gives what has not the head of an array as bytes
            raise ValueError(f"{name} is no array")
    return found
