"""From a claim and a store to outcomes: which cells have both of its sides, and first − second of every seed there.

A claim's cells differ in what it leaves free, and in the values of a side that has several. Each is a comparison of its
own; those that differ only in the field `over` stand in one row. A field whose value was chosen for each arm is NaN in
every cell, so that all agree in it.
"""

from typing import NamedTuple

import numpy as np
import pandas as pd

from grids import FIELDS
from reports.ledger import SIDES, Claim, Selection, numeric
from reports.measures import measure
from reports.outcomes import Paired, Results
from reports.words import setting

MOST_NAMED = 8  # values of a field in a sentence
Array = np.ndarray


class Design(NamedTuple):
    """The planned cells of a grid, and where their runs are."""

    cells: pd.DataFrame  # a row a cell, its fields
    rows: Array  # int (n, cells + 1): of each seed and cell its row in `runs`, −1 where there is none, as in the last column

    @classmethod
    def of(cls, results: Results) -> "Design":
        """The cells in the order in which their runs stand."""
        columns = {order: np.flatnonzero((place >= 0).any(0)) for order, place in results.place.items()}
        cells = pd.concat([results.cells(each).assign(order=order) for order, each in columns.items()])
        rows = np.hstack([results.place[order][:, each] for order, each in columns.items()])
        assert len(cells) == rows.shape[1], "a column of rows is that of its cell"
        sequence = np.argsort(rows.max(0), kind="stable")
        cells = cells[list(FIELDS)].iloc[sequence].reset_index(drop=True)
        return cls(cells, np.pad(rows[:, sequence], ((0, 0), (0, 1)), constant_values=-1))


class Evidence(NamedTuple):
    """Outcomes of a claim: n seeds, R rows of comparisons, L values of `over` (1 where there is none)."""

    d: Array  # (n, R, L): first − second, NaN where a run is missing
    finished: Array  # (n, R, L): NaN where one diverged too
    diverged: Array  # int (R, L): pairs with a diverged run
    floor: Array  # (R, L): the least sd that d is taken to have
    rows: pd.DataFrame  # R rows: what the comparisons of a row have in common
    levels: tuple  # L: the values of `over`
    slots: pd.DataFrame  # a row for each pair of cells that is compared: their fields, and its `row`
    what: str  # is compared: the metric's title
    apart: int  # comparisons that are left out, since not every value of `over` has their like


def evidence(claim: Claim, results: Results, design: Design) -> Evidence | str:
    """The outcomes of a claim, or a sentence on why the grid or its store does not cover it."""
    if claim.needs:
        return f"needs {claim.needs}"
    if claim.anatomy:
        return "needs no training: normorder ledger judges it by what normorder anatomy computes"
    done = results.runs[results.runs["status"] == "done"]
    if claim.metric not in done or (len(done) and done[claim.metric].isna().all()):
        return f"metric not measured: {claim.metric}"
    matched = _match(claim, design.cells)
    if isinstance(matched, str):
        return f"needs {matched}"
    slots, apart = matched
    levels = _levels(slots, claim.over)
    rest = [name for name in (*_common(claim), *_several(claim, slots)) if name != claim.over]
    slots["row"] = slots.groupby(rest, sort=False, dropna=False).ngroup()
    rows = slots.drop_duplicates("row")[rest].reset_index(drop=True)
    column = (slots["row"] * len(levels) + (slots[claim.over].map(levels.index) if claim.over else 0)).to_numpy()
    slot = slots.groupby(column).cumcount().to_numpy()
    shape = slot.max() + 1, len(rows) * len(levels)  # (C, K): C pairs of cells to each of K = R·L comparisons
    cells, part = np.full((2, *shape), -1), np.full(shape, -1)
    cells[:, slot, column] = slots[list(SIDES)].to_numpy().T
    part[slot, column] = pd.factorize(slots[claim.range_over])[0] if claim.range_over else 0
    n = len(design.rows)
    places = tuple(design.rows[:, each].swapaxes(0, 1).reshape(-1, shape[1]) for each in cells)  # (C·n, K)
    pair = Paired(results.runs, measure(claim.metric), places)
    a, b, diverged = (x.reshape(-1, n, shape[1]) for x in (pair.a, pair.b, pair.diverged[0] | pair.diverged[1]))
    if claim.expected == "less_spread":
        a, b = (_deviations(np.where(diverged, np.nan, each)) for each in (a, b))
    d = _side(a, part, bool(claim.range_over)) - _side(b, part, bool(claim.range_over))  # (n, K)
    lost = diverged.any(0)
    table = (len(rows), len(levels))
    return Evidence(
        d=d.reshape(n, *table),
        finished=np.where(lost, np.nan, d).reshape(n, *table),
        diverged=lost.sum(0).reshape(table),
        floor=pair.floor.reshape(table),
        rows=rows,
        levels=levels,
        slots=slots,
        what=results.titles.get(claim.metric, measure(claim.metric).title),
        apart=apart,
    )


def _common(claim: Claim) -> list[str]:
    """The fields in which both sides of a comparison agree."""
    return [name for name in FIELDS if name not in claim.first and name != claim.range_over]


def _several(claim: Claim, slots: pd.DataFrame) -> list[str]:
    """The columns of sides that have several values here, lest their mean hide that they differ."""
    columns = [f"{name}_{side}" for side in SIDES for name in claim.first]
    return [name for name in columns if slots[name].nunique() > 1]


def _match(claim: Claim, cells: pd.DataFrame) -> tuple[pd.DataFrame, int] | str:
    """Pairs of cells that are compared, and the number of comparisons left apart; or what the grid lacks.

    A row a pair: the fields in common, those of the sides as <field>_first and <field>_second, and `first`, `second`, the
    numbers of the cells.
    """
    chosen = np.ones(len(cells), bool)
    lacking = []
    for name, allowed in claim.cells.items():
        there = allowed.holds(cells[name])
        chosen &= there
        if not there.any():
            lacking.append(_lack({name: claim.cells[name]}, cells))
    if lacking:
        return " and ".join(lacking)
    if not chosen.any():
        return f"cells with {' and '.join(f'{name} {allowed}' for name, allowed in claim.cells.items())} at once"
    sides = []
    for selection in (claim.first, claim.second):
        there = chosen.copy()
        for name, allowed in selection.items():
            there &= allowed.holds(cells[name])
        if not there.any():
            lacking.append(_lack(selection, cells[chosen]))
        sides.append(there)
    if lacking:
        return " and ".join(lacking)
    first, second = (
        cells[there].assign(**{side: np.flatnonzero(there)}) for side, there in zip(SIDES, sides, strict=True)
    )
    slots = first.merge(second, on=[name for name in FIELDS if name not in claim.first], suffixes=("_first", "_second"))
    if slots.empty:
        return "cells with both sides that agree in every other field"
    if claim.range_over:
        several = slots.groupby(_common(claim), sort=False, dropna=False)[claim.range_over].transform("nunique") > 1
        if not several.any():
            return f"at least two values of {claim.range_over} with both sides"
        slots = slots[several]
    if not claim.over:
        return slots.reset_index(drop=True), 0
    values = slots[claim.over].nunique()
    if values < 2:
        return f"at least two values of {claim.over} with both sides"
    rest = [name for name in _common(claim) if name != claim.over]
    shared = slots.groupby(rest, sort=False, dropna=False)[claim.over].transform("nunique") == values
    if not shared.any():
        return f"cells that all {values} values of {claim.over} have in common"
    apart = len(slots.loc[~shared, _common(claim)].drop_duplicates())
    return slots[shared].reset_index(drop=True), apart


def _lack(selection: Selection, cells: pd.DataFrame) -> str:
    """'order weight-bn-act (here: weight-act)'"""
    parts = []
    for name, allowed in selection.items():
        here = [setting(value) for value in cells[name].unique()]
        more = ", …" if len(here) > MOST_NAMED else ""
        parts.append(f"{name} {allowed} (here: {', '.join(here[:MOST_NAMED])}{more})")
    return " with ".join(parts)


def _levels(slots: pd.DataFrame, over: str) -> tuple:
    """The values of `over`, numbers from the smallest on, names in the grid's order."""
    if not over:
        return (None,)
    values = list(dict.fromkeys(slots[over]))
    return tuple(sorted(values) if numeric(over) else values)


def _side(values: Array, part: Array, ranged: bool) -> Array:
    """The outcome of a side in each seed: the mean over its cells, or its range over parts. (C, n, K), (C, K) -> (n, K)

    part: of each pair of cells the value of `range_over`, −1 where a comparison has fewer pairs.
    """
    low, high = np.full(values.shape[1:], np.inf), np.full(values.shape[1:], -np.inf)
    for each in range(part.max() + 1):
        here = (part == each)[:, None]  # (C, 1, K)
        count = here.sum(0)
        mean = np.where(here, values, 0.0).sum(0) / np.maximum(count, 1)  # NaN where a run is missing
        low = np.where(count > 0, np.minimum(low, mean), low)
        high = np.where(count > 0, np.maximum(high, mean), high)
    return high - low if ranged else high


def _deviations(values: Array) -> Array:
    """Absolute deviations of an arm's seeds from their median (Brown and Forsythe 1974). (C, n, K) -> (C, n, K)"""
    known = np.isfinite(values).any(1, keepdims=True)
    return np.abs(values - np.nanmedian(np.where(known, values, 0.0), axis=1, keepdims=True))
