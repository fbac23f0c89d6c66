"""Interruption as users and clusters do it: finished trials stay, the way to go on is told, nothing of ours lives on."""

import contextlib
import os
import signal
import subprocess
import sys
import time

import psutil
import pytest
from processes import children, sweeping, swept, told, uses_ray, wait_until, words, write_grid

from results import Store

AGENTS = ("agent.py", "agent/main.py", "log_monitor.py")  # of Ray, which may take two minutes


def test_a_sweep_that_is_interrupted_ends_soon_says_how_to_go_on_and_goes_on(tmp_path):
    grid = write_grid(tmp_path / "a grid.toml", epochs=50, seeds=120)
    store = Store(tmp_path / "store")
    finished = 0
    for number, send in ((signal.SIGINT, to_group), (signal.SIGTERM, twice), (signal.SIGUSR1, to_all)):
        files = store.files("runs")
        with sweeping(grid, store.path) as driver:
            wait_until(lambda driver=driver, files=files: driver.poll() is not None or store.files("runs") != files)
            assert driver.poll() is None, told(grid)
            ours = children(driver)
            send(driver, number)
            assert driver.wait(timeout=10) == 130, told(grid)
            last = told(grid).splitlines()[-1]
            assert last.startswith(
                "normorder: interrupted; finished trials are in the store; to go on: normorder sweep '"
            )
            rest = [each for each in ours if not any(word.endswith(AGENTS) for word in words(each))]
            wait_until(lambda rest=rest: not any(each.is_running() for each in rest), 10.0)
        assert finished < len(store.finished()) < 240
        finished = len(store.finished())
    code, out = swept(grid, store.path)
    assert code == 0, out
    assert len(store.finished()) == 240


@pytest.mark.parametrize("after_s", [0.0, 0.4])
def test_an_interrupt_as_ray_is_started_is_told_as_one(tmp_path, after_s):
    grid = write_grid(tmp_path / "g.toml")
    with sweeping(grid, tmp_path / "store") as driver:
        wait_until(lambda: driver.poll() is not None or uses_ray(driver))
        time.sleep(after_s)
        driver.send_signal(signal.SIGTERM)
        assert driver.wait(timeout=10) == 130, told(grid)
    assert told(grid).startswith("normorder: interrupted; ")


@pytest.mark.parametrize("read", [0, 1])
def test_a_sweep_whose_output_nobody_reads_ends_with_a_line(tmp_path, read):
    grid = write_grid(tmp_path / "g.toml", epochs=1, seeds=1)
    command = [sys.executable, "-m", "normorder", "sweep", str(grid), "--store", str(tmp_path / "store")]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as driver:
        for _ in range(read):
            driver.stdout.readline()
        driver.stdout.close()
        lines = driver.stderr.read().splitlines()
    assert driver.returncode == 2
    assert lines == [lines[0]]
    assert lines[0].startswith("normorder: nobody reads what it prints any more; finished trials are in the store")


def to_group(driver, number):
    """As a terminal does."""
    os.killpg(driver.pid, number)


def twice(driver, number):
    """As somebody who has no patience."""
    driver.send_signal(number)
    time.sleep(0.7)
    driver.send_signal(number)


def to_all(driver, number):
    """As Slurm can: to every process of a job, in any order, Ray's too."""
    for process in [*children(driver), psutil.Process(driver.pid)]:
        with contextlib.suppress(psutil.Error):
            process.send_signal(number)
