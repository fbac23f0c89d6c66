"""Numbers and sentences of the page: every number with its unit, its n and its interval where it has one."""

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd

from grids import Grid
from reports import figures
from reports.measures import measure

VERDICTS = {
    "different": "the arms differ: the difference test rejects at the family's level, the equivalence test does not",
    "equivalent": "any difference is smaller than the margin: only the equivalence test rejects",
    "negligible": "both reject: there is a difference, and it is smaller than the margin",
    "underpowered": "too few seeds for the spread: no mean difference could have shown equivalence",
    "inconclusive": "neither test rejects, though the seeds could have shown equivalence (or no margin was declared)",
}


def plain(value: float, digits: int = 2) -> str:
    """A number with so many decimals; a dash where there is none."""
    if not np.isfinite(value):
        return "–" if np.isnan(value) else "∞" if value > 0 else "−∞"
    text = f"{value:,.{digits}f}"
    return text.replace("-", "−" if text.strip("-0.") else "")


def number(value: float, metric: str) -> str:
    """A difference in its unit: percentage points for shares, nats for losses."""
    of = measure(metric)
    return f"{plain(value * of.factor, of.decimals)} {of.unit}"


def interval(row: Mapping[str, object]) -> str:
    """Difference of a comparison with its 95 % interval: '+1.20 pp [0.80, 1.60]'."""
    of = measure(row["metric"])
    middle, low, high = (plain(row[name] * of.factor, of.decimals) for name in ("difference", "low", "high"))
    return f"{'+' if row['difference'] > 0 and middle.strip('0.') else ''}{middle} {of.unit} [{low}, {high}]"


def p_value(value: float) -> str:
    if np.isnan(value):
        return "–"
    return "< 0.0001" if value < 1e-4 else f"{value:.4f}" if value < 0.1 else f"{value:.2f}"


def seeds(family: pd.DataFrame) -> str:
    """How many pairs its comparisons have: 'n = 20' or 'n = 17 to 20'."""
    low, high = family["n"].min(), family["n"].max()
    return f"n = {low}" if low == high else f"n = {low} to {high}"


def answer(frame: pd.DataFrame, grid: Grid, varying: Sequence[str]) -> dict[str, object]:
    """The primary family in words: a headline, the count of each verdict, and the extremes with their intervals."""
    primary = grid.analysis.primary
    family = frame[(frame["metric"] == primary.metric) & (frame["contrast"] == primary.contrast)]
    first, second = primary.contrast.split(" - ")
    of = measure(primary.metric)
    better = 1 if of.larger_is_better else -1
    different = family[family["verdict"] == "different"]
    for_first = different[different["difference"] * better > 0]
    for_second = different[different["difference"] * better < 0]
    same = family[family["verdict"].isin(["equivalent", "negligible"])]
    count = len(family)
    if len(for_first) and len(for_second):
        headline = (
            f"It depends. In {of.title}, {first} is better than {second} in {len(for_first)} of {count} comparisons and "
            f"worse in {len(for_second)}; the sign flips, so no single number sums them up."
        )
    elif len(different):
        winner, loser = (first, second) if len(for_first) else (second, first)
        headline = (
            f"In {of.title}, {winner} is better than {loser} in {len(different)} of {count} comparisons; "
            "none is different the other way."
        )
    elif len(same):
        headline = (
            f"In {of.title}, no comparison of {first} and {second} is different; {len(same)} of {count} are within the "
            "margin."
        )
    else:
        headline = (
            f"Undecided: in {of.title}, no comparison of {first} and {second} shows a difference or an equivalence."
        )
    margin = grid.analysis.margin.get(primary.metric)
    counts = family["verdict"].value_counts()
    counts = {verdict: int(counts[verdict]) for verdict in VERDICTS if verdict in counts}
    within = "no margin declared" if margin is None else f"margin {number(margin, primary.metric)}"
    contrast = figures.minus(primary.contrast)
    words = ", ".join(f"{n} {verdict}" for verdict, n in counts.items())
    lists = {
        f"Better with {first} ({contrast})": _extremes(for_first, varying, better),
        f"Better with {second} ({contrast})": _extremes(for_second, varying, -better),
        "Within the margin": _extremes(same, varying, better),
    }
    return {
        "headline": headline, "counts": counts, "metric": of.title, "contrast": contrast,
        "sentence": f"Of {count} comparisons ({seeds(family)} paired seeds each; {within}): {words}.",
        "lists": {title: items for title, items in lists.items() if items},
    }  # fmt: skip


def _extremes(family: pd.DataFrame, varying: Sequence[str], sign: int) -> list[str]:
    """The largest three differences of a set, with intervals and n, and how many more there are."""
    ranked = family.loc[(family["difference"] * sign).sort_values(ascending=False).index]
    parts = []
    for row in ranked.head(3).to_dict("records"):
        beyond = ""
        if np.isfinite(row["margin"]) and (row["low_family"] > row["margin"] or row["high_family"] < -row["margin"]):
            beyond = ", larger than the margin"
        parts.append(f"{figures.label(row, varying)}: {interval(row)}, n = {row['n']}{beyond}")
    rest = len(ranked) - len(parts)
    return [*parts, f"and {rest} more"] if rest else parts


def scope(frame: pd.DataFrame, grid: Grid) -> str:
    """What the intervals cover and what not, with the test set's own share of the error where it was measured."""
    errors = frame.loc[frame["contrast"] == grid.analysis.primary.contrast, "test_set_error"].dropna()
    size = (
        "not measured"
        if errors.empty
        else f"about {errors.median() * 100:.2f} pp in accuracy (median over comparisons)"
    )
    return (
        "Intervals and p values say what happens when this training is repeated with new seeds on the same training and "
        "test examples at these recipe values. They do not cover other data, recipes or tasks; the test set alone adds a "
        f"standard error of {size}, which more seeds do not reduce."
    )
