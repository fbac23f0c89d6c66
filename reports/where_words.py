"""What `where` found, as sentences and as a picture."""

from collections.abc import Iterator

import matplotlib as mpl
import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from reports.figures import STYLE
from reports.where import KINDS, Where
from reports.words import amount, counted, enumerated, interval, listed, minus, p_in_words

MOST_NAMED = 5  # in one sentence
MOST_LEVELS, MOST_PANELS = 20, 8  # of the figure
FOUND, OTHER = sns.color_palette("colorblind")[0], "#8a8a8a"


def sentences(where: Where) -> list[str]:
    """What a reader of the page must know of this family, in words."""
    parts = [_over_all(where), *_flips_in_words(where), *_spread_in_words(where), *_dependence(where)]
    for kind, of in zip(
        KINDS, ("Levels against the mean of their axis", "Beyond what both levels do alone"), strict=True
    ):
        parts.append(_largest(where, kind, of))
    return [part for part in [*parts, *_averaged(where), *_left_out(where)] if part]


def _over_all(where: Where) -> str:
    what = f"{minus(where.contrast)} in {where.measure.title}"
    if not where.seeds[0]:
        return f"No two runs make a pair, so that nothing can be said of {what} over the cells."
    if where.pooled is None:
        sides = [where.different[where.different["sign"] == sign] for sign in (1, -1)]
        words = [f"{'above' if i == 0 else 'below'} 0 in {_different(where, side)}" for i, side in enumerate(sides)]
        return f"No single number sums up {what}: it is {words[0]}; and {words[1]}."
    scope = "In the only cell" if where.cells[0] == 1 else f"Over {where.cells[0]} cells"
    how = "" if where.cells[0] == 1 else "; the mean over cells within each seed, with its 95 % t interval over seeds"
    estimate, low, high, p = where.pooled
    n = counted(where.seeds[0], "seed")
    return f"{scope}, {what} is {interval(where.measure, estimate, low, high)} ({p_in_words(p)}, n = {n}{how})."


def _different(where: Where, rows: pd.DataFrame) -> str:
    """'2 different cells (…)', the largest first."""
    rows = rows.loc[rows["difference"].abs().sort_values(ascending=False, kind="stable").index]
    shown = [
        f"{row['name']} {interval(where.measure, row['difference'], row['low'], row['high'])}, n = {row['n']}"
        for _, row in rows.head(MOST_NAMED).iterrows()
    ]
    return f"{counted(len(rows), 'different cell')} ({listed(shown, len(rows))})"


def _flips_in_words(where: Where) -> Iterator[str]:
    first, second = where.contrast.split(" - ")
    better = (first, second) if where.measure.larger_is_better else (second, first)
    for flip in where.flips:
        sides = [
            f"with {enumerated(levels)} {arm} is better ({counted(number, 'cell')})"
            for arm, levels, number in zip(better, (flip.positive, flip.negative), flip.cells, strict=True)
        ]
        mixed = f", with {enumerated(flip.mixed)} both occur" if flip.mixed else ""
        alone = (
            f"{counted(flip.alike, 'pair')} of these cells {'is' if flip.alike == 1 else 'are'} alike in all but "
            f"{flip.field}"
            if flip.alike
            else f"no two of these cells are alike in all but {flip.field}, so that another axis may be the reason"
        )
        yield f"The sign flips with {flip.field}: wherever the arms differ, {sides[0]}, {sides[1]}{mixed}; {alone}."


def _spread_in_words(where: Where) -> Iterator[str]:
    if where.between is None:
        return
    of, share = where.measure, where.between.i_squared
    tau, low, high = (amount(each, of) for each in where.between[:3])
    yield (
        f"The true differences of the cells have a standard deviation τ of {tau} {of.unit} [{low}, {high}] (95 % interval "
        "from the cell × seed analysis of variance, which takes all cells to vary alike over seeds; "
        f"I² = {share * 100:.0f} %, which grows with the seeds)."
    )
    if where.predicted is None:
        axes = enumerated([flip.field for flip in where.flips])
        yield f"For a new cell nothing is predicted, since the sign depends on {axes}."
    else:
        low, high = (amount(end, where.measure) for end in where.predicted)
        yield (
            f"In a new cell of the same kind the true difference is expected between {low} and {high} "
            f"{where.measure.unit} (95 % prediction interval)."
        )


def _dependence(where: Where) -> Iterator[str]:
    """The joint tests: of what the difference depends, and of what that was not shown."""
    rows, n = where.joint, where.seeds[0]
    if rows.empty:
        return
    found = rows["p_holm"] <= where.alpha
    words = np.array([_joint_in_words(where, row) for _, row in rows.iterrows()], object)
    tests = f"joint sign-flip tests over n = {n} seeds, Holm over {counted(len(rows), 'test')}"
    if found.any():
        yield f"{minus(where.contrast)} depends on {'; '.join(words[found])} ({tests})."
    if len(rows) * 2.0 ** (1 - n) > where.alpha:
        yield (
            f"With {counted(n, 'seed')} none of {len(rows)} joint tests could reject, whatever the differences: of what "
            "it depends they cannot tell; the contrasts below are t tests, which can reject with fewer seeds."
        )
    elif not found.all():
        quiet = rows[~found].sort_values("p_holm", kind="stable").index
        shown = listed(list(words[quiet[:MOST_NAMED]]), len(quiet))
        yield f"Not shown to depend on {shown} ({tests}); that does not show that it is the same everywhere."


def _joint_in_words(where: Where, row: pd.Series) -> str:
    of, effects = where.measure, where.effects
    its_own = effects[(effects["field"] == row["field"]) & (effects["with_field"] == row["with_field"])]["estimate"]
    low, high = (amount(end, of, signed=True) for end in (its_own.min(), its_own.max()))
    name = f"{row['field']} together with {row['with_field']}" if row["with_field"] else row["field"]
    return f"{name} (from {low} to {high} {of.unit}, {p_in_words(row['p_holm'])})"


def _largest(where: Where, kind: str, of: str) -> str:
    """The contrasts of this kind that Holm leaves, the largest first."""
    rows = where.effects[(where.effects["kind"] == kind) & (where.effects["p_holm"] <= where.alpha)]
    if rows.empty:
        return ""
    rows = rows.loc[rows["estimate"].abs().sort_values(ascending=False, kind="stable").index]
    shown = [
        f"{', '.join(filter(None, (row['level'], row['with_level'])))} "
        f"{interval(where.measure, row['estimate'], row['low'], row['high'])}"
        for _, row in rows.head(MOST_NAMED).iterrows()
    ]
    tests = f"t over n = {where.seeds[0]} seeds, Holm over {counted(where.tests, 'contrast')}"
    return f"{of}: {listed(shown, len(rows))} ({tests})."


def _averaged(where: Where) -> Iterator[str]:
    """Main effects are means over the other axes; of an axis along which the sign flips, that must be said."""
    flips = [flip.field for flip in where.flips]
    if flips and len(where.fields) > 1:
        yield (
            f"Effects of the other axes are means over levels of {enumerated(flips)} that have opposite signs: "
            "they say nothing without the interactions."
        )


def _left_out(where: Where) -> Iterator[str]:
    """What the numbers over cells do not rest on, and what the grid cannot tell."""
    for names, why in ((where.without_pairs, "without a pair"), (where.too_few, "with too few pairs")):
        if names:
            first = listed(names[:MOST_NAMED], len(names))
            yield f"Left out of all that is said over cells: {counted(len(names), 'cell')} {why} ({first})."
    used, there = where.seeds
    if used < there:
        yield f"Left out of all that is said over cells: {there - used} of {there} seeds, which lack a pair in some cell."
    if where.diverged:
        holds = "holds" if where.diverged == 1 else "hold"
        yield f"{counted(where.diverged, 'pair')} {holds} a diverged run, which counts with its worst outcome."
    single, double = ([t for t in where.not_told if len(t) == size] for size in (1, 2))
    if single:
        yield (
            f"No effect of {' or '.join(t[0] for t in single)} can be told: "
            "in the cells used it does not vary, or only together with other axes."
        )
    if double:
        shown = listed([f"{a} with {b}" for a, b in double[:MOST_NAMED]], len(double))
        yield f"No interplay can be told of {shown}: not every combination of their levels has a cell."


def effects_figure(where: Where) -> Figure | None:
    """Main effects with 95 % intervals and, thinner, those at the family's level: a panel an axis. None without axes.

    Filled where Holm rejects. An axis with many levels shows the largest effects only and says so, as does the figure of
    the axes that it leaves out.
    """
    rows = where.effects[where.effects["kind"] == "main effect"]
    axes_shown = list(dict.fromkeys(rows["field"]))
    if not axes_shown:
        return None
    panels = []
    for field in axes_shown[:MOST_PANELS]:
        levels = rows[rows["field"] == field]
        chosen = levels.loc[levels["estimate"].abs().nlargest(MOST_LEVELS).index.sort_values()]
        title = field if len(chosen) == len(levels) else f"{field}: the {len(chosen)} largest of {len(levels)} effects"
        panels.append((title, chosen.iloc[::-1]))
    heights = [len(chosen) + 1.5 for _, chosen in panels]
    factor = where.measure.factor
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(7.5, 0.24 * sum(heights) + 1.0), layout="constrained")
        axes = figure.subplots(len(panels), 1, squeeze=False, sharex=True, height_ratios=heights)[:, 0]
        for ax, (title, chosen) in zip(axes, panels, strict=True):
            ax.axvline(0, color="#555555", linewidth=0.8)
            for y, (_, row) in enumerate(chosen.iterrows()):
                found = row["p_holm"] <= where.alpha
                colour = FOUND if found else OTHER
                for ends, width in ((("low_family", "high_family"), 0.9), (("low", "high"), 2.6)):
                    ax.plot(row[list(ends)].to_numpy(float) * factor, [y, y], color=colour, linewidth=width)
                face = colour if found else "white"
                ax.plot(row["estimate"] * factor, y, "o", color=colour, markerfacecolor=face, markersize=5)
            ax.set_yticks(range(len(chosen)), chosen["level"])
            ax.set_ylim(-0.7, len(chosen) - 0.3)
            ax.set_title(title, loc="left")
            ax.grid(axis="y", visible=False)
        _limit(axes[-1], pd.concat([chosen for _, chosen in panels]), factor)
        note = f"; the first {len(panels)} of {len(axes_shown)} axes" if len(panels) < len(axes_shown) else ""
        what = f"{where.measure.title}, {minus(where.contrast)}"
        axes[-1].set_xlabel(f"{what}: level less the mean of its axis ({where.measure.unit}){note}")
        marks = (("Holm rejects", FOUND, FOUND), ("does not", OTHER, "white"))
        handles = [
            Line2D([], [], marker="o", linewidth=2.6, color=c, markerfacecolor=face, label=text)
            for text, c, face in marks
        ]
        figure.legend(handles=handles, loc="outside upper center", ncols=2)
    return figure


def _limit(ax, rows: pd.DataFrame, factor: float) -> None:
    """Wide enough for every 95 % interval; unbounded ones do not set the axis."""
    ends = rows[["estimate", "low", "high"]].to_numpy(float) * factor
    ends = np.append(ends[np.isfinite(ends)], 0.0)
    room = 0.06 * (ends.max() - ends.min()) or 1.0
    ax.set_xlim(ends.min() - room, ends.max() + room)
