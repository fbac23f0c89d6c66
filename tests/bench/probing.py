"""What probes cost: time that a trial spends on its default probes, their rows and their writing, in % of all else.

Both times are of one trial. Two trials, one with probes and one without, differ by 10 % and more for no reason where
others use the cores, which hides what they are compared for.

$ .venv/bin/python tests/bench/probing.py [rounds]
"""

import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from statistics import median
from time import process_time
from unittest.mock import patch

import steps
import torch

import harness.probes
import harness.trial
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
    "ResNet 3 × 8 on 8×8, S = 1": (
        Cell(dataset="digits", architecture="resnet", depth=3, width=8, **COMMON),
        1,
    ),
}
ALLOWED = 3.0  # % of a trial's time
# Where all that probes add is done: what looks at values, what passes examples once more, and what makes rows.
OWN = (
    *((harness.probes, name) for name in ("sites", "describe", "spread", "saturated", "pass_through", "gradients")),
    (harness.probes.Prober, "__init__"),
    (harness.probes.Prober, "_probe"),
    (harness.trial, "_layers"),
)


class Meter:
    """Processor seconds inside of some functions, of one that calls another once."""

    def __init__(self):
        self.seconds, self.inside = 0.0, False

    def of(self, function: Callable) -> Callable:
        def measured(*args, **options):
            if self.inside:
                return function(*args, **options)
            self.inside, start = True, process_time()
            try:
                return function(*args, **options)
            finally:
                self.seconds += process_time() - start
                self.inside = False

        return measured

    @contextmanager
    def on(self) -> Iterator[None]:
        with ExitStack() as stack:
            for home, name in OWN:
                stack.enter_context(patch.object(home, name, self.of(getattr(home, name))))
            yield


def measure(rounds: int, cases: Mapping[str, tuple[Cell, int]] = CASES) -> dict[str, list[float]]:
    """By case, in each round what a trial spends on its probes, in % of what it spends on everything else."""
    torch.set_num_threads(1)
    keep_memory()
    found: dict[str, list[float]] = {}
    for name, (cell, seeds) in cases.items():
        data = steps.data_of("cnn") if cell is steps.CNN else datasets.load(cell.dataset)
        # The first trial of a process loads code and tunes kernels.
        _share(cell.model_copy(update={"epochs": 1}), seeds, data)
        found[name] = [_share(cell, seeds, data) for _ in range(rounds)]
    return found


def _share(cell: Cell, seeds: int, data: datasets.Data) -> float:
    meter, trial = Meter(), Trial(cell, tuple(range(seeds)), probes=Probes().of(cell))
    with tempfile.TemporaryDirectory() as folder, meter.on():
        start = process_time()
        tables = run_trial(trial, data, {"commit": "", "versions": ""}).tables
        assert "layers" in tables, tables["runs"]["error"][0]
        write, layers = Store(Path(folder)).write, {"layers": tables.pop("layers")}
        write(tables, durable=False)
        meter.of(write)(layers, durable=False)
        seconds = process_time() - start
    assert meter.seconds > 0
    return 100 * meter.seconds / (seconds - meter.seconds)


if __name__ == "__main__":
    for name, case in CASES.items():
        (shares,) = measure(int(sys.argv[1]) if len(sys.argv) > 1 else 7, {name: case}).values()
        told = f"{median(shares):.2f} % ({min(shares):.2f} to {max(shares):.2f}, n = {len(shares)})"
        print(f"{name}: {told}; {ALLOWED:g} are allowed", flush=True)
