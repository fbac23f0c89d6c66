"""The baselines of the benchmark do the work they are compared for: same network, whole sample, same accuracies."""

import json
import os
import subprocess
import sys
from pathlib import Path

import agreement
import network
import numpy as np
import plain
import pytest
import sample
import steps
import torch
import variants
from scipy import stats
from torch import nn

import harness
from grids import Cell
from harness.architectures import build
from harness.stacking import solo, stack

BENCH = Path(__file__).parent / "bench"
DEFAULT = sample.read(BENCH.parents[1] / "grids" / "default.toml")
ORDERS = [*DEFAULT.axes["order"], "bn-act-weight", "act-bn-weight"]
TINY = """
# Do the programs run?
[axes]
dataset      = ["digits"]
architecture = ["mlp"]
order        = ["weight-bn-act"]
activation   = ["relu"]
depth        = [1]
[recipe]
epochs = 2
width  = 8
[seeds]
count = 2
"""


def cell(**fields) -> Cell:
    usual = {"dataset": "x", "architecture": "mlp", "order": "weight-bn-act", "activation": "relu", "depth": 2}
    return Cell(**{**usual, "width": 8, "batch": 20, "epochs": 3, **fields})


def leaves(model: nn.Module) -> list[nn.Module]:
    return [module for module in model.modules() if not list(module.children())]


def layers(model: nn.Module) -> list[tuple]:
    """What the layers are, in order, with the shapes of their tensors; pooling and flattening are written otherwise."""
    kinds = (nn.Flatten, nn.AdaptiveAvgPool1d, nn.AdaptiveAvgPool2d)
    kept = [each for each in leaves(model) if not isinstance(each, kinds) and "MeanSpace" not in type(each).__name__]
    return [
        (type(each).__name__.strip("_").removesuffix("Twin"), [tuple(t.shape) for t in each.parameters()])
        for each in kept
    ]


@pytest.mark.parametrize("activation", network.ACTIVATIONS)
@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize(("architecture", "shape"), [("mlp", (1, 10)), ("cnn", (2, 12)), ("cnn", (1, 8, 8))])
def test_the_plain_network_is_that_of_normorder(architecture, shape, order, activation):
    this = cell(architecture=architecture, order=order, activation=activation, depth=3)
    ours = solo(stack(build(this, shape, 5), [0]), 0)
    theirs = network.build(this, shape, 5)
    assert layers(theirs) == layers(ours)
    # With the same tensors it gives the same numbers, in training and then in evaluation mode.
    own = dict(zip(theirs.state_dict(), ours.state_dict().values(), strict=True))
    theirs.load_state_dict(own)
    x = torch.randn(6, *shape, generator=torch.Generator().manual_seed(0))
    for training in (True, False):
        torch.testing.assert_close(theirs.train(training)(x), ours.train(training)(x), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("architecture", ["mlp", "cnn"])
@pytest.mark.parametrize("activation", network.ACTIVATIONS)
def test_the_initial_weights_are_as_large_as_those_of_normorder(architecture, activation):
    this = cell(architecture=architecture, activation=activation, width=64)
    torch.manual_seed(0)
    theirs = network.build(this, (1, 400), 10)
    ours = solo(stack(build(this, (1, 400), 10), [0]), 0)
    kinds = (nn.Linear, nn.Conv1d)
    pairs = zip(*([layer for layer in leaves(net) if isinstance(layer, kinds)] for net in (theirs, ours)), strict=True)
    for a, b in pairs:
        band = 4 * (1 / a.weight.numel()) ** 0.5  # 4 standard errors of the ratio of two sd
        assert abs(a.weight.std() / b.weight.std() - 1) < band
        assert not a.bias.any()


@pytest.mark.parametrize(
    ("change", "said"),
    [({"activation": "gelu"}, "gelu"), ({"order": "drop-weight-act"}, "drop"), ({"schedule": "constant"}, "constant")],
)
def test_a_cell_that_is_not_written_plainly_is_refused(change, said, blobs):
    with pytest.raises(ValueError, match=said):
        plain.train(cell(**change), 0, plain.parts(blobs()))


@pytest.mark.parametrize("how", [*variants.VARIANTS.values(), *variants.CONVOLUTIONAL.values()], ids=str)
def test_every_way_to_write_the_loop_learns(how, blobs):
    rows = []
    last = plain.train(cell(epochs=5), 1, plain.parts(blobs(train=300)), how, rows.append)
    assert [row["epoch"] for row in rows] == [1, 2, 3, 4, 5]
    assert rows[-1] == last
    assert last["train_loss"] < rows[0]["train_loss"]
    assert min(last[f"{part}_accuracy"] for part in ("train", "val", "test")) > 0.9


def test_ways_that_draw_alike_train_alike(blobs):
    ways = [
        plain.FAST,
        *(plain.How(batches=batches, optimiser="loop", schedule="torch") for batches in ("select", "index")),
    ]
    losses = [plain.train(cell(), 3, plain.parts(blobs()), how)["test_loss"] for how in ways]
    assert losses == pytest.approx([losses[0]] * 3, rel=1e-4)


def test_variants_are_timed_side_by_side(blobs):
    data = plain.parts(blobs())
    timing = variants.fastest_plain(cell(), data, rounds=2)
    assert timing.seconds.keys() == variants.VARIANTS.keys()
    assert {len(seconds) for seconds in timing.seconds.values()} == {2}
    assert timing.ratio(timing.fastest) == 1
    assert 0 < variants.seconds_per_step(cell(), data, steps=30) < 1


def test_a_step_of_every_architecture_is_timed_against_the_plain_loop_of_the_same_network():
    found = steps.compare_architectures(1, 0.01, {**os.environ, "PYTHONPATH": str(BENCH.parents[1])})
    for how, stackable in (("plain", False), ("ours", True)):
        assert found[how].keys() == {*harness.names("architectures")}
        for name, (each,) in found[how].items():
            assert min(each["step_s"]) > 0
            assert (each["seeds"] > 1) == (stackable and harness.stackable(name))


@pytest.mark.parametrize("architecture", harness.names("architectures"))
def test_the_plain_loop_takes_the_twin_of_any_network(architecture, blobs):
    this = cell(architecture=architecture, width=32, lr=0.05, depth=1, epochs=5)
    loop = plain.Loop(this, 0, plain.parts(blobs((1, 8, 8), train=300)), plain.FAST, steps.twin)
    losses = [loop.epoch()["val_loss"] for _ in range(5)]
    assert losses[-1] < 0.8 * losses[0]
    kernels = [p for p in loop.model.parameters() if p.ndim == 4 and p.shape[1] > 1 and p[0, 0].numel() > 1]
    assert all(p.is_contiguous(memory_format=torch.channels_last) for p in kernels)


@pytest.mark.parametrize("cells", [3, 4, 6, 9, 18, 54])
def test_the_sample_takes_every_value_about_as_often(cells):
    taken = sample.sample(DEFAULT, cells)
    assert len(set(taken)) == cells
    assert taken == sample.sample(DEFAULT, cells)
    for axis in ("order", "depth", "activation"):
        counts = [sum(getattr(each, axis) == value for each in taken) for value in DEFAULT.axes[axis]]
        assert max(counts) - min(counts) <= 1, axis


def test_a_sample_that_cannot_span_the_depths_is_refused():
    with pytest.raises(ValueError, match="2 cells of default: from 3"):
        sample.sample(DEFAULT, 2)


def test_equal_distributions_agree():
    rng = np.random.default_rng(0)
    ours, theirs = rng.normal(0.6, 0.02, (2, 20, 6))
    found = agreement.agreement(ours, theirs)
    assert found.verdict == "agree"
    assert found.low < 0 < found.high


def test_the_p_values_are_those_of_welch():
    rng = np.random.default_rng(1)
    ours, theirs = rng.normal(0.6, 0.02, (5, 4)), rng.normal(0.61, 0.05, (8, 4))
    known = stats.ttest_ind(ours, theirs, equal_var=False)
    np.testing.assert_allclose(agreement.agreement(ours, theirs).p, known.pvalue, rtol=1e-6)


def test_ten_points_in_one_cell_are_a_difference():
    ours, theirs = np.random.default_rng(2).normal(0.6, 0.02, (2, 8, 6))
    ours[:, 3] += 0.1
    found = agreement.agreement(ours, theirs)
    assert found.verdict == "differ"
    assert found.p_holm.argmin() == 3


def test_few_scattered_runs_show_nothing():
    ours, theirs = np.random.default_rng(3).normal(0.6, 0.1, (2, 3, 3))
    assert agreement.agreement(ours, theirs).verdict == "too few runs"


def test_accuracies_without_spread_agree_or_differ():
    same = np.full((4, 2), 0.5)
    assert agreement.agreement(same, same).verdict == "agree"
    assert agreement.agreement(same + 0.01, same).verdict == "differ"


def test_agreement_is_seldom_denied_to_equal_distributions():
    rng = np.random.default_rng(4)
    trials = 1000
    denied = sum(agreement.agreement(*rng.normal(0.6, 0.02, (2, 6, 6))).verdict == "differ" for _ in range(trials))
    assert denied / trials < agreement.ALPHA + 4 * (agreement.ALPHA / trials) ** 0.5


def test_the_plain_loop_is_as_accurate_as_normorder():
    data = agreement.datasets.load("digits")
    cells = [
        each.model_copy(update={"dataset": "digits", "epochs": 3, "width": 16}) for each in sample.sample(DEFAULT, 6)
    ]
    found = agreement.agreement(*agreement.accuracies(cells, range(8), data), margin=0.1)
    assert found.verdict == "agree", str(found)


@pytest.mark.parametrize("program", ["idiomatic", "tuned"])
def test_the_programs_on_ray_give_every_run(program, tmp_path):
    grid, out = tmp_path / "tiny.toml", tmp_path / "out.json"
    grid.write_text(TINY)
    command = [sys.executable, BENCH / f"{program}.py", grid, "--cells", "1", "--seeds", "2", "--out", out]
    environment = {**os.environ, "PYTHONPATH": str(BENCH.parents[1])}
    tried = subprocess.run(command, env=environment, capture_output=True, text=True, check=False, cwd=tmp_path)
    assert tried.returncode == 0, tried.stderr[-3000:]
    written = json.loads(out.read_text())
    assert sorted(run["seed"] for run in written["runs"]) == [0, 1]
    assert {run["threads"] for run in written["runs"]} == {1}
    assert all(0 < run["test_accuracy"] <= 1 for run in written["runs"])
    assert written["wall_s"] > 0
