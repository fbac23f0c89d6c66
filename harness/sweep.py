"""Send trials to a Ray cluster. Beside cluster.py the only file that imports ray.

Workers write their own rows to the store, and errors inside a trial become rows there, so all that Ray Tune is asked
for is scheduling and retries of lost workers. Its own state is thrown away: the store is the only memory.
"""

import faulthandler
import os
import pickle
import sys
import time
from collections import Counter
from collections.abc import Iterable, Mapping
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path

os.environ.setdefault("TUNE_DISABLE_AUTO_CALLBACK_LOGGERS", "1")
os.environ.setdefault("TUNE_GLOBAL_CHECKPOINT_S", "3600")  # of a state that nobody reads
os.environ.setdefault("RAY_AIR_NEW_OUTPUT", "0")  # the new output prints tables whatever `verbose` says
os.environ.setdefault("TUNE_DISABLE_SIGINT_HANDLER", "1")  # an interrupt reaches us as KeyboardInterrupt

import pyarrow as pa
import ray
import torch
from ray import tune
from ray.tune.execution import class_cache

from grids import Cell, Resources
from harness.apart import Lost
from harness.cluster import ACCELERATOR, SOME, ClusterError, patiently
from harness.datasets import Data
from harness.display import Display, Picture
from harness.engine import Pilot, keep_memory
from harness.memory import of_gpu
from harness.pilot import measure
from harness.placement import GpuMemory, Node, slots
from harness.plan import Trial, work
from harness.trial import failed_tables, halves, run_within_memory
from results import Store, StoreError

# Tune sends credentials along with each trial, and Ray writes them to its logs on every node. Workers have their own.
class_cache.ENV_VARS_TO_PROPAGATE -= {name for name in class_cache.ENV_VARS_TO_PROPAGATE if name.startswith("AWS_")}

TRIALS_A_FIT = 4000  # 11 ms and about 40 KB of the driver each; more were not measured
RETRIES = 2  # of a trial whose worker was lost
LIMIT_S = 6 * 3600.0  # of a trial, after which it is taken to hang
A_CORE = Resources()
LATE_S = 60.0  # at most: after these, one that did not end itself is ended from outside
LOOK_EVERY_S = 5.0
PILOT_LIMIT_S = 600.0
PATIENCE_S = 30.0  # without a word


def share(data: Mapping[str, Data]) -> dict[str, ray.ObjectRef]:
    """Put each data set into the object store of the cluster that `cluster` gave, once for all that train on it."""
    return {name: ray.put(each) for name, each in data.items()}


def run_trials(
    trials: list[Trial],
    data: Mapping[str, Data],
    shared: Mapping[str, ray.ObjectRef],
    store: Store,
    provenance: Mapping[str, str],
    scratch: Path,
    limit_s: float = LIMIT_S,
    asked: Resources = A_CORE,
    mark: str | None = None,
    picture: Picture | None = None,
) -> dict[str, int]:
    """Train every trial on the cluster that `cluster` gave, showing progress. Gives the runs by status.

    A trial whose worker is lost again and again is divided, since the memory may be too small for its seeds; a single
    seed, or one that takes longer than limit_s, becomes a failed row. StoreError where results could not be written;
    Lost where Ray Tune ended early. scratch: a folder for what Ray Tune writes, which is of no use afterwards. mark: of the
    store, where others than this process have seen it first. picture: as Display takes it.
    """
    how = {"data": dict(shared), "store": str(store.path), "mark": mark or store.mark()}
    how |= {"provenance": dict(provenance), "limit_s": limit_s}
    with Display([len(t.seeds) for t in trials], _work(trials, data), picture=picture) as display:
        numbered, retries = list(enumerate(trials)), RETRIES
        while numbered:
            lost: list[tuple[int, Trial]] = []
            for first in range(0, len(numbered), TRIALS_A_FIT):
                part = numbered[first : first + TRIALS_A_FIT]
                watcher = _Watcher(part, data, store, how["mark"], provenance, display, limit_s)
                _fit([trial for _, trial in part], how, watcher, retries, scratch, asked)
                if watcher.unwritten:
                    raise StoreError(
                        f"{watcher.unwritten}; what was written before is in the store, a later sweep goes on"
                    )
                if watcher.ended < len(part):  # Tune does so at SIGUSR1
                    raise Lost("Ray Tune ended before its trials did")
                lost += watcher.lost
            numbered, retries = [(number, half) for number, trial in lost for half in halves(trial)], 0
    return display.counts


def _work(trials: list[Trial], data: Mapping[str, Data]) -> list[float]:
    return [len(trial.seeds) * work(trial.cell, data[trial.cell.dataset]) for trial in trials]


def measure_all(
    shapes: Mapping[tuple, tuple[Cell, list[int]]],
    shared: Mapping[str, ray.ObjectRef],
    sharing: int,
    limit_s: float = PILOT_LIMIT_S,
    asked: Resources = A_CORE,
) -> dict[tuple, Pilot]:
    """Have the cluster measure a cell of each shape, each with what a trial asks for. sharing: trials in one memory.

    A shape whose pilot fails or hangs is left out: its trials will too, and say why.
    """
    task = ray.remote(**_options(asked), max_retries=0)(_measure)
    limit_s = min(limit_s, PILOT_LIMIT_S)
    asked = {
        key: task.remote(cell, shared[cell.dataset], blocks, sharing, limit_s) for key, (cell, blocks) in shapes.items()
    }
    _await(list(asked.values()))
    pilots = {}
    for key, reference in asked.items():
        with suppress(ray.exceptions.RayError):
            pilots[key] = ray.get(reference)
    return pilots


def _measure(cell: Cell, data: Data, blocks: list[int], sharing: int, limit_s: float) -> Pilot:
    torch.set_num_threads(1)
    keep_memory()
    with _at_most(limit_s):
        return measure(cell, data, blocks, device(), trials=sharing)


def device() -> str:
    """What a trial trains on in this worker: the GPU that Ray gave it, where torch can use it."""
    return "cuda" if ray.get_gpu_ids() and torch.cuda.is_available() else "cpu"


def look_at_gpus(nodes: Iterable[Node], asked: Resources) -> list[GpuMemory]:
    """The memory of a GPU of each kind, as workers tell that have it whole; none where torch cannot use one of them."""
    if asked.gpus == 0:
        return []
    wanted = asked if asked.gpus else asked.model_copy(update={"gpus": 1.0})
    kinds = {node.accelerator for node in nodes if slots([node], wanted)}
    looks = [ray.remote(**_options(wanted, kind), max_retries=0)(_look).remote(wanted.gpus >= 1) for kind in kinds]
    _await(looks)
    try:
        found = ray.get(looks)
    except ray.exceptions.RayTaskError as error:
        raise ClusterError(f"a node with a GPU cannot use torch: {error.cause}") from None
    return found if all(found) else []


def _await(references: list[ray.ObjectRef]) -> None:
    """Wait for all, with a word where nothing is free for them."""
    _, late = ray.wait(references, num_returns=len(references), timeout=PATIENCE_S) if references else ([], [])
    if late:
        print("waiting for the cluster: what a trial asks for is not free, or pilots take long")
        ray.wait(references, num_returns=len(references))


def _look(whole: bool) -> GpuMemory | None:
    """whole: nobody else is on this GPU, so that what is not free there is what a process takes."""
    if device() != "cuda":
        return None
    found = of_gpu(device())
    return found if whole else found._replace(fixed=0)


def _options(asked: Resources, kind: str = "") -> dict[str, object]:
    """What Ray is asked for. kind: of accelerator."""
    marks = {f"{ACCELERATOR}{kind}": SOME} if kind else {}
    return {"num_cpus": asked.cpus, "num_gpus": asked.gpus, "resources": marks}


@contextmanager
def _at_most(limit_s: float):
    """End this worker, with its stack in its log, where the block takes longer."""
    faulthandler.dump_traceback_later(limit_s, exit=True, file=sys.__stderr__)
    try:
        yield
    finally:
        faulthandler.cancel_dump_traceback_later()


def _fit(
    trials: list[Trial],
    how: Mapping[str, object],
    watcher: "_Watcher",
    retries: int,
    scratch: Path,
    asked: Resources,
) -> None:
    """Have Ray Tune run trials.

    For each trial the driver unpickles this closure, twice, and its worker the parameters: all that they hold of other
    trials is strings (with the trials themselves the driver took 42 ms of CPU for each of 800; now 13 for each of 4,000).
    """
    kinds, packed = [trial.accelerator for trial in trials], [pickle.dumps(trial) for trial in trials]

    def resources(config) -> tune.PlacementGroupFactory:
        needs = {"CPU": asked.cpus, **({"GPU": asked.gpus} if asked.gpus else {})}
        if kind := kinds[config["index"]]:
            needs[f"{ACCELERATOR}{kind}"] = SOME
        return tune.PlacementGroupFactory([needs])

    trainable = tune.with_resources(tune.with_parameters(_train, packed=packed, **how), resources)
    try:
        tune.Tuner(
            trainable,
            param_space={"index": tune.grid_search(list(range(len(trials))))},
            tune_config=tune.TuneConfig(reuse_actors=True, trial_dirname_creator=lambda trial: trial.trial_id),
            run_config=tune.RunConfig(
                storage_path=str(scratch.absolute()),
                verbose=0,
                callbacks=[watcher],
                stop=_Unwritten(),
                failure_config=tune.FailureConfig(max_failures=retries),
            ),
        ).fit()
    except Exception:  # Tune's, of what a callback raised
        if not watcher.display.unread:
            raise
    if watcher.display.unread:
        raise BrokenPipeError


def _train(config, packed, data, store, mark, provenance, limit_s):
    """What a worker does with one trial."""
    trial = pickle.loads(packed[config["index"]])
    statuses: Counter[str] = Counter()
    not_compiled = unwritten = None
    with _at_most(limit_s):
        for outcome in run_within_memory(trial, ray.get(data[trial.cell.dataset]), provenance, device()):
            unwritten = unwritten or _write(Store(store), mark, outcome.tables)
            statuses.update(outcome.tables["runs"]["status"].to_pylist())
            not_compiled = not_compiled or outcome.not_compiled
    # In one key: Tune has a meaning of its own for "done".
    return {"runs": dict(statuses), "not_compiled": not_compiled, "unwritten": unwritten}


def _write(store: Store, mark: str, tables: Mapping[str, pa.Table]) -> str | None:
    """Write the tables of a trial. Gives what is wrong with the store at last."""

    def write() -> None:
        store.check_mark(mark)
        store.write(tables)
        store.check_mark(mark)  # a disk that went away meanwhile has what was written elsewhere

    try:
        patiently(write)
    except OSError as error:
        return f"{store.path}: cannot be written: {error.strerror or error}"
    except StoreError as error:
        return str(error)
    return None


class _Unwritten(tune.Stopper):
    """Ends a sweep whose results cannot be written any more."""

    def __init__(self):
        self.stop = False

    def __call__(self, trial_id, result):
        self.stop = self.stop or bool(result.get("unwritten"))
        return False

    def stop_all(self):
        return self.stop


class _Watcher(tune.Callback):
    """Tells the display what happens to trials; writes the rows of those that Ray Tune gives up.

    trials: with the number by which the display knows each. `lost`: of those given up, what is to be divided.
    """

    def __init__(self, trials, data, store, mark, provenance, display, limit_s):
        self.trials, self.data, self.store, self.mark, self.provenance = trials, data, store, mark, provenance
        self.display, self.limit_s = display, limit_s
        self.lost: list[tuple[int, Trial]] = []
        self.unwritten: str | None = None
        self.started_s: dict[int, float] = {}
        self.looked_s = time.monotonic()
        self.recovered = self.ended = 0
        self.running: dict[int, tune.experiment.Trial] = {}

    def on_step_begin(self, iteration, trials, **info):
        for trial in self.running.values():
            if self._ran_s(trial) >= self.limit_s:
                trial.max_failures = 0  # what hangs is not tried again
        if (now := time.monotonic()) - self.looked_s < LOOK_EVERY_S:
            return
        self.looked_s = now
        if not ray.cluster_resources().get("CPU"):
            self.display.note("no node of the cluster has a CPU any more: waiting for one")
        for trial in self.running.values():
            if self._ran_s(trial) > self.limit_s + min(LATE_S, self.limit_s):
                ray.kill(trial.temporary_state.ray_actor)  # its worker should have ended itself, but is stopped

    def _has_ended(self, trial) -> None:
        self.ended += 1
        self.running.pop(trial.config["index"], None)

    def _ran_s(self, trial) -> float:
        return time.monotonic() - self.started_s[trial.config["index"]]

    def on_trial_start(self, iteration, trials, trial, **info):
        self.started_s[trial.config["index"]] = time.monotonic()
        self.running[trial.config["index"]] = trial
        self.display.trial_started(self.trials[trial.config["index"]][0])

    def on_trial_result(self, iteration, trials, trial, result, **info):
        self.unwritten = self.unwritten or result.get("unwritten")  # here, since the trial is stopped before its end

    def on_trial_complete(self, iteration, trials, trial, **info):
        if "runs" not in (trial.last_result or {}):
            return  # it was stopped before its end
        self._has_ended(trial)
        self.display.trial_ended(self.trials[trial.config["index"]][0], trial.last_result["runs"])
        if why := trial.last_result["not_compiled"]:
            self.display.note(f"trained eagerly, not compiled: {why}")

    def on_trial_recover(self, iteration, trials, trial, **info):
        self.running.pop(trial.config["index"], None)
        self.recovered += 1
        self.display.note(f"workers lost so far: {self.recovered}; their trials run again")

    def on_trial_error(self, iteration, trials, trial, **info):
        self._has_ended(trial)
        number, ours = self.trials[trial.config["index"]]
        error = Path(trial.error_file).read_text() if trial.error_file else "lost by Ray"
        hung = self._ran_s(trial) >= self.limit_s
        if len(ours.seeds) > 1 and not hung:
            self.lost.append((number, ours))
            self.display.trial_ended(number, {})
            return
        if hung:
            error += f"\nit ran longer than the limit of {self.limit_s:g} s for a trial"
        tables = failed_tables(ours, self.data[ours.cell.dataset], self.provenance, error, datetime.now(UTC))
        self.unwritten = self.unwritten or _write(self.store, self.mark, tables)
        self.display.trial_ended(number, {"failed": len(ours.seeds)})

    def __getstate__(self):
        return {}  # Tune saves its callbacks with its state, which nobody reads
