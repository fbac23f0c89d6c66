"""The activations by name, and the gain that the weights before each need. No torch here: grids are checked against it.

Weights are drawn from a normal distribution of variance gain² / fan_in (He et al. 2015, arXiv:1502.01852), unless `init`
says otherwise (harness/drawing.py). Where a library or paper fixes the gain it is taken from there; otherwise it is He's
own criterion, 1 / sqrt(E f(z)²) for a standard normal z, which keeps the mean square of the signal from layer to layer.
"""

from collections.abc import Callable
from math import erf, exp, sqrt
from typing import NamedTuple

from harness import plugins


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


def default_parameter(name: str) -> float | None:
    """Of an activation, None where it has no parameter."""
    if name in ACTIVATIONS:
        return ACTIVATIONS[name].default
    return plugins.states(plugins.source("activations", name), "PARAMETER")


def parse(activation: str) -> tuple[str, float | None]:
    """Name and parameter: 'leaky_relu:0.333' -> ('leaky_relu', 0.333), 'relu' -> ('relu', None)."""
    name, _, text = activation.partition(":")
    return name, float(text) if text else default_parameter(name)


def gain(activation: str) -> float:
    """Standard deviation of the weights before `activation`, in units of 1 / sqrt(fan_in)."""
    name, parameter = parse(activation)
    if name in ACTIVATIONS:
        return ACTIVATIONS[name].gain(parameter)
    return float(plugins.states(plugins.source("activations", name), "GAIN"))
