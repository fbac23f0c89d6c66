"""Seconds from a store to its verdicts on one core, without the seconds of starting python and importing.

$ python tests/bench/verdicts.py GRID STORE
"""

import os

if hasattr(os, "sched_setaffinity"):
    os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})  # before libraries count the cores

import sys
import time

import harness
from grids import Grid
from reports.comparisons import compare
from reports.outcomes import gather
from results import METRICS, Store


def seconds(grid_path: str, store_path: str) -> float:
    grid = Grid.read(grid_path, {**harness.choices(), "metric": METRICS})
    start = time.perf_counter()
    frame = compare(gather(grid, Store(store_path)))
    taken = time.perf_counter() - start
    found = frame["verdict"].value_counts()
    print(
        f"{len(frame):,} comparisons: {', '.join(f'{n:,} {verdict}' for verdict, n in found.items())}", file=sys.stderr
    )
    return taken


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit(__doc__)
    print(seconds(*sys.argv[1:]))
