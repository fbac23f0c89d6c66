"""A grid with its store, its data sets and what is left to do; and the same in words. No torch, no Ray."""

from typing import NamedTuple

from grids import Grid
from harness.datasets import Data
from harness.engine import COMPILED
from harness.plan import Plan, Trial
from results import Store


class Study(NamedTuple):
    """A grid, where its results go, what it trains on and what is left to do."""

    grid: Grid
    store: Store
    data: dict[str, Data]
    plan: Plan


def tell(study: Study, trials: list[Trial], slots: int) -> None:
    """The plan in words, on the terminal."""
    grid, store, _, plan = study
    cells, seeds = sum(1 for _ in grid.cells()), len(grid.seeds.every)
    tuning = f" ({grid.seeds.tuning:,} of them choose {', '.join(grid.searched)})" if grid.searched else ""
    print(f"{grid.name}: {grid.question}")
    print(f"  {cells:,} cells × {seeds:,} seeds{tuning} = {cells * seeds:,} runs; store {store.path}")
    print(f"  finished {plan.finished:,}, failed {plan.failed:,}, to do {len(plan.missing):,}", end="")
    compiled = f", {n:,} compiled" if (n := sum(trial.mode == COMPILED for trial in trials)) else ""
    print(f" in {len(trials):,} trials{compiled} on {slots} slots" if trials else "")
    if plan.failed:
        print("  --retry runs again what failed")
    for what, count in plan.outdated.items():
        print(f"  {count:,} finished runs were made by another version of {what}; --fresh runs them again")
