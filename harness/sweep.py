"""Send trials to a Ray cluster. The only file that imports ray.

Workers write their own rows to the store, and errors inside a trial become rows there, so all that Ray Tune is asked
for is scheduling and retries of lost workers. Its own state is thrown away: the store is the only memory.
"""

import logging
import os
import shutil
import tempfile
from collections import Counter
from collections.abc import Mapping
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path

os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
os.environ.setdefault("TUNE_DISABLE_AUTO_CALLBACK_LOGGERS", "1")
os.environ.setdefault("TUNE_GLOBAL_CHECKPOINT_S", "3600")  # of a state that nobody reads
os.environ.setdefault("RAY_AIR_NEW_OUTPUT", "0")  # the new output prints tables whatever `verbose` says
os.environ.setdefault("TUNE_DISABLE_SIGINT_HANDLER", "1")  # Ctrl-C reaches us as KeyboardInterrupt
os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")

import ray
import torch
from ray import tune

from grids import Cell, WrongUse
from harness.datasets import Data
from harness.display import Display
from harness.engine import Pilot, keep_memory
from harness.pilot import measure
from harness.plan import Trial, work
from harness.trial import failed_tables, run_trial
from results import Store

TRIALS_A_FIT = 2000  # the driver's state file is rewritten whole as it grows
RETRIES = 2  # of a trial whose worker was lost
OBJECT_STORE_BYTES = 500_000_000


class ClusterError(WrongUse):
    """One line: what the cluster cannot give."""


@contextmanager
def cluster(address: str | None = None):
    """Connect to the Ray cluster at `address`, or start one on this machine; gives the trials it runs at once."""
    # It would tell of its tokens, and that it misses the result files that it was asked not to write.
    logging.getLogger("ray").setLevel(logging.ERROR)
    started_here = not ray.is_initialized()
    if started_here:
        local = {} if address else {"object_store_memory": OBJECT_STORE_BYTES, "include_dashboard": False}
        try:
            # "local" starts one even where RAY_ADDRESS or an earlier `ray start` would offer another.
            ray.init(address=address or "local", log_to_driver=False, configure_logging=False, **local)
        except (ConnectionError, ValueError, RuntimeError) as error:
            raise ClusterError(f"no Ray cluster at {address or 'this machine'}: {str(error).splitlines()[0]}") from None
    try:
        slots = int(ray.cluster_resources().get("CPU", 0))
        if slots < 1:
            raise ClusterError("a trial needs 1 CPU, the cluster has none")
        yield slots
    finally:
        if started_here:
            ray.shutdown()


def share(data: Mapping[str, Data]) -> dict[str, ray.ObjectRef]:
    """Put each data set into the object store of the cluster that `cluster` gave, once for all that train on it."""
    return {name: ray.put(each) for name, each in data.items()}


def run_trials(
    trials: list[Trial],
    data: Mapping[str, Data],
    shared: Mapping[str, ray.ObjectRef],
    store: Store,
    provenance: Mapping[str, str],
) -> dict[str, int]:
    """Train every trial on the cluster that `cluster` gave, showing progress. Gives the runs by status."""
    how = {"data": dict(shared), "store": str(store.path), "provenance": dict(provenance)}
    with Display([len(t.seeds) for t in trials], _work(trials, data)) as display:
        for first in range(0, len(trials), TRIALS_A_FIT):
            part = trials[first : first + TRIALS_A_FIT]
            _fit(part, how, _Watcher(first, part, data, store, provenance, display))
    return display.counts


def _work(trials: list[Trial], data: Mapping[str, Data]) -> list[float]:
    return [len(trial.seeds) * work(trial.cell, data[trial.cell.dataset]) for trial in trials]


def measure_all(
    shapes: Mapping[tuple, tuple[Cell, list[int]]], shared: Mapping[str, ray.ObjectRef], slots: int
) -> dict[tuple, Pilot]:
    """Have the cluster measure a cell of each shape, each on a core of its own as a trial would be.

    A shape whose pilot fails is left out: its trials will fail too, and say why.
    """
    task = ray.remote(num_cpus=1, max_retries=1)(_measure)
    asked = {key: task.remote(cell, shared[cell.dataset], blocks, slots) for key, (cell, blocks) in shapes.items()}
    pilots = {}
    for key, reference in asked.items():
        with suppress(ray.exceptions.RayError):
            pilots[key] = ray.get(reference)
    return pilots


def _measure(cell: Cell, data: Data, blocks: list[int], slots: int) -> Pilot:
    torch.set_num_threads(1)
    keep_memory()
    return measure(cell, data, blocks, trials=slots)


def _fit(trials: list[Trial], how: Mapping[str, object], watcher: "_Watcher") -> None:
    """Have Ray Tune run trials, in a scratch folder of its own."""
    trainable = tune.with_resources(tune.with_parameters(_train, trials=trials, **how), {"cpu": 1})
    scratch = tempfile.mkdtemp(prefix="normorder-")
    try:
        tune.Tuner(
            trainable,
            param_space={"index": tune.grid_search(list(range(len(trials))))},
            tune_config=tune.TuneConfig(reuse_actors=True, trial_dirname_creator=lambda trial: trial.trial_id),
            run_config=tune.RunConfig(
                name="sweep",
                storage_path=scratch,
                verbose=0,
                callbacks=[watcher],
                failure_config=tune.FailureConfig(max_failures=RETRIES),
            ),
        ).fit()
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def _train(config, trials, data, store, provenance):
    """What a worker does with one trial."""
    trial = trials[config["index"]]
    tables, not_compiled = run_trial(trial, ray.get(data[trial.cell.dataset]), provenance)
    Store(store).write(tables)
    statuses = tables["runs"]["status"].to_pylist()
    # In one key: Tune has a meaning of its own for "done".
    return {"runs": dict(Counter(statuses)), "not_compiled": not_compiled}


class _Watcher(tune.Callback):
    """Tells the display what happens to trials; writes the rows of those that Ray Tune gives up."""

    def __init__(self, first, trials, data, store, provenance, display):
        self.first, self.trials, self.data, self.store, self.provenance = first, trials, data, store, provenance
        self.display = display

    def on_trial_start(self, iteration, trials, trial, **info):
        self.display.trial_started(self.first + trial.config["index"])

    def on_trial_complete(self, iteration, trials, trial, **info):
        self.display.trial_ended(self.first + trial.config["index"], trial.last_result["runs"])
        if why := trial.last_result["not_compiled"]:
            self.display.note(f"trained eagerly, not compiled: {why}")

    def on_trial_error(self, iteration, trials, trial, **info):
        index = trial.config["index"]
        ours = self.trials[index]
        error = Path(trial.error_file).read_text() if trial.error_file else "lost by Ray"
        data = self.data[ours.cell.dataset]
        self.store.write(failed_tables(ours, data, self.provenance, error, datetime.now(UTC)))
        self.display.trial_ended(self.first + index, {"failed": len(ours.seeds)})

    def __getstate__(self):
        return {}  # Tune saves its callbacks with its state, which nobody reads
