"""Each layer against its formula, written with numpy; gradients against autograd; how images lie in memory."""

import numpy as np
import pytest
import torch
from scipy.special import erf, expit
from torch import nn

import harness
from grids import Cell
from harness.architectures import build
from harness.initialisation import ACTIVATIONS, parse
from harness.layers import MAKE_ACTIVATION, Dropout, Maxout, Weight, block
from harness.layout import fold, unfold
from harness.stacking import solo, stack

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


# Maxout's gradient


def gradients(function, x):
    x = x.clone().requires_grad_()
    y = function(x)
    (y * torch.arange(y.numel(), dtype=y.dtype).view(y.shape)).sum().backward()
    return x.grad


@pytest.mark.parametrize("shape", [(2, 4, 5), (2, 4, 5, 6), (2, 4, 5, 3, 3)], ids=str)
def test_the_gradient_of_maxout_is_that_of_autograd(shape):
    x = torch.randn(shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    assert torch.equal(gradients(Maxout(), x), gradients(lambda x: torch.maximum(*x.chunk(2, 1)), x))


def test_the_gradient_of_maxout_is_its_slope():
    x = torch.randn(2, 4, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(Maxout(), x)


def test_where_both_maps_of_maxout_are_equal_the_first_has_the_gradient():
    x = torch.tensor([[[1.0, 2.0], [1.0, 3.0]]])  # (1, 2·1, 2): a tie, then the second
    x.requires_grad_()
    Maxout()(x).sum().backward()
    assert x.grad.tolist() == [[[1.0, 0.0], [0.0, 1.0]]]


# Images


def images(channels, seeds, order="weight-bn-act", dtype=torch.float64):
    """A convolutional network, and a batch for it."""
    cell = Cell(dataset="x", architecture="cnn", order=order, activation="relu", depth=3, width=4, groups=2)
    model = stack(build(cell, (channels, 8, 8), 3), list(range(seeds)), dtype=dtype)
    return model, torch.randn(seeds, 5, channels, 8, 8, generator=torch.Generator().manual_seed(0), dtype=dtype)


@pytest.mark.parametrize("order", [*(f"weight-{norm}-act" for norm in harness.NORMS), "bn-act-weight"])
@pytest.mark.parametrize("seeds", [1, 3])
@pytest.mark.parametrize("channels", [1, 3])
def test_images_have_their_channels_together_from_the_first_convolution_on(channels, seeds, order):
    model, x = images(channels, seeds, order)
    layouts = {}

    def look(name):
        return lambda _, __, y: layouts.update({name: fold(y).is_contiguous(memory_format=torch.channels_last)})

    for name, layer in [("stem", model.stem), *model.blocks.named_modules()]:
        layer.register_forward_hook(look(name))
    model(x.movedim(1, 2))
    assert len(layouts) > 3 * 3
    assert all(layouts.values()), layouts
    for parameter in model.parameters():
        if parameter.ndim == 5:
            assert parameter.flatten(0, 1).is_contiguous(memory_format=torch.channels_last)


def test_a_convolution_to_one_map_learns_where_one_dnn_does_not_compute_it():
    """In float64 torch computes convolutions by itself, and refuses the gradient of kernels whose layout is ambiguous."""
    layer = stack(nn.Sequential(Weight(3, 1, (3, 3))), [0], dtype=torch.float64)
    x = torch.randn(1, 3, 4, 8, 8, dtype=torch.float64)
    layer(x).square().sum().backward()
    assert layer[0].weight.grad.isfinite().all()


@pytest.mark.parametrize("channels", [1, 3])
def test_the_gradients_of_images_are_those_of_torch_nn(channels):
    model, x = images(channels, seeds=2)
    model(x.movedim(1, 2)).square().sum().backward()
    for s in range(2):
        twin = solo(model, s)
        twin(x[s]).square().sum().backward()
        for ours, parameter in zip(model.parameters(), twin.parameters(), strict=True):
            torch.testing.assert_close(ours.grad[s], parameter.grad, rtol=1e-9, atol=1e-9)
