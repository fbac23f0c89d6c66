"""Figures of a report, each from a data frame to a matplotlib figure. Colours are safe for the colour-blind."""

import io
from collections.abc import Sequence
from pathlib import Path

import matplotlib as mpl
import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from scipy import stats

from reports.measures import measure

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
MOST_ROWS, MOST_PANELS, MOST_COLUMNS = 60, 24, 6


def label(values: dict[str, object] | pd.Series, fields: Sequence[str]) -> str:
    """'tanh, depth 8': the fields that tell a cell from the others; names speak for themselves, numbers need theirs."""
    return ", ".join(str(values[f]) if isinstance(values[f], str) else f"{f} {values[f]:g}" for f in fields) or "all"


def left_out(frame: pd.DataFrame, fields: Sequence[str], primary) -> str:
    """A sentence on what the figures of a large grid do not show; empty where they show all."""
    family = frame[(frame["metric"] == primary.metric) & (frame["contrast"] == primary.contrast)]
    parts = []
    if len(family) > MOST_ROWS:
        parts.append(
            f"heatmaps the first {MOST_ROWS} rows, intervals the {MOST_ROWS} largest of {len(family)} differences"
        )
    if len(family) > MOST_PANELS:
        parts.append(f"curves the first {MOST_PANELS} cells")
    _, columns = _rows_and_columns(fields)
    if columns and family[columns[0]].nunique() > MOST_COLUMNS:
        parts.append(f"single runs the first {MOST_COLUMNS} values of {columns[0]}")
    return f"Figures show only {'; '.join(parts)}. The files have all." if parts else ""


def arm_colours(arms: Sequence[str]) -> dict[str, object]:
    """A colour for each arm, the same in every figure."""
    palette = _ARM_COLOURS if len(arms) <= len(_ARM_COLOURS) else sns.color_palette("husl", len(arms))
    return dict(zip(arms, palette, strict=False))


def minus(contrast: str) -> str:
    """A contrast with the sign that it means: 'after − before'."""
    return contrast.replace(" - ", " − ")


def save(figure: Figure, folder: Path, name: str) -> str:
    """Write name.svg and name.png into `folder`; give the SVG as text for a page."""
    folder.mkdir(parents=True, exist_ok=True)
    text = io.StringIO()
    with mpl.rc_context(STYLE):  # the names inside an SVG come from its salt
        figure.savefig(text, format="svg", metadata={"Date": None})
        figure.savefig(folder / f"{name}.png", dpi=160, metadata={"Software": None})
    svg = text.getvalue()
    (folder / f"{name}.svg").write_text(svg, encoding="utf-8")
    return svg[svg.index("<svg") :]


def heatmap(frame: pd.DataFrame, metric: str, fields: Sequence[str]) -> Figure:
    """Differences of one metric, a panel a contrast; rows activation, columns depth where these vary. Verdicts marked."""
    rows, columns = _rows_and_columns(fields)
    of = measure(metric)
    factor, unit = of.factor, of.unit
    frame = frame[frame["metric"] == metric]
    contrasts = list(frame["contrast"].unique())
    tables = [_pivot(frame[frame["contrast"] == c], rows, columns) for c in contrasts]
    height, width = tables[0].shape
    sizes = np.abs(np.concatenate([table.map(_difference).to_numpy(float).ravel() for table in tables])) * factor
    sizes = sizes[np.isfinite(sizes)]
    # Colours end at the 90 % quantile: one diverged cell would else make all others pale. The number says the rest.
    limit = max(float(np.quantile(sizes, 0.9)) if len(sizes) else 0.0, 1e-9)
    with mpl.rc_context(STYLE | {"axes.grid": False}):
        size = (max(3.4, 0.9 * width * len(tables) + 2.2), max(1.6, 0.38 * height + 1.0))
        figure = Figure(figsize=size, layout="constrained")
        axes = figure.subplots(1, len(tables), squeeze=False, sharey=True)[0]
        palette = "vlag" if measure(metric).larger_is_better else "vlag_r"  # red: the first arm does better
        for ax, contrast, table in zip(axes, contrasts, tables, strict=True):
            shown = table.map(lambda row: _difference(row) * factor).to_numpy(float)
            words = table.map(lambda row: _cell_words(row, factor)).to_numpy()
            sns.heatmap(
                shown, ax=ax, cmap=palette, vmin=-limit, vmax=limit, annot=words, fmt="", cbar=ax is axes[-1],
                cbar_kws={"label": f"difference ({unit})"}, linewidths=1, linecolor="white", annot_kws={"size": 8},
                xticklabels=list(table.columns), yticklabels=list(table.index),
            )  # fmt: skip
            ax.set(title=minus(contrast), facecolor="#dddddd")
            ax.set_xlabel(" · ".join(columns))
            ax.tick_params(length=0, rotation=0)
        axes[0].set_ylabel(" · ".join(rows))
    return figure


def _rows_and_columns(fields: Sequence[str]) -> tuple[list[str], list[str]]:
    """Numbers that vary go into columns, names into rows; all but one of several numbers join the rows."""
    columns = [f for f in ("depth", "lr", "width", "epochs", "batch") if f in fields][:1]
    rows = [f for f in fields if f not in columns]
    return (rows, columns) if rows else (columns, [])


def _pivot(frame: pd.DataFrame, rows: list[str], columns: list[str]) -> pd.DataFrame:
    """The rows of `frame` as objects in a table, in the grid's order; None where there is none."""
    keys = [(label(row, rows), label(row, columns) if columns else "") for _, row in frame.iterrows()]
    keys = [(r, c.removeprefix(f"{columns[0]} ") if columns else c) for r, c in keys]
    index, names = (list(dict.fromkeys(k[i] for k in keys)) for i in (0, 1))
    table = pd.DataFrame(None, index=index, columns=names, dtype=object)
    for key, (_, row) in zip(keys, frame.iterrows(), strict=True):
        table.at[key] = row
    return table.head(MOST_ROWS)


def _difference(row) -> float:
    return row["difference"] if isinstance(row, pd.Series) else np.nan


def _cell_words(row, factor: float) -> str:
    if not isinstance(row, pd.Series):
        return ""  # the grid has no such cell
    if not np.isfinite(row["difference"]):
        return "no pairs"
    number = row["difference"] * factor
    return f"{number:+.{1 if factor > 1 else 2}f} {MARKS[row['verdict']]}"


def forest(frame: pd.DataFrame, metric: str, contrast: str, fields: Sequence[str], margin: float | None) -> Figure:
    """Differences of one family with their 95 % intervals and, thinner, those at the family's level."""
    of = measure(metric)
    factor, unit = of.factor, of.unit
    frame = frame[(frame["metric"] == metric) & (frame["contrast"] == contrast) & frame["difference"].notna()]
    if len(frame) > MOST_ROWS:
        frame = frame.loc[frame["difference"].abs().nlargest(MOST_ROWS).index]
    frame = frame.iloc[::-1]
    first, second = contrast.split(" - ")
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(9.0, 0.24 * len(frame) + 1.2), layout="constrained")
        ax = figure.subplots()
        if margin is not None:
            ax.axvspan(-margin * factor, margin * factor, color="#eef3f7", zorder=0)
        ax.axvline(0, color="#555555", linewidth=0.8)
        for y, (_, row) in enumerate(frame.iterrows()):
            colour = VERDICT_COLOURS[row["verdict"]]
            ax.plot(np.array([row["low_family"], row["high_family"]]) * factor, [y, y], color=colour, linewidth=0.9)
            ax.plot(np.array([row["low"], row["high"]]) * factor, [y, y], color=colour, linewidth=2.6)
            ax.plot(row["difference"] * factor, y, "o", color=colour, markersize=4.5)
        _limit_axis(ax, frame, factor, margin)
        ax.set_yticks(range(len(frame)), [label(row, fields) for _, row in frame.iterrows()])
        ax.set_ylim(-0.7, len(frame) - 0.3)
        ax.grid(axis="y", visible=False)
        ax.set_xlabel(f"{metric.replace('_', ' ')}, {first} − {second} ({unit})")
        shown = [v for v in MARKS if v in set(frame["verdict"])]
        handles = [Line2D([], [], marker="o", linewidth=2.6, color=VERDICT_COLOURS[v], label=v) for v in shown]
        figure.legend(handles=handles, loc="outside upper center", ncols=max(len(shown), 1))
    return figure


def _limit_axis(ax, frame: pd.DataFrame, factor: float, margin: float | None) -> None:
    """Wide enough for every 95 % interval; wider family intervals may leave the axis, unbounded ones must not set it."""
    ends = frame[["low", "high"]].to_numpy(float) * factor
    ends = np.append(ends[np.isfinite(ends)], [-(margin or 0) * factor, (margin or 0) * factor])
    room = 0.06 * (ends.max() - ends.min()) or 1.0
    ax.set_xlim(ends.min() - room, ends.max() + room)


def curves(
    frame: pd.DataFrame, value: str, fields: Sequence[str], cells: Sequence[tuple], arms: Sequence[str]
) -> Figure | None:
    """Validation `value` over epochs: mean over seeds and its 95 % t interval, a panel a cell, a line an arm.

    frame: rows of `curves` of split val with the cell's fields and `arm`. cells: values of `fields`, a panel each, as far
    as the frame has them. Points with one seed have no band.
    """
    frame = frame[np.isfinite(frame[value].astype(float))]
    groups = dict(iter(frame.groupby(list(fields), sort=False))) if fields else {(): frame}
    panels = [cell for cell in cells if cell in groups][:MOST_PANELS]
    if frame.empty or not panels:
        return None
    _, columns = _rows_and_columns(fields)
    wide = frame[columns[0]].nunique() if columns else 1
    wide = wide if 1 < wide <= 6 else min(4, len(panels))
    high = -(-len(panels) // wide)
    colours = arm_colours(arms)
    share = value != "loss"
    factor = 100 if share else 1
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(min(10.6, 3.3 * wide + 0.6), 1.7 * high + 0.7), layout="constrained")
        axes = figure.subplots(high, wide, squeeze=False, sharex=True, sharey=share).ravel()
        for ax, panel in zip(axes, panels, strict=False):
            here = groups[panel]
            for arm in arms:
                grouped = here[here["arm"] == arm].groupby("epoch")[value].agg(["mean", "sem", "count"])
                if grouped.empty:
                    continue
                half = stats.t.ppf(0.975, np.maximum(grouped["count"] - 1, 1)) * grouped["sem"].fillna(0)
                ax.plot(grouped.index, grouped["mean"] * factor, color=colours[arm], linewidth=1.3)
                low, high_end = (grouped["mean"] - half) * factor, (grouped["mean"] + half) * factor
                ax.fill_between(grouped.index, low, high_end, color=colours[arm], alpha=0.25, linewidth=0)
            if not share:
                top = np.nanquantile(here[value], 0.98)
                ax.set_ylim(0, max(1.05 * top, 1e-6))  # a diverging seed must not flatten the rest
            ax.set_title(label(dict(zip(fields, panel, strict=True)), fields))
        for ax in axes[len(panels) :]:
            ax.set_visible(False)
        figure.supxlabel("epoch", fontsize=9)
        figure.supylabel(f"validation {value}" + (" (%)" if factor > 1 else " (nats)"), fontsize=9)
        handles = [Line2D([], [], color=colours[arm], linewidth=2, label=arm) for arm in arms]
        figure.legend(handles=handles, loc="outside upper center", ncols=len(arms))
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
    names = list(dict.fromkeys(label(row, rows) for row in frame[rows].drop_duplicates().to_dict("records")))[
        :MOST_ROWS
    ]
    frame = frame.assign(
        value=frame[metric] * factor, name=[label(row, rows) for row in frame[rows].to_dict("records")]
    )
    with mpl.rc_context(STYLE):
        size = (min(11, 0.75 + len(panels) * max(2.0, 0.62 * len(names))), 3.1)
        figure = Figure(figsize=size, layout="constrained")
        axes = figure.subplots(1, len(panels), squeeze=False, sharey=True)[0]
        for ax, panel in zip(axes, panels, strict=True):
            here = frame if panel is None else frame[frame[columns[0]] == panel]
            _strip(ax, here, names, arms, colours)
            ax.set(title="" if panel is None else f"{columns[0]} {panel:g}", xlabel="", ylabel="")
            ax.set_xticks(range(len(names)), names, rotation=90 if len(names) > 4 else 0)
            ax.grid(axis="x", visible=False)
        axes[0].set_ylabel(f"{metric.replace('_', ' ')} ({unit})")
        handles = [Line2D([], [], marker="o", linewidth=0, color=colours[arm], label=arm) for arm in arms]
        figure.legend(handles=handles, loc="outside upper center", ncols=len(arms))
    return figure


def _strip(ax, frame: pd.DataFrame, names: list[str], arms: Sequence[str], colours: dict) -> None:
    """Points side by side by arm, spread by their rank so that no random jitter is needed; a bar at the median."""
    step = 0.8 / len(arms)
    for (name, arm), group in frame.groupby(["name", "arm"]):
        if name not in names:
            continue
        centre = names.index(name) + (list(arms).index(arm) - (len(arms) - 1) / 2) * step
        values = np.sort(group["value"].to_numpy(float))
        offsets = (np.arange(len(values)) * 0.618 % 1 - 0.5) * step * 0.7
        ax.plot(centre + offsets, values, "o", color=colours[arm], markersize=2.2, alpha=0.55, markeredgewidth=0)
        ax.plot([centre - step * 0.4, centre + step * 0.4], [np.median(values)] * 2, color=colours[arm], linewidth=1.8)
