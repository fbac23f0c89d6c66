"""Measuring: against plain torch and plain loops; it must not change the training that it measures."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F

import harness
from grids import Cell
from harness.architectures import build
from harness.engine import EVALUATION_BATCH
from harness.evaluation import BINS, calibration_error, evaluate, reestimate, shared_batch
from harness.normalizations import BatchNorm
from harness.stacking import solo, stack
from harness.step import make_step
from harness.training import train

ARCHITECTURES = harness.names("architectures")
SEEDS = [0, 7]
CLASSES = 4


def make(**fields):
    defaults = {"dataset": "x", "architecture": "mlp", "order": "weight-bn-act", "activation": "relu", "depth": 2}
    return Cell(**{**defaults, "width": 8, "batch": 20, "epochs": 1, **fields})


def stacked(shape=(1, 8), **fields):
    return stack(build(make(**fields), shape, CLASSES), SEEDS, dtype=torch.float64)


def examples(n, shape=(1, 8)):
    rng = torch.Generator().manual_seed(0)
    x = torch.randn(n, *shape, generator=rng, dtype=torch.float64)
    return x, torch.randint(CLASSES, (n,), generator=rng)


def one_epoch(cell, model, x, y, between=lambda: None):
    """Train by steps on the same batches for every seed; `between` is called after each step."""
    step = make_step(model, cell, x, y)
    for start in range(0, len(x) - cell.batch + 1, cell.batch):
        step(torch.arange(start, start + cell.batch).expand(len(SEEDS), -1), cell.lr)
        between()


@pytest.mark.parametrize("n", [1, 30, EVALUATION_BATCH, 2 * EVALUATION_BATCH + 3])
@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_evaluation_is_that_of_plain_torch(architecture, n):
    model = stacked(architecture=architecture)
    one_epoch(make(), model, *examples(60))
    x, y = examples(n)
    measured = evaluate(model, len(SEEDS), x, y)
    for s in range(len(SEEDS)):
        logits = solo(model, s).eval()(x).detach()
        correct = logits.argmax(1) == y
        assert measured.loss[s].item() == pytest.approx(F.cross_entropy(logits, y).item(), rel=1e-9)
        assert measured.accuracy[s] == correct.double().mean()
        assert torch.equal(measured.correct[s], correct)
        expected = calibration_error(logits.softmax(1).amax(1)[None], correct[None])
        assert measured.calibration_error[s].item() == pytest.approx(expected.item(), abs=1e-9)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_evaluation_leaves_the_bits_of_the_training_alone(architecture):
    cell, (x, y) = make(architecture=architecture, order="weight-bn-act-drop"), examples(100)
    watched, unwatched = (stacked(architecture=architecture, order="weight-bn-act-drop") for _ in range(2))
    one_epoch(cell, watched, x, y, between=lambda: evaluate(watched, len(SEEDS), x, y))
    one_epoch(cell, unwatched, x, y)
    assert all(torch.equal(value, unwatched.state_dict()[name]) for name, value in watched.state_dict().items())


def test_evaluation_and_reestimation_leave_the_model_in_training_mode():
    model, (x, y) = stacked(), examples(40)
    evaluate(model, len(SEEDS), x, y)
    assert all(module.training for module in model.modules())
    reestimate(model, len(SEEDS), x, batch=20)
    assert all(module.training for module in model.modules())


# Calibration


def by_loop(confidence, correct):
    total = 0.0
    for k in range(BINS):
        inside = [(p, c) for p, c in zip(confidence, correct, strict=True) if k / BINS < p <= (k + 1) / BINS]
        if inside:
            mean_confidence, accuracy = np.mean(inside, axis=0)
            total += len(inside) / len(confidence) * abs(accuracy - mean_confidence)
    return total


def test_the_calibration_error_is_that_of_a_loop_over_bins():
    rng = np.random.default_rng(0)
    confidence, correct = rng.uniform(0.1, 1, (3, 500)), rng.random((3, 500)) < 0.6
    confidence[:, :2] = 1.0, 9 / BINS  # the edge of a bin belongs to the bin below
    errors = calibration_error(torch.from_numpy(confidence), torch.from_numpy(correct))
    np.testing.assert_allclose(errors, [by_loop(*row) for row in zip(confidence, correct, strict=True)], rtol=1e-12)


def test_whoever_is_always_right_and_sure_has_no_calibration_error():
    sure = torch.ones(1, 10)
    assert calibration_error(sure, sure.bool()).item() == 0
    assert calibration_error(sure, ~sure.bool()).item() == 1


def test_nan_confidence_counts_as_none():
    assert calibration_error(torch.full((1, 4), torch.nan), torch.tensor([[True, False, False, False]])).item() == 0.25


# Re-estimation


@pytest.mark.parametrize(
    "fields",
    [
        {"order": "weight-bn-act"},
        {"order": "weight-act-bn", "affine": False},
        {"order": "bn-weight-act"},
        {"order": "drop-weight-bn-act"},
        {"order": "weight-act", "stem_norm": "bn"},
        {"order": "weight-act", "head_norm": "bn", "affine": False},
    ],
    ids=str,
)
@pytest.mark.parametrize("shape", [(6,), (1, 8), (2, 8, 8)], ids=str)
@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_reestimated_statistics_are_those_of_the_whole_training_set(architecture, shape, fields):
    if harness.convolves(architecture) and len(shape) == 1:
        pytest.skip("no space to convolve")
    model, (x, _) = stacked(shape, architecture=architecture, depth=1, **fields), examples(107, shape)
    norm = next(module for module in model.modules() if isinstance(module, BatchNorm))
    seen = []
    hook = norm.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    model.eval()(shared_batch(x[:100], len(SEEDS)))  # five batches of 20; the incomplete one is left out
    hook.remove()
    values = seen[0].flatten(2)  # (S, C, 100 · space): what bn gets does not depend on its statistics
    reestimate(model, len(SEEDS), x, batch=20)
    torch.testing.assert_close(norm.running_mean, values.mean(2), rtol=1e-9, atol=1e-12)
    torch.testing.assert_close(norm.running_var, values.var(2, correction=1), rtol=1e-9, atol=1e-12)


def test_later_layers_see_batches_normalised_by_their_own_statistics():
    model, (x, _) = stacked(depth=2), examples(40)
    first, second = (module for module in model.modules() if isinstance(module, BatchNorm))
    first.running_mean += 100  # nothing must depend on what was there before
    seen = []
    hook = second.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    for part in (x[:20], x[20:]):
        model(shared_batch(part, len(SEEDS)))  # in training mode
    hook.remove()
    reestimate(model, len(SEEDS), x, batch=20)
    torch.testing.assert_close(second.running_mean, torch.cat(seen, 2).mean(2), rtol=1e-9, atol=1e-12)


def test_reestimation_leaves_parameters_momentum_and_hooks_alone():
    model, (x, _) = stacked(), examples(40)
    before = [parameter.clone() for parameter in model.parameters()]
    reestimate(model, len(SEEDS), x, batch=20)
    assert all(torch.equal(*pair) for pair in zip(before, model.parameters(), strict=True))
    norms = [module for module in model.modules() if isinstance(module, BatchNorm)]
    assert {(norm.momentum, len(norm._forward_pre_hooks)) for norm in norms} == {(0.1, 0)}


@pytest.mark.parametrize("order", ["weight-act", "weight-ln-act", "weight-act-rms"])
def test_reestimated_metrics_are_the_plain_ones_where_nothing_has_running_averages(order, blobs):
    metrics = train(make(order=order), SEEDS, blobs()).metrics
    for name in ("val_loss", "test_loss", "test_accuracy", "test_calibration_error"):
        assert np.array_equal(metrics[f"reestimated_{name}"], metrics[name])


def test_reestimated_metrics_differ_where_bn_has_seen_few_batches(blobs):
    metrics = train(make(), SEEDS, blobs()).metrics
    assert (metrics["reestimated_val_loss"] != metrics["val_loss"]).all()
