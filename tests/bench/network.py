"""The networks `mlp` and `cnn` in ordinary torch.nn: batch first, one seed, the layers in the order that a cell names."""

from math import ceil, prod, sqrt

import torch
from torch import nn

from grids import Cell
from harness.initialisation import gain, parse


class Maxout(nn.Module):
    """Maximum of two maps: (B, 2·C, *space) -> (B, C, *space)."""

    def forward(self, x):
        return torch.maximum(*x.chunk(2, dim=1))


ACTIVATIONS = {
    "relu": nn.ReLU,
    "leaky_relu": nn.LeakyReLU,
    "elu": nn.ELU,
    "maxout": Maxout,
    "tanh": nn.Tanh,
    "sigmoid": nn.Sigmoid,
}


def build(cell: Cell, shape: tuple[int, ...], classes: int) -> nn.Sequential:
    """`mlp` or `cnn` of `cell` for examples (B, *shape), its weights drawn from torch's global generator."""
    name, _ = parse(cell.activation)
    if cell.architecture not in ("mlp", "cnn") or name not in ACTIVATIONS or cell.activation != name:
        raise ValueError(f"no plain {cell.architecture} with {cell.activation}: mlp or cnn, {', '.join(ACTIVATIONS)}")
    channels, *space = shape
    dimensions = len(space) if cell.architecture == "cnn" else 0
    maps = 2 if name == "maxout" else 1
    between = maps if cell.order.index("act") < cell.order.index("weight") else 1  # maps that flow between blocks
    pool_after = {ceil(cell.depth / 3), ceil(2 * cell.depth / 3)} if dimensions else set()
    c = cell.width
    layers = [] if dimensions else [nn.Flatten()]
    layers.append(weight(channels if dimensions else prod(shape), c * between, dimensions))
    for i in range(1, cell.depth + 1):
        wide = c * 2 if i - 1 in pool_after else c
        now = c * between
        for layer in cell.order.split("-"):
            if layer == "weight":
                layers.append(weight(now, wide * maps, dimensions, gain(cell.activation)))
                now = wide * maps
            elif layer == "bn":
                layers.append(nn.BatchNorm2d(now) if dimensions == 2 else nn.BatchNorm1d(now))
            elif layer == "act":
                layers.append(ACTIVATIONS[name]())
                now //= maps
            else:
                raise ValueError(f"order {cell.order!r}: only weight, bn and act are written here")
        c = wide
        if i in pool_after:
            layers.append(nn.MaxPool2d(2) if dimensions == 2 else nn.MaxPool1d(2))
    if dimensions:
        layers += [nn.AdaptiveAvgPool2d(1) if dimensions == 2 else nn.AdaptiveAvgPool1d(1), nn.Flatten()]
    return nn.Sequential(*layers, weight(c * between, classes))


def weight(c_in: int, c_out: int, dimensions: int = 0, gain: float = 1.0) -> nn.Module:
    """A linear layer or a 3-wide convolution: normal weights of sd gain / sqrt(fan_in), zero bias."""
    layer = (nn.Linear, nn.Conv1d, nn.Conv2d)[dimensions](c_in, c_out, *([3, 1, 1] if dimensions else []))
    nn.init.normal_(layer.weight, std=gain / sqrt(c_in * 3**dimensions))
    nn.init.zeros_(layer.bias)
    return layer
