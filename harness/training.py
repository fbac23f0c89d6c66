"""Train one cell with a block of seeds as one stacked model. Pure: no Ray, no files, no clock but its timer.

The sum of the S mean losses is differentiated once and the optimiser works number by number, so the seeds never meet.
"""

import math
import time
import warnings
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass

import numpy as np
import torch
from torch import nn

from grids import Cell
from harness.architectures import build
from harness.augmentation import moves
from harness.datasets import Data, DataError
from harness.engine import COMPILED, EAGER
from harness.evaluation import Measured, evaluate, reestimate
from harness.lsuv import unit_variance
from harness.normalizations import BatchNorm
from harness.per_seed import PerSeed
from harness.probes import Probe, Prober
from harness.seen import misfit, seen
from harness.stacking import stack, stream
from harness.step import NotCompiled, make_step, one_graph


@dataclass
class Training:
    """What came out, for seeds in the order given. Metrics are NaN for seeds that diverged."""

    seeds: tuple[int, ...]
    diverged_at: np.ndarray  # (S,) epoch with the first non-finite loss, 0 where there was none
    metrics: dict[str, np.ndarray]  # by column of `runs`, float64 (S,)
    best_epoch: np.ndarray  # (S,)
    curves: list[dict[str, object]]  # by epoch and split, each number (S,)
    correct: np.ndarray  # bool (S, test examples)
    probes: list[Probe]  # by epoch
    parameters: int
    wall_s: float


def train(
    cell: Cell,
    seeds: Sequence[int],
    data: Data,
    device: str = "cpu",
    mode: str = EAGER,
    probes: Sequence[int] = (),
) -> Training:
    """Train `cell` with each of `seeds` on what it sees of `data` and measure it: each epoch, at the end, at the best epoch.

    mode: `eager`, or `compiled` for steps that are one graph; NotCompiled where they cannot be. probes: the epochs in
    which the inside of the networks is measured, 0 at initialisation.
    """
    start = time.perf_counter()
    data = seen(data, cell)
    if problem := misfit(cell, data):
        raise DataError(problem)
    if mode == COMPILED and (cell.shift or cell.flip):
        raise NotCompiled("steps that shift or mirror their examples are eager")
    tensors = on_device(data, device)
    model = stack(build(cell, data.shape, data.classes), list(seeds), device=device)
    model.train()
    if mode == COMPILED and any(isinstance(layer, PerSeed) for layer in model.modules()):
        raise NotCompiled("layers in PerSeed are eager")  # in one graph, bits would depend on how many seeds there are
    if cell.init == "lsuv":
        unit_variance(model, len(seeds), tensors["x_train"])
    parameters = list(model.parameters())
    step = make_step(model, cell, tensors["x_train"], tensors["y_train"])
    steps = len(data.x_train) // cell.batch
    diverged_at = torch.zeros(len(seeds), dtype=torch.long, device=device)
    best = _Best(model, len(seeds), device)
    prober = Prober(model, cell, tensors, probes)
    with prober.at(0):
        at_start = evaluate(model, len(seeds), tensors["x_val"], tensors["y_val"])
    curves = [_row(0, "val", at_start)]
    with one_graph(step, torch.device(device).type) if mode == COMPILED else nullcontext(step) as step:
        for epoch in range(1, cell.epochs + 1):
            batches = batch_order(seeds, epoch, len(data.x_train), cell.batch).to(device)  # (steps, S, B)
            lrs = [learning_rate(cell, (epoch - 1) * steps + i, cell.epochs * steps) for i in range(steps)]
            # A graph takes the rate as a tensor: a number would be part of it.
            rates = torch.tensor(lrs, device=device) if mode == COMPILED else lrs
            losses, right, gradients = _epoch(step, batches, rates, *moves(cell, seeds, epoch, batches, data))
            with prober.at(epoch):
                measured = evaluate(model, len(seeds), tensors["x_val"], tensors["y_val"])
            finite = losses.isfinite().all(0) & measured.loss.isfinite()
            diverged_at[~finite & (diverged_at == 0)] = epoch
            curves.append(_row(epoch, "train", None, losses, right / cell.batch, _gradient_norm(gradients), lrs[0]))
            curves.append(_row(epoch, "val", measured))
            best.update(epoch, torch.where(diverged_at == 0, measured.accuracy, -1.0))
            if (diverged_at > 0).all():
                break
    metrics, correct, ok = _final_metrics(model, best, cell, tensors, len(seeds), epoch)
    diverged_at[~ok & (diverged_at == 0)] = epoch
    lost = (diverged_at > 0).cpu().numpy()
    return Training(
        seeds=tuple(seeds),
        diverged_at=diverged_at.cpu().numpy(),
        metrics={name: np.where(lost, np.nan, value.cpu().numpy()) for name, value in metrics.items()},
        best_epoch=best.epoch.cpu().numpy(),
        curves=curves,
        correct=correct.cpu().numpy(),
        probes=prober.found,
        parameters=sum(p.numel() for p in parameters) // len(seeds),
        wall_s=time.perf_counter() - start,
    )


def on_device(data: Data, device: str) -> dict[str, torch.Tensor]:
    """The arrays of `data` as tensors; on the CPU without a copy."""
    with warnings.catch_warnings():
        # Ray's object store gives read-only arrays; the tensors over them are never written to.
        warnings.filterwarnings("ignore", message="The given NumPy array is not writable")
        names = ("x_train", "y_train", "x_val", "y_val", "x_test", "y_test")
        return {name: torch.from_numpy(getattr(data, name)).to(device) for name in names}


def batch_order(seeds: Sequence[int], epoch: int, examples: int, batch: int) -> torch.Tensor:
    """Indices of the examples of each step, from (seed, epoch) alone. (steps, S, B)"""
    steps = examples // batch
    order = [stream(seed, f"batches.{epoch}").permutation(examples)[: steps * batch] for seed in seeds]
    return torch.from_numpy(np.stack(order)).unflatten(1, (steps, batch)).movedim(1, 0).contiguous()


def learning_rate(cell: Cell, step: int, total: int) -> float:
    """Learning rate of step 0 to total − 1.

    cosine: from lr to 0 (Loshchilov and Hutter 2017, arXiv:1608.03983, without restarts). onecycle: up by a cosine from
    lr / 25 over the first 30 % of the steps, then down to lr / 250,000 (Smith and Topin 2018, arXiv:1708.07120, with the
    shape of torch.optim.lr_scheduler.OneCycleLR; momentum stays).
    """
    if cell.schedule == "constant":
        return cell.lr
    if cell.schedule == "cosine":
        return cell.lr * (1 + math.cos(math.pi * step / total)) / 2
    low, last, peak = cell.lr / 25, cell.lr / 25 / 1e4, max(0.3 * total - 1, 0.0)
    if step <= peak:
        begin, end, share = low, cell.lr, step / peak if peak else 1.0
    else:
        begin, end, share = cell.lr, last, (step - peak) / max(total - 1 - peak, 1e-12)
    return end + (begin - end) * (1 + math.cos(math.pi * share)) / 2


def _epoch(step, *inputs):
    """One pass, inputs by step: losses (steps, S), right answers of each seed a step (S,), gradients of the last step."""
    losses, hits = [], []
    for each in zip(*inputs, strict=True):
        loss, right, gradients = step(*each)
        losses.append(loss)
        hits.append(right)
    return torch.stack(losses), torch.stack(hits).double().mean(0), gradients


def _gradient_norm(gradients: Sequence[torch.Tensor]) -> torch.Tensor:
    """L2 norm of each seed's whole gradient: (S,)"""
    return sum(gradient.flatten(1).double().square().sum(1) for gradient in gradients).sqrt()


def _row(epoch, split, measured: Measured | None, losses=None, accuracy=None, norm=None, lr=None):
    """Numbers of one epoch and split, each (S,) or one for all seeds."""
    if measured is not None:
        loss, accuracy, calibration = measured.loss, measured.accuracy, measured.calibration_error
        norm = torch.full_like(loss, math.nan)
    else:
        loss, calibration = losses.double().mean(0), torch.full_like(losses[0], math.nan)
    numbers = {"loss": loss, "accuracy": accuracy, "calibration_error": calibration, "gradient_norm": norm}
    numbers = {name: value.detach().double().cpu().numpy() for name, value in numbers.items()}
    return {"epoch": epoch, "split": split, "lr": lr, **numbers}


class _Best:
    """Each seed's tensors at its first epoch with the highest validation accuracy."""

    def __init__(self, model: nn.Module, seeds: int, device: str):
        self.model = model
        self.accuracy = torch.full((seeds,), -2.0, dtype=torch.float64, device=device)
        self.epoch = torch.zeros(seeds, dtype=torch.long, device=device)
        self.tensors = {name: value.clone() for name, value in model.state_dict().items()}

    def update(self, epoch: int, accuracy: torch.Tensor) -> None:
        better = accuracy > self.accuracy
        self.accuracy = torch.where(better, accuracy, self.accuracy)
        self.epoch[better] = epoch
        for name, value in self.model.state_dict().items():
            self.tensors[name][better] = value[better]

    def restore(self) -> None:
        self.model.load_state_dict(self.tensors)


def _final_metrics(model, best, cell, tensors, seeds, last):
    """Metrics after the last epoch, with re-estimated statistics, and at the best epoch; correct (S, N); all finite (S,)."""
    metrics: dict[str, torch.Tensor] = {}

    def measure(prefix: str, *parts: str) -> Measured:
        for part in parts:
            measured = evaluate(model, seeds, tensors[f"x_{part}"], tensors[f"y_{part}"])
            for name in ("loss", "accuracy", "calibration_error"):
                metrics[f"{prefix}{part}_{name}"] = getattr(measured, name)
        return measured

    correct = measure("", "train", "val", "test").correct
    if any(isinstance(module, BatchNorm) for module in model.modules()):
        reestimate(model, seeds, tensors["x_train"], cell.batch)
        measure("reestimated_", "val", "test")
    else:
        metrics |= {f"reestimated_{k}": v for k, v in metrics.items() if not k.startswith("train")}
    if (best.epoch == last).all():
        metrics |= {f"best_{k}": v for k, v in metrics.items() if not k.startswith("reestimated_")}
    else:
        best.restore()
        measure("best_", "train", "val", "test")
    ok = torch.stack([value.isfinite() for name, value in metrics.items() if name.endswith("loss")]).all(0)
    return metrics, correct, ok
