"""What a plan says of a study: what a sweep would do, what it would take, and what it could show."""

import math
import os
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import numpy as np

from grids import Resources, WrongUse
from harness import placement
from harness.apart import apart, private_folder
from harness.pilot import measure_here
from harness.plan import Trial, group
from harness.pricing import Price, Timings, price
from harness.pricing import in_words as price_in_words
from harness.rehearsal import rehearse, settled, wanted
from harness.study import Study, later_runs, tell
from harness.trial import check_trainable
from harness.tuning import choose_how, to_measure
from normorder_words import print_unchosen
from reports.power import Power, known_spread, power
from reports.power import in_words as power_in_words
from reports.power import warnings as power_warnings
from results import StoreError
from results.protocol import unchosen


class Foreseen(NamedTuple):
    """prices: of all that is to do up to the next look, and where there are several, of all if none decides.

    power: None where the grid has no primary metric. notes, warnings: in words.
    """

    study: Study
    trials: list[Trial]
    slots: int
    prices: list[Price]
    power: Power | None
    notes: list[str]
    warnings: list[str]


def foresee(study: Study, address: str | None, rehearse_s: float) -> Foreseen:
    """Measures a few steps here where nothing is known of them, and trains for at most rehearse_s where no spread is.

    PlanError for a cell that cannot be trained. address: of a cluster whose slots are counted.
    """
    warnings = check_trainable(dict.fromkeys(run.cell for run in study.plan.missing), study.data)
    slots, notes = slots_of(address, study.grid.resources)
    pilots = measure_here(to_measure(study.plan, study.data), study.data)
    missing, (later, looks) = study.plan.missing, later_runs(study)
    trials, later, looks = (
        group(runs, study.data, slots, choose_how(replace(study.plan, missing=tuple(runs)), study.data, pilots, slots))
        for runs in (missing, later, looks)
    )
    timings = Timings(study.data, min(slots, slots_here(study.grid.resources)))
    prices = [price([*trials, *later], timings, slots)]
    if looks:
        prices.append(price([*trials, *later, *looks], timings, slots))
    shown = None
    if study.grid.analysis.primary:
        shown, more = power_of(study, timings, rehearse_s)
        notes += more
        warnings += power_warnings(shown)
    return Foreseen(study, trials, slots, prices, shown, notes, warnings)


def slots_of(address: str | None, asked: Resources) -> tuple[int, list[str]]:
    """Trials at once: on the cluster, and where that cannot be reached, which is told, or without one, on this machine."""
    here = slots_here(asked)
    if address is None:
        return here, []
    from harness.drive import count_slots  # ray costs seconds

    try:
        with private_folder() as scratch:
            return apart(count_slots, address, asked, Path(scratch)), []
    except WrongUse as error:
        return here, [f"{error}; what is told is for {here} slots of this machine"]


def slots_here(asked: Resources) -> int:
    """At least 1: what this machine cannot meet, a sweep tells."""
    return max(1, placement.slots([placement.Node(os.cpu_count() or 1, 0)], Resources(cpus=asked.cpus)))


def power_of(study: Study, timings: Timings, limit_s: float) -> tuple[Power, list[str]]:
    """What the study can show with its seeds, from the spread in its store, else in a few runs that are trained now."""
    grid, store, notes = study.grid, study.store, []
    spread = known_spread(grid, store, "of pairs in the store")
    if spread is None:
        pairs = wanted(grid)
        try:
            apart_from_it, next_s = rehearse(pairs, timings, limit_s)
            cells = [cell for pair in pairs for cell in pair]
            spread = known_spread(settled(grid), apart_from_it, "of pairs trained for this plan", cells)
            if next_s:
                notes.append(f"--rehearse {math.ceil(next_s)} would tell more of the spread of pairs")
        except StoreError as error:  # the folder of data cannot be written
            notes.append(f"nothing was rehearsed: {error}")
    return power(grid, spread), notes


def tell_plan(found: Foreseen) -> None:
    """On the terminal."""
    study = found.study
    tell(study, found.trials, found.slots)
    print_unchosen(study.grid, study.plan.unchosen)
    subjects = [""] if len(found.prices) == 1 else ["the next look ", "if no look decides, it "]
    for priced, subject in zip(found.prices, subjects, strict=True):
        for line in price_in_words(priced, found.slots, study.grid.resources, subject):
            print(f"  {line}")
    for line in [*found.notes, *(power_in_words(found.power) if found.power else [])]:
        print(f"  {line}")
    for line in found.warnings:
        print(f"warning: {line}")


def as_json(found: Foreseen) -> dict[str, object]:
    """wall_s, busy_s: seconds of the sweep, and of all slots together. power: by comparison, in the metric's own unit."""
    grid, plan = found.study.grid, found.study.plan
    return {
        "grid": grid.name,
        "question": grid.question,
        "store": str(found.study.store.path),
        "cells": sum(1 for _ in grid.cells()),
        "finished": plan.finished,
        "failed": plan.failed,
        "missing": len(plan.missing),
        "later": plan.later,
        "outdated": dict(plan.outdated),
        "unchosen": unchosen(grid, plan.unchosen),
        "trials": len(found.trials),
        "slots": found.slots,
        "prices": [each._asdict() for each in found.prices],
        "power": found.power and _power_as_json(found.power),
        "notes": found.notes,
        "warnings": found.warnings,
    }


def _power_as_json(found: Power) -> dict[str, object]:
    values = {
        name: value.tolist() if isinstance(value, np.ndarray) else value for name, value in found._asdict().items()
    }
    return {**values, "of": found.of.name}
