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
        self.p_over_looks = self._over_looks(self._t_test)
        self.p_equivalence_over_looks = self._over_looks(self._tost)
        self.p_holm = st.holm(self.p_over_looks)
        self.p_equivalence_holm = self.p_equivalence if margin is None else st.holm(self.p_equivalence_over_looks)
        self.rejects = self.p_holm <= alpha, self.p_equivalence_holm <= alpha
        self.verdicts = self._verdicts(self.moments, *self.rejects, self.rejects[1].sum())

    @property
    def decided(self) -> Array:
        """Whether either test rejects. bool (K,)"""
        return self.rejects[0] | self.rejects[1]

    @cached_property
    def _by_look(self) -> list[tuple[Array, Array]]:
        """All and finished differences as they were known at each look, where there are several."""
        taken = self.looks.sizes[: self.looks.taken.max(initial=1)]
        return [(pair.d, pair.finished) for pair in map(self.pair.first, taken)]

    def _over_looks(self, test: Callable[[Array, Array], Array], kept: Array | None = None) -> Array:
        """The least p over the looks taken, each divided by its look's weight, at most 1. kept: pairs, bool (n, K). -> (K,)

        Where there are several looks, one at fewer than 5 pairs shows nothing.
        """

        def p_of(d: Array, finished: Array) -> Array:
            return test(*(each if kept is None else np.where(kept[: len(d)], each, np.nan) for each in (d, finished)))

        if len(self.looks.sizes) == 1:
            return p_of(self.pair.d, self.pair.finished)
        least = np.ones(len(self.looks.taken))
        for k, (d, finished) in enumerate(self._by_look):
            looked = (self.looks.taken > k) & (np.isfinite(d).sum(0) >= st.FEWEST_PAIRS)
            p = p_of(d, finished) / st.look_weights(self.looks.sizes)[k]
            least = np.where(looked, np.minimum(least, p), least)
        return least

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
        different = st.holm_rejects_with(self.p_over_looks, self._over_looks(self._t_test, kept), self.alpha)
        if self.margin is None:
            same = np.zeros_like(different)
        else:
            without = self._over_looks(self._tost, kept)
            same = st.holm_rejects_with(self.p_equivalence_over_looks, without, self.alpha)
        rejected = self.rejects[1].sum() - self.rejects[1] + same
        return self._verdicts(m, different, same, rejected) != self.verdicts
