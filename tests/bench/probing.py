"""What probes cost: processor time of a trial, its tables and their writing, with the default probes and without, in turns.

$ .venv/bin/python tests/bench/probing.py [rounds]
"""

import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from statistics import median
from time import process_time

import steps
import torch

from grids import Cell, Probes
from harness import datasets
from harness.engine import keep_memory
from harness.plan import Trial
from harness.trial import run_trial
from results import Store

COMMON = {"order": "weight-bn-act", "activation": "relu"}
DEFAULT = {"dataset": "mnist1d", "architecture": "mlp", **COMMON}  # the cells of grids/default.toml
CASES: Mapping[str, tuple[Cell, int]] = {
    "MLP 2 × 64, S = 20": (Cell(depth=2, **DEFAULT), 20),
    "MLP 8 × 64, S = 20": (Cell(depth=8, **DEFAULT), 20),
    "CNN 3 × 16 on 28×28, S = 1": (steps.CNN, 1),
}
ALLOWED = 3.0  # % of a trial's time


def measure(rounds: int, cases: Mapping[str, tuple[Cell, int]] = CASES) -> dict[str, list[float]]:
    """By case, in each round how much longer a trial takes with probes, in % of the time that it takes without."""
    torch.set_num_threads(1)
    keep_memory()
    found: dict[str, list[float]] = {name: [] for name in cases}
    for name, (cell, seeds) in cases.items():
        data = steps.data_of("cnn") if cell.architecture == "cnn" else datasets.load(cell.dataset)
        warm_up = cell.model_copy(update={"epochs": 1})
        _seconds(Trial(warm_up, tuple(range(seeds)), probes=Probes().of(warm_up)), data)
        for turn in range(rounds):
            both = {}
            for probes in ((), Probes().of(cell))[:: 1 if turn % 2 else -1]:
                both[bool(probes)] = _seconds(Trial(cell, tuple(range(seeds)), probes=probes), data)
            found[name].append(100 * (both[True] / both[False] - 1))
    return found


def _seconds(trial: Trial, data: datasets.Data) -> float:
    with tempfile.TemporaryDirectory() as folder:
        start = process_time()
        tables = run_trial(trial, data, {"commit": "", "versions": ""}).tables
        Store(Path(folder)).write(tables, durable=False)
        seconds = process_time() - start
    assert ("layers" in tables) == bool(trial.probes), tables["runs"]["error"][0]
    return seconds


if __name__ == "__main__":
    for name, case in CASES.items():
        (shares,) = measure(int(sys.argv[1]) if len(sys.argv) > 1 else 7, {name: case}).values()
        told = f"{median(shares):.2f} % ({min(shares):.2f} to {max(shares):.2f}, n = {len(shares)})"
        print(f"{name}: {told}; {ALLOWED:g} are allowed", flush=True)
