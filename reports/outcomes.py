"""From a store to the outcomes of runs, joined in pairs: arrays (n, K), n seeds and K comparisons.

Pairs are joined by (cell without order, seed), never by position. A diverged run has an outcome, a failed one is missing.
"""

from functools import cached_property
from typing import NamedTuple

import numpy as np
import pandas as pd

from grids import FIELDS, Grid, WrongUse
from reports import statistics as st
from reports.measures import Measure, derive
from results import Store

FIELDS_OF_A_PAIR = tuple(name for name in FIELDS if name != "order")


class ReportError(WrongUse):
    """A store about which nothing can be reported, and why."""


class Results(NamedTuple):
    """What a store holds of a grid's planned runs. `place[order]` leads into the rows of `runs`."""

    grid: Grid
    runs: pd.DataFrame  # a row a planned run, with its cell and seed; `status` missing where the store has none
    pairs: list[tuple[tuple[str, object], ...]]  # the cells without order
    place: dict[str, np.ndarray]  # by order: int (seeds, pairs), −1 where the grid has no such cell
    unplanned: frozenset  # of (pair, order): the store has seeds of theirs that the grid does not declare
    counts: dict[str, tuple[np.ndarray, int]]  # by cell_id: of each test example its right answers, of how many seeds
    remarks: tuple[tuple[str, frozenset], ...] = ()  # a note, and the (pair, order) that it qualifies

    def columns(self, contrast: str) -> tuple[np.ndarray, tuple[np.ndarray, np.ndarray]]:
        """The pairs of which the grid has both arms of a contrast, (K,), and the places of those arms, (n, K) each."""
        orders = self.grid.analysis.pairs[contrast]
        columns = np.flatnonzero(np.all([(self.place[order] >= 0).all(0) for order in orders], axis=0))
        return columns, tuple(self.place[order][:, columns] for order in orders)


def gather(grid: Grid, store: Store) -> Results:
    """Read the planned runs. ReportError where the store holds none of them, or only one arm."""
    stored = store.read("runs").to_pandas()
    if stored.empty:
        raise ReportError(f"{store.path}: the store is empty; run the sweep of {grid.name} first")
    cells = list(grid.cells())
    seeds = grid.seeds.every
    planned = list(grid.runs())
    runs = pd.DataFrame([{**dict(run.cell), "seed": run.seed} for run in planned])
    runs.insert(0, "run_id", [run.run_id for run in planned])
    runs["cell_id"] = np.repeat([cell.cell_id for cell in cells], len(seeds))
    facts = stored.drop(columns=[*FIELDS, "seed"])
    runs = runs.merge(facts, on="run_id", how="left", validate="one_to_one")
    runs["status"] = runs["status"].fillna("missing")
    runs = derive(runs)
    here = runs[runs["status"].isin(["done", "diverged"])]
    arms = set(grid.analysis.arms.values())
    present = [name for name, order in grid.analysis.arms.items() if order in set(here["order"])]
    if here.empty:
        raise ReportError(f"{store.path}: no finished run of {grid.name} in the store")
    if len(arms) < 2 or len(present) < 2:
        arm = f"only the arm {present[0]!r}" if present else "no arm"
        raise ReportError(f"{store.path}: {arm} of {grid.name} has finished runs; a comparison needs two")
    pairs = list(dict.fromkeys(cell.without("order") for cell in cells))
    column = {pair: i for i, pair in enumerate(pairs)}
    place = {order: np.full((len(seeds), len(pairs)), -1) for order in dict.fromkeys(cell.order for cell in cells)}
    for i, cell in enumerate(cells):
        place[cell.order][:, column[cell.without("order")]] = np.arange(len(seeds)) + i * len(seeds)
    return Results(grid, runs, pairs, place, _unplanned(grid, stored), _example_counts(store, runs))


def _unplanned(grid: Grid, stored: pd.DataFrame) -> frozenset:
    """(pair, order) of the cells of which the store holds finished runs with seeds beyond the grid's."""
    extra = stored[~stored["seed"].isin(grid.seeds.every) & (stored["status"] != "failed")]
    if extra.empty:
        return frozenset()
    cells = set(extra[[*FIELDS_OF_A_PAIR, "order"]].itertuples(index=False, name=None))
    return frozenset((tuple(zip(FIELDS_OF_A_PAIR, fields, strict=True)), order) for *fields, order in cells)


def _example_counts(store: Store, runs: pd.DataFrame) -> dict[str, tuple[np.ndarray, int]]:
    """By cell_id, over the trials all of whose counted runs are accepted and planned."""
    accepted = {
        (run_id, trial): cell
        for run_id, trial, cell in zip(runs["run_id"], runs["trial"], runs["cell_id"], strict=True)
    }
    counts: dict[str, tuple[np.ndarray, int]] = {}
    for row in store.read("examples").to_pandas().itertuples():
        cells = {accepted.get((run_id, row.trial)) for run_id in row.run_ids}
        if len(cells) == 1 and (cell := cells.pop()) is not None:
            before, seeds = counts.get(cell, (0, 0))
            counts[cell] = before + np.asarray(row.correct, np.int64), seeds + row.seeds
    return counts


class Paired:
    """Outcomes of two arms on the same seeds. Arrays (n, K): NaN or False where a pair lacks one of its runs.

    places: of each arm, int (n, K), the rows of `runs`, −1 where the grid has no such run.
    """

    def __init__(self, runs: pd.DataFrame, measure: Measure, places: tuple[np.ndarray, np.ndarray]):
        self.measure, self.places = measure, places
        self._runs = runs
        self.facts = self._facts()
        status = np.append(runs["status"].to_numpy(), "missing")
        values = np.append(runs[measure.name].to_numpy(float), np.nan)
        self.done = tuple(np.where(status[place] == "done", values[place], np.nan) for place in places)
        diverged = [status[place] == "diverged" for place in places]
        self.both = np.all([np.isfinite(x) | y for x, y in zip(self.done, diverged, strict=True)], axis=0)
        self.diverged = tuple(each & self.both for each in diverged)
        worst = measure.worst(self.facts, *self.done)
        scored = [st.score(x, y, worst) for x, y in zip(self.done, diverged, strict=True)]
        self.a, self.b = (np.where(self.both, each, np.nan) for each in scored)

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
            values = np.append(np.nan_to_num(self._runs[name].to_numpy(float), nan=0.0), 0.0)[rows].max(0)
            facts[name] = np.where(values > 0, values, otherwise)
        return facts
