"""SIGKILL on one machine, of the driver, of Ray's processes and of the one that uses them, at random moments."""

import random
import signal
import time

from processes import children, end, kill, sweep, swept, told, trains, uses_ray, wait_until, words, write_grid
from test_together import assert_same, measured

from results import Store
from results.validation import validate

# Of the last two the sweep starts the process that uses Ray again by itself; the driver must be started again.
TARGETS = ("driver", "uses Ray", "raylet")
PHASES = ("starting", "training")


def strike(driver, target):
    """Kill the target. Gives whether it was there."""
    if driver.poll() is not None:
        return False
    if target == "driver":
        kill(driver)
        return True
    watched = uses_ray(driver)
    struck = [watched] if target == "uses Ray" else raylets(driver)
    end(struck)
    if struck:
        wait_until(lambda: not watched.is_running())  # Ray ends it when it notices that its raylet is gone
    return bool(struck)


def raylets(driver):
    return [each for each in children(driver) if "".join(words(each)[:1]).endswith("raylet/raylet")]


def test_kills_at_random_moments_lose_and_double_nothing_and_a_sweep_that_lost_ray_goes_on(tmp_path):
    grid = write_grid(tmp_path / "g.toml", epochs=40, depths=(1, 2), seeds=60)
    store, calm = tmp_path / "killed", tmp_path / "undisturbed"
    times, finished, started = random.Random(7), set(), []
    hits = dict.fromkeys(PHASES, 0)
    driver = None
    try:
        for phase in PHASES:
            for target in reversed(TARGETS):
                if driver is None or driver.poll() is not None:
                    driver = sweep(grid, store)
                wait_until(lambda driver=driver: uses_ray(driver))
                if phase == "training":
                    wait_until(lambda driver=driver: driver.poll() is not None or any(map(trains, children(driver))))
                    assert driver.poll() is None, told(grid)
                time.sleep(times.uniform(0.0, 2.0 if phase == "training" else 4.0))
                ours = children(driver)
                started += ours
                when = "training" if any(map(trains, ours)) else "starting"
                hits[when] += strike(driver, target)
                now = measured(store).index
                assert finished <= set(now)
                assert now.is_unique
                finished = set(now)
    finally:
        if driver.poll() is None:
            driver.send_signal(signal.SIGKILL)
            driver.wait()
        end(started)
    code, out = swept(grid, store)
    assert code == 0, out
    assert "the process that drives Ray was lost: killed by SIGKILL; it is started again" in out
    assert "the process that drives Ray was lost: ended with code 1; it is started again" in out
    assert swept(grid, calm)[0] == 0, told(grid)
    assert_same(measured(store), measured(calm))
    assert validate(Store(store)) == []
    assert hits["starting"] >= 2, hits
    assert hits["training"] >= 3, hits
