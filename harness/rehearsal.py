"""A few runs of a grid, trained beforehand and kept apart from its store: they tell how far the pairs of a study scatter.

They are runs of the study itself, by the same seeds, so that a store of them is read as any other; but no sweep takes them
over, and a report never sees them.
"""

from collections.abc import Mapping, Sequence
from concurrent.futures.process import BrokenProcessPool
from contextlib import suppress

from grids import Cell, Grid, identity
from harness.datasets import Data, data_home
from harness.packing import ends
from harness.plan import Trial, code_version
from harness.pricing import NOBODY, Timings, given, processes, started
from harness.trial import run_trial
from results import Store

SEEDS = 5  # of each cell: the 80 % upper limit of an sd is then 1.6 times it
MOST = 3  # comparisons


def settled(grid: Grid) -> Grid:
    """The grid with few seeds and nothing to search; which values its cells have, `wanted` says."""
    values = {name: values[:1] for name, values in grid.nuisance.items()}
    seeds = grid.seeds.model_copy(update={"count": SEEDS, "tuning": 0, "halving": 0})
    return Grid(**{**dict(grid), "nuisance": values, "seeds": seeds})


def wanted(grid: Grid) -> list[tuple[Cell, Cell]]:
    """Of the primary contrast, the cells of a few comparisons, the first and the last among them.

    Of a search at the middle one of the values that a comparison has.
    """
    orders = grid.analysis.pairs[grid.analysis.primary.contrast]
    pairs = []
    for cells in grid.compared.values():
        arms = [[cell for cell in cells if cell.order == order] for order in orders]
        if all(arms):
            pairs.append(tuple(arm[len(arm) // 2] for arm in arms))
    places = {round(i * (len(pairs) - 1) / max(1, MOST - 1)) for i in range(MOST)}
    return [pairs[i] for i in sorted(places)]


def rehearse(pairs: Sequence[tuple[Cell, Cell]], timings: Timings, limit_s: float) -> tuple[Store, float]:
    """Train what takes at most limit_s, the cheapest comparisons first: a store of it, and the seconds with one more, or 0.

    pairs: as `wanted` gives them. What is in the store already is not trained again. StoreError where it cannot be written.
    """
    store = Store(data_home() / "rehearsals" / _name(pairs, timings.data))
    there = store.finished()
    trials_of = [[Trial(cell, tuple(range(SEEDS))) for cell in pair] for pair in pairs]
    new = [[trial for trial in pair if trial.runs[0].run_id not in there] for pair in trials_of]
    timings.know(trial for pair in new for trial in pair)

    def takes(some: Sequence[Trial]) -> float:
        return ends([timings.of(trial)[0] for trial in some], timings.slots, 0.0)

    trials, next_s = [], 0.0
    for pair in sorted((pair for pair in new if all(map(timings.of, pair))), key=takes):
        if takes([*trials, *pair]) > limit_s:
            next_s = takes([*trials, *pair])
            break
        trials += pair
    if trials:
        store.check_writable()
        with (
            processes(timings.slots, timings.data) as pool,
            suppress(BrokenProcessPool),
        ):  # what is there tells something
            for tables in started(pool, _trained, trials):
                store.write(tables)
    return store, next_s


def _trained(trial: Trial) -> dict:
    return run_trial(trial, given[trial.cell.dataset], NOBODY).tables


def _name(pairs: Sequence[tuple[Cell, Cell]], data: Mapping[str, Data]) -> str:
    """A store for each version of what trains, and of the data."""
    made_of = sorted({(cell.architecture, cell.activation) for pair in pairs for cell in pair})
    return identity(
        {"code": [code_version(*each) for each in made_of], "data": sorted(d.checksum for d in data.values())}
    )
