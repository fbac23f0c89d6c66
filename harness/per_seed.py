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
    recipe do not reach them. Parameters without requires_grad are not trained. ValueError for what has no place for seeds:
    lazy or complex parameters, and tensors that are neither parameters nor buffers.
    Seeds act one after the other, eagerly: 20 MLPs of 4 × 64 whose blocks have nn.Linear take 2.1 times as long as those of
    Weight (n = 5, 2 cores of an AMD EPYC, torch 2.13.0, 2026-11-28). What draws in a forward pass, as nn.Dropout does, draws
    from what all seeds share: `check-architecture` refuses it.
    """

    drawn_together = True

    def __init__(self, make: Callable[[], nn.Module]):
        super().__init__()
        self.make = make
        template = self._made(0)
        _check(template)
        object.__setattr__(self, "template", template)  # no child: its tensors are those of no seed
        # torch allows no dot in a name, and no name that is an attribute already.
        mine = {name: name.replace(".", "/") for name in _tensors(template)}
        self.names = {f"{each}/" if hasattr(self, each) else each: name for name, each in mine.items()}
        trained = {name for name, value in template.named_parameters() if value.requires_grad}
        for each, name in self.names.items():
            self.declare(each, *_tensors(template)[name].shape, buffer=name not in trained)

    def _made(self, seed: int) -> nn.Module:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            return self.make()

    def draw(self, name, shape, rng: np.random.Generator):
        return _tensors(self._made(int(rng.integers(2**63))))[self.names[name]].detach().numpy()

    def forward(self, x):
        # Each seed's part lies as that of a Weight does, so that what follows computes the same bits in any company.
        return torch.stack([self._of_seed(s, each.movedim(1, 0)).movedim(0, 1) for s, each in enumerate(x.unbind())])

    def _of_seed(self, s: int, x: torch.Tensor) -> torch.Tensor:
        """(B, C_in, *space) -> (B, C_out, *space)"""
        own = {name: getattr(self, mine)[s] for mine, name in self.names.items()}
        before = dict(own)
        y = functional_call(
            self.template, own, (x,)
        )  # which leaves in `own` what the module has put in a buffer's place
        with torch.no_grad():
            for name, value in before.items():
                if own[name] is not value:
                    value.copy_(own[name])
        return y

    def train(self, mode: bool = True):
        self.template.train(mode)
        return super().train(mode)

    @torch.no_grad()
    def solo(self, s):
        twin = self._made(0)
        for mine, name in self.names.items():
            value = getattr(self, mine)[s]
            twin = twin.to(value.device, value.dtype) if value.is_floating_point() else twin
            _tensors(twin)[name].copy_(value)
        return twin

    def extra_repr(self):
        return repr(self.template)


def _tensors(module: nn.Module) -> dict[str, torch.Tensor]:
    """Parameters and buffers by path."""
    return {**dict(module.named_parameters()), **dict(module.named_buffers())}


def _check(module: nn.Module) -> None:
    """ValueError for a module of which a seed cannot have its own."""
    if not isinstance(module, nn.Module):
        raise ValueError(f"PerSeed takes a function that gives a torch module, and it gives {type(module).__name__}")
    for name, value in _tensors(module).items():
        if isinstance(value, nn.parameter.UninitializedTensorMixin):
            raise ValueError(f"PerSeed: {name} of a lazy module has no shape yet; give its sizes")
        if value.is_complex():
            raise ValueError(f"PerSeed: {name} is complex, and seeds have real numbers")
    for path, part in module.named_modules():
        for name, value in vars(part).items():
            if isinstance(value, torch.Tensor):
                where = f"{path}.{name}" if path else name
                raise ValueError(
                    f"PerSeed: {where} is a tensor that all seeds would share; make it a parameter or a buffer"
                )
