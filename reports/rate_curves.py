"""What a reader is shown of the choice of learning rates: sentences, and the whole curve of every arm."""

import math
from collections import Counter
from collections.abc import Sequence

import matplotlib as mpl
import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from grids import Grid
from reports.figures import MOST_PANELS, STYLE, arm_colours
from reports.measures import measure
from reports.outcomes import Results
from reports.rates import DRAWS, SURE, Selected, validation
from reports.words import enumerated, label, setting
from results.protocol import rungs

NAMES = {"lr": "learning rate"}
WIDE = 4  # panels beside one another
_RING = {"marker": "o", "linewidth": 0, "markerfacecolor": "none", "markeredgecolor": "black", "markeredgewidth": 1.0}


def name(field: str) -> str:
    """A searched field in words."""
    return NAMES.get(field, field.replace("_", " "))


def how(grid: Grid) -> str:
    """'at each arm's selected learning rate (chosen by …)'; empty where the grid searches nothing."""
    if not grid.searched:
        return ""
    by = validation(grid.analysis.primary.metric).title.replace("val ", "validation ")
    ends = grid.seeds.count, grid.seeds.most
    return (
        f"at each arm's selected {enumerated([*map(name, grid.searched)])} (chosen by {by} over "
        f"{grid.seeds.tuning} tuning seeds; compared on {' to '.join(dict.fromkeys(map(str, ends)))} fresh seeds)"
    )


def sentences(selected: Selected) -> list[str]:
    """How the rates of the arms were chosen, and how far that can be trusted; none where the grid searches nothing."""
    grid = selected.results.grid
    if selected.chosen.empty:
        return []
    arms, tried = (table[table["arm"].notna()] for table in (selected.chosen, selected.tried))
    words = [
        f"Every comparison is made {how(grid)}. {_values(grid)}",
        f"At an edge of what was tried, beyond which a better value may lie: {arms['at_edge'].sum()} of {len(arms)} "
        f"choices{', in some field' if len(grid.searched) > 1 else ''}. "
        f"Uncertain, chosen in less than {SURE * 100:.0f} % of {DRAWS:,} resamples of the tuning seeds or no better than "
        f"another: {arms['uncertain'].sum()}.",
    ]
    climbed = selected.results.rungs
    words += _halved(grid) if climbed else []
    lost, diverged, planned = tried["missing"].sum(), tried["diverged"].sum(), grid.seeds.tuning * len(tried)
    if climbed:
        lost, diverged, planned = _on_rungs(selected.results)
    if lost or diverged:
        words.append(
            f"Of {planned:,} tuning runs{' on all rungs' if climbed else ''} {lost:,} {'is' if lost == 1 else 'are'} "
            f"missing; {diverged:,} diverged, and count{'s' if diverged == 1 else ''} as the worst outcome."
        )
    if none := (arms["reason"] != "").sum():
        words.append(
            f"Without a finished tuning run of some value{' on some rung' if climbed else ''}, so that nothing is chosen or "
            f"compared: {none} of {len(arms)}."
        )
    return words


def _values(grid: Grid) -> str:
    """What was tried, and whether in every cell."""
    values = "; ".join(f"{name(field)} {', '.join(map(setting, grid.nuisance[field]))}" for field in grid.searched)
    sizes = Counter(cell.without(*grid.searched) for cell in grid.cells()).values()
    if min(sizes) == math.prod(len(grid.nuisance[field]) for field in grid.searched):
        return f"Tried: {values}, by all arms."
    return f"Tried: {values}, but for what the grid excludes, by all arms of a cell alike."


def _halved(grid: Grid) -> list[str]:
    """How candidates are halved where no run is missing, and whom that favours."""
    steps, climbed = [], []
    for rung in rungs(grid, None):
        sizes = rung.climbing.sum(0)
        climbed.append(sizes[rung.cells.astype(bool).any(0)] > 0)
        sizes = sizes[sizes > 0]
        epochs = [f"{each:,}" for each in sorted({cell.epochs for cell in rung.cells[rung.climbing]})]
        most = f"up to {sizes.max()}" if sizes.min() < sizes.max() else f"{sizes.max()}"
        steps.append(f"{most} with {' or '.join(epochs)} epochs")
    fewer = "" if np.all(climbed) else " Cells with fewer candidates climb fewer rungs, the last ones."
    return [
        f"Candidates of each arm of each cell were halved, the best 1/{grid.seeds.halving} of them going on: "
        f"{', '.join(steps)}; the choice is among the last.{fewer} This favours arms that start fast, which is a "
        "hypothesis of its own."
    ]


def _on_rungs(results: Results) -> tuple[int, int, int]:
    """Tuning runs of the arms on all rungs, each once though cells with other `epochs` share it: missing, diverged, all."""
    arms, counts = set(results.grid.analysis.arms.values()), {}
    for rung in results.rungs:
        there, diverged = np.isfinite(rung.outcomes).sum(0), rung.diverged.sum(0)
        for place in zip(*np.nonzero(rung.climbing), strict=True):
            counts[rung.cells[place]] = there[place], diverged[place]
    of_arms = [each for cell, each in counts.items() if cell.order in arms]
    there, diverged = np.sum(of_arms, axis=0)
    planned = len(of_arms) * results.grid.seeds.tuning
    return planned - there, diverged, planned


def rate_curves(selected: Selected, fields: Sequence[str]) -> Figure | None:
    """Mean over the tuning seeds of what rates are chosen by, with its 95 % t interval, over the rate: a panel a cell.

    The size of a point says how often resampled seeds choose it, a ring which was chosen. fields: those that tell the cells
    apart. Points with one seed have no interval; means with diverged seeds may lie outside of the axes. Where other fields
    are searched too, a rate is shown at their best values. None where no number is searched.
    """
    tried, grid = selected.tried, selected.results.grid
    numbers = [field for field in grid.searched if not isinstance(grid.nuisance[field][0], str | bool)]
    if tried.empty or not numbers or tried["mean"].isna().all():
        return None
    x, arms = "lr" if "lr" in numbers else numbers[0], list(grid.analysis.arms)
    tried = tried[tried["arm"].notna() & tried["mean"].notna()]
    of = measure(tried["metric"].iloc[0])
    groups = dict(iter(tried.groupby(list(fields), sort=False))) if fields else {(): tried}
    panels = list(groups.items())[:MOST_PANELS]
    wide = min(WIDE, len(panels))
    high = -(-len(panels) // wide)
    colours, share = arm_colours(arms), of.unit == "pp"
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(min(10.6, 2.6 * wide + 0.8), 1.9 * high + 0.9), layout="constrained")
        axes = figure.subplots(high, wide, squeeze=False, sharex=True, sharey=share).ravel()
        for ax, (cell, rows) in zip(axes, panels, strict=False):
            for arm in arms:
                _curve(ax, rows[rows["arm"] == arm], x, of.factor, of.larger_is_better, colours[arm])
            _limit(ax, tried if share else rows, of.factor)
            ax.set_title(label(dict(zip(fields, cell, strict=True)), fields))
        if min(grid.nuisance[x]) > 0:
            axes[0].set_xscale("log")
        axes[0].set_xticks(sorted(grid.nuisance[x]), [f"{value:g}" for value in sorted(grid.nuisance[x])])
        axes[0].minorticks_off()
        for ax in axes[len(panels) :]:
            ax.set_visible(False)
        figure.supxlabel(name(x), fontsize=9)
        unit = "%" if share else of.unit
        figure.supylabel(f"{of.title.replace('val ', 'validation ')} ({unit})", fontsize=9)
        handles = [Line2D([], [], color=colours[arm], marker="o", markersize=4, label=arm) for arm in arms]
        handles.append(Line2D([], [], **_RING, markersize=8, label="chosen"))
        figure.legend(handles=handles, loc="outside upper center", ncols=len(handles))
    return figure


def _curve(ax, rows: pd.DataFrame, x: str, factor: float, larger: bool, colour: object) -> None:
    """One arm of one cell: line, interval, points by their frequency, a ring around the chosen one."""
    if rows.empty:
        return
    means = rows.groupby(x)["mean"]
    rows = rows.loc[means.idxmax() if larger else means.idxmin()].sort_values(x)
    at, mean = rows[x].to_numpy(float), rows["mean"].to_numpy(float) * factor
    ends = [np.where(np.isfinite(rows[end]), rows[end] * factor, mean) for end in ("low", "high")]
    ax.plot(at, mean, color=colour, linewidth=1.2)
    ax.fill_between(at, *ends, color=colour, alpha=0.2, linewidth=0)
    for each, value, frequency, chosen in zip(at, mean, rows["frequency"], rows["selected"], strict=True):
        size = 2.5 + 5 * frequency
        ax.plot(each, value, "o", color=colour, markersize=size, markeredgewidth=0)
        if chosen:
            ax.plot(each, value, **_RING, markersize=size + 3)


def _limit(ax, rows: pd.DataFrame, factor: float) -> None:
    """An axis for the means without diverged seeds: the worst outcome of one would flatten all others."""
    calm = rows[rows["diverged"] == 0]
    shown = (calm if len(calm) else rows)["mean"].to_numpy(float) * factor
    room = 0.15 * (shown.max() - shown.min()) or 0.05 * abs(shown.max()) or 1.0
    ax.set_ylim(shown.min() - room, shown.max() + room)
