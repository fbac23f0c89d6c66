"""First results while a sweep is going on: differences with their intervals, and no verdicts, which belong to the end."""

import numpy as np

from grids import Grid
from reports import statistics as st
from reports.looks import first
from reports.measures import measure
from reports.outcomes import Paired, ReportError, gather
from reports.rates import select
from reports.words import interval, label, varying
from results import Store

FEWEST = 3  # pairs, below which an interval says next to nothing


def so_far(grid: Grid, store: Store, most: int) -> list[str]:
    """A line for each of at most so many comparisons of the primary family, those with the largest differences first.

    They are of the seeds of the first look, where there are several; empty while no comparison has 3 pairs.
    """
    try:
        results = first(select(gather(grid, store)).results)
    except ReportError:
        return []
    primary = grid.analysis.primary
    columns, places = results.columns(primary.contrast)
    of = measure(primary.metric)
    pair = Paired(results.runs, of, places)
    m = st.moments(pair.d, pair.floor)
    low, high = st.t_interval(m)
    cells, told = results.cells(columns), varying(results.runs)
    there = np.flatnonzero(m.n >= FEWEST)
    ranked = there[np.argsort(-np.abs(m.mean[there]), kind="stable")][:most]
    return [f"{label(cells.iloc[k], told)}: {interval(of, m.mean[k], low[k], high[k])}, n = {m.n[k]}" for k in ranked]
