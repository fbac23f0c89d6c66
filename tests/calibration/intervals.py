"""Whether intervals cover what they are for: simulations (rng, n, draws) -> {version: bool (draws,)}."""

import math
from collections.abc import Callable

import numpy as np
from calibration.promises import DRAW, MEAN, RIGHT, Z, about, arms, around, covers, promise, with_n
from scipy import special, stats

from reports import statistics as st


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
        wald = around(share, Z * np.sqrt(share * (1 - share) / n))
        wrong = {"ties lost": ties_lost} if tied else {"Wald": wald}
        return {version: covers(each, truth) for version, each in {RIGHT: interval, **wrong}.items()}

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


INTERVALS = [
    promise(
        "95 % t interval covers the mean", 0.95, t_interval_covers("normal"), draws=(20_000, 40_000, 150_000, 150_000)
    ),
    promise(
        "95 % t interval covers the mean, skewness 0.8",
        about(0.94, 0.942, 0.946, 0.947),
        t_interval_covers("skewness 0.8"),
    ),
    promise(
        "95 % t interval covers the mean, skewness 1.75",
        about(0.914, 0.921, 0.93, 0.941),
        t_interval_covers("skewness 1.75"),
    ),
    promise(
        "95 % t interval covers the mean, heavy tails",
        about(0.963, 0.96, 0.957, 0.954),
        t_interval_covers("heavy tails"),
    ),
    promise("Wilson interval covers P(better)", wilson_coverage, improvement_covers(tied=0)),
    promise(
        "Wilson interval covers P(better), a fifth of the pairs tied",
        about(0.981, 0.98, 0.979, 0.978),
        improvement_covers(tied=0.2),
    ),
    promise(
        "Wilson upper bound of a failure rate holds",
        lambda n: wilson_coverage(n, most=MOST_FAILURES, upper_only=True),
        failure_bound_holds,
    ),
    promise("80 % upper limit of the sd holds", 0.8, upper_sd_holds("normal")),
    promise(
        "80 % upper limit of the sd holds, skewness 1.75",
        about(0.658, 0.629, 0.622, 0.625),
        upper_sd_holds("skewness 1.75"),
    ),
    promise(
        "80 % upper limit of the sd holds, heavy tails",
        about(0.566, 0.502, 0.463, 0.437),
        upper_sd_holds("heavy tails"),
    ),
    promise("1.96 standard errors of the test set cover", (0.94, 0.95), noise_of_test_set_covers, draws=2500),
]
