"""Tables of the page: columns, rows of values, and what each is sorted by. Cut to what a page can carry."""

from collections.abc import Mapping, Sequence
from typing import Literal, NamedTuple

import numpy as np
import pandas as pd

from grids import Grid
from reports.measures import measure
from reports.statistics import failure_rate_bound
from reports.words import VERDICTS, difference, label, minus, notes, p_value, plain, seeds

MOST_ROWS = 300  # of one table on the page; the files have all
MOST_IN_A_FAMILY, MOST_IN_ALL, MOST_SECONDARY, LEAST_IN_A_FAMILY = (
    500,
    1500,
    500,
    25,
)  # rows of comparisons, about 1 KB each


class Column(NamedTuple):
    """A column of a table: of words, of long ones that wrap, of numbers or of verdicts. `hint`: where the pointer rests."""

    title: str
    kind: Literal["text", "long", "number", "verdict"] = "text"
    hint: str = ""


class Value(NamedTuple):
    """What a table shows in one place: words, the number that they are sorted by, and a note below."""

    text: str
    key: str = ""
    note: str = ""


def value(text: str, number: float, note: str = "") -> Value:
    """Words that are sorted by a number; what is not a number comes last whatever the order."""
    key = "" if np.isnan(number) else f"{np.clip(number, -1e300, 1e300):.9g}"
    return Value(text, key, note)


def verdict(name: str, note: str = "") -> Value:
    """A verdict, sorted as they are listed."""
    return Value(name, str(list(VERDICTS).index(name)), note)


COMPARISON = (
    Column("cell"),
    Column("verdict", "verdict"),
    Column("difference [95 %]", "number", "mean paired difference, first arm minus second, Student t interval"),
    Column("n", "number", "pairs of seeds"),
    Column("means", "number", "of the first arm / of the second"),
    Column("d_z", "number", "mean over sd of the differences, Hedges' correction"),
    Column("P(better) [95 %]", "number", "how often the first arm wins a pair, ties half, Wilson interval"),
    Column("p, Holm", "number", "paired t test of no difference, adjusted within the family"),
    Column(
        "p sign flip", "number", "sign-flip test of no difference, adjusted neither within the family nor for looks"
    ),
    Column("p equiv., Holm", "number", "two one-sided t tests against the margin, adjusted within the family"),
    Column("seeds needed", "number", "pairs at which some verdict is certain at this spread"),
)


def families(
    frame: pd.DataFrame, grid: Grid, varying: Sequence[str], room: int = MOST_IN_ALL
) -> list[dict[str, object]]:
    """A table of comparisons for each family, the primary one first, cut so that all together have `room` rows."""
    groups = by_family(frame, grid)
    most = int(np.clip(room // len(groups), LEAST_IN_A_FAMILY, MOST_IN_A_FAMILY))
    found = []
    for names, role, family in groups:
        here = family.head(min(most, room))
        room -= len(here)
        rows = [comparison(row, varying, len(grid.seeds.looks) > 1) for row in here.to_dict("records")]
        found.append({"title": title(*names), "role": role, "n": seeds(family), "count": len(family), "rows": rows})
    return found


def by_family(frame: pd.DataFrame, grid: Grid) -> list[tuple[tuple[str, str], str, pd.DataFrame]]:
    """(metric, contrast), whether it is primary or secondary, and its rows; the primary one first."""
    primary = (grid.analysis.primary.metric, grid.analysis.primary.contrast)
    groups = frame.groupby(["metric", "contrast"], sort=False)
    found = [(names, "primary" if names == primary else "secondary", family) for names, family in groups]
    return sorted(found, key=lambda each: each[1])


def title(metric: str, contrast: str) -> str:
    return f"{minus(contrast)}: {measure(metric).title}"


def comparison(row: Mapping[str, object], varying: Sequence[str], looks: bool = False) -> list[Value | str]:
    """One comparison in the columns COMPARISON. Beside equivalent and negligible stands how often a run may yet fail.

    looks: whether there are several, so that its last is told.
    """
    remarks = notes(row)
    if row["verdict"] in ("equivalent", "negligible"):
        bound = failure_rate_bound(max(row["diverged_a"], row["diverged_b"]), row["n"])
        remarks.append(f"failure rate ≤ {bound:.0%}")
    of, look = measure(row["metric"]), f"look {row['look']}" if looks else ""
    means = " / ".join(plain(row[name] * of.factor, of.decimals) for name in ("mean_a", "mean_b"))
    better, low, high = (
        plain(row[name]) for name in ("probability_of_improvement", "improvement_low", "improvement_high")
    )
    return [
        label(row, varying),
        verdict(row["verdict"], "; ".join(remarks)),
        value(difference(row), row["difference"]),
        value(f"{row['n']}" + (f" ({row['missing']} missing)" if row["missing"] else ""), row["n"], look),
        value(f"{means} {'%' if of.unit == 'pp' else of.unit}", row["mean_a"]),
        value(plain(row["effect_size"]), row["effect_size"]),
        value(f"{better} [{low}, {high}]", row["probability_of_improvement"]),
        *(value(p_value(row[name]), row[name]) for name in ("p_holm", "p_sign_flip", "p_equivalence_holm")),
        value(plain(row["seeds_needed"], 0), row["seeds_needed"]),
    ]
