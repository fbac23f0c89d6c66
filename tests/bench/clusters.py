"""One sweep on four nodes, against one node on the same cores, in turns; and how soon training starts.

$ python tests/bench/clusters.py [ROUNDS]                  about ten minutes with three

Nodes are processes on this machine, and Ray knows whole CPUs only. So each of the four has one, which on two cores is half a
core, and the one node has as many slots, or one for each core. Ratios are of sweeps in one round: median, least, most.
"""

import os
import sys
import tempfile
import time
from pathlib import Path
from statistics import median

import study

sys.path.insert(0, str(Path(__file__).parents[1] / "faults"))

from stress import Nodes

from harness import datasets
from results import Store

FOUR = "four nodes"
VARIANTS = {FOUR: [1, 1, 1, 1], "one node of 4 slots": [4], "one node of a slot a core": [os.cpu_count() or 1]}


def on_nodes(folder: Path, rounds: int, seeds: int) -> dict[str, list[float]]:
    """Wall seconds of each sweep, from the command to its end, by variant; the cluster's start is not part of it."""
    grid = folder / "study.toml"
    grid.write_text(study.DEFAULT.read_text(encoding="utf-8").replace("count = 20", f"count = {seeds}"))
    found: dict[str, list[float]] = {name: [] for name in VARIANTS}
    for turn in range(rounds):
        for name, cpus in VARIANTS.items():
            nodes = Nodes(0)
            try:
                for each in cpus:
                    nodes.add(num_cpus=each)
                store = folder / f"store-{len(found[name])}-{len(cpus)}-{cpus[0]}"
                wall_s = study.sweep(grid, store, dict(os.environ), "--address", nodes.address)["wall_s"]
            finally:
                nodes.close()
            found[name].append(wall_s)
            print(f"round {turn + 1}: {name}: {wall_s:.1f} s", flush=True)
    return found


def to_first_trial(folder: Path, rounds: int) -> list[float]:
    """Seconds from the command to the start of the first trial, without a cluster."""
    found = []
    for turn in range(rounds):
        store, begun = folder / f"start-{turn}", time.time()
        study.sweep(study.ROOT / "grids" / "smoke.toml", store, dict(os.environ))
        found.append(Store(store).read("runs").to_pandas()["started_at"].min().timestamp() - begun)
    return found


def told(values: list[float], unit: str) -> str:
    return f"{median(values):.2f}{unit} ({min(values):.2f} to {max(values):.2f}), n = {len(values)}"


if __name__ == "__main__":
    rounds = int(sys.argv[1]) if len(sys.argv) > 1 else 3
    with tempfile.TemporaryDirectory() as folder:
        for name in ("mnist1d", "digits"):
            datasets.load(name)  # made once, not in the first sweep
        wall_s = on_nodes(Path(folder), rounds, seeds=6)
        for name in list(VARIANTS)[1:]:
            print(
                f"{FOUR} against {name}: {told([a / b for a, b in zip(wall_s[FOUR], wall_s[name], strict=True)], ' ×')}"
            )
        print(f"from the command to the first trial: {told(to_first_trial(Path(folder), rounds), ' s')}")
