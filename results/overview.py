"""How far a grid is: its planned runs by fate, for each value of what varies, and why runs failed or diverged."""

import re
from collections import Counter
from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from grids import Grid, run_ids
from results.store import Store

FATES = ("done", "diverged", "failed", "missing")


class Overview(NamedTuple):
    """Planned runs by fate: of all, of each (field, value) that varies, and the reasons of what is not done."""

    total: Mapping[str, int]
    by_value: Mapping[tuple[str, object], Mapping[str, int]]
    reasons: Mapping[tuple[str, str], int]  # by (fate, reason)


def overview(grid: Grid, store: Store) -> Overview:
    """What the store has of the runs that the grid plans. StoreError names a file that cannot be read."""
    cells = list(grid.cells())
    seeds = grid.seeds.every
    planned = pa.array([run_id for cell in cells for run_id in run_ids(cell, seeds)], pa.string())
    runs = store.read("runs")
    at = pc.index_in(planned, runs["run_id"])
    status = pc.fill_null(runs["status"].take(at), "missing").to_numpy(zero_copy_only=False)
    fates = (
        np.array([status == fate for fate in FATES]).reshape(len(FATES), len(cells), len(seeds)).sum(2)
    )  # (4, cells)
    varied = [name for name, values in {**grid.axes, **grid.nuisance}.items() if len(values) > 1]
    by_value: dict[tuple[str, object], dict[str, int]] = {}
    for name in varied:
        values = [getattr(cell, name) for cell in cells]
        for value in dict.fromkeys(values):
            here = np.array([each == value for each in values])
            by_value[name, value] = dict(zip(FATES, fates[:, here].sum(1).tolist(), strict=True))
    lost = runs.take(at.drop_null())
    lost = lost.filter(pc.not_equal(lost["status"], "done")).select(["status", "error"]).to_pylist()
    reasons = Counter((row["status"], _reason(row["error"])) for row in lost)
    total = dict(zip(FATES, fates.sum(1).tolist(), strict=True))
    return Overview(total, by_value, dict(reasons.most_common()))


def _reason(error: str | None) -> str:
    """In whichever epoch a loss was not finite, it is one reason."""
    return re.sub(r" of epoch \d+ ", " ", last_line(error))


def last_line(error: str | None) -> str:
    """Of a traceback the error itself."""
    return (error or "").strip().rpartition("\n")[2] or "no reason recorded"
