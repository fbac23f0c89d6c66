"""Which runs a grid plans, stage by stage: what follows is decided by the finished runs of a store, and by nothing else.

A grid that searches nothing has one stage. Else the tuning seeds of all candidates come first (on several rungs where
candidates are halved), then the fresh seeds of what was chosen for each arm of each cell. Adaptive seeds come look by look,
the next ones only of arms that want them. Other runs that a store has, as of candidates that were dropped or that another
choice had, decide nothing.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from itertools import product
from typing import NamedTuple

import numpy as np
import pyarrow as pa

from grids import DEFAULT_METRICS, Cell, Grid, run_ids, setting
from results.selection import candidates, chosen, outcomes, scores, split, survivors, validated_by
from results.store import FINISHED, Store

TUNING, COMPARED = "tuning", "compared"
MOST_NAMES = 8
Array = np.ndarray


class Outcome(NamedTuple):
    """A finished run: the value that chooses, NaN where it diverged, and the classes of its data set."""

    value: float
    diverged: bool
    classes: int


Outcomes = Mapping[str, Outcome]  # by run_id
# Of a grid and its store, by (cell without order and what is searched, order), how many looks an arm wants; 1 if it is not
# there. What decides it belongs to the reports, so it is handed in where seeds are adaptive.
Wanted = Callable[[Grid, Store], Mapping[tuple, int]]


@dataclass(frozen=True)
class Stage:
    """Runs that are planned together: each cell with each seed."""

    kind: str  # TUNING or COMPARED
    cells: tuple[Cell, ...]
    seeds: tuple[int, ...]
    look: int = 0  # that is taken when it has ended, from 1, where there are several

    def __len__(self) -> int:
        return len(self.cells) * len(self.seeds)

    def by_cell(self) -> Iterator[tuple[Cell, list[str]]]:
        """Each cell and the run_ids of its seeds."""
        return ((cell, run_ids(cell, self.seeds)) for cell in self.cells)


class Rung(NamedTuple):
    """What is tuned together, as arrays: T seeds, C candidates, O orders, P cells without order and what is searched.

    cells (C, O, P): None where the grid has none, with the epochs of this rung. climbing: bool, which of them are on it.
    outcomes, diverged (T, C, O, P): NaN and False where a run is missing or its cell does not climb.
    """

    cells: Array
    climbing: Array
    outcomes: Array
    diverged: Array


class Planned(NamedTuple):
    """stages: those that are known; the last of them lacks runs, unless it is the last of all. later: at most so many runs
    follow that are not known yet. unchosen: cells with a candidate of which no tuning run finished, at their first one.
    """

    stages: tuple[Stage, ...]
    later: int
    unchosen: tuple[Cell, ...]

    @property
    def run_ids(self) -> list[str]:
        return [run_id for stage in self.stages for _, ids in stage.by_cell() for run_id in ids]


def planned(
    grid: Grid,
    known: Outcomes,
    lacks: Callable[[Cell, str], bool],
    wanted: Callable[[], Mapping[tuple, int]] | None = None,
) -> Planned:
    """What is planned, since a stage begins when no run of the one before it is lacking. lacks: of a cell and a run_id.

    wanted: as Wanted gives, asked only when a look has all its runs.
    """
    assert wanted or len(grid.seeds.looks) == 1, "adaptive seeds need what decides"
    stages, later = [], 0
    for stage in _stages(grid, known, wanted):
        stages.append(stage)
        decides = stage.kind == TUNING or stage.look
        if decides and any(lacks(cell, run_id) for cell, ids in stage.by_cell() for run_id in ids):
            later = len(stage.cells) * (grid.seeds.most - stage.seeds[-1] - 1)  # where seeds are adaptive
            break
    compared = [stage for stage in stages if stage.kind == COMPARED]
    if not compared:
        return Planned(tuple(stages), sum(map(len, expected(grid)[len(stages) :])), ())
    if not grid.searched:
        return Planned(tuple(stages), later, ())
    there = {cell.without(*grid.searched) for cell in compared[0].cells}
    first: dict[tuple, Cell] = {}
    for cell in grid.cells():
        first.setdefault(cell.without(*grid.searched), cell)
    return Planned(tuple(stages), later, tuple(cell for key, cell in first.items() if key not in there))


def planned_in(
    grid: Grid, store: Store, finished: Mapping[str, object], failed: set[str], wanted: Wanted | None = None
) -> Planned:
    """What is planned as the store stands. finished, failed: its fates."""
    return planned(
        grid,
        known(grid, store),
        lambda _, run_id: run_id not in finished and run_id not in failed,
        wanted and partial(wanted, grid, store),
    )


def expected(grid: Grid) -> list[Stage]:
    """All stages as they are where no run fails and no look decides, with some choice or other: their cells and seeds."""
    return list(_stages(grid, None, None))


def known(grid: Grid, store: Store) -> Outcomes:
    """The finished tuning runs of a store that may choose something: of all candidates, on all rungs."""
    if not grid.searched:
        return {}
    cells = {_on_rung(cell, grid, later) for later in range(_Layout(grid).rungs.max()) for cell in grid.cells()}
    ids = pa.array([run_id for cell in cells for run_id in run_ids(cell, grid.seeds.tunes)], pa.string())
    found = store.find(ids, range(0))[0].select(["status", chooses(grid), "classes"]).to_pydict()
    return {
        run_id: Outcome(np.nan if status == "diverged" or value is None else value, status == "diverged", classes or 0)
        for run_id, status, value, classes in zip(ids.to_pylist(), *found.values(), strict=True)
        if status in FINISHED
    }


def chooses(grid: Grid) -> str:
    """The metric by which values are chosen: the primary one, or what would be it, on the validation part."""
    primary = grid.analysis.primary
    return validated_by(primary.metric if primary else DEFAULT_METRICS[0])


def unchosen(grid: Grid, cells: tuple[Cell, ...]) -> list[str]:
    """A line where cells have nothing to choose by. cells: as in Planned."""
    if not cells:
        return []
    told = [name for name, values in grid.axes.items() if len(values) > 1] or ["order"]
    names = ["/".join(setting(getattr(cell, name)) for name in told) for cell in cells]
    more = f" and {len(names) - MOST_NAMES:,} more" if len(names) > MOST_NAMES else ""
    first = f"nothing chooses {', '.join(grid.searched)}, since no tuning run of some value finished"
    return [f"{first}, of: {', '.join(names[:MOST_NAMES])}{more}"]


class _Layout:
    """The cells of a grid as an array (C, O, P), None where it has no such cell; rungs: how many each has, (P,)."""

    def __init__(self, grid: Grid):
        fields = grid.searched
        every = list(product(*candidates(grid.nuisance, fields)))
        cells = [(cell, cell.order, cell.without("order", *fields)) for cell in grid.cells()]
        rows, orders, columns = (
            {each: i for i, each in enumerate(dict.fromkeys(several))}
            for several in (every, (order for _, order, _ in cells), (rest for *_, rest in cells))
        )
        self.cells = np.full((len(rows), len(orders), len(columns)), None, object)
        for cell, order, rest in cells:
            self.cells[rows[tuple(getattr(cell, f) for f in fields)], orders[order], columns[rest]] = cell
        self.exists = self.cells != None  # noqa: E711 of each
        counts = self.exists.sum(0).max(0)
        self.rungs = np.array([grid.seeds.rungs(count) for count in counts.tolist()])


def rungs(grid: Grid, known: Outcomes | None) -> Iterator[Rung]:
    """Each is climbed by what the one before it leaves; without halving there is one. known: None for equal outcomes."""
    layout, seeds = _Layout(grid), grid.seeds
    kind = split(chooses(grid))[2]
    alive = layout.exists.copy()
    for later in reversed(range(layout.rungs.max())):
        climbing = alive & (layout.rungs > later)
        cells = np.vectorize(lambda cell, n=later: cell and _on_rung(cell, grid, n), otypes=[object])(layout.cells)
        rung = Rung(cells, climbing, *_outcomes(kind, cells, climbing, seeds.tunes, known))
        if later:
            alive[climbing] = survivors(scores(kind, rung.outcomes), seeds.halving, climbing)[climbing]
        yield rung


def _stages(grid: Grid, known: Outcomes | None, wanted: Callable[[], Mapping[tuple, int]] | None) -> Iterator[Stage]:
    """Each follows from the outcomes of those before it."""
    if not grid.searched:
        yield from _looks(grid, tuple(grid.cells()), wanted)
        return
    before: set[Cell] = set()
    for rung in rungs(grid, known):
        new = [
            cell for cell in rung.cells[rung.climbing] if cell not in before
        ]  # a short cell may be one of the grid's too
        before.update(new)
        yield Stage(TUNING, tuple(new), grid.seeds.tunes)
    best = chosen(split(chooses(grid))[2], rung.climbing, rung.outcomes)
    o, p = np.nonzero(best >= 0)
    yield from _looks(grid, tuple(rung.cells[best[o, p], o, p]), wanted)


def _looks(grid: Grid, cells: tuple[Cell, ...], wanted: Callable[[], Mapping[tuple, int]] | None) -> Iterator[Stage]:
    """The fresh seeds of cells. wanted: without it all want all looks."""
    sizes = grid.seeds.looks
    looks: Mapping[tuple, int] | None = None
    for look, (since, size) in enumerate(zip((0, *sizes), sizes, strict=False), 1):
        if look > 1 and wanted:
            looks = wanted() if looks is None else looks
            cells = tuple(
                cell for cell in cells if looks.get((cell.without("order", *grid.searched), cell.order), 1) >= look
            )
            if not cells:
                return
        yield Stage(COMPARED, cells, tuple(range(since, size)), look if len(sizes) > 1 else 0)


def _on_rung(cell: Cell, grid: Grid, later: int) -> Cell:
    return cell.model_copy(update={"epochs": grid.seeds.rung_epochs(cell.epochs, later)}) if later else cell


def _outcomes(
    kind: str, cells: Array, climbing: Array, seeds: tuple[int, ...], known: Outcomes | None
) -> tuple[Array, Array]:
    """Outcomes and what diverged of the cells that climb. Both (T, C, O, P)"""
    values = np.full((len(seeds), *cells.shape), np.nan)
    diverged, classes = np.zeros(values.shape, bool), np.zeros(cells.shape[-1], int)
    if known is None:
        return np.where(climbing, 0.0, values), diverged
    for place in zip(*np.nonzero(climbing), strict=True):
        for t, run_id in enumerate(run_ids(cells[place], seeds)):
            if outcome := known.get(run_id):
                values[(t, *place)], diverged[(t, *place)], n = outcome
                classes[place[-1]] = max(classes[place[-1]], n)
    return outcomes(kind, values, diverged, np.where(classes > 0, classes, 2)), diverged
