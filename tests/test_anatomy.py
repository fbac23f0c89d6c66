"""What orders do to numbers: against closed forms by quadrature, against plain torch, and every number in its file."""

import html
import itertools
import re

import numpy as np
import pandas as pd
import pytest
import torch
from scipy import stats
from scipy.integrate import quad
from torch import nn

from grids import Cell
from harness.anatomy import (
    ACTIVATIONS,
    CHANNELS,
    DEPTHS,
    FAN_IN,
    LAYER_SEED,
    ORDERS,
    SCALES,
    TANH_SEED,
    anatomy,
    distance,
    moments,
    slopes,
    stacked_activation,
)
from harness.architectures import mlp
from harness.stacking import solo, stack
from harness.values import saturation
from reports import anatomy as page

FUNCTIONS = {
    "tanh": np.tanh,
    "sigmoid": lambda z: 1 / (1 + np.exp(-z)),
    "relu": lambda z: max(z, 0.0),
    "leaky_relu": lambda z: max(z, 0.01 * z),
    "elu": lambda z: z if z > 0 else np.exp(z) - 1,
}
SLOPES = {
    "tanh": lambda z: 1 - np.tanh(z) ** 2,
    "sigmoid": lambda z: np.exp(-abs(z)) / (1 + np.exp(-abs(z))) ** 2,
    "relu": lambda z: float(z > 0),
    "leaky_relu": lambda z: 1.0 if z > 0 else 0.01,
    "elu": lambda z: 1.0 if z > 0 else np.exp(z),
}


@pytest.fixture(scope="module")
def found():
    return anatomy()


@pytest.fixture(scope="module")
def value(found):
    known = {row[:3]: row.value for row in found.rows}
    return lambda *key: known[key]


def expected(function, mean=0.0, sd=1.0) -> float:
    """E f(z) of a normal z, by quadrature on both sides of 0, where slopes jump."""
    density = lambda z: function(z) * stats.norm.pdf(z, mean, sd)  # noqa: E731
    ends = sorted({0.0, *(np.clip([mean - 12 * sd, mean + 12 * sd, -30.0, 30.0], mean - 12 * sd, mean + 12 * sd))})
    return sum(quad(density, low, high, limit=500)[0] for low, high in itertools.pairwise(ends))


def around(due: float, sd: float, n: int):
    """Within 4 standard errors of a mean over n independent values."""
    return pytest.approx(due, abs=4 * sd / np.sqrt(n))


def test_what_relu_makes_of_normalized_channels_has_the_moments_of_a_rectified_normal(value):
    n = CHANNELS * 200 * 25
    mean = 1 / np.sqrt(2 * np.pi)  # E max(z, 0)
    sd = np.sqrt(0.5 - mean**2)
    z = lambda power: expected(lambda x: ((max(x, 0.0) - mean) / sd) ** power)  # noqa: E731
    assert value("layer", "mean", "before") == around(mean, sd, n)
    assert value("layer", "sd", "before") == pytest.approx(sd, rel=0.01)
    assert value("layer", "skewness", "before") == pytest.approx(z(3), rel=0.02)
    assert value("layer", "excess kurtosis", "before") == pytest.approx(z(4) - 3, rel=0.05)
    assert value("layer", "share of exact zeros", "before") == around(0.5, 0.5, n)
    assert value("layer", "share below 0", "before") == 0
    assert value("layer", "mean", "after") == pytest.approx(0, abs=1e-9)
    assert value("layer", "sd", "after") == pytest.approx(1, abs=1e-3)


def test_how_far_the_orders_are_apart_follows_from_a_channels_mean(found):
    rows = {(row.quantity, row.setting): row.value for row in found.rows if row.section == "layer"}
    n = 5000
    z = stats.norm.ppf((np.arange(n) + 0.5) / n)
    relu = lambda x: torch.from_numpy(np.maximum(x, 0.0))  # noqa: E731
    for (quantity, setting), mean in rows.items():
        if quantity == page.CHANNEL_MEAN:
            due = distance(relu(z), relu(z + mean))
            assert rows[page.CHANNEL_DISTANCE, setting] == pytest.approx(due, abs=0.06), mean


def test_the_distance_is_that_of_wasserstein():
    draw = np.random.default_rng(0)
    x, y = draw.normal(size=400), draw.exponential(size=400)
    standard = [(each - each.mean()) / each.std() for each in (x, y)]
    assert distance(*map(torch.from_numpy, (x, y))) == pytest.approx(stats.wasserstein_distance(*standard))
    assert distance(torch.from_numpy(x), torch.from_numpy(3 * x - 7)) == pytest.approx(0, abs=1e-12)


def test_moments_are_scipys():
    x = np.random.default_rng(0).gamma(2, size=500)
    found = moments(torch.from_numpy(x))
    assert found["skewness"] == pytest.approx(stats.skew(x))
    assert found["excess kurtosis"] == pytest.approx(stats.kurtosis(x))


def test_the_layer_is_what_torchs_own_modules_make_of_the_same_draws(value):
    draw = torch.Generator().manual_seed(LAYER_SEED)
    means = torch.randn(CHANNELS, generator=draw, dtype=torch.float64)
    noise = torch.randn(CHANNELS, 200, 5, 5, generator=draw, dtype=torch.float64)
    x = (means[:, None, None, None] + noise).movedim(0, 1)
    bn, relu = nn.BatchNorm2d(CHANNELS).double(), nn.ReLU()
    for arm, y in (("before", relu(bn(x))), ("after", bn(relu(x)))):
        for setting, values in ((arm, y), (f"{arm}, pooled", nn.MaxPool2d(2)(y))):
            for quantity, due in moments(values.detach()).items():
                assert value("layer", quantity, setting) == pytest.approx(due, rel=1e-9, abs=1e-9), (quantity, setting)


def test_tanh_of_unscaled_weights_is_that_of_the_articles_draws(value):
    g = torch.Generator().manual_seed(2147483647)
    assert TANH_SEED == 2147483647
    x = torch.randn(500, 16, generator=g)
    weights = torch.randn(500, 500, generator=g)
    y = torch.tanh(weights.double() @ x.double()).numpy()
    share = (np.abs(y) > 0.97).mean()
    assert value("saturation", "share with |tanh| above 0.97", "tanh") == pytest.approx(share, rel=1e-12)
    assert value("saturation", "share saturated", "tanh") == pytest.approx(share, abs=1e-3)
    assert value("saturation", "mean of |slope|", "tanh") == pytest.approx((1 - y**2).mean(), rel=1e-9)
    assert value("saturation", "sd of weights @ x", "x") == pytest.approx(np.sqrt(FAN_IN), rel=0.1)


@pytest.mark.parametrize("name", FUNCTIONS)
def test_saturation_and_slopes_are_those_of_a_normal_variable_by_quadrature(value, name):
    sd = value("saturation", "sd of weights @ x", "x")
    low, high = saturation(name)
    due = stats.norm.cdf(low, 0, sd) + stats.norm.sf(high, 0, sd)
    assert value("saturation", "share saturated", name) == pytest.approx(due, abs=0.03)  # 16 columns share weights
    assert value("saturation", "mean of |slope|", name) == pytest.approx(expected(SLOPES[name], 0, sd), rel=0.1)
    square = expected(lambda z: SLOPES[name](z) ** 2, 0, sd)
    assert value("saturation", "root mean square of the slope", name) == pytest.approx(np.sqrt(square), rel=0.1)
    mean = expected(FUNCTIONS[name], 0, sd)
    assert value("saturation", "mean of the outputs", name) == pytest.approx(mean, abs=0.05 * sd)


@pytest.mark.parametrize("name", FUNCTIONS)
def test_slopes_are_derivatives(name):
    z = np.linspace(-4, 4, 41) + 0.01
    found = slopes(name, torch.from_numpy(z)[:, None])[:, 0]
    assert found.numpy() == pytest.approx([SLOPES[name](each) for each in z], abs=1e-9)
    given = torch.from_numpy(z)[None, :, None]
    assert stacked_activation(name)(given).flatten().numpy() == pytest.approx([FUNCTIONS[name](each) for each in z])


def test_maxout_passes_on_the_slope_of_one_map():
    z = torch.tensor([[1.0], [5.0], [2.0], [4.0]]).double()
    assert slopes("maxout", z).tolist() == [[1.0], [1.0]]
    assert stacked_activation("maxout")(z[None]).flatten().tolist() == [2.0, 5.0]


@pytest.mark.parametrize("name", FUNCTIONS)
def test_scales_move_saturation_without_normalization_and_not_with_it_before(value, name):
    sd = value("saturation", "sd of weights @ x", "x") / np.sqrt(FAN_IN)
    low, high = saturation(name)
    for scale in SCALES:
        share = {arm: value("scales", "share saturated", f"{name}, {arm}, scale {scale:g}") for arm in ORDERS}
        due = stats.norm.cdf(low, 0, scale * sd) + stats.norm.sf(high, 0, scale * sd)
        assert share["none"] == pytest.approx(due, abs=0.03)
        assert share["after"] == share["none"]
        assert share["before"] == pytest.approx(stats.norm.cdf(low) + stats.norm.sf(high), abs=0.015)


def test_the_shape_of_a_channel_stays_and_that_of_all_together_does_not(value):
    for name in ("normal", "uniform", "exponential", "two peaks"):
        for quantity in ("skewness", "excess kurtosis"):
            before, after = (value("shapes", f"{quantity} {when}", name) for when in ("before", "after"))
            assert after == pytest.approx(before, abs=1e-9)
        assert value("shapes", "distance of the two, each at mean 0 and sd 1", name) < 1e-9
    assert value("shapes", "excess kurtosis before", "uniform") == pytest.approx(-1.2, abs=0.1)
    assert value("shapes", "skewness before", "exponential") == pytest.approx(2, abs=0.3)
    assert value("shapes", "distance of the two, each at mean 0 and sd 1", "all channels together") > 0.05


def test_weights_of_ten_times_the_size_change_nothing_where_theory_says_so(value):
    for name in ACTIVATIONS:
        change = {arm: value("invariance", page.CHANGE, f"{name}, {arm}") for arm in ORDERS}
        bias = {arm: value("invariance", page.BIAS, f"{name}, {arm}") for arm in ORDERS}
        homogeneous = name in ("relu", "leaky_relu", "maxout")
        assert change["before"] < 1e-6
        assert (change["after"] < 1e-6) == homogeneous
        assert change["none"] == pytest.approx(9, rel=1e-9) if homogeneous else change["none"] > 0.1
        assert bias["before"] < 1e-9
        assert min(bias["after"], bias["none"]) > 1e-3


def test_the_gradient_of_the_first_block_is_that_of_plain_torch(value):
    draw = torch.Generator().manual_seed(LAYER_SEED)
    x = torch.randn(40, 64, generator=draw).T.double()
    y = torch.randint(10, (64,), generator=draw)
    norms = []
    for seed in range(8):
        cell = Cell(dataset="-", architecture="mlp", order="weight-bn-act", activation="relu", depth=4, width=64)
        twin = solo(stack(mlp.build(cell, (40,), 10), [seed]), 0).double().train()
        nn.functional.cross_entropy(twin(x), y).backward()
        norms.append(twin.blocks[0].weight.weight.grad.norm().item())
    setting = "relu, before, depth 4"
    assert value("depth", page.GRADIENT, setting) == pytest.approx(sorted(norms)[3], rel=1e-9)


def test_gradients_grow_and_ranks_stay_as_published(value):
    """Yang et al. 2019 (arXiv:1902.08129): growth with depth; Daneshmand et al. 2020 (arXiv:2003.01652): no collapse."""
    deepest = f"depth {DEPTHS[-1]}"
    for arm in ("before", "after"):
        norms = [value("depth", page.GRADIENT, f"relu, {arm}, depth {depth}") for depth in DEPTHS]
        assert norms == sorted(norms)
        assert value("depth", page.RANK, f"relu, {arm}, {deepest}") > 5 * value(
            "depth", page.RANK, f"relu, none, {deepest}"
        )
    assert value("depth", page.RANK, f"relu, none, {deepest}") == pytest.approx(1, abs=0.2)


def test_it_is_the_same_whenever_it_is_computed(found):
    torch.rand(3)
    assert anatomy().rows == found.rows


def numbers(text: str) -> set[str]:
    return set(re.findall(r"[−-]?\d+(?:\.\d+)?(?:e[−-]\d+)?", html.unescape(text)))


def test_every_number_of_the_page_is_in_the_file_and_none_is_typed_in(found, tmp_path):
    """The page is built of other numbers, so that one that was typed in would be seen."""
    draw = np.random.default_rng(0)
    rows = [row._replace(value=float(draw.uniform(0.1, 0.9))) for row in found.rows]
    page.build(rows, found.histograms, tmp_path)
    frame = pd.read_csv(tmp_path / "anatomy.csv")
    assert list(frame.columns) == ["section", "quantity", "setting", "value"]
    assert len(frame) == len(rows)
    known = {page.number(value) for value in frame["value"]} | {f"{100 * value:.1f}" for value in frame["value"]}
    text = (tmp_path / "index.html").read_text()
    cells = re.findall(r'<td class="number">(.*?)</td>', text)
    assert len(cells) >= len(rows)
    assert {cell for cell in cells if cell} <= known
    sentences = " ".join(re.findall(r"<li>(.*?)</li>", text))
    of_settings = {"0", "1", "2", "500", *(f"{scale:g}" for scale in SCALES), str(DEPTHS[-1])}
    assert numbers(sentences) - known <= of_settings
    assert len(numbers(sentences) & known) > 25


def test_the_command_builds_the_page_without_a_store_or_a_grid(told, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    code, out, errors = told("anatomy", "--out", "here")
    assert (code, errors) == (0, "")
    assert out.splitlines()[0] == str(tmp_path / "here" / "index.html")
    assert "anatomy.csv with " in out
    assert len(list((tmp_path / "here" / "figures").glob("*.svg"))) == 6
