"""Files of a store on object storage, s3://bucket/prefix, through pyarrow.fs. places.py says when this is asked.

An object appears whole: it is serialised first and then put in one write, since pyarrow publishes what was written so far
of a stream that is left early. Nothing temporary is ever there, and nothing is renamed. The endpoint comes from
AWS_ENDPOINT_URL_S3 or AWS_ENDPOINT_URL, region and credentials from wherever the AWS SDK finds them. Only addresses are
ever passed on or told, never a client, so that no credential leaves the process that has it.
"""

import functools
import os
import re
import tempfile
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
from pyarrow.fs import AwsStandardS3RetryStrategy, FileSelector, FileType, S3FileSystem

from results.errors import OutOfReach, StoreError, Vanished

SCHEME = "s3://"
BUCKET = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{1,254}")
READERS = 16  # threads: they wait for round trips
WHOLE = 1_000_000  # bytes up to which an object is read at once, and not by columns
IN_MEMORY = 8_000_000  # bytes up to which a staged object waits in memory
CONNECT_S, SILENCE_S, ATTEMPTS = 5.0, 10.0, 3  # to connect; without a byte; of each request
DENIED = ("ACCESS_DENIED", "INVALID_ACCESS_KEY_ID", "SIGNATURE_DOES_NOT_MATCH", "INVALID_CLIENT_TOKEN_ID")


@dataclass(frozen=True, order=True)
class Address:
    """A store, a table or an object, as a path of which parts are asked as of a Path."""

    key: str  # bucket/prefix/name
    size: int | None = field(default=None, compare=False)  # bytes, where a listing told them

    def __str__(self) -> str:
        return SCHEME + self.key

    def __truediv__(self, name: str) -> "Address":
        return Address(f"{self.key}/{name}")

    @property
    def name(self) -> str:
        return self.key.rpartition("/")[2]

    @property
    def stem(self) -> str:
        return self.name.rpartition(".")[0] or self.name

    @property
    def bucket(self) -> str:
        return self.key.partition("/")[0]

    def with_name(self, name: str) -> "Address":
        return Address(f"{self.key.rpartition('/')[0]}/{name}")


def locate(text: str) -> Address:
    """The store at s3://bucket/prefix. StoreError, which repeats nothing that may be a secret, where there can be none."""
    bucket, *prefix = text.removeprefix(SCHEME).rstrip("/").split("/")
    if "@" in text or "?" in text:
        raise StoreError(
            f"{SCHEME}…: a store is {SCHEME}bucket/prefix, without credentials or options; "
            "they come from the environment (AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY, AWS_ENDPOINT_URL) or a profile"
        )
    if not bucket:
        raise StoreError(f"{SCHEME}: a bucket is missing: {SCHEME}bucket/prefix")
    if not BUCKET.fullmatch(bucket):
        raise StoreError(f"{SCHEME}…: a bucket is named by letters, digits, dots, dashes and underscores")
    if {"", ".", ".."} & set(prefix):
        raise StoreError(f"{text}: a prefix has no empty part and none of '.' and '..'")
    return Address("/".join((bucket, *prefix)))


def is_there(root: Address, tables: Iterable[str], mark: str) -> bool:
    """Whether there is a store: any object under the prefix."""
    with _telling(root, "read"):
        return _client().get_file_info(root.key).type == FileType.Directory or bool(_listed(root))


def same(root: Address, other: object) -> bool:
    """Whether two stores are one."""
    return root == other


def check_writable(root: Address, tables: Iterable[str]) -> None:
    """StoreError unless objects can be put here. It leaves an empty one, so that no right to remove it is needed."""
    touch(root / ".writable")


def names(folder: Address) -> dict[str, int | None]:
    """The names of a table's objects, with their bytes."""
    found = _listed(folder).items()
    return {name: size for name, size in found if name.endswith(".parquet") and not name.startswith(".")}


def _listed(folder: Address) -> dict[str, int]:
    """Name and bytes of what is in a folder, and not in those below. StoreError where its bucket is not there."""
    with _telling(folder, "listed"):
        found = _client().get_file_info(FileSelector(folder.key, allow_not_found=True))
        if not found and _client().get_file_info(folder.bucket).type == FileType.NotFound:
            raise OutOfReach(f"{folder}: there is no bucket {folder.bucket}")
    return {each.base_name: each.size for each in found if each.type == FileType.File}


def listed(folder: Address, name: str, size: int | None) -> Address:
    """The object of a name that was listed."""
    return Address(f"{folder.key}/{name}", size)


def find(folder: Address, pattern: str) -> list[Address]:
    """Objects of a folder whose names match, sorted."""
    return [folder / name for name in sorted(_listed(folder)) if fnmatchcase(name, pattern)]


def exists(path: Address) -> bool:
    with _telling(path, "read"):
        return _client().get_file_info(path.key).type == FileType.File


def identify(path: Address) -> tuple[str, int]:
    """What tells an object from another that has taken its name: its entity tag, and bytes. Vanished if gone."""
    with _telling(path, "read"), _client().open_input_file(path.key) as file:
        return _tag(file), file.size()


def size(path: Address) -> int:
    """Bytes. Vanished if gone."""
    return identify(path)[-1] if path.size is None else path.size


def _tag(file: pa.NativeFile) -> str:
    return file.metadata()["ETag"].decode().strip('"')


@contextmanager
def opened(path: Address) -> Iterator[pq.ParquetFile]:
    """A context that gives an object to be read as Parquet. Vanished where another takes its name meanwhile."""
    with _telling(path, "read"), _client().open_input_file(path.key) as file:
        whole = file.size() <= WHOLE
        changed = f"{path}: was written again while the store was read"
        try:
            source = pa.BufferReader(file.read()) if whole else file
            with pq.ParquetFile(source, pre_buffer=not whole, page_checksum_verification=True) as parquet:
                yield parquet
        except (pa.ArrowException, OSError) as error:
            if not isinstance(error, FileNotFoundError) and "AWS Error" not in str(error) and _differs(path, file):
                raise Vanished(changed) from None
            raise
        if not whole and _differs(path, file):
            raise Vanished(changed)


def _differs(path: Address, file: pa.NativeFile) -> bool:
    return identify(path) != (_tag(file), file.size())


def read(path: Address) -> bytes:
    """The whole of an object. Vanished if gone."""
    with _telling(path, "read"), _client().open_input_file(path.key) as file:
        content = file.read()
        if _differs(path, file):  # it would be cut where the other one is longer
            raise Vanished(f"{path}: was written again while the store was read")
    return content


def touch(path: Address) -> None:
    """Make an empty object."""
    _put(path, b"")


def stage(path: Address, content: bytes | memoryview, durable: bool = True) -> tempfile.SpooledTemporaryFile:
    """Keep a whole object on this machine, in a file without a name where it is large."""
    staged = tempfile.SpooledTemporaryFile(IN_MEMORY)  # noqa: SIM115 publish or discard closes it
    staged.write(content)
    return staged


def publish(staged: tempfile.SpooledTemporaryFile, path: Address, durable: bool = True) -> None:
    """Put a staged object."""
    with staged:
        staged.seek(0)
        _put(path, staged.read())


def discard(staged: tempfile.SpooledTemporaryFile) -> None:
    """Remove what was staged and not published."""
    staged.close()


def _put(path: Address, content: bytes) -> None:
    """In a thread, which signals do not reach: between two of these lines an exception would publish an empty object."""
    whole = pa.py_buffer(content)

    def put() -> None:
        stream = _client().open_output_stream(path.key)
        stream.write(whole)
        stream.close()

    with _telling(path, "written"), ThreadPoolExecutor(1) as alone:
        alone.submit(put).result()


def remove(path: Address) -> None:
    with _telling(path, "removed"):
        _client().delete_file(path.key)


def move(path: Address, to: Address) -> None:
    """Copy and remove; where it was written again meanwhile, both are kept."""
    with _telling(path, f"moved to {to}"):
        seen = identify(path)
        _client().copy_file(path.key, to.key)
    if identify(path) == seen:
        remove(path)


def remove_stale(folder: Address) -> int:
    """There are no temporary objects."""
    return 0


def _client() -> S3FileSystem:
    return _connected(_endpoint())


@functools.cache
def _connected(endpoint: tuple[str, str] | None) -> S3FileSystem:
    """One for all threads of a process. pyarrow itself asks neither variable for the endpoint."""
    where = {"scheme": endpoint[0], "endpoint_override": endpoint[1]} if endpoint else {}
    return S3FileSystem(
        connect_timeout=CONNECT_S,
        request_timeout=SILENCE_S,
        retry_strategy=AwsStandardS3RetryStrategy(max_attempts=ATTEMPTS),
        allow_delayed_open=True,  # a small object is put by one request
        **where,
    )


def _endpoint() -> tuple[str, str] | None:
    """Scheme and host:port. StoreError where the variable holds something else, which is not repeated."""
    for variable in ("AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL"):
        if text := os.environ.get(variable):
            found = re.fullmatch(r"(https?)://([A-Za-z0-9._-]+(?::\d+)?|\[[0-9A-Fa-f:]+\](?::\d+)?)/?", text)
            if not found:
                raise OutOfReach(f"{variable}: must be http://host:port or https://host:port, and nothing more")
            return found[1], found[2]
    return None


@contextmanager
def _telling(path: Address, done: str) -> Iterator[None]:
    """Errors of the storage as one line in words of ours: what it answers might repeat what it was sent."""
    try:
        yield
    except FileNotFoundError:
        raise Vanished(f"{path}: vanished while the store was read") from None
    except pa.ArrowException:
        raise
    except OSError as error:
        if "AWS Error" not in str(error):
            raise
        name = re.search(r"AWS Error (\w+)", str(error)).group(1)
        if name == "NO_SUCH_KEY" or (name == "RESOURCE_NOT_FOUND" and done == "read"):
            raise Vanished(f"{path}: vanished while the store was read") from None
        if name == "NO_SUCH_BUCKET":
            raise OutOfReach(f"{path}: there is no bucket {path.bucket}") from None
        raise OutOfReach(f"{path}: cannot be {done}: {_reason(error)}") from None


def _reason(error: Exception) -> str:
    """What the storage or the way to it says, by its name."""
    name, status = re.search(r"AWS Error (\w+)(?: \(HTTP status (-?\d+)\))?", str(error)).groups()
    curl = re.search(r"curlCode: \d+, ([A-Za-z' ]+)", str(error))
    where = (_endpoint() or ("", "Amazon S3"))[1]
    if name in DENIED or status in ("401", "403"):
        return f"access denied by {where}: {_credentials()}"
    if curl:
        return f"{where} cannot be reached: {curl[1].strip()}"
    if status in ("301", "400") or name == "PERMANENT_REDIRECT":
        return f"{where} refuses it with status {status}: is AWS_REGION that of the bucket?"
    return f"{where} answers {name.lower().replace('_', ' ')}" + (f", status {status}" if status else "")


def _credentials() -> str:
    """Which credentials were used, without them."""
    if os.environ.get("AWS_ACCESS_KEY_ID"):
        return "are AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY those of this bucket?"
    files = [
        Path(os.environ.get(variable) or Path("~/.aws", name).expanduser())
        for variable, name in (("AWS_SHARED_CREDENTIALS_FILE", "credentials"), ("AWS_CONFIG_FILE", "config"))
    ]
    if any(each.is_file() for each in files):
        return f"are the credentials of profile {os.environ.get('AWS_PROFILE', 'default')} those of this bucket?"
    return "there are no credentials: set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or AWS_PROFILE"
