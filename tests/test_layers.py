"""Each layer against its formula, written with numpy."""

import numpy as np
import pytest
import torch
from scipy.special import erf, expit

from grids import Cell
from harness.initialisation import ACTIVATIONS, parse
from harness.layers import MAKE_ACTIVATION, BatchNorm, Dropout, Weight, block, fold, unfold
from harness.stacking import stack

# Each activation as a function of x and its parameter a.
FORMULAS = {
    "identity": lambda x, a: x,
    "relu": lambda x, a: np.maximum(x, 0),
    "leaky_relu": lambda x, a: np.where(x > 0, x, a * x),
    "prelu": lambda x, a: np.where(x > 0, x, a * x),
    "elu": lambda x, a: np.where(x > 0, x, a * np.expm1(x)),
    "gelu": lambda x, a: x * (1 + erf(x / np.sqrt(2))) / 2,
    "silu": lambda x, a: x * expit(x),
    # The two constants: Klambauer et al. 2017, equation 14.
    "selu": lambda x, a: 1.0507009873554805 * np.where(x > 0, x, 1.6732632423543772 * np.expm1(x)),
    "softplus": lambda x, a: np.logaddexp(x, 0),
    "tanh": lambda x, a: np.tanh(x),
    "sigmoid": lambda x, a: expit(x),
    "softsign": lambda x, a: x / (1 + np.abs(x)),
    "lecun_tanh": lambda x, a: 1.7159 * np.tanh(2 * x / 3),
    "maxout": lambda x, a: np.maximum(x[:, : x.shape[1] // 2], x[:, x.shape[1] // 2 :]),
}
WITH_PARAMETERS = [name + ":0.333" for name, activation in ACTIVATIONS.items() if activation.default is not None]


def examples(*shape):
    """(S, C, B, *space), zeros and large values among them."""
    x = torch.randn(shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64) * 3
    x.flatten()[:3] = torch.tensor([0.0, 30.0, -30.0])
    return x


def test_every_activation_has_a_layer_and_a_gain():
    assert MAKE_ACTIVATION.keys() == ACTIVATIONS.keys()


@pytest.mark.parametrize("shape", [(2, 4, 5), (2, 4, 5, 6), (2, 4, 5, 3, 3)], ids=str)
@pytest.mark.parametrize("activation", [*ACTIVATIONS, *WITH_PARAMETERS])
def test_an_activation_follows_its_formula(activation, shape):
    name, parameter = parse(activation)
    layer = stack(MAKE_ACTIVATION[name](parameter), [0, 1], dtype=torch.float64)
    x = examples(*shape)
    np.testing.assert_allclose(layer(x).detach(), FORMULAS[name](x.numpy(), parameter), rtol=1e-12, atol=1e-300)


def test_the_parameter_of_an_activation_reaches_the_block():
    cell = Cell(dataset="x", architecture="mlp", order="weight-act", activation="leaky_relu:0.333", depth=1)
    x = torch.tensor([-1.0, 1.0])
    torch.testing.assert_close(block(cell, 2, 2).act(x), torch.tensor([-0.333, 1.0]))


def test_prelu_learns_one_slope_for_each_seed():
    layer = stack(MAKE_ACTIVATION["prelu"](0.25), [0, 1])
    layer(torch.tensor([[[-1.0, 2.0]], [[-3.0, -4.0]]])).sum().backward()
    assert layer.weight.grad.tolist() == [[-1.0], [-7.0]]


@pytest.mark.parametrize("shape", [(2, 3, 4), (2, 3, 4, 5), (2, 3, 4, 5, 6)], ids=str)
def test_unfold_undoes_fold_without_a_copy(shape):
    x = examples(*shape)
    assert torch.equal(unfold(fold(x), x), x)
    assert fold(x).data_ptr() == x.data_ptr()


def test_a_weight_layer_maps_each_seed_by_its_own_matrix():
    layer = stack(Weight(3, 4), [0, 1], dtype=torch.float64)
    layer.bias.data += torch.arange(8).view(2, 4)
    x = examples(2, 3, 5)
    with torch.no_grad():
        expected = np.einsum("soi,sib->sob", layer.weight, x) + layer.bias.numpy()[..., None]
        np.testing.assert_allclose(layer(x), expected, rtol=1e-12)


def test_a_kernel_of_even_size_is_refused():
    with pytest.raises(ValueError, match=r"kernel \(2,\): sizes must be odd"):
        Weight(1, 1, (2,))


@pytest.mark.parametrize("shape", [(2, 3, 20), (2, 3, 20, 4), (2, 3, 20, 4, 4)], ids=str)
def test_batch_normalization_standardises_each_channel_of_each_seed(shape):
    layer = stack(BatchNorm(3), [0, 1], dtype=torch.float64)
    x = examples(*shape)
    y, x, axes = layer(x).detach(), x.numpy(), tuple(range(2, len(shape)))
    mean, variance = x.mean(axes, keepdims=True), x.var(axes, keepdims=True)
    np.testing.assert_allclose(y, (x - mean) / np.sqrt(variance + 1e-5), rtol=1e-9, atol=1e-12)


def test_running_averages_take_a_tenth_of_each_batch_and_the_unbiased_variance():
    layer = stack(BatchNorm(3), [0, 1], dtype=torch.float64)
    x = examples(2, 3, 20)
    layer(x)
    np.testing.assert_allclose(layer.running_mean, 0.1 * x.mean(2), rtol=1e-12)
    np.testing.assert_allclose(layer.running_var, 0.9 + 0.1 * x.var(2, correction=1), rtol=1e-12)


def test_dropout_zeroes_its_share_and_scales_up_the_rest():
    y = stack(Dropout(0.3), [0, 1])(torch.ones(2, 10, 1000))
    torch.testing.assert_close(y.unique(), torch.tensor([0, 1 / 0.7]))
    # n = 10,000 a seed; 4 standard errors of a share
    assert ((y == 0).double().mean((1, 2)) - 0.3).abs().max() < 4 * np.sqrt(0.3 * 0.7 / 10_000)


def test_dropout_draws_new_masks_at_every_step_and_others_for_every_seed():
    layer = stack(Dropout(0.5), [0, 1])
    first, second = layer(torch.ones(2, 5, 20)), layer(torch.ones(2, 5, 20))
    assert len({tuple(mask.flatten().tolist()) for mask in (*first, *second)}) == 4


def test_dropout_is_off_in_evaluation():
    x = examples(2, 3, 4)
    assert torch.equal(stack(Dropout(0.5), [0, 1]).eval()(x), x)
