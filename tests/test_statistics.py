"""Statistics against golden values, second implementations and simulation. No function may let a warning out."""

import math

import numpy as np
import oracles
import pytest
from scipy import stats

from reports import statistics as st

pytestmark = pytest.mark.filterwarnings("error")

MARGIN, ALPHA = 0.5, 0.05
A, B = np.array([[4.0, 7, 8, 6, 3, 2]]).T, np.array([[6.0, 8, 7, 10, 11, 9]]).T  # (6, 1)
GOLDEN = A - B
FLOORS = (0.0, 0.4)


def awkward(n=20, comparisons=24):
    """Differences (n, K) of many means and sds, a fifth missing; the first columns are the ones that break formulas."""
    rng = np.random.default_rng(1)
    d = rng.normal(rng.normal(0, 0.5, comparisons), rng.uniform(0.1, 2, comparisons), (n, comparisons))
    d[rng.random(d.shape) < 0.2] = np.nan
    d[10:] = np.where(np.arange(comparisons) % 2, d[10:], np.nan)  # few pairs in half of them
    for column, pairs in enumerate((0, 1, 2, 4, 5)):
        d[:, column] = np.nan
        d[rng.permutation(n)[:pairs], column] = rng.normal(0, 1, pairs)
    d[:, 5], d[:, 6], d[:, 7] = 0.25, 0.0, -3.0
    d[:, 8] = np.where(np.arange(n) < 7, 0.1, np.nan)
    d[:3, 9] = 0.0  # ties
    return d


D = awkward()


def each(oracle, *args, **keywords):
    """The oracle on every comparison of D: (K,), or (parts, K) where it gives several numbers."""
    return np.array([oracle(d, *args, **keywords) for d in D.T], float).T


def within(share, expected, draws):
    """Whether a simulated share lies within 4 standard errors of the expected one."""
    return abs(share - expected) <= 4 * math.sqrt(expected * (1 - expected) / draws)


# Golden values of R 4.2.2. In its commands a = c(4,7,8,6,3,2), b = c(6,8,7,10,11,9), d = a - b


def test_paired_t_is_the_one_of_r():
    # t.test(a, b, paired=TRUE): t = -2.44451, df = 5, p = 0.05833
    m = st.moments(GOLDEN)
    assert m.mean / m.error == pytest.approx(-2.44451, abs=1e-5)
    assert m.freedom == 5
    assert st.t_test(m) == pytest.approx(0.05833, abs=1e-5)


@pytest.mark.parametrize(
    ("level", "low", "high"), [(0.95, -7.1805130751, 0.1805130751), (1 - ALPHA / 54, -13.500798158, 6.500798158)]
)
def test_t_interval_is_the_one_of_r(level, low, high):
    # t.test(a, b, paired=TRUE)$conf.int; with conf.level=1-.05/54
    interval = np.concatenate(st.t_interval(st.moments(GOLDEN), level))
    assert interval == pytest.approx([low, high], rel=1e-9)


@pytest.mark.parametrize(("margin", "p"), [(3, 0.62942308897), (6, 0.070617386588)])
def test_tost_is_the_larger_of_two_one_sided_tests_of_r(margin, p):
    # t.test(a, b, paired=TRUE, mu=-6, alternative="greater")$p.value; mu=6, alternative="less": 0.000585809698
    # mu=-3: 0.62942308897; mu=3: 0.00308492174
    assert st.tost(st.moments(GOLDEN), margin) == pytest.approx(p, rel=1e-9)


def test_holm_is_the_one_of_r():
    # p.adjust(c(.01, .04, .03, .005), "holm")
    assert st.holm(np.array([0.01, 0.04, 0.03, 0.005])) == pytest.approx([0.03, 0.06, 0.06, 0.02])


def test_benjamini_hochberg_is_the_one_of_r():
    # p.adjust(c(.01, .04, .03, .005), "BH")
    assert st.benjamini_hochberg(np.array([0.01, 0.04, 0.03, 0.005])) == pytest.approx([0.02, 0.04, 0.04, 0.02])


def test_adjusted_p_of_many_comparisons_are_those_of_r():
    # p.adjust(c(.942,.001,.039,.041,.042,.008,.06,.205,.212,.205,.275), "holm"); "BH"
    p = np.array([0.942, 0.001, 0.039, 0.041, 0.042, 0.008, 0.06, 0.205, 0.212, 0.205, 0.275])
    tied = 0.259111111111
    assert st.holm(p) == pytest.approx([1, 0.011, 0.351, 0.351, 0.351, 0.08, 0.36, 1, 1, 1, 1])
    by_bh = [0.942, 0.011, 0.0924, 0.0924, 0.0924, 0.044, 0.11, tied, tied, tied, 0.3025]
    assert st.benjamini_hochberg(p) == pytest.approx(by_bh)


@pytest.mark.parametrize(
    ("better", "n", "low", "high"),
    [(15, 20, 0.5312991224, 0.8881382986), (0, 20, 0, 0.1611251581), (3, 7, 0.1582198553, 0.7495416355)],
)
def test_wilson_interval_is_the_one_of_r(better, n, low, high):
    # prop.test(15, 20, correct=FALSE)$conf.int; prop.test(0, 20, ...); prop.test(3, 7, ...)
    d = np.where(np.arange(n) < better, 1.0, -1.0)[:, None]
    share, *interval = st.improvement(d, larger_is_better=True)
    assert share == pytest.approx(better / n)
    assert np.concatenate(interval) == pytest.approx([low, high], abs=1e-10)
    assert st.failure_rate_bound(better, n) == pytest.approx(high, abs=1e-10)


def test_wilson_interval_is_the_one_of_scipy():
    share, low, high = st.improvement(np.repeat([1.0, -1.0], [15, 5])[:, None], larger_is_better=True)
    by_scipy = stats.binomtest(15, 20).proportion_ci(method="wilson")
    assert (share[0], low[0], high[0]) == pytest.approx((0.75, *by_scipy))


@pytest.mark.parametrize(("only_a", "only_b", "p"), [(5, 0, 0.0625), (2, 9, 0.0654296875), (3, 3, 1.0)])
def test_mcnemar_is_the_binomial_test_of_r(only_a, only_b, p):
    # binom.test(0, 5)$p.value; binom.test(2, 11)$p.value; binom.test(3, 6)$p.value
    a = np.arange(20)[:, None] < only_a
    b = (np.arange(20)[:, None] >= only_a) & (np.arange(20)[:, None] < only_a + only_b)
    assert st.mcnemar(a, b, np.ones_like(a)) == pytest.approx(p)


def test_sign_flip_is_the_share_of_patterns_that_r_counts():
    # s = as.matrix(expand.grid(rep(list(c(-1, 1)), 6))); mean(abs(s %*% d) >= abs(sum(d)))
    assert st.sign_flip(GOLDEN) == 0.09375


def test_sign_flip_of_six_differences_of_one_sign_is_two_in_64():
    assert st.sign_flip(-np.abs(GOLDEN) - 1.0) == 2 / 64


def test_effect_size_is_corrected_by_hedges_factor():
    # Hedges (1981): gamma(4.5) / (sqrt(4.5) * gamma(4)) = 0.9138752 for 9 degrees of freedom
    m = st.Moments(np.array([10]), np.array([2.0]), np.array([1.0]))
    assert st.effect_size(m) == pytest.approx(2 * 0.9138752, abs=1e-6)
    # nu = 5; gamma(nu/2) / (sqrt(nu/2) * gamma((nu-1)/2)) * mean(d) / sd(d)
    assert st.effect_size(st.moments(GOLDEN)) == pytest.approx(-0.8390381035, rel=1e-9)


def test_spread_is_the_paired_t_of_r_on_absolute_deviations():
    # var(a) / var(b); t.test(abs(a - median(a)), abs(b - median(b)), paired=TRUE)$p.value
    ratio, p = st.spread(A, B)
    assert (ratio[0], p[0]) == pytest.approx((1.6, 0.4650226383), rel=1e-9)


def test_skewness_is_the_one_by_hand_in_r():
    # mean((d - mean(d))^3) / mean((d - mean(d))^2)^1.5
    assert st.skewness(GOLDEN) == pytest.approx(-0.1218917166, rel=1e-9)


def test_the_upper_limit_of_the_sd_is_by_the_chi_squared_of_r():
    # sd(d) * sqrt(5 / qchisq(.2, 5))
    assert st.upper_sd(st.moments(GOLDEN)) == pytest.approx(5.123828417, rel=1e-9)


def test_half_width_is_by_the_t_of_r():
    # qt(1 - .05/54, 5) * sd(d) / sqrt(6)
    assert st.half_width(st.moments(GOLDEN), ALPHA, 54) == pytest.approx(8.584762408, rel=1e-9)


@pytest.mark.parametrize(
    ("n", "sd", "alpha", "power"),
    [(6, 0.5, 0.05, 0.40904354972), (10, 0.5, 0.05, 0.79520726671), (20, 0.8, 0.05 / 54, 0.01647608652)],
)
def test_tost_power_is_the_integral_of_r(n, sd, alpha, power):
    # t = qt(1 - alpha, n - 1)
    # f = function(x) pmax(2*pnorm(.5*sqrt(n)/sd - t*sqrt(x/(n-1))) - 1, 0) * dchisq(x, n - 1)
    # integrate(f, 0, (n-1) * (.5*sqrt(n)/sd/t)^2, rel.tol=1e-10)
    m = st.Moments(np.array([n]), np.zeros(1), np.array([sd]))
    assert st.tost_power(m, MARGIN, alpha) == pytest.approx(power, abs=1e-4)


@pytest.mark.parametrize(
    ("n", "sd", "margin", "planned", "needed"), [(10, 0.3, 0.5, 1, 11), (10, 0.3, 0.5, 54, 31), (6, None, 2, 18, 223)]
)
def test_seeds_needed_are_those_of_a_loop_in_r(n, sd, margin, planned, needed):
    # s = sd * sqrt((n-1) / qchisq(.2, n-1)); N = 5
    # while ((qt(1-.05/2/planned, N-1) + qt(1-.05/planned, N-1)) * s/sqrt(N) > margin) N = N + 1
    m = st.moments(GOLDEN) if sd is None else st.Moments(np.array([n]), np.zeros(1), np.array([sd]))
    assert st.seeds_needed(m, margin, ALPHA, planned).tolist() == [needed]


@pytest.mark.parametrize(
    ("correct_a", "correct_b", "error"),
    [
        ([5, 3, 0, 4, 5, 1, 2, 5], [4, 1, 1, 4, 3, 0, 3, 2], 0.06007188155),
        ([5, 0, 0, 5, 5, 0, 5, 5], [0, 4, 4, 4, 0, 4, 0, 0], 0.3503824441),
    ],
)
def test_test_set_error_is_the_one_by_hand_in_r(correct_a, correct_b, error):
    # pa = correct_a/5; pb = correct_b/4; sqrt(max(var(pa-pb) - mean(pa*(1-pa)/4 + pb*(1-pb)/3), 0) / 8)
    assert st.test_set_error(np.array(correct_a), 5, np.array(correct_b), 4) == pytest.approx(error, rel=1e-9)


# Second implementations


def test_moments_agree_with_python():
    m = st.moments(D)
    assert m.n.tolist() == [len(oracles.present(d)) for d in D.T]
    np.testing.assert_allclose(m.mean, each(oracles.mean), atol=1e-14)
    np.testing.assert_allclose(m.sd, each(oracles.sd), atol=1e-14)


def test_an_sd_below_the_floor_is_the_floor():
    m = st.moments(D, np.full(D.shape[1], 0.4))
    np.testing.assert_allclose(m.sd, each(oracles.sd, 0.4))
    assert (m.sd == 0.4).sum() > 3


@pytest.mark.parametrize("floor", FLOORS)
def test_paired_t_agrees_with_scipy(floor):
    np.testing.assert_allclose(st.t_test(st.moments(D, floor)), each(oracles.t_test, floor), rtol=1e-9, atol=1e-15)


@pytest.mark.parametrize("level", [0.95, 1 - ALPHA / 54])
@pytest.mark.parametrize("floor", FLOORS)
def test_t_interval_agrees_with_scipy(floor, level):
    interval = st.t_interval(st.moments(D, floor), level)
    np.testing.assert_allclose(interval, each(oracles.t_interval, level, floor), rtol=1e-9, atol=1e-14)


@pytest.mark.parametrize("floor", FLOORS)
def test_tost_agrees_with_statsmodels(floor):
    p = st.tost(st.moments(D, floor), MARGIN)
    np.testing.assert_allclose(p, each(oracles.tost, MARGIN, floor), rtol=1e-9, atol=1e-15)


def test_sign_flip_agrees_with_scipy():
    few = D[:13]  # scipy counts twice as many patterns
    np.testing.assert_allclose(st.sign_flip(few), [oracles.sign_flip(d) for d in few.T], rtol=1e-12)


def test_sign_flip_agrees_with_counting_every_pattern():
    d = np.random.default_rng(2).integers(-3, 4, (8, 6)).astype(float)  # integers: many patterns with equal sums
    np.testing.assert_allclose(st.sign_flip(d / 10), [oracles.sign_flip_enumerated(x / 10) for x in d.T])


def test_effect_size_agrees_with_its_formula():
    d = D[:, [i for i in range(D.shape[1]) if i not in (5, 7, 8)]]  # constant, not 0: infinite but for rounding
    np.testing.assert_allclose(st.effect_size(st.moments(d)), [oracles.effect_size(x) for x in d.T], rtol=1e-9)


@pytest.mark.parametrize("larger_is_better", [True, False])
def test_improvement_agrees_with_the_roots_of_wilsons_equation(larger_is_better):
    shares = st.improvement(D, larger_is_better)
    np.testing.assert_allclose(shares, each(oracles.improvement, larger_is_better), atol=1e-7)


def test_spread_agrees_with_scipy():
    a, b = D, np.random.default_rng(3).normal(0, 1, D.shape)
    b[3:9, ::2] = np.nan
    expected = np.array([oracles.spread(x, y, floor=1e-9) for x, y in zip(a.T, b.T, strict=True)]).T
    np.testing.assert_allclose(st.spread(a, b, floor=1e-9)[0], expected[0], rtol=1e-9)
    np.testing.assert_allclose(st.spread(a, b)[1], expected[1], rtol=1e-9, atol=1e-15)


def test_mcnemar_agrees_with_statsmodels():
    a, b, pairs = (np.random.default_rng(4).random((3, 15, 40)) < [[[0.3]], [[0.6]], [[0.8]]]).astype(bool)
    a[:, 0] = b[:, 0]  # no pair differs
    expected = [oracles.mcnemar(*columns) for columns in zip(a.T, b.T, pairs.T, strict=True)]
    np.testing.assert_allclose(st.mcnemar(a, b, pairs), expected)


def test_holm_and_benjamini_hochberg_agree_with_loops_and_scipy():
    p = st.t_test(st.moments(D)).round(2)  # ties
    np.testing.assert_allclose(st.holm(p), oracles.holm(list(p)))
    np.testing.assert_allclose(st.benjamini_hochberg(p), oracles.benjamini_hochberg(p))


def test_holm_with_one_p_replaced_agrees_with_doing_it_again():
    rng = np.random.default_rng(5)
    for _ in range(400):
        p, replaced = (rng.choice([0.002, 0.01, 0.0125, 0.02, 0.05, rng.random(), 1.0], 6) for _ in range(2))
        count = rng.integers(1, 7)
        p, replaced = p[:count], replaced[:count]
        expected = oracles.holm_rejects_with(list(p), list(replaced), ALPHA)
        assert st.holm_rejects_with(p, replaced, ALPHA).tolist() == expected, (p, replaced)


@pytest.mark.parametrize("tests_left", [0, 1, 54])
def test_half_width_agrees_with_scipy(tests_left):
    half = st.half_width(st.moments(D, 0.1), ALPHA, tests_left)
    np.testing.assert_allclose(half, each(oracles.half_width, ALPHA, tests_left, 0.1), rtol=1e-9)


def test_tost_power_agrees_with_quadrature():
    m = st.moments(D)
    expected = [oracles.tost_power(n, s, MARGIN, ALPHA / 9) for n, s in zip(m.n, m.sd, strict=True)]
    np.testing.assert_allclose(st.tost_power(m, MARGIN, ALPHA / 9), expected, atol=1e-4)
    assert sum(0.05 < power < 0.95 for power in expected) > 3


@pytest.mark.parametrize("planned", [1, 54])
def test_seeds_needed_agree_with_trying_one_after_the_other(planned):
    m = st.moments(D)
    expected = [oracles.seeds_needed(n, s, MARGIN, ALPHA, planned) for n, s in zip(m.n, m.sd, strict=True)]
    np.testing.assert_array_equal(st.seeds_needed(m, MARGIN, ALPHA, planned), expected)


def test_many_comparisons_at_once_are_what_each_is_alone():
    rng = np.random.default_rng(20)
    n, count = 26, 2 * st.COLUMNS + st.BLOCK[1] + 3  # beyond every block
    d = rng.normal(rng.normal(0, 0.3, count), rng.uniform(0.05, 1, count), (n, count))
    d[:, ::3] = d[:, ::3].round(1)  # ties
    d[rng.random(d.shape) < 0.02] = np.nan
    chosen = [0, 1, 2, st.BLOCK[1] - 1, st.BLOCK[1], st.COLUMNS, count - 1]
    m = st.moments(d)
    functions = {
        "sign_flip": lambda d, m: st.sign_flip(d),
        "interval": lambda d, m: st.t_interval(m)[1],
        "half": lambda d, m: st.half_width(m, ALPHA, count),
        "power": lambda d, m: st.tost_power(m, MARGIN, ALPHA / count),
        "seeds": lambda d, m: st.seeds_needed(m, MARGIN, ALPHA, count),
    }
    for name, function in functions.items():
        alone = [function(d[:, [i]], st.moments(d[:, [i]]))[0] for i in chosen]
        np.testing.assert_allclose(function(d, m)[chosen], alone, rtol=1e-10, err_msg=name)


def test_skewness_agrees_with_scipy():
    d = D[:, [i for i in range(D.shape[1]) if i != 8]]  # constant
    np.testing.assert_allclose(st.skewness(d), [oracles.skewness(x) for x in d.T], rtol=1e-9, atol=1e-12)


def test_the_farthest_pair_is_the_one_farthest_from_the_median():
    some = D[:, 9:]
    reduced = st.without_farthest(some)
    for before, after in zip(some.T, reduced.T, strict=True):
        gone = np.flatnonzero(np.isfinite(before) & np.isnan(after))
        assert gone.tolist() == [oracles.farthest(before)]
    assert (np.isfinite(reduced) <= np.isfinite(some)).all()


def test_test_set_error_agrees_with_a_loop():
    correct_a, correct_b = np.random.default_rng(6).binomial([[5], [9]], 0.7, (2, 40))
    expected = oracles.error_of_test_set(correct_a, 5, correct_b, 9)
    assert st.test_set_error(correct_a, 5, correct_b, 9) == pytest.approx(expected)
    several = st.test_set_error(
        np.stack([correct_a] * 2), np.array([5, 1]), np.stack([correct_b] * 2), np.array([9, 9])
    )
    assert several == pytest.approx([expected, math.nan], nan_ok=True)


# Rules


def test_scores_replace_diverged_runs_only():
    scored = st.score(np.array([[0.9, np.nan], [np.nan, 0.8]]), np.array([[False, True], [False, False]]), [0.1, 0.2])
    np.testing.assert_array_equal(scored, [[0.9, 0.2], [np.nan, 0.8]])


def test_a_comparison_without_two_pairs_is_never_significant():
    m = st.moments(np.array([[np.nan, 5.0], [np.nan, np.nan]]))
    assert st.t_test(m).tolist() == [1, 1]
    assert st.tost(m, MARGIN).tolist() == [1, 1]
    assert st.half_width(m, ALPHA, 2).tolist() == [np.inf, np.inf]
    assert st.tost_power(m, MARGIN, ALPHA).tolist() == [0, 0]
    assert np.isnan(st.seeds_needed(m, MARGIN, ALPHA, 2)).all()


def test_one_pair_has_an_unbounded_interval():
    low, high = st.t_interval(st.moments(np.array([[5.0]])))
    assert (low[0], high[0]) == (-np.inf, np.inf)


def test_equal_differences_have_no_skewness():
    equal = np.full((12, 3), [0.1, 0.3, 0.7])  # the mean of twelve equal numbers may differ from them by rounding
    assert st.skewness(equal).tolist() == [0, 0, 0]


def test_half_width_is_the_least_margin_at_which_a_mean_of_zero_is_equivalent():
    m = st.Moments(np.array([5, 20]), np.zeros(2), np.array([0.3, 2.0]))
    for i, half in enumerate(st.half_width(m, ALPHA, 7)):
        assert st.tost(m, half)[i] == pytest.approx(ALPHA / 7)


@pytest.mark.parametrize(
    ("n", "difference", "equivalence", "half", "margin", "diverged", "verdict"),
    [
        (5, True, False, 0.1, 0.2, False, "different"),
        (5, False, True, 0.1, 0.2, False, "equivalent"),
        (5, True, True, 0.1, 0.2, False, "negligible"),
        (5, False, False, 0.1, 0.2, False, "inconclusive"),
        (5, False, False, 0.2, 0.2, False, "underpowered"),
        (5, False, False, 0.3, 0.2, True, "inconclusive"),
        (5, True, False, 0.3, 0.2, True, "different"),
        (4, True, True, 0.1, 0.2, False, "underpowered"),
        (4, True, True, 0.1, 0.2, True, "inconclusive"),
        (4, True, False, 0.1, None, False, "inconclusive"),
        (5, True, False, 0.3, None, False, "different"),
        (5, False, False, 0.3, None, False, "inconclusive"),
    ],
)
def test_a_verdict_follows_from_the_two_tests(n, difference, equivalence, half, margin, diverged, verdict):
    facts = [np.array([fact]) for fact in (n, difference, equivalence, half)]
    assert st.verdicts(*facts, margin, np.array([diverged])).tolist() == [verdict]
    assert oracles.verdict(n, difference, equivalence, half, margin, diverged) == verdict


@pytest.mark.parametrize("planned", [1, 54])
def test_seeds_needed_make_some_verdict_certain_and_one_less_does_not(planned):
    m = st.Moments(np.array([10]), np.zeros(1), np.array([0.3]))
    needed, sd = int(st.seeds_needed(m, MARGIN, ALPHA, planned)[0]), st.upper_sd(m)[0]

    def certain(n):
        means = np.linspace(-3 * MARGIN, 3 * MARGIN, 20_001)
        again = st.Moments(np.full(means.shape, n), means, np.full(means.shape, sd))
        return np.all(np.minimum(st.t_test(again), st.tost(again, MARGIN)) <= ALPHA / planned)

    assert needed > st.FEWEST_PAIRS
    assert certain(needed)
    assert not certain(needed - 1)


# Calibration


@pytest.mark.parametrize("threshold", [0.01, 0.05, 0.2, 0.5])
def test_p_of_pairs_that_differ_by_chance_is_uniform(threshold):
    rng, draws = np.random.default_rng(8), 20_000
    shared = rng.normal(0, 2, (8, draws))  # what a seed does to both arms
    a, b = (shared + rng.normal(0, 1, shared.shape) for _ in range(2))
    assert within((st.t_test(st.moments(a - b)) <= threshold).mean(), threshold, draws)
    unpaired = stats.ttest_ind(a, b).pvalue
    assert not within((unpaired <= threshold).mean(), threshold, draws)


@pytest.mark.parametrize("n", [25, 40])
def test_drawn_sign_flips_come_close_to_the_exact_share(n):
    d = np.zeros((n, 4))
    d[:12] = np.random.default_rng(10).normal([0, 0.2, 0.5, 1], 1, (12, 4))  # flipping a zero changes nothing
    exact, draws = st.sign_flip(d[:12]), st.EXACT_FLIPS
    for p, drawn, naive in zip(exact, st.sign_flip(d), st.sign_flip(d) / 2, strict=True):
        assert drawn != p
        assert within(drawn - 1 / draws, p, draws)
        assert not within(naive, p, draws)  # one-sided


def test_drawn_sign_flips_are_the_same_every_time():
    d = np.random.default_rng(11).normal(0, 1, (25, 3))
    assert (st.sign_flip(d) == st.sign_flip(d)).all()


def test_drawn_sign_flips_never_give_a_p_of_zero():
    assert st.sign_flip(np.ones((60, 1))) == 1 / (st.EXACT_FLIPS + 1)


def test_test_set_error_is_what_other_examples_would_change():
    rng, examples, seeds = np.random.default_rng(18), 400, 4
    squares, with_seeds = [], []
    for _ in range(500):
        p_a, p_b = rng.beta(2, 1, (2, examples))  # how often the seeds classify each example right
        correct_a, correct_b = rng.binomial(seeds, p_a), rng.binomial(seeds, p_b)
        squares.append(st.test_set_error(correct_a, seeds, correct_b, seeds) ** 2)
        with_seeds.append(np.var((correct_a - correct_b) / seeds, ddof=1) / examples)
    truth = 2 * stats.beta(2, 1).var() / examples
    band = 4 * np.std(squares, ddof=1) / math.sqrt(len(squares))
    assert abs(np.mean(squares) - truth) <= band
    assert abs(np.mean(with_seeds) - truth) > band
