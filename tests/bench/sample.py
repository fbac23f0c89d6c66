"""What the two programs without normorder share: which cells they train, their command line, and what they write."""

import argparse
import json
import os
import time
from collections import Counter
from collections.abc import Callable
from itertools import combinations
from pathlib import Path

os.environ["RAY_USAGE_STATS_ENABLED"] = "0"  # nothing is sent from here; before ray is imported

import ray

import harness
from grids import Cell, Grid
from results import METRICS


def read(path: str | Path) -> Grid:
    return Grid.read(path, {**harness.choices(), "metric": METRICS})


def sample(grid: Grid, cells: int) -> list[Cell]:
    """`cells` cells of the grid, in its order, each value of each axis as often as the others as far as that goes.

    One after another, always the first cell whose values were taken least so far, then the one whose pairs of values
    were: the same cells for the same grid, like the first rows of a Latin square.
    """
    everything = list(grid.cells())
    axes = {name: values for name, values in {**grid.axes, **grid.nuisance}.items() if len(values) > 1}
    fewest = max((len(values) for name, values in axes.items() if name in ("depth", "order")), default=1)
    if not fewest <= cells <= len(everything):
        raise ValueError(f"{cells} cells of {grid.name}: from {fewest} (every depth and order) to {len(everything)}")
    taken: list[Cell] = []
    single: Counter = Counter()
    paired: Counter = Counter()

    def values(cell: Cell) -> list[tuple[str, object]]:
        return [(name, getattr(cell, name)) for name in axes]

    def used(cell: Cell) -> tuple[int, int]:
        of_values = sum(single[value] * len(axes[value[0]]) for value in values(cell))
        return of_values, sum(paired[pair] for pair in combinations(values(cell), 2))

    while len(taken) < cells:
        cell = min((cell for cell in everything if cell not in taken), key=used)
        taken.append(cell)
        single.update(values(cell))
        paired.update(combinations(values(cell), 2))
    return [cell for cell in everything if cell in taken]


def rows(results) -> list[dict]:
    """What Ray Tune gave back, by run. Raises the first error of a trial."""
    for result in results:
        if result.error:
            raise result.error
    kept = ("test_accuracy", "test_loss", "wall_s", "threads", "started")
    return [{**result.config, **{name: result.metrics[name] for name in kept}} for result in results]


def main(what: str, run: Callable[[list[Cell], range], list[dict]]) -> None:
    """Read the command line, have `run` train the sample, write its rows and the time that took.

    Imports, the start of Ray and of its first worker are left out of it: a whole study has them once, a sample would
    spread them over few runs.

    Each row: `cell` (its fields), `seed`, `test_accuracy`, `test_loss`, `wall_s` of the trial's own
    function, `threads` of torch in it, `started` at this time.
    """
    words = argparse.ArgumentParser(description=what)
    words.add_argument("grid")
    words.add_argument("--cells", type=int, required=True)
    words.add_argument("--seeds", type=int, required=True)
    words.add_argument("--out", type=Path, required=True)
    given = words.parse_args()
    cells = sample(read(given.grid), given.cells)
    ray.init("local", include_dashboard=False, log_to_driver=False)
    rows = run(cells, range(given.seeds))
    wall_s = time.time() - min(row["started"] for row in rows)
    if len(rows) != len(cells) * given.seeds:
        raise SystemExit(f"{len(rows)} of {len(cells) * given.seeds} runs came back")
    given.out.write_text(json.dumps({"wall_s": wall_s, "runs": rows}))
    print(f"{len(rows)} runs of {len(cells)} cells: {wall_s:.1f} s, {wall_s / len(rows):.2f} s a run")
