"""What the statistics of one comparison promise, simulated: in what share of simulations it holds, and for wrong versions.

A simulation draws many comparisons at once, n pairs along axis 0 and comparisons along axis 1, and says of each whether
the promise held: (rng, n, draws) -> {version: bool (draws,)}. RIGHT is the program's version; every other one has a
mistake that the same check must see.
"""

import functools
import math
import zlib
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from scipy import optimize, special, stats

from reports import statistics as st

Array = np.ndarray
RIGHT = "normorder"
SIZES = (5, 10, 20, 50)
ALPHA, MARGIN, MEAN = 0.05, 0.5, 0.3
AT_ONCE = 400_000  # numbers drawn at once: they stay in the cache
Z = stats.norm.ppf(0.975)


class Promise(NamedTuple):
    """share, by n: of the simulations in which `simulate` says yes. Equal ends: known. Else from measurement, or a bound."""

    what: str
    share: dict[int, tuple[float, float]]
    simulate: Callable[[np.random.Generator, int, int], dict[str, Array]]
    draws: dict[int, int]
    comparisons: int = 1  # a draw


def promise(what, share, simulate, draws=20_000, sizes=SIZES, comparisons=1) -> Promise:
    """share: a number, a pair, or a function or dictionary of n that gives one; draws: a number, or one for each size."""
    shares = {n: share(n) if callable(share) else share[n] if isinstance(share, dict) else share for n in sizes}
    ends = {n: each if isinstance(each, tuple) else (each, each) for n, each in shares.items()}
    counts = dict(zip(sizes, draws, strict=True)) if isinstance(draws, tuple) else dict.fromkeys(sizes, draws)
    return Promise(what, ends, simulate, counts, comparisons)


@functools.cache
def _measured(what: str, simulate: Callable, n: int, draws: int, comparisons: int) -> dict[str, float]:
    rng = np.random.default_rng([zlib.crc32(what.encode()), n])
    hits: dict[str, int] = {}
    chunk = max(1, AT_ONCE // (n * comparisons))
    for start in range(0, draws, chunk):
        for version, held in simulate(rng, n, min(chunk, draws - start)).items():
            hits[version] = hits.get(version, 0) + int(held.sum())
    return {version: count / draws for version, count in hits.items()}


def measured(of: Promise, n: int, times: int = 1) -> dict[str, float]:
    """The share of each version in `times` as many simulations as the tests have."""
    return _measured(of.what, of.simulate, n, of.draws[n] * times, of.comparisons)


def standard_error(share: float, draws: int) -> float:
    return math.sqrt(share * (1 - share) / draws)


def band(of: Promise, n: int) -> tuple[float, float]:
    """The promised share, or range of shares, widened by 4 standard errors of the simulation."""
    low, high = of.share[n]
    return low - 4 * standard_error(low, of.draws[n]), high + 4 * standard_error(high, of.draws[n])


# Differences with mean 0 and sd 1


def log_normal(skewness: float) -> Callable:
    """Draws of a log-normal distribution of this skewness, (w + 2)·√(w − 1) with w = exp σ²."""
    w = optimize.brentq(lambda w: (w + 2) * math.sqrt(w - 1) - skewness, 1, 10)
    sigma = math.sqrt(math.log(w))

    def draw(rng, shape):
        return (np.exp(sigma * rng.standard_normal(shape)) - math.sqrt(w)) / math.sqrt(w * (w - 1))

    return draw


DRAW = {
    "normal": lambda rng, shape: rng.standard_normal(shape),
    "skewness 0.8": log_normal(0.8),
    "skewness 1.75": log_normal(1.75),
    "heavy tails": lambda rng, shape: rng.standard_t(3, shape) / math.sqrt(3),
}


def arms(rng, d: Array) -> tuple[Array, Array]:
    """Outcomes with these differences: what a seed does to both arms is larger than what tells them apart."""
    shared = rng.normal(0, 2, d.shape)
    return shared + d, shared


def with_n(m: st.Moments) -> st.Moments:
    """n in place of n − 1 in the sd."""
    return m._replace(sd=m.sd * np.sqrt((m.n - 1) / m.n))


def covers(interval: tuple[Array, Array], truth) -> Array:
    return (interval[0] <= truth) & (truth <= interval[1])


def around(centre: Array, half: Array) -> tuple[Array, Array]:
    return centre - half, centre + half


# Intervals


def t_interval_covers(kind: str) -> Callable:
    def simulate(rng, n, draws):
        d = MEAN + DRAW[kind](rng, (n, draws))
        a, b = arms(rng, d)
        m = st.moments(d)
        of_arms = np.sqrt((a.var(0, ddof=1) + b.var(0, ddof=1)) / n)
        held = {
            RIGHT: covers(st.t_interval(m), MEAN),
            "arms unpaired": covers(around(m.mean, stats.t.ppf(0.975, 2 * n - 2) * of_arms), MEAN),
        }
        if kind == "normal":  # elsewhere the error of the assumption hides it
            held["normal quantiles"] = covers(around(m.mean, Z * m.error), MEAN)
            if n < 50:  # where it takes a million simulations to see
                held["n for n − 1"] = covers(st.t_interval(with_n(m)), MEAN)
        return held

    return simulate


def improvement_covers(tied: float) -> Callable:
    """Of intervals for P(first arm better), itself uniform, where a share of the pairs is tied."""

    def simulate(rng, n, draws):
        better = rng.random(draws)
        d = np.where(rng.random((n, draws)) < better, 1.0, -1.0)
        d[rng.random(d.shape) < tied] = 0
        truth = (1 - tied) * better + tied / 2
        share, *interval = st.improvement(d, larger_is_better=True)
        _, *ties_lost = st.improvement(np.where(d == 0, -1.0, d), larger_is_better=True)
        held = {
            RIGHT: covers(interval, truth),
            "Wald": covers(around(share, Z * np.sqrt(share * (1 - share) / n)), truth),
        }
        return {**held, "ties lost": covers(ties_lost, truth)} if tied else held

    return simulate


def wilson_coverage(n: int, most: float = 1.0, upper_only: bool = False) -> float:
    """Of Wilson's interval by scipy, exactly: the mean over proportions uniform on (0, most)."""
    k = np.arange(n + 1)
    intervals = [stats.binomtest(int(each), n).proportion_ci(method="wilson") for each in k]
    low, high = np.clip(np.array(intervals).T, 0, most)
    below = special.betainc(k + 1, n - k + 1, 0 * low if upper_only else low)
    return float((special.betainc(k + 1, n - k + 1, high) - below).sum() / (n + 1) / most)


MOST_FAILURES = 0.5


def failure_bound_holds(rng, n, draws):
    """Of upper bounds for a failure rate, itself uniform below MOST_FAILURES."""
    rate = rng.uniform(0, MOST_FAILURES, draws)
    failures = rng.binomial(n, rate)
    bound = np.array([st.failure_rate_bound(k, n) for k in range(n + 1)])[failures]
    seen = failures / n
    return {RIGHT: bound >= rate, "Wald": seen + Z * np.sqrt(seen * (1 - seen) / n) >= rate}


def upper_sd_holds(kind: str) -> Callable:
    def simulate(rng, n, draws):
        m = st.moments(DRAW[kind](rng, (n, draws)))
        return {
            RIGHT: st.upper_sd(m) >= 1,
            "no limit": m.sd >= 1,
            **({"n for n − 1": st.upper_sd(with_n(m)) >= 1} if kind == "normal" else {}),
        }

    return simulate


EXAMPLES = 800


def noise_of_test_set_covers(rng, n, draws):
    """Whether the difference on all examples lies within 1.96 standard errors of that on these, each with n seeds an arm."""
    held = {RIGHT: [], "noise of seeds left in": [], "examples unpaired": []}
    for _ in range(draws):
        logit = rng.normal(0.5, 1.5, EXAMPLES) + rng.normal(0, 0.8, (2, EXAMPLES))  # examples are hard for both arms
        p = special.expit(logit)
        correct = rng.binomial(n, p)
        difference = abs(np.diff(p.mean(1))[0])  # of infinitely many seeds; over all examples it is 0
        seen = correct / n
        errors = (
            st.test_set_error(correct[0], n, correct[1], n),
            math.sqrt(np.var(seen[0] - seen[1], ddof=1) / EXAMPLES),
            math.sqrt(seen.var(1, ddof=1).sum() / EXAMPLES),
        )
        for hits, error in zip(held.values(), errors, strict=True):
            hits.append(difference <= Z * error)
    return {version: np.array(hits) for version, hits in held.items()}


# Tests where nothing is to be found


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
    return ALPHA if patterns > st.EXACT_FLIPS else max(1, math.floor(ALPHA * patterns)) / patterns


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


UNKNOWN = (0.0, 1.0)
INTERVALS = [
    promise(
        "95 % t interval covers the mean", 0.95, t_interval_covers("normal"), draws=(20_000, 40_000, 150_000, 150_000)
    ),
    promise("95 % t interval covers the mean, skewness 0.8", UNKNOWN, t_interval_covers("skewness 0.8")),
    promise("95 % t interval covers the mean, skewness 1.75", UNKNOWN, t_interval_covers("skewness 1.75")),
    promise("95 % t interval covers the mean, heavy tails", UNKNOWN, t_interval_covers("heavy tails")),
    promise("Wilson interval covers P(better)", wilson_coverage, improvement_covers(tied=0)),
    promise("Wilson interval covers P(better), a fifth of the pairs tied", UNKNOWN, improvement_covers(tied=0.2)),
    promise(
        "Wilson upper bound of a failure rate holds",
        lambda n: wilson_coverage(n, most=MOST_FAILURES, upper_only=True),
        failure_bound_holds,
    ),
    promise("80 % upper limit of the sd holds", 0.8, upper_sd_holds("normal")),
    promise("80 % upper limit of the sd holds, skewness 1.75", UNKNOWN, upper_sd_holds("skewness 1.75")),
    promise("80 % upper limit of the sd holds, heavy tails", UNKNOWN, upper_sd_holds("heavy tails")),
    promise("1.96 standard errors of the test set cover", (0.94, 0.95), noise_of_test_set_covers, draws=2500),
]
TESTS = [
    promise("t test errs", ALPHA, t_test_errs("normal"), draws=(20_000, 20_000, 40_000, 150_000)),
    promise("t test errs, heavy tails", UNKNOWN, t_test_errs("heavy tails")),
    promise(
        "sign flip errs, heavy tails", flip_level, sign_flip_errs("heavy tails"), draws=(20_000, 20_000, 2000, 2000)
    ),
    promise(
        "sign flip errs, skewness 1.75", UNKNOWN, sign_flip_errs("skewness 1.75"), draws=(20_000, 20_000, 2000, 2000)
    ),
    promise("TOST errs at the margin", ALPHA, tost_errs(1, "normal"), draws=(20_000, 20_000, 40_000, 150_000)),
    promise("TOST errs at the margin, skewness 1.75, upper margin", UNKNOWN, tost_errs(1, "skewness 1.75")),
    promise("TOST errs at the margin, skewness 1.75, lower margin", UNKNOWN, tost_errs(-1, "skewness 1.75")),
    promise("TOST errs at the margin, heavy tails", UNKNOWN, tost_errs(1, "heavy tails")),
    promise(
        "TOST finds equivalence as often as its exact power",
        lambda n: float(st.tost_power(power_setting(n), MARGIN, POWER_ALPHA)[0]),
        tost_finds,
        draws=(20_000, 20_000, 40_000, 150_000),
    ),
    promise("McNemar's exact test errs, failure rate 0.3", size_of_mcnemar, mcnemar_errs),
    promise("test of spread errs", UNKNOWN, spread_errs("normal")),
    promise("test of spread errs, heavy tails", UNKNOWN, spread_errs("heavy tails")),
]
