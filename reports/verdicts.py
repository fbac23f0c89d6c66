"""The tests of a family of comparisons, and the verdict of each; where seeds are adaptive, over all looks that were taken.

The error of a family is spent over the looks: the p of a look counts divided by the look's weight, and of all looks taken
the least counts (Bonferroni, so that it holds whatever stops a comparison). One look has the weight 1.
"""

from collections.abc import Callable
from functools import cached_property
from typing import NamedTuple

import numpy as np

from reports import statistics as st
from reports.outcomes import Paired

Array = np.ndarray


class Looks(NamedTuple):
    """sizes: seeds at each look, (L,). taken: how many of them each comparison has taken, int (K,) from 1."""

    sizes: tuple[int, ...]
    taken: Array

    @property
    def weight(self) -> Array:
        """Of the last look that each comparison has taken. (K,)"""
        return st.look_weights(self.sizes)[self.taken - 1]

    @property
    def seeds(self) -> Array:
        """That each comparison may have pairs of. int (K,)"""
        return np.array(self.sizes)[self.taken - 1]


class Tests:
    """The tests of one family of K comparisons, and what follows from them.

    pair: without pairs of looks that were not taken. looks: without them there is one, at all pairs.
    """

    def __init__(self, pair: Paired, margin: float | None, alpha: float, looks: Looks | None = None):
        self.pair, self.margin, self.alpha = pair, margin, alpha
        self.looks = looks or Looks((len(pair.d),), np.ones(pair.d.shape[1], int))
        self.moments = st.moments(pair.d, pair.floor)
        self.p = self._t_test(pair.d, pair.finished)  # of the last look
        self.p_equivalence = self._tost(pair.d, pair.finished)
        self.p_at_looks = self._at_looks(self._t_test), self._at_looks(self._tost)
        self.p_over_looks, self.p_equivalence_over_looks = (p.min(0) for p in self.p_at_looks)
        self.p_holm = st.holm(self.p_over_looks)
        self.p_equivalence_holm = self.p_equivalence if margin is None else st.holm(self.p_equivalence_over_looks)
        self.rejects = self.p_holm <= alpha, self.p_equivalence_holm <= alpha
        self.verdicts = self._verdicts(self.moments, *self.rejects, self.rejects[1].sum())

    @property
    def decided(self) -> Array:
        """Whether either test rejects. bool (K,)"""
        return self.rejects[0] | self.rejects[1]

    @property
    def tells(self) -> Array:
        """Whether some pair says anything: it is there, and not both of its runs diverged. bool (K,)"""
        return (self.pair.both & ~(self.pair.diverged[0] & self.pair.diverged[1])).any(0)

    @cached_property
    def _by_look(self) -> list[tuple[Array, Array]]:
        """All and finished differences as they were known at each look."""
        taken = self.looks.sizes[: self.looks.taken.max(initial=1)]
        pairs = [self.pair] if len(self.looks.sizes) == 1 else map(self.pair.first, taken)
        return [(pair.d, pair.finished) for pair in pairs]

    def _at_looks(self, test: Callable[[Array, Array], Array], kept: Array | None = None) -> Array:
        """The p of each look divided by the look's weight, at most 1. kept: pairs, bool (n, K). -> (L, K)

        Where there are several looks, one that was not taken, or at fewer than 5 pairs, shows nothing: 1.
        """
        found = np.ones((len(self._by_look), len(self.looks.taken)))
        for k, pairs in enumerate(self._by_look):
            d, finished = (each if kept is None else np.where(kept[: len(each)], each, np.nan) for each in pairs)
            if len(self.looks.sizes) == 1:
                return test(d, finished)[None]
            looked = (self.looks.taken > k) & (np.isfinite(d).sum(0) >= st.FEWEST_PAIRS)
            found[k] = np.where(looked, np.minimum(1, test(d, finished) / st.look_weights(self.looks.sizes)[k]), 1.0)
        return found

    def _t_test(self, d: Array, finished: Array) -> Array:
        return st.t_test(st.moments(d, self.pair.floor))

    def _tost(self, d: Array, finished: Array) -> Array:
        """The larger p of all pairs and of finished ones; NaN without a margin."""
        if self.margin is None:
            return np.full(d.shape[1], np.nan)
        return np.maximum(*(st.tost(st.moments(each, self.pair.floor), self.margin) for each in (d, finished)))

    def _verdicts(self, m: st.Moments, rejects_difference: Array, rejects_tost: Array, rejected: Array | int) -> Array:
        half = st.half_width(m, self.alpha * self.looks.weight, len(self.p) - rejected)
        diverged = (self.pair.diverged[0] | self.pair.diverged[1]).any(0)
        return st.verdicts(self.moments.n, rejects_difference, rejects_tost, half, self.margin, diverged)

    def one_pair_decides(self) -> Array:
        """Where the verdict is another without the pair farthest from the median, the other comparisons as they are."""
        d = st.without_farthest(self.pair.d)
        m, kept = st.moments(d, self.pair.floor), np.isfinite(d)
        different = st.holm_rejects_with(self.p_over_looks, self._at_looks(self._t_test, kept).min(0), self.alpha)
        if self.margin is None:
            same = np.zeros_like(different)
        else:
            without = self._at_looks(self._tost, kept).min(0)
            same = st.holm_rejects_with(self.p_equivalence_over_looks, without, self.alpha)
        rejected = self.rejects[1].sum() - self.rejects[1] + same
        return self._verdicts(m, different, same, rejected) != self.verdicts

    def decided_earlier(self) -> tuple[Array, Array]:
        """Where the difference test, and TOST, reject and would not by the last look alone. bool (K,) each"""
        over, last = (self.p_over_looks, self.p_equivalence_over_looks), (self.looks.taken - 1, np.arange(len(self.p)))
        alone = (st.holm_rejects_with(p, at[last], self.alpha) for p, at in zip(over, self.p_at_looks, strict=True))
        return tuple(rejects & ~each for rejects, each in zip(self.rejects, alone, strict=True))

    def sign_changed(self) -> Array:
        """Where an earlier look decided that there is a difference, and the mean had the other sign then. bool (K,)"""
        means = np.array([st.moments(d).mean for d, _ in self._by_look])
        then = means[self.p_at_looks[0].argmin(0), np.arange(len(self.p))]
        return self.decided_earlier()[0] & (np.sign(then) * np.sign(self.moments.mean) < 0)
