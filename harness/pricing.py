"""What a sweep will take: seconds of a trial of each architecture and size, measured, and what follows for the whole.

A timed pilot trains real trials on a few steps: two of different length, whose difference is what a pass takes, and an
evaluation. As many processes as there are slots do so at once, since trials that run beside one another are slower. What
was measured is kept in $NORMORDER_DATA/timings.json.
"""

import json
import math
import multiprocessing
import os
import signal
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from statistics import median
from typing import NamedTuple

import pyarrow as pa
import torch

from grids import Probes, Resources, identity
from harness.architectures import build
from harness.datasets import Data, data_home
from harness.engine import EVALUATION_BATCH, keep_memory, shape
from harness.evaluation import evaluate
from harness.packing import ends, length
from harness.plan import Trial, code_version, work
from harness.seen import seen
from harness.stacking import stack
from harness.training import on_device
from harness.trial import processor, run_trial
from results import Store

STEPS = 40  # at most, of a pass of the pilot
CLEAR_S = 0.3  # by which its trials differ, unless the longer one has MOST_PASSES more passes
MOST_PASSES = 128
START_S = 12.5  # of a sweep before its first trial, and after its last: imports, Ray; measured on 2 cores
STARTING_S = 0.011  # of the one process that starts trials, for each
PASSES = 3  # over training and test examples when a training has ended: last and best epoch, statistics once more
Key = tuple


class Timing(NamedTuple):
    """Of a trial with S seeds on one slot, in seconds; its files in bytes."""

    seeds: int
    step_s: float
    evaluation_s: float  # of the validation part
    rest_s: float  # of a trial but for its epochs and those passes
    example_s: float  # to evaluate one example
    pass_bytes: float  # of each epoch
    rest_bytes: float


class Price(NamedTuple):
    """Of a whole plan. wall_s: on so many slots. busy_s: of all slots together. unknown: runs of what no pilot timed."""

    wall_s: float
    busy_s: float
    disk_bytes: float
    unknown: int


class Timings:
    """Timings by shape, measured when they are first asked for, beside as many others as there are slots."""

    def __init__(self, data: Mapping[str, Data], slots: int):
        self.data, self.slots = data, slots
        self.timed: dict[Key, tuple[Trial, Timing | None]] = {}
        self.kept = _Kept(data_home() / "timings.json")

    def know(self, trials: Iterable[Trial]) -> None:
        """Time one trial of each shape that is new: of those with most seeds one with the most layers in a block."""
        wanted: dict[Key, Trial] = {}
        for trial in trials:
            key = self._key(trial)
            if key not in self.timed:
                wanted[key] = max(wanted.get(key, trial), trial, key=lambda t: (len(t.seeds), t.cell.order.count("-")))
        missing = []
        for key, trial in wanted.items():
            self.timed[key] = trial, self.kept.get(self._name(trial))
            if self.timed[key][1] is None:
                missing.append(key)
        while missing:
            # Suppressed: one was killed, as where memory is short.
            with processes(self.slots, self.data) as pool, suppress(BrokenProcessPool):
                while missing:
                    key = missing.pop(0)
                    trial, _ = self.timed[key]
                    several = [*started(pool, _timed, [trial] * self.slots)]
                    if all(several):
                        self.timed[key] = trial, Timing(*map(median, zip(*several, strict=True)))
                        self.kept.add(self._name(trial), self.timed[key][1])

    def of(self, trial: Trial) -> tuple[float, float] | None:
        """Seconds of a whole trial and the bytes of its files; None where its shape's pilot failed, as it will."""
        timed, timing = self.timed[self._key(trial)]
        if timing is None:
            return None
        size = timing.rest_bytes + trial.cell.epochs * timing.pass_bytes
        return seconds(trial, timing, timed, self.data[trial.cell.dataset]), size * len(trial.seeds) / timing.seeds

    def _key(self, trial: Trial) -> Key:
        return shape(trial.cell, self.data[trial.cell.dataset])

    def _name(self, trial: Trial) -> str:
        """In the file: what was timed, by what, where, beside how many others."""
        data = self.data[trial.cell.dataset]
        key = [*map(str, self._key(trial)), len(trial.seeds), data.checksum]
        key += [trial.cell.order, trial.cell.optimiser, trial.cell.init]
        by = [code_version(trial.cell.architecture, trial.cell.activation), torch.__version__, processor(), self.slots]
        return identity({"key": key, "by": by})


given: dict[str, Data] = {}  # in a process of a pool, the data sets that it began with


@contextmanager
def processes(count: int, data: Mapping[str, Data]) -> Iterator[ProcessPoolExecutor]:
    """New ones, which end with the block, whatever they do where it is left by an error or an interrupt.

    data: what they find in `given`. It is no part of a job: where a process is killed while a large job is on its way to it,
    Python 3.11 waits for ever for the pool to end.
    """
    context = multiprocessing.get_context("spawn")
    pool = ProcessPoolExecutor(count, context, initializer=_give, initargs=(dict(data),))
    try:
        yield pool
    except BaseException:
        for process in multiprocessing.active_children():
            process.kill()
        raise
    finally:
        pool.shutdown(cancel_futures=True)


def _give(data: Mapping[str, Data]) -> None:
    given.update(data)


def started(pool: ProcessPoolExecutor, function: Callable, jobs: Sequence) -> Iterator:
    """What function gives of each job, begun at once. An interrupt does not reach the processes that this starts."""
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGINT])
    try:
        return pool.map(function, jobs)
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)


def _timed(trial: Trial) -> Timing | None:
    try:
        return measure(trial, given[trial.cell.dataset])
    except (ValueError, RuntimeError, MemoryError):  # its trials will fail likewise, and say why
        return None


def measure(trial: Trial, data: Data) -> Timing:
    """In this process, on one thread."""
    torch.set_num_threads(1)
    keep_memory()
    cell, seeds = trial.cell, len(trial.seeds)
    examples = min(len(seen(data, cell).x_train), STEPS * cell.batch)
    steps = examples // cell.batch
    tests = min(len(data.x_test), EVALUATION_BATCH)
    small = replace(data, x_test=data.x_test[:tests], y_test=data.y_test[:tests])

    def run(epochs: int) -> tuple[float, int]:
        short = cell.model_copy(update={"train_size": examples, "epochs": epochs})
        start = time.perf_counter()
        tables = run_trial(Trial(short, trial.seeds, probes=Probes().of(short)), small, NOBODY).tables
        return time.perf_counter() - start, _bytes(tables)

    run(1)  # loads code and tunes kernels
    once, more = run(1), 0
    while more < MOST_PASSES:
        more = 4 * more or 2
        longer = run(1 + more)
        if longer[0] - once[0] > CLEAR_S:
            break
    evaluation = _evaluation(trial, data)
    example = evaluation / len(data.x_val)
    one_pass, of_pass = (max(0.0, (b - a) / more) for a, b in zip(once, longer, strict=True))
    return Timing(
        seeds=seeds,
        step_s=max(one_pass - evaluation, 0.1 * one_pass) / steps,
        evaluation_s=evaluation,
        rest_s=max(0.0, once[0] - one_pass - PASSES * (examples + tests) * example),
        example_s=example,
        pass_bytes=of_pass,
        rest_bytes=once[1] - of_pass,
    )


NOBODY = {"commit": "", "versions": ""}


def _evaluation(trial: Trial, data: Data) -> float:
    """Seconds of one of the validation part, the median of three."""
    model = stack(build(trial.cell, data.shape, data.classes), list(trial.seeds))
    tensors, times = on_device(data, "cpu"), []
    with torch.no_grad():
        for _ in range(3):
            start = time.perf_counter()
            evaluate(model, len(trial.seeds), tensors["x_val"], tensors["y_val"])
            times.append(time.perf_counter() - start)
    return median(times)


def _bytes(tables: Mapping[str, pa.Table]) -> int:
    """Of the files of one trial."""
    with tempfile.TemporaryDirectory() as folder:
        Store(folder).write(tables, durable=False)
        return sum(file.stat().st_size for file in Path(folder).rglob("*.parquet"))


def seconds(trial: Trial, timing: Timing, timed: Trial, data: Data) -> float:
    """Of a whole trial, from what one of its shape took: by epochs, examples, layers and seeds."""
    examples, cell = len(seen(data, trial.cell).x_train), trial.cell
    one_pass = examples // cell.batch * timing.step_s + timing.evaluation_s
    whole = cell.epochs * one_pass + timing.rest_s + PASSES * (examples + len(data.x_test)) * timing.example_s
    layers = work(cell, data) / work(timed.cell.model_copy(update={"epochs": cell.epochs}), data)
    return whole * layers * length(1.0, len(trial.seeds)) / length(1.0, timing.seeds)


def price(trials: Sequence[Trial], timings: Timings, slots: int) -> Price:
    """Of these trials on so many slots: the longest first, each where it is free first, one started at a time."""
    timings.know(trials)
    found = [(trial, timings.of(trial)) for trial in trials]
    lengths = [each[0] for _, each in found if each]
    return Price(
        wall_s=START_S + ends(lengths, slots, STARTING_S) if lengths else 0.0,
        busy_s=sum(lengths),
        disk_bytes=sum(each[1] for _, each in found if each),
        unknown=sum(len(trial.seeds) for trial, each in found if not each),
    )


def in_words(found: Price, slots: int, asked: Resources, what: str = "") -> list[str]:
    """What `plan` prints of it. asked: by each trial. what: takes so long, where it is not all that there is to do."""
    lines = []
    if found.busy_s:
        amounts = {"core-hours": asked.cpus, "GPU-hours": asked.gpus or 0}
        hours = [f"{found.busy_s / 3600 * each:.2g} {name}" for name, each in amounts.items() if each]
        size = f"{found.disk_bytes / 1e6:,.0f} MB" if found.disk_bytes > 1e6 else f"{found.disk_bytes / 1e3:,.0f} kB"
        lines.append(
            f"{what}takes about {span(found.wall_s)} on {slots} slots as fast as this machine's, {' and '.join(hours)}, and "
            f"{size} on the disk"
        )
    if found.unknown:
        lines.append(f"{found.unknown:,} runs are not in this: a pilot of theirs failed, as they will")
    return lines


def span(seconds: float) -> str:
    """'40 s', '12 min', '3.2 h'"""
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"


class _Kept:
    """Timings by name, in a file; one that cannot be read or written is as good as none."""

    def __init__(self, path: Path):
        self.path, self.known = path, {}
        with suppress(OSError, ValueError, TypeError):
            self.known = dict(json.loads(path.read_text()))

    def get(self, name: str) -> Timing | None:
        with suppress(KeyError, TypeError):
            timing = Timing(**self.known[name])
            return timing if all(map(math.isfinite, timing)) else None
        return None

    def add(self, name: str, timing: Timing) -> None:
        self.known[name] = timing._asdict()
        with suppress(OSError):
            self.path.parent.mkdir(parents=True, exist_ok=True)
            temporary = self.path.with_suffix(f".{os.getpid()}")
            temporary.write_text(json.dumps(self.known))
            temporary.replace(self.path)
