"""SIGKILL of the driver at random times: the store is the only memory, and it never loses or doubles a run."""

import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import psutil
import pytest

from results import Store
from results.schema import MEASURED

KILLS = 20
EARLY = 6  # of the kills: at a random time of the start; the others at a random time after a first trial was written
GRID = """
[axes]
dataset      = ["digits"]
architecture = ["mlp"]
order        = ["weight-act", "weight-bn-act", "weight-act-bn"]
activation   = ["relu", "tanh", "maxout", "identity", "softsign"]
depth        = [1, 2, 3, 4, 5, 6]
[recipe]
epochs = 40
batch  = 64
width  = 32
[seeds]
count = 4
"""
RUNS = 3 * 5 * 6 * 4


def sweep(grid: Path, store: Path) -> subprocess.Popen:
    """A driver in a process of its own; what it prints goes to a file beside the store."""
    command = [sys.executable, "-m", "normorder", "sweep", str(grid), "--store", str(store)]
    with store.with_suffix(".log").open("ab") as log:
        return subprocess.Popen(command, stdout=log, stderr=log)


@pytest.fixture
def started():
    """Drivers and all their children, ended when the test ends."""
    processes: dict[int, psutil.Process] = {}

    def remember(driver: subprocess.Popen) -> None:
        for process in [psutil.Process(driver.pid), *psutil.Process(driver.pid).children(recursive=True)]:
            processes[process.pid] = process

    yield remember
    for process in processes.values():
        if process.is_running():  # psutil compares start times: a process that took over the number is left alone
            process.kill()


def measured(store: Path):
    return Store(store).read("runs").to_pandas().set_index("run_id").sort_index()[list(MEASURED)]


def test_twenty_kills_of_the_driver_lose_and_double_nothing(tmp_path, started):
    grid = tmp_path / "kill.toml"
    grid.write_text(GRID)
    store, undisturbed = tmp_path / "killed", tmp_path / "undisturbed"
    times = random.Random(7)
    in_store: set[str] = set()
    hits = {"starting": 0, "training": 0}
    for kill in range(KILLS):
        driver = sweep(grid, store)
        if kill < EARLY:
            time.sleep(times.uniform(0.5, 6.0))
        else:
            files = set(Store(store).files("runs"))
            while driver.poll() is None and set(Store(store).files("runs")) == files:
                time.sleep(0.05)
            time.sleep(times.uniform(0.0, 1.0))
        alive = driver.poll() is None
        if alive:
            started(driver)
        driver.send_signal(signal.SIGKILL)
        driver.wait()
        now = measured(store).index  # read once: workers write on for a moment
        assert in_store <= set(now)
        assert now.is_unique
        hits["training" if len(now) > len(in_store) else "starting"] += alive
        in_store = set(now)
    assert sweep(grid, store).wait() == 0, store.with_suffix(".log").read_text()[-2000:]
    assert sweep(grid, undisturbed).wait() == 0
    killed, calm = measured(store), measured(undisturbed)
    assert len(calm) == RUNS
    assert list(killed.index) == list(calm.index)
    for name in MEASURED:
        np.testing.assert_array_equal(killed[name].to_numpy(), calm[name].to_numpy(), err_msg=name)
    assert Store(store).conflicts().empty
    assert hits["starting"] >= 3, hits
    assert hits["training"] >= 8, hits
