"""Training examples shifted (`shift`) and mirrored (`flip`) by chance, anew in each epoch: what a seed's steps see.

What is evaluated, and what statistics are re-estimated from, stays as it is. Every seed draws its moves of an epoch from
(seed, epoch) alone, the same numbers for each example whatever the cell: so they are the same in all arms, another shift
moves the same examples in proportion, and neither batches nor any other draw depends on them.
"""

from collections.abc import Sequence

import numpy as np
import torch

from grids import Cell
from harness.datasets import Data
from harness.stacking import stream


def moves(cell: Cell, seeds: Sequence[int], epoch: int, batches: torch.Tensor, data: Data) -> list[torch.Tensor]:
    """What a step of the epoch takes beside its batch: nothing, or the moves of its examples, one tensor for all steps.

    batches: indices of examples (steps, S, B). Moves: int64 (steps, S, B, D + 1) for examples with D dimensions of space,
    how many places each is shifted by in each dimension, then 1 where it is mirrored.
    """
    if not (cell.shift or cell.flip):
        return []
    dimensions = len(data.shape) - 1
    taken = batches.movedim(1, 0).cpu().numpy()  # (S, steps, B)
    drawn = []
    for seed, index in zip(seeds, taken, strict=True):
        chance = stream(seed, f"augment.{epoch}").random((len(data.x_train), dimensions + 1))[index]
        places = np.floor(chance * (2 * cell.shift + 1)).astype(np.int64) - cell.shift  # −shift to shift
        places[..., -1] = cell.flip * (chance[..., -1] < 0.5)
        drawn.append(places)
    return [torch.from_numpy(np.stack(drawn, 1)).to(batches.device)]


def moved(x: torch.Tensor, moves: torch.Tensor) -> torch.Tensor:
    """Examples x (N, C, *space), each mirrored in the last dimension where its moves (N, D + 1) end with 1, then shifted.

    What comes in from outside is 0: the training part's mean, since x is standardised.
    """
    source = torch.zeros(len(x), 1, dtype=torch.long, device=x.device)  # (N, places), in the order of x.flatten(2)
    outside = torch.zeros_like(source, dtype=torch.bool)
    for d, size in enumerate(x.shape[2:]):
        at = torch.arange(size, device=x.device) - moves[:, d, None]  # (N, size)
        if d == x.ndim - 3:
            at = torch.where(moves[:, -1:] == 1, size - 1 - at, at)
        out = (at < 0) | (at >= size)
        source = (source[..., None] * size + at.clamp(0, size - 1)[:, None]).flatten(1)
        outside = (outside[..., None] | out[:, None]).flatten(1)
    # One gather over all places: half the time of one for each dimension (100 images of 28×28: 0.9 ms against 2.1).
    taken = x.flatten(2).gather(2, source[:, None].expand(-1, x.shape[1], -1))
    return taken.masked_fill(outside[:, None], 0).view(x.shape)
