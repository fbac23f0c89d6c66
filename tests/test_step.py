"""One step as one graph: it does what torch.nn twins do, its bits follow the rule, and where it fails it says so."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from oracles import optimiser
from torch import nn

from grids import Cell
from harness.architectures import build
from harness.engine import COMPILED, EAGER
from harness.plan import Trial
from harness.stacking import solo, stack
from harness.step import NotCompiled, make_step, one_graph
from harness.training import train
from harness.trial import run_trial
from results import METRICS

SEEDS, STEPS = [5, 0, 11], 4
PROVENANCE = {"commit": "", "versions": "test"}
# Each order, activation and optimiser once: a graph costs seconds. Adam only where bn cancels no biases, whose gradients
# are then nothing but rounding, which Adam would blow up.
CELLS = [
    {"order": "weight-act", "activation": "elu", "optimiser": "adam"},
    {"order": "weight-bn-act", "activation": "relu", "optimiser": "sgd"},
    {"order": "weight-act-bn", "activation": "maxout", "optimiser": "adam"},
    {"order": "bn-act-weight", "activation": "tanh", "optimiser": "sgd"},
    {
        "order": "weight-act-gn",
        "activation": "relu",
        "optimiser": "adam",
        "head_norm": "ln",
        "weight_decay_norm": False,
    },
    {
        "order": "rms-weight-act",
        "activation": "tanh",
        "optimiser": "sgd",
        "stem_norm": "bn",
        "weight_decay_norm": False,
    },
]


def make(**fields):
    defaults = {"dataset": "x", "architecture": "mlp", "order": "weight-act", "activation": "relu", "depth": 2}
    return Cell(**{**defaults, "width": 8, "batch": 16, "groups": 2, "epochs": 1, "lr": 0.01, **fields})


def stacked(cell, wrap=lambda model: model):
    """A model, examples, and indices of a batch of each step."""
    rng = torch.Generator().manual_seed(0)
    index = torch.randperm(STEPS * len(SEEDS) * cell.batch, generator=rng).view(STEPS, len(SEEDS), cell.batch)
    x, y = torch.randn(index.numel(), 6, generator=rng), torch.randint(3, (index.numel(),), generator=rng)
    return wrap(stack(build(cell, (6,), 3), SEEDS)), x, y, index


def stance():
    return torch._dynamo.eval_frame._stance


def same(one, i, other, j):
    """Whether seed i of one training and seed j of another agree in every bit of curves and metrics."""
    numbers = ("loss", "accuracy", "calibration_error", "gradient_norm")
    return all(np.array_equal(one.metrics[k][i], other.metrics[k][j]) for k in one.metrics) and all(
        np.array_equal(a[name][i], b[name][j], equal_nan=True)
        for a, b in zip(one.curves, other.curves, strict=True)
        for name in numbers
    )


def adds(index, lr):
    """The smallest step."""
    return index + lr, index + 1, ()


# What a graph computes


@pytest.mark.parametrize("fields", CELLS, ids=lambda fields: "-".join(map(str, fields.values())))
def test_compiled_steps_are_those_of_torch_nn_and_torch_optim(fields):
    cell = make(weight_decay=0.1, **fields)
    model, x, y, index = stacked(cell)
    twins = [solo(model, s) for s in range(len(SEEDS))]
    plain = [optimiser(cell, twin) for twin in twins]
    with one_graph(make_step(model, cell, x, y)) as step:
        for batch in index:
            losses, right, gradients = step(batch, torch.tensor(cell.lr))
            for s, twin in enumerate(twins):
                plain[s].zero_grad()
                logits = twin(x[batch[s]])
                loss = F.cross_entropy(logits, y[batch[s]])
                loss.backward()
                plain[s].step()
                # float32 rounds to 6e-8; sums of at most 16 numbers and 4 steps make some tens of that
                torch.testing.assert_close(losses[s], loss, rtol=1e-5, atol=0)
                assert right[s] == (logits.argmax(1) == y[batch[s]]).sum()
                for ours, parameter in zip(gradients, twin.parameters(), strict=True):
                    torch.testing.assert_close(ours[s], parameter.grad, rtol=1e-3, atol=1e-5)
    for s, twin in enumerate(twins):
        state = model.state_dict()
        for name, value in twin.state_dict().items():
            if not name.endswith("num_batches_tracked"):
                # Adam divides a gradient by its size, and so its relative error counts
                torch.testing.assert_close(state[name][s], value, rtol=1e-3, atol=1e-5, msg=name)


@pytest.mark.parametrize(
    ("width", "batch", "activation", "order"),
    [
        (32, 16, "sigmoid", "weight-bn-act"),
        (33, 7, "maxout", "weight-act-bn"),
        (33, 7, "tanh", "bn-act-weight"),
        (34, 7, "relu", "weight-gn-act"),
    ],
)
def test_compiled_bits_depend_neither_on_other_seeds_nor_on_the_place(blobs, width, batch, activation, order):
    cell = make(width=width, batch=batch, activation=activation, order=order, depth=1)
    all_of_them = train(cell, range(10), blobs(), mode=COMPILED)
    some = train(cell, range(3, 7), blobs(), mode=COMPILED)
    assert all(same(all_of_them, 3 + i, some, i) for i in range(4))


def test_a_compiled_training_is_one_graph_and_an_eager_one_but_for_rounding(blobs):
    cell, data = make(order="weight-bn-act", epochs=3, schedule="onecycle"), blobs()
    compiled = train(cell, SEEDS, data, mode=COMPILED)
    counters = torch._dynamo.utils.counters
    assert counters["stats"]["unique_graphs"] == 1
    assert not counters["graph_break"]
    eager = train(cell, SEEDS, data, mode=EAGER)
    for one, other in zip(compiled.curves, eager.curves, strict=True):
        assert (one["epoch"], one["split"], one["lr"]) == (other["epoch"], other["split"], other["lr"])
        np.testing.assert_allclose(one["loss"], other["loss"], rtol=1e-4)  # float32, 27 steps
        np.testing.assert_allclose(one["gradient_norm"], other["gradient_norm"], rtol=1e-3)
    np.testing.assert_allclose(compiled.metrics["test_loss"], eager.metrics["test_loss"], rtol=1e-4)


# Weight decay


@pytest.mark.parametrize("decays", [True, False])
@pytest.mark.parametrize("optimiser", ["sgd", "adam"])
def test_weight_decay_reaches_scales_and_shifts_only_where_the_cell_says_so(optimiser, decays):
    fields = {"stem_norm": "rms", "head_norm": "ln", "activation": "prelu", "optimiser": optimiser}

    def after(weight_decay):
        cell = make(order="weight-bn-act", weight_decay=weight_decay, weight_decay_norm=decays, **fields)
        model, x, y, index = stacked(cell)
        for parameter in model.parameters():
            parameter.data += 0.5  # none is 0, whose decay is 0
        make_step(model, cell, x, y)(index[0], cell.lr)
        return dict(model.named_parameters())

    plain, decayed = after(0.0), after(0.1)
    same = {name for name in plain if torch.equal(plain[name], decayed[name])}
    norms = {name for name in plain if ".bn." in name or "_norm." in name}
    assert {name.partition(".")[0] for name in norms} == {"stem_norm", "blocks", "head_norm"}
    # Adam's first step is the sign of a gradient, which decay need not change
    assert (norms & same == norms) == (not decays)
    if optimiser == "sgd":
        assert same == (set() if decays else norms)


# Where it is no graph


class Breaks(nn.Module):
    """A model that Dynamo cannot take as a whole."""

    def __init__(self, model):
        super().__init__()
        self.model = model

    def forward(self, x):
        y = self.model(x)
        torch._dynamo.graph_break()
        return y


class Decides(Breaks):
    """Python that depends on data."""

    def forward(self, x):
        y = self.model(x)
        return y if y.sum().item() > 0 else -y


@pytest.mark.parametrize("wrap", [Breaks, Decides])
def test_a_step_that_is_no_single_graph_is_refused_before_anything_is_trained(wrap):
    cell = make(order="weight-bn-act")
    model, x, y, index = stacked(cell, wrap)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    with (
        pytest.raises(NotCompiled, match=r"^(Unsupported|UserError): "),
        one_graph(make_step(model, cell, x, y)) as step,
    ):
        step(index[0], torch.tensor(cell.lr))
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_an_error_without_words_is_a_reason_too(monkeypatch):
    def wordless(*_):
        raise AssertionError

    monkeypatch.setattr(torch, "compile", lambda *_, **__: wordless)
    with pytest.raises(NotCompiled, match=r"^AssertionError"), one_graph(None) as step:
        step(None, None)


def steps(*sizes, then=lambda: None):
    """Takes steps on batches of these sizes, as one graph."""
    with one_graph(adds) as step:
        for size in sizes:
            step(torch.zeros(size), torch.tensor(0.1))
        then()


def test_a_second_graph_is_an_error():
    def another():
        with torch.compiler.set_stance("default"):
            torch.compile(lambda x: x + 1, backend="eager")(torch.zeros(3))

    with pytest.raises(NotCompiled, match="2 graphs"):
        steps(3, then=another)


def test_a_batch_of_another_shape_is_an_error_not_a_wrong_number():
    with pytest.raises(NotCompiled, match="RuntimeError: Recompilation"):
        steps(3, 4)


def test_the_stance_lasts_as_long_as_the_context():
    before, inside = stance(), []
    steps(3, then=lambda: inside.append(stance().skip_guard_eval_unsafe))
    assert inside == [True]
    assert stance() == before
    later = torch.compile(lambda x: x * 2, backend="eager")
    assert later(torch.ones(3)).tolist() == [2, 2, 2]
    assert later(torch.ones(3, dtype=torch.int64)).dtype == torch.int64  # its guards are evaluated


def test_an_exception_inside_ends_the_stance():
    before = stance()
    with pytest.raises(ZeroDivisionError):
        steps(3, then=lambda: 1 / 0)
    assert stance() == before


def test_a_training_without_a_step_is_no_graph():
    with pytest.raises(NotCompiled, match="0 graphs"), one_graph(lambda index, lr: None):
        pass


def test_a_trial_that_cannot_be_compiled_is_trained_eagerly_and_says_so(blobs):
    cell, data = make(order="weight-bn-act-drop"), blobs()  # a graph cannot hold the generators of the masks
    outcome = run_trial(Trial(cell, (0, 4), 2, COMPILED), data, PROVENANCE)
    eager = run_trial(Trial(cell, (0, 4), 2, EAGER), data, PROVENANCE)
    assert outcome.not_compiled.startswith(("Unsupported", "UserError"))
    assert eager.not_compiled is None
    ours, theirs = (
        each.tables["runs"].select([*METRICS, "engine", "trial", "seed_block"]) for each in (outcome, eager)
    )
    assert ours.equals(theirs)
    assert ours["engine"][0].as_py().endswith(", eager")


def test_a_trial_that_fails_names_the_device_that_it_failed_on(blobs):
    tables = run_trial(Trial(make(), (0, 4)), blobs(), PROVENANCE, device="meta").tables  # which holds no numbers
    assert {(row["status"], row["engine"].partition(",")[0]) for row in tables["runs"].to_pylist()} == {
        ("failed", "meta")
    }


def test_a_compiled_trial_says_so_and_leaves_its_mark(blobs, tmp_path, monkeypatch):
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path))
    outcome = run_trial(Trial(make(depth=1), (0, 4), 8, COMPILED), blobs(), PROVENANCE)
    assert outcome.not_compiled is None
    rows = outcome.tables["runs"].to_pylist()
    assert {(row["status"], row["engine"].rpartition(", ")[2], row["seed_block"]) for row in rows} == {
        ("done", "compiled", 8)
    }
    assert len(list((tmp_path / "graphs").iterdir())) == 1
