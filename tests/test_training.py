"""Training: schedules, batches, bits, divergence, the best epoch; and the whole of it against a plain loop of torch."""

import dataclasses
import itertools
import pickle
import random

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from oracles import optimiser as optimiser_of

import harness
from grids import Cell
from harness.architectures import build
from harness.engine import batch_sizes, bits_need_one_seed
from harness.initialisation import ACTIVATIONS
from harness.stacking import solo, stack
from harness.step import make_step
from harness.training import batch_order, learning_rate, train

ARCHITECTURES = harness.names("architectures")
ORDERS = ["weight-act", "weight-bn-act", "weight-act-bn", "bn-act-weight", "act-weight-drop", "drop-weight-act-bn"]


def make(**fields):
    defaults = {"dataset": "x", "architecture": "mlp", "order": "weight-bn-act", "activation": "relu", "depth": 2}
    return Cell(**{**defaults, "width": 16, "batch": 10, "epochs": 2, "lr": 0.05, **fields})


def same(one, i, other, j):
    """Whether seed i of one training and seed j of another agree in every bit of metrics, curves and best epoch."""
    numbers = ("loss", "accuracy", "calibration_error", "gradient_norm")
    curves = all(
        np.array_equal(a[name][i], b[name][j], equal_nan=True)
        for a, b in zip(one.curves, other.curves, strict=True)
        for name in numbers
    )
    metrics = all(np.array_equal(one.metrics[k][i], other.metrics[k][j], equal_nan=True) for k in one.metrics)
    return (
        curves and metrics and one.best_epoch[i] == other.best_epoch[j] and (one.correct[i] == other.correct[j]).all()
    )


# Schedules


@pytest.mark.parametrize("total", [4, 5, 7, 10, 33, 100])
def test_onecycle_is_that_of_torch(total):
    optimiser = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], 1.0)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, 0.3, total_steps=total, cycle_momentum=False)
    for step in range(total):
        ours = learning_rate(make(lr=0.3, schedule="onecycle"), step, total)
        assert ours == pytest.approx(optimiser.param_groups[0]["lr"], rel=1e-12)
        optimiser.step()
        if step + 1 < total:
            schedule.step()


@pytest.mark.parametrize("total", [1, 2, 3])
def test_onecycle_of_very_few_steps_stays_within_its_limits(total):
    rates = [learning_rate(make(lr=0.3, schedule="onecycle"), step, total) for step in range(total)]
    assert all(0.3 / 250_001 < rate <= 0.3 for rate in rates)


@pytest.mark.parametrize("total", [1, 2, 10, 33])
def test_cosine_is_that_of_torch(total):
    optimiser = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], 0.3)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, total)
    for step in range(total):
        ours = learning_rate(make(lr=0.3, schedule="cosine"), step, total)
        assert ours == pytest.approx(optimiser.param_groups[0]["lr"], rel=1e-9)
        optimiser.step()
        schedule.step()


def test_a_constant_rate_is_constant():
    assert {learning_rate(make(lr=0.3, schedule="constant"), step, 10) for step in range(10)} == {0.3}


# Batches


def test_an_epoch_takes_no_example_twice_and_leaves_out_an_incomplete_batch():
    order = batch_order([3, 4], 1, 25, 10)
    assert order.shape == (2, 2, 10)
    for s in range(2):
        assert len(set(order[:, s].flatten().tolist())) == 20


def test_batches_belong_to_the_seed_and_the_epoch():
    one, among = batch_order([3], 1, 25, 10), batch_order([1, 3], 1, 25, 10)
    assert torch.equal(one[:, 0], among[:, 1])
    assert not torch.equal(among[:, 0], among[:, 1])
    assert not torch.equal(one, batch_order([3], 2, 25, 10))


# Bits

EVEN = (32, 20)
SIZES = [EVEN, (16, 10), (48, 16), (12, 20), (7, 9), (33, 25)]  # width, batch
ODD = [
    {"shape": (5,), "classes": 10},
    {"shape": (1, 7), "test": 33},
    {"shape": (1,)},
    {"shape": (2, 3, 3), "test": 1001},
    {"test": 1},
    {"train": 10},
    {"train": 12, "classes": 2},
]


@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_any_number_of_seeds_may_share_a_trial_of_even_sizes(activation, blobs):
    cell = make(activation=activation, width=EVEN[0], batch=EVEN[1])
    assert not bits_need_one_seed(cell, True, batch_sizes(cell.batch, blobs()))


@pytest.mark.parametrize("size", SIZES, ids=str)
@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_bits_depend_on_other_seeds_only_where_the_rule_says_so(activation, order, size, blobs):
    optimiser = random.Random(f"{activation} {order} {size}").choice(["sgd", "adam"])
    cell = make(
        activation=activation, order=order, width=size[0], batch=size[1], optimiser=optimiser, lr=0.01, epochs=1
    )
    data = blobs()
    if not bits_need_one_seed(cell, True, batch_sizes(cell.batch, data)):
        assert same(train(cell, (3,), data), 0, train(cell, (1, 3, 5), data), 1)


@pytest.mark.parametrize("fields", [{}, {"affine": False}, {"bias": False, "weight_decay_norm": False}], ids=str)
@pytest.mark.parametrize("place", ["weight-{}-act", "weight-act-{}", "{}-act-weight", "stem_norm", "head_norm"])
@pytest.mark.parametrize("norm", [norm for norm in harness.NORMS if norm != "in"])
def test_bits_depend_on_other_seeds_for_no_normalization(norm, place, fields, blobs):
    order = {"order": place.format(norm)} if "{}" in place else {"order": "weight-act", place: norm}
    choose = random.Random(f"{norm} {place} {fields}")
    (width, batch), activation = choose.choice(SIZES), choose.choice(["relu", "tanh", "maxout"])
    groups = 3 if width == 33 else 4
    cell = make(
        activation=activation, width=width, batch=batch, groups=groups if norm == "gn" and width != 7 else 1, lr=0.01,
        weight_decay=0.1, optimiser=choose.choice(["sgd", "adam"]), epochs=1, init="lsuv", **order, **fields,
    )  # fmt: skip
    data = blobs()
    assert not bits_need_one_seed(cell, True, batch_sizes(cell.batch, data))
    assert same(train(cell, (3,), data), 0, train(cell, (7, 1, 5, 2, 8, 6, 4, 3), data), 7)


@pytest.mark.parametrize("size", [EVEN, (7, 9)], ids=str)
@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_so_it_is_with_residual_blocks(activation, size, blobs):
    draw = random.Random(f"{activation} {size}")
    cell = make(
        architecture="resmlp",
        activation=activation,
        order=draw.choice(["weight-act", "weight-bn-act", "weight-act-bn", "bn-act-weight"]),
        after_sum=draw.choice(["none", "bn"] if activation == "maxout" else ["none", "act", "bn-act"]),
        branch_end=draw.choice(["order", "norm", "weight"]),
        width=size[0],
        batch=size[1],
        epochs=1,
    )
    data = blobs()
    if not bits_need_one_seed(cell, harness.stackable("resmlp"), batch_sizes(cell.batch, data)):
        assert same(train(cell, (3,), data), 0, train(cell, (1, 3, 5), data), 1)


@pytest.mark.parametrize("activation", ["relu", "gelu", "elu", "maxout"])
@pytest.mark.parametrize("seeds", [(3, 9), (7, 1, 5, 2, 8, 6, 4, 3)], ids=str)
@pytest.mark.parametrize("problem", ODD, ids=str)
def test_bits_depend_on_other_seeds_only_where_the_rule_says_so_on_odd_data(problem, seeds, activation, blobs):
    cell, data = make(activation=activation, width=32, batch=8), blobs(**problem)
    if not bits_need_one_seed(cell, True, batch_sizes(cell.batch, data)):
        assert same(train(cell, (3,), data), 0, train(cell, seeds, data), seeds.index(3))


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_training_twice_gives_the_same_bits(architecture, blobs):
    cell, data = make(architecture=architecture, order="weight-bn-act-drop"), blobs((1, 8))
    one, other = train(cell, [0, 4], data), train(cell, [0, 4], data)
    assert all(same(one, s, other, s) for s in range(2))


def test_training_neither_reads_nor_moves_global_random_state(blobs):
    def states():
        return random.getstate(), pickle.dumps(np.random.get_state()), torch.get_rng_state().tolist()  # noqa: NPY002

    cell, data, trainings = make(order="weight-bn-act-drop"), blobs(), []
    for state in (1, 2):
        random.seed(state)
        np.random.seed(state)  # noqa: NPY002 the global state is what is tested
        torch.manual_seed(state)
        before = states()
        trainings.append(train(cell, [0, 4], data))
        assert states() == before
    assert all(same(trainings[0], s, trainings[1], s) for s in range(2))


# Divergence


@pytest.mark.parametrize("order", ["weight-bn-act", "weight-act-drop"])
@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_nan_in_one_seed_leaves_the_bits_of_the_others_alone(architecture, order):
    cell = make(architecture=architecture, order=order)
    x, y, index = torch.randn(30, 2, 8, 8), torch.randint(3, (30,)), torch.arange(30).view(3, 10)

    def parameters(plant):
        model = stack(build(cell, (2, 8, 8), 3), [0, 1, 2])
        if plant:
            for parameter in model.parameters():
                parameter.data[1] = torch.nan
        step = make_step(model, cell, x, y)
        for _ in range(3):
            step(index, cell.lr)
        return model.state_dict()

    healthy, planted = parameters(plant=False), parameters(plant=True)
    for name, value in planted.items():
        assert torch.equal(value[[0, 2]], healthy[name][[0, 2]])
    assert planted["head.weight"][1].isnan().all()


@pytest.fixture
def monstrous(blobs):
    """Data whose training example 0 makes a seed diverge, and some seeds that meet it in the first epoch and some not."""
    data, cell = blobs(train=200), make(order="weight-act", width=32, batch=32, epochs=1)
    x = data.x_train.copy()
    x[0] = 1e30  # its loss is finite, what is learnt from it is not
    meets = {s: 0 in batch_order([s], 1, len(x), cell.batch) for s in range(40)}
    met, missed = ([s for s in meets if meets[s] is wanted] for wanted in (True, False))
    return cell, dataclasses.replace(data, x_train=x), met, missed


def test_a_diverged_seed_has_its_epoch_and_nan_for_metrics(monstrous):
    cell, data, met, missed = monstrous
    training = train(cell, [missed[0], met[0], missed[1]], data)
    assert training.diverged_at.tolist() == [0, 1, 0]
    for value in training.metrics.values():
        assert np.isnan(value).tolist() == [False, True, False]


def test_seeds_beside_a_diverged_one_have_the_bits_of_a_training_without_it(monstrous):
    cell, data, met, missed = monstrous
    mixed, apart = train(cell, [missed[0], met[0], missed[1]], data), train(cell, missed[:2], data)
    assert same(mixed, 0, apart, 0)
    assert same(mixed, 2, apart, 1)


def test_a_training_ends_when_every_seed_has_diverged(blobs):
    training = train(make(activation="identity", order="weight-act", lr=1e20, epochs=5), [0, 1], blobs())
    assert training.diverged_at.tolist() == [1, 1]
    assert [row["epoch"] for row in training.curves] == [0, 1, 1]


def test_seeds_beside_those_that_a_huge_rate_drives_away_keep_their_bits(blobs):
    seeds, data = range(12), blobs(train=200)
    cell = make(
        activation="relu", order="weight-act", width=32, batch=32, lr=0.7, epochs=1, depth=4, schedule="constant"
    )
    training = train(cell, seeds, data)
    stayed = [s for s in seeds if not training.diverged_at[s]]
    assert 0 < len(stayed) < len(seeds)
    alone = train(cell, stayed, data)
    assert all(same(training, s, alone, i) for i, s in enumerate(stayed))


# The best epoch


@pytest.fixture(scope="module")
def many_epochs(blobs):
    """A training whose validation accuracy rises and falls, with ties among its highest values."""
    cell = make(epochs=8, lr=0.3, schedule="constant")
    return cell, train(cell, range(6), blobs())


def test_the_best_epoch_is_the_first_of_highest_validation_accuracy(many_epochs):
    _, training = many_epochs
    accuracy = np.array([row["accuracy"] for row in training.curves if row["split"] == "val"])[1:]
    assert (accuracy == accuracy.max(0)).sum(0).max() > 1  # a tie
    assert training.best_epoch.tolist() == (accuracy.argmax(0) + 1).tolist()
    assert len(set(training.best_epoch)) > 1


def test_metrics_at_the_best_epoch_are_those_of_a_training_that_ends_there(many_epochs, blobs):
    cell, training = many_epochs
    for s, epoch in enumerate(training.best_epoch):
        shorter = train(cell.model_copy(update={"epochs": int(epoch)}), range(6), blobs())
        for name, value in training.metrics.items():
            if name.startswith("best_"):
                assert value[s] == shorter.metrics[name.removeprefix("best_")][s]


@pytest.mark.parametrize(("lr", "last"), [(3e-4, [True] * 4), (1e-3, [True, False, True, True])])
def test_metrics_at_a_best_epoch_that_is_the_last_are_the_final_ones(lr, last, blobs):
    training = train(make(epochs=3, lr=lr, schedule="constant"), range(4), blobs(train=300))
    assert (training.best_epoch == 3).tolist() == last
    names = [name for name in training.metrics if name.startswith("best_")]
    assert len(names) == 9
    for name in names:
        ours, final = training.metrics[name], training.metrics[name.removeprefix("best_")]
        assert (ours[last] == final[last]).all()
    assert ((training.metrics["best_test_loss"] == training.metrics["test_loss"]) == last).all()


# The whole


@pytest.mark.parametrize("optimiser", ["sgd", "adam"])
@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_a_training_is_what_a_plain_loop_of_torch_does(architecture, optimiser, blobs):
    # not bn right after weight: adam would blow up the rounding errors in gradients of biases that bn cancels
    fields = {"weight_decay": 0.01, "optimiser": optimiser, "lr": 0.02, "schedule": "onecycle", "activation": "tanh"}
    cell, data = make(architecture=architecture, order="weight-act-bn", **fields), blobs((1, 8))
    training = train(cell, [4, 9], data)
    rows = {(row["epoch"], row["split"]): row for row in training.curves}
    for s, seed in enumerate(training.seeds):
        model = solo(stack(build(cell, data.shape, data.classes), [seed]), 0)
        plain = optimiser_of(cell, model)
        schedule = torch.optim.lr_scheduler.OneCycleLR(plain, 0.02, total_steps=18, cycle_momentum=False)
        x, y, x_val, y_val = map(torch.from_numpy, (data.x_train, data.y_train, data.x_val, data.y_val))
        steps = itertools.count(1)
        for epoch in (1, 2):
            losses, hits = [], []
            assert rows[epoch, "train"]["lr"] == pytest.approx(plain.param_groups[0]["lr"])
            for index in batch_order([seed], epoch, len(x), 10)[:, 0]:
                plain.zero_grad()
                logits = model(x[index])
                loss = F.cross_entropy(logits, y[index])
                loss.backward()
                plain.step()
                if next(steps) < 18:
                    schedule.step()
                losses.append(loss.item())
                hits.append((logits.argmax(1) == y[index]).double().mean().item())
            model.eval()
            logits = model(x_val).detach()
            model.train()
            norm = torch.cat([p.grad.flatten() for p in model.parameters()]).norm().item()
            assert rows[epoch, "train"]["loss"][s] == pytest.approx(np.mean(losses), rel=1e-4)
            assert rows[epoch, "train"]["accuracy"][s] == pytest.approx(np.mean(hits))
            assert rows[epoch, "train"]["gradient_norm"][s] == pytest.approx(norm, rel=1e-3)
            assert rows[epoch, "val"]["loss"][s] == pytest.approx(F.cross_entropy(logits, y_val).item(), rel=1e-4)
        assert training.metrics["val_loss"][s] == rows[2, "val"]["loss"][s]
        assert training.parameters == sum(p.numel() for p in model.parameters())
