"""How often tests of one comparison err, or find what there is: simulations (rng, n, draws) -> {version: bool (draws,)}."""

import math
from collections.abc import Callable

import numpy as np
from calibration.promises import ALPHA, DRAW, MARGIN, RIGHT, Z, about, arms, promise
from scipy import stats

from reports import statistics as st


def t_test_errs(kind: str) -> Callable:
    def simulate(rng, n, draws):
        d = DRAW[kind](rng, (n, draws))
        m = st.moments(d)
        held = {RIGHT: st.t_test(m) <= ALPHA, "arms unpaired": stats.ttest_ind(*arms(rng, d)).pvalue <= ALPHA}
        if kind == "normal":
            held["normal quantiles"] = np.abs(m.mean) > Z * m.error
        return held

    return simulate


def flip_level(n: int) -> float:
    """The largest share of sign patterns that is at most ALPHA, or the least one; ALPHA where patterns are drawn."""
    patterns = 2 ** (n - 1)
    return ALPHA if n > st.EXACT_PAIRS else max(1, math.floor(ALPHA * patterns)) / patterns


def sign_flip_errs(kind: str) -> Callable:
    def simulate(rng, n, draws):
        p, level = st.sign_flip(DRAW[kind](rng, (n, draws))), flip_level(n)
        return {RIGHT: p <= level, "one-sided": p / 2 <= level}

    return simulate


def tost_errs(side: int, kind: str) -> Callable:
    """Of equivalences where the mean lies at a margin of 6 standard errors, above or below 0."""

    def simulate(rng, n, draws):
        sd = MARGIN * math.sqrt(n) / 6
        m = st.moments(side * MARGIN + sd * DRAW[kind](rng, (n, draws)))
        p = st.tost(m, MARGIN)
        held = {RIGHT: p <= ALPHA, "two-sided level": p <= ALPHA / 2}
        if kind == "normal":
            held["normal quantiles"] = MARGIN - np.abs(m.mean) >= stats.norm.isf(ALPHA) * m.error
        return held

    return simulate


POWER_ALPHA = ALPHA / 2


def power_setting(n: int) -> st.Moments:
    """The true mean and sd at which TOST finds equivalence in some 80 % of simulations."""
    return st.Moments(np.array([n]), np.zeros(1), np.array([0.15 * math.sqrt(n)]))


def tost_finds(rng, n, draws):
    """Of equivalences where the true difference is 0."""
    truth = power_setting(n)
    m = st.moments(truth.sd * rng.standard_normal((n, draws)))
    sd_known = MARGIN - np.abs(m.mean) >= stats.norm.isf(POWER_ALPHA) * truth.error
    return {RIGHT: st.tost(m, MARGIN) <= POWER_ALPHA, "sd taken as known": sd_known}


FAILURES = 0.3


def mcnemar_errs(rng, n, draws):
    a, b = rng.random((2, n, draws)) < FAILURES
    only_a, only_b = (a & ~b).sum(0), (b & ~a).sum(0)
    normal = np.abs(only_a - only_b) >= Z * np.sqrt(np.maximum(only_a + only_b, 1))
    return {RIGHT: st.mcnemar(a, b, np.ones_like(a)) <= ALPHA, "normal instead of exact": normal}


def size_of_mcnemar(n: int) -> float:
    """How often the exact test errs: the sum over every number of pairs that differ, by scipy's binomial test."""
    size = 0.0
    for differ in range(1, n + 1):
        tails = [k for k in range(differ + 1) if stats.binomtest(min(k, differ - k), differ).pvalue <= ALPHA]
        size += stats.binom.pmf(differ, n, 2 * FAILURES * (1 - FAILURES)) * stats.binom.pmf(tails, differ, 0.5).sum()
    return size


def spread_errs(kind: str) -> Callable:
    def simulate(rng, n, draws):
        a, b = DRAW[kind](rng, (2, n, draws))
        ratio, p = st.spread(a, b)
        of_variances = 2 * np.minimum(stats.f.cdf(ratio, n - 1, n - 1), stats.f.sf(ratio, n - 1, n - 1))
        wrong = {"one-sided": p / 2} if kind == "normal" else {"variances compared": of_variances}
        return {version: each <= ALPHA for version, each in {RIGHT: p, **wrong}.items()}

    return simulate


TESTS = [
    promise("t test errs", ALPHA, t_test_errs("normal"), draws=(20_000, 20_000, 40_000, 150_000)),
    promise("t test errs, heavy tails", about(0.038, 0.039, 0.042, 0.045), t_test_errs("heavy tails")),
    promise(
        "sign flip errs, heavy tails", flip_level, sign_flip_errs("heavy tails"), draws=(20_000, 20_000, 2000, 2000)
    ),
    promise(
        "sign flip errs, skewness 1.75",
        about(0.088, 0.077, 0.07, 0.061),
        sign_flip_errs("skewness 1.75"),
        draws=(20_000, 20_000, 2000, 2000),
    ),
    promise("TOST errs at the margin", ALPHA, tost_errs(1, "normal"), draws=(20_000, 20_000, 40_000, 150_000)),
    promise(
        "TOST errs at the margin, skewness 1.75, upper margin",
        about(0.123, 0.112, 0.096, 0.079),
        tost_errs(1, "skewness 1.75"),
    ),
    promise(
        "TOST errs at the margin, skewness 1.75, lower margin",
        about(0.015, 0.018, 0.023, 0.031),
        tost_errs(-1, "skewness 1.75"),
    ),
    promise("TOST errs at the margin, heavy tails", about(0.041, 0.045, 0.048, 0.049), tost_errs(1, "heavy tails")),
    promise(
        "TOST finds equivalence as often as its exact power",
        lambda n: float(st.tost_power(power_setting(n), MARGIN, POWER_ALPHA)[0]),
        tost_finds,
        draws=(20_000, 20_000, 40_000, 150_000),
    ),
    promise("McNemar's exact test errs, failure rate 0.3", size_of_mcnemar, mcnemar_errs),
    promise("test of spread errs", about(0.008, 0.036, 0.04, 0.045), spread_errs("normal")),
    promise("test of spread errs, heavy tails", about(0.008, 0.032, 0.037, 0.042), spread_errs("heavy tails")),
]
