"""Stores of simulated runs with planted effects."""

import itertools
import math
from collections import defaultdict
from datetime import UTC, datetime

import numpy as np
import pandas as pd
from scipy import stats

import harness
from grids import Grid, Run
from results import METRICS, table
from results.schema import LAYERS, QUANTILES

BEFORE, AFTER, NONE = "weight-bn-act", "weight-act-bn", "weight-act"
ACTIVATIONS = ("relu", "leaky_relu", "elu", "maxout", "tanh", "sigmoid")
CLASSES, EXAMPLES = 10, 500
PROVENANCE = {
    "error": None, "wall_s": 1.0, "memory_bytes": 1, "parameters": 1, "engine": "cpu", "seed_block": 32, "code": "c",
    "data": "d", "commit": "", "versions": "", "host": "h", "device": "p", "started_at": datetime(2026, 1, 1, tzinfo=UTC),
}  # fmt: skip
MARGINS = "margin = { test_accuracy = 0.02, test_loss = 0.05 }"
GRID = """
[axes]
dataset = ["digits"]
architecture = ["mlp"]
order = {orders}
activation = {activations}
{depth}
{axes}
[seeds]
count = {seeds}
[analysis]
arms = {{ {arms} }}
contrasts = {contrasts}
{margins}
"""


def read_grid(
    folder,
    activations=("relu",),
    depths=(2,),
    seeds=20,
    margins=MARGINS,
    contrasts=("after - before",),
    exclude="",
    axes="",
):
    arms = {"before": BEFORE, "after": AFTER, **({"none": NONE} if "none" in str(contrasts) else {})}
    path = folder / "simulated.toml"
    text = GRID.format(
        orders=list(arms.values()), activations=list(activations), seeds=seeds,
        depth=f"depth = {list(depths)}" if depths else "",  # where it is searched, it stands in `axes`
        arms=", ".join(f"{name} = '{order}'" for name, order in arms.items()), contrasts=list(contrasts),
        margins=margins, axes=axes,
    )  # fmt: skip
    path.write_text(exclude + text)
    return Grid.read(path, {**harness.choices(), "metric": METRICS})


def run(cell, seed, status="done", **metrics):
    """A run with neutral metrics, but those given."""
    value = 0.5 if status == "done" else math.nan
    sizes = {"train_examples": 1000, "val_examples": 200, "test_examples": EXAMPLES, "classes": CLASSES}
    return {"cell": cell, "seed": seed, "status": status, **sizes, **dict.fromkeys(METRICS, value), **metrics}


def fill(store, runs, trial=lambda run: run["cell"].cell_id, counts=None, engine="cpu", curves=None, layers=None):
    """Write runs into a store, a file a trial. counts: by cell_id, right answers of each test example.

    curves, layers: give the table of a trial from its name and runs. A run's epochs_run is 20 unless it says otherwise.
    """
    trials = defaultdict(list)
    for row in runs:
        trials[str(trial(row))].append(row)
    for name, rows in trials.items():
        cells = pd.DataFrame([row["cell"].model_dump() for row in rows])
        measured = ("seed", "status", "train_examples", "val_examples", "test_examples", "classes", *METRICS)
        run_ids = [Run(row["cell"], row["seed"]).run_id for row in rows]
        tables = {"runs": table("runs", {
            **{field: cells[field].tolist() for field in cells},
            **{column: [row[column] for row in rows] for column in measured},
            **PROVENANCE, "run_id": run_ids, "trial": name, "best_epoch": 20, "engine": engine,
            "epochs_run": [row.get("epochs_run", 20) for row in rows],
        })}  # fmt: skip
        if counts and name in counts:
            columns = {"trial": [name], "seeds": [len(rows)], "run_ids": [run_ids], "correct": [counts[name]]}
            tables["examples"] = table("examples", columns)
        if curves:
            tables["curves"] = curves(name, rows)
        if layers and len(measured := layers(name, rows)):
            tables["layers"] = measured
        store.write(tables)
    return store


def layers_of(measure, epochs=(0, 20), sites=("input", "weight", "bn", "act", "output")):
    """What `fill` makes the table `layers` with: a row a run, epoch, block of the run's cell, and site that its order has.

    measure: of a run, epoch, block and site, what was measured, by column, the rest is null; None where there is no row.
    """

    def of_trial(name, rows):
        columns = defaultdict(list)
        for row in rows:
            cell = row["cell"]
            here = [s for s in sites if s.split(".")[-1] in ("input", "output", *cell.order.split("-"))]
            for epoch, block, site in itertools.product(epochs, range(1, cell.depth + 1), here):
                measured = measure(row, epoch, block, site)
                if measured is None:
                    continue
                keys = {
                    "run_id": Run(cell, row["seed"]).run_id,
                    "trial": name,
                    "epoch": epoch,
                    "block": block,
                    "site": site,
                }
                for field in LAYERS.names:
                    columns[field].append({**keys, **measured}.get(field))
        return table("layers", columns) if columns else LAYERS.empty_table()

    return of_trial


def normal_quantiles(mean, sd):
    """QUANTILES of a normal variable, its ends at 4 sd."""
    return list(mean + sd * np.clip(stats.norm.ppf(QUANTILES), -4, 4))


def exactly(n, mean, sd, seed=0):
    """n normal numbers whose mean and sd are these, not only on average."""
    x = np.random.default_rng(seed).normal(0, 1, n)
    return mean + sd * (x - x.mean()) / x.std(ddof=1)


def planted(grid, differences, metric="test_accuracy", base=0.7):
    """Runs of every cell: the after arm exceeds the others by the differences of its activation."""
    runs = []
    for cell in grid.cells():
        noise = np.random.default_rng(cell.depth).normal(0, 0.02, grid.seeds.count)  # what a seed does to every arm
        for seed in range(grid.seeds.count):
            shift = differences[cell.activation][seed] if cell.order == AFTER else 0
            runs.append(run(cell, seed, **{metric: base + noise[seed] + shift}))
    return runs
