"""Layer-sequential unit variance, the initial weights that depend on data (Mishkin and Matas 2015, arXiv:1511.06422)."""

import torch
from torch import nn

from harness.engine import EVALUATION_BATCH
from harness.evaluation import shared_batch
from harness.layers import Dropout, Weight


@torch.no_grad()
def unit_variance(model: nn.Module, seeds: int, x: torch.Tensor) -> None:
    """Scale the weights of each layer in turn, so that its output has variance 1, then those of blocks by `init_gain`.

    The variance is over all channels, places and examples of one batch, the first EVALUATION_BATCH of x (N, C, *space): the
    same for every seed and every cell with this training set. bn normalises by this batch's statistics, dropout is off;
    running averages and generators stay as they were. Initial biases are 0, so that one forward pass is enough: an output
    is scaled as its weights are. An output that is 0, or not finite, leaves its weights alone.
    """
    layers = [layer for layer in model.modules() if isinstance(layer, Weight)]
    averages = [(buffer, buffer.clone()) for buffer in model.buffers()]
    dropouts = [layer for layer in model.modules() if isinstance(layer, Dropout) and layer.training]
    for dropout in dropouts:
        dropout.eval()
    hooks = [layer.register_forward_hook(_scale) for layer in layers]
    model(shared_batch(x[:EVALUATION_BATCH], seeds))
    for hook in hooks:
        hook.remove()
    for dropout in dropouts:
        dropout.train()
    for buffer, before in averages:
        buffer.copy_(before)
    for layer in layers:
        layer.weight.mul_(layer.init_gain)


def _scale(layer: Weight, _, y: torch.Tensor) -> torch.Tensor:
    """y (S, C, B, *space) / its standard deviation; each seed's by itself, so that bits do not depend on the others."""
    variance = torch.stack([each.var(correction=0) for each in y])
    sd = torch.where(variance.isfinite() & (variance > 0), variance, 1.0).sqrt()
    layer.weight.div_(sd.view(-1, *[1] * (layer.weight.ndim - 1)))
    return y / sd.view(-1, *[1] * (y.ndim - 1))
