"""Estimation plots: the seeds that a comparison was made of, and beside them what follows from them."""

from collections.abc import Sequence

import matplotlib as mpl
import numpy as np
import pandas as pd
from matplotlib.collections import LineCollection
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from reports.figures import MARKS, MOST_PANELS, STYLE, VERDICT_COLOURS, arm_colours, panels
from reports.outcomes import Paired
from reports.words import difference, label, minus

MOST_SEEDS = 100  # lines of a panel; more are one grey area


def estimation(
    family: pd.DataFrame, pair: Paired, contrast: str, fields: Sequence[str], arms: Sequence[str]
) -> Figure | None:
    """A panel a cell: each seed's values of both arms, joined; beside them the mean difference and its 95 % interval.

    The difference stands on the values' own axis, from the second arm's mean, as Gardner and Altman (1986) have it; shaded:
    within the margin. Crosses are diverged runs, at what they count as. None where no comparison has a pair.
    family: the rows of one family, in the order of the pair's K comparisons.
    """
    shown = np.flatnonzero(family["n"].to_numpy() > 0)[:MOST_PANELS]
    if not len(shown):
        return None
    first, second = contrast.split(" - ")
    colours = arm_colours(arms)
    of = pair.measure
    with mpl.rc_context(STYLE | {"axes.titlesize": 8, "font.size": 8}):
        figure, axes = panels(len(shown), 4, (1.95, 1.3), title=0.36, sharey=False)
        for ax, k in zip(axes, shown, strict=True):
            row = family.iloc[k]
            _seeds(ax, pair, k, colours[first], colours[second])
            _difference(ax, row, of.factor)
            ax.set_title(f"{MARKS[row['verdict']]} {label(row, fields)}", loc="left", pad=13)
            ax.text(0, 1.04, f"{difference(row)}, n = {row['n']}", transform=ax.transAxes, fontsize=7)
            ax.set_xlim(-0.3, 2.5)
            ax.set_xticks([0, 1, 2], [second, first, "difference"])
            ax.grid(axis="x", visible=False)
        figure.supylabel(f"{of.title} ({'%' if of.unit == 'pp' else of.unit})", fontsize=8)
        verdicts = [verdict for verdict in MARKS if verdict in set(family["verdict"].iloc[shown])]
        handles = [Line2D([], [], marker="o", linewidth=0, color=colours[arm], label=arm) for arm in (second, first)]
        handles += [
            Line2D([], [], marker="D", color=VERDICT_COLOURS[v], label=f"{minus(contrast)}: {MARKS[v]} {v}")
            for v in verdicts
        ]
        figure.legend(handles=handles, loc="upper left", ncols=len(handles))
    return figure


def _seeds(ax, pair: Paired, k: int, colour_a, colour_b) -> None:
    """Lines from the second arm's values (x = 0) to the first's (x = 1); one artist each for lines, dots and crosses."""
    there = pair.both[:, k]
    a, b = (values[there, k] * pair.measure.factor for values in (pair.a, pair.b))
    if len(a) <= MOST_SEEDS:
        segments = np.stack([np.column_stack([np.zeros(len(a)), b]), np.column_stack([np.ones(len(a)), a])], axis=1)
        ax.add_collection(LineCollection(segments, colors="#b5bcc2", linewidths=0.6))
    else:
        ax.fill_between([0, 1], [b.min(), a.min()], [b.max(), a.max()], color="#e3e6e8", linewidth=0)
    for x, values, diverged, colour in ((1, a, pair.diverged[0], colour_a), (0, b, pair.diverged[1], colour_b)):
        lost = diverged[there, k]
        if not lost.all():
            ax.plot(np.full((~lost).sum(), x), values[~lost], "o", color=colour, markersize=2.6, markeredgewidth=0)
        if lost.any():
            ax.plot(np.full(lost.sum(), x), values[lost], "x", color=colour, markersize=4)


def _difference(ax, row: pd.Series, factor: float) -> None:
    """The mean difference at x = 2, counted from the second arm's mean, with its interval and the margin."""
    zero = row["mean_b"] * factor
    ax.plot([0, 2.4], [zero, zero], color="#777777", linewidth=0.7, linestyle="dotted")
    if np.isfinite(row["margin"]):
        reach = row["margin"] * factor
        ax.fill_between([1.6, 2.4], zero - reach, zero + reach, color="#e6eef4", linewidth=0, zorder=0)
    colour = VERDICT_COLOURS[row["verdict"]]
    low, high = (zero + row[name] * factor for name in ("low", "high"))
    if np.isfinite(low):
        ax.plot([2, 2], [low, high], color=colour, linewidth=1.8)
    ax.plot(2, zero + row["difference"] * factor, "D", color=colour, markersize=4)
