"""Nodes that come late, leave, or have a small object store: the sweep uses what there is and loses nothing."""

import subprocess
import sys

import psutil
import pytest
from processes import end, sweep, told, wait_until, write_grid
from stress import Nodes

from results import Store
from results.validation import validate


@pytest.fixture
def nodes():
    made = Nodes()
    yield made
    made.close()


def test_a_node_that_joins_late_gets_work(tmp_path, nodes):
    nodes.cluster.remove_node(nodes.nodes.pop(), allow_graceful=True)
    grid = write_grid(tmp_path / "g.toml", epochs=60, seeds=120)
    driver = sweep(grid, tmp_path / "store", "--address", nodes.address)
    try:
        wait_until(lambda: driver.poll() is not None or Store(tmp_path / "store").files("runs"))
        assert len(nodes.workers()) <= 1
        nodes.nodes.append(nodes._add())
        wait_until(lambda: driver.poll() is not None or len(nodes.workers()) >= 2, 30.0)
        assert driver.poll() is None, told(grid)
        assert driver.wait(timeout=300) == 0, told(grid)
    finally:
        end([psutil.Process(driver.pid)] if driver.poll() is None else [])
    assert validate(Store(tmp_path / "store")) == []


def test_the_work_of_a_node_that_is_drained_goes_on_elsewhere(tmp_path, nodes):
    grid = write_grid(tmp_path / "g.toml", epochs=40, seeds=60)
    driver = sweep(grid, tmp_path / "store", "--address", nodes.address)
    try:
        wait_until(lambda: driver.poll() is not None or Store(tmp_path / "store").files("runs"))
        drain = [sys.executable, "-m", "ray.scripts.scripts", "drain-node", "--address", nodes.address]
        drain += ["--node-id", nodes.nodes[0].node_id, "--reason", "DRAIN_NODE_REASON_PREEMPTION"]
        drain += ["--reason-message", "maintenance", "--deadline-remaining-seconds", "5"]
        done = subprocess.run(drain, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr[-500:]
        assert driver.wait(timeout=300) == 0, told(grid)
    finally:
        end([psutil.Process(driver.pid)] if driver.poll() is None else [])
    assert len(Store(tmp_path / "store").finished()) == 120
    assert validate(Store(tmp_path / "store")) == []
