"""Initial weights of one layer and seed, from standard normal draws that are the same for each `init`."""

from math import prod, sqrt

import numpy as np
import torch


def initial(init: str, normal: np.ndarray, gain: float, init_gain: float, maps: int = 1) -> np.ndarray:
    """Weights (C_out, C_in, *kernel) from draws of that shape.

    he: variance gain² / fan_in. xavier: gain² · 2 / (fan_in + fan_out) (Glorot and Bengio 2010, in its normal form).
    orthogonal: with the kernel flattened into columns a matrix W with W Wᵀ = gain² I or, where it is tall, Wᵀ W = gain² I
    (Saxe et al. 2013, as torch.nn.init.orthogonal_). All are multiplied by init_gain. lsuv: orthogonal of gain 1; what
    follows depends on data (harness/lsuv.py). maps: each of so many parts of C_out is a linear map of its own.
    """
    if maps > 1:
        return np.concatenate([initial(init, part, gain, init_gain) for part in np.split(normal, maps)])
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
    """The factor Q of a matrix or, where it is wide, of its transpose, uniform among such: R's diagonal made positive.

    By torch, which has one thread in a trial: numpy's took 300 ms and more in place of 2 on busy cores (432 × 96).
    """
    tall = torch.from_numpy(normal if normal.shape[0] >= normal.shape[1] else normal.T.copy())
    q, r = (factor.numpy() for factor in torch.linalg.qr(tall))
    q = q * np.copysign(1, np.diag(r))
    return q if q.shape == normal.shape else q.T
