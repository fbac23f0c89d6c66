"""The answer of a report in words, and what it covers."""

from collections.abc import Sequence

import numpy as np
import pandas as pd

from grids import Grid
from reports.measures import measure
from reports.words import VERDICTS, amount, counted, difference, label, minus, seeds


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
            f"In {of.title}, {winner} is better than {loser} in {len(different)} of {counted(count, 'comparison')}; "
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
    within = "no margin declared" if margin is None else f"margin {amount(margin, of)} {of.unit}"
    contrast = minus(primary.contrast)
    words = ", ".join(f"{n} {verdict}" for verdict, n in counts.items())
    lists = {
        f"Better with {first} ({contrast})": _extremes(for_first, varying, better),
        f"Better with {second} ({contrast})": _extremes(for_second, varying, -better),
        "Within the margin": _extremes(same, varying, better),
    }
    return {
        "headline": headline, "counts": counts, "metric": of.title, "contrast": contrast,
        "sentence": f"Of {counted(count, 'comparison')} ({seeds(family)} paired seeds each; {within}): {words}.",
        "lists": {title: items for title, items in lists.items() if items},
    }  # fmt: skip


def _extremes(family: pd.DataFrame, varying: Sequence[str], sign: int) -> list[str]:
    """The largest three differences of a set, with intervals and n, and how many more there are."""
    ranked = family.loc[(family["difference"] * sign).sort_values(ascending=False, kind="stable").index]
    parts = []
    for row in ranked.head(3).to_dict("records"):
        beyond = ""
        if np.isfinite(row["margin"]) and (row["low_family"] > row["margin"] or row["high_family"] < -row["margin"]):
            beyond = ", larger than the margin"
        parts.append(f"{label(row, varying)}: {difference(row)}, n = {row['n']}{beyond}")
    rest = len(ranked) - len(parts)
    return [*parts, f"and {rest} more"] if rest else parts


def scope(frame: pd.DataFrame, grid: Grid) -> str:
    """What the intervals cover and what not, with the test set's own share of the error where it was measured."""
    errors = frame.loc[frame["contrast"] == grid.analysis.primary.contrast, "test_set_error"].dropna()
    adds = (
        "adds a standard error that was not measured"
        if errors.empty
        else f"adds a standard error of about {errors.median() * 100:.2f} pp in accuracy (median over comparisons)"
    )
    return (
        "Intervals and p values say what happens when this training is repeated with new seeds on the same training and "
        "test examples at these recipe values. They do not cover other data, recipes or tasks; the test set alone "
        f"{adds}, and more seeds do not reduce it."
    )
