"""Gains against quadrature, torch and simulation; drawn weights against the variance that they should have."""

from math import prod, sqrt

import numpy as np
import pytest
import torch
from scipy.integrate import quad
from scipy.special import erf, expit
from scipy.stats import norm
from torch.nn.init import calculate_gain

import harness
from grids import Cell
from harness.architectures import build
from harness.drawing import initial
from harness.evaluation import shared_batch
from harness.initialisation import ACTIVATIONS, gain, parse
from harness.layers import Block, Dropout, Weight
from harness.lsuv import unit_variance
from harness.stacking import stack, stream
from harness.training import train


def he(function):
    """He's criterion 1 / sqrt(E f(z)²), z standard normal, by quadrature on both sides of the kink at 0."""
    return 1 / sqrt(sum(quad(lambda z: function(z) ** 2 * norm.pdf(z), *side)[0] for side in ((-12, 0), (0, 12))))


def of_maxout():
    """Simulated: n = 4,000,000, standard error of E max² 0.0007."""
    x = np.random.default_rng(0).standard_normal((2, 4_000_000)).max(0)
    return 1 / sqrt((x**2).mean())


# Each gain by a second way, with the tolerance that its digits allow.
SECOND = {
    "identity": lambda _: (calculate_gain("linear"), 0),
    "relu": lambda _: (calculate_gain("relu"), 0),
    "leaky_relu": lambda a: (calculate_gain("leaky_relu", a), 0),
    "prelu": lambda a: (calculate_gain("leaky_relu", a), 0),
    "elu": lambda a: (he(lambda z: z if z > 0 else a * np.expm1(z)), 1e-9),
    "gelu": lambda _: (he(lambda z: z * (1 + erf(z / sqrt(2))) / 2), 5e-5),
    "silu": lambda _: (he(lambda z: z * expit(z)), 5e-5),
    "selu": lambda _: (he(lambda z: 1.0507009873554805 * (z if z > 0 else 1.6732632423543772 * np.expm1(z))), 1e-9),
    "softplus": lambda _: (he(lambda z: np.logaddexp(z, 0)), 5e-5),
    "tanh": lambda _: (calculate_gain("tanh"), 0),
    "sigmoid": lambda _: (calculate_gain("sigmoid"), 0),
    "softsign": lambda _: (1.0, 0),  # 1 / slope at 0
    "lecun_tanh": lambda _: (1 / (1.7159 * np.tanh(2 / 3)), 1e-4),  # made so that f(1) = 1
    "maxout": lambda _: (of_maxout(), 0.0015),
}
WITH_PARAMETERS = [name + ":0.333" for name, activation in ACTIVATIONS.items() if activation.default is not None]


@pytest.mark.parametrize("activation", [*ACTIVATIONS, *WITH_PARAMETERS])
def test_a_gain_is_found_by_a_second_way(activation):
    name, parameter = parse(activation)
    expected, tolerance = SECOND[name](parameter)
    assert gain(activation) == pytest.approx(expected, abs=tolerance or 1e-15)


def test_an_activation_is_its_name_and_its_parameter():
    assert parse("leaky_relu:0.333") == ("leaky_relu", 0.333)
    assert parse("leaky_relu") == ("leaky_relu", 0.01)
    assert parse("relu") == ("relu", None)


@pytest.mark.parametrize("activation", [*ACTIVATIONS, *WITH_PARAMETERS])
@pytest.mark.parametrize("architecture", harness.names("architectures"))
def test_initial_weights_have_variance_gain_squared_over_fan_in(architecture, activation):
    cell = Cell(dataset="x", architecture=architecture, order="weight-act", activation=activation, depth=2, width=24)
    model = stack(build(cell, (2, 8, 8), 10), [0, 1, 2])
    inside = {layer for each in model.modules() if isinstance(each, Block) for layer in each}
    for layer in (layer for layer in model.modules() if isinstance(layer, Weight)):
        weight = layer.weight.double()  # (S, C_out, C_in, *kernel)
        expected = (gain(activation) if layer in inside else 1) ** 2 / prod(weight.shape[2:])
        n = weight.numel()
        assert abs(weight.square().mean() / expected - 1) < 4 * sqrt(2 / n)  # 4 standard errors
        assert abs(weight.mean()) < 4 * sqrt(expected / n)


@pytest.mark.parametrize("architecture", harness.names("architectures"))
def test_initial_biases_are_0(architecture):
    cell = Cell(dataset="x", architecture=architecture, order="weight-bn-act", activation="relu", depth=2)
    model = stack(build(cell, (2, 8, 8), 10), [0, 1])
    biases = [value for name, value in model.named_parameters() if name.endswith("bias")]
    assert biases
    assert not torch.cat([bias.flatten() for bias in biases]).any()


# Other ways to draw, and what data do to them


def make(architecture="mlp", **fields):
    defaults = {"dataset": "x", "order": "weight-act", "activation": "relu", "depth": 2, "width": 24}
    return Cell(architecture=architecture, **{**defaults, **fields})


def weights(cell, shape=(2, 8, 8), seeds=(0, 1, 2)):
    """By path, in float64: (S, C_out, C_in, *kernel). And the paths of those in blocks."""
    model = stack(build(cell, shape, 10), list(seeds), dtype=torch.float64)
    inside = {layer for each in model.modules() if isinstance(each, Block) for layer in each}
    layers = {name: layer for name, layer in model.named_modules() if isinstance(layer, Weight)}
    return {name: x.weight.detach() for name, x in layers.items()}, {n for n, x in layers.items() if x in inside}


@pytest.mark.parametrize("activation", ["relu", "tanh", "maxout"])
@pytest.mark.parametrize("architecture", harness.names("architectures"))
def test_xavier_has_the_variance_between_those_of_both_fans(architecture, activation):
    drawn, inside = weights(make(architecture, activation=activation, init="xavier"))
    for name, weight in drawn.items():
        maps = 2 if name in inside and activation == "maxout" else 1  # each drawn by itself
        fans = (weight.shape[1] // maps + weight.shape[2]) * prod(weight.shape[3:])
        expected = (gain(activation) if name in inside else 1) ** 2 * 2 / fans
        assert abs(weight.square().mean() / expected - 1) < 4 * sqrt(2 / weight.numel())


@pytest.mark.parametrize("activation", ["relu", "tanh", "maxout"])
@pytest.mark.parametrize("architecture", harness.names("architectures"))
def test_orthogonal_weights_are_so_up_to_their_gain(architecture, activation):
    drawn, inside = weights(make(architecture, activation=activation, init="orthogonal"))
    for name, weight in drawn.items():
        maps = 2 if name in inside and activation == "maxout" else 1  # each drawn by itself
        for matrix in weight.flatten(2).unflatten(1, (maps, -1)).flatten(0, 1):  # (C, C_in · kernel)
            small = matrix @ matrix.T if matrix.shape[0] <= matrix.shape[1] else matrix.T @ matrix
            expected = (gain(activation) if name in inside else 1) ** 2 * torch.eye(len(small), dtype=torch.float64)
            torch.testing.assert_close(small, expected, rtol=0, atol=1e-9)


@pytest.mark.parametrize("shape", [(5, 5), (3, 7), (7, 3), (4, 3, 3), (4, 2, 3, 3), (9, 1, 2, 2)], ids=str)
def test_orthogonal_weights_are_those_of_torch_for_the_same_normal_draw(shape, monkeypatch):
    normal = np.random.default_rng(1).standard_normal(shape)
    expected = torch.empty(shape, dtype=torch.float64)

    def draw(self, mean=0, std=1, generator=None):
        return self.copy_(torch.from_numpy(normal).view(self.shape))

    monkeypatch.setattr(torch.Tensor, "normal_", draw)
    torch.nn.init.orthogonal_(expected, gain=1.5)
    np.testing.assert_allclose(initial("orthogonal", normal, 1.5, 1.0), expected, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("init", ["he", "xavier", "orthogonal", "lsuv"])
def test_maxout_takes_the_maximum_of_maps_of_which_each_is_drawn_as_other_layers_are(init):
    wide = np.random.default_rng(0).standard_normal((6, 4))
    both = initial(init, wide, 1.0, 1.5, maps=2)
    np.testing.assert_array_equal(both, [*initial(init, wide[:3], 1.0, 1.5), *initial(init, wide[3:], 1.0, 1.5)])


@pytest.mark.parametrize("init", ["he", "xavier", "orthogonal", "lsuv"])
def test_every_init_transforms_the_same_normal_draw(init):
    cell = make("cnn", activation="tanh", init=init)
    drawn, inside = weights(cell, seeds=[4])
    for name, weight in drawn.items():
        normal = stream(4, f"{name}.weight").standard_normal(weight.shape[1:])
        expected = initial(init, normal, gain("tanh") if name in inside else 1.0, 1.0)
        np.testing.assert_array_equal(weight[0], expected)


@pytest.mark.parametrize("init", ["he", "xavier", "orthogonal", "lsuv"])
@pytest.mark.parametrize("architecture", harness.names("architectures"))
def test_init_gain_multiplies_the_weights_of_blocks_alone(architecture, init):
    x = torch.randn(50, 2, 8, 8, generator=torch.Generator().manual_seed(0), dtype=torch.float64)

    def weights_of(times):
        model = stack(build(make(architecture, init=init, init_gain=times), (2, 8, 8), 10), [0, 1], dtype=torch.float64)
        if init == "lsuv":
            unit_variance(model, 2, x)
        inside = {layer for each in model.modules() if isinstance(each, Block) for layer in each}
        return [(layer in inside, layer.weight.detach()) for layer in model.modules() if isinstance(layer, Weight)]

    plain, tripled = weights_of(1), weights_of(3)
    assert {inside for inside, _ in plain} == {True, False}
    for (inside, one), (_, other) in zip(plain, tripled, strict=True):
        torch.testing.assert_close(other, one * 3 if inside else one, rtol=1e-12, atol=0)


LSUV = ["weight-act", "weight-bn-act", "weight-act-bn-drop", "bn-act-weight", "act-ln-weight"]


def lsuv(cell, x, seeds, dtype=torch.float64):
    model = stack(build(cell, tuple(x.shape[1:]), 5), list(seeds), dtype=dtype)
    unit_variance(model, len(seeds), x)
    return model


def images(n=60, dtype=torch.float64):
    return torch.randn(n, 2, 8, 8, generator=torch.Generator().manual_seed(0), dtype=dtype) * 3 + 1


@pytest.mark.parametrize("order", LSUV)
@pytest.mark.parametrize("architecture", harness.names("architectures"))
def test_lsuv_gives_every_output_variance_1(architecture, order):
    x, variances = images(), []
    model = lsuv(make(architecture, order=order, activation="tanh", init="lsuv"), x, [0, 1])
    for layer in model.modules():
        if isinstance(layer, Weight):
            layer.register_forward_hook(lambda _, __, y: variances.extend(each.var(correction=0) for each in y))
        if isinstance(layer, Dropout):
            layer.eval()
    model(shared_batch(x, 2))
    assert len(variances) == 2 * sum(isinstance(layer, Weight) for layer in model.modules())
    torch.testing.assert_close(torch.stack(variances), torch.ones(len(variances), dtype=torch.float64))


def test_lsuv_only_scales_orthogonal_weights_and_leaves_all_else_as_it_was():
    cell = make("cnn", order="weight-bn-act-drop", activation="tanh", init="lsuv", dropout=0.5)
    before, after = stack(build(cell, (2, 8, 8), 5), [0, 1], dtype=torch.float64), lsuv(cell, images(), [0, 1])
    for (name, one), (_, other) in zip(before.state_dict().items(), after.state_dict().items(), strict=True):
        if one.ndim > 2:
            ratio = (other / one).flatten(1)
            torch.testing.assert_close(ratio, ratio[:, :1].expand_as(ratio))
            assert (ratio[:, 0] - 1).abs().min() > 1e-3, name
        else:
            assert torch.equal(one, other), name
    for one, other in zip(before.modules(), after.modules(), strict=True):
        assert one.training == other.training
        assert len(other._forward_hooks) == 0
        if isinstance(one, Dropout):
            states = [[g.get_state().tolist() for g in each.generators] for each in (one, other)]
            assert states[0] == states[1]


def test_lsuv_leaves_the_weights_of_an_output_of_zeros_alone():
    cell = make(init="lsuv")
    model = lsuv(cell, torch.zeros(10, 6, dtype=torch.float64), [0])
    untouched = stack(build(cell, (6,), 5), [0], dtype=torch.float64)
    assert all(map(torch.equal, model.state_dict().values(), untouched.state_dict().values()))


@pytest.mark.parametrize("order", LSUV)
def test_lsuv_gives_a_seed_the_same_bits_in_any_company(order):
    cell = make(order=order, activation="tanh", init="lsuv", width=32)
    x = images(96, torch.float32)
    alone, among = lsuv(cell, x, [5], torch.float32), lsuv(cell, x, [9, 0, 5, 2], torch.float32)
    for (name, one), (_, other) in zip(alone.state_dict().items(), among.state_dict().items(), strict=True):
        assert torch.equal(one[0], other[2]), name


def test_a_training_begins_where_its_init_says(blobs):
    starts = {}
    for init in ("he", "xavier", "orthogonal", "lsuv"):
        cell, data = make(init=init, batch=10, epochs=1, width=8), blobs()
        training = train(cell, [0, 3], data)
        model = stack(build(cell, data.shape, data.classes), [0, 3])
        if init == "lsuv":
            unit_variance(model, 2, torch.from_numpy(data.x_train))
        logits = model.eval()(shared_batch(torch.from_numpy(data.x_val), 2))
        y = torch.from_numpy(data.y_val).expand(2, -1)
        expected = torch.nn.functional.cross_entropy(logits, y, reduction="none").mean(1)
        np.testing.assert_allclose(training.curves[0]["loss"], expected.detach(), rtol=1e-5)
        starts[init] = tuple(training.curves[0]["loss"])
    assert len(set(starts.values())) == 4
