"""One run without normorder: the plain loop that trains one seed of a network in ordinary torch.nn.

What normorder does for a run is done here too: shuffled batches without an incomplete last one, cosine schedule over the
steps, SGD with momentum; every epoch training loss and accuracy, and validation loss and accuracy; at the end test loss
and accuracy. Less than normorder does: no calibration, no gradient norms, no best epoch, no re-estimated statistics.

`How` lists what a user may do in more than one way. FAST is what the comparisons use, IDIOMATIC the way of the
tutorials; `variants.py` measures FAST against the others.
"""

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from network import build
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

import harness
from grids import Cell
from harness.datasets import Data

Parts = Mapping[str, TensorDataset]  # train, val, test


@dataclass(frozen=True)
class How:
    """Ways to write the same loop."""

    batches: Literal["select", "index", "gather", "dataloader"] = "gather"  # gather: all batches of an epoch at once
    optimiser: Literal["foreach", "fused", "loop"] = "fused"  # loop over parameters: torch's default on a CPU
    schedule: Literal["direct", "torch"] = "direct"  # torch: CosineAnnealingLR
    scores: Literal["epoch", "step", "item"] = "epoch"  # when outputs are compared with classes; item: sums of floats
    inference_mode: bool = True  # of evaluations; else no_grad
    set_to_none: bool = True
    channels_last: bool = True  # of 2-D convolutions; others have no such layout
    evaluation_batch: int = 1000


FAST = How()
# The tutorials of PyTorch and Ray Tune add loss.item() and the number of right answers of each batch to Python floats. On
# a CPU that waits for nothing, so it is kept; on a GPU it would cost a synchronisation a step.
IDIOMATIC = How(
    batches="dataloader",
    optimiser="loop",
    schedule="torch",
    scores="item",
    inference_mode=False,
    channels_last=False,
)


def parts(data: Data) -> Parts:
    """The arrays of `data` as torch's data sets of tensors, without a copy."""
    pairs = {name: (getattr(data, f"x_{name}"), getattr(data, f"y_{name}")) for name in ("train", "val", "test")}
    return {name: TensorDataset(*map(torch.from_numpy, pair)) for name, pair in pairs.items()}


class Loop:
    """Model, optimiser and schedule of one run; `make` gives the model, by default the networks that are written here."""

    def __init__(self, cell: Cell, seed: int, data: Parts, how: How, make: Callable[..., nn.Module] = build):
        if (cell.optimiser, cell.schedule) != ("sgd", "cosine"):
            raise ValueError(
                f"{cell.optimiser} with a {cell.schedule} schedule is not written here, sgd with cosine is"
            )
        torch.manual_seed(seed)
        x, y = data["train"].tensors
        self.cell, self.data, self.how = cell, data, how
        self.model = make(cell, tuple(x.shape[1:]), int(y.max()) + 1)
        self.channels_last = how.channels_last and harness.convolves(cell.architecture) and x.ndim == 4
        if self.channels_last:
            self.model = self.model.to(memory_format=torch.channels_last)
        kind = {"foreach": {"foreach": True}, "fused": {"fused": True}, "loop": {}}[how.optimiser]
        parameters = self.model.parameters()
        self.optimiser = torch.optim.SGD(parameters, cell.lr, cell.momentum, weight_decay=cell.weight_decay, **kind)
        self.step, self.total = 0, cell.epochs * (len(y) // cell.batch)
        if how.schedule == "torch":
            self.schedule = torch.optim.lr_scheduler.CosineAnnealingLR(self.optimiser, self.total)
        if how.batches == "dataloader":
            self.train = DataLoader(data["train"], cell.batch, shuffle=True, drop_last=True)
            self.rest = {part: DataLoader(data[part], cell.batch) for part in data}
        else:
            cut = {part: [each.split(how.evaluation_batch) for each in data[part].tensors] for part in data}
            self.rest = {part: list(zip(*pair, strict=True)) for part, pair in cut.items()}

    def batches(self) -> Iterable[tuple[torch.Tensor, torch.Tensor]]:
        """One epoch of shuffled batches: (B, *shape), (B,)"""
        if self.how.batches == "dataloader":
            return self.train
        x, y = self.data["train"].tensors
        order = torch.randperm(len(y))[: len(y) // self.cell.batch * self.cell.batch]
        if self.how.batches == "gather":
            return zip(x[order].split(self.cell.batch), y[order].split(self.cell.batch), strict=True)
        if self.how.batches == "index":
            return ((x[index], y[index]) for index in order.split(self.cell.batch))
        return ((x.index_select(0, index), y.index_select(0, index)) for index in order.split(self.cell.batch))

    def pass_over(self, batches: Iterable[tuple[torch.Tensor, torch.Tensor]]) -> tuple[float, float]:
        """Train on `batches`: mean loss and accuracy while training."""
        how, model, optimiser = self.how, self.model, self.optimiser
        losses, right, outputs, targets, loss_sum, seen = [], [], [], [], 0.0, 0
        for x, y in batches:
            if self.channels_last:
                x = x.contiguous(memory_format=torch.channels_last)
            if how.schedule == "direct":
                for group in optimiser.param_groups:
                    group["lr"] = self.cell.lr * (1 + math.cos(math.pi * self.step / self.total)) / 2
            optimiser.zero_grad(set_to_none=how.set_to_none)
            output = model(x)
            loss = F.cross_entropy(output, y)
            loss.backward()
            optimiser.step()
            if how.schedule == "torch":
                self.schedule.step()
            self.step += 1
            if how.scores == "item":
                loss_sum += loss.item()
                right.append((output.argmax(1) == y).sum().item())
            else:
                losses.append(loss.detach())
                if how.scores == "step":
                    right.append((output.detach().argmax(1) == y).sum())
                else:
                    outputs.append(output.detach())
                    targets.append(y)
            seen += len(y)
        if how.scores == "item":
            return loss_sum / len(right), sum(right) / seen
        if how.scores == "epoch":
            right = [(torch.cat(outputs).argmax(1) == torch.cat(targets)).sum()]
        return torch.stack(losses).mean().item(), torch.stack(right).sum().item() / seen

    def evaluate(self, part: str) -> tuple[float, float]:
        """Mean loss and accuracy on a part of the data, in evaluation mode."""
        self.model.eval()
        loss, right, seen = 0.0, 0, 0
        with torch.inference_mode() if self.how.inference_mode else torch.no_grad():
            for x, y in self.rest[part]:
                output = self.model(x)
                loss += F.cross_entropy(output, y, reduction="sum").item()
                right += (output.argmax(1) == y).sum().item()
                seen += len(y)
        self.model.train()
        return loss / seen, right / seen

    def epoch(self) -> dict[str, float]:
        """Train one epoch and evaluate the validation part."""
        train_loss, train_accuracy = self.pass_over(self.batches())
        val_loss, val_accuracy = self.evaluate("val")
        names = ("train_loss", "train_accuracy", "val_loss", "val_accuracy")
        return dict(zip(names, (train_loss, train_accuracy, val_loss, val_accuracy), strict=True))


def train(
    cell: Cell, seed: int, data: Parts, how: How = FAST, report: Callable[[dict[str, float]], None] = lambda _: None
) -> dict[str, float]:
    """Train one run and give the numbers of its last epoch, those of the test set among them; `report` gets each epoch's."""
    loop = Loop(cell, seed, data, how)
    for epoch in range(1, cell.epochs + 1):
        row = {"epoch": epoch, **loop.epoch()}
        if epoch == cell.epochs:
            row["test_loss"], row["test_accuracy"] = loop.evaluate("test")
        report(row)
    return row
