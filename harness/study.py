"""A grid with its store, its data sets and what is left to do; and the same in words. No torch, no Ray."""

from collections.abc import Collection, Mapping
from functools import partial
from typing import NamedTuple

from grids import Grid, Run, selects, setting
from harness.datasets import Data
from harness.engine import COMPILED
from harness.plan import Plan, Trial, make_plan
from results import Store
from results.protocol import COMPARED, TUNING, Wanted, expected, known

MOST_LINES = 20  # of chosen values


class Study(NamedTuple):
    """A grid, where its results go, what it trains on, what is left to do, and whether old or failed runs are run again.

    wanted: what decides who gets more seeds, where they are adaptive. part: by field, values of the cells that are run now.
    """

    grid: Grid
    store: Store
    data: dict[str, Data]
    plan: Plan
    fresh: bool = False
    retry: bool = False
    wanted: Wanted | None = None
    part: Mapping[str, tuple] = {}

    def again(self, tried: Collection[str] = ()) -> "Study":
        """The same as its store stands now. tried: run_ids that are not run again whatever became of them."""
        return look(self.grid, self.store, self.data, self.fresh, self.retry, self.wanted, self.part, tried)


def look(
    grid: Grid,
    store: Store,
    data: dict[str, Data],
    fresh: bool = False,
    retry: bool = False,
    wanted: Wanted | None = None,
    part: Mapping[str, tuple] | None = None,
    tried: Collection[str] = (),
) -> Study:
    """The study as its store stands. wanted, part: as Study has them; tried: as Study.again takes it."""
    part = part or {}
    how = {"fresh": fresh, "retry": retry, "known": known(grid, store), "tried": tried, "part": part}
    plan = make_plan(grid, *store.fates(), data, **how, wanted=wanted and partial(wanted, grid, store))
    return Study(grid, store, data, plan, fresh, retry, wanted, part)


def later_runs(study: Study) -> tuple[list[Run], list[Run]]:
    """At most so many, with some choice or other, that follow on what the plan knows: up to the first look, or all where
    there is one, and at later looks.
    """
    stages = study.plan.stages
    if not study.plan.missing:
        return [], []
    following: tuple[list[Run], list[Run]] = [], []
    for stage in expected(study.grid)[len(stages) :]:
        if study.part and stage.look > 1:
            break  # it waits for all cells
        cells = [cell for cell in (stages[-1] if stages[-1].look else stage).cells if selects(study.part, cell)]
        following[stage.look > 1].extend(Run(cell, seed) for cell in cells for seed in stage.seeds)
    return following


def tell(study: Study, trials: list[Trial], slots: int) -> None:
    """The plan in words, on the terminal."""
    grid, store, _, plan, *_ = study
    print(f"{grid.name}: {grid.question}")
    print(f"  {_size(grid)}; store {store.path}")
    if study.part:
        cells = sum(selects(study.part, cell) for cell in grid.cells())
        told = "; ".join(f"{key} {', '.join(map(setting, values))}" for key, values in study.part.items())
        print(f"  only {told}: {cells:,} of {sum(1 for _ in grid.cells()):,} cells")
    for line in _choices(grid, plan):
        print(f"  {line}")
    print(f"  finished {plan.finished:,}, failed {plan.failed:,}, to do {len(plan.missing):,}", end="")
    compiled = f", {n:,} compiled" if (n := sum(trial.mode == COMPILED for trial in trials)) else ""
    print(f" in {len(trials):,} trials of {_seeds(trials)}{compiled} on {slots} slots" if trials else "")
    if plan.missing and plan.stages[-1].look > 1:
        print(f"  {_going_on(plan)}")
    if plan.later:
        print(f"  then up to {plan.later:,} more, which these decide")
    if plan.failed:
        print("  --retry runs again what failed")
    for what, count in plan.outdated.items():
        print(f"  {count:,} finished runs were made by another version of {what}; --fresh runs them again")


def _seeds(trials: list[Trial]) -> str:
    """'20 seeds', '1 to 20 seeds'"""
    least, most = (f([len(trial.seeds) for trial in trials]) for f in (min, max))
    return f"{least} to {most} seeds" if least < most else f"{most} seed{'s' if most > 1 else ''}"


def _size(grid: Grid) -> str:
    """As in '60 cells × 5 tuning seeds, which choose lr, then up to 12 × 20 at the chosen values = up to 540 runs'."""
    stages = expected(grid)
    tuning, (first, *_) = ([stage for stage in stages if stage.kind == kind] for kind in (TUNING, COMPARED))
    looks = grid.seeds.looks
    seeds = f"{looks[0]:,}" + (f" to {looks[-1]:,}" if len(looks) > 1 else "") + " seeds"
    runs = f"{sum(map(len, stages)):,} runs"
    if not tuning:
        return f"{len(first.cells):,} cells × {seeds} = {'up to ' if len(looks) > 1 else ''}{runs}{_looked(looks)}"
    sizes = ", ".join(f"{len(stage.cells):,}" for stage in tuning)
    return (
        (f"{len(tuning)} rungs of " if len(tuning) > 1 else "")
        + f"{sizes} cells × {grid.seeds.tuning:,} tuning seeds, which choose {', '.join(grid.searched)}, "
        + f"then up to {len(first.cells):,} × {seeds} at the chosen values = up to {runs}{_looked(looks)}"
    )


def _looked(looks: tuple[int, ...]) -> str:
    """When the comparisons of adaptive seeds are looked at."""
    return f"; looks at {', '.join(map(str, looks))} seeds" if len(looks) > 1 else ""


def _going_on(plan: Plan) -> str:
    """As in 'look 2: 12 of 18 cells are in undecided comparisons and get seeds 8 to 15'."""
    first, *_, last = (stage for stage in plan.stages if stage.kind == COMPARED)
    return (
        f"look {last.look}: {len(last.cells):,} of {len(first.cells):,} cells are in undecided comparisons and get seeds "
        f"{last.seeds[0]} to {last.seeds[-1]}"
    )


def _choices(grid: Grid, plan: Plan) -> list[str]:
    """A line for each cell with what its orders have chosen."""
    compared = [stage for stage in plan.stages if stage.kind == COMPARED]
    if not grid.searched or not compared:
        return []
    told = [name for name, values in grid.axes.items() if len(values) > 1 and name != "order"]
    lines: dict[tuple, list[str]] = {}
    for cell in compared[0].cells:
        values = ", ".join(f"{name} {setting(getattr(cell, name))}" for name in grid.searched)
        lines.setdefault(tuple(getattr(cell, name) for name in told), []).append(f"{cell.order} {values}")
    found = [
        f"chosen{': ' if told else ''}{', '.join(map(setting, key))}: {'; '.join(of)}" for key, of in lines.items()
    ]
    if len(found) > MOST_LINES:
        found[MOST_LINES:] = [f"and for {len(found) - MOST_LINES:,} more cells, which the report has"]
    return found
