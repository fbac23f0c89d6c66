"""Shift and flip: against a loop over examples, and whose draws they depend on."""

import dataclasses
import itertools

import numpy as np
import pytest
import torch

from grids import Cell
from harness.architectures import build
from harness.augmentation import moved, moves
from harness.datasets import Examples, prepare
from harness.engine import COMPILED, EAGER, can_compile, shape
from harness.pilot import measure
from harness.plan import Trial
from harness.stacking import stack
from harness.step import step_losses
from harness.training import batch_order, train
from harness.trial import run_trial
from results import METRICS

SPACES = [(1, 9), (3, 7), (1, 6, 8), (3, 5, 5), (2, 4, 1)]


def make(**fields):
    defaults = {"dataset": "x", "architecture": "mlp", "order": "weight-bn-act", "activation": "relu", "depth": 1}
    return Cell(**{**defaults, "width": 32, "batch": 20, "epochs": 2, "lr": 0.05, **fields})


@pytest.fixture(scope="module")
def images(blobs):
    return dataclasses.replace(blobs((2, 6, 5), train=100), flips=True)


def by_hand(x, places, mirrored):
    """One example (C, *space): out[p] = mirrored x[p − places], 0 where that is outside."""
    x = x[..., ::-1] if mirrored else x
    out = np.zeros_like(x)
    for to in np.ndindex(x.shape[1:]):
        source = tuple(np.subtract(to, places))
        if all(0 <= i < size for i, size in zip(source, x.shape[1:], strict=True)):
            out[(slice(None), *to)] = x[(slice(None), *source)]
    return out


def same(one, i, other, j):
    return all(np.array_equal(one.metrics[k][i], other.metrics[k][j]) for k in one.metrics) and all(
        np.array_equal(a[name][i], b[name][j], equal_nan=True)
        for a, b in zip(one.curves, other.curves, strict=True)
        for name in ("loss", "accuracy", "gradient_norm")
    )


def drawn(data, seeds=(3,), epoch=1, batches=None, **fields):
    """Moves of each example in its place, of one seed after the other: (S, N, D + 1)"""
    if batches is None:
        batches = torch.arange(len(data.x_train)).expand(len(seeds), -1)[None]
    [found] = moves(make(**fields), seeds, epoch, batches, data)
    return found[0].numpy()


# What a move does


@pytest.mark.parametrize("space", SPACES, ids=str)
def test_examples_are_mirrored_and_shifted_as_a_loop_over_places_does(space):
    rng = np.random.default_rng(0)
    x = rng.standard_normal((60, *space)).astype(np.float32)
    places = rng.integers(-4, 5, (60, len(space) - 1))
    mirrored = rng.integers(0, 2, (60, 1))
    ours = moved(torch.from_numpy(x), torch.from_numpy(np.hstack([places, mirrored])))
    expected = [by_hand(*each) for each in zip(x, places, mirrored[:, 0], strict=True)]
    np.testing.assert_array_equal(ours.numpy(), expected)


def test_what_comes_in_is_0_whatever_goes_out():
    x = torch.full((1, 1, 3), torch.inf)
    assert moved(x, torch.tensor([[1, 0]])).tolist() == [[[0, torch.inf, torch.inf]]]


# Whose draws


def test_moves_reach_both_ends_and_half_of_the_examples_are_mirrored(blobs):
    data = blobs((1, 6, 6), train=2000)
    found = drawn(data, shift=2, flip=True)[0]
    for d in range(2):
        counts = np.bincount(found[:, d] + 2, minlength=5)
        assert counts == pytest.approx([360] * 5, abs=4 * np.sqrt(1800 * 0.2 * 0.8))  # 4 standard errors
    assert found[:, 2].mean() == pytest.approx(0.5, abs=4 * 0.5 / np.sqrt(1800))
    assert abs(np.corrcoef(found[:, 0], found[:, 1])[0, 1]) < 4 / np.sqrt(1800)


def test_moves_belong_to_the_seed_and_the_epoch(images):
    base = drawn(images, shift=2, flip=True)
    assert np.array_equal(drawn(images, (1, 3), shift=2, flip=True)[1], base[0])
    assert not np.array_equal(drawn(images, (4,), shift=2, flip=True), base)
    assert not np.array_equal(drawn(images, epoch=2, shift=2, flip=True), base)


@pytest.mark.parametrize("fields", [{"activation": "tanh"}, {"order": "weight-act-bn-drop"}, {"batch": 7}, {"lr": 1.0}])
def test_moves_are_the_same_in_all_arms(images, fields):
    assert np.array_equal(drawn(images, shift=2, flip=True, **fields), drawn(images, shift=2, flip=True))


def test_moves_follow_examples_not_places_in_batches(images):
    batches = batch_order([3], 1, len(images.x_train), 20)
    [found] = moves(make(shift=2, flip=True), [3], 1, batches, images)
    assert found.shape == (4, 1, 20, 3)
    assert np.array_equal(found.numpy()[:, 0], drawn(images, shift=2, flip=True)[0][batches[:, 0].numpy()])


def test_shifts_and_flips_do_not_move_each_other_and_a_larger_shift_goes_the_same_way(images):
    both, large = drawn(images, shift=1, flip=True), drawn(images, shift=4)
    assert np.array_equal(drawn(images, shift=1)[..., :2], both[..., :2])
    assert np.array_equal(drawn(images, flip=True)[..., 2], both[..., 2])
    assert not drawn(images, flip=True)[..., :2].any()
    assert not large[..., 2].any()
    assert (large * both)[..., :2].min() == 0  # never the other way


def test_of_a_smaller_training_set_examples_move_as_in_the_whole(images):
    small = dataclasses.replace(images, x_train=images.x_train[:40])
    assert np.array_equal(drawn(small, shift=2, flip=True), drawn(images, shift=2, flip=True)[:, :40])


def test_without_shift_and_flip_nothing_is_drawn(images):
    assert moves(make(), [3], 1, torch.zeros(1, 1, 20, dtype=torch.long), images) == []


# In a training


STILL = {"lr": 1e-30, "schedule": "constant"}  # so that weights stay as they are drawn


@pytest.mark.parametrize("architecture", ["mlp", "cnn"])
def test_steps_see_what_a_loop_over_examples_makes(architecture, images):
    cell = make(architecture=architecture, order="weight-act", shift=2, flip=True, **STILL)
    rows = [row for row in train(cell, [4, 9], images).curves if row["split"] == "train"]
    for (s, seed), row in itertools.product(enumerate([4, 9]), rows):
        model, losses = stack(build(cell, images.shape, images.classes), [seed]), []
        found = drawn(images, (seed,), row["epoch"], shift=2, flip=True)[0]
        for [index] in batch_order([seed], row["epoch"], len(images.x_train), cell.batch):
            x = np.stack([by_hand(images.x_train[n], found[n, :2], found[n, 2]) for n in index.tolist()])
            x, y = torch.from_numpy(x).movedim(0, 1)[None], torch.from_numpy(images.y_train[index])[None]
            losses.append(step_losses(model, x, y)[0].item())
        assert row["loss"][s] == pytest.approx(np.mean(losses), rel=1e-5)


@pytest.mark.parametrize("order", ["weight-bn-act", "weight-act-drop"])
def test_the_bits_of_a_seed_do_not_depend_on_the_others(images, order):
    cell = make(shift=2, flip=True, order=order)
    assert same(train(cell, (3,), images), 0, train(cell, (1, 3, 5), images), 1)


def test_evaluations_and_reestimated_statistics_are_of_examples_as_they_are(images):
    """Where nothing is learnt, what is measured differs by the running averages alone."""
    plain, moving = (train(make(**STILL, **more), [0, 1], images) for more in ({}, {"shift": 3, "flip": True}))
    for name, value in moving.metrics.items():
        if name.startswith("reestimated_"):
            assert np.array_equal(value, plain.metrics[name])
    assert not np.array_equal(moving.metrics["val_loss"], plain.metrics["val_loss"])  # running averages of moved ones
    plain, moving = (train(make(order="weight-act", **STILL, **more), [0, 1], images) for more in ({}, {"shift": 3}))
    assert all(np.array_equal(moving.metrics[name], plain.metrics[name]) for name in plain.metrics)
    for a, b in zip(plain.curves, moving.curves, strict=True):
        assert np.array_equal(a["loss"], b["loss"]) == (a["split"] == "val")


def test_moving_helps_where_labels_do_not_depend_on_the_place():
    """A bar of three lit places somewhere, or two with a gap: few examples, so that what is not seen must be made."""
    rng = np.random.default_rng(0)
    y = np.arange(700) % 2
    x = rng.standard_normal((700, 1, 16)).astype(np.float32) * 0.3
    for n, at in enumerate(rng.integers(0, 13, 700)):
        x[n, 0, at : at + 3] += [2, 2 * (y[n] == 0), 2]
    data = prepare("bars", Examples(x[:60], y[:60], x[60:], y[60:], classes=2))
    seeds, usual = range(4), {"epochs": 40, "batch": 18, "architecture": "mlp", "order": "weight-act"}
    plain, moving = (train(make(**usual, shift=shift), seeds, data).metrics["test_accuracy"] for shift in (0, 6))
    assert moving.mean() > plain.mean() + 0.05


# Eager alone


@pytest.mark.parametrize("fields", [{"shift": 1}, {"flip": True}])
def test_steps_that_move_their_examples_are_not_compiled(images, fields):
    cell = make(**fields)
    assert not can_compile(cell, False, "cpu")
    assert can_compile(make(), False, "cpu")
    assert shape(cell, images) != shape(make(), images)
    provenance = {"commit": "", "versions": "test"}
    asked = run_trial(Trial(cell, (0, 4), 2, COMPILED), images, provenance)
    eager = run_trial(Trial(cell, (0, 4), 2, EAGER), images, provenance)
    assert asked.not_compiled == "steps that shift or mirror their examples are eager"
    columns = [*METRICS, "engine", "trial", "seed_block"]
    assert asked.tables["runs"].select(columns).equals(eager.tables["runs"].select(columns))


@pytest.mark.parametrize("fields", [{"shift": 1}, {"flip": True}, {}])
def test_a_pilot_times_steps_that_move_their_examples(images, fields):
    with torch.profiler.profile() as profile:
        assert set(measure(make(**fields), images, (1, 2)).seconds) == {1, 2}
    assert ("aten::gather" in {event.key for event in profile.key_averages()}) == bool(fields)
