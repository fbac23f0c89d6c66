"""Measure what the simulation of the scheduler takes for granted: trials, pilots, Ray Tune's driver, planning.

$ python tests/bench/scheduling_costs.py [worker_s | plan | driver | pilots | trials ...]

writes scheduling_costs.json beside itself, in less than five minutes on two quiet cores; `scheduling.py` uses it.
"""

import gc
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

import psutil
import ray
import torch

from grids import Cell
from harness import cluster, datasets, sweep
from harness.engine import keep_memory
from harness.pilot import measure
from harness.plan import Trial
from harness.trial import processor, run_trial
from results import Store

HERE = Path(__file__).parent
FILE = HERE / "scheduling_costs.json"
# Of the default study, cells whose steps take different times.
DEPTHS, ORDERS, ACTIVATIONS = (2, 4, 8), ("weight-act", "weight-bn-act"), ("relu", "maxout")
SEEDS = (1, 2, 4, 5, 8, 16, 24)
SHORT, LONG, ROUNDS = 1, 3, 3  # epochs of two trials, whose difference is what an epoch takes
DRIVER_TRIALS, DRIVER_ROUNDS = (200, 1000), 3
SLOTS = 2
PROVENANCE = {"commit": "", "versions": ""}


def cell_of(depth: int, order: str, activation: str, **fields) -> Cell:
    return Cell(dataset="mnist1d", architecture="mlp", depth=depth, order=order, activation=activation, **fields)


def trials() -> list[dict]:
    """CPU seconds of whole trials with their writing: of an epoch, and of all else; ROUNDS of each, in turns.

    A trial has one thread, so that on a core of its own these are its seconds; other work disturbs them less.
    """
    torch.set_num_threads(1)
    keep_memory()
    data, found = datasets.load("mnist1d"), {}
    with tempfile.TemporaryDirectory() as folder:
        store = Store(folder)

        def timed(depth: int, order: str, activation: str, seeds: int, epochs: int) -> float:
            trial = Trial(cell_of(depth, order, activation, epochs=epochs), tuple(range(seeds)))
            start = time.process_time()
            store.write(run_trial(trial, data, PROVENANCE).tables)
            return time.process_time() - start

        kinds = [(d, o, a, s) for d in DEPTHS for o in ORDERS for a in ACTIVATIONS for s in SEEDS]
        timed(*kinds[0], SHORT)  # the first trial of a process loads code
        for _ in range(ROUNDS):
            for kind in kinds:
                short, long = timed(*kind, SHORT), timed(*kind, LONG)
                epoch = (long - short) / (LONG - SHORT)
                each = found.setdefault(kind, {"epoch_s": [], "rest_s": []})
                each["epoch_s"].append(round(epoch, 5))
                each["rest_s"].append(round(short - SHORT * epoch, 5))
    return [{"depth": d, "order": o, "activation": a, "seeds": s, **each} for (d, o, a, s), each in found.items()]


def pilots() -> list[dict]:
    """What a sweep's own pilot tells of each shape: seconds of a seed-step by S."""
    data = datasets.load("mnist1d")
    found = []
    for depth in DEPTHS:
        for activation in ACTIVATIONS:
            pilot = measure(cell_of(depth, ORDERS[1], activation), data, SEEDS)
            seconds = {seeds: round(s, 7) for seeds, s in pilot.seconds.items()}
            found.append(
                {"depth": depth, "activation": activation, "seconds": seconds, "product_s": round(pilot.product_s, 7)}
            )
    return found


def _nothing(config, packed, **how):
    """In place of a training."""
    return {"runs": {"done": 1}, "not_compiled": None, "unwritten": None}


def driver() -> list[dict]:
    """Sweeps of trials that do nothing: seconds and megabytes of the process that schedules, by number of trials."""
    data, found, process = {"mnist1d": datasets.load("mnist1d")}, [], psutil.Process()
    sweep._train = _nothing
    ray.init("local", num_cpus=SLOTS, object_store_memory=200_000_000, include_dashboard=False, log_to_driver=False)
    try:
        with cluster.cluster(), tempfile.TemporaryDirectory() as folder:
            shared, store = sweep.share(data), Store(Path(folder) / "store")
            for _ in range(DRIVER_ROUNDS):
                for count in DRIVER_TRIALS:
                    some = [Trial(cell_of(2, ORDERS[0], "relu"), (i,)) for i in range(count)]
                    gc.collect()
                    before, start, cpu = process.memory_info().rss, time.perf_counter(), time.process_time()
                    sweep.run_trials(some, data, shared, store, PROVENANCE, Path(folder))
                    found.append(
                        {
                            "trials": count,
                            "wall_s": round(time.perf_counter() - start, 3),
                            "cpu_s": round(time.process_time() - cpu, 3),
                            "mb": round((process.memory_info().rss - before) / 1e6, 2),
                        }
                    )
    finally:
        ray.shutdown()
    return found


def workers() -> list[float]:
    """CPU seconds of a process that imports what a worker does."""
    found = []
    for _ in range(ROUNDS):
        before = os.times()
        subprocess.run([sys.executable, "-c", "import harness.sweep"], check=True)
        after = os.times()
        spent = after.children_user + after.children_system - before.children_user - before.children_system
        found.append(round(spent, 3))
    return found


# Of a process of its own: what a plan of a million runs takes.
PLANNING = """import time
import psutil, scheduling
held = psutil.Process().memory_info
scheduling.data()
before, start = held().rss, time.process_time()
trials = scheduling.trials_of(scheduling.Size(926), 1000, {})
runs = sum(len(trial.seeds) for trial in trials)
print(runs, time.process_time() - start, held().rss - before)
"""


def planning() -> list[dict]:
    """CPU seconds and megabytes of a plan, from the grid's file to the trials."""
    found = []
    for _ in range(ROUNDS):
        told = subprocess.run([sys.executable, "-c", PLANNING], cwd=HERE, capture_output=True, text=True, check=True)
        runs, seconds, held = map(float, told.stdout.split())
        found.append({"runs": int(runs), "cpu_s": round(seconds, 2), "mb": round(held / 1e6, 1)})
    return found


PARTS = {"worker_s": workers, "plan": planning, "driver": driver, "pilots": pilots, "trials": trials}


def main(asked: Sequence[str]) -> None:
    """Measure the parts asked for, all where none is; of others what was measured before stays."""
    before = json.loads(FILE.read_text()) if FILE.exists() else {}
    found = {
        "hardware": processor(),
        "versions": {name: version(name).partition("+")[0] for name in ("torch", "ray", "numpy")}
        | {"python": platform.python_version()},
        "driver_slots": SLOTS,
        "measured": before.get("measured", {}),
    }
    for part, measured in PARTS.items():
        if part in asked or not asked:
            load = round(os.getloadavg()[0], 1)
            found[part] = measured()
            found["measured"][part] = {"date": datetime.now(UTC).date().isoformat(), "load_before": load}
        else:
            found[part] = before[part]
    FILE.write_text(text(found) + "\n")


def text(found: dict) -> str:
    """JSON with a line for each measurement, so that differences can be read."""
    return "{\n" + ",\n".join(f" {json.dumps(name)}: {_value(value)}" for name, value in found.items()) + "\n}"


def _value(value: object) -> str:
    if isinstance(value, list) and value and isinstance(value[0], dict):
        return "[\n" + ",\n".join(f"  {json.dumps(each)}" for each in value) + "\n ]"
    return json.dumps(value)


if __name__ == "__main__":
    main(sys.argv[1:])
