"""Nodes that come late, leave, or have a small object store: the sweep uses what there is and loses nothing."""

import subprocess
import sys

import pytest
from processes import sweeping, swept, told, wait_until, write_grid
from stress import Nodes

from results import Store
from results.validation import validate

FILL = """
import sys
import numpy as np
import ray
ray.init(address=sys.argv[1], log_to_driver=False)
held = [ray.put(np.zeros(5_000_000, "uint8")) for _ in range(2 * int(sys.argv[2]) // 5_000_000)]
print("full", flush=True)
sys.stdin.read()
"""


@pytest.fixture
def cluster():
    """Makes clusters that are ended after the test."""
    made = []

    def make(*arguments):
        made.append(Nodes(*arguments))
        return made[-1]

    yield make
    for each in made:
        each.close()


def test_nodes_that_join_late_get_work_and_take_over_that_of_one_that_is_lost_or_drained(tmp_path, cluster):
    nodes = cluster(1)
    grid = write_grid(tmp_path / "g.toml", epochs=160, seeds=120)
    store = Store(tmp_path / "store")
    with sweeping(grid, store.path, "--address", nodes.address) as driver:

        def wait_for_workers(count):
            wait_until(lambda: driver.poll() is not None or len(nodes.workers()) == count, 90.0)
            assert driver.poll() is None, told(grid)

        wait_for_workers(1)
        nodes.kill(0)
        wait_until(lambda: "no node of the cluster has a CPU any more: waiting for one" in told(grid))
        nodes.add()
        wait_for_workers(1)
        nodes.add()
        wait_for_workers(2)
        drain = [sys.executable, "-m", "ray.scripts.scripts", "drain-node", "--address", nodes.address]
        drain += ["--node-id", nodes.nodes[0].node_id, "--reason", "DRAIN_NODE_REASON_PREEMPTION"]
        drain += ["--reason-message", "maintenance", "--deadline-remaining-seconds", "5"]
        subprocess.run(drain, capture_output=True, check=True)
        wait_for_workers(1)
        assert driver.wait(timeout=300) == 0, told(grid)
    assert len(store.finished()) == 240
    assert validate(store) == []


def test_a_full_object_store_loses_nothing(tmp_path, cluster):
    """Another program on the cluster holds twice what the object store of a node can; Ray moves objects to disk."""
    size = 80_000_000
    nodes = cluster(1, size)
    grid = write_grid(tmp_path / "g.toml", epochs=10, seeds=12)
    filling = [sys.executable, "-c", FILL, nodes.address, str(size)]
    with subprocess.Popen(filling, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as filler:
        assert filler.stdout.readline() == "full\n"
        assert swept(grid, tmp_path / "store", "--address", nodes.address)[0] == 0, told(grid)
        filler.stdin.close()
    assert len(Store(tmp_path / "store").finished()) == 24
    assert validate(Store(tmp_path / "store")) == []
