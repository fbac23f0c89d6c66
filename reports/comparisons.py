"""From outcomes to one row a comparison: cell without order × contrast × metric, each with a verdict.

A family is a metric × contrast; it counts every planned comparison, run or not. Where the grid has several values under
[nuisance], each arm is compared at the value that its tuning seeds chose, on the fresh seeds.
"""

from collections import defaultdict
from collections.abc import Iterable, Sequence

import numpy as np
import pandas as pd

from reports import statistics as st
from reports.looks import first, taken, tests_of
from reports.measures import Measure, measure
from reports.outcomes import FIELDS_OF_A_PAIR, Paired, Results
from reports.rates import fresh, own, select
from reports.words import setting

COLUMNS = (
    *FIELDS_OF_A_PAIR, "lr_a", "lr_b",
    "contrast", "metric", "n", "missing", "mean_a", "mean_b", "difference", "low", "high", "p",
    "p_holm", "p_bh", "p_sign_flip", "p_equivalence", "p_equivalence_holm", "margin", "effect_size",
    "probability_of_improvement", "variance_ratio", "p_variance", "power", "seeds_needed", "verdict", "sd",
    "low_family", "high_family", "improvement_low", "improvement_high", "diverged_a", "diverged_b", "p_diverged",
    "p_diverged_holm", "difference_finished", "test_set_error", "look", "notes",
)  # fmt: skip
MOST_COUNTS = 2**17  # of test examples at once, an arm: 1 MB, which stays in a core's cache


def compare(
    results: Results, metrics: Iterable[str] | None = None, contrasts: Iterable[str] | None = None
) -> pd.DataFrame:
    """Every comparison of the grid, in the columns COLUMNS: families in the order of the analysis, pairs in the grid's.

    lr_a, lr_b: of the first and the second arm, `lr` where it is fixed. A field whose value was chosen for each arm is NaN,
    also where both arms chose the same: it does not tell comparisons apart.
    """
    return _compare(taken(select(results).results), metrics, contrasts)


def at_equal_rates(results: Results, metrics: Iterable[str] | None = None) -> pd.DataFrame:
    """Every comparison at every value that was searched, both arms at the same one, on the first fresh seeds: secondary.

    results: as gathered. The families are larger than those of `compare`, since they count all values.
    """
    return _compare(fresh(first(results)), metrics, None)


def _compare(results: Results, metrics: Iterable[str] | None, contrasts: Iterable[str] | None) -> pd.DataFrame:
    analysis = results.grid.analysis
    cells = results.cells()
    frames = []
    for metric in metrics or analysis.metrics:
        for contrast in contrasts or analysis.contrasts:
            frames.append(_family(results, cells, measure(metric), contrast))
    return pd.concat(frames, ignore_index=True)[list(COLUMNS)]


def _family(results: Results, cells: pd.DataFrame, measure: Measure, contrast: str) -> pd.DataFrame:
    """The comparisons of one family, K of them: the pairs of which the grid has both arms. cells: of every pair."""
    analysis = results.grid.analysis
    orders = analysis.pairs[contrast]
    columns, places = results.columns(contrast)
    pair = Paired(results.runs, measure, places)
    test = tests_of(pair, results, columns, contrast)
    m, margin, count = test.moments, test.margin, len(columns)
    alpha = analysis.alpha * test.looks.weight
    low, high = st.t_interval(m, 1 - (1 - st.LEVEL) * test.looks.weight)
    low_family, high_family = st.t_interval(m, 1 - alpha / count)
    share, improvement_low, improvement_high = st.improvement(pair.d, measure.larger_is_better)
    last = analysis.alpha * st.look_weights(results.grid.seeds.looks)[-1]  # what is spent where nothing decides before
    every = slice(results.grid.seeds.count)  # the seeds that every comparison has, however many decided it
    ratio, p_variance = st.spread(*(done[every] for done in pair.done), pair.floor)
    p_diverged = st.mcnemar(*(lost[every] for lost in pair.diverged), pair.both[every])
    rates = own(results.runs, "lr").to_numpy(float)
    noise = (
        _test_set_errors(results, places, test.looks.taken)
        if measure.name == "test_accuracy"
        else np.full(count, np.nan)
    )
    finished_mean = st.moments(pair.finished).mean
    numbers = {
        "lr_a": rates[places[0][0]], "lr_b": rates[places[1][0]],
        "n": m.n, "missing": test.looks.seeds - m.n, "mean_a": _means(pair.a), "mean_b": _means(pair.b),
        "difference": m.mean, "low": low, "high": high, "p": test.p, "p_holm": test.p_holm,
        "p_bh": st.benjamini_hochberg(test.p), "p_sign_flip": st.sign_flip(pair.d),
        "p_equivalence": test.p_equivalence, "p_equivalence_holm": test.p_equivalence_holm,
        "margin": np.nan if margin is None else margin, "effect_size": st.effect_size(m),
        "probability_of_improvement": share, "variance_ratio": ratio, "p_variance": p_variance,
        "power": np.nan if margin is None else st.tost_power(m, margin, alpha / count),
        "seeds_needed": np.nan if margin is None else st.seeds_needed(m, margin, last, count),
        "verdict": test.verdicts, "sd": m.sd, "low_family": low_family, "high_family": high_family,
        "improvement_low": improvement_low, "improvement_high": improvement_high,
        "diverged_a": pair.diverged[0].sum(0), "diverged_b": pair.diverged[1].sum(0), "p_diverged": p_diverged,
        "p_diverged_holm": st.holm(p_diverged), "difference_finished": finished_mean, "test_set_error": noise,
        "look": test.looks.taken,
    }  # fmt: skip
    g1 = st.skewness(pair.d)
    notes = {
        "n < 5": m.n < st.FEWEST_PAIRS,
        "no margin": np.full(count, margin is None),
        "skewed": (np.abs(np.nan_to_num(g1)) > st.SKEWED) & (m.n >= st.FEWEST_FOR_SKEW),
        "one pair decides": test.one_pair_decides(),
        "diverged": pair.diverged[0].any(0) | pair.diverged[1].any(0),
        "both diverged": (pair.diverged[0] & pair.diverged[1]).any(0),
        "sign depends on diverged runs": (np.sign(m.mean) * np.sign(finished_mean) < 0)
        | (np.isnan(finished_mean) & (m.n > 0)),
        "decided at an earlier look": np.any(test.decided_earlier(), axis=0),
        "sign changed since it was decided": test.sign_changed(),
        **_extremes(pair, margin),
        "margin below test-set noise": np.nan_to_num(noise) > (np.inf if margin is None else margin),
        **{note: _of_either(results, columns, orders, arms) for note, arms in results.remarks},
        "unplanned seeds": _of_either(results, columns, orders, results.unplanned),
    }
    frame = cells.take(columns).reset_index(drop=True)
    return frame.assign(
        contrast=contrast, metric=measure.name, **numbers, notes=_with_chosen(results, places, _joined(notes))
    )


def _with_chosen(results: Results, places: Sequence[np.ndarray], notes: Sequence[str]) -> list[str]:
    """Notes that begin with the values of both arms of every field that was chosen for each, but lr, which has columns."""
    told = list(notes)
    for name in [name for name in results.grid.searched if name != "lr" and f"selected_{name}" in results.runs]:
        of_arms = (results.runs[f"selected_{name}"].iloc[place[0]] for place in places)
        values = (f"{name} {setting(a)} / {setting(b)}" for a, b in zip(*of_arms, strict=True))
        told = ["; ".join(filter(None, each)) for each in zip(values, told, strict=True)]
    return told


def _joined(notes: dict[str, np.ndarray]) -> list[str]:
    """The names of the notes of each comparison in one text. bool (K,) each -> K texts"""
    labels = np.array(list(notes))
    # Many comparisons have few different sets of notes.
    sets, place = np.unique(np.array(list(notes.values()), bool), axis=1, return_inverse=True)
    texts = ["; ".join(labels[each]) for each in sets.T]
    return [texts[i] for i in place]


def _of_either(results: Results, columns: np.ndarray, orders: tuple[str, str], arms: frozenset) -> np.ndarray:
    """Of which comparisons one of the two arms is among these (pair, order). bool (K,)"""
    cells = {cell for cell, order in arms if order in orders}
    return np.array([bool(cells) and results.pairs[i] in cells for i in columns], bool)


def _means(values: np.ndarray) -> np.ndarray:
    return st.moments(values).mean


def _extremes(pair: Paired, margin: float | None) -> dict[str, np.ndarray]:
    """floor: both arms within a margin of guessing; ceiling: both within a margin of perfect. No larger difference fits."""
    a, b = (np.nan_to_num(_means(values), nan=np.inf) for values in (pair.a, pair.b))
    classes = pair.facts["classes"]
    if margin is None or pair.measure.kind not in ("accuracy", "loss"):
        nothing = np.zeros(len(a), bool)
        return {"floor": nothing, "ceiling": nothing}
    if pair.measure.kind == "accuracy":
        guess = 1 / classes + margin
        floor, ceiling = (a < guess) & (b < guess), (a > 1 - margin) & (b > 1 - margin)
    else:
        guess = np.log(classes) - margin
        floor, ceiling = (a > guess) & (b > guess), (a < margin) & (b < margin)
    there = np.isfinite(a) & np.isfinite(b)
    return {"floor": floor & there, "ceiling": ceiling & there}


def _test_set_errors(results: Results, places: Sequence[np.ndarray], looks: np.ndarray) -> np.ndarray:
    """Standard error of each difference that comes from the test examples, NaN where it was not measured. (K,)

    looks: that each comparison has taken, int (K,).
    """
    cells = (results.runs["cell_id"].take(place[0]) for place in places)
    arms = [[_counted(results, *which) for which in zip(of_arm, looks.tolist(), strict=True)] for of_arm in cells]
    errors = np.full(len(arms[0]), np.nan)
    measured = defaultdict(list)  # by number of test examples
    for i, (a, b) in enumerate(zip(*arms, strict=True)):
        if a and b and len(a[0]) == len(b[0]):
            measured[len(a[0])].append(i)
    for examples, chosen in measured.items():
        most = max(1, MOST_COUNTS // examples)
        for start in range(0, len(chosen), most):
            some = chosen[start : start + most]
            counts = (np.array(each) for arm in arms for each in zip(*(arm[i] for i in some), strict=True))
            errors[some] = st.test_set_error(*counts)
    return errors


def _counted(results: Results, cell_id: str, looks: int) -> tuple[np.ndarray, int] | None:
    """Right answers of each test example and the number of seeds, of the first looks; None where they were not counted."""
    there = [results.counts[cell_id, look] for look in range(1, looks + 1) if (cell_id, look) in results.counts]
    return (sum(correct for correct, _ in there), sum(seeds for _, seeds in there)) if there else None
