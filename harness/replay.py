"""Train a finished run again, from its row in a store, and compare what was measured."""

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.compute as pc

from grids import FIELDS, Cell, WrongUse
from harness import choices
from harness.datasets import Data
from harness.engine import UNMEASURED, recall
from harness.plan import Trial, code_version
from harness.provenance import provenance
from harness.trial import run_trial
from results import Store
from results.schema import MEASURED
from results.store import is_finished

FEWEST_DIGITS = 4  # of an id that stands for the whole
NEAR = 5  # ids that are told where one is unknown


class ReplayError(WrongUse):
    """A run that cannot be trained again, and why."""


class Replay(NamedTuple):
    """differences: (stored, now) of each measured column in which they differ. reasons: why they may; empty if none may."""

    run_id: str
    columns: int
    differences: dict[str, tuple[Any, Any]]
    reasons: list[str]


def find(store: Store, run_id: str) -> pa.Table:
    """The accepted rows of the trial of a run, which may be named by its first digits; that of the run is the first.

    ReplayError where there is none, with the nearest ids.
    """
    rows = store.read("runs")
    rows = rows.filter(is_finished(rows))
    ids = rows["run_id"].to_pylist()
    matching = [each for each in ids if each.startswith(run_id)]
    if len(matching) != 1 or len(run_id) < FEWEST_DIGITS:
        near = ", ".join(_nearest(run_id, ids)) or "none: no run has finished"
        what = "is the beginning of several runs" if len(matching) > 1 else "is no finished run"
        what = f"is shorter than {FEWEST_DIGITS} digits" if len(run_id) < FEWEST_DIGITS else what
        raise ReplayError(f"{store.path}: {run_id} {what}; near it are {near}")
    row = rows.filter(pc.equal(rows["run_id"], matching[0]))
    mates = rows.filter(pc.and_(pc.equal(rows["trial"], row["trial"][0]), pc.not_equal(rows["run_id"], matching[0])))
    return pa.concat_tables([row, mates])


def _nearest(run_id: str, ids: list[str]) -> list[str]:
    """Those with the longest beginning in common, and then next in order."""

    def common(other: str) -> int:
        return next(
            (i for i, (a, b) in enumerate(zip(run_id, other, strict=False)) if a != b), min(len(run_id), len(other))
        )

    return sorted(ids, key=lambda each: (-common(each), each))[:NEAR]


def replay(rows: pa.Table, load: Callable[[str], Data], device: str = "cpu") -> Replay:
    """Train a run as its row says. rows: as `find` gives them. load: gives a data set by its name. ReplayError if it fails.

    All seeds of its trial are trained with it only where its bits depend on them.
    """
    stored = rows.slice(0, 1).to_pylist()[0]
    cell = Cell(**{field: stored[field] for field in FIELDS})
    _check_known(cell)
    data, (_, mode) = load(cell.dataset), recall(stored["engine"])
    together = ", S=" in (stored["engine"] or "") and recall(stored["engine"])[0] == device
    seeds = sorted(rows["seed"].to_pylist()) if together else [stored["seed"]]
    trial = Trial(cell, tuple(seeds), stored["seed_block"] or UNMEASURED, mode)
    now = run_trial(trial, data, provenance(), device).tables["runs"]
    now = now.filter(pc.equal(now["run_id"], stored["run_id"])).to_pylist()[0]
    if now["status"] == "failed":
        raise ReplayError(f"run {stored['run_id']} failed: {now['error'].strip().splitlines()[-1]}")
    reasons = [
        f"{what}: {stored[name] or 'unknown'} then, {here} now"
        for name, what, here in (
            ("engine", "the engine", now["engine"]),
            ("code", "the version of the code", code_version(cell.architecture, cell.activation)),
            ("data", "the data set", data.checksum),
        )
        if stored[name] != here
    ]
    differences = {name: (stored[name], now[name]) for name in MEASURED if not _same(stored[name], now[name])}
    return Replay(stored["run_id"], len(MEASURED), differences, reasons)


def _check_known(cell: Cell) -> None:
    """ReplayError where what the cell names is not here."""
    known = choices()
    named = {"dataset": cell.dataset.partition(":")[0], "architecture": cell.architecture}
    for field, name in {**named, "activation": cell.activation.partition(":")[0]}.items():
        if name not in known[field]:
            raise ReplayError(f"there is no {field} {name} here; name its file with --plugin if it was one")


def _same(a: Any, b: Any) -> bool:
    """Bit for bit; what is missing or not a number is equal to itself."""
    none = [each is None or (isinstance(each, float) and math.isnan(each)) for each in (a, b)]
    return all(none) if any(none) else a == b


def in_words(found: Replay) -> list[str]:
    """What `replay` prints of it."""
    if not found.differences:
        return [f"run {found.run_id}: trained again, all {found.columns} measured columns are equal, bit for bit"]
    lines = [f"run {found.run_id}: trained again, {len(found.differences)} of {found.columns} measured columns differ"]
    lines += [f"  {name}: {then} then, {now} now" for name, (then, now) in found.differences.items()]
    if found.reasons:
        return [*lines, *(f"  it may differ, since it was made otherwise: {reason}" for reason in found.reasons)]
    return [*lines, "  nothing that made it is different: equal runs must be equal, so this is a fault"]
