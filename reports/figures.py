"""Figures of a report, each from a data frame to a matplotlib figure. Colours are safe for the colour-blind."""

import io
import re
import warnings
from collections.abc import Sequence
from pathlib import Path

import matplotlib as mpl
import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator
from scipy import stats

from reports.measures import measure
from reports.words import label, minus, plain

mpl.use("Agg")
STYLE = {
    "svg.fonttype": "none", "svg.hashsalt": "normorder", "font.family": "sans-serif", "font.size": 9,
    "axes.spines.top": False, "axes.spines.right": False, "axes.titlesize": 9, "axes.titleweight": "bold",
    "axes.grid": True, "grid.color": "#e6e6e6", "grid.linewidth": 0.6, "axes.axisbelow": True,
    "text.parse_math": False, "legend.frameon": False, "figure.dpi": 100,
}  # fmt: skip
MARKS = {"different": "●", "equivalent": "=", "negligible": "≈", "underpowered": "?", "inconclusive": "○"}
_PALETTE = sns.color_palette("colorblind")
VERDICT_COLOURS = {
    "different": _PALETTE[3], "equivalent": _PALETTE[0], "negligible": _PALETTE[9],
    "underpowered": "#8a8a8a", "inconclusive": "#c0a000",
}  # fmt: skip
_ARM_COLOURS = [_PALETTE[i] for i in (7, 0, 1, 2, 4, 5, 8, 9)]
_ARM_LINES = ("solid", "dashed", "dashdot", "dotted")
MOST_ROWS, MOST_PANELS, MOST_COLUMNS = 60, 24, 6
MOST_ACROSS = 12  # columns of a heatmap
A_LETTER = 0.075  # inches of width, at most, of a name's
MOST_FAMILIES = 12  # with a heatmap and a forest each


def left_out(frame: pd.DataFrame, fields: Sequence[str], primary) -> str:
    """A sentence on what the figures of a large grid do not show; empty where they show all."""
    family = frame[(frame["metric"] == primary.metric) & (frame["contrast"] == primary.contrast)]
    parts = []
    if len(family) > MOST_ROWS:
        parts.append(f"intervals the {MOST_ROWS} largest of {len(family)} differences")
    rows, columns = _rows_and_columns(fields)
    if len(family[rows].drop_duplicates()) > MOST_ROWS:
        parts.append(f"heatmaps the first {MOST_ROWS} rows")
    if len(family) > MOST_PANELS:
        parts.append(f"curves and seeds the first {MOST_PANELS} cells")
    if columns and family[columns[0]].nunique() > MOST_COLUMNS:
        parts.append(f"single runs the first {MOST_COLUMNS} values of {columns[0]}")
    if columns and family[columns[0]].nunique() > MOST_ACROSS:
        parts.append(f"heatmaps the first {MOST_ACROSS}")
    families = len(frame[["metric", "contrast"]].drop_duplicates())
    if families > MOST_FAMILIES:
        parts.append(f"heatmaps and intervals {MOST_FAMILIES} of {families} families")
    return f"Figures show only {'; '.join(parts)}. The files have all." if parts else ""


def arm_colours(arms: Sequence[str]) -> dict[str, object]:
    """A colour for each arm, the same in every figure."""
    palette = _ARM_COLOURS if len(arms) <= len(_ARM_COLOURS) else sns.color_palette("husl", len(arms))
    return dict(zip(arms, palette, strict=False))


def arm_lines(arms: Sequence[str]) -> dict[str, str]:
    """A style of line for each arm, so that colour is not all that tells them apart."""
    return {arm: _ARM_LINES[i % len(_ARM_LINES)] for i, arm in enumerate(arms)}


def save(figure: Figure, folder: Path, name: str) -> str:
    """Write name.svg and name.png into `folder`; give the SVG as text for a page."""
    folder.mkdir(parents=True, exist_ok=True)
    text = io.StringIO()
    # The names inside an SVG come from its salt: figures of one page must not share them, nor change them.
    with mpl.rc_context(STYLE | {"svg.hashsalt": name}), warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph .* missing from font")  # of a name in another script; SVG keeps it
        if figure.get_layout_engine() is not None:
            figure.draw_without_rendering()
            figure.set_layout_engine(None)  # the layout is found, once for both files
        figure.savefig(text, format="svg", metadata={"Date": None})
        figure.savefig(folder / f"{name}.png", dpi=160, metadata={"Software": None})
    svg = text.getvalue()
    (folder / f"{name}.svg").write_text(svg, encoding="utf-8")
    return _slim(svg[svg.index("<svg") :])


def _slim(svg: str) -> str:
    """An SVG without metadata, comments and the numbered names of its groups, which nothing refers to."""
    svg = re.sub(r"<metadata>.*?</metadata>|<!--.*?-->", "", svg, flags=re.DOTALL)
    return re.sub(r"\n\s*", "\n", re.sub(r' id="[A-Za-z][\w.]*?[A-Za-z]_\d+"', "", svg))


def colour_limit(frame: pd.DataFrame, metric: str) -> float:
    """Where the colours of a metric's heatmaps end: the 90 % quantile of the sizes of its differences, in its unit.

    One diverged cell would else make all others pale. The number says the rest.
    """
    sizes = frame.loc[frame["metric"] == metric, "difference"].abs().dropna().to_numpy() * measure(metric).factor
    return max(float(np.quantile(sizes, 0.9)) if len(sizes) else 0.0, 10.0 ** -measure(metric).decimals)


def heatmap(frame: pd.DataFrame, metric: str, contrast: str, fields: Sequence[str]) -> Figure:
    """Differences of one family; rows activation, columns depth where these vary. Verdicts marked, red: first arm better."""
    rows, columns = _rows_and_columns(fields)
    of = measure(metric)
    limit = colour_limit(frame, metric)
    table = _pivot(frame[(frame["metric"] == metric) & (frame["contrast"] == contrast)], rows, columns)
    shown = table.map(lambda row: _difference(row) * of.factor).to_numpy(float)
    words = table.map(lambda row: _cell_words(row, of.factor)).to_numpy()
    high, wide = table.shape
    with mpl.rc_context(STYLE | {"axes.grid": False}):
        longest = max(len(str(name)) for name in table.index)
        size = (max(3.4, 0.6 * wide + 0.065 * longest + 1.05), max(1.9, 0.34 * high + 0.7))
        figure = Figure(figsize=size, layout="constrained")
        ax = figure.subplots()
        sns.heatmap(
            shown, ax=ax, cmap="vlag" if of.larger_is_better else "vlag_r", vmin=-limit, vmax=limit, annot=words, fmt="",
            linewidths=1, linecolor="white", annot_kws={"size": 8},
            xticklabels=list(table.columns), yticklabels=list(table.index),
        )  # fmt: skip
        shows = f"{of.title}, {minus(contrast)} ({of.unit})"
        ax.set(facecolor="#dddddd", ylabel=" · ".join(rows))
        ax.set_xlabel("\n".join([*columns, shows]), loc="center" if wide > 1 else "right")  # else it is cut
        ax.tick_params(length=0, rotation=0)
    return figure


def _rows_and_columns(fields: Sequence[str]) -> tuple[list[str], list[str]]:
    """Numbers that vary go into columns, names into rows; all but one of several numbers join the rows."""
    columns = [
        f for f in ("depth", "lr", "init_gain", "width", "epochs", "batch", "train_size", "label_noise") if f in fields
    ][:1]
    rows = [f for f in fields if f not in columns]
    return (rows, columns) if rows else (columns, [])


def _pivot(frame: pd.DataFrame, rows: list[str], columns: list[str]) -> pd.DataFrame:
    """The rows of `frame` as dicts in a table, in the grid's order, as far as there is room; None where there is none."""
    table: dict[str, dict[str, dict]] = {}
    names: dict[str, None] = {}
    if columns:  # before each row becomes a dict, which takes longest
        frame = frame[frame[columns[0]].isin(frame[columns[0]].unique()[:MOST_ACROSS])]
    for row in frame.to_dict("records"):
        down, across = label(row, rows), f"{row[columns[0]]:g}" if columns else ""
        if (across not in names and len(names) == MOST_ACROSS) or (down not in table and len(table) == MOST_ROWS):
            continue
        names[across] = None
        table.setdefault(down, {})[across] = row
    cells = [[row.get(name) for name in names] for row in table.values()]
    return pd.DataFrame(cells, index=list(table), columns=list(names), dtype=object)


def _difference(row) -> float:
    return row["difference"] if isinstance(row, dict) else np.nan


def _cell_words(row, factor: float) -> str:
    if not isinstance(row, dict):
        return ""  # the grid has no such cell
    if not np.isfinite(row["difference"]):
        return "no pairs"
    return f"{plain(row['difference'] * factor, 1 if factor > 1 else 2, signed=True)} {MARKS[row['verdict']]}"


def forest(frame: pd.DataFrame, metric: str, contrast: str, fields: Sequence[str], margin: float | None) -> Figure:
    """Differences of one family with their 95 % intervals and, thinner, those at the family's level."""
    of = measure(metric)
    factor = of.factor
    frame = frame[(frame["metric"] == metric) & (frame["contrast"] == contrast) & frame["difference"].notna()]
    if len(frame) > MOST_ROWS:
        frame = frame.loc[frame["difference"].abs().nlargest(MOST_ROWS).index]
    frame = frame.iloc[::-1]
    shown_of = ("difference", "low", "high", "low_family", "high_family")
    middle, low, high, low_family, high_family = (frame[name].to_numpy() * factor for name in shown_of)
    verdicts, y = frame["verdict"].to_numpy(), np.arange(len(frame))
    ends = _ends(np.concatenate([middle, low, high]), (margin or 0) * factor)
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(6.4, 0.22 * len(frame) + 1.2), layout="constrained")
        ax = figure.subplots()
        if margin is not None:
            ax.axvspan(-margin * factor, margin * factor, color="#e6eef4", zorder=0)
        ax.axvline(0, color="#555555", linewidth=0.8)
        shown = [verdict for verdict in MARKS if verdict in verdicts]
        for verdict in shown:
            at, colour = verdicts == verdict, VERDICT_COLOURS[verdict]
            ax.hlines(y[at], *np.clip([low_family[at], high_family[at]], *ends), color=colour, linewidth=0.9)
            ax.hlines(y[at], *np.clip([low[at], high[at]], *ends), color=colour, linewidth=2.6)
            ax.plot(middle[at], y[at], "o", color=colour, markersize=4.5)
        ax.set_xlim(*ends)
        ax.set_yticks(y, [f"{label(row, fields)}  {MARKS[row['verdict']]}" for row in frame.to_dict("records")])
        ax.set_ylim(-0.7, len(frame) - 0.3)
        ax.grid(axis="y", visible=False)
        ax.set_xlabel(f"{of.title}, {minus(contrast)} ({of.unit})")
        handles = [
            Line2D([], [], marker="o", linewidth=2.6, color=VERDICT_COLOURS[v], label=f"{MARKS[v]} {v}") for v in shown
        ]
        figure.legend(handles=handles, loc="outside upper center", ncols=max(len(shown), 1))
    return figure


def _ends(values: np.ndarray, margin: float) -> tuple[float, float]:
    """An axis for every 95 % interval; wider family intervals may leave it, unbounded ones must not set it."""
    ends = np.append(values[np.isfinite(values)], [-margin, margin])
    room = 0.06 * (ends.max() - ends.min()) or 1.0
    return ends.min() - room, ends.max() + room


def panels(
    count: int, wide: int, size: tuple[float, float], title: float, sharey: bool, legend: int = 1
) -> tuple[Figure, np.ndarray]:
    """A figure of `count` axes, `wide` in a row, each of this size with a title so high (inches), and rows of a legend.

    Placed by reckoning: matplotlib's own layout takes as long as all the drawing.
    """
    wide = min(wide, count)
    high = -(-count // wide)
    left, right, bottom, top = 0.68, 0.12, 0.5, 0.18 + 0.18 * legend + title
    across, down = 0.16 if sharey else 0.42, title + 0.16
    full = (left + wide * size[0] + (wide - 1) * across + right, bottom + high * size[1] + (high - 1) * down + top)
    figure = Figure(figsize=full)
    place = {
        "left": left / full[0], "right": 1 - right / full[0], "bottom": bottom / full[1], "top": 1 - top / full[1],
        "wspace": across / size[0], "hspace": down / size[1],
    }  # fmt: skip
    axes = figure.subplots(high, wide, squeeze=False, sharex=True, sharey=sharey, gridspec_kw=place).ravel()
    for ax in axes[count:]:
        ax.set_visible(False)
    for ax in axes[:count]:
        ax.locator_params(axis="y", nbins=4)
    for ax in axes[max(count - wide, 0) : count]:
        ax.tick_params(axis="x", labelbottom=True)
    return figure, axes[:count]


def curves(
    frame: pd.DataFrame, value: str, fields: Sequence[str], cells: Sequence[tuple], arms: Sequence[str]
) -> Figure | None:
    """Validation `value` over epochs: mean over seeds and its 95 % t interval, a panel a cell, a line an arm.

    frame: rows of `curves` of split val with the cell's fields and `arm`. cells: values of `fields`, a panel each, as far
    as the frame has them. Points with one seed have no band.
    """
    frame = frame[np.isfinite(frame[value].astype(float))]
    groups = dict(iter(frame.groupby(list(fields), sort=False))) if fields else {(): frame}
    shown = [cell for cell in cells if cell in groups][:MOST_PANELS]
    if frame.empty or not shown:
        return None
    _, columns = _rows_and_columns(fields)
    wide = frame[columns[0]].nunique() if columns else 1
    wide = wide if 1 < wide <= 4 else 4
    colours, lines = arm_colours(arms), arm_lines(arms)
    share = value != "loss"
    factor = 100 if share else 1
    with mpl.rc_context(STYLE):
        figure, axes = panels(len(shown), wide, (9.0 / max(wide, 3) - 0.4, 1.25), title=0.22, sharey=share)
        for ax, panel in zip(axes, shown, strict=True):
            here = groups[panel]
            for arm in arms:
                grouped = here[here["arm"] == arm].groupby("epoch")[value].agg(["mean", "sem", "count"])
                if grouped.empty:
                    continue
                half = stats.t.ppf(0.975, np.maximum(grouped["count"] - 1, 1)) * grouped["sem"].fillna(0)
                ax.plot(
                    grouped.index, grouped["mean"] * factor, color=colours[arm], linestyle=lines[arm], linewidth=1.3
                )
                low, high_end = (grouped["mean"] - half) * factor, (grouped["mean"] + half) * factor
                ax.fill_between(grouped.index, low, high_end, color=colours[arm], alpha=0.25, linewidth=0)
            if not share:
                top = np.nanquantile(here[value], 0.98)
                ax.set_ylim(0, max(1.05 * top, 1e-6))  # a diverging seed must not flatten the rest
            ax.set_title(label(dict(zip(fields, panel, strict=True)), fields))
        axes[0].xaxis.set_major_locator(MaxNLocator(nbins=5, integer=True))  # shared by all
        figure.supxlabel("epoch", fontsize=9, y=0.02, va="bottom")
        figure.supylabel(f"validation {value}" + (" (%)" if factor > 1 else " (nats)"), fontsize=9)
        handles = [Line2D([], [], color=colours[arm], linestyle=lines[arm], linewidth=2, label=arm) for arm in arms]
        figure.legend(handles=handles, loc="upper left", ncols=len(arms))
    return figure


def by_arm(frame: pd.DataFrame, metric: str, fields: Sequence[str], arms: Sequence[str]) -> Figure | None:
    """Each finished run's value, by cell and arm: the spread over seeds, with the median. frame: rows of `runs` + `arm`."""
    frame = frame[(frame["status"] == "done") & frame["arm"].notna()]
    if frame.empty:
        return None
    of = measure(metric)
    factor, unit = of.factor, "%" if of.unit == "pp" else of.unit
    rows, columns = _rows_and_columns(fields)
    panels = list(dict.fromkeys(frame[columns[0]])) if columns and rows else [None]
    panels = panels[:MOST_COLUMNS]
    colours = arm_colours(arms)
    kinds = frame[rows].drop_duplicates().head(MOST_ROWS if rows else 1)
    names = [label(row, rows) for row in kinds.to_dict("records")]
    frame = frame.assign(value=frame[metric] * factor)
    frame = frame.merge(kinds.assign(name=names), on=rows) if rows else frame.assign(name=names[0])
    with mpl.rc_context(STYLE):
        size = (min(11, 0.75 + len(panels) * max(2.0, 0.62 * len(names))), 3.1)
        room = (size[0] - 0.75) / len(panels) / len(names)
        upright = 90 if max(map(len, names)) * A_LETTER > room else 0
        figure = Figure(figsize=size, layout="constrained")
        axes = figure.subplots(1, len(panels), squeeze=False, sharey=True)[0]
        for ax, panel in zip(axes, panels, strict=True):
            here = frame if panel is None else frame[frame[columns[0]] == panel]
            _strip(ax, here, names, arms, colours)
            ax.set(title="" if panel is None else f"{columns[0]} {panel:g}", xlabel="", ylabel="")
            ax.set_xticks(range(len(names)), names, rotation=upright)
            ax.grid(axis="x", visible=False)
        axes[0].set_ylabel(f"{metric.replace('_', ' ')} ({unit})")
        handles = [Line2D([], [], marker="o", linewidth=0, color=colours[arm], label=arm) for arm in arms]
        figure.legend(handles=handles, loc="outside upper center", ncols=len(arms))
    return figure


def _strip(ax, frame: pd.DataFrame, names: list[str], arms: Sequence[str], colours: dict) -> None:
    """Points side by side by arm, spread by their rank so that no random jitter is needed; a bar at the median.

    All points of an arm are one artist: an artist each takes seconds.
    """
    step = 0.8 / len(arms)
    place = {name: i for i, name in enumerate(names)}
    frame = frame[frame["name"].isin(place)].sort_values(["name", "value"])
    rank = frame.groupby(["name", "arm"]).cumcount()
    centre = frame["name"].map(place) + (frame["arm"].map(list(arms).index) - (len(arms) - 1) / 2) * step
    frame = frame.assign(centre=centre, x=centre + (rank * 0.618 % 1 - 0.5) * step * 0.7)
    for arm, group in frame.groupby("arm"):
        ax.plot(group["x"], group["value"], "o", color=colours[arm], markersize=2.2, alpha=0.55, markeredgewidth=0)
        median = group.groupby("centre")["value"].median()
        ax.hlines(median, median.index - step * 0.4, median.index + step * 0.4, color=colours[arm], linewidth=1.8)
