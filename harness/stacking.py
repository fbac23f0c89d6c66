"""Many seeds as one model: `stack` gives a model its seeds, `solo` takes one out again as torch.nn modules.

Every draw is a function of (seed, name) alone, so no layer's draw can shift another's and equal seeds share draws
across orders and depths: that makes comparisons paired.
"""

import copy
import zlib

import numpy as np
import torch
from torch import nn

from harness.layers import Dropout
from harness.layout import Layer, channels_last


def stream(seed: int, name: str) -> np.random.Generator:
    """The random numbers that `seed` has for the purpose `name`, the same on every machine."""
    return np.random.default_rng(np.random.SeedSequence(seed, spawn_key=(zlib.crc32(name.encode()),)))


def stack(
    model: nn.Module, seeds: list[int], dtype: torch.dtype = torch.float32, device: str | torch.device = "cpu"
) -> nn.Module:
    """Give each parameter and buffer of `model` a leading axis of S seeds and draw its values. Changes `model`.

    A parameter's value depends on the seed and on the parameter's path in the model, on nothing else.
    """
    for path, layer in model.named_modules():
        if isinstance(layer, Dropout):
            keys = [int(stream(seed, path).integers(2**63)) for seed in seeds]
            layer.generators = [torch.Generator(device).manual_seed(key) for key in keys]
        if not isinstance(layer, Layer):
            continue
        for table in (layer._parameters, layer._buffers):
            for name, declared in table.items():
                if declared is None:  # as the bias of a layer without one
                    continue
                shape = tuple(declared.shape)
                key = path if layer.drawn_together else f"{path}.{name}"
                draws = [layer.draw(name, shape, stream(seed, key)) for seed in seeds]
                value = torch.from_numpy(np.stack(draws)).to(device)
                value = value.to(dtype) if value.is_floating_point() else value  # as a count or an index
                # Kernels (S, C_out, C_in, H, W); one map has no other layout.
                if value.ndim == 5 and value.shape[1] > 1:
                    value = channels_last(value.flatten(0, 1)).unflatten(0, (len(seeds), -1))
                table[name] = nn.Parameter(value) if table is layer._parameters else value
    return model


def solo(model: nn.Module, s: int) -> nn.Module:
    """Seed s of a stacked model as ordinary torch.nn modules, for examples (B, C, *space). Copies; `model` stays."""
    if isinstance(model, Layer):
        return model.solo(s).train(model.training)
    children = {name: solo(child, s) for name, child in model.named_children()}
    twin = copy.copy(model)
    twin._modules = children
    return twin
