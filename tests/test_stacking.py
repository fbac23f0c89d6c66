"""The proof that stacking is sound: S seeds trained as one model do what S models of torch.nn do side by side."""

import random

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from oracles import optimiser

import harness
from grids import Cell
from harness.architectures import build
from harness.initialisation import ACTIVATIONS
from harness.layers import Dropout
from harness.stacking import solo, stack, stream
from harness.step import make_step
from harness.training import learning_rate

SEEDS = [5, 0, 11]
CLASSES, BATCH = 3, 6
ARCHITECTURES = harness.names("architectures")
ORDERS = [  # bn and drop at every place where they can stand
    "weight-act",
    "act-weight",
    "bn-weight-act",
    "weight-bn-act",
    "weight-act-bn",
    "bn-act-weight",
    "act-bn-weight",
    "act-weight-bn",
    "weight-ln-act",
    "weight-act-rms",
    "gn-act-weight",
    "in-weight-act",
    "drop-weight-bn-act",
    "weight-drop-act-bn",
    "bn-act-drop-weight",
    "act-weight-bn-drop",
]


def make(architecture, **fields):
    return Cell.model_validate(
        {"dataset": "digits", "architecture": architecture, "depth": 2, "width": 16, "groups": 2, "lr": 0.05, **fields},
        context=harness.choices(),
    )


def buildable(architecture, shape):
    try:
        build(make(architecture, order="weight-act", activation="relu"), shape, CLASSES)
    except ValueError:  # an architecture may need one or two dimensions
        return False
    return True


NETWORKS = [
    (architecture, shape)
    for architecture in ARCHITECTURES
    for shape in ([(1, 12), (2, 8, 8)] if harness.convolves(architecture) else [(1, 6)])
    if buildable(architecture, shape)
]


def apart(a, b):
    """Largest difference, in units of the largest number."""
    return ((a - b).abs().max() / b.abs().max().clamp(min=1e-12)).item()


def joined(gradients):
    return torch.cat([gradient.flatten() for gradient in gradients])


def assert_stacked_equals_solo(cell, shape, steps):
    """Trains the stacked model and its twins side by side, and compares losses, gradients and buffers at each step."""
    model = stack(build(cell, shape, CLASSES), SEEDS, dtype=torch.float64)
    twins = [solo(model, s) for s in range(len(SEEDS))]
    optimisers = [optimiser(cell, twin) for twin in twins]
    rng = torch.Generator().manual_seed(0)
    index = torch.randperm(steps * len(SEEDS) * BATCH, generator=rng).view(steps, len(SEEDS), BATCH)
    x = torch.randn(index.numel(), *shape, generator=rng, dtype=torch.float64)
    y = torch.randint(CLASSES, (index.numel(),), generator=rng)
    step = make_step(model, cell, x, y)
    # Adam divides by a gradient's size, or 1e-8: of biases that bn cancels, 1e-17 of rounding becomes 1e-8.
    close = 1e-7 if cell.optimiser == "adam" else 1e-9
    for i in range(steps):
        lr = learning_rate(cell, i, steps)
        losses, right, gradients = step(index[i], lr)
        for s, (twin, plain) in enumerate(zip(twins, optimisers, strict=True)):
            for parameters in plain.param_groups:
                parameters["lr"] = lr
            plain.zero_grad()
            logits, target = twin(x[index[i, s]]), y[index[i, s]]
            loss = F.cross_entropy(logits, target)
            loss.backward()
            plain.step()
            assert abs(losses[s] / loss - 1) < 1e-9
            assert right[s] == (logits.argmax(1) == target).sum()
            expected = joined(p.grad for p in twin.parameters())
            assert apart(joined(gradient[s] for gradient in gradients), expected) < close
            buffers = {name: value[s] for name, value in model.named_buffers()}
            for name, value in twin.named_buffers():
                if name.endswith("running_mean"):
                    sd = buffers[name.replace("mean", "var")].sqrt()
                    assert ((buffers[name] - value).abs() / sd).max() < close
                elif name.endswith("running_var"):
                    assert (buffers[name] / value - 1).abs().max() < 1e-9


# Maxout changes what a block takes and gives, so it stands with every order; the other activations take turns.
PAIRS = [
    (network, order, activation)
    for i, network in enumerate(NETWORKS)
    for j, order in enumerate(ORDERS)
    for k, activation in enumerate(ACTIVATIONS)
    if (activation == "maxout" or (i + j + k) % 6 == 0)
    and ("in" not in order.split("-") or harness.convolves(network[0]))
]


def test_every_architecture_can_be_built_for_some_shape():
    assert {architecture for architecture, _ in NETWORKS} == set(ARCHITECTURES)


@pytest.mark.parametrize(("network", "order", "activation"), PAIRS, ids=str)
def test_stacked_seeds_train_as_their_solo_models_do(network, order, activation):
    architecture, shape = network
    cell = make(architecture, order=order, activation=activation, dropout=0.3)
    assert_stacked_equals_solo(cell, shape, steps=3)


def any_cell(draw):
    """A random valid cell and a shape that it can be built for."""
    rng = random.Random(draw)
    while True:
        cell, shape = random_cell(rng)
        try:
            build(cell, shape, CLASSES)
        except ValueError:  # a normalization would leave nothing, as `in` without space
            continue
        return cell, shape


def random_cell(rng):
    layers = ["weight", "act", *rng.choice([(), (rng.choice(harness.NORMS),)]), *rng.choice([(), ("drop",)])]
    name = rng.choice(list(ACTIVATIONS))
    parameter = "" if ACTIVATIONS[name].default is None else rng.choice(["", f":{rng.uniform(0.01, 0.9):.3f}"])
    architecture, shape = rng.choice(NETWORKS)
    cell = make(
        architecture,
        order="-".join(rng.sample(layers, len(layers))),
        activation=name + parameter,
        depth=rng.randint(1, 4),
        lr=10 ** rng.uniform(-4, -1),
        epochs=rng.randint(1, 3),
        batch=rng.randint(2, 9),
        width=rng.randint(1, 6),
        schedule=rng.choice(["constant", "cosine", "onecycle"]),
        optimiser=rng.choice(["sgd", "adam"]),
        momentum=rng.choice([0, 0.5, 0.9]),
        weight_decay=rng.choice([0, 1e-3, 0.1]),
        dropout=rng.choice([0, 0.1, 0.5]),
        maxout_width=rng.choice(["same", "matched"]),
        affine=rng.choice([True, False]),
        bias=rng.choice([True, False]),
        bn_momentum=rng.choice([0.1, 0.5]),
        bn_eps=rng.choice([1e-5, 0.1]),
        groups=rng.randint(1, 4),
        weight_decay_norm=rng.choice([True, False]),
        stem_norm=rng.choice(["none", "none", *harness.NORMS]),
        head_norm=rng.choice(["none", "none", *harness.NORMS]),
        pool=rng.choice(["after", "before"]),
        init=rng.choice(["he", "xavier", "orthogonal"]),
        init_gain=rng.choice([1, 0.3]),
        branch_end=rng.choice(["order", "norm", "weight"]),
        after_sum=rng.choice(["none", "bn"] if name == "maxout" else ["none", "act", "bn", "bn-act", "act-bn"]),
        after_blocks=rng.choice(["none", "gn"] if name == "maxout" else ["none", "act", "gn-act"]),
    )
    return cell, shape


@pytest.mark.parametrize("draw", range(200))
def test_stacked_equals_solo_for_any_cell(draw):
    assert_stacked_equals_solo(*any_cell(draw), steps=2)


@pytest.mark.parametrize(("architecture", "shape"), NETWORKS, ids=str)
def test_stacked_equals_solo_in_evaluation(architecture, shape):
    cell = make(architecture, order="weight-bn-act-drop", activation="relu")
    model = stack(build(cell, shape, CLASSES), SEEDS, dtype=torch.float64)
    x = torch.randn(len(SEEDS), BATCH, *shape, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    model(x.movedim(1, 2))  # moves the running averages
    logits = model.eval()(x.movedim(1, 2))
    for s in range(len(SEEDS)):
        assert apart(logits[s].T, solo(model, s)(x[s])) < 1e-12


def test_solo_copies():
    model = stack(build(make("mlp", order="weight-bn-act", activation="relu"), (6,), CLASSES), SEEDS)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    twin = solo(model, 1)
    with torch.no_grad():
        for tensor in twin.state_dict().values():
            tensor += 1
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def draws(seeds=SEEDS, shape=(2, 8, 8), **fields):
    """What is drawn, by path and shape of one seed."""
    model = stack(build(make(**{"activation": "relu", "depth": 3, **fields}), shape, CLASSES), list(seeds))
    return {(name, value.shape[1:]): value for name, value in model.state_dict().items()}


@pytest.mark.parametrize(
    ("architecture", "order"),
    [(name, order) for name in ARCHITECTURES for order in ORDERS if "in-" not in order or harness.convolves(name)],
)
def test_equal_seeds_have_equal_draws_whatever_the_order(architecture, order):
    one, other = draws(architecture=architecture, order="weight-act"), draws(architecture=architecture, order=order)
    assert one.keys() <= other.keys()
    assert all(torch.equal(one[key], other[key]) for key in one)


@pytest.mark.parametrize("init", ["he", "orthogonal"])
@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_equal_seeds_have_equal_draws_whatever_the_depth(architecture, init):
    one, other = (draws(architecture=architecture, order="weight-bn-act", init=init, depth=depth) for depth in (2, 4))
    common = one.keys() & other.keys()
    assert any("blocks" in name for name, _ in common)
    assert all(torch.equal(one[key], other[key]) for key in common)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_a_seed_has_equal_draws_whatever_its_company(architecture):
    alone = draws([5], architecture=architecture, order="weight-bn-act")
    among = draws([0, 5, 11], architecture=architecture, order="weight-bn-act")
    assert all(torch.equal(alone[key][0], among[key][1]) for key in alone)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_other_seeds_and_other_layers_have_other_draws(architecture):
    weights = [w for (name, _), w in draws(architecture=architecture, order="weight-act").items() if w.ndim > 2]
    rows = [tuple(w[s].flatten()[:4].tolist()) for w in weights for s in range(len(SEEDS))]
    assert len(set(rows)) == len(rows)


@pytest.mark.parametrize("norm", harness.NORMS)
def test_normalization_draws_nothing(norm):
    drawn = draws(architecture="cnn", order=f"weight-{norm}-act")
    values = {name: value for (name, _), value in drawn.items() if f".{norm}." in name}
    assert len(values) == 3 * {"bn": 4, "rms": 1}.get(norm, 2)
    for name, value in values.items():
        assert (value == (1 if name.endswith(("weight", "running_var")) else 0)).all()


def test_dropout_masks_belong_to_the_seed_and_the_layer():
    def states(seeds):
        model = build(make("mlp", order="weight-act-drop", activation="relu"), (6,), CLASSES)
        layers = [layer for layer in stack(model, seeds).modules() if isinstance(layer, Dropout)]
        return [[generator.initial_seed() for generator in layer.generators] for layer in layers]

    first, second = states([5, 0])
    assert states([0, 5]) == [first[::-1], second[::-1]]
    assert len({*first, *second}) == 4


def test_a_stream_belongs_to_its_seed_and_purpose():
    # numpy.random.default_rng(SeedSequence(7, spawn_key=(zlib.crc32(b"stem.weight"),))) of numpy 2.4
    assert stream(7, "stem.weight").integers(1000, size=4).tolist() == [231, 633, 147, 749]
    assert not np.array_equal(stream(7, "stem.weight").random(4), stream(7, "head.weight").random(4))
    assert not np.array_equal(stream(7, "stem.weight").random(4), stream(8, "stem.weight").random(4))
