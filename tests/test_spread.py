"""The interval of a ratio of variances: by its definition, and by what it covers."""

import numpy as np
import pytest
from scipy import stats

from reports.spread import variance_ratio_interval


def pairs(n, count, ratio, correlation, seed=0):
    """Normal pairs (n, count) each, whose variances have this ratio."""
    x, y = np.random.default_rng(seed).standard_normal((2, n, count))
    return np.sqrt(ratio) * (correlation * y + np.sqrt(1 - correlation**2) * x), y


@pytest.mark.parametrize("correlation", [-0.6, 0.0, 0.9])
def test_at_the_ends_sums_and_differences_are_just_not_correlated(correlation):
    a, b = pairs(12, 5, 3.0, correlation)
    for ends in variance_ratio_interval(a, b):
        for k, ratio in enumerate(ends):
            scaled = a[:, k] / np.sqrt(ratio)
            assert stats.pearsonr(scaled + b[:, k], scaled - b[:, k]).pvalue == pytest.approx(0.05, rel=1e-6)


def test_the_interval_covers_the_true_ratio_as_often_as_it_says():
    a, b = pairs(8, 20_000, 4.0, 0.5, seed=1)
    low, high = variance_ratio_interval(a, b)
    covered = ((low <= 4.0) & (high >= 4.0)).mean()
    assert abs(covered - 0.95) < 4 * np.sqrt(0.95 * 0.05 / 20_000)


def test_pairs_that_are_not_complete_do_not_count():
    a, b = pairs(8, 1, 1.0, 0.3)
    more = np.full((2, 1), np.nan)
    again = variance_ratio_interval(np.vstack([a, more, [[9.0]]]), np.vstack([b, [[5.0], [7.0]], [[np.nan]]]))
    np.testing.assert_allclose(again, variance_ratio_interval(a, b))


@pytest.mark.parametrize("a", [np.ones((2, 1)), np.ones((5, 1)), np.full((5, 1), np.nan)])
def test_too_few_pairs_and_arms_without_spread_have_no_interval(a):
    low, high = variance_ratio_interval(a, np.random.default_rng(0).standard_normal(a.shape))
    assert np.isnan(low).all()
    assert np.isnan(high).all()
