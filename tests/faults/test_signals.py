"""Interruption as users and clusters do it: finished trials stay, the way to go on is told, nothing of ours lives on."""

import os
import signal

from processes import children, sweeping, swept, told, wait_until, words, write_grid

from results import Store

AGENTS = ("agent.py", "agent/main.py", "log_monitor.py")  # of Ray, which may take two minutes


def test_a_sweep_that_is_interrupted_ends_soon_says_how_to_go_on_and_goes_on(tmp_path):
    grid = write_grid(tmp_path / "a grid.toml", epochs=60, seeds=160)
    store = Store(tmp_path / "store")
    finished = 0
    # A terminal and Slurm send a signal to the whole group, Ray's processes in it.
    for number, send in ((signal.SIGINT, os.killpg), (signal.SIGTERM, os.killpg), (signal.SIGUSR1, os.kill)):
        files = store.files("runs")
        with sweeping(grid, store.path) as driver:
            wait_until(lambda driver=driver, files=files: driver.poll() is not None or store.files("runs") != files)
            assert driver.poll() is None, told(grid)
            ours = children(driver)
            send(driver.pid, number)
            assert driver.wait(timeout=10) == 130, told(grid)
            last = told(grid).splitlines()[-1]
            assert last.startswith(
                "normorder: interrupted; finished trials are in the store; to go on: normorder sweep '"
            )
            rest = [each for each in ours if not any(word.endswith(AGENTS) for word in words(each))]
            wait_until(lambda rest=rest: not any(each.is_running() for each in rest), 10.0)
        assert finished < len(store.finished()) < 320
        finished = len(store.finished())
    code, out = swept(grid, store.path)
    assert code == 0, out
    assert len(store.finished()) == 320
