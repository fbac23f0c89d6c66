"""What a family of comparisons promises, simulated through reports.verdicts: (rng, n, families).

K comparisons of a family lie side by side along axis 1. The share is of families in which something false is said.
"""

from collections.abc import Callable, Iterator
from types import SimpleNamespace

import numpy as np
import pandas as pd
from calibration.promises import ALPHA, DRAW, MARGIN, RIGHT, Array, about, arms, covers, promise, with_n
from scipy import stats

from reports import statistics as st
from reports.measures import measure
from reports.outcomes import Paired
from reports.verdicts import Tests

K = 54
CLASSES, EXAMPLES = 10, 500
INDEPENDENT = 1 - (1 - ALPHA / K) ** K  # what Holm and Bonferroni give where comparisons are independent
OF_HALF = 1 - (1 - ALPHA / (K / 2)) ** (K / 2)  # the same where Holm has rejected the other half
SAYS_DIFFERENT, SAYS_EQUIVALENT = ("different", "negligible"), ("equivalent", "negligible")


def paired(a: Array, b: Array, diverged: tuple[Array, Array] | None = None, metric: str = "test_loss") -> Paired:
    """Outcomes (n, K) of two arms as the report pairs them. diverged: of each arm, bool (n, K)."""
    places = np.arange(2 * a.size).reshape(2, *a.shape)
    lost = np.zeros((2, *a.shape), bool) if diverged is None else np.array(diverged)
    facts = {"classes": CLASSES, "epochs": 20, **dict.fromkeys(("train_examples", "val_examples"), 1000)}
    runs = pd.DataFrame({"status": np.where(lost, "diverged", "done").ravel(), metric: np.array([a, b]).ravel()})
    return Paired(runs.assign(**facts, test_examples=EXAMPLES), measure(metric), tuple(places))


def families(pair: Paired, count: int = K, margin: float = MARGIN) -> Iterator[Tests]:
    """The tests of families of `count` comparisons that lie side by side."""
    for start in range(0, pair.d.shape[1], count):
        of = slice(start, start + count)
        part = SimpleNamespace(
            d=pair.d[:, of], finished=pair.finished[:, of], floor=pair.floor[of],
            diverged=tuple(each[:, of] for each in pair.diverged), measure=pair.measure,
        )  # fmt: skip
        yield Tests(part, margin, ALPHA)


def any_of(p: Array, count: int, adjust: Callable = st.holm) -> Array:
    """In which families of K something of the first `count` is rejected. (families · K,) -> (families,)"""
    return np.array([(adjust(each)[:count] <= ALPHA).any() for each in p.reshape(-1, K)])


def unadjusted(p: Array) -> Array:
    return p


# By the verdicts


def truly_equal(rng, n, draws):
    """Whether a family of equal arms has a comparison that is called different."""
    d = 0.4 * rng.standard_normal((n, draws * K))
    a, b = arms(rng, d)
    tests = list(families(paired(a, b)))
    m = st.moments(d)
    held = {
        RIGHT: np.array([np.isin(test.verdicts, SAYS_DIFFERENT).any() for test in tests]),
        "p not adjusted": any_of(st.t_test(m), K, unadjusted),
        "arms unpaired": any_of(stats.ttest_ind(a, b).pvalue, K),
    }
    return {**held, "n for n − 1": any_of(st.t_test(with_n(m)), K)} if n < 20 else held


def at_the_margin(rng, n, draws):
    """Whether a family at the margin, half of it above 0 and half below, has a comparison that is called equivalent."""
    means = np.tile(np.repeat([-MARGIN, MARGIN], K // 2), draws)
    d = means + MARGIN * np.sqrt(n) / 12 * rng.standard_normal((n, draws * K))
    tests = families(paired(*arms(rng, d)))
    p = st.tost(st.moments(d), MARGIN)
    return {
        RIGHT: np.array([np.isin(test.verdicts, SAYS_EQUIVALENT).any() for test in tests]),
        "p not adjusted": any_of(p, K, unadjusted),
        "two-sided level": any_of(2 * p, K),
    }


def half_real(rng, n, draws):
    """Whether one of the equal arms is called different in a family whose other half is."""
    d = np.tile(np.repeat([0.0, 2.0], K // 2), draws) + 0.4 * rng.standard_normal((n, draws * K))
    tests = families(paired(*arms(rng, d)))
    p, equal = st.t_test(st.moments(d)), K // 2
    return {
        RIGHT: np.array([np.isin(test.verdicts[:equal], SAYS_DIFFERENT).any() for test in tests]),
        "Benjamini–Hochberg": any_of(p, equal, st.benjamini_hochberg),
    }


def either_error(rng, n, draws):
    """Whether anything false is said of a family of which half is equal and half at the margin."""
    equal = K // 2
    d = np.tile(np.repeat([0.0, MARGIN], equal), draws) + MARGIN * np.sqrt(n) / 12 * rng.standard_normal((n, draws * K))
    said = [test.verdicts for test in families(paired(*arms(rng, d)))]
    m = st.moments(d)
    differ, same = (p.reshape(-1, K) <= ALPHA for p in (st.t_test(m), st.tost(m, MARGIN)))
    false = [np.isin(v[:equal], SAYS_DIFFERENT).any() or np.isin(v[equal:], SAYS_EQUIVALENT).any() for v in said]
    return {RIGHT: np.array(false), "p not adjusted": differ[:, :equal].any(1) | same[:, equal:].any(1)}


def rare_failure(rng, n, draws):
    """Whether an arm that equals the other, but fails with probability 1/n, is called equivalent: where it did not fail."""
    lost = rng.random((n, draws)) < 1 / n
    a, b = 0.7 + 0.001 * rng.standard_normal((2, n, draws))
    pair = paired(a, b, (lost, np.zeros_like(lost)), "test_accuracy")
    said = [test.verdicts[0] for test in families(pair, count=1, margin=0.02)]
    finished = st.tost(st.moments(pair.finished, pair.floor), 0.02)
    return {RIGHT: np.isin(said, SAYS_EQUIVALENT), "failures left out": finished <= ALPHA}


# By their tests


def all_covered(rng, n, draws):
    """Whether the intervals of a family all cover their means."""
    m = st.moments(rng.standard_normal((n, draws * K)))
    quantile = stats.norm.ppf(1 - ALPHA / 2 / K)
    intervals = {
        RIGHT: st.t_interval(m, 1 - ALPHA / K),
        "each at 95 %": st.t_interval(m),
        "normal quantiles": (m.mean - quantile * m.error, m.mean + quantile * m.error),
    }
    return {version: covers(each, 0).reshape(-1, K).all(1) for version, each in intervals.items()}


def any_different(kind: str) -> Callable:
    """Whether Holm calls one of a family of differences with mean 0 different."""

    def simulate(rng, n, draws):
        p = st.t_test(st.moments(DRAW[kind](rng, (n, draws * K))))
        return {RIGHT: any_of(p, K), "p not adjusted": any_of(p, K, unadjusted)}

    return simulate


def any_equivalent(kind: str) -> Callable:
    """Whether Holm calls one of a family at the margin equivalent, half of it above 0 and half below."""

    def simulate(rng, n, draws):
        means = np.tile(np.repeat([-MARGIN, MARGIN], K // 2), draws)
        d = means + MARGIN * np.sqrt(n) / 12 * DRAW[kind](rng, (n, draws * K))
        p = st.tost(st.moments(d), MARGIN)
        return {RIGHT: any_of(p, K), "p not adjusted": any_of(p, K, unadjusted)}

    return simulate


def family(what, share, simulate, draws, **keywords):
    return promise(f"family of {K}: {what}", share, simulate, draws, comparisons=K, **keywords)


ERRORS = {
    "normal": INDEPENDENT,
    "skewness 0.8": about(0.075, 0.098, 0.103, 0.080, by=0.01),
    "skewness 1.75": about(0.174, 0.293, 0.283, 0.192, by=0.01),
    "heavy tails": about(0.026, 0.023, 0.021, 0.026, by=0.01),
}
MARGIN_ERRORS = {
    "normal": INDEPENDENT,
    "skewness 0.8": about(0.075, 0.089, 0.091, 0.073, by=0.01),
    "skewness 1.75": about(0.166, 0.232, 0.211, 0.139, by=0.01),
    "heavy tails": about(0.028, 0.024, 0.029, 0.028, by=0.01),
}
FAMILIES = [
    family("all intervals cover", 1 - INDEPENDENT, all_covered, 3000),
    family("an equal arm called different, by verdict", INDEPENDENT, truly_equal, 2500, sizes=(5, 20)),
    family(
        "an equal arm called different where half of them differ, by verdict", OF_HALF, half_real, 2000, sizes=(10,)
    ),
    family("an arm at the margin called equivalent, by verdict", INDEPENDENT, at_the_margin, 2500, sizes=(5, 20)),
    family("anything false said, by verdict", 1 - (1 - OF_HALF) ** 2, either_error, 2000, sizes=(10,)),
    *(family(f"an equal arm called different, {kind}", ERRORS[kind], any_different(kind), 1000) for kind in DRAW),
    *(
        family(f"an arm at the margin called equivalent, {kind}", MARGIN_ERRORS[kind], any_equivalent(kind), 1000)
        for kind in DRAW
    ),
    promise("arm that fails in 1 of n runs called equivalent", lambda n: (1 - 1 / n) ** n, rare_failure, draws=800),
]
