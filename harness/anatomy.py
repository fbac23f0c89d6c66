"""What normalization and activation do to the numbers of one layer, and of deep networks at initialisation: measured anew.

Each section is drawn from stated seeds and gives rows of (section, quantity, setting, value) and what its picture shows.
Normalization is that of training, by the statistics of the batch.
"""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from grids import Cell
from harness.architectures import build
from harness.initialisation import parse
from harness.layers import Block, MaxPool, activation, block, maps
from harness.layout import Layer
from harness.normalizations import normalization
from harness.stacking import stack
from harness.values import saturated, spread

ORDERS = {"none": "weight-act", "before": "weight-bn-act", "after": "weight-act-bn"}
ACTIVATIONS = ("tanh", "sigmoid", "relu", "leaky_relu", "elu", "maxout")
LAYER_SEED, SHAPES_SEED = 0, 1
TANH_SEED = 2147483647  # as the article has it
CHANNELS, EXAMPLES, SIDE = 32, 200, 5
FAN_IN, COLUMNS = 500, 16
SCALES = (0.1, 0.3, 1.0, 3.0, 10.0, 30.0)
DEPTHS, WIDTH, BATCH, INPUTS, CLASSES, SEEDS = (1, 2, 4, 8, 16, 32), 64, 64, 40, 10, 8
BINS = 60
DIGITS = 10  # that are told: further ones are rounding, which is another on other processors
TINY = 1e-12  # added to the variance, so that it changes nothing that is shown


class Row(NamedTuple):
    section: str
    quantity: str
    setting: str
    value: float


class Histogram(NamedTuple):
    """Shares of values between edges; what lies beyond them is in the outermost ones."""

    name: str
    edges: np.ndarray  # (BINS + 1,)
    shares: np.ndarray  # (BINS,)


class Anatomy(NamedTuple):
    rows: list[Row]
    histograms: dict[str, list[Histogram]]  # by section


def anatomy() -> Anatomy:
    """Everything, on one thread: 0.93 s on a core of an Intel Xeon (median of 5, 0.87 to 1.07; 2026-11-29)."""
    torch.set_num_threads(1)
    rows, histograms = [], {}
    for name, section in SECTIONS.items():
        histograms[name] = []
        for each in section():
            if isinstance(each, Histogram):
                histograms[name].append(each)
            else:
                *words, value = each
                rows.append(Row(name, *words, float(f"{value:.{DIGITS}g}")))
    return Anatomy(rows, histograms)


def after_weights(order: str, name: str, channels: int, space: int = 0, dtype=torch.float64) -> nn.Module:
    """The layers of an order that follow the weights, in training mode, for one seed: (1, C, B, *space) -> the same."""
    cell = Cell(dataset="-", architecture="-", order=order, activation=name, depth=1)
    layers = nn.Sequential()
    for layer in order.split("-")[1:]:
        if layer == "act":
            layers.append(activation(*parse(name)))
            channels //= maps(cell)
        else:
            layers.append(normalization(cell, layer, channels, space))
    return stack(layers, [0], dtype).train()


def moments(x: torch.Tensor) -> dict[str, float]:
    """Of all numbers of x. skewness, excess kurtosis: of the standardised ones, 0 for normal values."""
    x = x.double().flatten()
    z = (x - x.mean()) / x.std(correction=0)
    return {
        "mean": x.mean().item(),
        "sd": x.std(correction=0).item(),
        "smallest": x.min().item(),
        "largest": x.max().item(),
        "share below 0": (x < 0).double().mean().item(),
        "share of exact zeros": (x == 0).double().mean().item(),
        "skewness": z.pow(3).mean().item(),
        "excess kurtosis": z.pow(4).mean().item() - 3,
    }


def histogram(name: str, x: torch.Tensor, low: float, high: float) -> Histogram:
    edges = np.linspace(low, high, BINS + 1)
    counts, _ = np.histogram(np.clip(x.double().numpy().ravel(), low, high), edges)
    return Histogram(name, edges, counts / x.numel())


def distance(x: torch.Tensor, y: torch.Tensor) -> float:
    """First Wasserstein distance of two samples of equal size, each brought to mean 0 and sd 1: (n,), (n,)

    The mean distance of equal quantiles (Vallender 1974); 0 where one is an increasing affine image of the other.
    """
    x, y = ((each - each.mean()) / each.std(correction=0) for each in (x.double(), y.double()))
    return (x.sort().values - y.sort().values).abs().mean().item()


def layer() -> Iterator[tuple | Histogram]:
    """Maps of 5×5 in 32 channels, normal with sd 1 around a mean of each channel, through both orders, and then pooled."""
    draw = torch.Generator().manual_seed(LAYER_SEED)
    means = torch.randn(CHANNELS, generator=draw, dtype=torch.float64)
    x = means[:, None, None, None] + torch.randn(CHANNELS, EXAMPLES, SIDE, SIDE, generator=draw, dtype=torch.float64)
    x = x[None]
    pool = MaxPool(2)
    given = {"in": x, "in, pooled": pool(x)}
    for arm in ("before", "after"):
        y = after_weights(ORDERS[arm], "relu", CHANNELS, space=2)(x).detach()
        given |= {arm: y, f"{arm}, pooled": pool(y)}
    for name, values in given.items():
        for quantity, value in moments(values).items():
            yield quantity, name, value
        yield histogram(name, values, -4.0, 6.0)
    for c in np.argsort(means.abs().numpy(), kind="stable"):
        apart = distance(*(given[arm][0, c].flatten() for arm in ("before", "after")))
        mean_in_sd = (x[0, c].mean() / x[0, c].std(correction=0)).item()
        yield "distance of the orders, each at mean 0 and sd 1", f"channel {c}", apart
        yield "mean of the channel in sd", f"channel {c}", mean_in_sd


def shapes() -> Iterator[tuple | Histogram]:
    """Channels of four shapes before and after batch normalization: each alone, and all of them together."""
    draw = torch.Generator().manual_seed(SHAPES_SEED)
    n = EXAMPLES * SIDE * SIDE
    normal, uniform, other = (
        torch.randn(n, generator=draw),
        torch.rand(n, generator=draw),
        torch.rand(n, generator=draw),
    )
    channels = {
        "normal": 2 + normal,
        "uniform": 3 * uniform,
        "exponential": -torch.log1p(-other),
        "two peaks": torch.where(uniform < 0.3, -2.0, 2.0) + 0.5 * normal,
    }
    x = torch.stack(list(channels.values())).double()[None]  # (1, C, n)
    y = after_weights("weight-bn-act", "identity", len(channels))(x).detach()
    for c, name in enumerate(channels):
        for when, values in (("before", x[0, c]), ("after", y[0, c])):
            for quantity in ("mean", "sd", "skewness", "excess kurtosis"):
                yield f"{quantity} {when}", name, moments(values)[quantity]
        yield "distance of the two, each at mean 0 and sd 1", name, distance(x[0, c], y[0, c])
        yield histogram(f"{name}, before", x[0, c], -4.0, 6.0)
        yield histogram(f"{name}, after", y[0, c], -4.0, 6.0)
    for when, values in (("before", x), ("after", y)):
        for quantity in ("mean", "sd", "skewness", "excess kurtosis"):
            yield f"{quantity} {when}", "all channels together", moments(values)[quantity]
    yield "distance of the two, each at mean 0 and sd 1", "all channels together", distance(x.flatten(), y.flatten())


def products(count: int = 1) -> tuple[torch.Tensor, torch.Tensor]:
    """Inputs (500, 16) and `weights @ x` (count · 500, 16) of one generator: x, then the weights, all normal with sd 1.

    Drawn as float32, as the article's, and multiplied as float64.
    """
    draw = torch.Generator().manual_seed(TANH_SEED)
    x = torch.randn(FAN_IN, COLUMNS, generator=draw).double()
    return x, torch.cat([torch.randn(FAN_IN, FAN_IN, generator=draw).double() @ x for _ in range(count)])


def slopes(name: str, z: torch.Tensor) -> torch.Tensor:
    """f'(z) of an activation, for each output; of maxout that of the map that it takes. z float64 (C, B)"""
    z = z[None].requires_grad_()
    y = stacked_activation(name)(z)
    (slope,) = torch.autograd.grad(y.sum(), z)
    return slope[0].unflatten(0, (-1, y.shape[1])).sum(0)


def stacked_activation(name: str) -> nn.Module:
    made = activation(*parse(name))
    return stack(nn.Sequential(made), [0], torch.float64) if isinstance(made, Layer) else made


def share_saturated(name: str, z: torch.Tensor) -> float:
    """Of the values z (1, C, B) that an activation is given."""
    return saturated(name, z).double().sum().item() / z.numel()


def saturation() -> Iterator[tuple | Histogram]:
    """Activations of `weights @ x` with unscaled weights and 500 inputs."""
    x, z = products()
    yield "sd of x", "x", x.std(correction=0).item()
    yield "sd of weights @ x", "x", z.std(correction=0).item()
    yield histogram("weights @ x", z, -80.0, 80.0)
    yield "share with |tanh| above 0.97", "tanh", (torch.tanh(z).abs() > 0.97).double().mean().item()
    for name in ACTIVATIONS:
        given = products(2)[1] if name == "maxout" else z
        slope = slopes(name, given)
        yield "share saturated", name, share_saturated(name, given[None])
        yield "mean of |slope|", name, slope.abs().mean().item()
        yield "root mean square of the slope", name, slope.square().mean().sqrt().item()
        y = stacked_activation(name)(given[None])[0].detach()
        yield "mean of the outputs", name, y.mean().item()
        yield "sd of the outputs", name, y.std(correction=0).item()
        yield histogram(name, y, *((-1.0, 1.0) if name in ("tanh", "sigmoid") else (-40.0, 60.0)))


def scales() -> Iterator[tuple]:
    """Saturation in each order where the weights, of sd 1/sqrt(fan-in), are scaled."""
    _, z = products(2)
    z = z[None] / FAN_IN**0.5
    for name in ACTIVATIONS:
        given = z if name == "maxout" else z[:, :FAN_IN]
        for arm, order in ORDERS.items():
            for scale in SCALES:
                seen = []
                layers = after_weights(order, name, given.shape[1])
                acting = layers[order.split("-").index("act") - 1]
                acting.register_forward_pre_hook(lambda _, args, seen=seen: seen.append(args[0].detach()))
                layers(given * scale)
                yield "share saturated", f"{name}, {arm}, scale {scale:g}", share_saturated(name, seen[0])


def depth() -> Iterator[tuple]:
    """Gradients and rank of perceptrons at initialisation, of normal inputs with random labels; medians over 8 seeds."""
    draw = torch.Generator().manual_seed(LAYER_SEED)
    x = torch.randn(INPUTS, BATCH, generator=draw).double().expand(SEEDS, -1, -1)
    y = torch.randint(CLASSES, (BATCH,), generator=draw).expand(SEEDS, -1)
    for name in ("relu", "tanh"):
        for arm, order in ORDERS.items():
            for blocks in DEPTHS:
                cell = Cell(dataset="-", architecture="mlp", order=order, activation=name, depth=blocks, width=WIDTH)
                model = stack(build(cell, (INPUTS,), CLASSES), list(range(SEEDS))).double().train()
                given = []
                model.blocks.register_forward_hook(lambda _m, _x, out, given=given: given.append(out.detach()))
                F.cross_entropy(model(x), y, reduction="none").mean(1).sum().backward()
                weights = [each.weight for each in model.blocks.modules() if isinstance(each, Block)]
                norms = [torch.linalg.vector_norm(w.weight.grad.flatten(1), dim=1) for w in (weights[0], weights[-1])]
                ratio = (norms[0] / norms[1]).median().item()
                setting = f"{name}, {arm}, depth {blocks}"
                yield "norm of the first block's gradient", setting, norms[0].median().item()
                if blocks > 1:
                    yield "gradient of the first block over that of the last", setting, ratio
                    yield "growth of the gradient for each block", setting, ratio ** (1 / (blocks - 1))
                yield "effective rank of what the last block gives", setting, float(np.median(spread(given[0])[0]))


def invariance() -> Iterator[tuple]:
    """What a layer gives when its weights are ten times as large, and the gradient of a bias in front of normalization."""
    draw = torch.Generator().manual_seed(LAYER_SEED)
    x, direction = torch.randn(2, 1, WIDTH, EXAMPLES, generator=draw, dtype=torch.float64)
    for name in ACTIVATIONS:
        for arm, order in ORDERS.items():
            cell = Cell(
                dataset="-", architecture="mlp", order=order, activation=name, depth=1, width=WIDTH, bn_eps=TINY
            )
            unit = stack(block(cell, WIDTH, WIDTH), [0], torch.float64).train()
            y = unit(x)
            (y * direction).sum().backward()
            gradients = [torch.linalg.vector_norm(each.grad).item() for each in (unit.weight.bias, unit.weight.weight)]
            with torch.no_grad():
                unit.weight.weight.mul_(10)
                change = torch.linalg.vector_norm(unit(x) - y) / torch.linalg.vector_norm(y)
            setting = f"{name}, {arm}"
            yield "relative change of the output, weights times 10", setting, change.item()
            yield "gradient of the bias over that of the weights", setting, gradients[0] / gradients[1]


SECTIONS = {
    "layer": layer,
    "shapes": shapes,
    "saturation": saturation,
    "scales": scales,
    "depth": depth,
    "invariance": invariance,
}
