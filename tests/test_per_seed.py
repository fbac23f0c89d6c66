"""Ordinary torch modules in stacked models: as many modules as seeds, drawn by seed, and a warning that they are slow."""

import pytest
import torch
from torch import nn

from grids import Cell
from harness import plugins
from harness.architectures import mlp
from harness.conformance import check
from harness.engine import batch_sizes, bits_need_one_seed
from harness.layers import Weight, block, network
from harness.per_seed import PerSeed
from harness.stacking import solo, stack, stream
from harness.step import NotCompiled
from harness.training import train
from harness.trial import slow

SEPARABLE = '''"""A depthwise convolution, then a pointwise one."""

from torch import nn

from harness.architectures import dimensions
from harness.layers import block, network
from harness.per_seed import PerSeed

CONVOLUTIONS = True
UNITS = 2


def build(cell, shape, classes):
    space = dimensions(cell, shape)
    conv = (nn.Conv1d, nn.Conv2d)[space - 1]

    def depthwise(c_in, c_out):
        return PerSeed(lambda: nn.Sequential({first}conv(c_in, c_out, 3, padding=1, groups=cell.width)))

    blocks = [
        nn.Sequential(
            block(cell, cell.width, cell.width, (3,) * space, weight=depthwise),
            block(cell, cell.width, cell.width, (1,) * space),
        )
        for _ in range(cell.depth)
    ]
    return network(cell, shape, classes, nn.Sequential(*blocks), kernel=(3,) * space)
'''


class Related(nn.Module):
    """The bias follows from the weight that was drawn, and there are buffers, also of whole numbers."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.randn(4))
        self.bias = nn.Parameter(self.weight.detach() * 2)
        self.register_buffer("calls", torch.tensor(0))
        self.register_buffer("mean", torch.zeros(4))

    def forward(self, x):
        self.calls += 1
        with torch.no_grad():
            self.mean.copy_(x.flatten(2).mean((0, 2)) if x.ndim > 2 else x.mean(0))
        return (x.movedim(1, -1) * self.weight + self.bias).movedim(-1, 1)


class Averaging(nn.Module):
    """A buffer is put in the place of another one, a parameter is not trained, an index is of whole numbers."""

    def __init__(self):
        super().__init__()
        self.weight, self.fixed = nn.Parameter(torch.randn(4, 4)), nn.Parameter(torch.randn(4), requires_grad=False)
        self.register_buffer("mean", torch.zeros(4))
        self.register_buffer("index", torch.tensor([3, 2, 1, 0]))

    def forward(self, x):
        self.mean = 0.9 * self.mean + 0.1 * x.detach().mean(0)
        return (x @ self.weight + self.fixed)[:, self.index]


MODULES = {
    "averaging": (Averaging, ()),
    "parametrized": (lambda: nn.utils.parametrizations.weight_norm(nn.Linear(4, 3)), ()),
    "linear": (lambda: nn.Linear(4, 6), ()),
    "depthwise": (lambda: nn.Conv2d(4, 8, 3, padding=1, groups=4), (5, 6)),
    "nested": (lambda: nn.Sequential(nn.Conv1d(4, 3, 1), nn.Tanh(), nn.Conv1d(3, 2, 3, bias=False)), (7,)),
    "strided": (lambda: nn.Conv2d(4, 2, 2, stride=2), (6, 6)),
    "related": (Related, (3, 3)),
}


@pytest.mark.parametrize("what", MODULES)
def test_each_seed_passes_a_module_of_its_own(what):
    make, space = MODULES[what]
    model = stack(nn.Sequential(PerSeed(make)), [0, 1, 7], torch.float64)
    twins = [solo(model, s) for s in range(3)]
    x = torch.randn(3, 4, 5, *space, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    y = model(x)
    y.square().sum().backward()
    for s, twin in enumerate(twins):
        alone = twin(x[s].movedim(0, 1))
        alone.square().sum().backward()
        torch.testing.assert_close(y[s], alone.movedim(1, 0))
        tensors = {name.replace(".", "/"): value for name, value in twin[0].named_parameters()}
        for name, value in model[0].named_parameters():
            torch.testing.assert_close(value.grad[s], tensors[name].grad)
        kept = twin[0].state_dict()
        for name, value in model[0].named_buffers():
            assert torch.equal(value[s], kept[name]), name
            assert value.is_floating_point() == kept[name].is_floating_point()


def test_its_tensors_begin_as_the_module_draws_them_for_the_seed_and_the_path():
    state = torch.get_rng_state()
    model = stack(nn.Sequential(PerSeed(Related), PerSeed(Related)), [3, 4])
    assert torch.equal(torch.get_rng_state(), state)
    with torch.random.fork_rng():
        torch.manual_seed(int(stream(4, "1").integers(2**63)))
        due = Related()
    assert torch.equal(model[1].weight[1], due.weight)
    assert torch.equal(model[1].bias, model[1].weight * 2)
    assert len({tuple(layer.weight[s].tolist()) for layer in model for s in range(2)}) == 4
    assert torch.equal(stack(nn.Sequential(PerSeed(Related)), [4])[0].weight[0], model[0].weight[1])


@pytest.mark.parametrize("order", ["weight-bn-act", "act-weight", "bn-act-weight-drop"])
def test_a_block_takes_it_for_its_weight_and_it_trains_alike_alone_and_among_others(blobs, order, monkeypatch):
    def linear(c_in, c_out):
        return PerSeed(lambda: nn.Linear(c_in, c_out, bias=False))

    def build(cell, shape, classes):
        return network(cell, shape, classes, nn.Sequential(*(block(cell, 8, 8, weight=linear) for _ in range(2))))

    monkeypatch.setattr(mlp, "build", build)
    cell = Cell(dataset="x", architecture="mlp", order=order, activation="maxout", depth=2, width=8, epochs=2, batch=30)
    together, alone = (train(cell, seeds, blobs()).metrics["test_loss"] for seeds in ([0, 1, 2], [1]))
    assert together[1] == alone[0]
    assert len(set(together)) == 3


@pytest.mark.parametrize(
    ("make", "why"),
    [
        (lambda: nn.LazyLinear(3), "weight of a lazy module has no shape yet"),
        (lambda: nn.Linear(2, 2, dtype=torch.complex64), "weight is complex"),
        (lambda: torch.tanh, "gives a torch module, and it gives builtin_function_or_method"),
        (lambda: nn.Sequential(nn.Linear(2, 2), WithATensor()), "1.shift is a tensor that all seeds would share"),
    ],
    ids=["lazy", "complex", "a function", "a tensor"],
)
def test_what_has_no_place_for_seeds_is_refused(make, why):
    with pytest.raises(ValueError, match=why):
        PerSeed(make)


class WithATensor(nn.Module):
    def __init__(self):
        super().__init__()
        self.shift = torch.ones(2)


@pytest.mark.parametrize("order", ["weight-act-ln", "act-weight-rms", "weight-bn-act"])
@pytest.mark.parametrize(("activation", "width"), [("gelu", 8), ("prelu", 48), ("silu", 32)])
def test_bits_do_not_depend_on_the_company_where_seeds_may_be_stacked(blobs, monkeypatch, order, activation, width):
    def linear(c_in, c_out):
        return PerSeed(lambda: nn.Linear(c_in, c_out))

    def build(cell, shape, classes):
        return network(cell, shape, classes, nn.Sequential(block(cell, width, width, weight=linear)))

    monkeypatch.setattr(mlp, "build", build)
    cell = Cell(
        dataset="x", architecture="mlp", order=order, activation=activation, depth=1, width=width, epochs=2, batch=32
    )
    data = blobs(train=400)
    assert not bits_need_one_seed(cell, True, batch_sizes(cell.batch, data))
    together, alone = (train(cell, seeds, data).metrics for seeds in ([0, 1, 2, 3, 4], [3]))
    assert {name: values[3] for name, values in together.items()} == {name: values[0] for name, values in alone.items()}


def test_it_is_not_compiled(blobs, monkeypatch):
    def build(cell, shape, classes):
        return nn.Sequential(PerSeed(lambda: nn.Linear(6, classes)))

    monkeypatch.setattr(mlp, "build", build)
    cell = Cell(dataset="x", architecture="mlp", order="weight-act", activation="relu", depth=1, epochs=1, batch=30)
    with pytest.raises(NotCompiled, match="layers in PerSeed are eager"):
        train(cell, [0], blobs(), mode="compiled")


def written(folder, name, first=""):
    (folder / f"{name}.py").write_text(SEPARABLE.format(first=first))
    return name


def test_an_architecture_with_it_keeps_every_rule(architectures):
    name = written(architectures, "separable_a")
    assert [each for each in check(name) if each.problem] == []


INNER = {
    "a sequence": "nn.Sequential(nn.Linear(i, 4, bias=False), nn.Linear(4, o))",
    "an attribute": "Inner(i, o)",
    "a parametrization": "nn.utils.parametrizations.orthogonal(nn.Linear(i, o))",
    "nothing trained": "nn.Linear(i, o).requires_grad_(False)",
}
PERCEPTRON = """
from torch import nn

from harness.layers import block, network
from harness.per_seed import PerSeed

CONVOLUTIONS = False


class Inner(nn.Module):
    def __init__(self, i, o):
        super().__init__()
        self.map = nn.Linear(i, o)

    def forward(self, x):
        return self.map(x)


def build(cell, shape, classes):
    def weight(i, o):
        return PerSeed(lambda: {inner})

    blocks = [block(cell, cell.width, cell.width, weight=weight) for _ in range(cell.depth)]
    return network(cell, shape, classes, nn.Sequential(*blocks))
"""


@pytest.mark.parametrize("what", INNER)
def test_a_network_of_nothing_else_keeps_every_rule(architectures, what):
    name = f"perceptron_{what.replace(' ', '_')}"
    (architectures / f"{name}.py").write_text(PERCEPTRON.format(inner=INNER[what]))
    assert [each for each in check(name) if each.problem] == []


@pytest.mark.parametrize(
    ("first", "problem"),
    [
        ("nn.ReLU(), ", "computes relu, which no order can move"),
        ("nn.BatchNorm2d(c_in) if space == 2 else nn.Identity(), ", "batch_norm, which no order can move"),
        ("nn.Dropout(0.1), ", "it draws from the global generator of torch"),
    ],
    ids=["activates", "normalises", "draws"],
)
def test_what_no_order_can_move_is_seen_inside_of_it(architectures, first, problem):
    name = written(architectures, f"separable_{first[3:6].lower()}", first)
    assert any(problem in each.problem for each in check(name))


def test_that_it_is_slow_is_told_by_plan_and_check(told, tmp_path, monkeypatch):
    monkeypatch.setenv(plugins.VARIABLE, "")
    name = written(tmp_path, "separable_b")
    words = f"warning: architecture {name} has ordinary torch modules (blocks.0.0.weight and "
    plugin = ["--plugin", tmp_path / f"{name}.py"]
    given = ["grids/smoke.toml", f"architecture={name}", "depth=2", "--rehearse", "0", "--store", tmp_path / "store"]
    code, out, errors = told("plan", *given, *plugin)
    assert (code, errors) == (0, "")
    assert out.count(words) == 1
    assert words in told("check-architecture", name, *plugin)[1]
    assert slow("mlp", nn.Sequential(Weight(2, 2))) == ""
