"""The tests of a family of comparisons, and the verdict of each."""

import numpy as np

from reports import statistics as st
from reports.outcomes import Paired


class Tests:
    """The tests of one family of K comparisons, and what follows from them."""

    def __init__(self, pair: Paired, margin: float | None, alpha: float):
        self.pair, self.margin, self.alpha = pair, margin, alpha
        self.moments = st.moments(pair.d, pair.floor)
        self.p = st.t_test(self.moments)
        self.p_holm = st.holm(self.p)
        self.p_equivalence = self._tost(pair.d, pair.finished)
        self.p_equivalence_holm = self.p_equivalence if margin is None else st.holm(self.p_equivalence)
        self.rejects = self.p_holm <= alpha, self.p_equivalence_holm <= alpha
        self.verdicts = self._verdicts(self.moments, *self.rejects, self.rejects[1].sum())

    def _tost(self, d, finished):
        """The larger p of all pairs and of finished ones; NaN without a margin."""
        if self.margin is None:
            return np.full(d.shape[1], np.nan)
        return np.maximum(*(st.tost(st.moments(each, self.pair.floor), self.margin) for each in (d, finished)))

    def _verdicts(self, m, rejects_difference, rejects_tost, rejected):
        half = st.half_width(m, self.alpha, len(self.p) - rejected)
        diverged = (self.pair.diverged[0] | self.pair.diverged[1]).any(0)
        return st.verdicts(self.moments.n, rejects_difference, rejects_tost, half, self.margin, diverged)

    def one_pair_decides(self) -> np.ndarray:
        """Where the verdict is another without the pair farthest from the median, the other comparisons as they are."""
        d = st.without_farthest(self.pair.d)
        m = st.moments(d, self.pair.floor)
        finished = np.where(np.isfinite(d), self.pair.finished, np.nan)
        different = st.holm_rejects_with(self.p, st.t_test(m), self.alpha)
        if self.margin is None:
            same = np.zeros_like(different)
        else:
            same = st.holm_rejects_with(self.p_equivalence, self._tost(d, finished), self.alpha)
        rejected = self.rejects[1].sum() - self.rejects[1] + same
        return self._verdicts(m, different, same, rejected) != self.verdicts
