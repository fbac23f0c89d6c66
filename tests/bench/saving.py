"""Pairs that adaptive seeds take, against the fixed number of seeds that decides as many comparisons.

$ normorder sweep grids/default.toml --seeds 64 --store STORE
$ python tests/bench/saving.py grids/adaptive.toml STORE

The store has all seeds that the grid may ask for; what they decide is found out from it, as if they had come look by look.
"""

import sys

import numpy as np

import harness
from grids import Grid
from reports import looks
from reports.comparisons import compare
from reports.outcomes import Results, gather
from reports.rates import select
from results import METRICS, Store


def decided(results: Results) -> tuple[int, int]:
    """(comparisons of the primary metric that are decided, their pairs)."""
    analysis = results.grid.analysis
    frame = compare(results, [analysis.primary.metric])
    rejects = frame[["p_holm", "p_equivalence_holm"]].min(axis=1) <= analysis.alpha
    return int((rejects & (frame["n"] >= 5)).sum()), int(frame["n"].sum())


def main(grid_path: str, store_path: str) -> None:
    grid, store = Grid.read(grid_path, {**harness.choices(), "metric": METRICS}), Store(store_path)
    results = gather(grid, store)
    found, pairs = decided(results)
    taken, sizes = looks.reach(select(results).results).taken, np.array(grid.seeds.looks)
    runs = sum(int(sizes[each - 1].sum()) for each in taken.values())
    frame = compare(results, [grid.analysis.primary.metric])
    print(f"adaptive, {grid.seeds.looks} seeds: {found} of {len(frame)} decided, {pairs:,} pairs, {runs:,} runs")
    print(f"  last looks: {frame['look'].value_counts().sort_index().to_dict()}")
    for count in range(5, grid.seeds.most + 1):
        seeds = grid.seeds.model_copy(update={"count": count, "max": 0, "stop": "count"})
        fixed, fixed_pairs = decided(gather(grid.model_copy(update={"seeds": seeds}), store))
        last = fixed >= found or count == grid.seeds.most
        if last or count in grid.seeds.looks or count % 10 == 0:
            fixed_runs = count * sum(1 for _ in grid.cells())
            print(f"fixed, {count} seeds: {fixed} decided, {fixed_pairs:,} pairs, {fixed_runs:,} runs")
        if last:
            break
    print(f"saved: {1 - pairs / fixed_pairs:.0%} of the pairs, {1 - runs / fixed_runs:.0%} of the runs")


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit(__doc__)
    main(*sys.argv[1:])
