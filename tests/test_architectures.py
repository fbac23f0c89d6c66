"""Every architecture that the folder holds: its layers as they run, its shapes, its size, and that it learns."""

from importlib import import_module
from itertools import pairwise, permutations
from math import prod

import pytest
import torch
from operations import Operations
from torch import nn

import harness
from grids import Cell
from harness.architectures import build
from harness.branches import Residual
from harness.initialisation import ACTIVATIONS
from harness.layers import Block, Dropout, Weight, network
from harness.normalizations import BatchNorm, GroupNorm, RMSNorm
from harness.stacking import stack
from harness.training import train

ARCHITECTURES = harness.names("architectures")
PACKAGE = "harness.architectures"
SHAPES = [(1, 12), (2, 8, 8)]
# Every order of bn with and without drop, and every place of the other normalizations.
ORDERS = [
    "-".join(order)
    for optional in [(), ("drop",), ("bn", "drop"), *((norm,) for norm in harness.NORMS)]
    for order in permutations(("weight", "act", *optional))
]
KINDS = {Weight: "weight", BatchNorm: "bn", RMSNorm: "rms", GroupNorm: "groups", Dropout: "drop", nn.ReLU: "act"}


def works(architecture, order):
    """`in` needs space, and something between it and the mean over space."""
    names = order.split("-")
    return "in" not in names or (harness.convolves(architecture) and (names[-1] != "in" or architecture == "resnet"))


# Every order without a normalization or with bn in every architecture, the others each in one where it works, in turn.
OTHERS = [order for order in ORDERS if {*harness.NORMS[1:]} & {*order.split("-")}]
TRIED = [(name, order) for order in ORDERS if order not in OTHERS for name in ARCHITECTURES]
for i, order in enumerate(OTHERS):
    fitting = [name for name in ARCHITECTURES if works(name, order)]
    TRIED.append((fitting[i % len(fitting)], order))


def cell(architecture, order="weight-bn-act", **fields):
    return Cell(
        **{
            "dataset": "x",
            "architecture": architecture,
            "order": order,
            "activation": "relu",
            "depth": 3,
            "width": 4,
            **fields,
        }
    )


def kind(layer):
    """What orders call it, of the channels and groups that these tests have."""
    if isinstance(layer, GroupNorm):
        return {1: "ln", layer.channels: "in"}.get(layer.groups, "gn")
    return KINDS[type(layer)]


def executed(model, x):
    """(name of the block or None, kind of the layer) of each layer of a kind that orders name, as they run."""
    homes = {layer: name for name, each in model.named_modules() if isinstance(each, Block) for layer in each.modules()}
    record = []
    for layer in model.modules():
        if type(layer) in KINDS:
            layer.register_forward_hook(lambda layer, *_: record.append((homes.get(layer), kind(layer))))
    model(x)
    return record


def test_the_grammar_has_38_orders_with_one_normalization():
    assert len(set(ORDERS)) == 38 + 6 * (len(harness.NORMS) - 1)


@pytest.mark.parametrize(("architecture", "order"), TRIED)
def test_the_layers_of_each_block_run_as_the_order_says(architecture, order):
    model = stack(build(cell(architecture, order, width=32, groups=2), (2, 8, 8), 5), [0, 1])
    record = executed(model, torch.randn(2, 2, 6, 8, 8))
    blocks = {}
    for home, kind in record:
        blocks.setdefault(home, []).append(kind)
    outside = blocks.pop(None)
    assert ["-".join(kinds) for kinds in blocks.values()] == [order] * 3 * harness.units(architecture)
    assert set(outside) == {"weight"}
    assert record[0] == record[-1] == (None, "weight")  # stem and head


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_nothing_outside_the_blocks_normalises_or_activates(architecture, shape):
    model = stack(build(cell(architecture), shape, 5), [0])
    with torch.no_grad(), Operations() as operations:
        model(torch.randn(1, shape[0], 6, *shape[1:]))
    units = 3 * harness.units(architecture)
    assert sum("norm" in name for name in operations.names) == units
    nonlinear = ("relu", "elu", "gelu", "silu", "tanh", "sigmoid", "softplus", "maximum", "clamp", "where", "exp")
    assert [name for name in operations.names if any(word in name for word in nonlinear)] == ["relu.default"] * units


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_norms_at_stem_and_head_run_where_they_are_named(architecture):
    ends = cell(architecture, "weight-rms-act", width=32, groups=2, stem_norm="gn", head_norm="bn")
    record = executed(stack(build(ends, (2, 8, 8), 5), [0, 1]), torch.randn(2, 2, 6, 8, 8))
    assert [what for home, what in record if home is None] == ["weight", "gn", "bn", "weight"]


@pytest.mark.parametrize(
    ("architecture", "fields", "told"),
    [
        ("mlp", {"stem_norm": "in"}, "without space"),
        ("mlp", {"order": "in-weight-act"}, "without space"),
        ("cnn", {"head_norm": "in"}, "without space"),
        ("cnn", {"order": "weight-act-in"}, "order weight-act-in: .* logits would ignore"),
        ("cnn", {"order": "act-weight-in-drop"}, "order act-weight-in-drop: before the mean over space"),
        (
            "cnn",
            {"order": "weight-in-act", "activation": "identity"},
            "order weight-in-act: before the mean over space",
        ),
        (
            "cnn",
            {"order": "weight-in-act", "activation": "leaky_relu:1"},
            "order weight-in-act: before the mean over space",
        ),
        ("resnet", {"after_sum": "act-gn", "groups": 32}, "after_sum = act-gn: before the mean over space"),
        ("cnn", {"after_blocks": "in"}, "after_blocks = in: before the mean over space"),
        ("mlp", {"after_blocks": "in"}, "without space"),
        ("cnn", {"order": "weight-act-in", "after_blocks": "bn"}, "order weight-act-in: before"),
        (
            "cnn",
            {"order": "weight-act-in", "after_blocks": "act", "activation": "identity"},
            "order weight-act-in: before",
        ),
        ("resnet", {"after_sum": "in-act", "activation": "identity"}, "after_sum = in-act: before the mean over space"),
        ("cnn", {"order": "weight-act-gn", "groups": 32}, "order weight-act-gn: before the mean over space"),
        (
            "cnn",
            {"order": "weight-act-in", "depth": 2, "pool": "before"},
            "order weight-act-in: before the mean over space",
        ),
    ],
    ids=str,
)
def test_networks_whose_normalization_would_leave_nothing_are_refused(architecture, fields, told):
    with pytest.raises(ValueError, match=told):
        build(cell(architecture, width=8, **{"order": "weight-act", **fields}), (2, 8, 8), 5)


@pytest.mark.parametrize(
    "fields",
    [
        {"order": "weight-act-in", "depth": 2},  # pooling stands between it and the mean
        {"order": "weight-in-act"},
        {"order": "weight-act-gn", "groups": 4},
        {"order": "weight-act-ln"},
        {"order": "weight-act", "stem_norm": "in"},
        {"order": "weight-act-in", "after_blocks": "act"},
    ],
    ids=str,
)
def test_networks_that_look_alike_are_built_and_see_their_examples(fields):
    model = stack(build(cell("cnn", width=8, **fields), (2, 8, 8), 5), [0]).eval()
    logits = model(torch.randn(1, 2, 6, 8, 8, generator=torch.Generator().manual_seed(0)))
    assert (logits.std(2) > 0.01).all()


def test_what_is_refused_would_indeed_give_every_example_the_same_logits(monkeypatch):
    monkeypatch.setattr("harness.layers._check_end", lambda *_: None)
    model = stack(build(cell("cnn", "weight-act-in", width=8), (2, 8, 8), 5), [0])
    logits = model(torch.randn(1, 2, 6, 8, 8))
    torch.testing.assert_close(logits, logits[..., :1].expand_as(logits), rtol=0, atol=1e-5)


def test_behind_a_sum_it_is_what_follows_the_sum_that_counts():
    def end(after_sum):
        one = cell("cnn", "weight-act-in", width=4, after_sum=after_sum)
        blocks = nn.Sequential(Residual(one, 4, 4, (3, 3)))
        return network(one, (2, 8, 8), 5, blocks, 4, (3, 3), residual=True)

    for after_sum in ("none", "in-act", "bn"):
        assert isinstance(end(after_sum).head, Weight)
    for after_sum in ("in", "act-in"):
        with pytest.raises(ValueError, match=f"after_sum = {after_sum}: before the mean over space"):
            end(after_sum)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_what_stands_after_the_blocks_is_between_the_last_of_them_and_the_mean(architecture):
    fields = cell(architecture, "weight-act", width=16, after_blocks="bn-act", head_norm="rms")
    model = stack(build(fields, (2, 8, 8), 5), [0, 1])
    seen = []
    for name in ("blocks", "after_blocks.bn", "after_blocks.act", "mean", "head_norm", "head"):
        if name in dict(model.named_modules()):
            layer = model.get_submodule(name)
            layer.register_forward_hook(lambda _, given, y, name=name: seen.append((name, given[0], y)))
    model(torch.randn(2, 2, 6, 8, 8, generator=torch.Generator().manual_seed(0)))
    assert [name for name, *_ in seen if name != "mean"] == [
        "blocks",
        "after_blocks.bn",
        "after_blocks.act",
        "head_norm",
        "head",
    ]
    assert all(following is y for (_, _, y), (_, following, _) in pairwise(seen))
    assert (seen[2][2] >= 0).all()


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_without_bias_the_weights_of_blocks_have_none_and_stem_and_head_have_theirs(architecture):
    model = build(cell(architecture, bias=False), (2, 8, 8), 5)
    inside = {layer for each in model.modules() if isinstance(each, Block) for layer in each}
    weights = [layer for layer in model.modules() if isinstance(layer, Weight)]
    assert {layer.bias is None for layer in weights if layer in inside} == {True}
    assert {layer.bias is None for layer in weights if layer not in inside} == {False}


@pytest.mark.parametrize(
    ("order", "names"),
    [
        ("bn-weight-act", "pool-bn-weight-act"),
        ("weight-bn-act", "weight-pool-bn-act"),
        ("weight-act-bn", "weight-act-pool-bn"),
        ("weight-ln-act-drop", "weight-pool-ln-act-drop"),
        ("weight-act", "weight-act-pool"),  # nothing to be before
    ],
)
def test_pooling_before_stands_right_before_the_normalization(order, names):
    early = build(cell("cnn", order, pool="before", depth=3), (2, 8, 8), 5).blocks
    late = build(cell("cnn", order, depth=3), (2, 8, 8), 5).blocks
    assert ["-".join(each._modules) for each in early] == [names, names, order]
    assert ["-".join(each._modules) for each in late] == [f"{order}-pool"] * 2 + [order]


@pytest.mark.parametrize("activation", ["relu", "maxout"])
@pytest.mark.parametrize("order", ["weight-act", "act-bn-weight"])
@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_logits_are_seeds_by_classes_by_batch(architecture, shape, order, activation):
    model = stack(build(cell(architecture, order, activation=activation), shape, 5), [0, 1, 2])
    assert model(torch.randn(3, shape[0], 7, *shape[1:])).shape == (3, 5, 7)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_an_architecture_says_whether_it_convolves(architecture):
    model = build(cell(architecture), (2, 8, 8), 5)
    assert harness.convolves(architecture) == any(isinstance(m, Weight) and m.kernel for m in model.modules())


@pytest.mark.parametrize("shape", [(6,), (1, 3), (1, 28, 3)], ids=str)
@pytest.mark.parametrize("name", ["cnn", "resnet", "nin", "inception", "deep_cnn"])
def test_a_convolutional_network_is_refused_where_there_is_no_space_to_pool(name, shape):
    with pytest.raises(ValueError, match=f"{name} needs a space of at least 4 in each dimension to pool twice"):
        build(cell(name), shape, 5)


@pytest.mark.parametrize("shape", [(1, 24), (2, 16, 16)], ids=str)
@pytest.mark.parametrize(
    "architecture", [name for name in ARCHITECTURES if hasattr(import_module(f"{PACKAGE}.{name}"), "PRODUCTS")]
)
def test_the_stated_products_are_about_those_of_its_blocks(architecture, shape):
    model = stack(build(cell(architecture, "weight-act", depth=12, width=32), shape, 5), [0])
    places, found = prod(shape[1:]) if harness.convolves(architecture) else 1, []
    for layer in model.blocks.modules():
        if isinstance(layer, Weight):
            layer.register_forward_hook(lambda layer, _, y: found.append(layer.weight[0].numel() * y[0, 0, 0].numel()))
    model(torch.randn(1, shape[0], 1, *shape[1:]))
    assert 1 / 1.8 < sum(found) / (12 * 32**2 * places) / harness.products(architecture) < 1.1


@pytest.mark.parametrize("pool", ["after", "before"])
@pytest.mark.parametrize("architecture", ["cnn", "nin", "inception", "deep_cnn"])
def test_space_is_pooled_twice_at_the_end_of_a_block_or_before_its_normalization(architecture, pool):
    model, shapes = build(cell(architecture, depth=6, width=8, pool=pool), (2, 9, 8), 5), []
    for each in stack(model, [0]).blocks:
        each.register_forward_hook(lambda _, __, y: shapes.append(y.shape[3:]))
    model(torch.randn(1, 2, 6, 9, 8))
    assert list(dict.fromkeys(map(tuple, shapes))) == [(9, 8), (4, 4), (2, 2)]
    pooling = [each for each in model.modules() if isinstance(each, Block) and "pool" in each._modules]
    assert {"-".join(each._modules) for each in pooling} == {
        {"after": "weight-bn-act-pool", "before": "weight-pool-bn-act"}[pool]
    }


def blocks_parameters(architecture, **fields):
    model = build(cell(architecture, depth=4, width=64, **fields), (2, 8, 8), 5)
    return sum(p.numel() for block in model.modules() if isinstance(block, Block) for p in block.parameters())


@pytest.mark.parametrize("order", ["weight-act", "weight-bn-act", "weight-act-bn", "act-weight", "bn-act-weight"])
@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_maxout_blocks_have_twice_the_parameters_or_matched_the_same(architecture, order):
    relu = blocks_parameters(architecture, order=order)
    assert blocks_parameters(architecture, order=order, activation="maxout") == pytest.approx(2 * relu, rel=0.03)
    matched = blocks_parameters(architecture, order=order, activation="maxout", maxout_width="matched")
    assert matched == pytest.approx(relu, rel=0.1)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_matched_width_changes_maxout_alone(architecture):
    sizes = {blocks_parameters(architecture, maxout_width=width) for width in ("same", "matched")}
    assert len(sizes) == 1


@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_an_architecture_learns_with_every_activation(architecture, activation, blobs):
    learner = cell(architecture, activation=activation, depth=1, width=32, batch=10, epochs=4, lr=0.1)
    training = train(learner, [0, 1], blobs((1, 8)))
    losses = [row["loss"] for row in training.curves if row["split"] == "val"]
    assert (losses[-1] < 0.8 * losses[0]).all()


def test_only_architectures_that_say_so_are_stacked():
    assert harness.stackable("mlp")
    assert not harness.stackable("cnn")


@pytest.mark.parametrize("architecture", [name for name in ARCHITECTURES if harness.stackable(name)])
def test_an_architecture_that_says_so_has_constant_width(architecture):
    model = build(cell(architecture, depth=3, width=12, activation="relu"), (1, 6), 5)
    weights = [layer for layer in model.blocks.modules() if isinstance(layer, Weight)]
    assert {tuple(layer.weight.shape) for layer in weights} == {(12, 12)}
