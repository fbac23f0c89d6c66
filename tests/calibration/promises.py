"""What a statistic promises, and in what share of simulations it holds: for the program's version and for wrong ones.

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
from scipy import optimize, stats

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
    ends = {n: each if isinstance(each, tuple) else (float(each), float(each)) for n, each in shares.items()}
    counts = dict(zip(sizes, draws, strict=True)) if isinstance(draws, tuple) else dict.fromkeys(sizes, draws)
    return Promise(what, ends, simulate, counts, comparisons)


def about(*shares: float, by: float = 0.005) -> dict[int, tuple[float, float]]:
    """Ranges around what was measured with 6 times the simulations, for each of SIZES."""
    return {n: (share - by, share + by) for n, share in zip(SIZES, shares, strict=True)}


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
    return dict(_measured(of.what, of.simulate, n, of.draws[n] * times, of.comparisons))


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
