"""Interruption as users and clusters do it: finished trials stay, the way to go on is told, nothing of ours lives on."""

import signal
import time

import psutil
import pytest
from processes import children, sweeping, swept, told, wait_until, write_grid

from results import Store

AGENTS = ("agent.py", "agent/main.py", "log_monitor.py")  # of Ray, which may take two minutes


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGUSR1])
def test_a_sweep_that_is_interrupted_ends_soon_and_goes_on_later(tmp_path, number):
    grid = write_grid(tmp_path / "a grid.toml", epochs=60, seeds=60)
    store = tmp_path / "store"
    with sweeping(grid, store) as driver:
        wait_until(lambda: driver.poll() is not None or len(Store(store).files("runs")) >= 1)
        ours = children(driver)
        before = len(Store(store).finished())
        driver.send_signal(number)
        assert driver.wait(timeout=10) == 130, told(grid)
        last = told(grid).splitlines()[-1]
        assert last.startswith("normorder: interrupted; finished trials are in the store; to go on: normorder sweep '")
        assert len(Store(store).finished()) >= before > 0
        rest = [each for each in ours if not any(word.endswith(AGENTS) for word in cmdline(each))]
        wait_until(lambda: not any(each.is_running() for each in rest), 10.0)
    time.sleep(1)
    code, out = swept(grid, store)
    assert code == 0, out


def cmdline(process):
    try:
        return process.cmdline()
    except psutil.Error:
        return []
