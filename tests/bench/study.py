"""Whole commands: sweeps of normorder against Ray Tune programs, their memory, and what a sweep does beside training.

Memory is the sum over the process tree of proportional set sizes (shared pages counted once), sampled every second.
"""

import contextlib
import json
import subprocess
import sys
import time
from pathlib import Path

import psutil

from results import Store

ROOT = Path(__file__).parents[2]
HERE = Path(__file__).parent
DEFAULT = ROOT / "grids" / "default.toml"
# Trials of 10 s and more: the deepest networks of the default study, trained for longer.
LONG = """
[axes]
dataset      = ["mnist1d"]
architecture = ["mlp"]
order        = ["weight-act", "weight-bn-act", "weight-act-bn"]
activation   = ["relu", "elu", "tanh", "sigmoid"]
depth        = [8]
[recipe]
epochs = {epochs}
[seeds]
count = 20
"""
SHORT = """
[axes]
dataset      = ["digits"]
architecture = ["cnn"]        # one seed a trial
order        = ["weight-act", "weight-bn-act", "weight-act-bn"]
activation   = ["relu", "tanh"]
depth        = [1]
[recipe]
epochs = 1
width  = 4
[seeds]
count = {seeds}
"""


def tree_bytes(process: psutil.Process) -> dict[int, int]:
    """Proportional set size of a process and its descendants, by process number."""
    sizes = {}
    for each in [process, *process.children(recursive=True)]:
        try:
            sizes[each.pid] = each.memory_full_info().pss
        except psutil.Error:
            continue
    return sizes


def run(*words: str, environment: dict[str, str]) -> tuple[float, list[dict[int, int]]]:
    """Wall seconds of a python command, and samples of its memory by process."""
    start = time.monotonic()
    process = psutil.Popen(
        [sys.executable, *words], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=environment
    )
    samples = []
    while process.poll() is None:
        samples.append(tree_bytes(process))
        with contextlib.suppress(psutil.TimeoutExpired):
            process.wait(timeout=1.0)
    if process.returncode:
        raise SystemExit(f"{' '.join(words)} ended with {process.returncode}")
    return time.monotonic() - start, samples


def peak(samples: list[dict[int, int]]) -> int:
    """Most bytes of the whole tree."""
    return max(sum(sample.values()) for sample in samples)


def growth(samples: list[dict[int, int]]) -> int:
    """Bytes by which the process that grew most did so from a third to nine tenths of the run."""
    third, end = samples[len(samples) // 3], samples[len(samples) * 9 // 10]
    return max((end[pid] - third[pid] for pid in third.keys() & end.keys()), default=0)


def sweep(grid: Path, store: Path, environment: dict[str, str], *options: str) -> dict:
    """A sweep into an empty store: wall seconds of the whole process, what its rows say, memory."""
    words = ("-m", "normorder", "sweep", str(grid), "--store", str(store), *options)
    wall, samples = run(*words, environment=environment)
    rows = Store(store).read("runs").to_pandas()
    trials = rows.groupby("trial").wall_s.sum()
    return {
        "wall_s": wall,
        "runs": len(rows),
        "trained_s": float(rows.wall_s.sum()),
        "trials": len(trials),
        "shortest_trial_s": float(trials.min()),
        "engines": rows.engine.value_counts().to_dict(),
        "seed_blocks": sorted(rows.seed_block.dropna().unique().tolist()),
        "peak_bytes": peak(samples),
        "growth_bytes": growth(samples),
        "accuracy": rows[["order", "activation", "depth", "seed", "test_accuracy"]].to_dict("list"),
    }


def baseline(program: str, grid: Path, cells: int, seeds: int, out: Path, environment: dict[str, str]) -> dict:
    """A Ray Tune program on a sample of the grid: its own wall seconds, without its start, and its runs."""
    words = (str(HERE / f"{program}.py"), str(grid), "--cells", str(cells), "--seeds", str(seeds), "--out", str(out))
    run(*words, environment=environment)
    return json.loads(out.read_text())


def idle_share(found: dict, slots: int) -> float:
    """Share of the wall time of all slots in which no trial trained or evaluated."""
    return 1 - found["trained_s"] / (found["wall_s"] * slots)
