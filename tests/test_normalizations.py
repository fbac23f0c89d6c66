"""Each normalization against its formula, written with numpy, and against its twin of torch.nn; what cannot work."""

import numpy as np
import pytest
import torch
from torch import nn

import harness
from grids import Cell
from harness.normalizations import BatchNorm, GroupNorm, Normalization, RMSNorm, normalization
from harness.stacking import solo, stack

SHAPES = [(2, 4, 5), (2, 4, 5, 6), (2, 4, 5, 3, 3), (2, 16, 5, 3, 3)]  # 16: groups of 8 go another way in images
WITHIN = {"ln": 1, "gn": 2, "in": None, "rms": 1}  # groups of those that take each example by itself; None: channels


def make(**fields):
    return Cell(dataset="x", architecture="mlp", order="weight-act", activation="relu", depth=1, **fields)


def layer_of(name, shape, **fields):
    """Two seeds of a normalization in float64, with scales and shifts of their own."""
    layer = stack(
        nn.Sequential(normalization(make(**{"groups": 2, **fields}), name, shape[1], len(shape) - 3)),
        [0, 1],
        dtype=torch.float64,
    )[0]
    for i, parameter in enumerate(layer.parameters()):
        parameter.data += torch.randn(parameter.shape, generator=torch.Generator().manual_seed(i), dtype=torch.float64)
    return layer


def examples(shape):
    """(S, C, B, *space), no channel with mean 0 or variance 1."""
    x = torch.randn(shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    return x * 3 + torch.arange(shape[1], dtype=torch.float64).view(-1, *[1] * (len(shape) - 2))


CASES = [(name, shape) for name in harness.NORMS for shape in SHAPES if name != "in" or len(shape) > 3]


def by_formula(x, name, eps):
    """Without scale and shift. (S, C, B, *space) -> the same"""
    if name == "bn":
        axes = (2, *range(3, x.ndim))
        return (x - x.mean(axes, keepdims=True)) / np.sqrt(x.var(axes, keepdims=True) + eps)
    s, c = x.shape[:2]
    groups = WITHIN[name] or c
    grouped = x.reshape(s, groups, c // groups, *x.shape[2:])
    axes = (2, *range(4, grouped.ndim))
    if name == "rms":
        y = grouped / np.sqrt((grouped**2).mean(axes, keepdims=True) + eps)
    else:
        y = (grouped - grouped.mean(axes, keepdims=True)) / np.sqrt(grouped.var(axes, keepdims=True) + eps)
    return y.reshape(x.shape)


@pytest.mark.parametrize(("name", "shape"), CASES, ids=str)
def test_a_normalization_follows_its_formula(name, shape):
    layer, x = layer_of(name, shape, bn_eps=0.1), examples(shape)
    scale, shift = (
        np.zeros(1) if each is None else each.detach().numpy().reshape(2, -1, *[1] * (len(shape) - 2))
        for each in (layer.weight, layer.bias)
    )
    np.testing.assert_allclose(
        layer(x).detach(), by_formula(x.numpy(), name, 0.1) * scale + shift, rtol=1e-9, atol=1e-9
    )


@pytest.mark.parametrize("affine", [True, False])
@pytest.mark.parametrize(("name", "shape"), CASES, ids=str)
def test_a_normalization_is_its_twin_of_torch_nn_forward_and_backward(name, shape, affine):
    layer, x = layer_of(name, shape, affine=affine), examples(shape).requires_grad_()
    weights = torch.randn(shape, generator=torch.Generator().manual_seed(9), dtype=torch.float64)
    twins = [solo(layer, s) for s in range(2)]
    y = layer(x)
    wanted = [x, *layer.parameters()]
    gradients = torch.autograd.grad((y * weights).sum(), wanted)
    assert len(wanted) == 1 + (0 if not affine else 1 if name == "rms" else 2)
    for s, twin in enumerate(twins):
        assert type(twin).__module__.startswith("torch.nn") or isinstance(twin, nn.RMSNorm)
        alone = x[s].detach().movedim(1, 0).requires_grad_()  # (B, C, *space)
        expected = twin(alone)
        torch.testing.assert_close(y[s].movedim(1, 0), expected, rtol=1e-10, atol=1e-10)
        of_twin = torch.autograd.grad((expected * weights[s].movedim(1, 0)).sum(), [alone, *twin.parameters()])
        torch.testing.assert_close(gradients[0][s].movedim(1, 0), of_twin[0], rtol=1e-9, atol=1e-9)
        for ours, theirs in zip(gradients[1:], of_twin[1:], strict=True):
            torch.testing.assert_close(ours[s], theirs, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("name", ["ln", "rms"])
def test_without_space_ln_and_rms_are_those_of_torch(name):
    layer, x = layer_of(name, (2, 4, 5)), examples((2, 4, 5))
    for s in range(2):
        theirs = (nn.LayerNorm if name == "ln" else nn.RMSNorm)(4, eps=1e-5).double()
        theirs.load_state_dict({key: value[s] for key, value in layer.state_dict().items()})
        torch.testing.assert_close(layer(x)[s].T, theirs(x[s].T), rtol=1e-10, atol=1e-10)


def test_rms_with_space_is_that_of_torch_with_one_scale_for_each_channel():
    layer, x = layer_of("rms", (2, 4, 5, 3, 3)), examples((2, 4, 5, 3, 3))
    theirs = nn.RMSNorm((4, 3, 3), eps=1e-5).double()
    for s in range(2):
        theirs.weight.data = layer.weight.detach()[s].view(4, 1, 1).expand(4, 3, 3)
        torch.testing.assert_close(layer(x)[s].movedim(1, 0), theirs(x[s].movedim(1, 0)), rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("name", WITHIN)
def test_what_takes_each_example_by_itself_has_no_averages_and_is_the_same_in_evaluation(name):
    layer, x = layer_of(name, (2, 4, 5, 6)), examples((2, 4, 5, 6))
    trained = layer(x)
    assert list(layer.buffers()) == []
    assert torch.equal(layer.eval()(x), trained)
    torch.testing.assert_close(layer(x[:, :, :1]), trained[:, :, :1])  # whatever the other examples are


@pytest.mark.parametrize("shape", [(2, 3, 20), (2, 3, 20, 4), (2, 3, 20, 4, 4)], ids=str)
def test_running_averages_take_their_share_of_each_batch_and_the_unbiased_variance(shape):
    layer, x = layer_of("bn", shape, bn_momentum=0.3, affine=False), examples(shape)
    layer(x)
    values = x.flatten(2)
    np.testing.assert_allclose(layer.running_mean, 0.3 * values.mean(2), rtol=1e-12)
    np.testing.assert_allclose(layer.running_var, 0.7 + 0.3 * values.var(2, correction=1), rtol=1e-9)


@pytest.mark.parametrize(("wanted", "channels", "groups"), [(8, 64, 8), (8, 12, 4), (3, 64, 1), (100, 4, 4)])
def test_gn_has_the_greatest_number_of_groups_that_divides_both(wanted, channels, groups):
    assert normalization(make(groups=wanted), "gn", channels, 2).groups == groups


@pytest.mark.parametrize("name", harness.NORMS)
def test_without_affine_there_is_nothing_to_train(name):
    assert list(normalization(make(affine=False), name, 16, 2).parameters()) == []


@pytest.mark.parametrize("name", harness.NORMS)
def test_momentum_and_eps_of_a_cell_reach_its_normalizations(name):
    layer = normalization(make(bn_eps=0.25, bn_momentum=0.5), name, 16, 1)
    assert layer.eps == 0.25
    assert getattr(layer, "momentum", 0.5) == 0.5
    assert isinstance(layer, (BatchNorm, GroupNorm, RMSNorm))
    assert isinstance(layer, Normalization)


@pytest.mark.parametrize(("name", "channels"), [("in", 16), ("gn", 8), ("ln", 1)])
def test_groups_of_one_number_are_refused_where_they_are_built(name, channels):
    with pytest.raises(ValueError, match=f"of {channels} channels in {channels} groups without space: .* becomes 0"):
        normalization(make(groups=8), name, channels, 0)


def test_groups_of_one_number_are_refused_where_pooling_has_left_a_single_place():
    layer = stack(nn.Sequential(normalization(make(), "in", 3, 2)), [0])
    assert layer(torch.randn(1, 3, 2, 2, 1)).shape == (1, 3, 2, 2, 1)
    with pytest.raises(ValueError, match="3 channels in 3 groups without space"):
        layer(torch.randn(1, 3, 2, 1, 1))
