"""Describe the values of one layer: moments, shares, quantiles, rank; and where activations are saturated.

x is (S, C, B, *space), every number that is given (S,). Layers are described between steps of training, so each is passed
over as few times as can be: about 2 ms for (20, 64, 400) on one core.
"""

from functools import cache
from math import atanh, inf, log, prod
from typing import NamedTuple

import numpy as np
import torch

from harness import plugins
from harness.initialisation import default_parameter, parse
from results.schema import QUANTILES

MOST_VALUES = 2**22  # of a seed, of which moments and shares are taken: 334 images of 16 channels and 28×28
SAMPLE = 2048  # of these, of which quantiles are taken: so a median is known to 3 % of the sd
NUMBERS = ("mean", "sd", "skewness", "kurtosis", "zeros", "negative")
SPREAD = ("effective_rank", "mean_cosine")

# An activation is saturated where its slope is below this share of its steepest or, where that is further out, its last
# slope: at |tanh| = 0.97, and so at sigmoid = 0.015 and 0.985. Softsign, whose slope falls off as 1/z², has the bound of
# tanh on its output: |softsign| = 0.97. Leaky ReLU, PReLU, maxout and the identity have no such place.
FLAT = 1 - 0.97**2
ANYWHERE = -inf, inf
# By activation, from its parameter: it is saturated where what it is given is <= the first number or >= the second.
SATURATED = {
    "identity": lambda _: ANYWHERE,
    "relu": lambda _: (0.0, inf),
    "leaky_relu": lambda slope: ANYWHERE if slope else (0.0, inf),
    "prelu": lambda _: ANYWHERE,  # whatever the slope that it has learnt
    "elu": lambda alpha: (min(0.0, log(FLAT / abs(alpha))) if alpha else 0.0, inf),  # slope alpha·exp(z)
    "gelu": lambda _: (-2.2509, inf),  # Φ(z) + z·φ(z) = -FLAT; less than that to its left
    "silu": lambda _: (-3.8100, inf),  # σ(z)·(1 + z·(1 − σ(z))) = -FLAT; less than that to its left
    "selu": lambda _: (log(FLAT / 1.6732632423543772), inf),  # slope λ·α·exp(z), on the right λ
    "softplus": lambda _: (log(FLAT / (1 - FLAT)), inf),  # slope σ(z)
    "tanh": lambda _: (-atanh(0.97), atanh(0.97)),
    "sigmoid": lambda _: (-log(0.985 / 0.015), log(0.985 / 0.015)),
    "softsign": lambda _: (-0.97 / 0.03, 0.97 / 0.03),
    "lecun_tanh": lambda _: (-1.5 * atanh(0.97), 1.5 * atanh(0.97)),
    "maxout": lambda _: ANYWHERE,
}


class Described(NamedTuple):
    numbers: np.ndarray  # float64 (len(NUMBERS), S); NaN where there is none
    quantiles: np.ndarray  # (S, len(QUANTILES))
    sample: np.ndarray  # (S, up to SAMPLE) of the values, sorted


def describe(x: torch.Tensor) -> Described:
    """What `layers` has of all values, of the first examples of x where there are more than MOST_VALUES."""
    flat = _in_memory(_first(x))  # (S, n)
    numbers = _numbers(flat)
    vanished = numbers[1] == 0  # or constant: squares of small numbers are 0
    if flat.dtype != torch.float64 and vanished.any():
        numbers[:, vanished] = _numbers(flat[torch.from_numpy(vanished).to(x.device)].double())
    places = _places(flat.shape[1])
    sample = flat if places is None else flat.index_select(1, places.to(x.device))
    sample = np.sort(sample.cpu().numpy(), axis=1)  # NumPy's is ten times as fast as torch's
    return Described(numbers, _quantiles(sample), sample)


def _first(x: torch.Tensor) -> torch.Tensor:
    """The first examples, with at most MOST_VALUES of a seed."""
    return x[:, :, : max(1, MOST_VALUES // (x.shape[1] * prod(x.shape[3:])))]


def _numbers(flat: torch.Tensor) -> np.ndarray:
    """NUMBERS of the rows of (S, n). float64 (len(NUMBERS), S)"""
    n = flat.shape[1]
    z, mean, inverse_sd = torch.native_layer_norm(flat, (n,), None, None, 0.0)
    squares = z * z
    third, fourth = torch.linalg.vecdot(squares, z), torch.linalg.vector_norm(squares, dim=1)
    zeros, negative = (op(flat, 0.0, out=squares).sum(1) for op in (torch.eq, torch.lt))  # in memory that is there
    sums = torch.stack([mean[:, 0], inverse_sd[:, 0], third, fourth, zeros, negative])
    mean, inverse_sd, third, fourth, zeros, negative = sums.double().cpu().numpy()
    with np.errstate(all="ignore"):
        sd = 1 / inverse_sd
        numbers = np.stack([mean, sd, third / n, fourth**2 / n, zeros / n, negative / n])  # the order of NUMBERS
    constant = sd <= 8 * torch.finfo(flat.dtype).eps * np.abs(mean)
    numbers[2:4, constant] = np.nan  # rounding errors have no shape
    numbers[:, ~np.isfinite(mean)] = np.nan
    return numbers


def spread(x: torch.Tensor) -> np.ndarray:
    """Effective rank and mean cosine of the representations in x, the means over space: float64 (2, S). Of x as `describe`.

    tr(M)² / tr(M²) is at most the rank of M, by Cauchy and Schwarz over its eigenvalues; Daneshmand et al. 2020
    (arXiv:2003.01652) follow the rank through networks. The mean cosine of all pairs follows from the sum of the B
    normalised vectors, whose square is B and the sum over ordered pairs. Vectors of length 0 are left out of it.
    """
    x = _first(x)
    m = x.mean(tuple(range(3, x.ndim))) if x.ndim > 3 else x  # (S, C, B)
    m = m / m.abs().amax((1, 2), keepdim=True).clamp_min(torch.finfo(m.dtype).tiny)  # whose scale is of no matter here
    moments = m @ m.transpose(1, 2)
    lengths = (m * m).sum(1, keepdim=True).sqrt()  # (S, 1, B)
    total = (m * torch.where(lengths > 0, 1 / lengths, 0)).sum(2)  # (S, C)
    trace, norm = moments.diagonal(dim1=1, dim2=2).sum(1), torch.linalg.matrix_norm(moments)
    sums = torch.stack([trace, norm, torch.linalg.vector_norm(total, dim=1), (lengths > 0).sum((1, 2)).to(x.dtype)])
    trace, norm, total, count = sums.double().cpu().numpy()
    with np.errstate(all="ignore"):
        return np.stack([(trace / norm) ** 2, (total**2 - count) / (count * (count - 1))])


def saturation(activation: str) -> tuple[float, float] | None:
    """Up to where, and from where on, an activation is saturated; None of a plug-in that does not state it."""
    name, parameter = parse(activation)
    if name in SATURATED:
        return SATURATED[name](parameter)
    stated = plugins.states(plugins.source("activations", name), "SATURATED")
    if stated is None or parameter != default_parameter(name):
        return None
    return tuple(end if number is None else number for number, end in zip(stated, ANYWHERE, strict=True))


def saturated(activation: str, z: torch.Tensor) -> torch.Tensor:
    """How often the activation is saturated in each channel where it is given z (S, C, B, *space). (S, C)

    Maxout has twice as many channels before as after it, and is never saturated: it gets 0 for each of z, as do those of
    which nothing is known.
    """
    low, high = saturation(activation) or ANYWHERE
    if (low, high) == ANYWHERE:
        return z.new_zeros(z.shape[:2])
    places = tuple(range(2, z.ndim))
    there = _count(torch.le, z, low).sum(places)
    return there + _count(torch.ge, z, high).sum(places) if high < inf else there


def _count(op, x: torch.Tensor, value: float) -> torch.Tensor:
    """1 where op(x, value), else 0: as numbers, since sums of truth values take four times as long."""
    return op(x, value, out=torch.empty_like(x))


def _in_memory(x: torch.Tensor) -> torch.Tensor:
    """(S, n): the values of each seed in the order of memory, which copies none where the seeds are apart in it."""
    order = sorted(range(1, x.ndim), key=lambda axis: -x.stride(axis))
    return x.permute(0, *order).flatten(1)


@cache
def _places(n: int) -> torch.Tensor | None:
    """Which of n values make the sample, the same for all seeds; None for all of them.

    One in each of SAMPLE equal stretches, at a random place: a fixed one might always be the same channel.
    """
    if n <= SAMPLE:
        return None
    inside = np.random.default_rng(0).random(SAMPLE)
    return torch.from_numpy(((np.arange(SAMPLE) + inside) * (n / SAMPLE)).astype(np.int64))


def _quantiles(ordered: np.ndarray) -> np.ndarray:
    """QUANTILES of each row, linear between values, as NumPy's; NaN in rows with a number that is not finite."""
    at = np.array(QUANTILES) * (ordered.shape[1] - 1)
    low, high = np.floor(at).astype(int), np.ceil(at).astype(int)
    with np.errstate(invalid="ignore"):
        values = ordered[:, low] + (at - low) * (ordered[:, high].astype(np.float64) - ordered[:, low])
    values[~np.isfinite(ordered[:, [0, -1]]).all(1)] = np.nan
    return values
