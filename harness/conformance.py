"""Whether an architecture keeps what all others keep, without which its arms cannot be compared: checks of small networks.

Each check is a function of the architecture's name, whose first line says what holds; it raises Broken where that does not.
"""

import random
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from importlib import import_module
from itertools import combinations
from typing import NamedTuple

import numpy as np
import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

import harness
from grids import Cell
from harness.architectures import build
from harness.datasets import load
from harness.initialisation import default_parameter
from harness.layers import Block, Weight, activation
from harness.layout import Layer
from harness.per_seed import PerSeed
from harness.plugins import PluginError, in_a_line, module
from harness.stacking import solo, stack
from harness.training import train
from harness.trial import slow

SHAPES, CLASSES, BATCH, SEEDS = ((2, 8, 8), (1, 12)), 5, 6, (0, 1, 2)
ORDERS = ("weight-act", "weight-bn-act", "weight-act-bn", "bn-act-weight", "weight-ln-act-drop")
# What torch computes for layers that orders are about, as its operators are named.
NORMALISES = ("batch_norm", "layer_norm", "group_norm", "rms_norm")
ACTIVATES = ("relu", "relu6", "leaky_relu", "rrelu_with_noise", "_prelu_kernel", "elu", "celu", "gelu", "silu", "mish",
             "tanh", "sigmoid", "log_sigmoid_forward", "softplus", "threshold", "hardtanh", "hardswish", "hardsigmoid",
             "hardshrink", "softshrink", "glu", "clamp", "maximum")  # fmt: skip


class Broken(Exception):
    """What does not hold."""


class Checked(NamedTuple):
    """problem: empty where it holds."""

    what: str
    problem: str


def check(name: str) -> Iterator[Checked]:
    """Every check of an architecture, one after the other, on one thread; only the first where nothing can be built."""
    torch.set_num_threads(1)
    built = _problem(lambda name: _model(_cell(name)), name)
    for each in CHECKS[:1] if built else CHECKS:
        yield Checked(_what(each), _problem(each, name) or built)


def warning(name: str) -> str:
    """What to know of an architecture that breaks no rule; empty where there is nothing."""
    try:
        return slow(name, build(_cell(name), _shape(name), CLASSES))
    except Exception:  # which a check tells
        return ""


def _what(check: Callable[[str], None]) -> str:
    return check.__doc__.splitlines()[0].rstrip(".")


def refuse(architectures: Iterable[str], activations: Iterable[str]) -> None:
    """PluginError where one of these plug-ins breaks what takes no training to see."""
    for name in architectures:
        for each in QUICK:
            if problem := _problem(each, name):
                raise PluginError(f"plug-in {name}: {problem} (must hold: {_what(each)})")
    for name in activations:
        if problem := _problem(acts_alone, name):
            raise PluginError(f"plug-in {name}: {problem}")


def _problem(check: Callable[[str], None], name: str) -> str:
    """How a check fails; empty where it holds."""
    try:
        check(name)
    except Broken as broken:
        return str(broken)
    except Exception as error:  # whatever its file does
        return in_a_line(error, name)
    return ""


def _cell(name: str, order: str = "weight-bn-act", **fields) -> Cell:
    fields = {"activation": "relu", "depth": 3, "width": 32, **fields}
    return Cell(dataset="digits", architecture=name, order=order, **fields)


def _shape(name: str) -> tuple[int, ...]:
    """Of examples that it takes: in two dimensions of space, or in one."""
    try:
        build(_cell(name), SHAPES[0], CLASSES)
    except ValueError:
        return SHAPES[1]
    return SHAPES[0]


def _model(cell: Cell, seeds=SEEDS, dtype=torch.float32) -> nn.Module:
    return stack(build(cell, _shape(cell.architecture), CLASSES), list(seeds), dtype)


def _examples(cell: Cell, seeds: int = len(SEEDS), dtype=torch.float32) -> torch.Tensor:
    channels, *space = _shape(cell.architecture)
    return torch.randn(seeds, channels, BATCH, *space, generator=torch.Generator().manual_seed(0), dtype=dtype)


def says_what_it_is(name: str) -> None:
    """Its file has `build` and says whether it convolves."""
    file = module("architectures", name) or import_module(f"harness.architectures.{name}")
    if not callable(getattr(file, "build", None)):
        raise Broken("it has no function build(cell, shape, classes)")
    if not isinstance(stated := getattr(file, "CONVOLUTIONS", None), bool):
        raise Broken("it states no CONVOLUTIONS = True or False: whether a weight layer has a kernel")
    has = any(_has_kernel(layer) for layer in _model(_cell(name)).modules())
    if stated != has:
        raise Broken(f"CONVOLUTIONS is {stated}, and its weight layers have {'' if has else 'no '}kernels")


def _has_kernel(layer: nn.Module) -> bool:
    if isinstance(layer, PerSeed):
        return any(isinstance(each, nn.modules.conv._ConvNd) for each in layer.template.modules())
    return isinstance(layer, Weight) and bool(layer.kernel)


def gives_logits(name: str) -> None:
    """It gives a logit for each seed, class and example, whatever the order."""
    for order in ORDERS:
        cell = _cell(name, order)
        found, due = tuple(_model(cell)(_examples(cell)).shape), (len(SEEDS), CLASSES, BATCH)
        if found != due:
            raise Broken(f"with {order} the shape is {found}, where (seeds, classes, batch) = {due} is due")


def runs_the_order(name: str) -> None:
    """The layers of each of its blocks run as the order says."""
    for order in ORDERS:
        model = _model(_cell(name, order))
        blocks = [each for each in model.modules() if isinstance(each, Block)]
        if len(blocks) < 3:
            raise Broken(
                f"with depth 3 it has {len(blocks)} blocks of harness.layers.block, and so not the order's layers"
            )
        ran = [_recording(each) for each in blocks]
        model(_examples(_cell(name, order)))
        for parts in ran:
            if (found := "-".join(part for part in parts if part != "pool")) != order:
                raise Broken(f"with {order} a block runs {found or 'nothing'}")


def _recording(block: Block) -> list[str]:
    """A list of the names of a block's layers, which grows as they run."""
    names: list[str] = []
    for name, layer in block.named_children():
        layer.register_forward_hook(lambda *_, name=name: names.append(name))
    return names


def leaves_the_rest_alone(name: str) -> None:
    """Nothing outside the layers of its blocks' orders normalises or activates."""
    model = _model(_cell(name))
    with _Outside(model) as outside:
        model(_examples(_cell(name)))
    for path, what in outside.found:
        raise Broken(f"{path or 'the network itself'} computes {what}, which no order can move")


class _Outside(TorchDispatchMode):
    """Notes what normalises or activates outside of the layers with which a block does so."""

    def __init__(self, model: nn.Module):
        super().__init__()
        self.found: list[tuple[str, str]] = []
        self.running: list[tuple[str, nn.Module]] = []
        for path, layer in model.named_modules():
            layer.register_forward_pre_hook(lambda layer, _, path=path: self.running.append((path, layer)))
            layer.register_forward_hook(lambda *_: self.running.pop() and None)

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        what = function.name().removeprefix("aten::").partition(".")[0].rstrip("_")
        path = self.running[-1][0] if self.running else ""
        blocks = [i for i, (_, layer) in enumerate(self.running) if isinstance(layer, Block)]
        of_block = [each for each, _ in self.running[blocks[-1] + 1 :]] if blocks else []
        moved = bool(of_block) and of_block[0].rpartition(".")[2] in ("act", *harness.NORMS)
        if not moved and (what in ACTIVATES or any(norm in what for norm in NORMALISES)):
            self.found.append((path, what))
        return function(*args, **(kwargs or {}))


def draws_by_seed_alone(name: str) -> None:
    """Its weights follow from the seed alone, and nothing is drawn from global randomness."""
    states = _global_states()
    first, second = (dict(_model(_cell(name)).named_parameters()) for _ in range(2))
    model, x = _model(_cell(name)), _examples(_cell(name))
    model(x)
    evaluated = [model.eval()(x) for _ in range(2)]
    for what, before, after in zip(("random", "numpy.random", "torch"), states, _global_states(), strict=True):
        if before != after:
            raise Broken(f"it draws from the global generator of {what}")
    if not torch.equal(*evaluated):
        raise Broken("in evaluation it gives something else the second time")
    for path, value in first.items():
        if not torch.equal(value, second[path]):
            raise Broken(f"{path} is another one when it is built again")
    if not any(value.ndim > 2 and not torch.equal(value[0], value[1]) for value in first.values()):
        raise Broken("two seeds have the same weights")


def _global_states() -> tuple:
    state = np.random.get_state()  # noqa: NPY002 the one that must not be used
    return random.getstate(), (state[1].tobytes(), *state[2:]), torch.get_rng_state().numpy().tobytes()


def gives_every_tensor_a_seed(name: str) -> None:
    """Every tensor that it keeps is of a layer that draws it by seed."""
    for path, layer in _model(_cell(name)).named_modules():
        if not isinstance(layer, Layer):
            for tensor in (*layer._parameters, *layer._buffers):
                raise Broken(
                    f"{path or 'the network'} has {tensor}, which all seeds would share: see harness/layout.py"
                )


def shares_weights_between_arms(name: str) -> None:
    """Arms of one seed have the same initial weights wherever both have one of that place and shape."""
    arms = {order: _model(_cell(name, order, init_gain=1.0)).state_dict() for order in ORDERS}
    for (one, mine), (other, theirs) in combinations(arms.items(), 2):
        same = [path for path in mine.keys() & theirs.keys() if mine[path].shape == theirs[path].shape]
        if not any(".weight." in path for path in same):  # what is below the weight layer of a block
            raise Broken(f"{one} and {other} have no weight layer in the same place")
        for path in sorted(same):
            if not torch.equal(mine[path], theirs[path]):
                raise Broken(f"{path} differs between {one} and {other}")


def keeps_paths_when_deeper(name: str) -> None:
    """A deeper network has the weights of a shallower one, and more."""
    shallow, deep = (set(dict(_model(_cell(name, depth=depth)).named_parameters())) for depth in (2, 5))
    if lost := sorted(shallow - deep):
        raise Broken(f"{lost[0]} is there at depth 2 and not at depth 5")
    if shallow == deep:
        raise Broken("depth 5 has no more weights than depth 2")


def computes_a_seed_alone(name: str) -> None:
    """A seed computes alone, as ordinary torch modules, what it computes among others."""
    for order in ORDERS[:-1]:  # masks of drop are drawn
        cell = _cell(name, order)
        model, x = _model(cell, dtype=torch.float64), _examples(cell, dtype=torch.float64)
        twins = [solo(model, s).train() for s in range(len(SEEDS))]  # before a pass changes what it keeps
        together = model(x)
        for s, twin in enumerate(twins):
            alone = twin(x[s].movedim(0, 1))  # (B, classes)
            apart = (alone.T - together[s]).abs().max().item()
            if not apart <= 1e-9 * (1 + together.abs().max().item()):
                raise Broken(f"with {order} seed {SEEDS[s]} is {apart:.2g} apart")


def trains_every_weight(name: str) -> None:
    """Every weight has a gradient."""
    for order in ORDERS:
        cell = _cell(name, order, bias=False)
        model = _model(cell)
        model(_examples(cell)).square().sum().backward()
        for path, value in model.named_parameters():
            if value.grad is None:
                raise Broken(f"with {order}, {path} has none: it is never used")


def learns(name: str) -> None:
    """It learns the digits."""
    cell = _cell(name, depth=1, batch=20, epochs=8, train_size=400, lr=0.05)
    losses = [row["loss"] for row in train(cell, [0], load("digits")).curves if row["split"] == "val"]
    if not losses[-1] < 0.8 * losses[0]:
        raise Broken(
            f"in 8 epochs of 400 examples the validation loss goes from {losses[0][0]:.2f} to {losses[-1][0]:.2f}"
        )


def has_the_width_it_states(name: str) -> None:
    """Where it states CONSTANT_WIDTH, all of its blocks have cell.width channels."""
    if not harness.stackable(name):
        return
    model, sizes = _model(_cell(name)), {}
    for path, layer in model.named_modules():
        if isinstance(layer, Weight | PerSeed) and path.startswith("blocks."):
            layer.register_forward_hook(lambda _, x, y, path=path: sizes.update({path: (x[0].shape[1], y.shape[1])}))
    with suppress(RuntimeError):  # where sizes do not fit, another check says so
        model(_examples(_cell(name)))
    for path, found in sizes.items():
        if found != (32, 32):
            raise Broken(f"at width 32, {path} has {found[0]} channels in and {found[1]} out")


CHECKS: tuple[Callable[[str], None], ...] = (
    says_what_it_is,
    gives_logits,
    runs_the_order,
    leaves_the_rest_alone,
    draws_by_seed_alone,
    gives_every_tensor_a_seed,
    shares_weights_between_arms,
    keeps_paths_when_deeper,
    has_the_width_it_states,
    computes_a_seed_alone,
    trains_every_weight,
    learns,
)
QUICK = tuple(each for each in CHECKS if each is not learns)


def acts_alone(name: str) -> None:
    """An activation acts on each number alone, always in the same way, has no weights, and draws nothing."""
    states = _global_states()
    layer = activation(name, default_parameter(name))
    # 64 numbers: of other sizes kernels compute the last ones another way, which changes their last bits.
    x = torch.randn(4, 4, 4, generator=torch.Generator().manual_seed(0))
    y = layer(x)
    if not isinstance(y, torch.Tensor) or y.shape != x.shape:
        raise Broken(
            f"gives {tuple(y.shape) if isinstance(y, torch.Tensor) else type(y).__name__} for {tuple(x.shape)}"
        )
    if any(True for _ in (*layer.parameters(), *layer.buffers())):
        raise Broken(
            "has weights or buffers, which only activations in harness/layers.py can have: a seed must draw them"
        )
    if not (torch.equal(layer(x[:2]), y[:2]) and torch.equal(layer(x.flatten().flip(0)), y.flatten().flip(0))):
        raise Broken("does not act on each number alone, or not always in the same way")
    if not all(torch.equal(acts(x), y) for acts in (layer, layer.eval(), layer)):
        raise Broken("does not act in the same way each time, and in evaluation")
    if states != _global_states():
        raise Broken("draws from global randomness")
