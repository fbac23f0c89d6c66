"""Sweeps in processes of their own, of a copy of the program whose architecture `faulty` does what a test needs."""

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
import pytest

ROOT = Path(__file__).parents[2]
GRID = """
[axes]
dataset      = ["digits"]
architecture = ["{architecture}"]
order        = ["weight-bn-act", "weight-act-bn"]
activation   = ["relu"]
depth        = {depths}
[recipe]
epochs = {epochs}
batch  = {batch}
width  = {width}
[seeds]
count = {seeds}
"""
FAULTY = """
import sys
import time
from harness.architectures.mlp import build as sound

def build(cell, shape, classes):
    if "default_worker" in sys.argv[0]:  # not in the driver, which builds each network once to check it
        {fault}
    return sound(cell, shape, classes)

{facts}
"""


def need(tool: str, package: str) -> None:
    """Skip where a tool is missing, but fail in CI, which installs it."""
    if shutil.which(tool):
        return
    why = f"{tool} is missing: install Debian's {package}"
    if os.environ.get("CI"):
        pytest.fail(why)
    pytest.skip(why)


def program(folder: Path, fault: str) -> Path:
    """A copy of the program with an architecture `faulty`, which is `mlp` after the statement `fault` in a worker."""
    for room in ("harness", "grids", "results", "reports"):
        shutil.copytree(ROOT / room, folder / room, ignore=shutil.ignore_patterns("data", "build", "__pycache__"))
    shutil.copy(ROOT / "normorder.py", folder)
    text = (ROOT / "harness" / "architectures" / "mlp.py").read_text()
    facts = "\n".join(line for line in text.splitlines() if line.startswith(("CONVOLUTIONS", "CONSTANT_WIDTH")))
    faulty = FAULTY.format(fault=fault.replace("\n", "\n        "), facts=facts)
    (folder / "harness" / "architectures" / "faulty.py").write_text(faulty)
    return folder


def write_grid(path: Path, architecture="mlp", depths=(1,), epochs=2, batch=64, width=32, seeds=4) -> Path:
    grid = GRID.format(
        architecture=architecture, depths=list(depths), epochs=epochs, batch=batch, width=width, seeds=seeds
    )
    path.write_text(grid)
    return path


def sweep(grid: Path, store: Path, *options: str, root: Path = ROOT, log: Path | None = None) -> subprocess.Popen:
    """A driver of the program in `root`, in a process group of its own; it prints to `log`, or to a file beside the grid."""
    command = [sys.executable, "-m", "normorder", "sweep", str(grid), "--store", str(store), *options]
    with (log or grid.with_suffix(".log")).open("ab") as out:
        environment = {**os.environ, "PYTHONPATH": str(root)}
        return subprocess.Popen(command, stdout=out, stderr=out, cwd=root, env=environment, start_new_session=True)


@contextmanager
def sweeping(grid: Path, store: Path, *options: str, **how) -> Iterator[subprocess.Popen]:
    """A driver that does not outlive the block."""
    driver = sweep(grid, store, *options, **how)
    try:
        yield driver
    finally:
        if driver.poll() is None:
            driver.kill()
        driver.wait()


def told(grid: Path) -> str:
    return grid.with_suffix(".log").read_text()


def swept(grid: Path, store: Path, *options: str, root: Path = ROOT) -> tuple[int, str]:
    """Exit code and output of a sweep that is waited for."""
    code = sweep(grid, store, *options, root=root).wait(timeout=300)
    return code, told(grid)


def children(driver: subprocess.Popen) -> list[psutil.Process]:
    return psutil.Process(driver.pid).children(recursive=True)


def uses_ray(driver: subprocess.Popen) -> psutil.Process | None:
    """The process of a sweep that uses Ray, which the driver watches; None where there is none yet, or none any more."""
    found = [each for each in children(driver) if "spawn_main" in "".join(words(each)) and each.ppid() == driver.pid]
    return found[0] if found else None


def kill(driver: subprocess.Popen) -> None:
    """SIGKILL of a driver and of the process that it watches, which would otherwise end in order."""
    watched = uses_ray(driver) if driver.poll() is None else None
    driver.kill()
    if watched:
        watched.kill()
    driver.wait()


def words(process: psutil.Process) -> list[str]:
    """Its command line; empty where it is gone."""
    try:
        return process.cmdline()
    except psutil.Error:
        return []


def trains(process: psutil.Process) -> bool:
    return "".join(words(process)[:1]).startswith("ray::ImplicitFunc.train")


def end(processes: list[psutil.Process]) -> None:
    """End processes that a test started; psutil compares start times, so a number that was taken over is left alone."""
    for process in processes:
        if process.is_running():
            process.send_signal(signal.SIGKILL)


def wait_until(condition, seconds: float = 60.0) -> None:
    end_s = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end_s, "it took too long"
        time.sleep(0.05)
