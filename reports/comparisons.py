"""From a grid and its store to one row a comparison: cell without order × contrast × metric, each with a verdict.

Pairs are joined by (cell without order, seed), never by position. A family is a metric × contrast; it counts every
planned comparison, run or not.
"""

from collections.abc import Iterable
from typing import NamedTuple

import numpy as np
import pandas as pd

from grids import FIELDS, Grid, WrongUse
from reports import statistics as st
from results import Store

SD_FLOOR_OF_LOSS = 1e-6  # r of losses; r of accuracies is one example
FIELDS_OF_A_PAIR = tuple(name for name in FIELDS if name != "order")
COLUMNS = (
    *FIELDS_OF_A_PAIR, "contrast", "metric", "n", "missing", "mean_a", "mean_b", "difference", "low", "high", "p",
    "p_holm", "p_bh", "p_sign_flip", "p_equivalence", "p_equivalence_holm", "margin", "effect_size",
    "probability_of_improvement", "variance_ratio", "p_variance", "power", "seeds_needed", "verdict", "sd",
    "low_family", "high_family", "improvement_low", "improvement_high", "diverged_a", "diverged_b", "p_diverged",
    "p_diverged_holm", "difference_finished", "test_set_error", "look", "notes",
)  # fmt: skip


def larger_is_better(metric: str) -> bool:
    """Of accuracies; the smaller loss and calibration error is the better."""
    return metric.endswith("accuracy")


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


def gather(grid: Grid, store: Store) -> Results:
    """Read the planned runs. ReportError where the store holds none of them, or only one arm."""
    stored = store.read("runs").to_pandas()
    if stored.empty:
        raise ReportError(f"{store.path}: the store is empty; run the sweep of {grid.name} first")
    cells = list(grid.cells())
    seeds = range(grid.seeds.count)
    planned = list(grid.runs())
    runs = pd.DataFrame([{**dict(run.cell), "seed": run.seed} for run in planned])
    runs.insert(0, "run_id", [run.run_id for run in planned])
    runs["cell_id"] = np.repeat([cell.cell_id for cell in cells], len(seeds))
    facts = stored.drop(columns=[*FIELDS, "seed"])
    runs = runs.merge(facts, on="run_id", how="left", validate="one_to_one")
    runs["status"] = runs["status"].fillna("missing")
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
    extra = stored[(stored["seed"] >= grid.seeds.count) & (stored["status"] != "failed")]
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


class Arm(NamedTuple):
    """One arm of one contrast: arrays (seeds, K)."""

    values: np.ndarray  # NaN unless done
    diverged: np.ndarray

    @property
    def there(self) -> np.ndarray:
        return np.isfinite(self.values) | self.diverged


def compare(results: Results, metrics: Iterable[str] | None = None) -> pd.DataFrame:
    """Every comparison of the grid, in the columns COLUMNS: families in the order of the analysis, pairs in the grid's."""
    analysis = results.grid.analysis
    frames = []
    for metric in metrics or analysis.metrics:
        for contrast in analysis.contrasts:
            frames.append(_family(results, metric, contrast))
    return pd.concat(frames, ignore_index=True)[list(COLUMNS)]


def _arm(results: Results, place: np.ndarray, metric: str) -> Arm:
    status = results.runs["status"].to_numpy()[place]
    values = results.runs[metric].to_numpy(float)[place]
    return Arm(np.where(status == "done", values, np.nan), status == "diverged")


def _family(results: Results, metric: str, contrast: str) -> pd.DataFrame:
    """The comparisons of one family, K of them: the pairs of which the grid has both arms."""
    analysis = results.grid.analysis
    orders = analysis.pairs[contrast]
    has_both = np.all([(results.place[order] >= 0).all(0) for order in orders], axis=0)
    columns = np.flatnonzero(has_both)
    places = [results.place[order][:, columns] for order in orders]
    a, b = (_arm(results, place, metric) for place in places)
    fact = _facts(results.runs, places)
    part = metric.split("_")[-2 if metric.endswith(("accuracy", "loss")) else -3]
    is_accuracy = larger_is_better(metric)
    if metric.endswith("calibration_error"):
        worst = np.ones(len(columns))
    else:
        worst = st.worst_outcome(is_accuracy, fact["classes"], a.values, b.values)
    unit = 1 / fact[f"{part}_examples"] if is_accuracy else np.full(len(columns), SD_FLOOR_OF_LOSS)
    floor = unit / np.sqrt(6)
    both = a.there & b.there
    scored = [np.where(both, st.score(arm.values, arm.diverged, worst), np.nan) for arm in (a, b)]
    d = scored[0] - scored[1]
    finished = np.where(a.diverged | b.diverged, np.nan, d)
    test = _Family(d, finished, floor, analysis.margin.get(metric), analysis.alpha)
    m, margin, count = test.moments, test.margin, len(columns)
    diverged = [np.where(both, arm.diverged, False) for arm in (a, b)]
    low, high = st.t_interval(m)
    low_family, high_family = st.t_interval(m, 1 - analysis.alpha / count)
    share, improvement_low, improvement_high = st.improvement(d, larger_is_better=is_accuracy)
    ratio, p_variance = st.spread(*(np.where(arm.diverged, np.nan, arm.values) for arm in (a, b)))
    p_diverged = st.mcnemar(diverged[0], diverged[1], both)
    noise = _test_set_errors(results, places) if metric == "test_accuracy" else np.full(count, np.nan)
    finished_mean = st.moments(finished).mean
    frame = pd.DataFrame([dict(results.pairs[i]) for i in columns])
    numbers = {
        "n": m.n, "missing": len(d) - m.n, "mean_a": _means(scored[0]), "mean_b": _means(scored[1]),
        "difference": m.mean, "low": low, "high": high, "p": test.p, "p_holm": test.p_holm,
        "p_bh": st.benjamini_hochberg(test.p), "p_sign_flip": st.sign_flip(d),
        "p_equivalence": test.p_equivalence, "p_equivalence_holm": test.p_equivalence_holm,
        "margin": np.nan if margin is None else margin, "effect_size": st.effect_size(m),
        "probability_of_improvement": share, "variance_ratio": ratio, "p_variance": p_variance,
        "power": np.nan if margin is None else st.tost_power(m, margin, analysis.alpha / count),
        "seeds_needed": np.nan if margin is None else st.seeds_needed(m, margin, analysis.alpha, count),
        "verdict": test.verdicts, "sd": m.sd, "low_family": low_family, "high_family": high_family,
        "improvement_low": improvement_low, "improvement_high": improvement_high,
        "diverged_a": diverged[0].sum(0), "diverged_b": diverged[1].sum(0), "p_diverged": p_diverged,
        "p_diverged_holm": st.holm(p_diverged), "difference_finished": finished_mean, "test_set_error": noise,
        "look": 1,
    }  # fmt: skip
    extremes = _extremes(is_accuracy, metric.endswith("loss"), scored, fact["classes"], margin)
    g1 = st.skewness(d)
    notes = {
        "n < 5": m.n < st.FEWEST_PAIRS,
        "no margin": np.full(count, margin is None),
        "skewed": (np.abs(np.nan_to_num(g1)) > st.SKEWED) & (m.n >= st.FEWEST_FOR_SKEW),
        "one pair decides": test.one_pair_decides(),
        "diverged": diverged[0].any(0) | diverged[1].any(0),
        "both diverged": (diverged[0] & diverged[1]).any(0),
        "sign depends on diverged runs": (np.sign(m.mean) * np.sign(finished_mean) < 0)
        | (np.isnan(finished_mean) & (m.n > 0)),
        **extremes,
        "margin below test-set noise": np.nan_to_num(noise) > (np.inf if margin is None else margin),
        "unplanned seeds": np.array(
            [any((results.pairs[i], order) in results.unplanned for order in orders) for i in columns], bool
        ),
    }
    labels = np.array(list(notes))
    table = np.array(list(notes.values()), bool).T  # (K, notes)
    frame = frame.assign(contrast=contrast, metric=metric, **numbers)
    frame["notes"] = ["; ".join(labels[row]) for row in table]
    return frame


class _Family:
    """The tests of one family. d, finished (n, K): differences of all pairs, and without those that diverged."""

    def __init__(self, d, finished, floor, margin, alpha):
        self.d, self.finished, self.floor, self.margin, self.alpha = d, finished, floor, margin, alpha
        self.moments = st.moments(d, floor)
        self.p = st.t_test(self.moments)
        self.p_holm = st.holm(self.p)
        self.p_equivalence = self._tost(d, finished)
        self.p_equivalence_holm = self.p_equivalence if margin is None else st.holm(self.p_equivalence)
        self.rejects = self.p_holm <= alpha, self.p_equivalence_holm <= alpha
        self.verdicts = self._verdicts(self.moments, *self.rejects, self.rejects[1].sum(), finished)

    def _tost(self, d, finished):
        """The larger p of all pairs and of finished ones; NaN without a margin."""
        if self.margin is None:
            return np.full(d.shape[1], np.nan)
        return np.maximum(*(st.tost(st.moments(each, self.floor), self.margin) for each in (d, finished)))

    def _verdicts(self, m, rejects_difference, rejects_tost, rejected, finished):
        half = st.half_width(m, self.alpha, self.d.shape[1] - rejected)
        diverged = (np.isfinite(self.d) & ~np.isfinite(finished)).any(0)
        return st.verdicts(self.moments.n, rejects_difference, rejects_tost, half, self.margin, diverged)

    def one_pair_decides(self):
        """Where the verdict is another without the pair farthest from the median, the other comparisons as they are."""
        d = st.without_farthest(self.d)
        m = st.moments(d, self.floor)
        finished = np.where(np.isfinite(d), self.finished, np.nan)
        different = st.holm_rejects_with(self.p, st.t_test(m), self.alpha)
        if self.margin is None:
            same = np.zeros_like(different)
        else:
            same = st.holm_rejects_with(self.p_equivalence, self._tost(d, finished), self.alpha)
        rejected = self.rejects[1].sum() - self.rejects[1] + same
        return self._verdicts(m, different, same, rejected, self.finished) != self.verdicts


def _facts(runs: pd.DataFrame, places: list[np.ndarray]) -> dict[str, np.ndarray]:
    """Classes and sizes of the data set of each comparison; where nothing ran yet, harmless ones."""
    rows = np.concatenate(places)
    facts = {}
    for name, otherwise in (("classes", 2), ("train_examples", 1), ("val_examples", 1), ("test_examples", 1)):
        values = np.nan_to_num(runs[name].to_numpy(float)[rows], nan=0.0).max(0)
        facts[name] = np.where(values > 0, values, otherwise)
    return facts


def _means(values: np.ndarray) -> np.ndarray:
    return st.moments(values).mean


def _extremes(is_accuracy, is_loss, scored, classes, margin) -> dict[str, np.ndarray]:
    """floor: both arms within a margin of guessing; ceiling: both within a margin of perfect. No larger difference fits."""
    a, b = (np.nan_to_num(_means(values), nan=np.inf) for values in scored)
    if margin is None or not (is_accuracy or is_loss):
        nothing = np.zeros(len(a), bool)
        return {"floor": nothing, "ceiling": nothing}
    if is_accuracy:
        guess = 1 / classes + margin
        floor, ceiling = (a < guess) & (b < guess), (a > 1 - margin) & (b > 1 - margin)
    else:
        guess = np.log(classes) - margin
        floor, ceiling = (a > guess) & (b > guess), (a < margin) & (b < margin)
    there = np.isfinite(a) & np.isfinite(b)
    return {"floor": floor & there, "ceiling": ceiling & there}


def _test_set_errors(results: Results, places: list[np.ndarray]) -> np.ndarray:
    """Standard error of each difference that comes from the test examples, NaN where it was not measured. (K,)"""
    cell_ids = results.runs["cell_id"].to_numpy()
    errors = []
    for a, b in zip(cell_ids[places[0][0]], cell_ids[places[1][0]], strict=True):
        known = a in results.counts and b in results.counts
        errors.append(st.test_set_error(*results.counts[a], *results.counts[b]) if known else np.nan)
    return np.array(errors)
