"""Effects over cells and axes against published values, statsmodels and simulation. No function may let a warning out."""

import itertools
import math

import numpy as np
import oracles
import pytest
import statsmodels.api as sm
from scipy import stats
from statsmodels.stats.meta_analysis import combine_effects

from reports import effects as fx
from reports import statistics as st

pytestmark = pytest.mark.filterwarnings("error")

ALPHA = 0.05
# nlme::ergoStool (Pinheiro and Bates 2000, section 1.2): effort to arise of 9 subjects, here the cells, from 4 types of
# stool, here the seeds.
STOOLS = np.array([
    [12, 10, 7, 7, 8, 9, 8, 7, 9], [15, 14, 14, 11, 11, 11, 12, 11, 13], [12, 13, 13, 10, 8, 11, 12, 8, 10],
    [10, 12, 9, 9, 7, 10, 11, 7, 8],
], float)  # fmt: skip
BALANCED = np.array(list(itertools.product(range(3), range(2))))  # levels of two axes, a row a cell
RAGGED = np.array([row for row in itertools.product(range(3), range(2), range(2)) if row not in ((0, 0, 0), (2, 1, 1))])


def within(share, expected, draws):
    """Whether a simulated share lies within 4 standard errors of the expected one."""
    return abs(share - expected) <= 4 * math.sqrt(expected * (1 - expected) / draws)


def simulated(rng, n, cells, draws, tau=0.0, of_seeds=0.0, sd=1.0, mean=0.3):
    """Differences (n, cells, draws) and the true effects of the cells (cells, draws)."""
    effects = mean + tau * rng.normal(0, 1, (cells, draws))
    seeds = of_seeds * rng.normal(0, 1, (n, 1, draws))
    return effects + seeds + np.reshape(sd, (-1, 1)) * rng.normal(0, 1, (n, cells, draws)), effects


def share_inside(interval, truth):
    return ((interval[0] <= truth) & (truth <= interval[1])).mean()


def sum_coded(levels):
    """Deviations from the mean of levels, the last one the negative sum of the others. (K,) -> (K, levels − 1)"""
    coding = np.vstack([np.eye(levels.max()), -np.ones(levels.max())])
    return coding[levels]


def all_contrasts(levels, terms):
    """Weights (K, M) of these terms side by side, and where each begins."""
    weights = [fx.contrast_weights(levels, term)[1] for term in terms]
    return np.hstack(weights), np.cumsum([0, *(w.shape[1] for w in weights)])[:-1]


# Golden values


def test_tau_is_the_one_that_nlme_finds():
    # lme(effort ~ Type, data = ergoStool, random = ~ 1 | Subject), as printed in Pinheiro and Bates (2000), section 1.2:
    # StdDev (Intercept) 1.332465, Residual 1.100295
    found = fx.between_cells(STOOLS)
    assert (found.tau, found.residual) == pytest.approx((1.332465, 1.100295), abs=1e-6)


def test_the_interval_of_tau_is_the_one_of_williams_formula():
    # An independent computation, not by R, where it would be: ms <- summary(aov(effort ~ Type + Subject, ergoStool));
    # SS * (1 - qf(.975, 8, 24) / F) / (4 * qchisq(.975, 8)) and the same with .025, their roots.
    subject, stool = np.tile(np.arange(9), 4), np.repeat(np.arange(4), 9)
    columns = [sm.add_constant(sum_coded(stool)), sum_coded(subject)]
    full, without = sm.OLS(STOOLS.ravel(), np.hstack(columns)).fit(), sm.OLS(STOOLS.ravel(), columns[0]).fit()
    f, _, freedom = full.compare_f_test(without)
    assert freedom == 8
    squares = without.ssr - full.ssr
    limits = [math.sqrt(squares * (1 - stats.f.isf(q, 8, 24) / f) / (4 * stats.chi2.isf(q, 8))) for q in (0.025, 0.975)]
    found = fx.between_cells(STOOLS)
    assert (found.low, found.high) == pytest.approx(limits)
    assert found.i_squared == pytest.approx(1 - 1 / f)


def test_tau_and_prediction_agree_with_a_meta_analysis_of_the_cells():
    # Of equal variances the estimate of DerSimonian and Laird is that of the analysis of variance.
    rng = np.random.default_rng(1)
    d = simulated(rng, 8, 12, 1, tau=0.8)[0][:, :, 0]
    rest = d - d.mean(0) - d.mean(1)[:, None] + d.mean()
    residual = math.sqrt((rest**2).sum() / 77)
    seeds = rng.normal(0, 1, 8)
    seeds = (seeds - seeds.mean()) / seeds.std(ddof=1) * residual / math.sqrt(12)  # no effect of seeds but by chance
    d = rest + d.mean(0) + seeds[:, None]
    meta = combine_effects(d.mean(0), np.full(12, residual**2 / 8), method_re="chi2")
    found = fx.between_cells(d)
    assert found.tau**2 == pytest.approx(meta.tau2)
    assert found.i_squared == pytest.approx(meta.i2)
    half = stats.t.isf(0.025, 10) * math.sqrt(meta.tau2 + meta.sd_eff_w_re**2)
    assert fx.prediction(d) == pytest.approx((meta.mean_effect_re - half, meta.mean_effect_re + half))


# Second implementations


@pytest.mark.parametrize("term", [(0,), (1,), (0, 1)])
def test_balanced_contrasts_are_differences_of_means(term):
    d = np.random.default_rng(2).normal(0, 1, (7, len(BALANCED)))
    levels, weights = fx.contrast_weights(BALANCED, term)
    for level, found in zip(levels, (d @ weights).T, strict=True):
        has = [BALANCED[:, axis] == value for axis, value in zip(term, level, strict=True)]
        expected = d[:, np.all(has, axis=0)].mean(1) - d.mean(1)
        if len(term) == 2:
            expected -= sum(d[:, one].mean(1) - d.mean(1) for one in has)
        np.testing.assert_allclose(found, expected, atol=1e-12)


@pytest.mark.parametrize(("levels", "term"), [(BALANCED, (0,)), (BALANCED, (0, 1)), (RAGGED, (0,)), (RAGGED, (0, 1))])
def test_contrasts_and_their_tests_agree_with_statsmodels(levels, term):
    d = np.random.default_rng(3).normal(0.3, 1, (7, len(levels)))
    coded = [sum_coded(column) for column in levels.T]
    products = [a[:, :, None] * b[:, None, :] for a, b in [(coded[0], coded[1])]]
    columns = [*coded, *(p.reshape(len(levels), -1) for p in products if len(term) == 2)]
    per_seed = np.array([sm.OLS(row, sm.add_constant(np.hstack(columns))).fit().params for row in d])
    start = 1 if len(term) == 1 else 1 + sum(c.shape[1] for c in coded)
    combinations, weights = fx.contrast_weights(levels, term)
    m = fx.combine(d, weights)
    (low, high), p = st.t_interval(m), st.t_test(m)
    compared = 0
    shape = [levels[:, axis].max() for axis in term]  # the last level is the sum of the others
    for column, level in enumerate(combinations):
        if (level >= shape).any():
            continue
        fit = sm.OLS(per_seed[:, start + np.ravel_multi_index(level, shape)], np.ones(len(d))).fit()
        assert (m.mean[column], p[column]) == pytest.approx((fit.params[0], fit.pvalues[0]))
        assert (low[column], high[column]) == pytest.approx(tuple(fit.conf_int()[0]))
        compared += 1
    assert compared == np.prod(shape)


def test_the_joint_sign_flip_agrees_with_counting_every_pattern():
    d = np.random.default_rng(4).integers(-3, 6, (7, len(BALANCED))) / 10  # many patterns with equal sums
    weights, starts = all_contrasts(BALANCED, [(0,), (1,), (0, 1)])
    c = d @ weights
    totals = []
    for signs in oracles.signs_of(len(d)):
        t = stats.ttest_1samp(c * np.array(signs)[:, None], 0).statistic
        totals.append([sum(t[a:b] ** 2) for a, b in itertools.pairwise([*starts, len(t)])])
    expected = (np.array(totals) >= np.array(totals[0]) * (1 - 1e-9)).mean(0)
    np.testing.assert_allclose(fx.joint_sign_flip(c, starts), expected)
    assert len(set(expected)) == 3


def test_a_joint_test_of_one_contrast_is_the_sign_flip_test():
    d = np.random.default_rng(5).normal(0.3, 1, (9, 6))
    np.testing.assert_allclose(fx.joint_sign_flip(d, np.arange(6)), st.sign_flip(d))


def test_drawn_joint_sign_flips_come_close_to_the_exact_share():
    d = np.zeros((40, 3))
    d[:12] = np.random.default_rng(6).normal([0, 0.3, 0.6], 1, (12, 3))  # flipping a zero changes nothing
    for p, drawn in zip(st.sign_flip(d[:12]), fx.joint_sign_flip(d, np.arange(3)), strict=True):
        assert drawn != p
        assert within(drawn - 1 / st.EXACT_FLIPS, p, st.EXACT_FLIPS)
        assert not within(drawn / 2, p, st.EXACT_FLIPS)


def test_over_cells_is_the_paired_test_of_the_seeds_means():
    d = np.random.default_rng(7).normal(0.3, 1, (9, 5))
    m = fx.over_cells(d)
    test = stats.ttest_1samp(d.mean(1), 0)
    assert st.t_test(m) == pytest.approx(test.pvalue)
    assert np.ravel(st.t_interval(m)) == pytest.approx(list(test.confidence_interval()))


# Rules


def gaps(n, cells, missing):
    d = np.zeros((n, cells))
    for seed, cell in missing:
        d[seed, cell] = np.nan
    return d


@pytest.mark.parametrize(
    ("missing", "seeds", "cells"),
    [
        ([], 20, 6),
        ([(slice(None), 2)], 20, 5),  # a cell without a pair
        ([(slice(15, None), slice(None))], 15, 6),  # a sweep that was ended early
        ([(3, 2)], 19, 6),  # one pair: its seed goes, not its cell
        ([(slice(4), 2)], 16, 6),  # some pairs of one cell
        ([(slice(12), 2)], 20, 5),  # most pairs of one cell
        ([(slice(10, None), slice(3, None))], 10, 6),  # half of the seeds of half of the cells
        ([(slice(3, None), slice(5, None)), (0, 0)], 19, 5),
        ([(slice(None), slice(None))], 0, 0),
        ([(slice(None, 19), slice(None)), (19, slice(1, None))], 1, 1),
    ],
)
def test_what_is_used_is_complete_and_keeps_cells_before_seeds(missing, seeds, cells):
    d = gaps(20, 6, missing)
    used = fx.complete(d)
    assert (used[0].sum(), used[1].sum()) == (seeds, cells)
    assert np.isfinite(d[np.ix_(*used)]).all()


def test_gaps_all_over_leave_a_part_of_both():
    d = gaps(20, 20, [(i, i) for i in range(20)])
    used = fx.complete(d)
    assert used[0].sum() * used[1].sum() == 75
    assert np.isfinite(d[np.ix_(*used)]).all()


def test_effects_in_a_grid_with_holes_are_those_that_were_planted_and_plain_means_are_not():
    planted = [np.array([-1.0, 0.0, 1.0]), np.array([0.5, -0.5]), np.array([2.0, -2.0])]
    d = 0.4 + sum(effect[column] for effect, column in zip(planted, RAGGED.T, strict=True))[None]
    for axis, effect in enumerate(planted):
        levels, weights = fx.contrast_weights(RAGGED, (axis,))
        assert levels.ravel().tolist() == list(range(len(effect)))
        np.testing.assert_allclose((d @ weights)[0], effect, atol=1e-12)
        plain = [d[:, RAGGED[:, axis] == level].mean() - d.mean() for level in range(len(effect))]
        assert np.abs(plain - effect).max() > 0.05


def test_an_interaction_is_planted_and_found_beside_a_third_axis_with_holes():
    interaction = np.array([[1.0, -1.0], [-2.0, 2.0], [1.0, -1.0]])
    d = (interaction[RAGGED[:, 0], RAGGED[:, 1]] + np.array([3.0, -3.0])[RAGGED[:, 2]])[None]
    levels, weights = fx.contrast_weights(RAGGED, (0, 1))
    np.testing.assert_allclose((d @ weights)[0], [interaction[tuple(level)] for level in levels], atol=1e-12)


def test_no_contrast_exists_where_the_cells_cannot_tell_it():
    together = np.array([[0, 0], [1, 1], [0, 0], [1, 1]])
    assert fx.contrast_weights(together, (0,)) is None
    assert fx.contrast_weights(BALANCED[:5], (0, 1)) is None  # a combination is missing
    assert fx.contrast_weights(BALANCED[:5], (0,)) is not None
    assert fx.contrast_weights(BALANCED[::2], (1,)) is None  # one level


def test_the_two_levels_of_an_axis_are_one_test():
    weights, _ = all_contrasts(BALANCED, [(0,), (1,), (0, 1)])
    same = fx.distinct(weights)
    assert same.tolist() == [0, 1, 2, 3, 3, 5, 5, 7, 7, 9, 9]
    p = np.linspace(0.001, 0.02, 11)[same]
    assert fx.holm_distinct(p, same).tolist() == pytest.approx(
        np.maximum.accumulate(p * [7, 6, 5, 4, 4, 3, 3, 2, 2, 1, 1])
    )


def test_seeds_that_all_agree_give_the_smallest_p_of_the_joint_test():
    c = np.tile([1.0, -1.0, 0.0], (6, 1))
    assert fx.joint_sign_flip(c, [0, 2]).tolist() == [2**-5, 1.0]


def test_a_floor_enters_the_joint_statistic():
    c = np.random.default_rng(8).normal([1e-9, 0.5], [1e-9, 1], (8, 2))
    alone = fx.joint_sign_flip(c[:, 1:], [0])
    assert fx.joint_sign_flip(c, [0], np.array([1.0, 0.0])) == alone  # a contrast below what can be resolved
    assert fx.joint_sign_flip(c, [0]) != alone


def test_joint_tests_never_give_a_p_of_zero():
    assert fx.joint_sign_flip(np.ones((60, 2)), [0]) == 1 / (st.EXACT_FLIPS + 1)


def test_equal_differences_have_the_spread_that_the_test_set_can_resolve():
    d = np.tile(np.arange(12.0), (5, 1))
    found = fx.between_cells(d)
    assert (found.tau, found.residual) == (pytest.approx(np.arange(12).std(ddof=1)), 0)
    assert found.low < found.tau < found.high
    floored = fx.between_cells(d, np.full(12, 0.5))
    assert floored.residual == 0.5
    assert floored.tau**2 == pytest.approx(found.tau**2 - 0.25 / 5)
    assert fx.over_cells(d, np.full(12, 0.5)).sd == pytest.approx(0.5 / math.sqrt(12))


@pytest.mark.parametrize("shape", [(0, 0), (0, 6), (1, 1), (1, 6), (2, 1), (2, 2), (2, 6), (5, 1), (5, 2), (5, 6)])
@pytest.mark.parametrize("value", [0.0, 0.3, None])
def test_nothing_warns_however_little_there_is(shape, value):
    d = np.random.default_rng(9).normal(0, 1, shape) if value is None else np.full(shape, value)
    m = fx.over_cells(d)
    low, high = st.t_interval(m)
    assert 0 <= st.t_test(m)[0] <= 1
    assert np.isnan(low[0]) == (shape[0] == 0)
    assert (high[0] == np.inf) == (shape[0] == 1)
    assert np.isnan(fx.between_cells(d).tau) == (min(shape) < 2)
    assert np.isnan(fx.prediction(d)[0]) == (shape[0] < 2 or shape[1] < 3)
    if shape[1] == 6:
        weights, starts = all_contrasts(BALANCED, [(0,), (0, 1)])
        p = fx.joint_sign_flip(d @ weights, starts)
        assert ((p > 0) & (p <= 1)).all()
        if shape[0] < 2:
            assert p.tolist() == [1, 1]
    assert fx.joint_sign_flip(np.zeros((shape[0], 0)), []).shape == (0,)


# Calibration. The wrong versions: seeds that are not joined over cells, intervals of the mean for single cells, p of levels
# that are not adjusted for their number.


@pytest.mark.parametrize("n", [5, 10, 20, 50])
def test_the_interval_of_tau_covers_95_percent(n):
    rng, draws, tau = np.random.default_rng(10), 8000, math.sqrt(8 / n)
    d, _ = simulated(rng, n, 12, draws, tau=tau, of_seeds=2.5)
    right, wrong = fx.between_cells(d), fx.between_cells(rng.permuted(d, axis=0))
    assert within(share_inside((right.low, right.high), tau), 0.95, draws)
    assert not within(share_inside((wrong.low, wrong.high), tau), 0.95, draws)


@pytest.mark.parametrize(("sds", "share"), [(np.geomspace(0.3, 2.3, 12), 0.93), (np.array([10.0, *[1] * 11]), 0.84)])
def test_cells_of_unequal_spread_feign_a_tau_as_often_as_is_said(sds, share):
    draws = 8000
    found = fx.between_cells(simulated(np.random.default_rng(16), 10, 12, draws, sd=sds)[0])
    assert abs((found.low == 0).mean() - share) < 0.01
    even = fx.between_cells(simulated(np.random.default_rng(16), 10, 12, draws)[0])
    assert within((even.low == 0).mean(), 0.975, draws)


@pytest.mark.parametrize("n", [5, 10, 20, 50])
def test_the_interval_over_cells_covers_95_percent(n):
    rng, draws = np.random.default_rng(11), 8000
    d, effects = simulated(rng, n, 12, draws, tau=1.0, of_seeds=0.5, sd=np.linspace(0.2, 2, 12))
    shares = [
        share_inside([end[:, 0] for end in st.t_interval(fx.over_cells(each))], effects.mean(0))
        for each in (d, rng.permuted(d, axis=0))
    ]
    assert within(shares[0], 0.95, draws)
    assert not within(shares[1], 0.95, draws)


@pytest.mark.parametrize(("cells", "n"), [(12, 20), (54, 10)])
def test_the_prediction_interval_covers_95_percent_of_new_cells(cells, n):
    rng, draws = np.random.default_rng(12), 8000
    d, _ = simulated(rng, n, cells, draws, tau=1.0, of_seeds=0.3)
    new = 0.3 + rng.normal(0, 1, draws)
    assert within(share_inside(fx.prediction(d), new), 0.95, draws)
    of_the_mean = [end[:, 0] for end in st.t_interval(fx.over_cells(d))]
    assert not within(share_inside(of_the_mean, new), 0.95, draws)
    of_single_runs = d.mean((0, 1)) + 1.96 * np.array([[-1], [1]]) * d.std((0, 1), ddof=1)
    assert not within(share_inside(of_single_runs, new), 0.95, draws)


@pytest.mark.parametrize("patterns", [1, 6, 25])
def test_the_joint_test_keeps_its_level_under_heavy_tails_and_unequal_cells(patterns):
    rng, draws, level = np.random.default_rng(13), 10_000, patterns / 128
    d = rng.standard_t(3, (8, 3, draws)) * [[0.5], [1], [2]] + rng.standard_t(3, (8, 1, draws))
    _, weights = fx.contrast_weights(np.arange(3)[:, None], (0,))
    c = np.tensordot(d, weights, (1, 0)).reshape(8, -1)  # (8, draws · 3)
    assert within((fx.joint_sign_flip(c, 3 * np.arange(draws)) <= level).mean(), level, draws)
    unadjusted = st.sign_flip(c).reshape(draws, 3).min(1)
    assert not within((unadjusted <= level).mean(), level, draws)


@pytest.mark.parametrize("planted", [0.0, 2.0])
def test_holm_holds_the_error_over_all_contrasts_of_a_family(planted):
    rng, draws = np.random.default_rng(14), 4000
    d, _ = simulated(rng, 10, 6, draws, of_seeds=1.0, mean=0.5)
    d = d + planted * (BALANCED[:, :1] - 1)  # an effect of the first axis, none of the second, no interaction
    weights, starts = all_contrasts(BALANCED, [(0,), (1,), (0, 1)])
    same = fx.distinct(weights)
    p = st.t_test(fx.combine(d, weights))  # (draws, M)
    null = slice(starts[1], None) if planted else slice(None)
    bound = ALPHA + 4 * math.sqrt(ALPHA * (1 - ALPHA) / draws)
    adjusted = np.array([fx.holm_distinct(each, same) for each in p])
    share = (adjusted[:, null] <= ALPHA).any(1).mean()
    assert 0.02 < share <= bound
    assert (p[:, null] <= ALPHA).any(1).mean() > bound


def test_an_effect_of_an_axis_is_found_and_no_other():
    rng = np.random.default_rng(15)
    d = simulated(rng, 12, 6, 1, of_seeds=1.0)[0][:, :, 0] + 2 * (BALANCED[:, 0] - 1)
    weights, starts = all_contrasts(BALANCED, [(0,), (1,), (0, 1)])
    p = fx.joint_sign_flip(d @ weights, starts)
    assert p[0] <= 2**-10
    assert p[1:].min() > 0.05
