"""Residual blocks and parallel branches: what touches a sum, how paths are joined, and the networks made of them."""

from itertools import pairwise

import pytest
import torch
import torch.nn.functional as F
from operations import Operations
from torch import nn

from grids import Cell
from harness.architectures import build
from harness.branches import Join, Parallel, Residual, Shortcut
from harness.layers import MaxPool, Weight
from harness.stacking import solo, stack
from harness.step import make_step

RESIDUAL = {"resnet": (2, 8, 8), "resmlp": (6,)}
ORDERS = ["weight-act", "weight-bn-act", "weight-act-bn", "bn-act-weight", "act-weight-bn-drop"]
AFTER = ["none", "act", "bn", "bn-act", "act-bn"]


def make(architecture="resnet", **fields):
    usual = {"order": "weight-bn-act", "activation": "relu", "depth": 4, "width": 4, "lr": 0.01}
    return Cell(**{"dataset": "x", "architecture": architecture, **usual, **fields})


def networks(cell, shape=None, seeds=(0, 1)):
    """The stacked network of a cell and the twins of its seeds, in float64."""
    shape = shape or RESIDUAL[cell.architecture]
    model = stack(build(cell, shape, 5), list(seeds), dtype=torch.float64)
    return model, [solo(model, s) for s in range(len(seeds))]


def examples(shape, batch=6):
    """(S, C, B, *space) of two seeds."""
    return torch.randn(2, shape[0], batch, *shape[1:], dtype=torch.float64, generator=torch.Generator().manual_seed(0))


def residual_blocks(model):
    return [each for each in model.modules() if isinstance(each, Residual)]


def watch(model, x):
    """Of each residual block input, shortcut's, branch's and own output, and the operations between the last two."""
    found = []
    with torch.no_grad(), Operations() as operations:
        for each in residual_blocks(model):
            seen = {}
            each.shortcut.register_forward_hook(lambda _, __, y, seen=seen: seen.update(shortcut=y))
            each.branch.register_forward_hook(
                lambda _, __, y, seen=seen: seen.update(branch=y, ran=len(operations.names))
            )
            each.register_forward_hook(
                lambda _, inputs, y, seen=seen: found.append(
                    (inputs[0], seen["shortcut"], seen["branch"], y, operations.names[seen["ran"] :])
                )
            )
        model(x)
    return found


@pytest.mark.parametrize("activation", ["relu", "maxout"])
@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("architecture", RESIDUAL)
def test_whatever_the_order_a_block_gives_the_sum_and_nothing_acts_on_it(architecture, order, activation):
    model, _ = networks(make(architecture, order=order, activation=activation))
    found = watch(model, examples(RESIDUAL[architecture]))
    assert len(found) == 4
    for x, shortcut, branch, y, ran in found:
        assert ran == ["add.Tensor"]
        assert torch.equal(y, shortcut + branch)
        assert shortcut is x or y.shape[1] == 2 * x.shape[1]  # the input itself, but where the width changes
    for one, following in pairwise(found):
        assert following[0] is one[3]  # and nothing stands between blocks


@pytest.mark.parametrize("after", AFTER)
@pytest.mark.parametrize("architecture", RESIDUAL)
def test_what_acts_after_the_sum_is_what_its_field_names(architecture, after):
    model, _ = networks(make(architecture, activation="tanh", after_sum=after))
    kinds = {"norm": "bn", "tanh": "act"}  # by a word in the operation's name
    for *_, ran in watch(model, examples(RESIDUAL[architecture])):
        assert ran[0] == "add.Tensor"
        acted = [kind for name in ran[1:] for word, kind in kinds.items() if word in name]
        assert acted == ([] if after == "none" else after.split("-"))
    for block in residual_blocks(model):
        assert list(block.after._modules) == ([] if after == "none" else after.split("-"))


@pytest.mark.parametrize("architecture", RESIDUAL)
def test_no_field_of_the_sum_changes_a_draw(architecture):
    def draws(**fields):
        return networks(make(architecture, **fields))[0].state_dict()

    plain = draws()
    changes = {"after_sum": "bn-act"}, {"branch_end": "norm"}, {"branch_end": "weight", "after_sum": "bn"}
    for fields in (*changes, {"after_blocks": "act-bn"}):
        other = draws(**fields)
        common = plain.keys() & other.keys()
        assert {name for name in plain if name.endswith("weight.weight")} <= common
        assert all(torch.equal(plain[name], other[name]) for name in common)


@pytest.mark.parametrize("after", ["act", "bn-act"])
@pytest.mark.parametrize("field", ["after_sum", "after_blocks"])
def test_maxout_cannot_stand_where_channels_must_stay(field, after):
    with pytest.raises(ValueError, match=f"{field} = '{after}': maxout gives half of the channels that it gets"):
        build(make(activation="maxout", **{field: after}), (2, 8, 8), 5)


@pytest.mark.parametrize(
    ("order", "end", "last"),
    [
        ("weight-bn-act", "order", "weight-bn-act"),
        ("weight-bn-act", "norm", "weight-bn"),
        ("weight-bn-act", "weight", "weight"),
        ("weight-act-bn", "norm", "weight-bn"),
        ("weight-act-bn-drop", "norm", "weight-bn-drop"),
        ("weight-act-bn-drop", "weight", "weight"),
        ("bn-act-weight", "norm", "bn-act-weight"),
        ("bn-act-weight", "weight", "bn-act-weight"),
        ("act-weight-bn", "weight", "act-weight"),
    ],
)
@pytest.mark.parametrize("activation", ["relu", "maxout"])
def test_only_the_last_unit_of_a_branch_ends_as_its_field_says(order, end, last, activation):
    cell = make("resmlp", order=order, branch_end=end, activation=activation)
    model, _ = networks(cell)
    for block in residual_blocks(model):
        assert ["-".join(unit._modules) for unit in block.branch] == [order, last]
    # Weights that an activation follows, in the block or the next one, have two maps for maxout; others have one.
    channels = 4 * (2 if activation == "maxout" and "act" in last.split("-") else 1)
    assert model.blocks[0].branch[1].weight.weight.shape[1] == channels


def test_the_original_network_and_full_pre_activation_are_those_of_he():
    x = examples((2, 8, 8))
    fields = {"order": "weight-bn-act", "branch_end": "norm", "after_sum": "act"}
    later = {"order": "bn-act-weight", "after_blocks": "bn-act"}
    for (model, twins), original in ((networks(make(**fields)), True), (networks(make(**later)), False)):
        y = model(x)
        for s, twin in enumerate(twins):
            z = twin.stem(x[s].movedim(1, 0))
            for block in twin.blocks:
                (first, second), shortcut = block.branch, block.shortcut(z)
                if original:
                    z = F.relu(shortcut + second.bn(second.weight(F.relu(first.bn(first.weight(z))))))
                else:
                    inner = first.weight(F.relu(first.bn(z)))
                    z = shortcut + second.weight(F.relu(second.bn(inner)))
            if not original:
                z = F.relu(twin.after_blocks.bn(z))
            torch.testing.assert_close(y[s].T, twin.head(z.mean((2, 3))), rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("maps", [1, 2])
@pytest.mark.parametrize("space", [(4,), (5,), (4, 6), (5, 7)], ids=str)
def test_a_shortcut_takes_means_and_pads_each_map_with_zeros(space, maps):
    layer = Shortcut(len(space), maps, 3, 5)
    x = examples((maps * 3, *space))
    y = layer(x)
    half = [-(-size // 2) for size in space]
    assert y.shape == (2, maps * 5, 6, *half)
    of_maps = y.unflatten(1, (maps, 5))
    assert not of_maps[:, :, 3:].any()
    # The last window of an odd size has what is left: repeating its values leaves their mean as it is.
    padded = x.unflatten(1, (maps, 3))
    for axis, size in enumerate(space, start=4):
        if size % 2:
            padded = torch.cat([padded, padded.narrow(axis, size - 1, 1)], axis)
        padded = padded.unflatten(axis, (-1, 2)).mean(axis + 1)
    torch.testing.assert_close(of_maps[:, :, :3], padded)
    for s in range(2):
        assert torch.equal(layer.solo(s)(x[s].movedim(1, 0)).movedim(0, 1), y[s])


@pytest.mark.parametrize("shape", [(1, 4), (1, 5), (2, 7), (1, 4, 5), (2, 7, 9)], ids=str)
@pytest.mark.parametrize("activation", ["relu", "maxout"])
@pytest.mark.parametrize("order", ["weight-bn-act", "act-bn-weight"])
def test_branch_and_shortcut_agree_for_odd_sizes_too(shape, activation, order):
    model, twins = networks(make(order=order, activation=activation), shape)
    x = examples(shape)
    y = model(x)
    assert y.shape == (2, 5, 6)
    for s, twin in enumerate(twins):
        torch.testing.assert_close(twin(x[s].movedim(1, 0)), y[s].T, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("order", ["weight-act", "weight-bn-act", "weight-act-bn", "bn-act-weight"])
@pytest.mark.parametrize(("architecture", "depth"), [("resnet", 64), ("resmlp", 64), ("resmlp", 96)])
def test_networks_of_64_blocks_and_more_are_built_and_train(architecture, depth, order):
    cell, shape = make(architecture, depth=depth, order=order, width=2), RESIDUAL[architecture]
    model = stack(build(cell, shape, 3), [0])
    assert len(residual_blocks(model)) == depth
    rng = torch.Generator().manual_seed(0)
    step = make_step(model, cell, torch.randn(20, *shape, generator=rng), torch.arange(20) % 3)
    loss, _, gradients = step(torch.arange(20)[None], 1e-6)
    assert loss.isfinite().all()
    of_stem, *others = gradients
    assert of_stem.any()
    assert all(gradient.isfinite().all() for gradient in others)


# Branches side by side


def test_joined_channels_keep_their_map():
    # Two maps of 2 and of 1 channels; the number tells map and branch.
    parts = [torch.tensor([10.0, 11.0, 20.0, 21.0]), torch.tensor([15.0, 25.0])]
    parts = [part.view(1, -1, 1, 1).expand(2, -1, 3, 4) for part in parts]
    joined = Join(2)(parts)
    assert joined.shape == (2, 6, 3, 4)
    assert joined[1, :, 0, 0].tolist() == [10, 11, 15, 20, 21, 25]
    assert torch.equal(Join(2).solo(0)([part[0].movedim(1, 0) for part in parts]), joined[0].movedim(1, 0))


def branches(model):
    return [
        [list(branch.modules()) for branch in each.branches] for each in model.modules() if isinstance(each, Parallel)
    ]


@pytest.mark.parametrize(("width", "quarters"), [(16, [4, 4, 4, 4]), (6, [2, 2, 1, 1]), (2, [1, 1, 1, 1])])
def test_inception_has_branches_of_three_kernels_and_one_that_pools(width, quarters):
    model = build(make("inception", depth=3, width=width), (1, 8, 8), 5)
    assert len(branches(model)) == 3
    for four in branches(model):
        weights = [[layer for layer in layers if isinstance(layer, Weight)] for layers in four]
        assert [[layer.kernel for layer in each] for each in weights] == [
            [(1, 1)],
            [(1, 1), (3, 3)],
            [(1, 1), (5, 5)],
            [(1, 1)],
        ]
        assert [each[-1].weight.shape[0] for each in weights] == quarters
        pools = [[layer.how for layer in layers if isinstance(layer, MaxPool)] for layers in four]
        assert [(3, 1, 1) in each for each in pools] == [False, False, False, True]


def test_the_branches_of_an_inception_block_see_the_same_and_lie_side_by_side():
    model, _ = networks(make("inception", depth=1, width=8, order="weight-act"), (1, 8, 8))
    x, seen = examples((1, 8, 8)), []
    for branch in model.blocks[0].branches:
        branch.register_forward_hook(lambda _, inputs, y: seen.append((inputs[0], y)))
    model.blocks[0].register_forward_hook(lambda _, inputs, y: seen.append((inputs[0], y)))
    model(x)
    *each, (x, y) = seen
    assert len(each) == 4
    assert all(torch.equal(given, x) for given, _ in each)
    assert torch.equal(torch.cat([part for _, part in each], 1), y)


def test_the_pooling_branch_keeps_the_space_and_never_takes_its_border():
    x = -1 - torch.rand(2, 3, 4, 5, 5, generator=torch.Generator().manual_seed(0))
    y = MaxPool(2, 3, 1, 1)(x)
    assert y.shape == x.shape
    assert (y < 0).all()
    assert torch.equal(y[..., 2, 2], x[..., 1:4, 1:4].amax((-2, -1)))
    assert torch.equal(y[..., 0, 0], x[..., :2, :2].amax((-2, -1)))


def convolutions(model):
    return [layer for layer in model.modules() if isinstance(layer, Weight) and layer.kernel]


def test_a_block_of_nin_is_one_wide_and_two_point_convolutions():
    model = build(make("nin", depth=4, width=8), (1, 8, 8), 5)
    assert [layer.kernel[0] for layer in convolutions(model)] == [3] + [3, 1, 1] * 4
    assert {layer.weight.shape[0] for layer in convolutions(model)} == {8}


def test_the_deep_network_has_15_convolutions_and_64_channels_at_the_tenth():
    model = build(make("deep_cnn", depth=14, width=64), (1, 8, 8), 10)
    assert [layer.weight.shape[0] for layer in convolutions(model)] == [16] * 5 + [32] * 3 + [64] * 7
    assert convolutions(model)[9].weight.shape[0] == 64
    assert sum(isinstance(each, MaxPool) for each in model.modules()) == 2


def test_the_channels_of_resnet_double_where_its_space_is_halved():
    model, shapes = build(make(depth=6, width=4), (1, 9, 8), 5), []
    for block in stack(model, [0]).blocks:
        block.register_forward_hook(lambda _, __, y: shapes.append((y.shape[1], *y.shape[3:])))
    model(torch.randn(1, 1, 6, 9, 8))
    assert shapes == [(4, 9, 8)] * 2 + [(8, 5, 4)] * 2 + [(16, 3, 2)] * 2
    assert [isinstance(block.shortcut, nn.Identity) for block in model.blocks] == [True, True, False, True, False, True]
