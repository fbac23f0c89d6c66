"""Adaptive seeds: which comparisons are decided at a look, which arms go on to the next one, and what results have.

A look is taken when every run of its seeds has ended. Then the arms of each comparison of the primary metric that no test
decides, whatever the contrast, get the seeds of the next look. Until those have ended too, what they show counts nowhere.
A comparison of which no pair tells anything, as where all runs of an arm fail, is not waited for.
"""

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
import pandas as pd

from grids import Grid
from reports.measures import measure
from reports.outcomes import Paired, ReportError, Results, gather, only
from reports.rates import Selected, open_fields, own, select
from reports.verdicts import Looks, Tests
from reports.words import counted, enumerated
from results import Store

Array = np.ndarray


class Reach(NamedTuple):
    """By order, looks of each arm, int (P,) from 1: `taken`, and `wanted`, one more where they do not decide.

    lacking: the look that lacks runs, 0 where none does.
    """

    taken: Mapping[str, Array]
    wanted: Mapping[str, Array]
    lacking: int


def wanted(grid: Grid, store: Store) -> dict[tuple, int]:
    """By (cell without order and what is searched, order) of the arms that want more than one look, how many they do."""
    try:
        results = select(gather(grid, store)).results
    except ReportError:  # nothing to compare
        return {}
    of = reach(results).wanted
    return {
        (pair, order): looks
        for order in of
        for pair, looks in zip(results.pairs, of[order].tolist(), strict=True)
        if looks > 1
    }


def reach(results: Results) -> Reach:
    """How far the looks have come. results: with what is searched chosen, and all seeds that a cell may have."""
    analysis, sizes = results.grid.analysis, results.grid.seeds.looks
    there = _chosen(results)
    lacking = (results.runs["status"] == "missing").to_numpy()
    taken = wants = {order: np.ones(len(results.pairs), int) for order in results.place}
    for look, (since, size) in enumerate(zip((0, *sizes), sizes, strict=False), 1):
        now = {order: there[order] & (wants[order] >= look) for order in wants}
        if any(lacking[results.place[order][since:size, now[order]]].any() for order in now):
            return Reach(taken, wants, look)
        taken = wants
        if size == sizes[-1] or not any(each.any() for each in now.values()):
            break
        here, wants = _cut(results, taken), {order: each.copy() for order, each in wants.items()}
        for contrast, orders in analysis.pairs.items():
            columns, places = here.columns(contrast)
            tests = tests_of(Paired(here.runs, measure(analysis.primary.metric), places), here, columns, contrast)
            open_ = ~tests.decided & tests.tells & now[orders[0]][columns] & now[orders[1]][columns]
            for order in orders:
                wants[order][columns[open_]] = look + 1
    return Reach(taken, wants, 0)


def tests_of(pair: Paired, results: Results, columns: Array, contrast: str) -> Tests:
    """The tests of a family, at the looks that both arms of a comparison have taken. columns: as Results.columns gives."""
    analysis, seeds = results.grid.analysis, results.grid.seeds
    looks = Looks((seeds.count,), np.ones(len(columns), int))
    if results.looks:
        looks = Looks(seeds.looks, np.minimum(*(results.looks[order][columns] for order in analysis.pairs[contrast])))
    return Tests(pair, analysis.margin.get(pair.measure.name), analysis.alpha, looks)


def taken(results: Results) -> Results:
    """The same with the runs of the looks that each arm has taken. results: with what is searched chosen."""
    return _cut(results, reach(results).taken) if _adaptive(results) and not results.looks else results


def first(results: Results) -> Results:
    """The same as of a grid that is not adaptive, with the seeds of the first look, which every cell has."""
    if not _adaptive(results):
        return results
    seeds = results.grid.seeds
    grid = results.grid.model_copy(update={"seeds": seeds.model_copy(update={"max": 0, "stop": "count"})})
    count = seeds.count + (seeds.tuning if open_fields(results) else 0)
    runs, place = only(results.runs, {order: rows[:count] for order, rows in results.place.items()})
    return results._replace(grid=grid, runs=runs, place=place, looks={})


def known(selected: Selected) -> pd.DataFrame:
    """Its `known`: runs beyond the looks that are wanted are not `planned`, and there only if the store has them."""
    results, runs = selected.results, selected.known
    if not _adaptive(results):
        return runs
    inside = _cut(results, reach(results).wanted).runs["run_id"]
    beyond = results.runs.loc[~results.runs["run_id"].isin(inside), "run_id"].dropna()
    runs = runs.assign(planned=runs["planned"] & ~runs["run_id"].isin(beyond))
    return runs[runs["planned"] | (runs["status"] != "missing")].reset_index(drop=True)


def in_words(results: Results, frame: pd.DataFrame) -> list[str]:
    """Sentences on how far the looks have come; none where seeds are not adaptive. results, frame: as `compare` has them."""
    if not _adaptive(results):
        return []
    grid, of = results.grid, reach(results)
    sizes, metric = grid.seeds.looks, grid.analysis.primary.metric
    family = frame[frame["metric"] == metric]
    decided = (family[["p_holm", "p_equivalence_holm"]].min(axis=1) <= grid.analysis.alpha).sum()
    metrics = [measure(name).title for name in grid.analysis.metrics]
    told = [
        f"Seeds were added where comparisons in {measure(metric).title} were undecided, at looks after "
        f"{enumerated([*map(str, sizes)])} seeds: of {counted(len(family), 'comparison')} {decided} "
        f"{'is' if decided == 1 else 'are'} decided, with {counted(family['n'].sum(), 'pair')}, where {sizes[-1]} for each "
        f"would be {len(family) * sizes[-1]:,}.",
        f"Comparisons in {enumerated(metrics)}, and the runs behind them, have these seeds; all else is of the first "
        f"{sizes[0]}, which every cell has.",
    ]
    if of.lacking == 1:
        told.append("Look 1 lacks runs: comparisons are of those that are there, and none goes on yet.")
    elif of.lacking:
        told.append(f"Look {of.lacking} lacks runs: comparisons stand as they were at look {of.lacking - 1}.")
    return told


def _adaptive(results: Results) -> bool:
    return len(results.grid.seeds.looks) > 1


def _cut(results: Results, looks: Mapping[str, Array]) -> Results:
    """Without the runs that are beyond the looks of their arm."""
    sizes = np.array(results.grid.seeds.looks)
    seed = np.arange(sizes[max(each.max() for each in looks.values()) - 1])[:, None]
    place = {
        order: np.where(seed < sizes[looks[order] - 1], rows[: len(seed)], -1) for order, rows in results.place.items()
    }
    runs, place = only(results.runs, place)
    return results._replace(runs=runs, place=place, looks=looks)


def _chosen(results: Results) -> dict[str, Array]:
    """Whether the grid has an arm, with a value of all that is searched. By order: bool (P,)"""
    known = np.all([own(results.runs, field).notna() for field in results.grid.searched], axis=0)
    found = {order: rows[0] >= 0 for order, rows in results.place.items()}
    if not results.grid.searched:
        return found
    return {order: there & known[results.place[order][0]] for order, there in found.items()}
