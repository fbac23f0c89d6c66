"""A sweep under random kills of its workers, nodes and driver, beside an undisturbed one: what was lost, doubled, damaged?

$ make stress                                                        some minutes
$ .venv/bin/python tests/faults/stress.py --kills 10 --trials 40

The disturbed sweep runs on a cluster of two local nodes. A kill of a worker strikes one that trains, or that has a file
half written: the names of temporary files tell their writer. A node that was killed is replaced, a driver that was
killed starts again, until nothing is to do.
"""

import argparse
import os
import random
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import psutil
from processes import GRID, ROOT, end, sweep

from results import SCHEMAS, Store
from results.files import WRITER
from results.schema import MEASURED
from results.validation import validate

os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
KINDS = ("worker training", "worker writing", "node", "driver")
SEEDS = 4  # of a cell, and so of a trial
ACTIVATIONS = ("relu", "tanh", "elu", "sigmoid", "softsign", "gelu", "silu", "selu", "softplus", "identity")


class Outcome(NamedTuple):
    """What a disturbed sweep came to."""

    kills: Counter[str]  # by kind, of processes that were alive
    trials: int
    lost: int  # finished runs that were gone later, or that the undisturbed store alone has
    doubled: int  # runs with several finished rows of equal engine, code and data that differ
    different: int  # runs whose measurements are not those of the undisturbed sweep, bit for bit, by an equal engine
    corrupt: int  # files that cannot be read
    problems: int  # of any kind that `validate` tells
    wall_s: float
    undisturbed_s: float


def grid_text(trials: int) -> str:
    depths = list(range(1, -(-trials // (2 * len(ACTIVATIONS))) + 1))
    text = GRID.format(architecture="mlp", epochs=12, width=32, seeds=SEEDS)
    return text.replace('["relu"]', str(list(ACTIVATIONS))).replace("depth        = [1]", f"depth        = {depths}")


class Nodes:
    """A Ray cluster on loopback: a head without CPUs and two nodes of one CPU each, that may be killed and replaced."""

    def __init__(self):
        from ray.cluster_utils import Cluster

        self.cluster = Cluster(
            initialize_head=True,
            head_node_args={"num_cpus": 0, "include_dashboard": False, "object_store_memory": 200_000_000},
        )
        self.nodes = [self._add() for _ in range(2)]

    def _add(self):
        return self.cluster.add_node(num_cpus=1, object_store_memory=200_000_000)

    @property
    def address(self) -> str:
        return self.cluster.address

    def kill(self, which: int) -> None:
        """SIGKILL of a node's raylet; another node takes its place."""
        self.cluster.remove_node(self.nodes[which], allow_graceful=False)
        self.nodes[which] = self._add()

    def workers(self) -> list[psutil.Process]:
        """Processes of trials, whichever node they belong to."""
        found = []
        for process in psutil.Process().children(recursive=True):
            try:
                if process.cmdline()[:1] and process.cmdline()[0].startswith("ray::ImplicitFunc"):
                    found.append(process)
            except psutil.Error:
                continue
        return found

    def close(self) -> None:
        self.cluster.shutdown()


def written(store: Path) -> Iterator[int]:
    """Process numbers of those who have a file half written."""
    for name in SCHEMAS:
        for path in (store / name).glob(f".*.{WRITER}.*.tmp"):
            yield int(path.name.split(".")[-3])


def strike(kind: str, nodes: Nodes, driver: subprocess.Popen, store: Path, times: random.Random) -> bool:
    """Kill something of this kind; whether it was alive and doing what the kind says."""
    if kind == "driver":
        alive = driver.poll() is None
        driver.kill()
        driver.wait()
        return alive
    if kind == "node":
        nodes.kill(times.randrange(2))
        return True
    if kind == "worker training":
        workers = nodes.workers()
        if workers:
            times.choice(workers).kill()
        return bool(workers)
    end_s = time.monotonic() + 20
    while time.monotonic() < end_s and driver.poll() is None:
        for number in written(store):
            try:
                process = psutil.Process(number)
                process.kill()
                process.wait(5)
            except psutil.Error:
                continue
            return number in set(written(store))  # its file is still half written, so it struck in time
    return False


def measured(store: Path):
    """Finished runs by run_id, with what was measured."""
    runs = Store(store).read("runs").to_pandas().set_index("run_id").sort_index()
    return runs[runs["status"] != "failed"]


def disturbed(grid: Path, store: Path, kills: int, seed: int) -> tuple[Counter[str], int, float]:
    """Sweep until nothing is to do, killing meanwhile. Kills by kind, finished runs that were seen and then not, seconds."""
    times, hits, seen, gone = random.Random(seed), Counter(), set(), 0
    start = time.monotonic()
    nodes = Nodes()
    driver = sweep(grid, store, "--address", nodes.address)
    order = [KINDS[i % len(KINDS)] for i in range(kills)]
    times.shuffle(order)
    try:
        while driver.poll() != 0:
            if driver.poll() is not None:
                driver = sweep(grid, store, "--address", nodes.address, "--retry")
            time.sleep(times.uniform(0.5, 4.0))
            if order and nodes.workers():
                kind = order[-1]
                if strike(kind, nodes, driver, store, times):
                    hits[kind] += 1
                    order.pop()
                else:
                    order.insert(0, order.pop())  # its time has not come
                now = set(measured(store).index)
                gone += len(seen - now)
                seen |= now
    finally:
        if driver.poll() is None:
            end([psutil.Process(driver.pid)])
        nodes.close()
    return hits, gone, time.monotonic() - start


def stress(folder: Path, kills: int, trials: int, seed: int = 0) -> Outcome:
    grid = folder / "stress.toml"
    grid.write_text(grid_text(trials))
    calm, store = folder / "calm", folder / "disturbed"
    start = time.monotonic()
    if sweep(grid, calm, log=folder / "calm.log").wait() != 0:
        raise SystemExit((folder / "calm.log").read_text())
    undisturbed_s = time.monotonic() - start
    hits, gone, wall_s = disturbed(grid, store, kills, seed)
    expected, found = measured(calm), measured(store)
    both = expected.index.intersection(found.index)
    columns = list(MEASURED)
    a, b = expected.loc[both], found.loc[both]
    same_engine = (a["engine"] == b["engine"]).to_numpy()
    equal = ((a[columns] == b[columns]) | (a[columns].isna() & b[columns].isna())).all(axis=1).to_numpy()
    problems = validate(Store(store))
    return Outcome(
        kills=hits,
        trials=a["trial"].nunique(),
        lost=gone + len(expected.index.difference(found.index)),
        doubled=Store(store).conflicts()["run_id"].nunique(),
        different=int((~equal | ~same_engine).sum()),
        corrupt=sum("not a readable" in problem for problem in problems),
        problems=len(problems),
        wall_s=wall_s,
        undisturbed_s=undisturbed_s,
    )


def main() -> None:
    words = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    words.add_argument("--kills", type=int, default=52)
    words.add_argument("--trials", type=int, default=200)
    words.add_argument("--seed", type=int, default=0)
    given = words.parse_args()
    with tempfile.TemporaryDirectory(prefix="normorder-stress-") as folder:
        found = stress(Path(folder), given.kills, given.trials, given.seed)
    for kind in KINDS:
        print(f"kills, {kind:<16} {found.kills[kind]:>6}")
    for name in ("trials", "lost", "doubled", "different", "corrupt", "problems"):
        print(f"{name:<23} {getattr(found, name):>6,}")
    print(f"wall time {found.wall_s:.0f} s, undisturbed {found.undisturbed_s:.0f} s")
    bad = found.lost + found.doubled + found.different + found.corrupt + found.problems
    sys.exit(1 if bad or sum(found.kills.values()) < given.kills else 0)


if __name__ == "__main__":
    os.chdir(ROOT)
    main()
