"""Measure what happens inside of networks in chosen epochs: the rows of `layers`. Without effect on the training.

The values of layers are described while the validation part is evaluated anyway; before the first epoch it is passed
through the networks once more, since the running averages of batch normalization say nothing yet. Gradients, and how they
change when the layers before are updated, cost about three steps on at most GRADIENT_EXAMPLES examples. What a network
keeps beside its parameters is put back as it was.
"""

import weakref
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn
from torch.func import functional_call

from grids import Cell
from harness.engine import EVALUATION_BATCH
from harness.evaluation import shared_batch
from harness.layers import Block, Dropout, Weight
from harness.normalizations import BatchNorm
from harness.step import first_step
from harness.values import NUMBERS, SPREAD, Described, describe, saturated, saturation, spread

GRADIENT_EXAMPLES = 32  # at most; batch normalization needs a batch, more would cost more than they tell
CHANGES = 6  # weight layers, at most, of which the change of the gradient is measured: each costs a third of a step
OF_ACTIVATIONS = ("saturated", "dead")
OF_WEIGHTS = ("gradient_norm", "update_norm", "gradient_change", "gradient_cosine")
COLUMNS = (*NUMBERS, *SPREAD, *OF_ACTIVATIONS, "drift", *OF_WEIGHTS)  # the numbers of `layers`
ENDS = "input", "output"  # sites of a block beside its layers
LARGEST = np.finfo(np.float32).max  # that `layers` can hold


class Site(NamedTuple):
    """A place where values are looked at: what `module` gives, or is given."""

    block: int
    name: str
    module: nn.Module
    given: bool = False

    @property
    def is_activation(self) -> bool:
        return self.name.rpartition(".")[2] == "act"


class Probe(NamedTuple):
    """What was measured in one epoch."""

    epoch: int
    sites: list[tuple[int, str]]  # block and site
    numbers: dict[str, np.ndarray]  # by column of `layers`, float64 (sites, S); NaN where there is none
    quantiles: np.ndarray  # (sites, S, Q)


def sites(model: nn.Module, cell: Cell) -> list[Site]:
    """All sites of a network: stem, blocks, head. A block is a child of `blocks` that has a Block, or is one."""
    ends = dict(model.named_children())
    blocks = [
        child
        for child in ends.get("blocks", nn.Identity()).children()
        if any(isinstance(module, Block) for module in child.modules())
    ]
    found = []
    for name, layer in (("stem", "weight"), ("stem_norm", cell.stem_norm)):
        if name in ends:
            found.append(Site(0, layer, ends[name]))
    for number, child in enumerate(blocks, 1):
        found.append(Site(number, "input", child, given=True))
        found += [Site(number, path, leaf) for path, leaf in child.named_modules() if not list(leaf.children())]
        found.append(Site(number, "output", child))
    last = [(name, layer) for name, layer in (("head_norm", cell.head_norm), ("head", "weight")) if name in ends]
    if last:
        found.append(Site(len(blocks) + 1, "input", ends[last[0][0]], given=True))
    return found + [Site(len(blocks) + 1, layer, ends[name]) for name, layer in last]


class Prober:
    """Probes a network in `epochs`: each time its validation part is evaluated inside of `at(epoch)`."""

    def __init__(self, model: nn.Module, cell: Cell, tensors: Mapping[str, torch.Tensor], epochs: Sequence[int]):
        """tensors: x_train, x_val (N, C, *space) and y_train (N,)."""
        examples = min(cell.batch, GRADIENT_EXAMPLES)
        self.model, self.cell, self.validation = model, cell, tensors["x_val"]
        self.x, self.y = tensors["x_train"][:examples], tensors["y_train"][:examples]
        self.epochs, self.found = frozenset(epochs), []
        self.before: dict[tuple[int, str], tuple[np.ndarray, np.ndarray]] = {}  # sample and sd, by site

    @contextmanager
    def at(self, epoch: int) -> Iterator[None]:
        if epoch not in self.epochs:
            yield
            return
        if epoch:
            with watched(self.model, self.cell) as seen:
                yield
        else:
            yield
            with watched(self.model, self.cell) as seen:
                pass_through(self.model, self.validation)
        self.found.append(self._probe(epoch, seen, gradients(self.model, self.cell, self.x, self.y)))

    def _probe(self, epoch: int, seen: "list[Seen]", weights: Mapping[nn.Module, np.ndarray]) -> Probe:
        seen = [each for each in seen if each.described]
        names = [(each.site.block, each.site.name) for each in seen]
        numbers = {name: np.full((len(seen), len(seen[0].described.sample)), np.nan) for name in COLUMNS}

        def put(i: int, columns: Sequence[str], values: Sequence[np.ndarray]) -> None:
            for column, value in zip(columns, values, strict=True):
                numbers[column][i] = np.where(np.abs(value) <= LARGEST, value, np.nan)

        for i, each in enumerate(seen):
            put(i, NUMBERS, each.described.numbers)
            if each.spread is not None:
                put(i, SPREAD, each.spread)
            if each.site.is_activation and saturation(self.cell.activation):
                always = (each.often == each.places).double().mean(1)
                of_finite = np.where(np.isnan(numbers["mean"][i]), np.nan, 1)
                both = torch.stack([each.often.mean(1) / each.places, always]).cpu().numpy()
                put(i, OF_ACTIVATIONS, both * of_finite)
            if each.site.given:
                if before := self.before.get(names[i]):
                    sample, sd = before
                    with np.errstate(invalid="ignore", divide="ignore"):
                        distance = np.abs(each.described.sample - sample).mean(1, dtype=np.float64)
                        put(i, ["drift"], [distance / sd])
                self.before[names[i]] = each.described.sample, numbers["sd"][i]
            elif each.site.module in weights:
                put(i, OF_WEIGHTS, weights[each.site.module])
        return Probe(epoch, names, numbers, np.stack([each.described.quantiles for each in seen]))


@dataclass
class Seen:
    """What was seen at a site."""

    site: Site
    described: Described | None = None
    spread: np.ndarray | None = None  # (2, S) where the site is a block's input or output
    often: torch.Tensor | float = 0.0  # (S, C), how often each channel was saturated
    places: int = 0  # of so many values


@contextmanager
def watched(model: nn.Module, cell: Cell) -> Iterator[list[Seen]]:
    """Describe the values at all sites in the first batch that the network evaluates, and saturation in every batch."""
    seen = [Seen(site) for site in sites(model, cell)]
    described, spread_out = once(describe), once(spread)

    def look(each: Seen, given: torch.Tensor, x: torch.Tensor) -> None:
        if each.described is None:
            each.described = described(x)
            if each.site.name in ENDS:
                each.spread = spread_out(x)
        if each.site.is_activation:
            each.often = each.often + saturated(cell.activation, given).double()
            each.places += given[0, 0].numel()

    hooks = []
    for each in seen:
        if each.site.given:
            hook = each.site.module.register_forward_pre_hook(lambda _, args, each=each: look(each, args[0], args[0]))
        else:
            hook = each.site.module.register_forward_hook(lambda _, args, y, each=each: look(each, args[0], y))
        hooks.append(hook)
    try:
        yield seen
    finally:
        for hook in hooks:
            hook.remove()


def once(function: Callable) -> Callable:
    """`function` of a tensor, once for each: what a block gives is what its last layer gave and what the next is given."""
    known: dict[int, tuple[weakref.ref, object]] = {}

    def of(x: torch.Tensor):
        reference, value = known.get(id(x), (lambda: None, None))
        if reference() is not x:
            value = function(x)
            known[id(x)] = weakref.ref(x), value
        return value

    return of


@torch.no_grad()
def pass_through(model: nn.Module, x: torch.Tensor) -> None:
    """Give a network examples x (N, C, *space) as evaluations do, but normalized by the statistics of their batches."""
    seeds = len(next(model.parameters()))
    with kept(model):
        model.eval()
        for batch in x.split(EVALUATION_BATCH):
            for module in model.modules():
                if isinstance(module, BatchNorm):
                    module.train(len(batch) > 1)  # one example has no variance
            model(shared_batch(batch, seeds))


@contextmanager
def kept(model: nn.Module) -> Iterator[Callable[[], None]]:
    """Put back at the end what training mode changes in a network, but for its parameters; gives what resets dropout."""
    buffers = [(buffer, buffer.clone()) for buffer in model.buffers()]
    drops = [module for module in model.modules() if isinstance(module, Dropout)]
    states = [(generator, generator.get_state()) for drop in drops for generator in drop.generators]
    mode = model.training

    def reset() -> None:
        for generator, state in states:
            generator.set_state(state)

    model.train()
    try:
        yield reset
    finally:
        reset()
        model.train(mode)
        with torch.no_grad():
            for buffer, value in buffers:
                buffer.copy_(value)


def gradients(model: nn.Module, cell: Cell, x: torch.Tensor, y: torch.Tensor) -> dict[nn.Module, np.ndarray]:
    """OF_WEIGHTS of each weight layer, float64 (4, S). x (B, C, *space), y (B,): the same batch for all seeds and passes.

    The change is that of Santurkar et al. 2018 (arXiv:1805.11604, section 2.2): between the gradient by the weights of a
    layer, and the same with all that acts before it as a step of the optimiser would leave it.
    """
    leaves: list[nn.Module] = []  # in the order in which they act
    after: dict[nn.Module, torch.Tensor] = {}  # what each gives when all layers are updated

    def losses(run: Callable[[torch.Tensor], torch.Tensor]) -> torch.Tensor:
        """The sum of the seeds' mean losses."""
        reset()
        return F.cross_entropy(run(batch), target, reduction="none").mean(1).sum()

    parameters = dict(model.named_parameters())
    seeds = len(next(iter(parameters.values())))
    batch, target = shared_batch(x, seeds), y.expand(seeds, -1)
    with kept(model) as reset:
        with each_leaf(model, lambda module, _: leaves.append(module)):
            loss = losses(model)
        old = dict(zip(parameters, torch.autograd.grad(loss, list(parameters.values())), strict=True))
        new = dict(zip(parameters, first_step(cell, model, list(old.values())), strict=True))
        with torch.no_grad(), each_leaf(model, after.__setitem__):
            losses(lambda x: functional_call(model, new, (x,)))
        names = {module: f"{path}.weight" for path, module in model.named_modules() if isinstance(module, Weight)}
        weights = [leaf for leaf in leaves if leaf in names]
        found = {}
        for weight in weights:
            gradient, value = old[names[weight]], parameters[names[weight]].detach()
            found[weight] = [_norm(gradient), _norm(new[names[weight]] - value) / _norm(value)]
        changes = _changes(model, losses, leaves, after, some(weights[1:], CHANGES))
    for weight, other in changes.items():
        gradient = old[names[weight]]
        norm, dot = found[weight][0], (gradient.double() * other).flatten(1).sum(1)
        found[weight] += [_norm(other - gradient) / norm, dot / (norm * _norm(other))]
    nothing = torch.full((seeds,), torch.nan, dtype=torch.float64, device=x.device)
    return {
        weight: torch.stack([*numbers, nothing, nothing][: len(OF_WEIGHTS)]).cpu().numpy()
        for weight, numbers in found.items()
    }


def _changes(
    model: nn.Module,
    losses: Callable,
    leaves: list[nn.Module],
    after: dict[nn.Module, torch.Tensor],
    weights: list[nn.Module],
) -> dict[nn.Module, torch.Tensor]:
    """By weight layer, the gradient by its weights when what acts before it gives what it gives after the update.

    It is not computed again: layers before give what they gave, so that a pass begins at the weights.
    """
    found: dict[nn.Module, torch.Tensor] = {}
    replaced = 0
    try:
        for weight in weights:
            for leaf in leaves[replaced : leaves.index(weight)]:
                leaf.forward = lambda *_, given=after[leaf]: given
            replaced = leaves.index(weight)
            (found[weight],) = torch.autograd.grad(losses(model), [weight.weight])
    finally:
        for leaf in leaves[:replaced]:
            del leaf.forward
    return found


@contextmanager
def each_leaf(model: nn.Module, told: Callable[[nn.Module, torch.Tensor], None]) -> Iterator[None]:
    """told(module, what it gave) of each module without children, in the order in which they act."""
    leaves = [module for module in model.modules() if not list(module.children())]
    hooks = [leaf.register_forward_hook(lambda module, _, given: told(module, given)) for leaf in leaves]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


def some(things: list, most: int) -> list:
    """At most so many of them, the first and the last among them, evenly spread."""
    places = np.linspace(0, len(things) - 1, min(most, len(things))).round().astype(int)
    return [things[i] for i in places]


def _norm(x: torch.Tensor) -> torch.Tensor:
    """L2 norm of each seed's part, float64 (S,): squares of what vanishes with depth are 0 in float32."""
    return torch.linalg.vector_norm(x.flatten(1), dim=1, dtype=torch.float64)
