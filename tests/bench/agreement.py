"""Do two ways to train give the same accuracies, in distribution? They share no random numbers, so never the same bits.

$ python tests/bench/agreement.py grids/default.toml --cells 6 --seeds 6

trains a sample by normorder and by the plain loop, in this process on one thread, and compares them.
"""

import argparse
from typing import NamedTuple

import numpy as np
import plain
import sample
import torch
from scipy import stats

from grids import Cell
from harness import datasets, training
from reports.statistics import holm

ALPHA = 0.05  # chance to find a difference where there is none, half of it for the cells and half for their mean
MARGIN = 0.02  # of accuracy: what counts as the same, as in grids/default.toml


class Agreement(NamedTuple):
    """p, p_holm: Welch's test of each cell, (K,). difference: ours minus theirs, mean over cells, with its interval."""

    verdict: str  # agree, differ, or too few runs
    difference: float
    low: float
    high: float
    p: np.ndarray
    p_holm: np.ndarray

    def __str__(self):
        mean = f"mean difference {100 * self.difference:+.2f} points ({100 * self.low:+.2f} to {100 * self.high:+.2f})"
        return f"{self.verdict}: {mean}, smallest p of {len(self.p)} cells after Holm {self.p_holm.min():.3f}"


def agreement(ours: np.ndarray, theirs: np.ndarray, margin: float = MARGIN, alpha: float = ALPHA) -> Agreement:
    """Test accuracies (n, K) and (m, K), runs along axis 0, the same cells along axis 1; a diverged run has chance's.

    differ: a cell's Welch test rejects after Holm, or the interval of the mean over cells leaves out 0. agree: neither,
    and that interval lies within the margin. The interval is Welch's, of level 1 − alpha / 2 (Satterthwaite 1946).
    """
    cells = ours.shape[1]
    difference = ours.mean(0) - theirs.mean(0)
    squares = np.stack([each.var(0, ddof=1) / len(each) for each in (ours, theirs)])  # (2, K) squared standard errors
    freedom = np.array([len(ours) - 1, len(theirs) - 1])[:, None]
    tiny = 1e-12  # accuracies that are all equal have no spread: any difference then is one
    error = np.sqrt(squares.sum(0)) + tiny
    p = 2 * stats.t.sf(
        np.abs(difference) / error, (squares.sum(0) + tiny**2) ** 2 / _of_freedom(squares, freedom, tiny)
    )
    p_holm = holm(p)
    mean, mean_error = difference.mean(), np.sqrt(squares.sum()) / cells + tiny
    mean_freedom = (squares.sum() + tiny**2) ** 2 / _of_freedom(squares, freedom, tiny).sum()
    half = stats.t.ppf(1 - alpha / 4, mean_freedom) * mean_error
    low, high = mean - half, mean + half
    if p_holm.min() <= alpha / 2 or low > 0 or high < 0:
        verdict = "differ"
    else:
        verdict = "agree" if max(-low, high) <= margin else "too few runs"
    return Agreement(verdict, float(mean), float(low), float(high), p, p_holm)


def _of_freedom(squares: np.ndarray, freedom: np.ndarray, tiny: float) -> np.ndarray:
    """Satterthwaite's denominator, of each cell. (2, K), (2, 1) -> (K,)"""
    return ((squares + tiny**2 / 2) ** 2 / freedom).sum(0)


def accuracies(cells: list[Cell], seeds: range, data: datasets.Data) -> tuple[np.ndarray, np.ndarray]:
    """Test accuracies by normorder and by the plain loop, (S, K) each."""
    torch.set_num_threads(1)
    ours = [training.train(cell, seeds, data).metrics["test_accuracy"] for cell in cells]
    parts = plain.parts(data)
    theirs = [[plain.train(cell, seed, parts)["test_accuracy"] for seed in seeds] for cell in cells]
    return np.nan_to_num(np.array(ours).T, nan=1 / data.classes), np.array(theirs).T


def main() -> None:
    words = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    words.add_argument("grid")
    words.add_argument("--cells", type=int, default=6)
    words.add_argument("--seeds", type=int, default=6)
    given = words.parse_args()
    cells = sample.sample(sample.read(given.grid), given.cells)
    ours, theirs = accuracies(cells, range(given.seeds), datasets.load(cells[0].dataset))
    found = agreement(ours, theirs)
    for k, cell in enumerate(cells):
        means = f"{ours[:, k].mean():.4f} ± {ours[:, k].std(ddof=1):.4f}, plain {theirs[:, k].mean():.4f}"
        told = f"{means} ± {theirs[:, k].std(ddof=1):.4f}, p {found.p[k]:.3f}, after Holm {found.p_holm[k]:.3f}"
        print(f"{cell.order:14} {cell.activation:11} depth {cell.depth}: {told}")
    print(found)


if __name__ == "__main__":
    main()
