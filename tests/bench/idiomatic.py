"""The study as the tutorials of Ray Tune have it: a function, one trial a seed, grid_search, DataLoader, all defaults.

$ python tests/bench/idiomatic.py grids/default.toml --cells 6 --seeds 2 --out results.json

All of Ray Tune's settings are its defaults, but for a temporary storage folder and a silent terminal. A trial takes the
default CPU; Ray then sets OMP_NUM_THREADS=1 for its worker, so torch has one thread there without being asked.
"""

import tempfile
import time

import plain
import sample
import torch
from ray import tune

from grids import Cell
from harness import datasets


def trainable(config, data):
    start, started = time.perf_counter(), time.time()

    def report(row):
        wall_s = time.perf_counter() - start
        tune.report({**row, "wall_s": wall_s, "threads": torch.get_num_threads(), "started": started})

    plain.train(Cell(**config["cell"]), config["seed"], data, plain.IDIOMATIC, report)


def run(cells, seeds):
    (name,) = {cell.dataset for cell in cells}
    with tempfile.TemporaryDirectory() as folder:
        results = tune.Tuner(
            tune.with_parameters(trainable, data=plain.parts(datasets.load(name))),
            param_space={
                "cell": tune.grid_search([cell.model_dump() for cell in cells]),
                "seed": tune.grid_search(list(seeds)),
            },
            run_config=tune.RunConfig(storage_path=folder, verbose=0),
        ).fit()
    return sample.rows(results)


if __name__ == "__main__":
    sample.main(__doc__.splitlines()[0], run)
