"""Simulate the scheduler: real plans, measured times of trials and of the driver, any number of slots.

$ python tests/bench/scheduling.py

prints the table of harness/CLUSTERS.md. What is measured stands in scheduling_costs.json, which scheduling_costs.py makes.
"""

import heapq
import json
import random
import tempfile
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import cache
from pathlib import Path
from statistics import mean, median, pstdev
from typing import NamedTuple

import harness
from grids import Cell, Grid
from harness import datasets
from harness.engine import BLOCKS, EAGER, Pilot, shape
from harness.plan import Plan, Trial, group, make_plan
from harness.tuning import choose_how
from results import METRICS

HERE = Path(__file__).parent
DEFAULT = HERE.parents[1] / "grids" / "default.toml"
TRIALS_A_FIT = 4000  # of harness/sweep.py, which cannot be imported without Ray
SLOTS = (2, 20, 200, 1000)
IDLE = 0.05  # below this share of idle slots there is nothing to name


class Size(NamedTuple):
    """The default study with so many learning rates, seeds and epochs."""

    rates: int = 1
    seeds: int = 20
    epochs: int = 20


SIZES = (Size(), Size(10, seeds=2), Size(seeds=2000), Size(100), Size(926), Size(100, epochs=200))


class Costs(NamedTuple):
    """What everything takes, in seconds."""

    trial: Callable[[Cell, int], float]  # of a cell and S, on one core
    spread: float  # sd of a trial's seconds, relative to them
    driver_s: float  # of the one process that starts trials, for each
    turnaround_s: float  # of a slot, from a trial's end to the next one's begin, where the driver is free
    fit_s: float  # to begin a fit
    worker_s: float  # to start a worker, once a slot and fit
    driver_bytes: float  # for each trial of a fit
    plan_bytes: float  # for each run


class Outcome(NamedTuple):
    makespan_s: float
    busy_s: float  # of all slots, in trials
    driver_s: float


@cache
def measured() -> dict:
    return json.loads((HERE / "scheduling_costs.json").read_text())


@cache
def data() -> dict[str, datasets.Data]:
    return {"mnist1d": datasets.load("mnist1d")}


def slope(rows: Sequence[dict], what: str, over: Callable = median) -> tuple[float, float]:
    """From the smallest to the largest number of trials: for each trial, and at none. over: the rounds of each."""
    few, many = min(row["trials"] for row in rows), max(row["trials"] for row in rows)
    low, high = (over(row[what] for row in rows if row["trials"] == n) for n in (few, many))
    each = (high - low) / (many - few)
    return each, low - few * each


def costs() -> Costs:
    """As measured. Between the S that were measured, a trial's seconds lie on a line."""
    found = measured()
    by_kind: dict[tuple, dict[int, dict]] = {}
    for row in found["trials"]:
        by_kind.setdefault((row["depth"], row["order"], row["activation"]), {})[row["seeds"]] = row

    @cache
    def trial(depth: int, order: str, activation: str, epochs: int, seeds: int) -> float:
        rows = by_kind[depth, order, activation]

        def at(s: int) -> float:
            return epochs * median(rows[s]["epoch_s"]) + median(rows[s]["rest_s"])

        below, above = max(s for s in rows if s <= seeds), min((s for s in rows if s >= seeds), default=max(rows))
        if below == above:
            return at(below) * seeds / below
        return at(below) + (at(above) - at(below)) * (seeds - below) / (above - below)

    def seconds(cell: Cell, seeds: int) -> float:
        order = "weight-bn-act" if "bn" in cell.order else "weight-act"  # before or after: the same layers
        activation = "maxout" if cell.activation == "maxout" else "relu"
        return trial(cell.depth, order, activation, cell.epochs, seeds)

    each = [row["epoch_s"] for row in found["trials"]]
    driver_s, _ = slope(found["driver"], "cpu_s")
    wall_s, fit_s = slope(found["driver"], "wall_s", min)  # of a round beside the least other work
    return Costs(
        trial=seconds,
        spread=median(pstdev(times) / mean(times) for times in each),
        driver_s=driver_s,
        turnaround_s=found["driver_slots"] * wall_s,
        fit_s=max(0.0, fit_s - median(found["worker_s"])),
        worker_s=median(found["worker_s"]),
        driver_bytes=1e6 * slope(found["driver"], "mb")[0],
        plan_bytes=1e6 * median(row["mb"] / row["runs"] for row in found["plan"]),
    )


def pilots() -> dict[tuple, Pilot]:
    """What the pilot of a sweep told, by shape."""
    told = {}
    for row in measured()["pilots"]:
        seconds = {int(s): took for s, took in row["seconds"].items() if int(s) in BLOCKS["cpu"]}
        fields = {name: row[name] for name in ("depth", "activation")}
        cell = Cell(dataset="mnist1d", architecture="mlp", order="weight-bn-act", **fields)
        told[shape(cell, data()["mnist1d"])] = Pilot(seconds, row["product_s"], max(BLOCKS["cpu"]))
    return told


def grid_of(size: Size) -> Grid:
    text = DEFAULT.read_text()
    rates = [round(0.0001 * i, 4) for i in range(1, size.rates + 1)]
    for old, new in {
        "[nuisance]\nlr = [0.1]\n": "",
        "[2, 4, 8]": f"[2, 4, 8]\nlr = {rates}",
        "count = 20": f"count = {size.seeds}",
        "epochs   = 20": f"epochs   = {size.epochs}",
    }.items():
        assert old in text
        text = text.replace(old, new)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "default.toml"
        path.write_text(text)
        return Grid.read(path, {**harness.choices(), "metric": METRICS})


@cache
def plan_of(size: Size) -> Plan:
    return make_plan(grid_of(size), {}, (), data())


def trials_of(size: Size, slots: int, pilots: Mapping[tuple, Pilot]) -> list[Trial]:
    """As a sweep plans them. Eager, since whether graphs pay also depends on those that a machine has on its disk."""
    plan = plan_of(size)
    return group(plan.missing, data(), slots, choose_how(plan, data(), pilots, slots, mode=EAGER))


def drawn(trials: Iterable[Trial], costs: Costs) -> list[float]:
    """Seconds of each trial, the same ones each time."""
    rng = random.Random(0)
    return [costs.trial(t.cell, len(t.seeds)) * max(0.5, rng.gauss(1, costs.spread)) for t in trials]


def simulate(seconds: Sequence[float], slots: int, costs: Costs, per_fit: int | None = TRIALS_A_FIT) -> Outcome:
    """Trials in the order given, on equal slots: fits one after the other, each of which waits for its last trial.

    One driver gives out trials one at a time. A worker is started for each slot that a fit uses.
    """
    now = 0.0
    for first in range(0, len(seconds), per_fit or len(seconds)):
        part = seconds[first : first + (per_fit or len(seconds))]
        driver = now + costs.fit_s
        free = [(driver, slot) for slot in range(min(slots, len(part)))]
        started: set[int] = set()
        for taken in part:
            ready, slot = heapq.heappop(free)
            driver = max(driver, ready) + costs.driver_s
            begin = driver if slot in started else driver + costs.worker_s
            started.add(slot)
            heapq.heappush(free, (begin + taken + max(0.0, costs.turnaround_s - costs.driver_s), slot))
        now = max(end for end, _ in free)
    return Outcome(now, sum(seconds), len(seconds) * costs.driver_s)


def idle(outcome: Outcome, slots: int) -> float:
    return 1 - outcome.busy_s / (slots * outcome.makespan_s)


def limit(seconds: Sequence[float], slots: int, costs: Costs) -> str:
    """What keeps slots idle: that without which the sweep would end soonest."""
    base = simulate(seconds, slots, costs)
    if idle(base, slots) < IDLE:
        return "the work"
    without = {
        "the driver": simulate(seconds, slots, costs._replace(driver_s=0.0)),
        "the ends of fits": simulate(seconds, slots, costs, per_fit=None),
        "starts of workers": simulate(seconds, slots, costs._replace(worker_s=0.0)),
        "the way from trial to trial": simulate(seconds, slots, costs._replace(turnaround_s=0.0)),
    }
    saved = {what: base.makespan_s - each.makespan_s for what, each in without.items()}
    saved["the longest trials"] = _tail(seconds, slots, costs)
    return max(saved, key=saved.get)


def _tail(seconds: Sequence[float], slots: int, costs: Costs) -> float:
    """Seconds that slots have nothing to do on average where only the trials' lengths count."""
    free = costs._replace(driver_s=0.0, turnaround_s=0.0, fit_s=0.0, worker_s=0.0)
    return simulate(seconds, slots, free, per_fit=None).makespan_s - sum(seconds) / slots


HEAD = "| cells × seeds, epochs | slots | trials | S | takes | slots idle | driver busy | its memory | limited by |"


def line(size: Size, slots: int) -> str:
    """A line of the table."""
    known, trials = costs(), trials_of(size, slots, pilots())
    seconds = drawn(trials, known)
    outcome = simulate(seconds, slots, known)
    runs = sum(len(trial.seeds) for trial in trials)
    memory = known.plan_bytes * runs + known.driver_bytes * min(len(trials), TRIALS_A_FIT)
    cells = [
        f"{runs // size.seeds:,} × {size.seeds}, {size.epochs}",
        f"{slots:,}",
        f"{len(trials):,}",
        f"{median(len(trial.seeds) for trial in trials):g}",
        duration(outcome.makespan_s),
        f"{idle(outcome, slots):.0%}".replace("%", " %"),
        f"{outcome.driver_s / outcome.makespan_s:.0%}".replace("%", " %"),
        f"{memory / 1e6:.0f} MB",
        limit(seconds, slots, known),
    ]
    return f"| {' | '.join(cells)} |"


def duration(seconds: float) -> str:
    if seconds < 600:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 3 * 3600 else f"{seconds / 3600:.1f} h"


if __name__ == "__main__":
    print(HEAD, "|---" * HEAD.count(" | ") + "|---|", sep="\n")
    for size in SIZES:
        for slots in SLOTS:
            print(line(size, slots), flush=True)
