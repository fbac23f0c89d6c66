"""The part of a sweep that uses Ray: from what is left to do in a study to its runs in the store."""

import tempfile
from collections import Counter
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

from grids import Resources
from harness import cluster, placement
from harness.display import Picture
from harness.engine import Pilot
from harness.placement import GpuMemory, Node
from harness.plan import group, work
from harness.provenance import provenance
from harness.study import Study, tell
from harness.sweep import look_at_gpus, measure_all, run_trials, share
from harness.trial import check_trainable
from harness.tuning import choose_how, largest, to_measure


class _There(NamedTuple):
    """The cluster, and what stays the same for all rounds of a sweep. pilots: those that have run, by shape."""

    nodes: list[Node]
    gpus: list[GpuMemory]
    shared: Mapping[str, Any]
    pilots: dict[tuple, Pilot]
    mode: str | None
    limit_s: float
    made_by: Mapping[str, str]
    mark: str
    scratch: Path
    picture: Picture | None


def count_slots(address: str | None, asked: Resources, scratch: Path) -> int:
    """Trials that the Ray cluster at `address`, or one that is started here, trains at once. ClusterError where it cannot be
    reached or trains none.
    """
    with cluster.cluster(address, scratch):
        nodes = cluster.run_there(cluster.nodes) if (address or "").startswith("ray://") else cluster.nodes()
        cluster.check_met(nodes, asked)
        return placement.slots(nodes, asked)


def drive(
    study: Study,
    address: str | None,
    mode: str | None,
    limit_s: float,
    scratch: Path,
    picture: Picture | None = None,
) -> dict[str, int]:
    """Train what a study lacks on the Ray cluster at `address`, or on one of its own. Gives the runs by status.

    picture: what a terminal of this machine shows below the progress, as Display takes it.
    """
    for line in check_trainable(dict.fromkeys(run.cell for run in study.plan.missing), study.data):
        print(f"warning: {line}")
    made_by = provenance()
    with cluster.cluster(address, scratch):
        if address and address.startswith("ray://"):
            return cluster.run_there(_from_outside, study, mode, limit_s, made_by, study.store.mark())
        return _on_cluster(study, bool(address), mode, limit_s, made_by, None, scratch, picture)


def _from_outside(study: Study, *how: Any) -> dict[str, int]:
    """On the cluster, whose own disk has the scratch folder."""
    with tempfile.TemporaryDirectory(prefix="normorder-") as scratch:
        return _on_cluster(study, True, *how, Path(scratch))


def _on_cluster(
    study: Study,
    check: bool,
    mode: str | None,
    limit_s: float,
    made_by: Mapping[str, str],
    mark: str | None,
    scratch: Path,
    picture: Picture | None = None,
) -> dict[str, int]:
    """check: whether nodes must first show that they can train. mark: of the store, as seen where the sweep was begun."""
    nodes, asked = cluster.nodes(), study.grid.resources
    cluster.check_met(nodes, asked)
    mark = mark or study.store.mark()
    if check:
        cluster.check_nodes(study.store, mark, asked)
    how = (mode, limit_s, made_by, mark, scratch, picture)
    there = _There(nodes, look_at_gpus(nodes, asked), share(study.data), {}, *how)
    counts, tried = Counter(), set()
    # What follows on the runs of a stage is only known when they have finished. Nothing is tried twice, and what somebody
    # removed from the store meanwhile is told by who began the sweep.
    while study.plan.missing and tried.isdisjoint(missing := {run.run_id for run in study.plan.missing}):
        counts.update(_round(study, there))
        tried |= missing
        study = study.again(tried)
    return dict(counts)


def _round(study: Study, there: _There) -> dict[str, int]:
    """Train what can be planned so far. Gives the runs by status."""
    grid, store, data, plan, *_ = study
    nodes, gpus, asked = there.nodes, there.gpus, grid.resources
    kind = "cuda" if gpus else "cpu"
    measured = asked.gpus is None
    if measured:
        asked = asked.model_copy(update={"gpus": 1.0 if gpus else 0.0})
    slots, room = placement.slots(nodes, asked), placement.room_bytes(nodes, asked, gpus)
    shapes = to_measure(plan, data, kind)
    sharing = placement.sharing(nodes, asked)
    new = {key: each for key, each in shapes.items() if key not in there.pilots}
    pilots = there.pilots
    pilots |= measure_all(new, there.shared, sharing, there.limit_s, asked)
    hows = choose_how(plan, data, pilots, slots, there.mode, kind, room)
    if measured and gpus:
        asked = asked.model_copy(update={"gpus": placement.part_of_gpu(largest(hows, plan, data, pilots, kind), gpus)})
        slots = placement.slots(nodes, asked)
    trials = group(plan.missing, data, slots, hows)
    amount = {cell: work(cell, data[cell.dataset]) for cell in hows}
    devices = {cell: made.device for cell, made in plan.made.items()}
    placed = placement.accelerators(amount, ("order", *grid.searched), nodes, asked, devices)
    trials = [
        replace(trial, accelerator=placed.get(trial.cell, ""), probes=grid.probes.of(trial.cell)) for trial in trials
    ]
    tell(study, trials, slots)
    if unmeasured := len(shapes.keys() - pilots.keys()):
        print(f"  {unmeasured} of {len(shapes)} pilots failed: what they should measure is reckoned")
    if there.mode and (other := sum(how.mode != there.mode for how in hows.values())):
        print(f"  not {there.mode}: {other:,} cells, as the store has them or as their layers allow")
    how = (there.made_by, there.scratch, there.limit_s, asked, there.mark, there.picture)
    return run_trials(trials, data, there.shared, store, *how)
