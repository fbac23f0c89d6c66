"""Stores in which something is odd, and the row of the report that each gives: the table of corner cases.

Every case is a grid, a store and one comparison of it, by way of `gather` and `compare`.
"""

import math
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
from simulated import AFTER, BEFORE, CLASSES, MARGINS, NONE, exactly, fill, planted, read_grid, run

from reports.comparisons import compare
from reports.outcomes import gather
from results import Store

SEEDS = 20
Change = Callable[[list[dict]], list[dict]]
BOTH = (BEFORE, AFTER)


class Case(NamedTuple):
    """differences: after − before, one for each seed. change: what becomes of the runs."""

    what: str
    differences: np.ndarray
    metric: str = "test_accuracy"
    change: Change = lambda runs: runs
    base: float = 0.7
    margins: str = MARGINS
    planned: int | str = SEEDS  # seeds of the grid
    beside: tuple[str, ...] = ()  # further activations, run as ever
    not_run: tuple[str, ...] = ()
    examples: int = 0  # in the test set, where the right answers to each are stored
    contrasts: tuple[str, ...] = ("after - before",)  # of which the first is looked at


def becomes(status: str, orders: tuple[str, ...], seeds) -> Change:
    """Runs of these seeds and orders have this status and no metrics."""

    def change(runs):
        hit = [r["seed"] in seeds and r["cell"].order in orders for r in runs]
        return [run(r["cell"], r["seed"], status) if h else r for r, h in zip(runs, hit, strict=True)]

    return change


def absent(before, after) -> Change:
    """Runs of these seeds of each arm are not in the store."""
    gone = {BEFORE: before, AFTER: after}
    return lambda runs: [r for r in runs if r["seed"] not in gone[r["cell"].order]]


def measured_as(value: float, metric: str, seeds, orders=BOTH) -> Change:
    """Runs of these seeds and orders are done, with this value of the metric."""

    def change(runs):
        return [{**r, metric: value} if r["seed"] in seeds and r["cell"].order in orders else r for r in runs]

    return change


def scattered(order: str, sd: float) -> Change:
    """Runs of this order have further noise in their accuracy."""

    def change(runs):
        noise = iter(np.random.default_rng(0).normal(0, sd, len(runs)))
        return [{**r, "test_accuracy": r["test_accuracy"] + next(noise) * (r["cell"].order == order)} for r in runs]

    return change


ALL = range(SEEDS)
LARGE, SMALL, ZERO, NOISY = exactly(20, 0.05, 0.01), exactly(20, 0.0, 0.003), np.zeros(20), exactly(20, 0.0, 0.1)
SKEWED = np.tile([0.05, 0.05, 0.05, 0.05, 0.06], 4)
OUTLIER = np.array([0.01, 0.012, 0.009, 0.011, 0.01, -0.1, 0.01])
LOSS, CALIBRATION = "test_loss", "test_calibration_error"
WITH_CALIBRATION = "margin = { test_calibration_error = 0.02 }"

CASES = [
    Case("1 pair", LARGE[:1], planned=1),
    Case("2 pairs", exactly(2, 0.05, 0.01), planned=2),
    Case("4 pairs, far apart", exactly(4, 0.05, 0.001), planned=4),
    Case("4 pairs, hardly apart", exactly(4, 0.0, 0.001), planned=4),
    Case("5 pairs, far apart", exactly(5, 0.05, 0.001), planned=5),
    Case("5 pairs, hardly apart", exactly(5, 0.0, 0.001), planned=5),
    Case("identical arms", ZERO),
    Case("identical arms, 5 pairs", ZERO[:5], planned=5),
    Case("identical losses", ZERO, LOSS),
    Case("all differences equal", np.full(20, 0.05)),
    Case("all losses equally apart", np.full(20, 0.05), LOSS, margins="margin = { test_loss = 0.01 }"),
    Case("all differences equal to the margin", np.full(20, 0.02)),
    Case("all differences one test example", np.full(20, 0.002)),
    Case("other seeds in each arm", LARGE, change=absent(before=range(10), after=range(10, 20))),
    Case("one arm not run", LARGE, change=absent(before=(), after=ALL), beside=("tanh",)),
    Case("neither arm run", LARGE, change=absent(before=ALL, after=ALL), beside=("tanh",)),
    Case("one of 6 cells run", exactly(20, 0.01, 0.014), not_run=("elu", "maxout", "tanh", "sigmoid", "gelu")),
    Case("3 runs of one arm failed", LARGE, change=becomes("failed", (AFTER,), range(3))),
    Case("16 runs of one arm failed", LARGE, change=becomes("failed", (AFTER,), range(16))),
    Case("every run of one arm failed", LARGE, change=becomes("failed", (AFTER,), ALL), beside=("tanh",)),
    Case("1 run of one arm diverged", SMALL, change=becomes("diverged", (AFTER,), [0])),
    Case("5 runs of one arm diverged", SMALL, change=becomes("diverged", (AFTER,), range(5))),
    Case("5 runs of the better arm diverged", LARGE, change=becomes("diverged", (AFTER,), range(5))),
    Case("every run of one arm diverged", SMALL, change=becomes("diverged", (AFTER,), ALL)),
    Case("the same pair diverged in both arms", SMALL, change=becomes("diverged", BOTH, [0])),
    Case(
        "17 pairs diverged in both arms, 3 are near the margin", 0.019 + SMALL / 30,
        change=becomes("diverged", BOTH, range(17)),
    ),
    Case("every run of both arms diverged", ZERO, change=becomes("diverged", BOTH, ALL)),
    Case("every run of both arms diverged, loss", ZERO, LOSS, becomes("diverged", BOTH, ALL)),
    Case("4 pairs, 1 run diverged", ZERO[:4], change=becomes("diverged", (AFTER,), [0]), planned=4),
    Case("5 runs of one arm diverged, loss", ZERO, LOSS, becomes("diverged", (AFTER,), range(5))),
    Case(
        "5 runs of one arm diverged, calibration error", ZERO, CALIBRATION, becomes("diverged", (AFTER,), range(5)),
        base=0.1, margins=WITH_CALIBRATION,
    ),
    Case("1 run diverged where all only guess", ZERO, change=becomes("diverged", (AFTER,), [0]), base=1 / CLASSES),
    Case("a done run without the metric", LARGE, change=measured_as(math.nan, "test_accuracy", [2], (BEFORE,))),
    Case("no run has the metric", LARGE, change=measured_as(math.nan, "test_accuracy", ALL)),
    Case("a done run of infinite loss", LARGE, LOSS, measured_as(math.inf, LOSS, [2], (AFTER,))),
    Case("no margin, far apart", LARGE, margins=""),
    Case("no margin, hardly apart", SMALL, margins=""),
    Case("a margin of 1e-9", SMALL, margins="margin = { test_accuracy = 1e-9 }"),
    Case("a margin of 1", NOISY, margins="margin = { test_accuracy = 1.0 }"),
    Case("arms that only guess", SMALL / 10, base=1 / CLASSES + 0.005),
    Case("arms that are nearly perfect", SMALL / 10, base=0.995),
    Case("losses of guessing", SMALL, LOSS, base=math.log(CLASSES)),
    Case("losses near 0", SMALL, LOSS, base=0.02),
    Case("too noisy for the margin", NOISY),
    Case("between different and equivalent", exactly(20, 0.01, 0.028)),
    Case("different, but below the margin", exactly(20, 0.005, 0.001)),
    Case("skewed differences", SKEWED),
    Case("one pair turns the verdict", OUTLIER, planned=7),
    Case("40 test examples", LARGE, examples=40),
    Case("seeds beyond the planned ones", exactly(25, 0.05, 0.01)),
    Case(
        "3 looks, of which the first decides; later seeds turn it", np.append(LARGE[:8], -0.5 * np.tile(LARGE[:12], 2)),
        change=scattered(NONE, 0.2), planned="8\nmax = 32\nstop = 'decided'",
        contrasts=("after - before", "before - none", "after - none"),
    ),
]  # fmt: skip


def row(case: Case, folder: Path) -> pd.Series:
    """The case's row of the report, from a store that is written into the folder."""
    seeds, activations = len(case.differences), ("relu", *case.beside)
    differences = dict.fromkeys(activations, np.zeros(seeds)) | {"relu": case.differences}
    stored = read_grid(folder, activations, seeds=seeds, contrasts=case.contrasts)
    runs = planted(stored, differences, case.metric, case.base)
    odd = [r for r in runs if r["cell"].activation == "relu"]
    others = [r for r in runs if r["cell"].activation != "relu"]
    counts = None
    if case.examples:
        rng = np.random.default_rng(0)
        counts = {c.cell_id: rng.binomial(seeds, rng.random(case.examples)) for c in stored.cells()}
    store = fill(Store(folder / "store"), case.change(odd) + others, counts=counts)
    activations = (*activations, *case.not_run)
    grid = read_grid(folder, activations, seeds=case.planned, margins=case.margins, contrasts=case.contrasts)
    return compare(gather(grid, store), [case.metric]).iloc[0]


def number(x: float) -> str:
    """Three decimals; – where there is none."""
    if math.isnan(x):
        return "–"
    text = f"{x:.4f}" if math.isfinite(x) else "∞" if x > 0 else "-∞"
    return text.replace("-", "−") if float(text.replace("∞", "1")) else text.removeprefix("-")


def probability(p: float) -> str:
    return "–" if math.isnan(p) else "< 0.0001" if p < 0.0001 else f"{p:.4f}"


def line(case: Case, of: pd.Series) -> str:
    """The case as a line of the table."""
    interval = f"{number(of['difference'])} [{number(of['low'])}, {number(of['high'])}]"
    cells = [case.what, str(of["n"]), interval, probability(of["p"]), probability(of["p_holm"])]
    cells += [probability(of["p_equivalence"]), of["verdict"], of["notes"] or "–"]
    return f"| {' | '.join(cells)} |"


HEAD = (
    "| case | n | difference [95 % interval] | p | p (Holm) | p of equivalence | verdict | notes |\n" + "|---" * 8 + "|"
)
