"""What the place of the normalization implies: invariances, what folds, dead biases; arms differ in nothing else."""

import copy
from collections import Counter

import pytest
import torch

import harness.stacking
import harness.training
from grids import Cell
from harness.architectures import build
from harness.initialisation import ACTIVATIONS
from harness.layers import Block, Dropout, Weight
from harness.normalizations import Normalization
from harness.stacking import stack
from harness.step import step_losses
from harness.training import train

# f(c·x) = c·f(x) for c > 0
HOMOGENEOUS = {"identity", "relu", "leaky_relu", "prelu", "maxout"}
NONE, BEFORE, AFTER = "weight-act", "weight-bn-act", "weight-act-bn"


def make(order, **fields):
    defaults = {"dataset": "x", "architecture": "mlp", "activation": "relu", "depth": 3, "width": 8, "bn_eps": 1e-12}
    return Cell(order=order, **{**defaults, **fields})


def stacked(cell, shape=(6,)):
    model = stack(build(cell, shape, 4), [0, 1], dtype=torch.float64)
    for i, layer in enumerate(layer for layer in model.modules() if isinstance(layer, Normalization)):
        rng = torch.Generator().manual_seed(i)
        for parameter in layer.parameters():  # as after some training; scales stay positive
            parameter.data += torch.rand(parameter.shape, generator=rng, dtype=torch.float64) - 0.5
    return model


def batch(shape=(6,), n=40):
    return torch.randn(2, shape[0], n, *shape[1:], generator=torch.Generator().manual_seed(9), dtype=torch.float64)


def in_blocks(model, kind):
    return [layer for each in model.modules() if isinstance(each, Block) for layer in each if isinstance(layer, kind)]


def apart(a, b):
    """Largest difference in units of the standard deviation."""
    return ((a - b).abs().max() / b.std()).item()


def multiplied(order, activation, times=10, **fields):
    """How far logits move when the weights of all blocks are multiplied."""
    model, x = stacked(make(order, activation=activation, **fields)), batch()
    before = model(x)
    for layer in in_blocks(model, Weight):
        layer.weight.data *= times
    return apart(model(x), before)


# The size of the weights


@pytest.mark.parametrize("norm", ["bn", "ln", "rms"])
@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_normalization_before_the_activation_makes_the_size_of_weights_irrelevant(activation, norm):
    assert multiplied(f"weight-{norm}-act", activation) < 1e-8


@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_bn_after_the_activation_does_so_only_where_the_activation_scales_with_its_input(activation):
    moved = multiplied(AFTER, activation)
    assert moved < 1e-8 if activation in HOMOGENEOUS else moved > 0.1


@pytest.mark.parametrize("activation", ["relu", "tanh"])
def test_without_normalization_the_size_of_weights_matters(activation):
    assert multiplied(NONE, activation) > 0.1


def test_init_gain_changes_nothing_but_the_weights_that_bn_before_the_activation_ignores():
    x = batch()
    for order, same in ((BEFORE, True), (AFTER, False)):
        one, other = (stacked(make(order, activation="tanh", init_gain=gain))(x) for gain in (1, 10))
        assert (apart(one, other) < 1e-8) == same


# What folds


@torch.no_grad()
def folded(bn, weight):
    """Layers that give together what `weight` gives after `bn` in evaluation mode: bn's scale and shift are in it."""
    scale = bn.weight / (bn.running_var + bn.eps).sqrt()  # (S, C)
    shift = bn.bias - bn.running_mean * scale
    new = copy.deepcopy(weight)
    space = [1] * len(weight.kernel)
    new.weight *= scale.view(len(scale), 1, -1, *space)
    new.bias += (weight.weight * shift.view(len(shift), 1, -1, *space)).flatten(2).sum(2)
    return new


def folding(cell, shape):
    """A trained-like model in evaluation mode, and the same with the bn of each block in the weight layer that follows."""
    model = stacked(cell, shape)
    model(batch(shape))  # moves the running averages
    model.eval()
    other = copy.deepcopy(model)
    for first, second in zip(other.blocks, [*other.blocks[1:], None], strict=True):
        bn = first._modules.pop("bn")
        if second is None:
            other.head = folded(bn, other.head)
        else:
            second._modules["weight"] = folded(bn, second.weight)
    assert in_blocks(model, Normalization)
    assert not in_blocks(other, Normalization)
    return model, other


@pytest.mark.parametrize("activation", ["relu", "tanh", "maxout"])
def test_an_affine_bn_after_the_activation_folds_into_the_next_linear_layer(activation):
    model, other = folding(make(AFTER, activation=activation), (6,))
    assert apart(other(batch()), model(batch())) < 1e-10


def test_it_does_not_fold_into_a_convolution_at_its_border_which_is_padded_with_zeros():
    shape = (2, 9, 9)
    model, other = folding(make(AFTER, architecture="cnn", depth=2, pool="before"), shape)
    for blocks in (model.blocks, other.blocks):  # without pooling, so that places stay places
        for each in blocks:
            each._modules.pop("pool")
    x = batch(shape)
    stem = model.stem(x)
    ours, theirs = other.blocks[1].weight(other.blocks[0](stem)), model.blocks[1].weight(model.blocks[0](stem))
    inside = (..., slice(1, -1), slice(1, -1))
    assert apart(ours[inside], theirs[inside]) < 1e-10
    assert apart(ours[..., 0, :], theirs[..., 0, :]) > 0.1


# Biases


def bias_gradients(order, **fields):
    """Of each weight layer in a block, the largest number of its bias's gradient in units of its weights'."""
    model, y = stacked(make(order, **fields)), torch.arange(40).remainder(4).expand(2, -1)
    step_losses(model, batch(), y)[0].sum().backward()
    return [(layer.bias.grad.abs().max() / layer.weight.grad.abs().max()).item() for layer in in_blocks(model, Weight)]


@pytest.mark.parametrize("activation", ["relu", "tanh", "maxout"])
def test_a_bias_in_front_of_bn_learns_nothing_and_one_in_front_of_the_activation_does(activation):
    assert max(bias_gradients(BEFORE, activation=activation)) < 1e-12
    assert min(bias_gradients(AFTER, activation=activation)) > 1e-3
    assert min(bias_gradients("weight-rms-act", activation=activation)) > 1e-3  # rms takes no mean


# Pooling


def pools(order, sign):
    """How far logits move when pooling changes its side of bn, whose scales all have this sign."""
    fields = {"architecture": "cnn", "depth": 2}
    early, late = (stacked(make(order, pool=pool, **fields), (2, 8, 8)) for pool in ("before", "after"))
    late.load_state_dict(early.state_dict())
    for model in (early, late):
        for layer in in_blocks(model, Normalization):
            layer.weight.data = layer.weight.data.abs() * sign
    assert [list(each._modules) for each in early.blocks] != [list(each._modules) for each in late.blocks]
    return apart(early.eval()(batch((2, 8, 8))), late.eval()(batch((2, 8, 8))))


@pytest.mark.parametrize("order", [AFTER, "weight-bn-act"])
def test_bn_and_max_pooling_may_change_places_only_where_scales_are_positive(order):
    assert pools(order, 1) < 1e-12  # relu rises, and so may change places too
    assert pools(order, -1) > 0.1


# Arms


class Recorder:
    """Every draw of a training: the seed and name of each stream, and the generators of dropout."""

    def __init__(self, monkeypatch):
        self.draws = Counter()
        stream = harness.stacking.stream

        def recorded(seed, name):
            self.draws[seed, name] += 1
            return stream(seed, name)

        monkeypatch.setattr(harness.stacking, "stream", recorded)
        monkeypatch.setattr(harness.training, "stream", recorded)


def training(monkeypatch, blobs, order, **fields):
    """Of a tiny training: its draws, every tensor that it began with by path, and how far each generator of masks came."""
    with monkeypatch.context() as patch:
        recorder, tensors, generators = Recorder(patch), {}, []

        def kept(model, *arguments, **options):
            model = stack(model, *arguments, **options)
            tensors.update({name: value.clone() for name, value in model.state_dict().items()})
            generators.extend(each for layer in in_blocks(model, Dropout) for each in layer.generators)
            return model

        patch.setattr(harness.training, "stack", kept)
        cell = make(order, batch=10, epochs=2, bn_eps=1e-5, **fields)
        train(cell, [3, 8], blobs((1, 8)))
    return recorder.draws, tensors, [each.get_state().tolist() for each in generators]


@pytest.mark.parametrize("drop", ["", "-drop"])
@pytest.mark.parametrize("architecture", ["mlp", "cnn"])
def test_arms_differ_in_nothing_but_the_order(monkeypatch, blobs, architecture, drop):
    arms = {
        order: training(monkeypatch, blobs, order + drop, architecture=architecture) for order in (NONE, BEFORE, AFTER)
    }
    draws, tensors, masks = arms[NONE]
    assert len(masks) == (3 * 2 if drop else 0)
    assert {seed for seed, _ in draws} == {3, 8}
    assert {"batches.1", "batches.2", "stem.weight", "blocks.0.weight.weight", "head.weight"} <= {
        name for _, name in draws
    }
    for order in (BEFORE, AFTER):
        own_draws, own_tensors, own_masks = arms[order]
        assert own_masks == masks
        shared = Counter({key: n for key, n in own_draws.items() if ".bn." not in key[1]})
        assert shared == draws
        assert {name for name in own_tensors if ".bn." not in name} == tensors.keys()
        assert all(torch.equal(own_tensors[name], value) for name, value in tensors.items())
        for name in own_tensors.keys() - tensors.keys():  # a bn draws nothing: it begins as ones and zeros
            assert set(own_tensors[name].flatten().tolist()) == {float(name.endswith(("weight", "running_var")))}
    assert arms[BEFORE][0] == arms[AFTER][0]
    assert arms[BEFORE][1].keys() == arms[AFTER][1].keys()


@pytest.mark.parametrize("norm", harness.NORMS)
def test_masks_of_dropout_are_the_same_in_every_arm(norm):
    def masks(order):
        model = stack(build(make(f"{order}-drop", architecture="cnn", dropout=0.5), (2, 8, 8), 4), [0, 1])
        return [each.initial_seed() for layer in in_blocks(model, Dropout) for each in layer.generators]

    assert len(set(masks(NONE))) == 3 * 2
    assert masks(NONE) == masks(f"weight-{norm}-act") == masks(f"{norm}-weight-act")
