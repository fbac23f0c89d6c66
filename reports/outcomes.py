"""From a store to the outcomes of runs, joined in pairs: arrays (n, K), n seeds and K comparisons.

Pairs are joined by (cell without order, seed), never by position. A diverged run has an outcome, a failed one is missing.
"""

from collections.abc import Mapping, Sequence
from functools import cached_property
from operator import attrgetter
from typing import NamedTuple

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from grids import FIELDS, TUNING_FROM, Cell, Grid, WrongUse, run_ids
from reports import statistics as st
from reports.measures import Measure, derive
from results import Store
from results.protocol import Rung, known, rungs
from results.store import FINISHED

FIELDS_OF_A_PAIR = tuple(name for name in FIELDS if name != "order")


class ReportError(WrongUse):
    """A store about which nothing can be reported, and why."""


class Results(NamedTuple):
    """What a store holds of the runs that a grid may plan. `place[order]` leads into the rows of `runs`."""

    grid: Grid
    runs: pd.DataFrame  # a row a run, with its cell and seed; `status` missing where the store has none
    pairs: list[tuple[tuple[str, object], ...]]  # the cells without order
    place: dict[
        str, np.ndarray
    ]  # by order: int (seeds, pairs), −1 where the grid has no such cell or nothing more of it
    unplanned: frozenset  # of (pair, order): the store has seeds of theirs that the grid does not declare
    counts: dict[
        tuple[str, int], tuple[np.ndarray, int]
    ]  # by cell_id and look: right answers by test example, and seeds
    conflicts: pd.DataFrame  # rows of planned runs that measured something else by equal engine, code and data
    remarks: tuple[tuple[str, frozenset], ...] = ()  # a note, and the (pair, order) that it qualifies
    rungs: tuple[Rung, ...] = ()  # of tuning, where a grid halves its candidates
    titles: Mapping[str, str] = {}  # of metrics of which the store says more than their names
    looks: Mapping[str, np.ndarray] = {}  # by order: int (pairs,), of adaptive seeds the looks that `place` is of

    def cells(self, columns: np.ndarray | slice = slice(None)) -> pd.DataFrame:
        """The cells without order at these places of `pairs`, in the columns FIELDS_OF_A_PAIR; NaN where a pair has no such
        field, since its value was chosen for each arm.
        """
        frame = pd.DataFrame(
            [[value for _, value in pair] for pair in self.pairs], columns=[k for k, _ in self.pairs[0]]
        )
        return frame.reindex(columns=list(FIELDS_OF_A_PAIR)).iloc[columns].reset_index(drop=True)

    def columns(self, contrast: str) -> tuple[np.ndarray, tuple[np.ndarray, np.ndarray]]:
        """The pairs of which the grid has both arms of a contrast, (K,), and the places of those arms, (n, K) each: −1 from
        where one of them has no more seeds.
        """
        orders = self.grid.analysis.pairs[contrast]
        columns = np.flatnonzero(np.all([self.place[order][0] >= 0 for order in orders], axis=0))
        places = [self.place[order][:, columns] for order in orders]
        both = np.minimum(*places) >= 0
        return columns, tuple(np.where(both, place, -1) for place in places)


def gather(grid: Grid, store: Store, cells: Sequence[Cell] = ()) -> Results:
    """Read the planned runs, or those of some cells. ReportError where the store holds none of them, or only one arm."""
    cells, seeds = cells or list(grid.cells()), grid.seeds.every
    ids = pa.array([run_id for cell in cells for run_id in run_ids(cell, seeds)], pa.string())
    found, unplanned = store.find(ids, range(grid.seeds.most, TUNING_FROM))
    accepted = pa.table({"run_id": ids, "trial": found["trial"]})
    cell_ids = [cell.cell_id for cell in cells]
    planned = _planned(cells, cell_ids, seeds)
    planned.insert(0, "run_id", ids.to_pandas())
    runs = pd.concat([planned, found.drop_columns(["run_id", *FIELDS, "seed"]).to_pandas()], axis=1)
    del found, planned
    runs["status"] = runs["status"].fillna("missing")
    runs = derive(runs)
    finished = runs["status"].isin(FINISHED)
    if not finished.any():
        if not any(store.fates()):
            raise ReportError(f"{store.path}: the store is empty; run the sweep of {grid.name} first")
        raise ReportError(f"{store.path}: no finished run of {grid.name} in the store")
    arms, here = grid.analysis.arms, set(runs.loc[finished, "order"].unique())
    present = [name for name, order in arms.items() if order in here]
    if len(arms) < 2 or len(present) < 2:
        arm = f"only the arm {present[0]!r}" if present else "no arm"
        raise ReportError(f"{store.path}: {arm} of {grid.name} has finished runs; a comparison needs two")
    pairs, place = _places(cells, len(seeds))
    counts = _example_counts(store, accepted, cell_ids, len(seeds), _look_of_seeds(grid))
    conflicts = of_runs(store.conflicts(), runs)
    remarks = (
        (("conflict", _cells_of(pa.Table.from_pandas(conflicts, preserve_index=False))),) if len(conflicts) else ()
    )
    climbed = tuple(rungs(grid, known(grid, store))) if grid.seeds.halving else ()
    return Results(grid, runs, pairs, place, _cells_of(unplanned), counts, conflicts, remarks, climbed)


def _planned(cells: Sequence[Cell], cell_ids: Sequence[str], seeds: Sequence[int]) -> pd.DataFrame:
    """A row a run, seeds fastest: its cell's fields, seed, cell_id. Each cell is asked once, not for every seed."""
    frame = pd.DataFrame([attrgetter(*FIELDS)(cell) for cell in cells], columns=list(FIELDS))
    frame["seed"], frame["cell_id"] = 0, cell_ids
    frame = frame.take(np.repeat(np.arange(len(cells)), len(seeds))).reset_index(drop=True)
    frame["seed"] = np.tile(seeds, len(cells))
    return frame


def _places(cells: Sequence[Cell], seeds: int) -> tuple[list[tuple[tuple[str, object], ...]], dict[str, np.ndarray]]:
    """`pairs` and `place` of Results, where the runs are all seeds of each cell in turn."""
    common = [attrgetter(*FIELDS_OF_A_PAIR)(cell) for cell in cells]
    column = {fields: i for i, fields in enumerate(dict.fromkeys(common))}
    first = {order: np.full(len(column), -1) for order in dict.fromkeys(cell.order for cell in cells)}
    for i, (cell, fields) in enumerate(zip(cells, common, strict=True)):
        first[cell.order][column[fields]] = i * seeds
    seed = np.arange(seeds)[:, None]
    pairs = [tuple(zip(FIELDS_OF_A_PAIR, fields, strict=True)) for fields in column]
    return pairs, {order: np.where(rows < 0, -1, rows + seed) for order, rows in first.items()}


def only(runs: pd.DataFrame, place: Mapping[str, np.ndarray]) -> tuple[pd.DataFrame, dict[str, np.ndarray]]:
    """The rows of `runs` to which some place leads, and the places that lead to them there."""
    kept = np.unique(np.concatenate([rows[rows >= 0] for rows in place.values()]))
    moved = {order: np.where(rows < 0, -1, np.searchsorted(kept, rows)) for order, rows in place.items()}
    return runs.iloc[kept].reset_index(drop=True), moved


def of_runs(rows: pd.DataFrame, runs: pd.DataFrame) -> pd.DataFrame:
    """Those of a few rows that belong to planned runs."""
    known = runs.loc[runs["run_id"].isin(rows["run_id"].unique()), "run_id"]
    return rows[rows["run_id"].isin(known)]


def _cells_of(runs: pa.Table) -> frozenset:
    """(pair, order) of the cells of these runs."""
    cells = runs.select([*FIELDS_OF_A_PAIR, "order"])
    cells = cells.group_by(cells.column_names).aggregate([]).to_pydict()
    return frozenset(
        (tuple(zip(FIELDS_OF_A_PAIR, fields, strict=True)), order)
        for *fields, order in zip(*cells.values(), strict=True)
    )


def _look_of_seeds(grid: Grid) -> np.ndarray:
    """The look, from 1, that each of `seeds.every` belongs to; tuning seeds to the first. int (seeds,)"""
    fresh = 1 + np.searchsorted(grid.seeds.looks, np.arange(grid.seeds.most), side="right")
    return np.concatenate([np.ones(grid.seeds.tuning, int), fresh])


def _example_counts(
    store: Store, accepted: pa.Table, cell_ids: Sequence[str], seeds: int, look: np.ndarray
) -> dict[tuple[str, int], tuple[np.ndarray, int]]:
    """By cell_id and look, over the trials all of whose counted runs are accepted and planned, each in the last look of its
    runs; not where the test sets of a cell differ.

    accepted: run_id and trial of every planned run, in the order of the cells; trial is null where there is none. look: of
    each seed of a cell, int (seeds,).
    """
    rows = store.read("examples", of=accepted)
    rows = rows.filter(pc.greater(pc.list_value_length(rows["run_ids"]), 0)).combine_chunks()
    if not len(rows):
        return {}
    trial = np.repeat(np.arange(len(rows)), pc.list_value_length(rows["run_ids"]).to_numpy())  # of each counted run
    run = _index(pc.list_flatten(rows["run_ids"]), accepted["run_id"])
    trial_of_run = _index(accepted["trial"], rows["trial"])
    cell = np.where((run >= 0) & (trial_of_run[run] == trial), run // seeds, -1)
    starts = np.flatnonzero(np.diff(trial, prepend=-1))
    least, most = np.minimum.reduceat(cell, starts), np.maximum.reduceat(cell, starts)
    looks = np.maximum.reduceat(look[run % seeds], starts)
    correct = rows["correct"].combine_chunks()
    offsets, values = correct.offsets.to_numpy(), correct.values.to_numpy()
    counted = rows["seeds"].to_numpy()
    counts: dict[tuple[str, int], tuple[np.ndarray, int]] = {}
    examples: dict[str, set[int]] = {}
    for i in np.flatnonzero((least == most) & (least >= 0)).tolist():
        key = cell_ids[least[i]], int(looks[i])
        these, n = values[offsets[i] : offsets[i + 1]], int(counted[i])
        examples.setdefault(key[0], set()).add(len(these))
        before, n_before = counts.get(key, (these, 0))
        if len(before) == len(these):
            counts[key] = (before + these if n_before else these), n_before + n
    return {key: each for key, each in counts.items() if len(examples[key[0]]) == 1}


def _index(values: pa.Array | pa.ChunkedArray, among: pa.ChunkedArray) -> np.ndarray:
    """The place of each value among others that are all different; −1 where it is not there."""
    return pc.fill_null(pc.index_in(values, among), -1).to_numpy()


class Paired:
    """Outcomes of two arms on the same seeds. Arrays (n, K): NaN or False where a pair lacks one of its runs.

    places: of each arm, int (n, K), the rows of `runs`, −1 where the grid has no such run.
    """

    def __init__(self, runs: pd.DataFrame, measure: Measure, places: tuple[np.ndarray, np.ndarray]):
        self.measure, self.places = measure, places
        self._runs = runs
        self.facts = self._facts()
        there = [place >= 0 for place in places]  # elsewhere the last run is looked up, and left out again
        values = runs[measure.name].to_numpy(float)
        done, diverged = ((runs["status"] == status).to_numpy(bool) for status in ("done", "diverged"))
        if measure.of_layers:
            done, diverged = done | diverged, np.zeros_like(diverged)
        self.done = tuple(
            np.where(known & done[place], values[place], np.nan) for known, place in zip(there, places, strict=True)
        )
        self._score([known & diverged[place] for known, place in zip(there, places, strict=True)])

    def _score(self, diverged: Sequence[np.ndarray]) -> None:
        """What follows from `done` and from which runs diverged, bool (n, K) of each arm."""
        self.both = np.all([np.isfinite(x) | y for x, y in zip(self.done, diverged, strict=True)], axis=0)
        self.diverged = tuple(each & self.both for each in diverged)
        worst = self.measure.worst(self.facts, *self.done)
        scored = [st.score(x, y, worst) for x, y in zip(self.done, diverged, strict=True)]
        self.a, self.b = (np.where(self.both, each, np.nan) for each in scored)

    def first(self, seeds: int) -> "Paired":
        """What was known of the same comparisons when there were so many seeds."""
        known = object.__new__(Paired)
        known.measure, known._runs, known.facts = self.measure, self._runs, self.facts
        known.places, known.done = (tuple(each[:seeds] for each in both) for both in (self.places, self.done))
        known._score([each[:seeds] for each in self.diverged])
        return known

    @cached_property
    def d(self) -> np.ndarray:
        """Differences, first arm minus second."""
        return self.a - self.b

    @cached_property
    def finished(self) -> np.ndarray:
        """Differences of pairs of which no run diverged."""
        return np.where(self.diverged[0] | self.diverged[1], np.nan, self.d)

    @cached_property
    def floor(self) -> np.ndarray:
        """The least sd that differences are taken to have. (K,)"""
        return self.measure.step(self.facts) / np.sqrt(6)

    def _facts(self) -> dict[str, np.ndarray]:
        """Classes, epochs and sizes of the data set of each comparison; where nothing ran yet, harmless ones."""
        rows = np.concatenate(self.places)
        facts = {}
        sizes = ("train_examples", "val_examples", "test_examples")
        for name, otherwise in (("classes", 2), ("epochs", 1), *((size, 1) for size in sizes)):
            values = np.where(rows >= 0, np.nan_to_num(self._runs[name].to_numpy(float)[rows]), 0.0).max(0)
            facts[name] = np.where(values > 0, values, otherwise)
        return facts
