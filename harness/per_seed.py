"""Ordinary torch modules in stacked models: one for each seed, which act one after the other."""

from collections.abc import Callable

import numpy as np
import torch
from torch import nn
from torch.func import functional_call

from harness.layout import Layer


class PerSeed(Layer):
    """What `make` gives, of each seed: (S, C_in, B, *space) -> (S, C_out, B, *space), as it maps (B, C_in, *space).

    make: a function without arguments that gives a torch module. Its parameters and buffers begin as the module draws them,
    from torch's generator with a seed that follows from the run's seed and the layer's path: `init` and `init_gain` of a
    recipe do not reach them. Seeds act one after the other: 20 MLPs of 4 × 64 whose blocks have nn.Linear
    take 2.5 times as long as those of Weight (n = 5, 2 cores of an AMD EPYC, torch 2.13.0, 2026-11-28).
    What draws in training, as nn.Dropout does, draws from what all seeds share: `check-architecture` refuses it.
    """

    drawn_together = True

    def __init__(self, make: Callable[[], nn.Module]):
        super().__init__()
        self.make = make
        object.__setattr__(self, "template", self._made(0))  # no child: its tensors are those of no seed
        self.names = {name.replace(".", "/"): name for name in _tensors(self.template)}
        buffers = dict(self.template.named_buffers())
        for mine, name in self.names.items():
            self.declare(mine, *_tensors(self.template)[name].shape, buffer=name in buffers)

    def _made(self, seed: int) -> nn.Module:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            return self.make()

    def draw(self, name, shape, rng: np.random.Generator):
        return _tensors(self._made(int(rng.integers(2**63))))[self.names[name]].detach().numpy()

    def forward(self, x):
        tensors = {name: getattr(self, mine) for mine, name in self.names.items()}
        given = x.movedim(2, 1)  # (S, B, C_in, *space)
        own = [{name: tensor[s] for name, tensor in tensors.items()} for s in range(len(x))]
        found = [functional_call(self.template, each, (given[s],)) for s, each in enumerate(own)]
        return torch.stack(found, 1).movedim(0, 2)  # (B, S, C_out, *space), channels as they lay, moved

    def train(self, mode: bool = True):
        self.template.train(mode)
        return super().train(mode)

    @torch.no_grad()
    def solo(self, s):
        twin = self._made(0)
        for mine, name in self.names.items():
            value = getattr(self, mine)[s]
            twin = twin.to(device=value.device, dtype=value.dtype)
            _tensors(twin)[name].copy_(value)
        return twin


def _tensors(module: nn.Module) -> dict[str, torch.Tensor]:
    """Parameters and buffers by path."""
    return {**dict(module.named_parameters()), **dict(module.named_buffers())}


def slow(architecture: str, model: nn.Module) -> str:
    """What to know of a network with such layers, in words; empty where it has none."""
    paths = [path for path, layer in model.named_modules() if isinstance(layer, PerSeed)]
    if not paths:
        return ""
    more = f" and {len(paths) - 1} more" if len(paths) > 1 else ""
    return (
        f"architecture {architecture} has ordinary torch modules ({paths[0]}{more}): seeds pass them one after the other, "
        "so that many seeds together are hardly faster there than each alone"
    )
