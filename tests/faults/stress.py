"""A sweep under random kills of its workers, nodes and driver, beside an undisturbed one: what was lost, doubled, damaged?

$ make stress                                                        some minutes
$ .venv/bin/python tests/faults/stress.py --kills 10 --trials 40

The disturbed sweep runs on a cluster of two local nodes. Kills are spread evenly over its trials. A kill of a worker
strikes one that trains, or that has a file half written: the names of temporary files tell their writer; or that one and
the driver, so that nobody writes the rest. A node or driver is killed while workers train, or while none does: as a driver
starts. A node that was killed is replaced, a driver that was
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
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

import psutil
from processes import GRID, ROOT, end, kill, sweep, trains

from results import SCHEMAS, Store
from results.disk import WRITER
from results.schema import MEASURED
from results.validation import validate

os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
PHASES = ("training", "writing", "between")  # what workers do when something is killed
# What is killed and when, in turn. After a driver's death no worker trains until the next one has started.
TURNS = (
    ("worker", "training"), ("worker", "writing"), ("node", "training"), ("worker and driver", "writing"),
    ("driver", "training"), ("node", "between"), ("driver", "between"),
)  # fmt: skip
LAST = 0.9  # of the trials: when the last kill strikes
SEEDS = 4  # of a cell, and so of a trial
ACTIVATIONS = ("relu", "tanh", "elu", "sigmoid", "softsign", "gelu", "silu", "selu", "softplus", "identity")


class Outcome(NamedTuple):
    """What a disturbed sweep came to."""

    kills: Counter[tuple[str, str]]  # of processes that were alive: by target and by phase
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
    text = GRID.format(architecture="mlp", depths=depths, epochs=30, batch=64, width=32, seeds=SEEDS)
    return text.replace('["relu"]', str(list(ACTIVATIONS)))


class Nodes:
    """A Ray cluster on loopback: a head without CPUs and two nodes of one CPU each, that may be killed and replaced."""

    def __init__(self, count: int = 2, object_store_bytes: int = 200_000_000):
        from ray.cluster_utils import Cluster

        self.object_store_bytes = object_store_bytes
        # Ray would refuse objects that memory has no room for where the disk is 95 % full, of whatever.
        full = {"local_fs_capacity_threshold": 1.0}
        head = {"num_cpus": 0, "include_dashboard": False, "object_store_memory": object_store_bytes}
        head |= {"_system_config": full}
        self.cluster = Cluster(initialize_head=True, head_node_args=head)
        self.nodes = []
        for _ in range(count):
            self.add()

    def add(self, **offers) -> None:
        """offers: num_cpus, num_gpus and resources, which may be made up."""
        offers = {"num_cpus": 1, **offers}
        self.nodes.append(self.cluster.add_node(object_store_memory=self.object_store_bytes, **offers))

    @property
    def address(self) -> str:
        return self.cluster.address

    def kill(self, which: int) -> None:
        """SIGKILL of a node's raylet."""
        self.cluster.remove_node(self.nodes.pop(which), allow_graceful=False)

    def workers(self) -> list[psutil.Process]:
        """Processes that run a trial, whichever node they belong to."""
        return [process for process in psutil.Process().children(recursive=True) if trains(process)]

    def close(self) -> None:
        self.cluster.shutdown()


def written(store: Path, tables: Iterable[str] = tuple(SCHEMAS)) -> Iterator[int]:
    """Process numbers of those who have a file half written."""
    for name in tables:
        for path in (store / name).glob(f".*.{WRITER}.*.tmp"):
            yield int(path.name.split(".")[-3])


def phase(nodes: Nodes, store: Path) -> str:
    """What workers do at this moment."""
    if any(psutil.pid_exists(number) for number in written(store)):
        return "writing"
    return "training" if nodes.workers() else "between"


def strike(
    target: str, when: str, nodes: Nodes, driver: subprocess.Popen, store: Path, times: random.Random
) -> str | None:
    """Kill the target. Gives the phase that was struck; None where it is not the time, or nothing was alive."""
    if when == "writing":
        return _strike_a_writer(driver, store, with_driver="driver" in target)
    struck = phase(nodes, store)
    if (struck == "between") != (when == "between") or driver.poll() is not None:
        return None
    if target == "driver":
        kill(driver)
    elif target == "node":
        nodes.kill(times.randrange(2))
        nodes.add()
    elif workers := nodes.workers():
        times.choice(workers).kill()
    else:
        return None
    return struck


def _strike_a_writer(driver: subprocess.Popen, store: Path, with_driver: bool) -> str | None:
    while driver.poll() is None:
        for number in written(store, ("curves", "examples")):  # before `runs`
            try:
                process = psutil.Process(number)
                process.suspend()
            except psutil.Error:
                continue
            if number in set(written(store)):  # its file is half written, and stays so
                if with_driver:
                    kill(driver)
                process.kill()
                return "writing"
            process.resume()
    return None


def measured(store: Path):
    """Finished runs by run_id, with what was measured."""
    runs = Store(store).read("runs").to_pandas().set_index("run_id").sort_index()
    return runs[runs["status"] != "failed"]


def disturbed(grid: Path, store: Path, kills: int, trials: int, seed: int) -> tuple[Counter, int, float]:
    """Sweep until nothing is to do, killing meanwhile. Kills, finished runs that were seen and later not, seconds."""
    times, hits, seen, gone = random.Random(seed), Counter(), set(), 0
    start = time.monotonic()
    nodes = Nodes()
    driver = sweep(grid, store, "--address", nodes.address)
    try:
        while driver.poll() != 0:
            if driver.poll() is not None:
                driver = sweep(grid, store, "--address", nodes.address, "--retry")
            struck = hits.total()
            target, when = TURNS[struck % len(TURNS)]
            due = when == "between" or len(seen) >= struck * LAST / kills * trials * SEEDS
            if struck < kills and due:
                time.sleep(times.uniform(0.0, 0.5))
                if found := strike(target, when, nodes, driver, store, times):
                    hits[target, found] += 1
            time.sleep(0.05)
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
    hits, gone, wall_s = disturbed(grid, store, kills, trials, seed)
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
    print(f"{'kills':<18}" + "".join(f"{name:>10}" for name in PHASES))
    for target in dict(TURNS):
        print(f"{target:<18}" + "".join(f"{found.kills[target, name]:>10}" for name in PHASES))
    print(f"over {found.trials} trials")
    for name in ("lost", "doubled", "different", "corrupt", "problems"):
        print(f"{name:<18}{getattr(found, name):>10,}")
    cost_s = (found.wall_s - found.undisturbed_s) / max(found.kills.total(), 1)
    print(f"{found.wall_s:.0f} s, undisturbed {found.undisturbed_s:.0f} s: {cost_s:.1f} s a kill")
    bad = found.lost + found.doubled + found.different + found.corrupt + found.problems
    sys.exit(1 if bad or found.kills.total() < given.kills else 0)


if __name__ == "__main__":
    os.chdir(ROOT)
    main()
