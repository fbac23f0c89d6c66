"""The activations by name, and the gain that the weights before each need. No torch here: grids are checked against it.

Weights are drawn from a normal distribution of variance gain² / fan_in (He et al. 2015, arXiv:1502.01852), unless `init`
says otherwise. Where a library or paper fixes the gain it is taken from there; otherwise it is He's own criterion,
1 / sqrt(E f(z)²) for a standard normal z, which keeps the mean square of the signal from layer to layer.
"""

from collections.abc import Callable
from math import erf, exp, prod, sqrt
from typing import NamedTuple

import numpy as np


def _elu(alpha: float) -> float:
    """1 / sqrt(E elu(z)²) = 1 / sqrt(1/2 + alpha² (e² Φ(-2) - 2 sqrt(e) Φ(-1) + 1/2)), z standard normal."""
    phi = lambda z: (1 + erf(z / sqrt(2))) / 2  # noqa: E731
    return 1 / sqrt(0.5 + alpha**2 * (exp(2) * phi(-2) - 2 * exp(0.5) * phi(-1) + 0.5))


class Activation(NamedTuple):
    default: float | None  # parameter, None where there is none
    gain: Callable[[float | None], float]
    source: str


ACTIVATIONS = {
    "identity": Activation(None, lambda _: 1.0, "linear, torch.nn.init.calculate_gain"),
    "relu": Activation(None, lambda _: sqrt(2), "He et al. 2015; torch.nn.init.calculate_gain"),
    "leaky_relu": Activation(
        0.01, lambda slope: sqrt(2 / (1 + slope**2)), "He et al. 2015; torch.nn.init.calculate_gain"
    ),
    "prelu": Activation(0.25, lambda slope: sqrt(2 / (1 + slope**2)), "He et al. 2015, at the initial slope"),
    "elu": Activation(1.0, _elu, "He's criterion, closed form"),
    "gelu": Activation(None, lambda _: 1.5335, "He's criterion, by quadrature"),
    "silu": Activation(None, lambda _: 1.6765, "He's criterion, by quadrature"),
    "selu": Activation(None, lambda _: 1.0, "Klambauer et al. 2017, arXiv:1706.02515: variance 1 / fan_in"),
    "softplus": Activation(None, lambda _: 1.0419, "He's criterion, by quadrature"),
    "tanh": Activation(None, lambda _: 5 / 3, "torch.nn.init.calculate_gain"),
    "sigmoid": Activation(None, lambda _: 1.0, "torch.nn.init.calculate_gain"),
    "softsign": Activation(None, lambda _: 1.0, "Glorot and Bengio 2010: unit slope at 0"),
    "lecun_tanh": Activation(None, lambda _: 1.0, "LeCun et al. 1998, Efficient BackProp: effective gain about 1"),
    "maxout": Activation(None, lambda _: 1.0, "E max(x, y)² = 1 for independent standard normal x, y"),
}


def parse(activation: str) -> tuple[str, float | None]:
    """Name and parameter: 'leaky_relu:0.333' -> ('leaky_relu', 0.333), 'relu' -> ('relu', None)."""
    name, _, text = activation.partition(":")
    return name, float(text) if text else ACTIVATIONS[name].default


def gain(activation: str) -> float:
    """Standard deviation of the weights before `activation`, in units of 1 / sqrt(fan_in)."""
    name, parameter = parse(activation)
    return ACTIVATIONS[name].gain(parameter)


def initial(init: str, normal: np.ndarray, gain: float, init_gain: float) -> np.ndarray:
    """Weights of one layer and seed, (C_out, C_in, *kernel), from standard normal draws of their shape.

    he: variance gain² / fan_in. xavier: gain² · 2 / (fan_in + fan_out) (Glorot and Bengio 2010, in its normal form).
    orthogonal: with the kernel flattened into columns a matrix W with W Wᵀ = gain² I or, where it is tall, Wᵀ W = gain² I
    (Saxe et al. 2013, arXiv:1312.6120, as torch.nn.init.orthogonal_). All are multiplied by init_gain. lsuv: orthogonal of
    gain 1; what follows depends on data (harness/lsuv.py).
    """
    c_out, fan_in = normal.shape[0], prod(normal.shape[1:])
    match init:
        case "he":
            return normal * (gain * init_gain / sqrt(fan_in))
        case "xavier":
            fan_out = c_out * prod(normal.shape[2:])
            return normal * (gain * init_gain * sqrt(2 / (fan_in + fan_out)))
        case "orthogonal":
            return _orthogonal(normal.reshape(c_out, fan_in)).reshape(normal.shape) * (gain * init_gain)
        case "lsuv":
            return _orthogonal(normal.reshape(c_out, fan_in)).reshape(normal.shape)
    raise AssertionError(f"no init {init}")


def _orthogonal(normal: np.ndarray) -> np.ndarray:
    """The factor Q of the matrix or, where it is wide, of its transpose, uniform among such: R's diagonal made positive."""
    tall = normal if normal.shape[0] >= normal.shape[1] else normal.T
    q, r = np.linalg.qr(tall)
    q = q * np.copysign(1, np.diag(r))
    return q if tall is normal else q.T
