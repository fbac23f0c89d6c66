"""Measure a stacked model on a set of examples: loss, accuracy, calibration; and re-estimate its BN statistics."""

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import nn

from harness.engine import EVALUATION_BATCH
from harness.normalizations import BatchNorm

BINS = 15  # of the calibration error (Guo et al. 2017, arXiv:1706.04599)


class Measured(NamedTuple):
    """loss, accuracy and calibration_error: float64 (S,). correct: bool (S, N)."""

    loss: torch.Tensor
    accuracy: torch.Tensor
    calibration_error: torch.Tensor
    correct: torch.Tensor


def shared_batch(x: torch.Tensor, seeds: int) -> torch.Tensor:
    """The same examples for every seed: (B, C, *space) -> (S, C, B, *space), without a copy."""
    return x.movedim(0, 1).expand(seeds, *x.movedim(0, 1).shape)


@torch.no_grad()
def evaluate(model: nn.Module, seeds: int, x: torch.Tensor, y: torch.Tensor) -> Measured:
    """x (N, C, *space), y (N,). In evaluation mode; leaves the model in training mode."""
    model.eval()
    losses, corrects, confidences = [], [], []
    for start in range(0, len(x), EVALUATION_BATCH):
        target = y[start : start + EVALUATION_BATCH].expand(seeds, -1)  # (S, B)
        logits = model(shared_batch(x[start : start + EVALUATION_BATCH], seeds))  # (S, classes, B)
        losses.append(F.cross_entropy(logits, target, reduction="none"))
        confidence, guess = logits.softmax(1).max(1)
        corrects.append(guess == target)
        confidences.append(confidence)
    model.train()
    correct = torch.cat(corrects, 1)  # (S, N)
    return Measured(
        loss=torch.cat(losses, 1).double().mean(1),
        accuracy=correct.double().mean(1),
        calibration_error=calibration_error(torch.cat(confidences, 1), correct),
        correct=correct,
    )


def calibration_error(confidence: torch.Tensor, correct: torch.Tensor) -> torch.Tensor:
    """Expected calibration error in BINS bins of equal width (Guo et al. 2017). (S, N), (S, N) -> float64 (S,)

    Each bin's |accuracy − mean confidence|, weighted by its share of the examples. NaN confidence counts as 0.
    """
    confidence = confidence.double().nan_to_num(0.0)
    bins = ((confidence * BINS).ceil().long() - 1).clamp(0, BINS - 1)
    gaps = torch.zeros(len(confidence), BINS, dtype=torch.float64, device=confidence.device)
    gaps.scatter_add_(1, bins, correct.double() - confidence)
    return gaps.abs().sum(1) / confidence.shape[1]


@torch.no_grad()
def reestimate(model: nn.Module, seeds: int, x: torch.Tensor, batch: int) -> None:
    """Replace running averages by statistics over x (N, C, *space): one pass in batches, pooled mean and variance.

    As in Wu and Johnson 2021 (arXiv:2105.07576), PreciseBN: batches are normalised by their own statistics while the
    pass runs. Dropout is off. An incomplete last batch is left out. Leaves the model in training mode.
    """
    layers = [module for module in model.modules() if isinstance(module, BatchNorm)]
    momenta = [layer.momentum for layer in layers]
    # Of each layer, in float64: mean of the batches' means, their squared deviations from it, sum of biased variances.
    sums = [[torch.zeros_like(layer.running_mean, dtype=torch.float64) for _ in range(3)] for layer in layers]
    model.eval()
    numbers = [0] * len(layers)  # values of one channel that a batch brings, by layer
    hooks = []
    for i, layer in enumerate(layers):
        layer.train()
        layer.momentum = 1.0  # the running averages are then those of the batch alone

        def count(_, inputs, i=i):
            numbers[i] = inputs[0][0, 0].numel()

        hooks.append(layer.register_forward_pre_hook(count))
    steps = len(x) // batch
    for step in range(steps):
        model(shared_batch(x[step * batch : (step + 1) * batch], seeds))
        for layer, n, (mean, between, within) in zip(layers, numbers, sums, strict=True):
            away = layer.running_mean - mean
            mean += away / (step + 1)
            between += away * (layer.running_mean - mean)  # Welford 1962: no difference of large squares
            within += layer.running_var.double() * (n - 1) / n
    for layer, momentum, n, (mean, between, within) in zip(layers, momenta, numbers, sums, strict=True):
        layer.momentum = momentum
        total = n * steps
        layer.running_mean.copy_(mean)
        layer.running_var.copy_((between + within) / steps * total / max(total - 1, 1))
    for hook in hooks:
        hook.remove()
    model.train()
