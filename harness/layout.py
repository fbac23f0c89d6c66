"""How activations of S seeds lie in memory, and what every layer for them can do.

A layer is declared with the shapes of one seed; `stacking.stack` gives every parameter and buffer its leading seed axis.
Activations are (S, C, B, *space): S seeds, C channels, B batch, *space nothing, (L,) or (H, W). Folding seeds into
channels is then free and gives torch's kernels their own layout. `solo(s)` of a layer is seed s as torch.nn modules.
"""

import numpy as np
import torch
from torch import nn


def fold(x: torch.Tensor) -> torch.Tensor:
    """(S, C, B) -> (1, S·C, B); (S, C, B, *space) -> (B, S·C, *space). Views both."""
    return x.flatten(0, 1)[None] if x.ndim == 3 else x.movedim(2, 0).flatten(1, 2)


def unfold(y: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
    """Undo `fold`; the S of x and its layout tell how."""
    return y[0].unflatten(0, (len(x), -1)) if x.ndim == 3 else y.unflatten(1, (len(x), -1)).movedim(0, 2)


def channels_last(x: torch.Tensor) -> torch.Tensor:
    """Images and 2-D kernels (·, C, H, W) with their channels together in memory, which convolutions on a CPU prefer.

    Measured at 28×28, widths 8 to 32, one thread: a training step 1.2 to 1.4 times as fast. Later layers keep it.
    """
    if x.ndim != 4:
        return x
    x = x.contiguous(memory_format=torch.channels_last)
    # One channel passes for either format, and the layers after it would get the other one.
    return x if x.shape[1] > 1 else x.as_strided(x.shape, (x.shape[2] * x.shape[3], 1, x.shape[3], 1))


def copied(module: nn.Module, s: int, **tensors: torch.Tensor) -> nn.Module:
    """`module` with its tensors overwritten by those of seed s, in their dtype and on their device."""
    for first in tensors.values():
        module = module.to(device=first.device, dtype=first.dtype)
    with torch.no_grad():
        for name, value in tensors.items():
            getattr(module, name).copy_(value[s])
    return module


class Layer(nn.Module):
    """What every layer can do: draw its tensors for one seed, and become torch.nn modules for one seed.

    drawn_together: whether a seed's tensors come from one stream of random numbers, and not each from its own.
    """

    drawn_together = False

    def draw(self, name: str, shape: tuple[int, ...], rng: np.random.Generator) -> np.ndarray:
        """Initial value of parameter or buffer `name`, one seed."""
        raise AssertionError(f"{type(self).__name__} has no tensors")

    def solo(self, s: int) -> nn.Module:
        raise AssertionError(f"{type(self).__name__} has no twin")

    def declare(self, name: str, *shape: int, buffer: bool = False) -> None:
        """A parameter or buffer of one seed, without values until `stack` draws them."""
        empty = torch.empty(shape, device="meta")
        if buffer:
            self.register_buffer(name, empty)
        else:
            self.register_parameter(name, nn.Parameter(empty))
