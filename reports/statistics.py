"""Paired statistics: arrays in, numbers out. Pairs lie along axis 0, comparisons along axis 1, NaN is a missing pair.

No loop runs over comparisons. Shapes: (n, K) for n pairs (the seeds) and K comparisons (the cells of one family),
(K,) for what is known of each comparison. d is the difference of a pair, first arm minus second.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from scipy import optimize, special, stats
from statsmodels.stats.multitest import fdrcorrection
from statsmodels.stats.proportion import proportion_confint

LEVEL = 0.95  # of the intervals of single comparisons
EXACT_PAIRS = 24  # up to which the sign-flip test counts all patterns, in 0.2 ms a comparison, which the draws take too
EXACT_FLIPS = 100_000  # sign patterns that are drawn for more pairs; up to which tests over several contrasts count all
FLIP_SEED = 20_150_211
MOST_PAIRS = 10**7  # where the search for seeds_needed ends
FEWEST_PAIRS = 5  # for a verdict
SKEWED, FEWEST_FOR_SKEW = 1.0, 10
POWER_NODES = 2000
CERTAIN = 9.0  # standard deviations beyond which 2Φ − 1 is 1 in double precision
BLOCK = 250, 512  # sign patterns × comparisons, 1 MB of sums: they stay in a core's cache, and a byte counts to 250
COLUMNS = 128  # comparisons at once where each needs thousands of numbers

Array = np.ndarray


class Moments(NamedTuple):
    """n: pairs, int (K,). mean, sd: of the differences, (K,); NaN where n < 1 and n < 2."""

    n: Array
    mean: Array
    sd: Array

    @property
    def error(self) -> Array:
        """Standard error of the mean; infinite where n < 2."""
        with np.errstate(invalid="ignore", divide="ignore"):
            return np.where(self.n < 2, np.inf, self.sd / np.sqrt(np.maximum(self.n, 1)))

    @property
    def freedom(self) -> Array:
        """Degrees of freedom, at least 1 so that quantiles exist; `error` says where they mean nothing."""
        return np.maximum(self.n - 1, 1)


def score(values: Array, diverged: Array, worst: Array) -> Array:
    """Outcomes with diverged runs at their worst: values (n, K), diverged bool (n, K), worst (K,) -> (n, K)"""
    return np.where(diverged, worst, values)


def moments(d: Array, floor: Array | float = 0.0) -> Moments:
    """Count, mean and sd (n − 1 in the denominator) of d (n, K), the sd at least `floor` (K,)."""
    there = np.isfinite(d)
    n = there.sum(0)
    filled = np.where(there, d, 0.0)
    mean = np.divide(filled.sum(0), n, out=np.full(n.shape, np.nan), where=n > 0)
    squares = np.where(there, (filled - np.nan_to_num(mean)) ** 2, 0.0).sum(0)
    variance = np.divide(squares, n - 1, out=np.full(n.shape, np.nan), where=n > 1)
    return Moments(n, mean, np.maximum(np.sqrt(variance), floor))


def t_test(m: Moments) -> Array:
    """Two-sided p of the paired t test of mean 0 (Student 1908). 1 where n < 2. (K,)

    Where all differences are equal (sd 0 and no floor) p is 0, or 1 if they are 0.
    """
    with np.errstate(invalid="ignore", divide="ignore"):
        t = np.abs(m.mean) / m.error
    return _certain(2 * stats.t.sf(t, m.freedom), m.n >= 2)


def t_interval(m: Moments, level: Array | float = LEVEL) -> tuple[Array, Array]:
    """Student t interval of the mean at `level`; unbounded where n = 1, NaN where n = 0. (K,), (K,)"""
    half = _t_quantile((1 + np.asarray(level)) / 2, m.freedom) * m.error
    return m.mean - half, m.mean + half


def tost(m: Moments, margin: float) -> Array:
    """p of two one-sided t tests (Schuirmann 1987): that the mean lies within ±margin. 1 where n < 2. (K,)"""
    with np.errstate(invalid="ignore", divide="ignore"):
        above, below = (m.mean + margin) / m.error, (m.mean - margin) / m.error
    p = np.maximum(stats.t.sf(above, m.freedom), stats.t.cdf(below, m.freedom))
    return _certain(p, m.n >= 2)


def sign_flip(d: Array) -> Array:
    """Two-sided p of the sign-flip test of symmetry about 0 (Fisher 1935), by the sum of differences. 1 where n = 0. (K,)

    Exact up to 24 pairs; else 100,000 draws with a fixed seed, p = (b + 1) / (B + 1) (Phipson and Smyth 2010).
    """
    there = np.isfinite(d)
    n = there.sum(0)
    # Missing pairs to the end, as zeros: flipping them changes nothing.
    packed = np.take_along_axis(np.where(there, d, 0.0), np.argsort(~there, axis=0, kind="stable"), axis=0)
    p = np.ones(d.shape[1])
    exact = (n > 0) & (n <= EXACT_PAIRS)
    if exact.any():
        p[exact] = _share_of_all_patterns(packed[: n[exact].max(), exact])
    drawn = (n > 0) & ~exact
    if drawn.any():
        signs = 1.0 - 2.0 * np.random.default_rng(FLIP_SEED).integers(0, 2, (EXACT_FLIPS, len(d)))
        share = _share_of_patterns(signs, packed[:, drawn])
        p[drawn] = (share * EXACT_FLIPS + 1) / (EXACT_FLIPS + 1)
    return p


def _share_of_all_patterns(d: Array) -> Array:
    """Share of the 2ⁿ sign patterns under which |sum| is at least that of d (n, K). (K,)

    A sum is one of the first half of the pairs and one of the second (Horowitz and Sahni 1974): when what each of the
    first lacks is sorted among the second, its place tells how many of those are too small.
    """
    enough = _enough(d)
    share = np.empty(d.shape[1])
    for left in range(0, d.shape[1], COLUMNS):
        some = slice(left, left + COLUMNS)
        first, second = (_signed_sums(half[:, some]) for half in np.array_split(d, 2))
        firsts, seconds = first.shape[1], second.shape[1]
        lacking = np.concatenate([enough[some, None] - first, second], axis=1)
        places = np.argsort(lacking, axis=1, kind="stable")  # of equals the first half's comes first: it is enough
        too_small = np.where(places < firsts, np.arange(firsts + seconds), 0).sum(1) - firsts * (firsts - 1) // 2
        share[some] = 2 * (1 - too_small / (firsts * seconds))  # as many fall below −enough
    return np.minimum(share, 1.0)


def _signed_sums(d: Array) -> Array:
    """The sums of d (n, K) under every sign pattern. (K, 2ⁿ)"""
    sums = np.zeros((d.shape[1], 1))
    for pair in d:
        sums = np.concatenate([sums + pair[:, None], sums - pair[:, None]], axis=1)
    return sums


def _share_of_patterns(signs: Array, d: Array) -> Array:
    """Share of these sign patterns (M, n) under which |sum| is at least that of d (n, K). (K,)"""
    enough = _enough(d)
    extreme = np.zeros(d.shape[1], int)
    patterns, comparisons = BLOCK
    for left in range(0, d.shape[1], comparisons):
        some = slice(left, left + comparisons)
        block, threshold = np.ascontiguousarray(d[:, some]), enough[some]
        for start in range(0, len(signs), patterns):
            sums = signs[start : start + patterns] @ block
            hits = np.abs(sums, out=sums) >= threshold
            extreme[some] += hits.view(np.uint8).sum(0, dtype=np.uint8)  # 8 times as fast as a sum of truth values
    return extreme / len(signs)


def _enough(d: Array) -> Array:
    """|sum| of d (n, K), less what rounding can take from sums of the same numbers in another order. (K,)"""
    return np.abs(d.sum(0)) - 1e-12 * np.abs(d).sum(0)


def effect_size(m: Moments) -> Array:
    """d_z = mean / sd with the exact small-sample correction (Hedges 1981). NaN where n < 3. (K,)"""
    nu = np.maximum(m.n - 1, 2).astype(float)
    correction = special.poch((nu - 1) / 2, 0.5) / np.sqrt(nu / 2)  # poch(x, 0.5) = Γ(x + 0.5) / Γ(x)
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.where(m.n < 3, np.nan, correction * m.mean / m.sd)


def improvement(d: Array, larger_is_better: bool) -> tuple[Array, Array, Array]:
    """Paired P(first arm better), ties half, with its Wilson (1927) interval. NaN where n = 0. (K,), (K,), (K,)"""
    n = np.isfinite(d).sum(0)
    better = np.where(np.isfinite(d), (np.sign(d) * (1 if larger_is_better else -1) + 1) / 2, 0.0).sum(0)
    some = np.maximum(n, 1)
    low, high = proportion_confint(better, some, alpha=1 - LEVEL, method="wilson")
    share = np.where(n > 0, better / some, np.nan)
    return share, np.where(n > 0, low, np.nan), np.where(n > 0, high, np.nan)


def spread(a: Array, b: Array, floor: Array | float = 0.0) -> tuple[Array, Array]:
    """Variance of a over variance of b, and p that their spread differs, on pairs that are complete. (K,), (K,)

    p: paired t test on the absolute deviations from each arm's median (Brown and Forsythe 1974, paired), which unlike a
    comparison of variances bears tails. 1 where n < 5: two pairs always have equal deviations, so that p would be 0.
    floor: the least sd of differences, (K,); no ratio where an arm's values vary by no more, since it would be of roundings.
    """
    both = np.isfinite(a) & np.isfinite(b)
    a, b = np.where(both, a, np.nan), np.where(both, b, np.nan)
    with np.errstate(invalid="ignore", divide="ignore"):
        sds = moments(a).sd, moments(b).sd
        ratio = np.where(np.minimum(*sds) > floor, sds[0] ** 2 / sds[1] ** 2, np.nan)
    m = moments(np.abs(a - _median(a)) - np.abs(b - _median(b)), floor)
    return ratio, np.where(m.n < FEWEST_PAIRS, 1.0, t_test(m))


def mcnemar(diverged_a: Array, diverged_b: Array, pairs: Array) -> Array:
    """Exact p that both arms diverge equally often (McNemar 1947, binomial form). bool (n, K) each -> (K,)

    pairs: where both runs of a pair exist.
    """
    only_a = (diverged_a & ~diverged_b & pairs).sum(0)
    only_b = (diverged_b & ~diverged_a & pairs).sum(0)
    total = only_a + only_b
    return np.where(total == 0, 1.0, np.minimum(1, 2 * stats.binom.cdf(np.minimum(only_a, only_b), total, 0.5)))


def holm(p: Array) -> Array:
    """Holm (1979) step-down adjusted p values, in the order given. (K,) -> (K,)"""
    order = np.argsort(p, kind="stable")
    adjusted = np.empty(len(p))  # statsmodels' multipletests agrees, but collects garbage for 0.1 s a call
    adjusted[order] = np.minimum(1, np.maximum.accumulate(p[order] * np.arange(len(p), 0, -1)))
    return adjusted


def benjamini_hochberg(p: Array) -> Array:
    """Benjamini and Hochberg (1995) adjusted p values: of false discoveries, as description. (K,) -> (K,)"""
    return fdrcorrection(p)[1] if len(p) else p


def holm_rejects_with(p: Array, replaced: Array, alpha: float) -> Array:
    """Whether Holm at alpha rejects comparison i when p[i] alone becomes replaced[i]. (K,), (K,) -> bool (K,)

    Holm rejects i when every smaller p, and its own, is at most alpha / (K − rank). The other p keep their order, those
    behind i's old place move up by one rank; so it is enough to know the first that fails, before and after that place.
    """
    count = len(p)
    order = np.argsort(p, kind="stable")
    place = np.empty(count, int)
    place[order] = np.arange(count)
    ranks = np.arange(count)
    fails = p[order] * (count - ranks) > alpha
    fails_moved_up = p[order] * (count - ranks + 1) > alpha
    first_failure = np.append(ranks, count)[np.argmax(np.append(fails, True))]
    next_failure = np.minimum.accumulate(np.where(fails_moved_up, ranks, count)[::-1])[::-1]  # at or after each place
    next_failure = np.append(next_failure, count)[place + 1]  # after i's old place
    smaller = np.searchsorted(p[order], replaced, side="left")
    rank = smaller - (place < smaller)
    before_holds = np.where(smaller <= place, rank <= first_failure, place <= first_failure)
    after_holds = (smaller <= place) | (next_failure >= smaller)
    return (replaced * (count - rank) <= alpha) & before_holds & after_holds


def look_weights(sizes: Sequence[int]) -> Array:
    """Shares of alpha that are spent at looks after so many pairs: (n_k² − n_{k−1}²) / n_L², which add up to 1. (L,)

    The power family with exponent 2 (Kim and DeMets 1987): early looks spend little.
    """
    spent = (np.array(sizes) / sizes[-1]) ** 2
    return np.diff(spent, prepend=0.0)


def half_width(m: Moments, alpha: Array | float, tests_left: Array | int) -> Array:
    """h = t(1 − alpha / tests_left, n − 1)·sd / √n: no mean could show equivalence within a margin below it. (K,)"""
    return _t_quantile(1 - alpha / np.maximum(tests_left, 1), m.freedom) * m.error


def tost_power(m: Moments, margin: float, alpha: Array | float) -> Array:
    """Exact power of TOST if the true difference is 0 and the true sd is m.sd. 0 where n < 2. (K,)

    alpha: its level, of each comparison or of all.
    P(t·s/√n < margin − |mean|) over the distribution of s: the integral over u = s/sd of 2Φ(margin·√n/sd − t·u) − 1 where
    positive (Phillips 1990, at difference 0), by the midpoint rule over quantiles of u.
    """
    share = (np.arange(POWER_NODES) + 0.5) / POWER_NODES
    with np.errstate(invalid="ignore", divide="ignore"):
        room = margin / m.error
    power = np.zeros(room.shape)
    settings = np.stack([m.freedom, np.broadcast_to(alpha, room.shape)])
    for freedom, level in np.unique(settings, axis=1).T:
        spent = stats.t.ppf(1 - level, freedom) * np.sqrt(stats.chi2.ppf(share, freedom) / freedom)  # ascending
        columns = np.flatnonzero((m.freedom == freedom) & (settings[1] == level) & (m.n > 1))
        columns = columns[np.argsort(room[columns], kind="stable")]
        for start in range(0, len(columns), COLUMNS):
            some = columns[start : start + COLUMNS]
            # The nodes before `ones` give 1 for each of these comparisons, those from `end` on 0.
            ones, end = np.searchsorted(spent, [room[some[0]] - CERTAIN, room[some[-1]]])
            reach = room[some] - spent[ones:end, None]  # (nodes, comparisons)
            power[some] = np.maximum(2 * special.ndtr(reach) - 1, 0).sum(0, initial=ones) / POWER_NODES
    return power


def detectable(m: Moments, alpha: float, power: float) -> Array:
    """Least |mean| whose sign the two-sided t test at alpha finds with probability `power`, if the true sd is m.sd. (K,)

    By the noncentral t distribution; infinite where n < 2.
    """

    def in_sds(n: int) -> float:
        if n < 2:
            return np.inf
        t, freedom, root = stats.t.ppf(1 - alpha / 2, n - 1), n - 1, np.sqrt(n)

        def lacking(size: float) -> float:
            return stats.nct.sf(t, freedom, size * root) - power

        most = 1.0
        while lacking(most) < 0:
            most *= 2
        return optimize.brentq(lacking, 0.0, most)  # statsmodels' solver gives 10 where few pairs need more

    sizes, place = np.unique(m.n, return_inverse=True)
    return np.array([in_sds(n) for n in sizes.tolist()], float)[place] * m.sd


def upper_sd(m: Moments, level: float = 0.8) -> Array:
    """Upper confidence limit of the sd of normal differences. NaN where n < 2. (K,)"""
    freedom, place = np.unique(m.freedom, return_inverse=True)
    with np.errstate(invalid="ignore"):
        return np.where(m.n < 2, np.nan, m.sd * np.sqrt(freedom / stats.chi2.ppf(1 - level, freedom))[place])


def seeds_needed(m: Moments, margin: float, alpha: float, planned: int) -> Array:
    """Least n at which some verdict is certain whatever the mean, at the 80 % upper limit of the sd. NaN where n < 2. (K,)

    At least 5, since there is no verdict below; infinite beyond MOST_PAIRS.

    The least n with [t(1 − alpha/2K, n − 1) + t(1 − alpha/K, n − 1)]·s/√n ≤ margin, K = planned comparisons.
    """
    sd = upper_sd(m)

    def certain(n: Array) -> Array:
        t = _t_quantile(1 - alpha / (2 * planned), n - 1) + _t_quantile(1 - alpha / planned, n - 1)
        return t * sd / np.sqrt(n) <= margin

    low, high = np.full(sd.shape, 1.0), np.full(sd.shape, float(MOST_PAIRS))
    while (high - low > 1).any():
        middle = np.floor((low + high) / 2)
        with np.errstate(invalid="ignore"):
            enough = certain(np.maximum(middle, 2))
        high, low = np.where(enough, middle, high), np.where(enough, low, middle)
    high = np.where(high == MOST_PAIRS, np.inf, np.maximum(high, FEWEST_PAIRS))
    return np.where(np.isnan(sd), np.nan, high)


def skewness(d: Array) -> Array:
    """Moment coefficient of skewness g1; 0 where the differences are all equal, NaN where n < 2. (K,)"""
    m = moments(d)
    centred = d - m.mean
    with np.errstate(invalid="ignore", divide="ignore"):
        g1 = _mean(centred**3) / _mean(centred**2) ** 1.5
    return np.where(m.n < 2, np.nan, np.where(m.sd <= 1e-12 * np.abs(m.mean), 0.0, g1))


def without_farthest(d: Array) -> Array:
    """d with, in each comparison, the pair farthest from the median missing. (n, K) -> (n, K)"""
    there = np.isfinite(d).any(0)
    distance = np.where(np.isfinite(d), np.abs(d - _median(d)), -1.0)
    reduced = d.copy()
    columns = np.flatnonzero(there)
    reduced[distance[:, columns].argmax(0), columns] = np.nan
    return reduced


def test_set_error(correct_a: Array, seeds_a: Array | int, correct_b: Array, seeds_b: Array | int) -> Array:
    """Standard error of a difference in accuracy that comes from the test examples alone. (…, examples), (…) -> (…)

    correct: how many of the seeds classify an example right. The examples' differences vary for two reasons; what the
    seeds explain, p(1 − p)/(seeds − 1) an arm, is taken off. NaN with fewer than 2 seeds in an arm.
    """
    seeds_a, seeds_b = np.asarray(seeds_a)[..., None], np.asarray(seeds_b)[..., None]
    p_a, p_b = correct_a / seeds_a, correct_b / seeds_b
    of_seeds = (p_a * (1 - p_a) / np.maximum(seeds_a - 1, 1) + p_b * (1 - p_b) / np.maximum(seeds_b - 1, 1)).mean(-1)
    error = np.sqrt(np.maximum(np.var(p_a - p_b, axis=-1, ddof=1) - of_seeds, 0.0) / p_a.shape[-1])
    return np.where(np.minimum(seeds_a, seeds_b)[..., 0] < 2, np.nan, error)[()]


def verdicts(
    n: Array, rejects_difference: Array, rejects_tost: Array, half: Array, margin: float | None, any_diverged: Array
) -> Array:
    """The verdict of each comparison from its tests at the family's level. (K,) of str

    different: only the difference test rejects; equivalent: only TOST; negligible: both. Else underpowered: too few
    pairs for any mean to show equivalence; else inconclusive. Never underpowered where runs diverged or without margin.
    """
    enough = n >= FEWEST_PAIRS
    different, equivalent = rejects_difference & enough, rejects_tost & enough
    if margin is None:
        return np.where(different, "different", "inconclusive")
    underpowered = (~enough | (half >= margin)) & ~any_diverged
    return np.select(
        [different & equivalent, different, equivalent, underpowered],
        ["negligible", "different", "equivalent", "underpowered"],
        "inconclusive",
    )


def _t_quantile(p: Array | float, freedom: Array) -> Array:
    """Quantiles of Student's t, each distinct one computed once: a family has few n, and so few of them."""
    p, freedom = np.broadcast_arrays(p, freedom)
    distinct, place = np.unique(p + 1j * freedom, return_inverse=True)  # complex numbers are pairs that sort
    return stats.t.ppf(distinct.real, distinct.imag)[place.reshape(p.shape)]


def _certain(p: Array, known: Array) -> Array:
    """p, with 1 where it is unknown or not a number: what cannot be tested is not significant."""
    return np.where(known & np.isfinite(p), p, 1.0)


def _mean(values: Array) -> Array:
    """Mean over axis 0 of what is finite; NaN where nothing is."""
    there = np.isfinite(values)
    return np.divide(
        np.where(there, values, 0.0).sum(0), there.sum(0), out=np.full(values.shape[1], np.nan), where=there.any(0)
    )


def _median(values: Array) -> Array:
    """Median over axis 0 of what is finite; NaN where nothing is."""
    ordered = np.sort(np.where(np.isfinite(values), values, np.inf), axis=0)
    n = np.isfinite(values).sum(0)
    columns = np.arange(values.shape[1])
    last = max(len(values) - 1, 0)
    low, high = ordered[np.clip((n - 1) // 2, 0, last), columns], ordered[np.clip(n // 2, 0, last), columns]
    return np.where(n > 0, (low + high) / 2, np.nan)


def failure_rate_bound(failures: int, n: int) -> float:
    """Upper end of the Wilson (1927) interval of a failure rate seen as `failures` of n runs; 1 where n = 0."""
    return float(proportion_confint(failures, n, alpha=1 - LEVEL, method="wilson")[1]) if n else 1.0
