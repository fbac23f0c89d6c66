"""Each arm at its own best learning rate: chosen by tuning seeds, compared on fresh ones. The test set chooses nothing.

What is said of the rate holds for every field under [nuisance] with several values; a candidate is one combination of
them. Shapes: T tuning seeds, C candidates from small to large, O orders, P cells without order and without those fields.
"""

import itertools
from typing import NamedTuple

import numpy as np
import pandas as pd

from grids import FEWEST_TUNING, FIELDS, Cell, Grid
from reports import statistics as st
from reports.measures import DERIVED, Measure, measure
from reports.outcomes import Results, only
from results import selection
from results.selection import validated_by

DRAWS = 2000
RESAMPLING_SEED = 20_190_611
# Below, a choice is uncertain: the means of two rates are less than about 3/4 of a standard error apart. Simulated, two
# rates and 5 seeds: wrong choices that pass cost 0.06 standard errors on average at most, whatever the true difference;
# of right ones at a true difference of 2, 11 % do not pass. At 0.95 that would be 0.02 and 29 %.
SURE = 0.8
MOST_NUMBERS = 4_000_000  # of a block of resampled means: 32 MB
Array = np.ndarray


class Selected(NamedTuple):
    """Results at the chosen rates, and how they were chosen. Of a grid that searches nothing: its results, empty tables.

    results: of the fresh seeds. Its pairs lack the searched fields; in its `runs`, which are those compared, these are NaN,
    and the chosen values stand in `selected_lr` and so on. chosen: a row an order of a cell. tried: a row each candidate.
    known: all runs that a plan has (`planned`), or only the store, as of values that were not chosen. rungs: a row each
    candidate of the rungs on which they were halved.
    """

    results: Results
    chosen: pd.DataFrame
    tried: pd.DataFrame
    known: pd.DataFrame
    rungs: pd.DataFrame


class _Search(NamedTuple):
    """What there is to choose among."""

    fields: list[str]
    candidates: list[tuple]  # values of `fields`
    cells: list[tuple]  # pairs without `fields`
    column: Array  # int (C, P), into the pairs of the results, −1 where the grid has no such cell
    places: Array  # int (seeds, C, O, P), into the runs, −1 where the grid has no such run
    orders: list[str]

    @property
    def exists(self) -> Array:
        """Whether the grid has such a cell. bool (C, O, P)"""
        return self.places[0] >= 0


def validation(metric: str) -> Measure:
    """What rates are chosen by: the metric on the validation part; where it has no such part, accuracy."""
    if metric in DERIVED:
        return DERIVED[metric] if DERIVED[metric].part == "val" else measure("val_accuracy")
    return measure(validated_by(metric))


def open_fields(results: Results) -> list[str]:
    """The searched fields in which the cells of `results` still differ: none once `select` has chosen."""
    return [name for name in results.grid.searched if name in dict(results.pairs[0])]


def fresh(results: Results) -> Results:
    """The same, as gathered, without its tuning seeds."""
    assert open_fields(results) or not results.grid.searched, "chosen rates have fresh seeds only"
    tuning = results.grid.seeds.tuning
    return results._replace(place={order: place[tuning:] for order, place in results.place.items()})


def tuned(results: Results) -> Results:
    """The same, as gathered, with its tuning seeds alone."""
    tuning = results.grid.seeds.tuning
    return results._replace(place={order: place[:tuning] for order, place in results.place.items()})


def own(runs: pd.DataFrame, field: str) -> pd.Series:
    """The value that each run has of a field: the chosen one where it was searched, NaN where none was chosen. (R,)"""
    return runs[f"selected_{field}" if f"selected_{field}" in runs else field]


def select(results: Results) -> Selected:
    """Choose for each order of each cell the candidate with the best mean over its tuning seeds; of equals, the smaller.

    A diverged tuning run counts as its measure says, a missing one not at all. Where some candidate has no tuning run, the
    runs to compare are missing, and `chosen` says why: arms that chose among other values are not compared. Results whose
    rates are chosen already are left as they are.
    """
    if not open_fields(results):
        return Selected(results, pd.DataFrame(), pd.DataFrame(), results.runs.assign(planned=True), pd.DataFrame())
    search = _search(results)
    of = validation(results.grid.analysis.primary.metric)
    climbing = results.rungs[-1].climbing if results.rungs else search.exists
    outcomes, diverged = _outcomes(results, of, search.places[: results.grid.seeds.tuning], climbing)
    scores = selection.scores(of.kind, outcomes)
    best = selection.chosen(of.kind, climbing, outcomes)
    shares = frequencies(scores)
    found, several = best >= 0, search.exists.sum(0) > 1
    at_edge = found & several & _at_edge(search, best)
    uncertain = found & several & ((_at(shares, best) < SURE) | _tied(scores))
    m = st.moments(outcomes.reshape(len(outcomes), -1))
    n, mean, low, high = (each.reshape(shares.shape) for each in (m.n, m.mean, *st.t_interval(m)))
    tried = {
        "metric": of.name, "n": n, "missing": len(outcomes) - n, "diverged": diverged.sum(0), "mean": mean, "low": low,
        "high": high, "frequency": shares, "selected": np.arange(len(shares))[:, None, None] == best,
    }  # fmt: skip
    chosen = {
        "metric": of.name, "n": np.nan_to_num(_at(n, best)).astype(int), "mean": _at(mean, best),
        "frequency": _at(shares, best), "at_edge": at_edge.any(0), "uncertain": uncertain,
        "reason": np.where(found, "", "no tuning run of some value finished"),
    }  # fmt: skip
    tunings = [(rung.outcomes, rung.diverged) for rung in results.rungs] or [(outcomes, diverged)]
    sound = np.any([(np.isfinite(values) & ~lost).any((0, 1)) for values, lost in tunings], axis=0)
    label = ", ".join(search.fields)
    few = found & several & (chosen["n"] < FEWEST_TUNING)
    remarks = tuple(
        (note, frozenset((search.cells[p], search.orders[o]) for o, p in np.argwhere(where).tolist()))
        for note, where in (
            *zip([f"{field} at edge" for field in search.fields], at_edge, strict=True),
            (f"{label} uncertain", uncertain),
            (f"{label} diverged at every value", found & several & ~sound),
            (f"{label} from fewer than {FEWEST_TUNING} seeds", few),
        )
    )
    c, o, p = np.meshgrid(*map(np.arange, shares.shape), indexing="ij")
    compared = _at_chosen(results, search, best)
    return Selected(
        compared._replace(remarks=(*compared.remarks, *remarks)),
        _table(results.grid, search, search.exists.any(0), best, o[0], p[0], chosen),
        _table(results.grid, search, climbing, c, o, p, tried),
        _known(results, search, climbing, best),
        _rungs(results, search, of.name, (c, o, p)),
    )


def frequencies(scores: Array, draws: int = DRAWS) -> Array:
    """How often each candidate is chosen when the tuning seeds are resampled (Efron 1979). (T, C, O, P) -> (C, O, P)

    Seeds are resampled whole: all candidates, orders and cells have the same draws. Draws in which no candidate has a run
    count as well, so that shares may add up to less than 1.
    """
    drawn = np.random.default_rng(RESAMPLING_SEED).integers(len(scores), size=(draws, len(scores)))
    weights = (drawn[:, :, None] == np.arange(len(scores))).sum(1)
    weights, times = np.unique(weights, axis=0, return_counts=True)  # of 5 seeds there are only 126 resamples
    shares = np.empty(scores.shape[1:])
    block = max(1, MOST_NUMBERS // (len(weights) * scores.shape[1] * scores.shape[2]))
    for first in range(0, scores.shape[3], block):
        chosen = selection.best(weights.astype(float), scores[..., first : first + block])
        for c in range(len(shares)):
            shares[c, :, first : first + block] = np.tensordot(times, chosen == c, 1) / draws
    return shares


def _tied(scores: Array) -> Array:
    """Whether several candidates have the best mean, so that the first of them is no better. (T, C, O, P) -> (O, P)"""
    mean = selection.means(np.ones((1, len(scores))), scores)[0]
    return ((mean == mean.max(0)) & np.isfinite(mean)).sum(0) > 1


def _at(values: Array, best: Array) -> Array:
    """values (..., C, O, P) of the candidates in best (O, P); NaN where there is none."""
    where = np.broadcast_to(np.maximum(best, 0), (*values.shape[:-3], 1, *best.shape))
    taken = np.take_along_axis(values, where, axis=-3).squeeze(-3)
    return np.where(best >= 0, taken, np.nan)


def _search(results: Results) -> _Search:
    fields = open_fields(results)
    candidates = list(itertools.product(*selection.candidates(results.grid.nuisance, fields)))
    keys = [tuple(dict(pair)[f] for f in fields) for pair in results.pairs]
    rests = [tuple((name, value) for name, value in pair if name not in fields) for pair in results.pairs]
    cells = list(dict.fromkeys(rests))
    row, place = ({each: i for i, each in enumerate(several)} for several in (candidates, cells))
    column = np.full((len(candidates), len(cells)), -1)
    column[[row[key] for key in keys], [place[rest] for rest in rests]] = np.arange(len(keys))
    places = [np.where(column < 0, -1, each[:, column]) for each in results.place.values()]
    return _Search(fields, candidates, cells, column, np.stack(places, axis=2), list(results.place))


def _outcomes(results: Results, of: Measure, places: Array, climbing: Array) -> tuple[Array, Array]:
    """Of the runs at places (T, C, O, P) whose candidates climb: outcomes, NaN where one is missing, and which diverged."""
    runs, there = results.runs, (places >= 0) & climbing
    done, diverged = (there & (runs["status"] == status).to_numpy(bool)[places] for status in ("done", "diverged"))
    values = np.where(done, runs[of.name].to_numpy(float)[places], np.nan)
    classes = np.where(there, np.nan_to_num(runs["classes"].to_numpy(float))[places], 0.0).max((0, 1, 2))
    return selection.outcomes(of.kind, values, diverged, np.where(classes > 0, classes, 2)), diverged


def _known(results: Results, search: _Search, climbing: Array, best: Array) -> pd.DataFrame:
    """The runs as gathered, and whether they are `planned`, without those that are missing since no plan has them: fresh
    seeds of candidates that were not chosen, and tuning seeds of those that did not get so far.
    """
    tuning = results.grid.seeds.tuning
    of_chosen = np.arange(len(climbing))[:, None, None] == best
    wanted = np.where(np.arange(len(search.places))[:, None, None, None] < tuning, climbing, of_chosen)
    rows = search.places[wanted & (search.places >= 0)]
    planned = np.zeros(len(results.runs), bool)
    planned[rows] = True
    runs = results.runs.assign(planned=planned)
    return runs[planned | (runs["status"] != "missing").to_numpy(bool)].reset_index(drop=True)


def _rungs(results: Results, search: _Search, metric: str, places: tuple[Array, Array, Array]) -> pd.DataFrame:
    """A row each candidate of each rung before the last, in whose `epochs` are those of the rung. Empty without halving."""
    tables, seeds = [], results.grid.seeds
    for later, rung in zip(range(len(results.rungs) - 1, 0, -1), results.rungs, strict=False):
        m = st.moments(rung.outcomes.reshape(len(rung.outcomes), -1))
        n, mean, low, high = (each.reshape(rung.climbing.shape) for each in (m.n, m.mean, *st.t_interval(m)))
        columns = {
            "metric": metric, "n": n, "missing": seeds.tuning - n, "diverged": rung.diverged.sum(0), "mean": mean,
            "low": low, "high": high, "goes_on": results.rungs[-later].climbing,
        }  # fmt: skip
        table = _table(results.grid, search, rung.climbing, *places, columns)
        tables.append(table.assign(epochs=[seeds.rung_epochs(epochs, later) for epochs in table["epochs"]]))
    return pd.concat(tables, ignore_index=True) if tables else pd.DataFrame()


def _at_edge(search: _Search, best: Array) -> Array:
    """Whether the chosen number of a field is the smallest or largest of its cell, and may go beyond. -> (F, O, P)"""
    edge = np.zeros((len(search.fields), *best.shape), bool)
    for field, values, found in zip(search.fields, zip(*search.candidates, strict=True), edge, strict=True):
        if not isinstance(values[0], str | bool):
            number = np.array(values, float)[:, None, None]
            low, high = np.where(search.exists, number, np.inf).min(0), np.where(search.exists, number, -np.inf).max(0)
            chosen = number[best, 0, 0]
            found |= (low < high) & ((chosen == low) | (chosen == high)) & ~np.isin(chosen, bounds(field))
    return edge


def bounds(field: str) -> list[float]:
    """The least and the largest number that a field may be, where there are such: 0 of weight_decay, none of lr."""
    rules = Cell.model_fields[field].metadata
    return [getattr(rule, end) for rule in rules for end in ("ge", "le") if hasattr(rule, end)]


def _at_chosen(results: Results, search: _Search, best: Array) -> Results:
    """The fresh runs at the chosen candidates. Where none was chosen they are runs of nothing, with status missing."""
    candidate = np.where(best < 0, search.exists.argmax(0), best)
    places = _at(search.places[results.grid.seeds.tuning :], candidate).astype(int)  # (n, O, P)
    runs, place = only(results.runs, {order: places[:, o] for o, order in enumerate(search.orders)})
    found = np.ones(len(runs), bool)
    for rows, has_one in zip(place.values(), best >= 0, strict=True):
        found[rows[rows >= 0]] = np.broadcast_to(has_one, rows.shape)[rows >= 0]
    if not found.all():
        planned = [*FIELDS, "seed", "cell_id"]
        runs = runs[planned].join(runs.loc[found, runs.columns.difference(planned)])[list(runs)]
        runs["status"] = runs["status"].fillna("missing")
    values = {f"selected_{name}": runs[name].where(found) for name in search.fields}
    runs = runs.assign(**values, **dict.fromkeys(search.fields, np.nan))

    def of_chosen(marked: frozenset) -> frozenset:
        return frozenset(
            (cell, order)
            for o, order in enumerate(search.orders)
            for p, cell in enumerate(search.cells)
            if marked and (results.pairs[search.column[candidate[o, p], p]], order) in marked
        )

    return results._replace(
        runs=runs, pairs=search.cells, place=place, unplanned=of_chosen(results.unplanned),
        remarks=tuple((note, of_chosen(marked)) for note, marked in results.remarks),
    )  # fmt: skip


def _table(grid: Grid, search: _Search, where: Array, c: Array, o: Array, p: Array, columns: dict) -> pd.DataFrame:
    """Fields, arm and columns of each combination in `where`; c, o, p: its candidate, order and cell. Cell by cell."""
    sequence = np.lexsort((c[where], o[where], p[where]))
    c, o, p = (each[where][sequence] for each in (c, o, p))
    arms = {order: arm for arm, order in grid.analysis.arms.items()}
    frame = pd.DataFrame([dict(cell) for cell in search.cells]).iloc[p].reset_index(drop=True)
    for i, name in enumerate(search.fields):
        values = [*(candidate[i] for candidate in search.candidates), None]  # the last: none was chosen
        frame[name] = [values[k] for k in c]
    frame["order"] = [search.orders[k] for k in o]
    frame = frame[list(FIELDS)].assign(arm=[arms.get(order) for order in frame["order"]])
    return frame.assign(**{k: v if isinstance(v, str) else v[where][sequence] for k, v in columns.items()})
