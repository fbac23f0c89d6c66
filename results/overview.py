"""How far a grid is: its planned runs by fate, for each value of what varies, and why runs failed or diverged."""

import re
from collections import Counter
from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from grids import Cell, Grid
from results.protocol import Wanted, planned_in
from results.store import Store

FATES = ("done", "diverged", "failed", "missing")


class Overview(NamedTuple):
    """Planned runs by fate: of all, of each (field, value) that varies, and the reasons of what is not done.

    later, unchosen: as in Planned.
    """

    total: Mapping[str, int]
    by_value: Mapping[tuple[str, object], Mapping[str, int]]
    reasons: Mapping[tuple[str, str], int]  # by (fate, reason)
    later: int = 0
    unchosen: tuple[Cell, ...] = ()


def overview(grid: Grid, store: Store, wanted: Wanted | None = None) -> Overview:
    """What the store has of the runs that the grid plans. StoreError names a file that cannot be read."""
    will = planned_in(grid, store, *store.fates(), wanted)
    cells = [cell for stage in will.stages for cell in stage.cells]
    kinds = [f"look {stage.look}" if stage.look else stage.kind for stage in will.stages for _ in stage.cells]
    seeds = [len(stage.seeds) for stage in will.stages for _ in stage.cells]
    runs = store.read("runs")
    at = pc.index_in(pa.array(will.run_ids, pa.string()), runs["run_id"])
    status = pc.fill_null(runs["status"].take(at), "missing").to_numpy(zero_copy_only=False)
    starts = np.cumsum([0, *seeds[:-1]])
    fates = np.array([np.add.reduceat(status == fate, starts, dtype=int) for fate in FATES])  # (4, cells)
    varied = [name for name, values in {**grid.axes, **grid.nuisance}.items() if len(values) > 1]
    by_value: dict[tuple[str, object], dict[str, int]] = {}
    for name in [*varied, "seeds"]:
        values = kinds if name == "seeds" else [getattr(cell, name) for cell in cells]
        if name == "seeds" and len(set(values)) < 2:
            continue
        for value in dict.fromkeys(values):
            here = np.array([each == value for each in values])
            by_value[name, value] = dict(zip(FATES, fates[:, here].sum(1).tolist(), strict=True))
    lost = runs.take(at.drop_null())
    lost = lost.filter(pc.not_equal(lost["status"], "done")).select(["status", "error"]).to_pylist()
    reasons = Counter((row["status"], _reason(row["error"])) for row in lost)
    total = dict(zip(FATES, fates.sum(1).tolist(), strict=True))
    return Overview(total, by_value, dict(reasons.most_common()), will.later, will.unchosen)


def _reason(error: str | None) -> str:
    """In whichever epoch a loss was not finite, it is one reason."""
    return re.sub(r" of epoch \d+ ", " ", last_line(error))


def last_line(error: str | None) -> str:
    """Of a traceback the error itself."""
    return (error or "").strip().rpartition("\n")[2] or "no reason recorded"
