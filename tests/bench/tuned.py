"""The study as somebody who knows Ray Tune's costs writes it, still one trial a seed and a report an epoch.

$ python tests/bench/tuned.py grids/default.toml --cells 6 --seeds 2 --out results.json

Workers are used again, no result files or checkpoints are written, Tune's own state is saved once an hour, there is no
dashboard; the data are tensors in memory and the loop is the fastest plain one, on one thread.
"""

import os
import tempfile
import time

os.environ["TUNE_DISABLE_AUTO_CALLBACK_LOGGERS"] = "1"
os.environ["TUNE_GLOBAL_CHECKPOINT_S"] = "3600"
os.environ["RAY_AIR_NEW_OUTPUT"] = "0"  # the new output prints tables whatever `verbose` says

import plain
import sample
import torch
from ray import tune

from grids import Cell
from harness import datasets


def trainable(config, data):
    start, started = time.perf_counter(), time.time()
    torch.set_num_threads(1)

    def report(row):
        wall_s = time.perf_counter() - start
        tune.report({**row, "wall_s": wall_s, "threads": torch.get_num_threads(), "started": started})

    plain.train(Cell(**config["cell"]), config["seed"], data, plain.FAST, report)


def run(cells, seeds):
    (name,) = {cell.dataset for cell in cells}
    with tempfile.TemporaryDirectory() as folder:
        results = tune.Tuner(
            tune.with_resources(tune.with_parameters(trainable, data=plain.parts(datasets.load(name))), {"cpu": 1}),
            param_space={
                "cell": tune.grid_search([cell.model_dump() for cell in cells]),
                "seed": tune.grid_search(list(seeds)),
            },
            tune_config=tune.TuneConfig(reuse_actors=True, trial_dirname_creator=lambda trial: trial.trial_id),
            run_config=tune.RunConfig(storage_path=folder, verbose=0),
        ).fit()
    return sample.rows(results)


if __name__ == "__main__":
    sample.main(__doc__.splitlines()[0], run)
