"""Pictures of the inside of networks: statistics over the blocks, and histograms of what activations give."""

import itertools
from collections.abc import Sequence
from typing import Literal, NamedTuple

import matplotlib as mpl
import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FixedLocator, FuncFormatter, LogLocator, MaxNLocator, NullLocator

from reports import statistics as st
from reports.figures import MOST_COLUMNS, MOST_PANELS, STYLE, arm_colours, arm_lines, panels
from reports.inside import Inside, block_at, quantiles, shares
from reports.inside_words import significant
from reports.layer_names import LOG, since_when
from reports.outcomes import Results
from reports.rates import own
from reports.words import label
from results import Store
from results.schema import QUANTILES

BINS = 31  # of a histogram: odd, so that 0 lies within one
MOST_EPOCHS = 4  # of a histogram
MOST_HISTOGRAMS = 6  # figures
WIDEST = 4  # times the usual range of an arm: an axis may be so much wider, or one arm would flatten the others
PLACES = ("first", "middle", "last")
LOWEST = QUANTILES.index(0.01)  # of the values that a histogram shows; as many are left out at its other end

Array = np.ndarray


class Shown(NamedTuple):
    """A statistic over the blocks. `site`: where; `scale`: of its axis."""

    statistic: str
    site: str
    title: str
    scale: Literal["share", "log", "plain"]


ACTIVATIONS = (
    Shown("saturated", "act", "share of values where the activation hardly has a slope (%)", "share"),
    Shown("effective_rank", "output", "effective rank of what a block gives", "plain"),
    Shown("dead", "act", "share of channels that are saturated for every example (%)", "share"),
    Shown(LOG + "sd", "output", "standard deviation of what a block gives", "log"),
)
GRADIENTS = (
    Shown(LOG + "gradient_norm", "weight", "norm of the gradient by the weights", "log"),
    Shown(
        LOG + "gradient_change", "weight", "relative change of the gradient when the layers before are updated", "log"
    ),
    Shown(LOG + "update_norm", "weight", "size of a step, relative to the weights", "log"),
    Shown("drift", "input", "drift of a block's input {since}, in standard deviations", "plain"),
)


class Group(NamedTuple):
    """What a panel is about: the deepest of the cells that differ in order and depth only."""

    values: dict[str, object]
    rows: pd.DataFrame


def groups(frame: pd.DataFrame, fields: Sequence[str]) -> list[Group]:
    """The panels of rows with `fields`, of which depth may be one."""
    rest = [field for field in fields if field != "depth"]
    each = frame.groupby(rest, sort=False, dropna=False, observed=True) if rest else [((), frame)]
    found = []
    for key, rows in each:
        if "depth" in fields:
            rows = rows[rows["depth"] == rows["depth"].max()]
        found.append(Group(dict(zip(rest, key, strict=True)) | _depth(rows, fields), rows))
    return found


def _depth(rows: pd.DataFrame, fields: Sequence[str]) -> dict[str, object]:
    return {"depth": rows["depth"].iloc[0]} if "depth" in fields else {}


def left_out(frame: pd.DataFrame, fields: Sequence[str]) -> str:
    """A sentence on what the figures do not show; empty where they show all."""
    parts, there = [], groups(frame, fields)
    if "depth" in fields:
        parts.append("the deepest networks")
    if len(there) > MOST_PANELS // 2:
        parts.append(f"{MOST_PANELS // 2} of {len(there)} kinds of cells over depth")
    if len(there) > MOST_HISTOGRAMS:
        parts.append(f"the first {MOST_HISTOGRAMS} in histograms")
    return f"Figures show only {', '.join(parts)}; layers.csv has all." if parts else ""


class Picture(NamedTuple):
    figure: Figure
    title: str
    about: str  # of how many seeds it is, and what else its title does not say


def _seeds(n: Sequence[int]) -> str:
    return f"n = {min(n)}" if min(n) == max(n) else f"n = {min(n)} to {max(n)}"


def _about(there: Sequence[Group], zero: Sequence[Group], fields: Sequence[str], cut: Sequence[str]) -> str:
    """How deep the networks are where all are alike, of how many seeds the means, `cut`, and which panels are not drawn."""
    rows = pd.concat([each.rows for each in there])
    deep = [f"depth {rows['depth'].iloc[0]}"] if "depth" in fields and rows["depth"].nunique() == 1 else []
    named = [field for field in fields if not (field == "depth" and deep)]
    nothing = [f"0 everywhere: {'; '.join(label(each.values, named) for each in zero)}"] if zero else []
    return ", ".join([*deep, _seeds(rows["n"]), *cut, *nothing])


def over_depth(
    frame: pd.DataFrame, of: Shown, fields: Sequence[str], arms: Sequence[str], since: int | None = None
) -> Picture | None:
    """Means over seeds and their 95 % intervals, block by block; below each other at initialisation and at the end.

    frame: of inside.summary. since: of Inside. None where the statistic is 0, or no run has it.
    """
    there = groups(frame, fields)[: MOST_PANELS // 2]
    of_it = [each.rows[(each.rows["statistic"] == of.statistic) & (each.rows["site"] == of.site)] for each in there]
    there = [Group(each.values, rows[rows["arm"].notna()]) for each, rows in zip(there, of_it, strict=True)]
    zero = [each for each in there if len(each.rows) and (each.rows["mean"] == 0).all() and of.scale != "log"]
    there = [each for each in there if len(each.rows) and all(each is not other for other in zero)]
    if not there:
        return None
    whens = [when for when in ("start", "end") if any(len(_at(each.rows, when)) for each in there)]
    wide = min(len(there), MOST_COLUMNS)
    bands = -(-len(there) // wide)
    one_depth = len({each.values.get("depth") for each in there}) == 1
    named = [field for field in fields if not (field == "depth" and one_depth)]
    longest = max(len(label(each.values, named)) for each in there)
    size = (max(9.4 / max(wide, 3) - 0.16, min(2.6, 0.068 * longest)), 1.15)
    with mpl.rc_context(STYLE | {"axes.titlesize": 8.5}):
        over = _legend_rows(arms, wide * size[0])
        figure, axes = panels(bands * len(whens) * wide, wide, size, title=0.22, sharey=True, legend=over)
        axes = axes.reshape(bands, len(whens), wide)
        drawn = []
        for i in range(bands * wide):
            band, column = divmod(i, wide)
            for row, when in enumerate(whens):
                ax = axes[band, row, column]
                if i >= len(there):
                    ax.set_visible(False)
                    axes[band - 1, -1, column].tick_params(axis="x", labelbottom=True)
                    continue
                rows = _at(there[i].rows, when)
                drawn += _lines(ax, rows, of, arms)
                if row == 0:
                    ax.set_title(label(there[i].values, named) if named else "")
                if column == 0:
                    ax.set_ylabel(_moment(rows, when), fontsize=8)
                    ax.yaxis.set_label_coords(-0.5 / size[0], 0.5)  # beside the longest numbers of its ticks
        mean, low, high = np.hstack(drawn)
        _scale(axes[0, 0, 0], of, mean)
        cut = _cut(axes[0, 0, 0], low, high)
        axes[0, 0, 0].xaxis.set_major_locator(MaxNLocator(nbins=5, integer=True))
        ends = ["0: stem"] if any((each.rows["block"] == 0).any() for each in there) else []
        ends += ["last + 1: head"] if of.site in ("weight", "input") else []
        figure.supxlabel(f"block ({', '.join(ends)})" if ends else "block", fontsize=9, y=0.02, va="bottom")
        _legend(figure, arms, over)
    return Picture(figure, of.title.format(since=since_when(since)), _about(there, zero, fields, cut))


def _at(rows: pd.DataFrame, when: str) -> pd.DataFrame:
    """Those at initialisation, or after the last epoch that any of them has."""
    epoch = 0 if when == "start" else max(rows["epoch"].max(), 1)
    return rows[rows["epoch"] == epoch]


def _moment(rows: pd.DataFrame, when: str) -> str:
    return "initialisation" if when == "start" else f"epoch {rows['epoch'].iloc[0]}" if len(rows) else ""


def _lines(ax, rows: pd.DataFrame, of: Shown, arms: Sequence[str]) -> list[Array]:
    """A line an arm with its band. Gives mean, low and high as drawn, (3, blocks), of those that are finite."""
    colours, lines = arm_colours(arms), arm_lines(arms)
    drawn = []
    for arm in arms:
        here = rows[rows["arm"] == arm].sort_values("block")
        mean, low, high = (_shown(here[name].to_numpy(), of) for name in ("mean", "low", "high"))
        block, bounded = here["block"].to_numpy(), np.isfinite(low) & np.isfinite(high)
        alone = "o" if len(block) == 1 else None
        ax.plot(block, mean, color=colours[arm], linestyle=lines[arm], linewidth=1.3, marker=alone, markersize=3)
        ax.fill_between(block, low, high, where=bounded, color=colours[arm], alpha=0.25, linewidth=0)
        drawn.append(np.stack([mean, low, high])[:, np.isfinite(mean)])
    return drawn


def _shown(value: Array, of: Shown) -> Array:
    with np.errstate(over="ignore"):  # of an interval from two seeds
        return 10.0**value if of.statistic.startswith(LOG) else value * (100 if of.scale == "share" else 1)


def _tick(value: float) -> str:
    return f"{value:g}" if 1e-3 <= value < 1e4 else significant(value).replace("1.00·", "")


def _scale(ax, of: Shown, drawn: Array) -> None:
    """An axis for every mean; wide intervals may leave it. Axes share it."""
    low, high = drawn.min(initial=np.inf), drawn.max(initial=-np.inf)
    if of.scale == "log":
        room = (high / low) ** 0.06 * 1.1
        ax.set_yscale("log")
        ax.set_ylim(low / room, high * room)
        close, wide = MaxNLocator(nbins=3), LogLocator(subs=(1,) if high / low > 50 else (1, 2, 5), numticks=5)
        ax.yaxis.set_major_locator(wide if high / low > 3 else close)
        ax.yaxis.set_major_formatter(FuncFormatter(lambda value, _: _tick(value)))
        ax.yaxis.set_minor_locator(NullLocator())
    else:
        high = 100 if of.scale == "share" and high > 40 else high
        low = 0 if of.scale == "share" else min(low, 0) if low > -0.5 * high else low
        room = 0.06 * (high - low) or 1.0
        ax.set_ylim(low - room, high + room)


def _cut(ax, low: Array, high: Array) -> list[str]:
    """For the caption, that bands do not end within the axis; empty where all that are drawn do."""
    bottom, top = ax.get_ylim()
    drawn = np.isfinite(low) & np.isfinite(high)
    return ["wide intervals leave the axes"] if (drawn & ((low < bottom) | (high > top))).any() else []


def _legend(figure: Figure, arms: Sequence[str], rows: int) -> None:
    colours, lines = arm_colours(arms), arm_lines(arms)
    handles = [Line2D([], [], color=colours[arm], linestyle=lines[arm], linewidth=2, label=arm) for arm in arms]
    figure.legend(handles=handles, loc="upper left", ncols=-(-len(arms) // rows))


def _legend_rows(arms: Sequence[str], inches: float) -> int:
    """How many rows of names fit beside each other."""
    longest = max(map(len, arms)) * 0.075 + 0.6
    return -(-len(arms) // max(1, int((inches + 0.8) / longest)))


# Histograms


def histograms(results: Results, inside: Inside, store: Store, fields: Sequence[str]) -> list[Picture]:
    """Of the first kinds of cells, the deepest of each, what their activations give.

    A figure has the first, middle and last block below each other, and beside each other the epochs.
    """
    arms = results.grid.analysis.arms
    runs = results.runs.assign(arm=results.runs["order"].map({order: arm for arm, order in arms.items()}))
    runs = runs.assign(row=np.arange(len(runs))).iloc[inside.runs]
    kinds = groups(runs[runs["arm"].notna()], fields)[:MOST_HISTOGRAMS]
    wanted = np.concatenate([each.rows["row"].to_numpy() for each in kinds]) if kinds else np.empty(0, int)
    depth = own(results.runs, "depth").to_numpy()

    def blocks(rows: pd.DataFrame) -> Array:
        deep = depth[rows["run"]]
        return np.any([rows["block"] == block_at(place, deep) for place in PLACES], axis=0)

    keys, values = quantiles(results, store, np.sort(wanted), "act", blocks)
    found = []
    for kind in kinds:
        mine = keys["run"].isin(kind.rows["row"]).to_numpy()
        if not mine.any():
            continue
        arm = keys.loc[mine, "run"].map(kind.rows.set_index("row")["arm"])
        figure, n = _histogram(keys[mine].assign(arm=arm).reset_index(drop=True), values[mine], list(arms))
        found.append(Picture(figure, label(kind.values, fields), n))
    return found


def _histogram(keys: pd.DataFrame, values: Array, arms: Sequence[str]) -> tuple[Figure, str]:
    """Panels of blocks and epochs on one axis, and of how many seeds. keys: run, epoch, block, arm of quantiles (N, Q)."""
    epochs, blocks = np.unique(keys["epoch"]), np.unique(keys["block"])
    epochs = epochs[np.linspace(0, len(epochs) - 1, min(len(epochs), MOST_EPOCHS)).round().astype(int)]
    where = {key: rows for key, rows in keys.groupby(["arm", "block", "epoch"]).indices.items() if key[2] in epochs}
    edges = _edges([values[rows] for rows in where.values()])
    middle = (edges[1:] + edges[:-1]) / 2
    colours, lines = arm_colours(arms), arm_lines(arms)
    across, most, seeds, ends = 2.1, 0.0, set(), []
    with mpl.rc_context(STYLE | {"axes.titlesize": 8.5}):
        over = _legend_rows(arms, len(epochs) * across)
        figure, axes = panels(
            len(blocks) * len(epochs), len(epochs), (across, 0.95), title=0.22, sharey=True, legend=over
        )
        for ax, (block, epoch) in zip(axes, itertools.product(blocks, epochs), strict=True):
            ax.set_title(f"block {block}, {f'epoch {epoch}' if epoch else 'initialisation'}")
            for arm in arms:
                rows = where.get((arm, block, epoch))
                if rows is None:
                    continue
                of_layer = pd.DataFrame(100 * shares(values[rows], edges))
                of_run = of_layer.groupby(keys["run"].to_numpy()[rows]).mean().to_numpy()  # where a block has several
                m = st.moments(of_run)
                low, high = st.t_interval(m)
                ax.plot(middle, m.mean, color=colours[arm], linestyle=lines[arm], linewidth=1.2)
                if len(of_run) > 1:
                    ax.fill_between(middle, np.maximum(low, 0), high, color=colours[arm], alpha=0.25, linewidth=0)
                most = max(most, m.mean.max())
                seeds.add(len(of_run))
                ends.append([np.maximum(low, 0), high])
        axes[0].set_yscale("function", functions=(lambda y: np.sqrt(np.maximum(y, 0)), np.square))
        axes[0].set_ylim(0, 1.1 * most)
        cut = _cut(axes[0], *np.hstack(ends))
        axes[0].yaxis.set_major_locator(FixedLocator([1, 5, 20, 50, 100]))
        axes[0].set_xlim(middle[0], middle[-1])
        axes[0].xaxis.set_major_locator(MaxNLocator(nbins=4, steps=[1, 2, 5, 10]))
        axes[0].xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}".replace("-", "−")))
        figure.supxlabel("what the activation gives", fontsize=9, y=0.02, va="bottom")
        figure.supylabel("share of values (%)", fontsize=9)
        _legend(figure, arms, over)
    return figure, ", ".join([_seeds(seeds), *cut])


def _edges(parts: Sequence[Array]) -> Array:
    """Edges of about BINS bins for these quantiles, 0 in the middle of one: from the 1 % to the 99 % quantile of any part.

    Not farther, though, than WIDEST times what parts reach in the middle.
    """
    ends = np.array([np.median(part[:, [LOWEST, -1 - LOWEST]], axis=0) for part in parts])
    most = WIDEST * np.median(np.abs(ends).max(1)) or 1.0
    low, high = max(ends.min(), -most), min(ends.max(), most)
    width = (high - low) / BINS or most / BINS
    return width * (np.arange(np.floor(low / width) - 1, np.ceil(high / width) + 2) + 0.5)
