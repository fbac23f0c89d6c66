"""Measure a few steps of a cell on a device, so that the number of seeds trained together is chosen, not guessed."""

import time
from collections.abc import Callable, Mapping, Sequence
from statistics import median

import torch

from grids import Cell
from harness import memory
from harness.architectures import build
from harness.augmentation import moves
from harness.datasets import Data
from harness.engine import EVALUATION_BATCH, Pilot, seeds_in
from harness.layers import Weight
from harness.memory import Probe
from harness.stacking import stack
from harness.step import make_step
from harness.training import batch_order, on_device

STEPS, ROUNDS = 4, 5
COPIES = 5  # of the parameters: themselves, gradients, momentum, Adam's squares, the best epoch's


def measure(
    cell: Cell,
    data: Data,
    blocks: Sequence[int],
    device: str = "cpu",
    trials: int = 1,
    probe: Probe | None = None,
) -> Pilot:
    """Time eager steps of `cell` at each S of `blocks` that the memory holds, in turns; the median of each counts.

    trials: how many share the device. probe: of its memory; by default that of its type.
    """
    probe = probe or memory.of(device)
    room = probe.free(device) / trials
    need = bytes_a_seed(cell, data, device)
    runs = {}
    for seeds in sorted(blocks):
        if seeds <= seeds_in(room, need):
            taken = memory.taken(device, probe)
            runs[seeds] = _steps(cell, data, seeds, device)
            runs[seeds]()  # the first steps of a process load code and tune kernels
            need = max(need, taken() // seeds)
    fitting = list(runs)
    measured = {seeds: [] for seeds in fitting}
    for _ in range(ROUNDS):
        for seeds, run in runs.items():
            measured[seeds].append(_timed(run, device) / STEPS / seeds)
    product_s = _products(cell, data, max(fitting), device) if fitting else 0.0
    seconds = {seeds: median(times) for seeds, times in measured.items()}
    return Pilot(seconds, product_s, int(seeds_in(room, need)), need)


def measure_here(shapes: Mapping[tuple, tuple[Cell, Sequence[int]]], data: Mapping[str, Data]) -> dict[tuple, Pilot]:
    """As a sweep has a cluster measure a cell of each shape, but in this process, which has one thread from then on."""
    torch.set_num_threads(1)
    return {key: measure(cell, data[cell.dataset], blocks) for key, (cell, blocks) in shapes.items()}


def _steps(cell: Cell, data: Data, seeds: int, device: str) -> Callable[[], None]:
    """A function that trains a new model for some steps, each time it is called."""
    tensors = on_device(data, device)
    model = stack(build(cell, data.shape, data.classes), list(range(seeds)), device=device).train()
    step = make_step(model, cell, tensors["x_train"], tensors["y_train"])
    batches = batch_order(range(seeds), 1, len(data.x_train), cell.batch)[:STEPS].to(device)
    more = moves(cell, range(seeds), 1, batches, data)

    def run():
        for i in range(STEPS):
            step(batches[i % len(batches)], cell.lr, *(each[i % len(batches)] for each in more))

    return run


def _timed(run: Callable[[], None], device: str) -> float:
    """Wall seconds of `run`, with all that a GPU still does for it."""
    start = time.perf_counter()
    run()
    if torch.device(device).type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter() - start


def _products(cell: Cell, data: Data, seeds: int, device: str) -> float:
    """Seconds of a step's matrix products for each seed: three of each linear layer's size. Convolutions: not counted."""
    model = stack(build(cell, data.shape, data.classes), list(range(seeds)), device=device)
    total = 0.0
    for layer in model.modules():
        if isinstance(layer, Weight) and not layer.kernel:
            x = torch.randn(seeds, layer.weight.shape[2], cell.batch, device=device)
            weight = layer.weight.detach()
            times = [_timed(lambda w=weight, x=x: torch.bmm(w, x), device) for _ in range(ROUNDS)]
            total += 3 * median(times) / seeds
    return total


def bytes_a_seed(cell: Cell, data: Data, device: str = "cpu") -> int:
    """Memory that one more seed takes: copies of its parameters, what a step keeps for its gradient, an evaluation."""
    model = stack(build(cell, data.shape, data.classes), [0], device=device).train()
    examples = min(cell.batch, len(data.x_train))
    x = torch.from_numpy(data.x_train[:examples].copy()).to(device).movedim(0, 1)[None]  # (1, C, B, *space)
    own, kept = {p.untyped_storage().data_ptr() for p in model.parameters()}, {}

    def keep(tensor):
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in own:  # a product keeps its weights too, of which there is one
            kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        model(x)
    parameters = sum(p.numel() * p.element_size() for p in model.parameters())
    step = sum(kept.values())
    evaluation = step * EVALUATION_BATCH // examples // cell.depth  # about two layers of it at once
    return COPIES * parameters + step + evaluation
