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
from harness.initialisation import ACTIVATIONS, gain, parse
from harness.layers import Block, Weight
from harness.stacking import stack


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
