"""Where an effect depends on the cell: one family over all its cells and along its axes, as data, in words and as a picture.

A family whose sign flips gets no mean over its cells: the flips are named instead.
"""

import itertools
from collections.abc import Iterator
from typing import NamedTuple

import matplotlib as mpl
import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from reports import effects as fx
from reports import statistics as st
from reports.figures import STYLE, label, minus
from reports.measures import Measure
from reports.outcomes import FIELDS_OF_A_PAIR, Paired, ReportError, Results

FEWEST_CELLS = 10  # for tau and what follows from it
MOST_NAMED = 5  # in one sentence
MOST_LEVELS, MOST_PANELS = 20, 8  # of the figure
FOUND, OTHER = sns.color_palette("colorblind")[0], "#8a8a8a"
NUMBERS = ("estimate", "low", "high", "low_family", "high_family", "p", "p_holm")
EFFECTS = ("kind", "field", "level", "with_field", "with_level", *NUMBERS, "n", "cells")
EXPORT = ("metric", "contrast", *EFFECTS)
KINDS = ("main effect", "interaction")


class Pooled(NamedTuple):
    """The mean over cells, with its 95 % t interval over seeds."""

    estimate: float
    low: float
    high: float
    p: float


class Flip(NamedTuple):
    """An axis of which one level has only positive different cells, another only negative ones."""

    field: str
    positive: tuple[str, ...]  # levels
    negative: tuple[str, ...]
    mixed: tuple[str, ...]
    cells: tuple[int, int]  # different cells of the positive and of the negative levels
    alike: int  # pairs of a positive and a negative cell that are alike in all other fields


class Where(NamedTuple):
    """One family. Numbers are in the metric's own unit, as in the store."""

    measure: Measure
    contrast: str
    alpha: float
    fields: tuple[str, ...]  # in which its cells differ
    seeds: tuple[int, int]  # used, of those that have a pair
    cells: tuple[int, int]  # used, planned
    without_pairs: tuple[str, ...]  # cells left out
    too_few: tuple[str, ...]  # cells left out, since they lack too many pairs
    diverged: int  # of the pairs used, those with a run that diverged
    different: pd.DataFrame  # the different cells: fields, name, difference, low, high, n
    flips: tuple[Flip, ...]
    pooled: Pooled | None  # none where two different cells have opposite signs, or without a pair
    between: fx.Between | None  # none below 10 cells
    predicted: tuple[float, float] | None  # none where the sign flips between levels of an axis
    effects: pd.DataFrame  # EFFECTS: a row a contrast
    tests: int  # contrasts that are not the same but for sign: what Holm counts
    joint: pd.DataFrame  # kind, field, with_field, p, p_holm, n, cells: a row an axis or pair of axes
    not_told: tuple[tuple[str, ...], ...]  # axes and pairs of axes of which no contrast exists


def where(results: Results, measure: Measure, contrast: str, frame: pd.DataFrame) -> Where:
    """What one family says over its cells. frame: of `compare`. ReportError where it lacks the family.

    Everything over cells rests on the same complete table of seeds and cells, by `effects.complete`.
    """
    columns, places = results.columns(contrast)
    family = frame[(frame["metric"] == measure.name) & (frame["contrast"] == contrast)].reset_index(drop=True)
    if len(family) != len(columns):
        raise ReportError(f"{measure.name}, {contrast}: {len(family)} comparisons for {len(columns)} cells")
    pair = Paired(results.runs, measure, places)
    cells = results.cells(columns)
    fields = tuple(field for field in FIELDS_OF_A_PAIR if cells[field].nunique() > 1)
    names = np.array([label(row, fields) for row in cells.to_dict("records")], object)
    there = np.isfinite(pair.d)
    seeds, kept = fx.complete(pair.d)
    used = np.ix_(seeds, kept)
    d, floor = pair.d[used], pair.floor[kept]
    different = _different(family, fields, names)
    flips = tuple(_flips(different, fields))
    terms = dict(_terms(cells[kept], fields))
    alpha = results.grid.analysis.alpha
    effects, tests, joint = _contrasts(d, floor, {term: found for term, found in terms.items() if found}, alpha)
    opposite = different["sign"].nunique() > 1
    enough = kept.sum() >= FEWEST_CELLS and seeds.sum() > 1
    return Where(
        measure=measure,
        contrast=contrast,
        alpha=alpha,
        fields=fields,
        seeds=(int(seeds.sum()), int(there.any(1).sum())),
        cells=(int(kept.sum()), len(columns)),
        without_pairs=tuple(names[~there.any(0)]),
        too_few=tuple(names[there.any(0) & ~kept]),
        diverged=int((pair.diverged[0] | pair.diverged[1])[used].sum()),
        different=different,
        flips=flips,
        pooled=None if opposite or not len(d) else _pooled(d, floor),
        between=fx.Between(*map(float, fx.between_cells(d, floor))) if enough else None,
        predicted=tuple(map(float, fx.prediction(d, floor))) if enough and not flips else None,
        effects=effects,
        tests=tests,
        joint=joint,
        not_told=tuple(term for term, found in terms.items() if not found),
    )


def _different(family: pd.DataFrame, fields: tuple[str, ...], names: np.ndarray) -> pd.DataFrame:
    """The cells with the verdict different, with their sign."""
    rows = family.assign(name=names, sign=np.sign(family["difference"]))
    return rows.loc[rows["verdict"] == "different", [*fields, "name", "sign", "difference", "low", "high", "n"]]


def _flips(different: pd.DataFrame, fields: tuple[str, ...]) -> Iterator[Flip]:
    """The axes along which the sign flips. Cells of a positive and a negative level are never averaged."""
    for field in fields:
        signs = {level: set(group) for level, group in different.groupby(field, sort=False)["sign"]}
        sides = [[level for level, found in signs.items() if found == {sign}] for sign in (1, -1)]
        if not all(sides):
            continue
        rows = [different[different[field].isin(side)] for side in sides]
        others = [other for other in fields if other != field]
        alike = rows[0].merge(rows[1], on=others) if others else rows[0].merge(rows[1], how="cross")
        mixed = [level for level, found in signs.items() if len(found) > 1]
        levels = (tuple(_level(field, level) for level in each) for each in (*sides, mixed))
        yield Flip(field, *levels, tuple(map(len, rows)), len(alike))


def _level(field: str, value: object) -> str:
    return label({field: value}, [field])


def _pooled(d: np.ndarray, floor: np.ndarray) -> Pooled:
    m = fx.over_cells(d, floor)
    return Pooled(*(float(each[0]) for each in (m.mean, *st.t_interval(m), st.t_test(m))))


def _terms(cells: pd.DataFrame, fields: tuple[str, ...]) -> Iterator[tuple[tuple[str, ...], tuple | None]]:
    """Of each axis and each pair of axes that have contrasts: names of their levels (M, 1 or 2) and weights (K, M).

    Pairs of axes are asked about only where both axes have contrasts themselves.
    """
    coded = {field: pd.factorize(cells[field]) for field in fields}  # levels in the grid's order
    levels = np.array([codes for codes, _ in coded.values()]).T.reshape(len(cells), len(fields))
    lost = set()
    for size in (1, 2):
        for term in itertools.combinations(range(len(fields)), size):
            if lost.intersection(term):
                continue
            found = fx.contrast_weights(levels, term) if len(cells) else None
            if not found and size == 1:
                lost.update(term)
            values = [coded[fields[axis]][1] for axis in term]
            yield (
                tuple(fields[axis] for axis in term),
                found
                and (
                    [
                        [_level(fields[axis], v[i]) for axis, v, i in zip(term, values, row, strict=True)]
                        for row in found[0]
                    ],
                    found[1],
                ),
            )


def _contrasts(d: np.ndarray, floor: np.ndarray, terms: dict, alpha: float) -> tuple[pd.DataFrame, int, pd.DataFrame]:
    """The contrasts with t over seeds, Holm over all that are distinct, and their number; the joint tests, with Holm."""
    nothing = [np.zeros((d.shape[1], 0))]
    weights = np.hstack([found for _, found in terms.values()] or nothing)  # (K, M)
    m = fx.combine(d, weights, floor)
    same = fx.distinct(weights) if terms else np.zeros(0, int)
    tests, p = len(set(same)), st.t_test(m)
    (low, high), wide = st.t_interval(m), st.t_interval(m, 1 - alpha / max(tests, 1))
    numbers = (m.mean, low, high, *wide, p, fx.holm_distinct(p, same), m.n)
    rows = []
    for term, (levels, _) in terms.items():
        for row in levels:
            place = [part for pair in zip(term, row, strict=True) for part in pair]
            rows.append([KINDS[len(term) - 1], *place, *[""] * (4 - len(place))])
    effects = pd.DataFrame(rows, columns=list(EFFECTS[:5]))
    effects = effects.assign(**dict(zip((*NUMBERS, "n"), numbers, strict=True)), cells=d.shape[1])
    sizes = [len(levels) for levels, _ in terms.values()]
    starts = np.cumsum([0, *sizes])[:-1] if sizes else np.zeros(0, int)
    joint_p = fx.joint_sign_flip(np.tensordot(d, weights, (1, 0)), starts, fx.resolution(weights, floor))
    joint = pd.DataFrame(
        {
            "kind": [f"joint {KINDS[len(term) - 1]}" for term in terms], "field": [term[0] for term in terms],
            "with_field": [term[1] if len(term) > 1 else "" for term in terms], "p": joint_p, "p_holm": st.holm(joint_p),
            "n": len(d), "cells": d.shape[1],
        }
    )  # fmt: skip
    return effects, tests, joint


def export(where: Where) -> pd.DataFrame:
    """Everything that was found, in the columns EXPORT: a row a number with its interval, p values and n."""
    size = {"n": where.seeds[0], "cells": where.cells[0]}
    rows = []
    if where.pooled:
        rows.append({"kind": "over all cells", **where.pooled._asdict(), **size})
    if where.between:
        between = where.between
        rows.append({"kind": "tau", "estimate": between.tau, "low": between.low, "high": between.high, **size})
        rows.append({"kind": "I squared", "estimate": between.i_squared, **size})
    if where.predicted:
        rows.append({"kind": "prediction", "low": where.predicted[0], "high": where.predicted[1], **size})
    for flip in where.flips:
        for kind, levels in (("only positive", flip.positive), ("only negative", flip.negative)):
            rows += [{"kind": kind, "field": flip.field, "level": level, **size} for level in levels]
    table = pd.DataFrame([*rows, *where.effects.to_dict("records"), *where.joint.to_dict("records")])
    table = table.assign(metric=where.measure.name, contrast=where.contrast).reindex(columns=list(EXPORT))
    texts = [name for name in EXPORT if name not in (*NUMBERS, "n", "cells")]
    table[texts] = table[texts].astype(object).fillna("").astype(str)
    return table.astype({**dict.fromkeys(NUMBERS, float), "n": int, "cells": int})


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
        words = [f"{'above' if i == 0 else 'below'} 0 in {_listed(where, side)}" for i, side in enumerate(sides)]
        return f"No single number sums up {what}: it is {words[0]}; and {words[1]}."
    scope = "In the only cell" if where.cells[0] == 1 else f"Over {where.cells[0]} cells"
    how = "" if where.cells[0] == 1 else "; the mean over cells within each seed, with its 95 % t interval over seeds"
    estimate, low, high, p = where.pooled
    n = _count(where.seeds[0], "seed")
    return f"{scope}, {what} is {_interval(where, estimate, low, high)} ({_p(p)}, n = {n}{how})."


def _listed(where: Where, rows: pd.DataFrame) -> str:
    """'2 different cells (…)', the largest first."""
    rows = rows.loc[rows["difference"].abs().sort_values(ascending=False).index]
    shown = [
        f"{row['name']} {_interval(where, row['difference'], row['low'], row['high'])}, n = {row['n']}"
        for _, row in rows.head(MOST_NAMED).iterrows()
    ]
    return f"{_count(len(rows), 'different cell')} ({_more(shown, len(rows))})"


def _flips_in_words(where: Where) -> Iterator[str]:
    first, second = where.contrast.split(" - ")
    better = (first, second) if where.measure.larger_is_better else (second, first)
    for flip in where.flips:
        sides = [
            f"with {' and '.join(levels)} {arm} is better ({_count(number, 'cell')})"
            for arm, levels, number in zip(better, (flip.positive, flip.negative), flip.cells, strict=True)
        ]
        mixed = f", with {' and '.join(flip.mixed)} both occur" if flip.mixed else ""
        alone = (
            f"{_count(flip.alike, 'pair')} of these cells {'is' if flip.alike == 1 else 'are'} alike in all but {flip.field}"
            if flip.alike
            else f"no two of these cells are alike in all but {flip.field}, so that another axis may be the reason"
        )
        yield f"The sign flips with {flip.field}: wherever the arms differ, {sides[0]}, {sides[1]}{mixed}; {alone}."


def _spread_in_words(where: Where) -> Iterator[str]:
    if where.between is None:
        return
    tau, low, high, _, share = where.between
    yield (
        f"The true differences of the cells have a standard deviation τ of {_number(where, tau)} {where.measure.unit} "
        f"[{_number(where, low)}, {_number(where, high)}] (95 % interval from the cell × seed analysis of variance, which "
        f"takes all cells to vary alike over seeds; I² = {share * 100:.0f} %, which grows with the seeds)."
    )
    if where.predicted is None:
        axes = " and ".join(flip.field for flip in where.flips)
        yield f"For a new cell nothing is predicted, since the sign depends on {axes}."
    else:
        low, high = (_number(where, end) for end in where.predicted)
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
    tests = f"joint sign-flip tests over n = {n} seeds, Holm over {len(rows)}"
    if found.any():
        yield f"{minus(where.contrast)} depends on {'; '.join(words[found])} ({tests})."
    if len(rows) * 2.0 ** (1 - n) > where.alpha:
        yield f"With {_count(n, 'seed')} none of {len(rows)} joint tests could reject, whatever the differences."
    if not found.all():
        quiet = rows[~found].sort_values("p_holm", kind="stable").index
        shown = _more(list(words[quiet[:MOST_NAMED]]), len(quiet))
        yield f"Not shown to depend on {shown} ({tests}); that does not show that it is the same everywhere."


def _joint_in_words(where: Where, row: pd.Series) -> str:
    of = where.effects
    of = of[(of["field"] == row["field"]) & (of["with_field"] == row["with_field"])]["estimate"]
    name = f"{row['field']} together with {row['with_field']}" if row["with_field"] else row["field"]
    unit = where.measure.unit
    return f"{name} (from {_signed(where, of.min())} to {_signed(where, of.max())} {unit}, {_p(row['p_holm'])})"


def _largest(where: Where, kind: str, of: str) -> str:
    """The contrasts of this kind that Holm leaves, the largest first."""
    rows = where.effects[(where.effects["kind"] == kind) & (where.effects["p_holm"] <= where.alpha)]
    if rows.empty:
        return ""
    rows = rows.loc[rows["estimate"].abs().sort_values(ascending=False, kind="stable").index]
    shown = [
        f"{', '.join(filter(None, (row['level'], row['with_level'])))} "
        f"{_interval(where, row['estimate'], row['low'], row['high'])}"
        for _, row in rows.head(MOST_NAMED).iterrows()
    ]
    tests = f"t over n = {where.seeds[0]} seeds, Holm over {where.tests} contrasts"
    return f"{of}: {_more(shown, len(rows))} ({tests})."


def _averaged(where: Where) -> Iterator[str]:
    """Main effects are means over the other axes; of an axis along which the sign flips, that must be said."""
    flips = [flip.field for flip in where.flips]
    if flips and len(where.fields) > 1:
        yield (
            f"Effects of the other axes are means over levels of {' and '.join(flips)} that have opposite signs: "
            "they say nothing without the interactions."
        )


def _left_out(where: Where) -> Iterator[str]:
    """What the numbers over cells do not rest on, and what the grid cannot tell."""
    for names, why in ((where.without_pairs, "without a pair"), (where.too_few, "with too few pairs")):
        if names:
            listed = _more(list(names[:MOST_NAMED]), len(names))
            yield f"Left out of all that is said over cells: {_count(len(names), 'cell')} {why} ({listed})."
    used, there = where.seeds
    if used < there:
        yield f"Left out of all that is said over cells: {there - used} of {there} seeds, which lack a pair in some cell."
    if where.diverged:
        holds = "holds" if where.diverged == 1 else "hold"
        yield f"{_count(where.diverged, 'pair')} {holds} a diverged run, which counts with its worst outcome."
    single, double = ([t for t in where.not_told if len(t) == size] for size in (1, 2))
    if single:
        yield (
            f"No effect of {' or '.join(t[0] for t in single)} can be told: "
            "in the cells used it does not vary, or only together with other axes."
        )
    if double:
        shown = _more([f"{a} with {b}" for a, b in double[:MOST_NAMED]], len(double))
        yield f"No interplay can be told of {shown}: not every combination of their levels has a cell."


def _rounded(where: Where, value: float) -> float:
    """In the unit of differences; what rounds to 0 has no sign."""
    return round(value * where.measure.factor, where.measure.decimals) + 0.0


def _number(where: Where, value: float) -> str:
    if not np.isfinite(value):
        return "–" if np.isnan(value) else "∞" if value > 0 else "−∞"
    return f"{_rounded(where, value):,.{where.measure.decimals}f}".replace("-", "−")


def _signed(where: Where, value: float) -> str:
    return ("+" if _rounded(where, value) > 0 else "") + _number(where, value)


def _interval(where: Where, estimate: float, low: float, high: float) -> str:
    return f"{_signed(where, estimate)} {where.measure.unit} [{_number(where, low)}, {_number(where, high)}]"


def _p(value: float) -> str:
    return "p < 0.0001" if value < 1e-4 else f"p = {value:.4f}" if value < 0.1 else f"p = {value:.2f}"


def _count(number: int, what: str) -> str:
    return f"{number:,} {what}{'' if number == 1 else 's'}"


def _more(shown: list[str], count: int) -> str:
    return "; ".join(shown) + (f"; and {count - len(shown)} more" if count > len(shown) else "")


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
