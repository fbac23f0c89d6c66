"""Valid stores of any size with a planted effect: as many files as a sweep writes, every row as a training leaves it.

$ python tests/bench/synthetic.py RUNS FOLDER [ARM ARM ...]

makes FOLDER/synthetic.toml and FOLDER/store. The accuracy of `after` exceeds that of other arms by SHIFT in every cell.
"""

import itertools
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa

sys.path.insert(0, str(Path(__file__).parents[1]))

from simulated import AFTER, BEFORE, NONE, PROVENANCE

import harness
from grids import Cell, Grid, run_ids
from harness import datasets
from harness.plan import Trial, code_version
from results import METRICS, Store, table

SEEDS = 20  # of each cell, and of each trial
SHIFT, NOISE = 0.05, 0.01
WIDTHS = 15
ORDERS = {"none": NONE, "before": BEFORE, "after": AFTER}
CELLS_A_TABLE = 250  # made at once: Arrow's cost is a table's, not a row's
GRID = """# Does the report find what was planted?
[axes]
dataset      = ["digits"]
architecture = ["mlp"]
order        = {orders}
activation   = ["relu"]
depth        = [2]
width        = {widths}
lr           = {lrs}

[recipe]
epochs = 1

[seeds]
count = {seeds}

[analysis]
arms      = {{ {arms} }}
contrasts = {contrasts}
margin    = {{ test_accuracy = 0.02 }}
"""


def write_grid(runs: int, folder: Path, arms: Sequence[str]) -> Path:
    """A grid of `runs` runs, or of somewhat fewer that make whole axes; every arm is compared with those before it."""
    pairs = runs // SEEDS // len(arms)
    widths = min(WIDTHS, pairs)
    lrs = [round(0.0001 * i, 4) for i in range(1, pairs // widths + 1)]
    path = folder / "synthetic.toml"
    folder.mkdir(parents=True, exist_ok=True)
    text = GRID.format(
        orders=[ORDERS[arm] for arm in arms], arms=", ".join(f"{arm} = '{ORDERS[arm]}'" for arm in arms),
        contrasts=[f"{b} - {a}" for a, b in itertools.combinations(arms, 2)],
        widths=list(range(8, 8 + widths)), lrs=lrs, seeds=SEEDS,
    )  # fmt: skip
    path.write_text(text)
    return path


def generate(runs: int, folder: str | Path, arms: Sequence[str] = ("before", "after")) -> tuple[Path, Path]:
    """Write a grid of about `runs` runs and a store in which all are done; gives the paths of both."""
    path = write_grid(runs, Path(folder), arms)
    grid = Grid.read(path, {**harness.choices(), "metric": METRICS})
    store, data = Store(Path(folder) / "store"), datasets.load("digits")
    how = {**PROVENANCE, "code": code_version("mlp"), "data": data.checksum}
    sizes = {part: len(getattr(data, f"x_{part}")) for part in ("train", "val", "test")}
    rng, cells = np.random.default_rng(0), list(grid.cells())
    noise = rng.normal(0, NOISE, SEEDS)  # what a seed does to every arm
    for first in range(0, len(cells), CELLS_A_TABLE):
        tables = _tables(cells[first : first + CELLS_A_TABLE], how, sizes, data.classes, noise, rng)
        rows = {name: len(each) // len(tables["examples"]) for name, each in tables.items()}
        for i in range(len(tables["examples"])):
            store.write({name: each.slice(i * rows[name], rows[name]) for name, each in tables.items()}, durable=False)
    return path, store.path


def _tables(
    cells: list[Cell], how: dict, sizes: dict[str, int], classes: int, noise: np.ndarray, rng: np.random.Generator
) -> dict[str, pa.Table]:
    """The three tables of a trial of each cell, one after the other."""
    seeds = list(range(SEEDS))
    ids = [run_ids(cell, seeds) for cell in cells]
    trials = [Trial(cell, tuple(seeds)).trial_id(how["engine"], how["code"], how["data"]) for cell in cells]
    run_id, trial = list(itertools.chain.from_iterable(ids)), np.repeat(trials, SEEDS).tolist()
    shift = np.array([SHIFT if cell.order == AFTER else 0.0 for cell in cells])
    accuracy = (0.7 + shift[:, None] + noise + rng.normal(0, NOISE / 2, (len(cells), SEEDS))).ravel()
    values = {"accuracy": accuracy, "loss": 1 - accuracy, "calibration_error": 1 - accuracy}
    fields = {name: np.repeat([getattr(cell, name) for cell in cells], SEEDS).tolist() for name in Cell.model_fields}
    runs = table("runs", {
        **how, **fields, **{name: next(v for k, v in values.items() if name.endswith(k)) for name in METRICS},
        **{f"{part}_examples": size for part, size in sizes.items()},
        "run_id": run_id, "trial": trial, "seed": seeds * len(cells), "status": "done", "classes": classes,
        "epochs_run": fields["epochs"], "best_epoch": 1,
    })  # fmt: skip
    where = [(0, "val"), (1, "train"), (1, "val")]  # as a training of one epoch leaves them
    repeated, train = len(where) * len(run_id), np.array([split == "train" for _, split in where] * len(run_id))
    curves = table("curves", {
        "run_id": np.repeat(run_id, len(where)).tolist(), "trial": np.repeat(trial, len(where)).tolist(),
        "epoch": [epoch for epoch, _ in where] * len(run_id), "split": [split for _, split in where] * len(run_id),
        "calibration_error": np.where(train, np.nan, 0.1), "gradient_norm": np.where(train, 1.0, np.nan),
        "lr": np.where(train, np.repeat(fields["lr"], len(where)), np.nan),
        "loss": np.full(repeated, 0.5), "accuracy": np.repeat(accuracy, len(where)),
    })  # fmt: skip
    correct = rng.binomial(SEEDS, np.repeat(accuracy.reshape(-1, SEEDS).mean(1), sizes["test"])).astype(np.int32)
    correct = list(correct.reshape(len(cells), -1))
    examples = table("examples", {"trial": trials, "seeds": SEEDS, "run_ids": ids, "correct": correct})
    return {"runs": runs, "curves": curves, "examples": examples}


if __name__ == "__main__":
    if len(sys.argv) < 3:
        sys.exit(__doc__)
    print(*generate(int(sys.argv[1]), sys.argv[2], sys.argv[3:] or ("before", "after")))
