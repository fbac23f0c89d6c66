"""Probes: each number against a closed form or a plain computation; no effect on training; they move as they should."""

import copy
import dataclasses
import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from oracles import optimiser as optimiser_of
from scipy import integrate, stats
from torch import nn
from torch.func import functional_call

import harness
from grids import Cell, Probes
from harness import probes
from harness.architectures import build
from harness.engine import COMPILED
from harness.evaluation import evaluate
from harness.initialisation import ACTIVATIONS
from harness.layers import MAKE_ACTIVATION, MAXOUT_MAPS, block, network
from harness.plan import Trial
from harness.probes import COLUMNS, OF_WEIGHTS, gradients, kept, sites, watched
from harness.stacking import solo, stack
from harness.training import on_device, train
from harness.trial import run_trial
from harness.values import FLAT, MOST_VALUES, NUMBERS, SAMPLE, SATURATED, describe, saturated, spread
from results.schema import LAYERS, QUANTILES

GENERATOR = torch.Generator().manual_seed(0)
SEEDS = [3, 8, 1]


def make(**fields):
    defaults = {"dataset": "x", "architecture": "mlp", "order": "weight-bn-act", "activation": "relu", "depth": 2}
    return Cell(**{**defaults, "width": 16, "batch": 10, "epochs": 3, "lr": 0.05, **fields})


def network_of(cell, shape, seeds=SEEDS, dtype=torch.float64):
    return stack(build(cell, shape, 3), seeds, dtype=dtype)


def normal(*shape, dtype=torch.float64):
    return torch.randn(*shape, generator=GENERATOR, dtype=dtype)


def by_site(probe):
    """By (block, site), the numbers of one probe: {column: (S,)}."""
    return {where: {name: probe.numbers[name][i] for name in COLUMNS} for i, where in enumerate(probe.sites)}


def probed(cell, data, epoch=0, prepare=None):
    """What a prober finds in new networks, which `prepare` may change; at an epoch > 0 as if they had been trained."""
    model = network_of(cell, data.shape, dtype=torch.float32)
    if prepare:
        prepare(model)
    prober = probes.Prober(model, cell, on_device(data, "cpu"), [epoch])
    with prober.at(epoch), torch.no_grad():
        if epoch:
            model.eval()(probes.shared_batch(torch.from_numpy(data.x_val), len(SEEDS)))
    return by_site(prober.found[0])


# The values of a layer


@pytest.mark.parametrize(
    ("activation", "function"),
    [
        ("relu", lambda z: np.maximum(z, 0)),
        ("tanh", np.tanh),
        ("leaky_relu:0.333", lambda z: np.where(z > 0, z, 0.333 * z)),
    ],
)
def test_moments_behind_an_activation_of_normal_values_are_those_of_quadrature(activation, function):
    """A block of only an activation is given a million values that lie as those of a normal variable do, off 0."""
    mean, sd, n = 0.3, 1.5, 1_000_000
    layer = block(make(order="act-weight", activation=activation), 20, 20)
    del layer[1]
    z = stats.norm.ppf((np.arange(n) + 0.5) / n) * sd + mean
    described = describe(layer(torch.from_numpy(z).float().view(1, 20, -1)))

    def moment(power, centre):
        integrand = lambda z: (function(mean + sd * z) - centre) ** power * stats.norm.pdf(z)  # noqa: E731
        return sum(integrate.quad(integrand, *ends, epsabs=1e-12)[0] for ends in ((-9, -mean / sd), (-mean / sd, 9)))

    centre = moment(1, 0)
    variance = moment(2, centre)
    below = stats.norm.cdf(-mean / sd)
    expected = {
        "mean": centre,
        "sd": math.sqrt(variance),
        "skewness": moment(3, centre) / variance**1.5,
        "kurtosis": moment(4, centre) / variance**2,
        "zeros": below if activation == "relu" else 0,
        "negative": 0 if activation == "relu" else below,
    }
    for values, name in zip(described.numbers, NUMBERS, strict=True):
        assert values == pytest.approx([expected[name]], abs=5e-4), name
    inner = np.array(QUANTILES[1:-1])
    assert described.quantiles[0, 1:-1] == pytest.approx(function(mean + sd * stats.norm.ppf(inner)), abs=0.02)


@pytest.mark.parametrize("shape", [(3, 5, 40), (2, 4, 30, 6), (1, 4, 20, 5, 6), (2, 4, 20, 5, 6)], ids=str)
def test_values_are_described_as_by_numpy_a_seed_at_a_time(shape):
    x = normal(*shape) * 3 + 1
    x = torch.where(x > 2.5, 0, x)
    if x.ndim == 5:  # in memory as convolutions give it: channels last
        x = x.movedim(2, 0).flatten(1, 2).contiguous(memory_format=torch.channels_last).unflatten(1, shape[:2])
        x = x.movedim(0, 2)
    described, wide = describe(x), spread(x)
    for s in range(shape[0]):
        values = x[s].numpy().ravel()
        plain = [
            values.mean(), values.std(), stats.skew(values), stats.kurtosis(values, fisher=False),
            np.mean(values == 0), np.mean(values < 0),
        ]  # fmt: skip
        assert described.numbers[:, s] == pytest.approx(plain, rel=1e-9)
        if values.size <= SAMPLE:
            assert described.quantiles[s] == pytest.approx(np.quantile(values, QUANTILES), rel=1e-9)
        m = x[s].numpy().reshape(*shape[1:3], -1).mean(-1)  # (C, B)
        eigenvalues = np.linalg.eigvalsh(m @ m.T / m.shape[1])
        unit = (m / np.linalg.norm(m, axis=0).clip(1e-300)).T[m.any(0)].T
        pairs = [unit[:, i] @ unit[:, j] for i in range(unit.shape[1]) for j in range(unit.shape[1]) if i != j]
        assert wide[:, s] == pytest.approx([eigenvalues.sum() ** 2 / (eigenvalues**2).sum(), np.mean(pairs)], rel=1e-8)


def test_float32_is_exact_enough_for_values_far_from_0_and_from_1():
    z = normal(1, 8, 4000)
    exact = describe(z).numbers[2:4, 0]
    for scale, shift in ((1e-12, 0.0), (1e12, 0.0), (1.0, 100.0)):
        there = describe((z * scale + shift).float()).numbers[:, 0]
        assert there[2:4] == pytest.approx(exact, abs=2e-3)
        assert there[1] == pytest.approx(z.std().item() * scale, rel=1e-3)


def test_of_more_values_than_are_described_the_first_examples_are():
    x = normal(1, 2, 5, 1000, 1100, dtype=torch.float32)
    few = MOST_VALUES // (2 * 1000 * 1100)
    assert 0 < few < 5
    assert (describe(x).numbers == describe(x[:, :, :few]).numbers).all()


def test_quantiles_of_many_values_are_of_a_sample_that_is_spread_over_all_channels():
    x = torch.arange(64.0)[None, None, None, :].expand(1, 100, 8, 64).movedim(3, 1)[..., 0] + 0  # a channel, a value
    described = describe(x)
    assert described.sample.shape == (1, SAMPLE)
    assert np.unique(described.sample).tolist() == list(range(64))
    assert described.quantiles[0] == pytest.approx(np.quantile(np.arange(64), QUANTILES), abs=1.5)


def test_constants_and_values_that_are_not_finite_have_no_shape():
    x = torch.stack([torch.full((4, 9), 0.1), torch.full((4, 9), torch.inf), normal(4, 9).float()])
    x[2, 0, 0] = torch.nan
    described = describe(x)
    numbers = dict(zip(NUMBERS, described.numbers, strict=True))
    assert numbers["mean"][0] == pytest.approx(0.1)
    assert numbers["sd"][0] == pytest.approx(0, abs=1e-8)
    assert np.isnan(numbers["skewness"]).all()
    assert np.isnan(described.numbers[:, 1:]).all()
    assert np.isnan(described.quantiles[1:]).all()
    assert not np.isnan(described.quantiles[0]).any()


def test_the_effective_rank_of_orthogonal_directions_is_their_number():
    rank, examples = 5, 60
    directions, _ = np.linalg.qr(normal(16, rank).numpy())
    coordinates, _ = np.linalg.qr(normal(examples, rank).numpy())
    x = torch.from_numpy(directions @ coordinates.T)[None]
    assert spread(x)[0] == pytest.approx(rank)
    assert spread(x.repeat(1, 1, 3))[0] == pytest.approx(rank)
    along = torch.from_numpy(np.outer(normal(16).numpy(), np.abs(normal(examples).numpy())))[None]
    assert spread(along)[:, 0] == pytest.approx([1, 1])


@pytest.mark.parametrize("scale", [1e-25, 1e15])
def test_numbers_whose_squares_float32_does_not_hold_are_described_as_others_are(scale):
    x = normal(2, 4, 50, dtype=torch.float32)
    small, plain = describe(x * scale).numbers, describe(x).numbers
    np.testing.assert_allclose(small, plain * np.array([scale, scale, 1, 1, 1, 1])[:, None], rtol=2e-4)
    np.testing.assert_allclose(spread(x * scale), spread(x), rtol=1e-4)


def test_rank_and_cosine_are_of_the_examples_that_the_mean_is_of(monkeypatch):
    monkeypatch.setattr("harness.values.MOST_VALUES", 4 * 9 * 20)
    x = normal(2, 4, 50, 3, 3)
    assert (spread(x) == spread(x[:, :, :20])).all()
    assert (spread(x) != spread(x[:, :, :19])).all()


def test_representations_of_length_0_have_no_cosine():
    x = torch.tensor([[[1.0, 0.0, 1.0, 0.0], [0.0, 0.0, 1.0, 0.0]]])
    assert spread(x)[1, 0] == pytest.approx(math.sqrt(0.5))
    assert np.isnan(spread(torch.zeros(1, 2, 4))[1, 0])


# Saturation


@pytest.mark.parametrize("activation", [*ACTIVATIONS, "elu:0.3", "elu:-1.5", "elu:0.0", "leaky_relu:0.0"])
def test_an_activation_is_saturated_where_it_hardly_has_a_slope(activation):
    name, parameter = harness.initialisation.parse(activation)
    z = torch.linspace(-40, 40, 40_001, dtype=torch.float64)
    low, high = SATURATED[name](parameter)
    if name in ("identity", "prelu", "maxout") or (name == "leaky_relu" and parameter):
        assert (low, high) == (-math.inf, math.inf)
        return
    z.requires_grad_()
    layer = MAKE_ACTIVATION[name](parameter)
    y = layer(z)
    (slope,) = torch.autograd.grad(y.sum(), z)
    there = (z <= low) | (z >= high)
    outputs = {"tanh": 1, "softsign": 1, "lecun_tanh": 1.7159}
    if name in outputs:
        assert torch.equal(there, (y / outputs[name]).abs() >= 0.97)
    elif name == "sigmoid":
        assert torch.equal(there, (y <= 0.015) | (y >= 0.985))
    elif name in ("relu", "leaky_relu"):
        assert torch.equal(there, y == 0)
    else:
        flat = FLAT * slope[-1].item()  # flat everywhere to the left of the bound, and no longer at it
        assert (slope[z < low - 2e-3].abs() < flat).all()
        bound = (z - low).abs().argmin()
        assert low == 0 or slope[bound].abs().item() == pytest.approx(flat, abs=2e-3)
    assert torch.equal(saturated(activation, z.detach()[None, None])[0, 0], there.sum())


def test_a_channel_that_never_acts_is_dead_and_the_others_are_not(blobs):
    data = blobs(train=300)
    kill = lambda model: model.blocks[0].weight.bias.data[:, 5].fill_(-1e3)  # noqa: E731
    cell = make(order="weight-act", activation="relu")
    before, after = probed(cell, data)[1, "act"], probed(cell, data, prepare=kill)[1, "act"]
    assert (before["dead"] == 0).all()
    assert after["dead"] == pytest.approx([1 / 16] * len(SEEDS))
    assert (after["saturated"] > before["saturated"]).all()


def test_a_channel_counts_as_dead_only_if_no_example_of_any_batch_wakes_it(blobs, monkeypatch):
    monkeypatch.setattr(probes, "EVALUATION_BATCH", 7)
    data = blobs(train=300)  # 30 for validation
    numbers = probed(make(order="weight-act"), data)
    model = stack(build(make(order="weight-act"), data.shape, data.classes), SEEDS)
    z = model.blocks[0].weight(model.stem(model.flatten(probes.shared_batch(torch.from_numpy(data.x_val), len(SEEDS)))))
    off = z <= 0
    assert numbers[1, "act"]["saturated"] == pytest.approx(off.double().mean((1, 2)).numpy())
    assert numbers[1, "act"]["dead"] == pytest.approx(off.all(2).double().mean(1).numpy())


# Where it is looked at


@pytest.mark.parametrize("architecture", harness.names("architectures"))
def test_every_site_of_every_block_is_described_by_what_its_layer_gives(architecture, blobs):
    data, cell = (
        blobs((1, 8, 8)),
        make(architecture=architecture, order="weight-bn-act-drop", activation="tanh", depth=3),
    )
    model = network_of(cell, data.shape, dtype=torch.float32).eval()
    x = torch.from_numpy(data.x_val)
    given: dict[nn.Module, tuple] = {}
    for module in model.modules():
        module.register_forward_hook(lambda module, args, y: given.__setitem__(module, (args[0], y)))
    with watched(model, cell) as seen, torch.no_grad():
        model(probes.shared_batch(x, len(SEEDS)))
    blocks = list(model.blocks.children())
    assert {each.site.block for each in seen} == {0, *range(1, 5)}
    for number, child in enumerate(blocks, 1):
        names = {each.site.name for each in seen if each.site.block == number}
        assert {"input", "output"} < names
        assert {name.rpartition(".")[2] for name in names} >= {"weight", "bn", "act", "drop"}
        leaves = [path for path, leaf in child.named_modules() if not list(leaf.children())]
        assert names == {"input", *leaves, "output"}
    for each in seen:
        x, y = given[each.site.module]
        value = x if each.site.given else y
        assert (each.described.numbers == describe(value).numbers).all()
        assert (each.spread is not None) == (each.site.name in ("input", "output"))
        if each.site.is_activation:
            assert each.often.numpy() == pytest.approx(saturated("tanh", x).numpy())
            assert each.places == x[0, 0].numel()


class Sum(nn.Module):
    """What several blocks give for one input, added: as an architecture may put them together."""

    def __init__(self, *branches):
        super().__init__()
        self.branch = nn.ModuleList(branches)

    def forward(self, x):
        return sum(branch(x) for branch in self.branch)


def test_layers_of_several_branches_have_their_paths_for_names():
    cell = make(order="weight-act")
    sums = [Sum(*(block(cell, 16, 16) for _ in range(2))) for _ in range(2)]
    model = stack(network(cell, (4,), 3, nn.Sequential(*sums)), SEEDS, dtype=torch.float64)
    names = ["input", "branch.0.weight", "branch.0.act", "branch.1.weight", "branch.1.act", "output"]
    assert [each.name for each in sites(model, cell) if each.block == 2] == names
    x, y = normal(12, 4), torch.arange(12) % 3
    prober = probes.Prober(model, cell, {"x_val": x, "x_train": x, "y_train": y}, [0])
    with prober.at(0):
        pass
    found = by_site(prober.found[0])
    assert not np.isnan(found[2, "branch.1.act"]["dead"]).any()
    # "Before" is what acts before it: of the last branch also the one beside it, which is added to it.
    old, batch = dict(model.named_parameters()), probes.shared_batch(x[:10], len(SEEDS))

    def gradient(parameters, path):
        logits = functional_call(model, parameters, (batch,))
        loss = F.cross_entropy(logits, y[:10].expand(len(SEEDS), -1), reduction="none").mean(1).sum()
        return torch.autograd.grad(loss, parameters[path])[0].flatten(1)

    new = {path: value - cell.lr * gradient(old, path).view_as(value) for path, value in old.items()}
    for path, at in (("blocks.1.branch.1.weight.weight", (2, "branch.1.weight")), ("head.weight", (3, "weight"))):
        places = list(old).index(path)
        mixed = {name: (new if i < places else old)[name] for i, name in enumerate(old)}
        g = gradient(old, path)
        plain = (gradient(mixed, path) - g).norm(dim=1) / g.norm(dim=1)
        assert found[at]["gradient_change"] == pytest.approx(plain.numpy(), rel=1e-9)


def test_stem_and_head_are_looked_at_with_their_normalizations(blobs):
    cell = make(stem_norm="bn", head_norm="bn", architecture="cnn", depth=1)
    found = [(each.block, each.name) for each in sites(network_of(cell, (1, 8, 8)), cell)]
    assert found[:2] == [(0, "weight"), (0, "bn")]
    assert found[-3:] == [(2, "input"), (2, "bn"), (2, "weight")]
    assert (1, "pool") in found


def test_before_training_normalizations_use_the_examples_themselves_and_later_their_running_averages(blobs):
    data = blobs(train=300)
    first, later = probed(make(), data)[1, "bn"], probed(make(), data, epoch=1)[1, "bn"]
    assert first["mean"] == pytest.approx([0] * 3, abs=1e-5)
    assert first["sd"] == pytest.approx([1] * 3, abs=1e-3)
    assert np.abs(later["sd"] - 1).min() > 0.05  # they are 0 and 1 still, which changes nothing


def test_drift_is_the_distance_of_the_sorted_values_in_the_sd_of_the_last_probe(blobs):
    data, cell = blobs(), make()
    model = network_of(cell, data.shape, dtype=torch.float32)
    prober = probes.Prober(model, cell, on_device(data, "cpu"), [1, 2])
    x = probes.shared_batch(torch.from_numpy(data.x_val), len(SEEDS))
    values = []
    for epoch in (1, 2):
        with prober.at(epoch), torch.no_grad():
            values.append(model.eval().stem(model.flatten(x)))
            model(x)
        model.stem.weight.data.mul_(1.5).add_(0.1)
    first, second = map(by_site, prober.found)
    assert np.isnan([numbers["drift"] for numbers in first.values()]).all()
    one, two = (np.sort(value.flatten(1).numpy()) for value in values)
    plain = [stats.wasserstein_distance(a, b) / a.std() for a, b in zip(one, two, strict=True)]
    assert second[1, "input"]["drift"] == pytest.approx(plain, rel=1e-4)
    assert {site for (_, site), numbers in second.items() if not np.isnan(numbers["drift"]).all()} == {"input"}


@pytest.mark.parametrize("examples", [1000, 1001, 1500, 2001])
def test_a_network_that_nothing_changed_has_not_drifted(examples, blobs):
    data = blobs(train=10 * examples)
    assert len(data.x_val) == examples
    cell = make(order="weight-act", depth=1)
    model = network_of(cell, data.shape, dtype=torch.float32)
    tensors = on_device(data, "cpu")
    prober = probes.Prober(model, cell, tensors, [0, 1])
    for epoch in (0, 1):
        with prober.at(epoch):
            evaluate(model, len(SEEDS), tensors["x_val"], tensors["y_val"])
    first, second = map(by_site, prober.found)
    for where, numbers in second.items():
        assert (numbers["mean"] == first[where]["mean"]).all()
        assert where[1] != "input" or not numbers["drift"].any()


def test_the_norm_of_a_gradient_is_known_where_its_square_is_none(blobs):
    data, cell = blobs(), make(order="weight-act", activation="sigmoid", depth=40)
    found = probed(cell, data)[1, "weight"]
    model = network_of(cell, data.shape)
    x, y = torch.from_numpy(data.x_train[:10]).double(), torch.from_numpy(data.y_train[:10])
    loss = (
        F.cross_entropy(model(probes.shared_batch(x, len(SEEDS))), y.expand(len(SEEDS), -1), reduction="none")
        .mean(1)
        .sum()
    )
    (gradient,) = torch.autograd.grad(loss, [model.blocks[0].weight.weight])
    norms = gradient.flatten(1).norm(dim=1)
    assert (norms < 1e-22).all()
    assert found["gradient_norm"] == pytest.approx(norms.numpy(), rel=0.01)


# Gradients


def in_order(net, x):
    """The modules without children of an ordinary network, in the order in which they act on a copy of it."""
    twin, acting = copy.deepcopy(net), []
    for name, module in twin.named_modules():
        if not [*module.children()]:
            module.register_forward_hook(lambda *_, name=name: acting.append(net.get_submodule(name)))
    twin.eval()(x)
    return acting


@pytest.mark.parametrize("optimiser", ["sgd", "adam"])
@pytest.mark.parametrize(
    ("architecture", "order"),
    [("mlp", "weight-bn-act"), ("mlp", "act-bn-weight"), ("cnn", "weight-act-bn"), ("mlp", "drop-weight-act")],
)
def test_the_change_of_a_gradient_is_that_of_a_network_of_which_the_layers_before_were_replaced(
    architecture, order, optimiser, monkeypatch
):
    """Santurkar et al. 2018 word by word: W of the layers before at t + 1, the others at t, and one seed at a time."""
    monkeypatch.setattr(probes, "CHANGES", 99)
    cell = make(
        architecture=architecture,
        order=order,
        depth=3,
        width=8,
        optimiser=optimiser,
        weight_decay=0.01,
        activation="elu",
    )
    model = network_of(cell, (2, 8))
    x, y = normal(12, 2, 8), torch.arange(12) % 3
    found = gradients(model, cell, x, y)
    twins = [solo(model, s) for s in range(len(SEEDS))]
    names = {module: path for path, module in model.named_modules()}
    for s, twin in enumerate(twins):
        states = [m.generator.get_state() for m in twin.modules() if hasattr(m, "generator")]

        def gradient(net, path, states=states):
            for g, state in zip([m.generator for m in net.modules() if hasattr(m, "generator")], states, strict=True):
                g.set_state(state)
            net.zero_grad()
            F.cross_entropy(net.train()(x), y).backward()
            return net.get_submodule(path).weight.grad.clone()

        moved = solo(model, s)
        before = {path: gradient(moved, path) for path in names.values() if path.endswith(("weight", "stem", "head"))}
        gradient(moved, "stem")
        optimiser_of(cell, moved).step()
        acting = in_order(twin, x)
        paths = {module: path for path, module in twin.named_modules()}
        for module, numbers in found.items():
            path = names[module]
            mixed = solo(model, s)
            for layer in acting[: acting.index(twin.get_submodule(path))]:
                mixed.get_submodule(paths[layer]).load_state_dict(moved.get_submodule(paths[layer]).state_dict())
            g, other = before[path], gradient(mixed, path)
            w, new = twin.get_submodule(path).weight, moved.get_submodule(path).weight
            plain = [g.norm(), (new - w).norm() / w.norm(), (other - g).norm() / g.norm()]
            plain.append((other * g).sum() / g.norm() / other.norm())
            if path == "stem":
                plain[2:] = [torch.tensor(torch.nan)] * 2  # nothing acts before it
            assert numbers[:, s] == pytest.approx([p.item() for p in plain], rel=1e-7, abs=1e-10, nan_ok=True), path


def test_of_many_weight_layers_the_change_is_measured_of_some_from_the_first_block_to_the_head():
    cell = make(depth=20, width=8)
    model = network_of(cell, (4,))
    found = gradients(model, cell, normal(8, 4), torch.arange(8) % 3)
    changes = [numbers[OF_WEIGHTS.index("gradient_change")] for numbers in found.values()]
    measured = [i for i, change in enumerate(changes) if not np.isnan(change).all()]
    assert measured == [1, 5, 9, 13, 17, 21]
    assert not np.isnan([numbers[:2] for numbers in found.values()]).any()


# No effect


def state(model):
    drops = [g.get_state() for m in model.modules() for g in getattr(m, "generators", [])]
    return [*(v.clone() for v in model.state_dict().values()), *drops, torch.get_rng_state()], model.training


@pytest.mark.parametrize("order", ["weight-bn-act-drop", "drop-weight-act"])
@pytest.mark.parametrize("architecture", harness.names("architectures"))
def test_a_probe_leaves_a_network_as_it_was(architecture, order, blobs):
    data, cell = blobs((1, 8, 8)), make(architecture=architecture, order=order)
    model = network_of(cell, data.shape, dtype=torch.float32).train()
    tensors, (before, mode) = on_device(data, "cpu"), state(model)
    names = {name: set(vars(module)) for name, module in model.named_modules()}
    prober = probes.Prober(model, cell, tensors, [0])
    with prober.at(0):
        pass
    after, still = state(model)
    assert still is mode is True
    assert all(torch.equal(a, b) for a, b in zip(before, after, strict=True))
    assert {name: set(vars(module)) for name, module in model.named_modules()} == names
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in model.modules())
    assert all(p.grad is None for p in model.parameters())


@pytest.mark.parametrize(
    "fields",
    [
        {"order": "weight-bn-act-drop"},
        {"order": "drop-weight-act-bn", "optimiser": "adam", "activation": "tanh"},
        {"order": "bn-act-weight", "activation": "maxout"},
        {"architecture": "cnn", "order": "weight-bn-drop-act", "width": 4},
    ],
    ids=str,
)
def test_a_probed_training_has_the_bits_of_one_that_is_not(fields, blobs):
    cell, data = make(**fields), blobs((1, 8, 8))
    plain, looked_at = (train(cell, SEEDS, data, probes=epochs) for epochs in ((), range(4)))
    assert [probe.epoch for probe in looked_at.probes] == [0, 1, 2, 3]
    assert plain.probes == []
    assert_equal(plain, looked_at)


def assert_equal(one, other):
    """In every number that a training gives, but for what was probed and the time."""
    for name in ("diverged_at", "best_epoch", "correct"):
        assert np.array_equal(getattr(one, name), getattr(other, name))
    assert all(np.array_equal(one.metrics[k], other.metrics[k], equal_nan=True) for k in one.metrics)
    for a, b in zip(one.curves, other.curves, strict=True):
        assert all(np.array_equal(a[k], b[k], equal_nan=k not in ("split", "lr", "epoch")) for k in a if k != "lr")


def test_a_probed_training_of_compiled_steps_has_the_bits_of_one_that_is_not(blobs):
    cell, data = make(depth=1), blobs()
    plain, looked_at = (train(cell, SEEDS, data, mode=COMPILED, probes=epochs) for epochs in ((), range(4)))
    assert [probe.epoch for probe in looked_at.probes] == [0, 1, 2, 3]
    assert_equal(plain, looked_at)


def test_what_probes_find_does_not_depend_on_the_other_seeds(blobs):
    cell, data = make(width=32, batch=32), blobs(train=200)
    together, alone = (train(cell, seeds, data, probes=(0, 3)).probes for seeds in (SEEDS, SEEDS[1:2]))
    for a, b in zip(together, alone, strict=True):
        for name in COLUMNS:
            assert a.numbers[name][:, 1] == pytest.approx(b.numbers[name][:, 0], rel=1e-4, abs=1e-5, nan_ok=True)


# Ablations


def test_a_normalization_before_tanh_keeps_it_from_saturating_whatever_the_weights(blobs):
    """10 times the weights: none and after saturate, before does not notice (S2.4, S2.8, L21 of the evidence)."""
    data = blobs(train=300)

    def share(order, factor):
        def multiply(model):
            for each in model.blocks:
                each.weight.weight.data.mul_(factor)

        return probed(make(order=order, activation="tanh", width=32), data, prepare=multiply)[2, "act"]["saturated"]

    for order in ("weight-act", "weight-act-bn"):
        assert (share(order, 10) > 3 * share(order, 1)).all()
        assert (share(order, 10) > 0.6).all()
    assert share("weight-bn-act", 10) == pytest.approx(share("weight-bn-act", 1), abs=0.01)
    assert (share("weight-bn-act", 10) < 0.1).all()


@pytest.mark.parametrize("activation", ["identity", "relu"])
def test_without_normalization_deep_networks_lose_rank_and_with_it_they_do_not(activation, blobs):
    """Daneshmand et al. 2020, at initialisation; examples in all directions."""
    data, depth = dataclasses.replace(blobs((32,)), x_val=normal(200, 32, dtype=torch.float32).numpy()), 24

    def rank(order, number):
        found = probed(make(order=order, activation=activation, width=32, depth=depth), data)
        return found[number, "output"]["effective_rank"]

    assert (rank("weight-act", depth) < rank("weight-act", 1) / 3).all()
    assert (rank("weight-bn-act", depth) > 1.5 * rank("weight-act", depth)).all()


def test_gradients_explode_with_depth_only_where_batches_are_normalized(blobs):
    """Yang et al. 2019: at initialisation, from the last block to the first."""
    data = blobs((32,), train=400)

    def growth(order):
        found = probed(make(order=order, width=32, depth=16, batch=50), data)
        return found[1, "weight"]["gradient_norm"] / found[16, "weight"]["gradient_norm"]

    assert (growth("weight-bn-act") > 5).all()
    assert (growth("weight-act") < 3).all()


# From a training to its rows


@pytest.fixture(scope="module")
def trial_and_layers(blobs):
    cell = make()
    trial = Trial(cell, (0, 4), probes=Probes().of(cell))
    data = blobs()
    return trial, data, run_trial(trial, data, {"commit": "", "versions": ""}).tables["layers"].to_pandas()


def test_a_trial_has_a_row_for_each_run_epoch_block_and_site(trial_and_layers):
    trial, _, layers = trial_and_layers
    sites_of_a_run = 1 + 2 * 5 + 2
    assert list(layers.columns) == LAYERS.names
    assert len(layers) == 2 * 2 * sites_of_a_run
    assert not layers.duplicated(["run_id", "epoch", "block", "site"]).any()
    assert sorted(set(layers.run_id)) == sorted(run.run_id for run in trial.runs)
    assert sorted(set(layers.epoch)) == [0, trial.cell.epochs]
    assert set(layers.quantiles.map(len)) == {len(QUANTILES)}


def test_each_row_has_the_numbers_of_its_run_and_site(trial_and_layers):
    trial, data, layers = trial_and_layers
    for probe in train(trial.cell, trial.seeds, data, probes=trial.probes).probes:
        for s, run in enumerate(trial.runs):
            for i, (number, site) in enumerate(probe.sites):
                at = (layers.run_id == run.run_id) & (layers.epoch == probe.epoch)
                (row,) = layers[at & (layers.block == number) & (layers.site == site)].to_dict("records")
                for name in COLUMNS:
                    assert row[name] == pytest.approx(probe.numbers[name][i, s], rel=1e-6, nan_ok=True)
                assert row["quantiles"] == pytest.approx(probe.quantiles[i, s], rel=1e-6, abs=1e-7)


def test_only_the_site_of_a_number_has_it(trial_and_layers):
    _, _, layers = trial_and_layers
    for name in ("saturated", "dead"):
        assert (layers[name].notna() == (layers.site == "act")).all()
    for name in ("gradient_norm", "update_norm"):
        assert (layers[name].notna() == (layers.site == "weight")).all()
    assert (layers.gradient_change.notna() == ((layers.site == "weight") & (layers.block > 0))).all()
    assert (layers.drift.notna() == ((layers.site == "input") & (layers.epoch > 0))).all()
    assert layers[["mean", "sd", "zeros", "negative"]].notna().all().all()


def test_a_trial_without_probes_has_no_table_of_them(blobs):
    assert "layers" not in run_trial(Trial(make(), (0,)), blobs(), {"commit": "", "versions": ""}).tables


def test_rows_of_a_diverged_run_end_with_the_epoch_in_which_it_did_and_say_null_for_what_is_not_finite(blobs):
    data = blobs(train=200)
    x = data.x_train.copy()
    x[0] = 1e30
    data = dataclasses.replace(data, x_train=x)
    cell = make(order="weight-act", width=32, batch=50)
    seeds = tuple(range(4))
    trial = Trial(cell, seeds, probes=(0, 1, 2, 3))
    layers = run_trial(trial, data, {"commit": "", "versions": ""}).tables["layers"].to_pandas()
    diverged_at = train(cell, seeds, data).diverged_at
    assert (diverged_at > 0).any()
    for run, last in zip(trial.runs, diverged_at, strict=True):
        rows = layers[layers.run_id == run.run_id]
        assert rows.epoch.max() == (last or 3)
        assert np.isfinite(rows[list(COLUMNS)].to_numpy()[~rows[list(COLUMNS)].isna()]).all()
        if last:
            lost = rows[(rows.epoch == last) & (rows.site == "output")]
            assert lost["mean"].isna().all()
            assert lost.quantiles.isna().all()


@pytest.mark.parametrize("examples", [{"train": 10}, {"shape": (1,)}, {"classes": 2, "train": 12}], ids=str)
@pytest.mark.parametrize("order", ["weight-bn-act", "act-weight-bn"])
def test_tiny_data_can_be_probed(order, examples, blobs):
    data = blobs(**examples)
    training = train(make(order=order, batch=8, epochs=1), [0, 1], data, probes=(0, 1))
    assert [probe.epoch for probe in training.probes] == [0, 1]


def test_a_network_is_put_back_even_where_a_probe_fails():
    model = network_of(make(), (4,)).eval()
    before = [value.clone() for value in model.state_dict().values()]

    def fail():
        with kept(model):
            model(normal(3, 4, 9))
            assert not torch.equal(before[-1], model.blocks[1].bn.running_var)
            raise RuntimeError("planted")

    with pytest.raises(RuntimeError, match="planted"):
        fail()
    assert not model.training
    assert all(torch.equal(a, b) for a, b in zip(before, model.state_dict().values(), strict=True))


def test_maxout_maps_are_no_obstacle():
    assert saturated("maxout", normal(2, 3 * MAXOUT_MAPS, 5)).tolist() == [[0.0] * 6] * 2
