"""What others on the same machine could reach of a sweep, and what it repeats of credentials."""

import contextlib
import os
import shutil
import stat
import subprocess
import sys
import tempfile
from ipaddress import ip_address
from pathlib import Path
from typing import NamedTuple

import psutil
import pyarrow.parquet as pq
import pytest
from processes import children, program, sweep, sweeping, told, trains, wait_until, words, write_grid

from results import Store

SECRET = "pl4nted/S3cret+"
PLANTED = {
    "AWS_SECRET_ACCESS_KEY": f"{SECRET}key",
    "AWS_SESSION_TOKEN": f"{SECRET}token",
    "AWS_ENDPOINT_URL": f"http://user:{SECRET.replace('/', '')}@127.0.0.1:1",
    "WANDB_API_KEY": f"{SECRET}api",
}
# A trial that tells all it knows: to its log, and in the text of its error.
TELLS = """import os
print(sorted(os.listdir(".")))
if cell.depth == 2: raise RuntimeError(f"with {dict(os.environ)} at {os.environ['AWS_ENDPOINT_URL']}")"""


@contextlib.contextmanager
def surroundings(umask: int, **environment: str):
    """Processes that are started meanwhile have this umask and environment."""
    before = os.umask(umask)
    try:
        with pytest.MonkeyPatch.context() as patch:
            for name, value in environment.items():
                patch.setenv(name, value)
            yield
    finally:
        os.umask(before)


def writable(folder: Path) -> list[Path]:
    """What every user of the machine could write to; nothing below a folder that others cannot enter."""
    found = []
    for path, folders, files in os.walk(folder):
        mode = Path(path).stat().st_mode
        if not mode & stat.S_IXOTH:
            folders.clear()
            continue
        found += [Path(path)] if mode & stat.S_IWOTH else []
        for name in files:
            with contextlib.suppress(FileNotFoundError):
                mode = Path(path, name).lstat().st_mode
                found += [Path(path, name)] if mode & stat.S_IWOTH and not stat.S_ISLNK(mode) else []
    return found


class Seen(NamedTuple):
    """Of a sweep while it trained."""

    processes: list[str]  # what their command lines begin with
    listening: list[tuple[str, str]]  # that, and the address
    writable: list[Path]  # in the folder of temporary files and in the user's own
    tokens: list[int]  # modes of the files with Ray's token
    left: list[Path]  # in the folder of temporary files after its end


@pytest.fixture(scope="module")
def seen(tmp_path_factory):
    """A sweep without a cluster's address, of a user who lets everybody write to what he makes."""
    folder, home = tmp_path_factory.mktemp("exposed"), tmp_path_factory.mktemp("home")
    temporary = Path(tempfile.mkdtemp(prefix="n", dir="/tmp"))  # short, since Ray's sockets are to be below
    for each in (temporary, home):
        each.chmod(0o755)
    grid = write_grid(folder / "g.toml", epochs=40, seeds=20)
    try:
        with (
            surroundings(0, TMPDIR=str(temporary), HOME=str(home)),
            sweeping(grid, folder / "store") as driver,
        ):
            wait_until(lambda: driver.poll() is not None or any(map(trains, children(driver))))
            assert driver.poll() is None, told(grid)
            found = [psutil.Process(driver.pid), *children(driver)]
            found += [p for p in psutil.process_iter() if p not in found and any(str(temporary) in w for w in words(p))]
            listening, names = [], []
            for process in found:
                with contextlib.suppress(psutil.NoSuchProcess):
                    names.append(" ".join(words(process)[:3]))
                    open_to = [c.laddr.ip for c in process.net_connections("inet") if c.status == psutil.CONN_LISTEN]
                    listening += [(names[-1], ip) for ip in open_to]
            others = [*writable(temporary), *writable(home)]
            tokens = [stat.S_IMODE(path.stat().st_mode) for path in temporary.glob("*/token")]
            tokens += [stat.S_IMODE(path.stat().st_mode) for path in home.rglob("*token*")]
            assert driver.wait(timeout=120) == 0, told(grid)
        return Seen(names, listening, others, tokens, list(temporary.iterdir()))
    finally:
        shutil.rmtree(temporary)


def test_all_that_a_sweep_listens_on_is_loopback(seen):
    loopback = [ip_address(address.removeprefix("::ffff:")).is_loopback for _, address in seen.listening]
    assert len(loopback) > 5  # Ray's servers and workers
    assert all(loopback), seen.listening


def test_no_dashboard_of_a_sweep_listens(seen):
    assert any("raylet" in name for name in seen.processes)
    assert [name for name, _ in seen.listening if "dashboard" in name.lower()] == []


def test_others_can_write_to_nothing_of_a_sweep_but_its_store_even_where_its_user_lets_them(seen):
    assert seen.writable == []


def test_the_token_of_ray_is_for_the_user_alone(seen):
    assert seen.tokens == [0o600]


def test_a_sweep_leaves_no_temporary_file(seen):
    assert seen.left == []


class Swept(NamedTuple):
    """What a sweep and what follows it wrote and said, credentials being planted in its environment."""

    folder: Path
    said: str


@pytest.fixture(scope="module")
def swept(tmp_path_factory):
    """A sweep half of whose runs fail and tell their environment, of a checkout whose remote has a password; and what
    users do with its store.
    """
    folder = tmp_path_factory.mktemp("planted")
    folder.chmod(0o755)
    root = program(folder / "program", TELLS)
    commit = ["-c", "user.name=a", "-c", "user.email=a@b", "commit", "-q", "-m", "all"]
    for git in (["init", "-q"], ["remote", "add", "origin", f"https://me:{SECRET}@host/x"], ["add", "."], commit):
        subprocess.run(["git", *git], cwd=root, check=True)
    grid = write_grid(folder / "g.toml", "faulty", depths=(1, 2), epochs=1)
    logs = Path(tempfile.mkdtemp(prefix="n", dir="/tmp"))
    logs.chmod(0o755)
    try:
        with surroundings(0o022, RAY_TMPDIR=str(logs), NORMORDER_DATA=str(folder / "data"), **PLANTED):
            assert sweep(grid, folder / "store", root=root).wait(timeout=300) == 1, told(grid)
            said = told(grid)

            def normorder(*words: object) -> subprocess.CompletedProcess:
                command = [sys.executable, "-m", "normorder", *map(str, words)]
                environment = {**os.environ, "PYTHONPATH": str(root)}
                return subprocess.run(command, cwd=root, env=environment, capture_output=True, text=True, check=False)

            for *wanted, code in (
                ("validate", folder / "store", 0),
                ("status", folder / "store", grid, 0),
                ("report", grid, "--store", folder / "store", 0),
                *(
                    ("export", grid, "--store", folder / "store", "--format", f, 0)
                    for f in ("csv", "markdown", "latex")
                ),
                ("merge", folder / "store", folder / "merged", 0),
                ("compact", folder / "merged", 0),
                ("plan", "grids/default.toml", 0),  # makes a data set
                ("sweep", grid, "--address", f"user:{SECRET}@host", 2),
                ("sweep", grid, "--address", f"ray://user:{SECRET}@host:1", 2),
                ("plan", grid, "--store", f"s3://key:{SECRET}@bucket/x", 2),
                ("plan", grid, "--store", f"https://key:{SECRET}@bucket/x", 2),
                ("validate", "s3://bucket/x", 2),  # whose endpoint has a password
                ("plan", f"https://key:{SECRET}@host/grid.toml", 2),
            ):
                done = normorder(*wanted)
                assert done.returncode == code, (wanted, done.stdout, done.stderr)
                said += done.stdout + done.stderr
        shutil.move(logs, folder / "logs")
        return Swept(folder, said)
    finally:
        shutil.rmtree(logs, ignore_errors=True)


def repeats(content: bytes | str) -> bool:
    content = content if isinstance(content, bytes) else content.encode()
    return any(form.encode() in content for form in (SECRET, SECRET.replace("/", ""), "S3cret"))


def test_no_credential_is_printed(swept):
    assert "2 done" in swept.said or "8 done" in swept.said
    assert not repeats(swept.said)


def test_no_credential_is_in_a_row(swept):
    runs = Store(swept.folder / "store").read("runs").to_pandas()
    errors = runs.loc[runs["depth"] == 2, "error"]
    assert errors.str.contains("AWS_SECRET_ACCESS_KEY").all()  # they tell what they can
    tables = [pq.read_table(path) for path in swept.folder.rglob("*.parquet")]
    assert len(tables) > 5
    assert [rows for rows in tables if repeats(repr(rows.to_pylist()) + repr(rows.schema))] == []


def test_no_credential_is_in_a_file(swept):
    mine = swept.folder / "program"
    files = [path for path in swept.folder.rglob("*") if path.is_file() and path != mine / ".git" / "config"]
    names = {path.name for path in files}
    assert {"index.html", "comparisons.csv", "comparisons.tex", "comparisons.md", "raylet.out"} <= names
    assert [path for path in files if repeats(path.read_bytes())] == []


def test_others_can_write_to_no_file_that_was_made(swept):
    assert (swept.folder / "data").exists()
    assert writable(swept.folder) == []
