"""Judge published claims on the data at hand: supported, contradicted, undecided, or not covered by this grid.

The outcome of a seed is first − second, averaged over the claim's cells (or, as the claim asks: the difference of two
ranges over a field, or of two absolute deviations from an arm's median). Seeds are the unit: at least 5 of which every
cell is complete. Cells with fewer than 5 pairs are left out, and counted.

greater, less, less_spread: two-sided t test of mean 0 (Student 1908). With a margin the claim is supported only by a mean
    beyond it: twice the one-sided p, so that the 95 % interval lies beyond it.
rises, falls: such a test of each step between neighbouring values. All go the stated way: the largest p (Berger 1982,
    intersection-union); some goes the other: the smallest, times the number of steps (Bonferroni; Dunn 1961).
equivalent, not_greater: one-sided t tests against the margin (Schuirmann 1987), on all and on finished pairs, the larger
    p; against it a two-sided test that the mean lies beyond the margin: its interval is wholly outside.
varies: t test of the difference where the field has two values; else sign flips of whole seeds (Fisher 1935), by the sum
    of t² of each value's deviation from their mean. With a margin also, by the larger p, that two values differ by more.
A margin of greater, less or varies says what is clear: equivalence within it contradicts the claim.

Tests of a difference and tests of lying within a margin are two families, adjusted by Holm (1979) over all claims that
the grid covers. Cells are also looked at one by one (Holm over the claim's cells): a claim that its mean supports or
contradicts is undecided while some cell alone shows the opposite, and the report says what those cells differ in. That
the mean lies within the margin decides nothing while two cells alone differ from 0 with opposite signs, or one alone
varies, unless each alone lies within it (every one at alpha: intersection-union).
"""

import itertools
from collections.abc import Iterable
from typing import NamedTuple

import numpy as np
import pandas as pd
from scipy import stats

from grids import TUNING_FROM
from reports import effects as fx
from reports import looks
from reports import statistics as st
from reports.curves import with_curves
from reports.findings import Decision, Judged, reason
from reports.inside import with_layers
from reports.ledger import BOUNDED, Claim, ClaimsError, read, refuse_repeats
from reports.outcomes import Results
from reports.rates import fresh, open_fields, tuned
from reports.sides import Design, Evidence, evidence
from reports.words import counted
from results import Store
from results.store import FINISHED

__all__ = [
    "COLUMNS",
    "METHOD",
    "VERDICTS",
    "Claim",
    "ClaimsError",
    "at_every_value",
    "judge",
    "judged",
    "read",
]

VERDICTS = {
    "supported": "the data show what is stated, and no cell alone shows the opposite",
    "contradicted": "the data show the opposite, or that what is stated to be clear is smaller than its margin",
    "undecided": "neither is shown, or it depends on the cell",
    "not covered": "the grid lacks a side or a value that the claim needs, or the store its measurement",
}
COLUMNS = (
    "id", "source", "statement", "verdict", "reason", "metric", "expected", "margin", "estimate", "low", "high", "p",
    "p_holm", "p_against", "p_against_holm", "n", "cells",
)  # fmt: skip
P_VALUES = ("p", "p_holm", "p_against", "p_against_holm")
NUMBERS = ("margin", "estimate", "low", "high", *P_VALUES)
METHOD = (
    "Each claim compares two sides on cells that agree in everything else and on equal seeds; of a side with several "
    "values each is compared. Differences are averaged over the claim's cells within each seed; tests and 95 % "
    "intervals are over seeds, at least 5. A diverged run counts as its worst outcome, except in claims about spread, "
    "which use finished pairs. Supported: the test rejects in the stated direction, and beyond the margin where the "
    "claim has one; for a claim that a difference rises or falls, at every step; for a claim of no difference, "
    "one-sided tests, on all and on finished pairs, show that it is within the margin. Contradicted: the test rejects "
    "in the other direction, along a field at some step; the interval lies wholly beyond the margin; or what is "
    "stated to be clear lies within it. p values are adjusted by Holm over all covered claims, tests of a difference "
    "and tests of lying within a margin each as a family: in each, some false rejection has probability at most "
    "alpha. A claim that its mean supports or contradicts is undecided if some cell alone shows the opposite (Holm "
    "over the claim's cells), or if its mean lies within the margin while cells alone differ from 0 with opposite "
    "signs, or vary, and not each lies within it. Where a field is searched, a claim that names it is judged at all "
    "its values, on the tuning seeds unless fresh ones were trained at all of them, any other on fresh seeds at the "
    "value chosen for each arm. A verdict is about the data sets and recipes of this grid, not about those of the "
    "source."
)

Array = np.ndarray


class Adjusted(NamedTuple):
    """The p values of a claim after Holm, as Judged has them before."""

    difference: float
    nonzero: float
    within: float


def at_every_value(claims: Iterable[Claim], gathered: Results, store: Store) -> Results | None:
    """Results at all values of what is searched, with measures of curves; None if no claim names it, or some were dropped.

    They are of the seeds that more of the cells have: the tuning seeds where fresh ones were trained only where they were
    chosen, which nothing is selected for here.
    """
    halved = gathered.grid.seeds.halving  # after which only those are there that did best
    if halved or not any(claim.named & set(gathered.grid.searched) for claim in claims):
        return None
    runs = gathered.runs
    tunes, finished = runs["seed"] >= TUNING_FROM, runs["status"].isin(FINISHED)
    by_tuning = runs.loc[finished & tunes, "cell_id"].nunique() > runs.loc[finished & ~tunes, "cell_id"].nunique()
    others = runs.assign(status=runs["status"].mask(tunes != by_tuning, "missing"))  # lest they set a threshold
    of_seeds = tuned(gathered) if by_tuning else fresh(gathered)
    return measured(claims, with_curves(of_seeds._replace(runs=others), store)[0], store)


def measured(claims: Iterable[Claim], results: Results, store: Store) -> Results:
    """Results with what claims need of layers."""
    return with_layers(results, store, {claim.metric for claim in claims})


def judged(claims: Iterable[Claim], gathered: Results, results: Results, store: Store) -> pd.DataFrame:
    """What `judge` gives of a study. gathered: all its results; results: those compared, with measures of curves."""
    return judge(claims, measured(claims, results, store), at_every_value(claims, looks.first(gathered), store))


def judge(claims: Iterable[Claim], results: Results, everywhere: Results | None = None) -> pd.DataFrame:
    """A row for each claim, in the columns COLUMNS; numbers as the store has them. ClaimsError where an id repeats.

    everywhere: what `at_every_value` gives, for claims that name a field whose value was chosen in `results`.

    estimate, low, high: the mean and its 95 % interval; of varies, rises and falls that of the step between two values, NaN
    where there are more. p, p_holm: of the test that would support the claim, before and after Holm; p_against,
    p_against_holm: of the one that would contradict it, of two the one that is smaller after Holm. They are 1 where the
    outcome goes the other way, NaN where no test can.
    """
    claims = tuple(claims)
    refuse_repeats(claims, "all claims")
    alpha = results.grid.analysis.alpha
    arms = {order: arm for arm, order in results.grid.analysis.arms.items()}
    found = _evidence(claims, results, everywhere)
    judged = [None if isinstance(e, str) else _test(c, e, alpha) for c, e in zip(claims, found, strict=True)]
    difference, nonzero, within = (
        [getattr(j, f"p_{name}") if j else np.nan for j in judged] for name in Adjusted._fields
    )
    adjusted = list(map(Adjusted, _holm(difference), _holm_with(difference, nonzero), _holm(within)))
    families = [int(np.isfinite(family).sum()) for family in (difference, within)]
    rows = []
    for claim, data, numbers, p in zip(claims, found, judged, adjusted, strict=True):
        row = {"id": claim.id, "source": claim.source, "statement": claim.statement, "metric": claim.metric}
        row |= {"expected": claim.expected, "margin": claim.margin}
        if numbers is None:
            row |= {"verdict": "not covered", "reason": f"{data[:1].upper()}{data[1:]}.", "n": 0, "cells": 0}
        else:
            decision = _decide(claim, numbers, p, families, alpha)
            row |= {"verdict": decision.verdict, "reason": reason(claim, data, numbers, decision, arms)}
            row |= {name: getattr(numbers, name) for name in ("estimate", "low", "high", "n", "cells")}
            row |= zip(P_VALUES, _of_support(claim, numbers, p), strict=True)
        rows.append(row)
    frame = pd.DataFrame(rows, columns=list(COLUMNS))
    return frame.astype(dict.fromkeys(NUMBERS, float) | dict.fromkeys(("n", "cells"), int))


def _evidence(claims: Iterable[Claim], results: Results, everywhere: Results | None) -> list[Evidence | str]:
    """Of each claim; from `everywhere` if it names a field whose value was chosen in `results`."""
    chosen = set(results.grid.searched) - set(open_fields(results))
    places = [(each, Design.of(each)) if each else None for each in (results, everywhere)]
    found = []
    for claim in claims:
        named = sorted(claim.named & chosen)
        at = places[bool(named)]
        dropped = ", of which halving drops some" if results.grid.seeds.halving else ""
        found.append(evidence(claim, *at) if at else f"needs results at every {' and '.join(named)}{dropped}")
    return found


# The tests of one claim


def _test(claim: Claim, data: Evidence, alpha: float) -> Judged:
    pairs = np.isfinite(data.d).sum(0)  # (R, L)
    used = (pairs >= st.FEWEST_PAIRS).all(1)
    kept = data._replace(d=data.d[:, used], finished=data.finished[:, used], floor=data.floor[used])
    test = {"varies": _levels_that_vary, "rises": _steps, "falls": _steps}.get(claim.expected, _mean_over_cells)
    numbers = test(claim, kept, alpha)
    n, cells = int(np.isfinite(kept.d).all((1, 2)).sum()), kept.d[0].size
    doubt = ""
    if not cells:
        n, doubt = 0, f"no cell has {st.FEWEST_PAIRS} pairs yet; the most is {pairs.min(1).max()}"
    elif n < st.FEWEST_PAIRS:
        doubt = f"only {counted(n, 'seed is', 'seeds are')} complete over {counted(cells, 'cell')}"
    if doubt:
        of = ("p_difference", "p_nonzero", "p_within")
        numbers |= {name: 1.0 if np.isfinite(numbers[name]) else np.nan for name in of}
    singly = {}
    for name in ("supporting", "opposing", "clear", "inside", "above", "below"):
        singly[name] = np.zeros(len(used), bool)
        singly[name][used] = numbers.pop(name, False)
    return Judged(n=n, cells=cells, used=used, doubt=doubt, **{"parts": (), "averaged": False, **numbers}, **singly)


def _mean_over_cells(claim: Claim, data: Evidence, alpha: float) -> dict[str, object]:
    """Of a claim about a mean: its numbers, and what cells show alone."""
    d, finished, floor = (each[..., 0] for each in (data.d, data.finished, data.floor))
    low, high = _bounds(claim)
    mean, one, one_finished = _pool(d, floor), st.moments(d, floor), st.moments(finished, floor)
    within = np.maximum(_within(mean, low, high), _within(_pool(finished, floor), low, high))
    inside = np.maximum(_within(one, low, high), _within(one_finished, low, high))
    bottom, top = st.t_interval(one, 1 - alpha / max(len(one.n), 1))
    alone = st.holm(st.t_test(one)) <= alpha
    above, below = alone & (one.mean > 0), alone & (one.mean < 0)
    ends = st.t_interval(mean)
    numbers = {
        "estimate": mean.mean[0],
        "low": ends[0][0],
        "high": ends[1][0],
        "p_within": within[0] if claim.margin else np.nan,
        "averaged": above.any() and below.any() and (inside > alpha).any(),
        "above": above,
        "below": below,
    }
    if claim.expected in BOUNDED:
        numbers |= {"p_difference": _beyond(mean, low, high)[0], "p_nonzero": np.nan, "direction": -1.0}
        return numbers | {"supporting": st.holm(inside) <= alpha, "opposing": (bottom > high) | (top < low)}
    stated = -1 if claim.expected in ("less", "less_spread") else 1
    numbers["direction"] = np.sign(np.nan_to_num(mean.mean[0])) * stated
    numbers["p_nonzero"] = numbers["p_difference"] = st.t_test(mean)[0]
    if claim.margin and numbers["direction"] > 0:
        numbers["p_difference"] = _beyond(mean, *((-np.inf, high) if stated > 0 else (low, np.inf)))[0]
    supporting, opposing, clear = (above, below, bottom > high) if stated > 0 else (below, above, top < low)
    return numbers | {"supporting": supporting, "opposing": opposing, "clear": clear}


def _steps(claim: Claim, data: Evidence, alpha: float) -> dict[str, object]:
    """Of a claim that a difference rises or falls along a field: its numbers, each step with its interval, rows alone."""
    stated = 1 if claim.expected == "rises" else -1
    steps = np.diff(data.d, axis=2)  # (n, R, L − 1)
    steps = np.where(np.isfinite(data.d).all(2, keepdims=True), steps, np.nan)
    floor = np.hypot(data.floor[:, :-1], data.floor[:, 1:])
    m = st.moments(_seed_means(steps), _pooled(floor))
    parts = tuple(zip(itertools.pairwise(data.levels), m.mean, *st.t_interval(m), strict=True))
    (p,), (direction,) = _all_or_some(m, stated, len(m.n))
    alone, each = _all_or_some(st.moments(steps.reshape(len(steps), -1), floor.ravel()), stated, len(m.n))
    alone = st.holm(alone) <= alpha
    numbers = dict(zip(("estimate", "low", "high"), parts[0][1:] if len(parts) == 1 else [np.nan] * 3, strict=True))
    return numbers | {
        "p_difference": p,
        "p_nonzero": p,
        "p_within": np.nan,
        "direction": direction,
        "parts": parts,
        "supporting": alone & (each > 0),
        "opposing": alone & (each < 0),
    }


def _all_or_some(m: st.Moments, stated: int, count: int) -> tuple[Array, Array]:
    """Of each row of `count` steps p and direction: 1 where all go the stated way, else −1. m: of K = R·count -> (R,), (R,)

    That all do is an intersection-union test, whose p is the largest (Berger 1982); that some goes the other way has the
    smallest of such, times count (Bonferroni; Dunn 1961). A step of 0 goes neither way.
    """
    p, way = (each.reshape(-1, count) for each in (st.t_test(m), np.sign(np.nan_to_num(m.mean)) * stated))
    some = np.minimum(1, count * np.where(way < 0, p, 1.0).min(1))
    forth = (way > 0).all(1)
    return np.where(forth, p.max(1), some), np.where(forth, 1.0, -1.0)


def _levels_that_vary(claim: Claim, data: Evidence, alpha: float) -> dict[str, object]:
    """Of a claim that L values of a field differ: its numbers, each value's mean with its interval, what rows show alone."""
    means = _seed_means(data.d)  # (n, L)
    complete = np.isfinite(means).all(1)
    means = np.where(complete[:, None], means, np.nan)
    of_each = st.moments(means, _pooled(data.floor))
    i, j = np.tril_indices(len(data.levels), -1)  # Q pairs of values
    d, finished = (each[..., i] - each[..., j] for each in (data.d, data.finished))  # (n, R, Q)
    floor = np.hypot(data.floor[:, i], data.floor[:, j])
    low, high = _bounds(claim)
    between = st.moments(means[:, i] - means[:, j], _pooled(floor))
    within = np.maximum(*(_within(m, low, high) for m in (between, st.moments(_seed_means(finished), _pooled(floor)))))
    one, one_finished = (st.moments(each.reshape(len(each), -1), floor.ravel()) for each in (d, finished))
    rows = floor.shape
    inside = np.maximum(_within(one, low, high), _within(one_finished, low, high)).reshape(rows).max(1)
    varying = st.holm(np.minimum(1, len(i) * st.t_test(one).reshape(rows).min(1))) <= alpha  # Bonferroni over pairs
    beyond = np.minimum(1, len(i) * _beyond(between, low, high).min())
    numbers = {
        "estimate": np.nan,
        "low": np.nan,
        "high": np.nan,
        "p_within": within.max() if claim.margin else np.nan,  # every two of them are (Berger 1982, intersection-union)
        "direction": 1.0,
        "parts": tuple(zip(data.levels, of_each.mean, *st.t_interval(of_each), strict=True)),
        "supporting": varying,
        "averaged": varying.any() and (inside > alpha).any(),
        "inside": (st.holm(inside) <= alpha) & (claim.margin is not None),
    }
    if len(data.levels) == 2:
        ends = st.t_interval(between)
        numbers |= {"estimate": between.mean[0], "low": ends[0][0], "high": ends[1][0]}
        p = st.t_test(between)[0]
        return numbers | {"p_nonzero": p, "p_difference": beyond if claim.margin else p}
    deviations = means[complete] - means[complete].mean(1, keepdims=True)
    p = fx.joint_sign_flip(deviations, [0], _pooled(data.floor).max())[0]
    return numbers | {"p_nonzero": p, "p_difference": max(p, beyond) if claim.margin else p}


def _bounds(claim: Claim) -> tuple[float, float]:
    """Between which a difference counts as none."""
    margin = np.inf if claim.margin is None else claim.margin
    return (-np.inf if claim.expected == "not_greater" else -margin), margin


def _seed_means(d: Array) -> Array:
    """Mean over cells within each seed, NaN where one is missing. (n, R, ...) -> (n, ...)"""
    return d.mean(1) if d.shape[1] else np.full((len(d), *d.shape[2:]), np.nan)


def _pooled(floor: Array) -> Array:
    """The least sd of a mean over cells that are rounded apart. (R, ...) -> (...)"""
    return np.sqrt((floor**2).sum(0)) / max(len(floor), 1)


def _pool(d: Array, floor: Array) -> st.Moments:
    """Moments of the mean over cells within each seed. (n, R), (R,) -> of K = 1"""
    return st.moments(_seed_means(d)[:, None], _pooled(floor))


def _within(m: st.Moments, low: float, high: float) -> Array:
    """p of one-sided t tests (Schuirmann 1987): that the mean is not between low and high. 1 where n < 2. (K,)"""
    with np.errstate(invalid="ignore"):
        above, below = (m.mean - low) / m.error, (m.mean - high) / m.error
        p = np.maximum(stats.t.sf(above, m.freedom), stats.t.cdf(below, m.freedom))
    return np.where((m.n >= 2) & np.isfinite(p), p, 1.0)


def _beyond(m: st.Moments, low: float, high: float) -> Array:
    """p that the mean is between low and high: at most 0.05 where its 95 % interval is wholly outside. (K,)"""
    with np.errstate(invalid="ignore"):
        p = np.minimum(1, 2 * stats.t.sf(np.maximum(low - m.mean, m.mean - high) / m.error, m.freedom))
    return np.where((m.n >= 2) & np.isfinite(p), p, 1.0)


def _holm(p: list[float]) -> Array:
    """Holm over those that are numbers."""
    p = np.array(p, float)
    there = np.isfinite(p)
    p[there] = st.holm(p[there])
    return p


def _holm_with(p: list[float], others: list[float]) -> Array:
    """Holm over p, each time with one of `others` in the place of one p; NaN where there is none. (K,), (K,) -> (K,)

    A mean beyond the margin is also one that is not 0, so that to tell this where the former is not shown adds no error.
    """
    return np.array([_holm([*p[:k], other, *p[k + 1 :]])[k] for k, other in enumerate(others)])


def _decide(claim: Claim, j: Judged, p: Adjusted, families: list[int], alpha: float) -> Decision:
    """The verdict. families: of how many claims are the tests of a difference, and those of lying within."""
    differs, nonzero, within = (each <= alpha and not j.doubt for each in p)
    if claim.expected in BOUNDED:
        supported = within and not j.averaged and not j.opposing.any()
        contradicted = differs and not j.supporting.any()
    else:
        supported = differs and j.direction > 0 and not j.opposing.any()
        contradicted = differs and j.direction < 0 and not j.supporting.any()
        contradicted |= within and not j.averaged and not j.clear.any()
    verdict = "supported" if supported else "contradicted" if contradicted else "undecided"
    by_within = not differs and (within or claim.expected in BOUNDED)
    told = p.within if by_within else p.difference if differs or np.isnan(p.nonzero) else p.nonzero
    return Decision(verdict, differs, nonzero, within, told, families[by_within])


def _of_support(claim: Claim, j: Judged, p: Adjusted) -> tuple[float, float, float, float]:
    """p, p_holm, p_against, p_against_holm: 1 where the outcome goes the other way, NaN where no test can."""
    within, difference = (j.p_within, p.within), (j.p_difference, p.difference)
    if claim.expected in BOUNDED:
        return *within, *difference
    if claim.expected == "varies":
        return *difference, *within
    if j.direction > 0:
        return *difference, *(within if claim.margin else (1.0, 1.0))
    return 1.0, 1.0, *(min(within, difference, key=lambda each: each[1]) if claim.margin else difference)
