"""The part of a sweep that uses Ray: from what is left to do in a study to its runs in the store."""

import tempfile
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from harness import cluster, placement
from harness.plan import group, work
from harness.provenance import provenance
from harness.study import Study, tell
from harness.sweep import look_at_gpus, measure_all, run_trials, share
from harness.trial import check_trainable
from harness.tuning import choose_how, largest, to_measure


def drive(study: Study, address: str | None, mode: str | None, limit_s: float, scratch: Path) -> dict[str, int]:
    """Train what a study lacks on the Ray cluster at `address`, or on one of its own. Gives the runs by status."""
    check_trainable({run.cell for run in study.plan.missing}, study.data)
    made_by = provenance()
    with cluster.cluster(address, scratch):
        if address and address.startswith("ray://"):
            return cluster.run_there(_from_outside, study, mode, limit_s, made_by, study.store.mark())
        return _on_cluster(study, bool(address), mode, limit_s, made_by, None, scratch)


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
) -> dict[str, int]:
    """check: whether nodes must first show that they can train. mark: of the store, as seen where the sweep was begun."""
    grid, store, data, plan = study
    nodes, asked = cluster.nodes(), grid.resources
    cluster.check_met(nodes, asked)
    mark = mark or store.mark()
    if check:
        cluster.check_nodes(store, mark, asked)
    gpus = look_at_gpus(nodes, asked)
    kind = "cuda" if gpus else "cpu"
    measured = asked.gpus is None
    if measured:
        asked = asked.model_copy(update={"gpus": 1.0 if gpus else 0.0})
    slots, room = placement.slots(nodes, asked), placement.room_bytes(nodes, asked, gpus)
    shared = share(data)
    pilots = measure_all(
        shapes := to_measure(plan, data, kind), shared, placement.sharing(nodes, asked), limit_s, asked
    )
    hows = choose_how(plan, data, pilots, slots, mode, kind, room)
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
    if mode and (other := sum(how.mode != mode for how in hows.values())):
        print(f"  not {mode}: {other:,} cells, as the store has them or as their layers allow")
    return run_trials(trials, data, shared, store, made_by, scratch, limit_s, asked, mark)
