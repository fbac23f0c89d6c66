"""What `curves` found, as sentences and as a picture."""

from collections.abc import Sequence

import matplotlib as mpl
import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.ticker import MaxNLocator

from grids import Grid
from reports.curves import HALFWAY, disagreements
from reports.figures import MOST_PANELS, STYLE
from reports.measures import Measure, measure
from reports.outcomes import FIELDS_OF_A_PAIR, Results
from reports.words import amount, interval, label, listed, minus

MOST_NAMED = 3  # cells in a sentence


def sentences(
    results: Results,
    limits: dict[str, float],
    over: pd.DataFrame,
    effect: pd.DataFrame,
    frame: pd.DataFrame,
    fields: Sequence[str],
) -> list[str]:
    """What a reader may take from this file's numbers, in words.

    results, limits: of with_curves; over: of over_epochs; effect: of statistics_effect; frame: of compare. fields: those
    that tell a cell from the others.
    """
    return [
        *_on_thresholds(results.runs, limits),
        *_on_epochs(over, fields),
        *_on_statistics(named_by_arm(effect, results.grid), fields),
        *_on_disagreements(frame, fields),
    ]


def _on_thresholds(runs: pd.DataFrame, limits: dict[str, float]) -> list[str]:
    words = []
    for name, limit in limits.items():
        here = runs[(runs["dataset"] == name) & runs["epochs_to_threshold"].notna()]
        if here.empty:
            continue
        guess = 1 / here["classes"].max()
        best = guess + (limit - guess) / HALFWAY
        at_once = (here["epochs_to_threshold"] == 1).mean()
        never = (here["epochs_to_threshold"] > here["epochs"]).mean()
        words.append(
            f"On {name}, time to threshold is the first epoch with a validation accuracy of at least {100 * limit:.1f} %, "
            f"halfway from guessing ({100 * guess:.1f} %) to the best cell's mean after its last epoch "
            f"({100 * best:.1f} %). Of {len(here):,} finished runs, {100 * at_once:.0f} % are there after one epoch, and "
            f"{100 * never:.0f} % are not after their last: these count as one epoch more, and so do runs that diverged."
        )
    return words


def _on_epochs(over: pd.DataFrame, fields: Sequence[str]) -> list[str]:
    over = over[np.isfinite(over["low_family"])]
    if over.empty:
        return []
    below, above = np.sign(over["low_family"]), np.sign(over["high_family"])
    sign = below.where(below == above, 0.0)
    by_cell = sign.groupby([over[field] for field in FIELDS_OF_A_PAIR], sort=False, dropna=False)
    least, most, last = by_cell.min(), by_cell.max(), by_cell.last() != 0
    ever, turned = (least < 0) | (most > 0), (least < 0) & (most > 0)
    of, contrast = measure(over["metric"].iloc[0]), minus(over["contrast"].iloc[0])
    text = (
        f"In validation {of.kind.replace('_', ' ')}, {contrast}: zero lies outside the band over all epochs and cells "
        f"in some epoch of {ever.sum()} of {len(ever)} cells, and in the last epoch of {last.sum()}."
    )
    if (ever & ~last).any():
        text += f" No more in the last epoch, which does not show that it is gone: {_named(ever & ~last, fields)}."
    if turned.any():
        text += f" Its sign turns in: {_named(turned, fields)}."
    return [text]


def _named(chosen: pd.Series, fields: Sequence[str]) -> str:
    cells = chosen.index[chosen].to_frame(index=False)
    return listed([label(cell, fields) for cell in cells.head(MOST_NAMED).to_dict("records")], len(cells))


def named_by_arm(effect: pd.DataFrame, grid: Grid) -> pd.DataFrame:
    """The rows of statistics_effect with the grid's names of its orders."""
    return effect.assign(of=effect["of"].replace({order: arm for arm, order in grid.analysis.arms.items()}))


def _on_statistics(effect: pd.DataFrame, fields: Sequence[str]) -> list[str]:
    words = []
    for (kind, metric), rows in effect.groupby(["kind", "metric"], sort=False):
        of = measure(metric)
        found = rows[rows["different"]]
        found = found.loc[found["difference"].abs().sort_values(ascending=False, kind="stable").index]
        family = f"{len(found)} of {len(rows)} {'cells and orders' if kind == 'order' else 'comparisons'}"
        text = (
            f"{of.title.capitalize()} with running averages is another than with statistics re-estimated over the training "
            f"part in {family}"
            if kind == "order"
            else f"Of differences in {of.title} between two orders with bn, a part comes from running averages in {family}"
        )
        text += f" (Holm over {len(effect)} tests)."
        if len(found):
            named = [
                f"{_subject(row, fields)} {interval(of, row['difference'], row['low'], row['high'])}{_parts(row, of)}"
                for _, row in found.head(MOST_NAMED).iterrows()
            ]
            text += f" Largest: {listed(named, len(found))}."
        if lost := rows["diverged"].sum():
            what = "runs" if kind == "order" else "pairs"
            text += f" Diverged {what} have no such statistics and are missing here: {lost}."
        words.append(text)
    return words


def _subject(row: pd.Series, fields: Sequence[str]) -> str:
    return f"{label(row, fields)}, {minus(row['of'])}"


def _parts(row: pd.Series, of: Measure) -> str:
    if row["kind"] == "order":
        return ""
    running, fresh = (f"{amount(row[state], of, signed=True)} {of.unit}" for state in ("running", "reestimated"))
    return f" of {running} ({fresh} re-estimated)"


def _on_disagreements(frame: pd.DataFrame, fields: Sequence[str]) -> list[str]:
    found = disagreements(frame)
    asked = frame["metric"].isin(["test_accuracy", "test_loss"])
    both = frame[asked].groupby([*FIELDS_OF_A_PAIR, "contrast"], dropna=False)["metric"].nunique() == 2
    if not both.any():
        return []
    text = f"Test accuracy and test loss differ in favour of different arms in {len(found)} of {both.sum()} comparisons"
    parts = []
    for _, row in found.head(MOST_NAMED).iterrows():
        numbers = []
        for kind in ("accuracy", "loss", "calibration_error"):
            ends = [row[f"{kind}_{name}"] for name in ("difference", "low", "high")]
            if np.isfinite(ends[0]):
                numbers.append(f"{kind.replace('_', ' ')} {interval(measure(f'test_{kind}'), *ends)}")
        parts.append(
            f"{label(row, fields)}, {minus(row['contrast'])}: {', '.join(numbers)}, so that accuracy favours "
            f"{row['favoured_by_accuracy']} and loss {row['favoured_by_loss']}"
        )
    return [text + (f": {listed(parts, len(found))}." if parts else ".")]


def band_figure(frame: pd.DataFrame, fields: Sequence[str]) -> Figure | None:
    """Differences over epochs with their band, a panel a cell, a dot where the band leaves zero out. frame: of over_epochs.

    None where no epoch has two pairs.
    """
    frame = frame[np.isfinite(frame["low"])]
    if frame.empty:
        return None
    if fields:
        frame = frame.merge(frame[list(fields)].drop_duplicates().head(MOST_PANELS), on=list(fields))
    groups = dict(iter(frame.groupby(list(fields), sort=False))) if fields else {(): frame}
    panels = list(groups)
    of, contrast = measure(frame["metric"].iloc[0]), frame["contrast"].iloc[0]
    numbers = [field for field in fields if pd.api.types.is_numeric_dtype(frame[field])]
    wide = frame[numbers[0]].nunique() if numbers else 1
    wide = wide if 1 < wide <= 6 else min(4, len(panels))
    high = -(-len(panels) // wide)
    share, colour = of.kind != "loss", sns.color_palette("colorblind")[0]
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(max(5.0, min(10.6, 3.3 * wide + 0.6)), 1.7 * high + 0.9), layout="constrained")
        axes = figure.subplots(high, wide, squeeze=False, sharex=True, sharey=share).ravel()
        limits = _limits(pd.concat([groups[panel] for panel in panels]), of.factor)
        for ax, panel in zip(axes, panels, strict=False):
            here = groups[panel]
            epoch, mean = here["epoch"].to_numpy(), here["difference"].to_numpy() * of.factor
            ends = here[["low", "high"]].to_numpy().T * of.factor
            clear = (ends[0] > 0) | (ends[1] < 0)
            ax.axhline(0, color="#555555", linewidth=0.8)
            ax.fill_between(epoch, *ends, color=colour, alpha=0.25, linewidth=0)
            ax.vlines(epoch, *ends, color=colour, alpha=0.35, linewidth=1)  # the band holds at these epochs
            ax.plot(epoch, mean, color=colour, linewidth=1.3)
            ax.plot(epoch[clear], mean[clear], "o", color=colour, markersize=3)
            ax.set_ylim(*(limits if share else _limits(here, of.factor)))
            ax.xaxis.set_major_locator(MaxNLocator(nbins=5, integer=True))
            ax.set_title(label(dict(zip(fields, panel, strict=True)), fields))
        for ax in axes[len(panels) :]:
            ax.set_visible(False)
        figure.supxlabel("epoch", fontsize=9)
        name = of.kind.replace("_", " ")
        figure.supylabel(f"validation {name},\n{minus(contrast)} ({of.unit})", fontsize=9)
        handles = [
            Line2D([], [], color=colour, linewidth=1.3, label="mean difference"),
            Patch(color=colour, alpha=0.35, linewidth=0, label="95 % band, all epochs of a panel at once"),
            Line2D([], [], color=colour, marker="o", markersize=3, linewidth=0, label="zero outside the band"),
        ]
        figure.legend(handles=handles, loc="outside upper center", ncols=len(handles))
    return figure


def _limits(frame: pd.DataFrame, factor: float) -> tuple[float, float]:
    """Ends of an axis that shows zero, every mean, and bands but for the widest, which must not flatten the rest."""
    means = frame["difference"].to_numpy() * factor
    low = min(0.0, means.min(), np.quantile(frame["low"], 0.02) * factor)
    high = max(0.0, means.max(), np.quantile(frame["high"], 0.98) * factor)
    room = 0.06 * (high - low) or 1.0
    return low - room, high + room
