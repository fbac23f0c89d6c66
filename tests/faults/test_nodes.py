"""Nodes that come late, leave, or have a small object store: the sweep uses what there is and loses nothing."""

import contextlib
import os
import socket
import subprocess
import sys

import psutil
import pytest
import ray
from processes import ROOT, end, program, sweeping, swept, told, wait_until, write_grid
from stress import Nodes

from harness.cluster import ClusterError
from harness.cluster import cluster as connecting
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


def test_nodes_get_the_program_as_it_is_here_with_its_new_files(tmp_path, cluster):
    nodes = cluster(1)
    root = program(tmp_path / "program", "pass")
    grid = write_grid(tmp_path / "g.toml", "faulty", seeds=1)
    code, out = swept(grid, tmp_path / "store", "--address", nodes.address, root=root)
    assert code == 0, out
    assert len(Store(tmp_path / "store").finished()) == 2


# Where a trial runs: its cell, the node, and the GPUs that it was given there.
TELL = """import ray
context = ray.get_runtime_context()
gpus = ",".join(context.get_accelerator_ids()["GPU"])
with open({path!r}, "a") as file:
    file.write(f"{{cell.order}} {{cell.depth}} {{context.get_node_id()}} {{gpus}}\\n")"""


def test_trials_run_where_the_gpus_are_and_the_arms_of_a_pair_on_one_kind_of_them(tmp_path, cluster):
    nodes = cluster(0)
    nodes.add(num_cpus=2, num_gpus=1, resources={"accelerator_type:A100": 1})
    nodes.add(num_cpus=2, num_gpus=1, resources={"accelerator_type:T4": 1})
    nodes.add()
    nodes.add()
    where = tmp_path / "where"
    root = program(tmp_path / "program", TELL.format(path=str(where)))
    grid = write_grid(tmp_path / "g.toml", "faulty", depths=(1, 2, 3, 4), seeds=1)
    grid.write_text(grid.read_text() + "[resources]\ngpus = 0.5\n")
    code, out = swept(grid, tmp_path / "store", "--address", nodes.address, root=root)
    assert code == 0, out
    assert "on 4 slots" in out
    ran = [line.split(" ") for line in where.read_text().splitlines()]
    of_depth = {depth: {node for _, at, node, _ in ran if at == depth} for depth in "1234"}
    with_gpus = {node.node_id for node in nodes.nodes[:2]}
    assert all(len(found) == 1 and found <= with_gpus for found in of_depth.values())
    assert set.union(*of_depth.values()) == with_gpus
    assert {gpus for *_, gpus in ran} == {"0"}
    assert len(Store(tmp_path / "store").finished()) == 8


def test_what_no_node_can_meet_is_told_at_once_with_the_sizes(tmp_path, cluster):
    nodes = cluster(0)
    nodes.add(num_cpus=2, num_gpus=1)
    nodes.add()
    grid = write_grid(tmp_path / "g.toml")
    grid.write_text(grid.read_text() + "[resources]\ncpus = 2\ngpus = 2\n")
    code, out = swept(grid, tmp_path / "store", "--address", nodes.address)
    assert code == 2
    told = out.splitlines()[-1]
    assert told.startswith("normorder: a trial asks for 2 CPU and 2 GPU, the nodes have 2 CPU and 1 GPU; 1 CPU; ")
    grid.write_text(grid.read_text().replace("cpus = 2\ngpus = 2\n", "gpus = 0\n"))
    planning = [
        sys.executable,
        "-m",
        "normorder",
        "plan",
        str(grid),
        "--store",
        str(tmp_path / "store"),
        "--rehearse",
        "0",
    ]
    plan = subprocess.run([*planning, "--address", nodes.address], capture_output=True, text=True, check=True, cwd=ROOT)
    assert " seeds on 3 slots\n" in plan.stdout


@contextlib.contextmanager
def ray_start(*options, before=(), **environment):
    """A node that is started by a command of its own, behind the words `before`."""
    start = [*before, sys.executable, "-m", "ray.scripts.scripts", "start", *options]
    start += ["--num-cpus=1", "--object-store-memory=200000000", "--disable-usage-stats", "--block"]
    # A variable that this program sets for Ray of its own: with it, a node joins no other.
    env = {**os.environ, "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "1", **environment}
    how = {"env": env, "stdout": subprocess.PIPE, "text": True, "start_new_session": True}
    with subprocess.Popen(start, **how) as process:
        try:
            assert any("Ray runtime started" in line for line in process.stdout)
            yield
        finally:
            end([*psutil.Process(process.pid).children(recursive=True), psutil.Process(process.pid)])


def refused(tmp_path, nodes, before=(), **environment):
    """What a sweep says of the second of two nodes, which is started so. Nothing was trained."""
    store = tmp_path / "store"
    store.mkdir()
    with ray_start("--address", nodes.address, before=before, **environment):
        code, out = swept(write_grid(tmp_path / "g.toml"), store, "--address", nodes.address)
    assert code == 2
    assert Store(store).files("runs") == []
    told = out.splitlines()[-1]
    assert told.startswith("normorder: 1 of 2 nodes cannot train: node ")
    return told


def mounting(store, how):
    """Words before a command that runs with a disk of its own at `store`."""
    if subprocess.run(["unshare", "--mount", "true"], capture_output=True, check=False).returncode:
        pytest.skip("a node with a disk of its own needs the right to mount")
    return ["unshare", "--mount", "sh", "-c", f'cd / && {how.format(store=store)} && exec "$@"', "sh"]


def test_a_node_that_does_not_see_the_store_is_named_before_anything_is_trained(tmp_path, cluster):
    elsewhere = mounting(tmp_path / "store", 'mount -t tmpfs tmpfs "{store}"')
    assert "is not the store that the sweep began with" in refused(tmp_path, cluster(1), elsewhere)


def test_a_node_that_cannot_write_to_the_store_is_named_before_anything_is_trained(tmp_path, cluster):
    only_read = mounting(tmp_path / "store", 'mount --bind "{store}" "{store}" && mount -o remount,bind,ro "{store}"')
    assert "cannot be written" in refused(tmp_path, cluster(1), only_read)


def test_a_node_that_cannot_import_torch_is_named_before_anything_is_trained(tmp_path, cluster):
    broken = tmp_path / "libraries" / "torch"
    broken.mkdir(parents=True)
    (broken / "__init__.py").write_text("raise ImportError('libcudart.so: cannot open shared object file')")
    told = refused(tmp_path, cluster(1), PYTHONPATH=str(broken.parent))
    assert "cannot import what trials need: ImportError: libcudart.so" in told


def test_a_node_with_other_versions_is_named_before_anything_is_trained(tmp_path, cluster):
    other = tmp_path / "libraries" / "numpy-1.2.3.dist-info"
    other.mkdir(parents=True)
    (other / "METADATA").write_text("Metadata-Version: 2.1\nName: numpy\nVersion: 1.2.3\n")
    assert "numpy 1.2.3 where the driver has" in refused(tmp_path, cluster(1), PYTHONPATH=str(other.parent))


def free_port():
    with socket.socket() as any_port:
        any_port.bind(("127.0.0.1", 0))
        return any_port.getsockname()[1]


@pytest.fixture
def outside():
    """An address by which a cluster of one node is used from outside."""
    port = free_port()
    with ray_start("--head", f"--port={free_port()}", f"--ray-client-server-port={port}", "--include-dashboard=false"):
        yield f"ray://127.0.0.1:{port}"


def test_a_sweep_from_outside_the_cluster_trains_there_and_tells_here(tmp_path, outside):
    grid = write_grid(tmp_path / "g.toml", "faulty")
    root = program(tmp_path / "program", "pass")
    code, out = swept(grid, tmp_path / "store", "--address", outside, root=root)
    assert code == 0, out
    assert "to do 8 in 2 trials of 4 seeds on 1 slots" in out
    assert "runs 8/8" in out
    assert len(Store(tmp_path / "store").finished()) == 8
    assert validate(Store(tmp_path / "store")) == []


def test_what_adaptive_seeds_want_is_decided_on_the_cluster_too(tmp_path, outside):
    grid = write_grid(tmp_path / "g.toml", seeds=5)
    more = "count = 5\nmax = 10\nstop = 'decided'\n[analysis]\nmargin = { test_accuracy = 0.0001 }\n"
    grid.write_text(grid.read_text().replace("count = 5\n", more))
    code, out = swept(grid, tmp_path / "store", "--address", outside)
    assert code == 0, out
    assert "look 2: 2 of 2 cells are in undecided comparisons and get seeds 5 to 9" in out
    assert len(Store(tmp_path / "store").finished()) == 20


def test_what_is_wrong_on_a_cluster_is_told_outside_in_a_line(tmp_path, outside):
    grid = write_grid(tmp_path / "g.toml")
    grid.write_text(grid.read_text() + "[resources]\ngpus = 2\n")
    code, out = swept(grid, tmp_path / "store", "--address", outside)
    assert code == 2
    assert out.splitlines()[-1] == "normorder: a trial asks for 1 CPU and 2 GPU, the nodes have 1 CPU"


@pytest.fixture
def failing(monkeypatch):
    """Makes a cluster whose process for us ends at once the first `failures` times, and the list of the addresses asked."""

    def make(failures):
        asked = []

        def init(address, **_):
            asked.append(address)
            if len(asked) <= failures:
                why = "Traceback (most recent call last):\nRuntimeError: Starting Ray client server failed."
                raise ConnectionAbortedError(f"Initialization failure from server:\n{why}\n")

        monkeypatch.setattr(ray, "init", init)
        return asked

    monkeypatch.setattr(ray, "is_initialized", lambda: False)
    monkeypatch.setattr(ray, "shutdown", lambda: None)
    monkeypatch.setenv("RAY_AUTH_MODE", "disabled")
    return make


def test_a_cluster_whose_process_for_us_ended_at_once_is_asked_again(failing):
    asked = failing(2)
    with connecting("ray://host:10001"):
        assert asked == ["ray://host:10001"] * 3


def test_a_cluster_whose_process_for_us_ended_thrice_is_told_with_why(failing):
    asked = failing(3)
    why = "no Ray cluster at ray://host:10001: RuntimeError: Starting Ray client server failed."
    with pytest.raises(ClusterError, match=f"^{why}$"), connecting("ray://host:10001"):
        pass
    assert len(asked) == 3


def test_the_token_of_this_user_is_used_with_a_cluster_that_wants_one(tmp_path, monkeypatch):
    token = tmp_path / "token"
    token.write_text(64 * "a")
    grid, address = write_grid(tmp_path / "g.toml", seeds=1), f"127.0.0.1:{free_port()}"
    with ray_start(
        "--head",
        f"--port={address[10:]}",
        "--include-dashboard=false",
        RAY_AUTH_MODE="token",
        RAY_AUTH_TOKEN_PATH=token,
    ):
        monkeypatch.setenv("HOME", str(tmp_path / "nobody"))
        code, out = swept(grid, tmp_path / "store", "--address", address)
        assert code == 2, out
        wanted = f"normorder: {address}: wants a token, in RAY_AUTH_TOKEN or in ~/.ray/auth_token"
        assert out.splitlines()[-1] == wanted
        monkeypatch.setenv("RAY_AUTH_TOKEN_PATH", str(token))
        code, out = swept(grid, tmp_path / "store", "--address", address)
    assert code == 0, out
    assert len(Store(tmp_path / "store").finished()) == 2
