"""Judge published claims on the data at hand: supported, contradicted, undecided, or not covered by this grid.

The outcome of a seed is first − second, averaged over the claim's cells (or, as the claim asks: the difference of two
ranges over a field, or of two absolute deviations from an arm's median; or its slope along a field of numbers). Seeds
are the unit: at least 5 of which every cell is complete. Cells with fewer than 5 pairs are left out, and counted.

greater, less, rises, falls, less_spread: two-sided t test of mean 0 (Student 1908).
equivalent, not_greater: one-sided t tests against the margin (Schuirmann 1987), on all and on finished pairs, the larger
    p; against it a two-sided test that the mean lies beyond the margin: its interval is wholly outside.
varies: t test of the difference where the field has two values; else sign flips of whole seeds (Fisher 1935), by the sum
    of t² of each value's deviation from their mean.
A margin of greater, less or varies says what is clear: equivalence within it contradicts the claim.

Tests of a difference and tests of lying within a margin are two families, adjusted by Holm (1979) over all claims that
the grid covers. Cells are also looked at one by one (Holm over the claim's cells): a claim that its mean supports or
contradicts is undecided while some cell alone shows the opposite, and the report says what those cells differ in.
"""

from collections.abc import Iterable

import numpy as np
import pandas as pd
from scipy import stats

from grids import TUNING_FROM
from reports import effects as fx
from reports import statistics as st
from reports.curves import with_curves
from reports.findings import Decision, Judged, reason
from reports.ledger import ALONG, BOUNDED, Claim, ClaimsError, read, refuse_repeats
from reports.outcomes import Results
from reports.rates import fresh, open_fields
from reports.sides import Design, Evidence, evidence
from reports.words import counted
from results import Store

__all__ = ["COLUMNS", "METHOD", "VERDICTS", "Claim", "ClaimsError", "at_every_value", "judge", "read"]

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
NUMBERS = ("margin", "estimate", "low", "high", "p", "p_holm", "p_against", "p_against_holm")
METHOD = (
    "Each claim compares two sides on cells that agree in everything else and on equal seeds. Differences are averaged "
    "over the claim's cells within each seed; tests and 95 % intervals are over seeds, at least 5. A diverged run counts "
    "as its worst outcome, except in claims about spread, which use finished pairs. Supported: the test rejects in the "
    "stated direction; for a claim of no difference, one-sided tests, on all and on finished pairs, show that it is within "
    "the margin. Contradicted: the test rejects in the other direction; the interval lies wholly beyond the margin; or "
    "what is stated to be clear lies within it. p values are adjusted by Holm over all covered claims, tests of a "
    "difference and tests of lying within a margin each as a family: in each, some false rejection has probability at "
    "most alpha. A claim that its mean supports or contradicts is undecided if some cell alone shows the opposite (Holm "
    "over the claim's cells). Where a field is searched, a claim that names it is judged at all its values, any other at "
    "the value chosen for each arm; tuning seeds count in neither. A verdict is about the data sets and recipes of this "
    "grid, not about those of the source."
)

Array = np.ndarray


def at_every_value(claims: Iterable[Claim], gathered: Results, store: Store) -> Results | None:
    """Results of the fresh seeds at all values of what is searched, with measures of curves; None if no claim names it."""
    if not any(claim.named & set(gathered.grid.searched) for claim in claims):
        return None
    runs = gathered.runs
    untuned = runs.assign(
        status=runs["status"].mask(runs["seed"] >= TUNING_FROM, "missing")
    )  # lest they set a threshold
    return with_curves(fresh(gathered)._replace(runs=untuned), store)[0]


def judge(claims: Iterable[Claim], results: Results, everywhere: Results | None = None) -> pd.DataFrame:
    """A row for each claim, in the columns COLUMNS; numbers as the store has them. ClaimsError where an id repeats.

    everywhere: what `at_every_value` gives, for claims that name a field whose value was chosen in `results`.

    p, p_holm: of the test that would support the claim; p_against: of another that would contradict it, NaN where the
    same test would.
    """
    claims = tuple(claims)
    refuse_repeats(claims, "all claims")
    alpha = results.grid.analysis.alpha
    arms = {order: arm for arm, order in results.grid.analysis.arms.items()}
    found = _evidence(claims, results, everywhere)
    judged = [None if isinstance(e, str) else _test(c, e, alpha) for c, e in zip(claims, found, strict=True)]
    difference = _holm([j.p_difference if j else np.nan for j in judged])
    within = _holm([j.p_within if j else np.nan for j in judged])
    rows = []
    for claim, data, numbers, *adjusted in zip(claims, found, judged, difference, within, strict=True):
        row = {"id": claim.id, "source": claim.source, "statement": claim.statement, "metric": claim.metric}
        row |= {"expected": claim.expected, "margin": claim.margin}
        if numbers is None:
            row |= {"verdict": "not covered", "reason": f"{data[:1].upper()}{data[1:]}.", "n": 0, "cells": 0}
        else:
            families = [int(np.isfinite(family).sum()) for family in (difference, within)]
            decision = _decide(claim, numbers, adjusted, families, alpha)
            forth, back = (1, 0) if claim.expected in BOUNDED else (0, 1)
            p = numbers.p_difference, numbers.p_within
            row |= {"verdict": decision.verdict, "reason": reason(claim, data, numbers, decision, arms)}
            row |= {name: getattr(numbers, name) for name in ("estimate", "low", "high", "n", "cells")}
            row |= {"p": p[forth], "p_holm": adjusted[forth], "p_against": p[back], "p_against_holm": adjusted[back]}
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
        found.append(evidence(claim, *at) if at else f"needs results at every {' and '.join(named)}")
    return found


# The tests of one claim


def _test(claim: Claim, data: Evidence, alpha: float) -> Judged:
    pairs = np.isfinite(data.d).sum(0)  # (R, L)
    used = (pairs >= st.FEWEST_PAIRS).all(1)
    kept = data._replace(d=data.d[:, used], finished=data.finished[:, used], floor=data.floor[used])
    numbers = _levels_that_vary(claim, kept) if claim.expected == "varies" else _mean_over_cells(claim, kept, alpha)
    n, cells = int(np.isfinite(kept.d).all((1, 2)).sum()), kept.d[0].size
    doubt = ""
    if not cells:
        n, doubt = 0, f"no cell has {st.FEWEST_PAIRS} pairs yet; the most is {pairs.min(1).max()}"
    elif n < st.FEWEST_PAIRS:
        doubt = f"only {counted(n, 'seed is', 'seeds are')} complete over {counted(cells, 'cell')}"
    if doubt:
        numbers |= {"p_difference": 1.0, "p_within": 1.0 if np.isfinite(numbers["p_within"]) else np.nan}
    singly = {}
    for name in ("supporting", "opposing", "clear"):
        singly[name] = np.zeros(len(used), bool)
        singly[name][used] = numbers.pop(name, False)
    return Judged(n=n, cells=cells, used=used, doubt=doubt, **{"parts": (), **numbers}, **singly)


def _mean_over_cells(claim: Claim, data: Evidence, alpha: float) -> dict[str, object]:
    """Of a claim about a mean: its numbers, and what rows show alone. A slope over levels is a mean with weights."""
    weights = np.ones(1)
    if claim.expected in ALONG:
        ranks = np.arange(len(data.levels)) - (len(data.levels) - 1) / 2
        weights = ranks / (ranks**2).sum()
    d, finished = data.d @ weights, data.finished @ weights  # (n, R)
    floor = np.sqrt(((data.floor * weights) ** 2).sum(1))
    stated = -1 if claim.expected in ("less", "falls", "less_spread") else 1
    low, high = _bounds(claim)
    mean, (one, one_finished) = _pool(d, floor), (st.moments(d, floor), st.moments(finished, floor))
    within = np.maximum(_within(mean, low, high), _within(_pool(finished, floor), low, high))
    ends = st.t_interval(mean)
    numbers = {
        "estimate": mean.mean[0],
        "low": ends[0][0],
        "high": ends[1][0],
        "p_within": within[0] if claim.margin else np.nan,
        "direction": np.sign(np.nan_to_num(mean.mean[0])) * stated,
    }
    bottom, top = st.t_interval(one, 1 - alpha / max(len(one.n), 1))
    if claim.expected in BOUNDED:
        inside = np.maximum(_within(one, low, high), _within(one_finished, low, high))
        numbers["p_difference"] = _beyond(mean, low, high)[0]
        return numbers | {"supporting": st.holm(inside) <= alpha, "opposing": (bottom > high) | (top < low)}
    alone = st.holm(st.t_test(one)) <= alpha
    numbers["p_difference"] = st.t_test(mean)[0]
    return numbers | {
        "supporting": alone & (one.mean * stated > 0),
        "opposing": alone & (one.mean * stated < 0),
        "clear": (bottom > high) if stated > 0 else (top < low),
    }


def _levels_that_vary(claim: Claim, data: Evidence) -> dict[str, object]:
    """Of a claim that L values of a field differ: its numbers, and each value's mean with its interval."""
    means, finished = _seed_means(data.d), _seed_means(data.finished)  # (n, L)
    means = np.where(np.isfinite(means).all(1, keepdims=True), means, np.nan)
    floor = np.sqrt((data.floor**2).sum(0)) / max(len(data.floor), 1)  # (L,)
    within, parts = [], []
    for i, value in enumerate(data.levels):
        mean = st.moments(means[:, [i]], floor[i])
        ends = st.t_interval(mean)
        parts.append((value, mean.mean[0], ends[0][0], ends[1][0]))
        for j in range(i):
            between, finished_too = (
                st.moments(each[:, [i]] - each[:, [j]], np.hypot(floor[i], floor[j])) for each in (means, finished)
            )
            within.append(max(_within(m, *_bounds(claim))[0] for m in (between, finished_too)))
    numbers = {"estimate": np.nan, "low": np.nan, "high": np.nan, "direction": 1.0, "parts": tuple(parts)}
    # Equal within the margin: every two of them are (Berger 1982, intersection-union).
    numbers["p_within"] = max(within) if claim.margin else np.nan
    if len(data.levels) == 2:
        ends = st.t_interval(between)
        numbers |= {"estimate": between.mean[0], "low": ends[0][0], "high": ends[1][0]}
        return numbers | {"p_difference": st.t_test(between)[0]}
    complete = means[np.isfinite(means).all(1)]
    deviations = complete - complete.mean(1, keepdims=True)
    return numbers | {"p_difference": fx.joint_sign_flip(deviations, [0], floor.max())[0]}


def _bounds(claim: Claim) -> tuple[float, float]:
    """Between which a difference counts as none."""
    margin = np.inf if claim.margin is None else claim.margin
    return (-np.inf if claim.expected == "not_greater" else -margin), margin


def _seed_means(d: Array) -> Array:
    """Mean over cells within each seed, NaN where one is missing. (n, R, ...) -> (n, ...)"""
    return d.mean(1) if d.shape[1] else np.full((len(d), *d.shape[2:]), np.nan)


def _pool(d: Array, floor: Array) -> st.Moments:
    """Moments of the mean over cells within each seed; the least sd is that of cells rounded apart. (n, R) -> of K = 1"""
    return st.moments(_seed_means(d)[:, None], np.sqrt((floor**2).sum()) / max(len(floor), 1))


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


def _decide(claim: Claim, j: Judged, adjusted: list[float], families: list[int], alpha: float) -> Decision:
    """The verdict. adjusted, families: p after Holm, and of how many claims, of the difference and of lying within."""
    differs, within = (p <= alpha and not j.doubt for p in adjusted)
    if claim.expected in BOUNDED:
        supports, contradicts, keeps = within, differs, j.supporting
    else:
        supports = differs and j.direction > 0 and not within
        contradicts = within or (differs and j.direction < 0)
        keeps = j.clear if within else j.supporting
    verdict = "undecided"
    if supports and not j.opposing.any():
        verdict = "supported"
    if contradicts and not keeps.any():
        verdict = "contradicted"
    by_within = within or (claim.expected in BOUNDED and not differs)
    return Decision(verdict, differs, within, adjusted[by_within], families[by_within])
