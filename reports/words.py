"""Numbers and names as a reader sees them: every number with its unit, its n and its interval where it has one."""

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd

import grids
from reports.measures import Measure, measure
from reports.outcomes import FIELDS_OF_A_PAIR

VERDICTS = {
    "different": "the arms differ: the difference test rejects at the family's level, the equivalence test does not",
    "equivalent": "any difference is smaller than the margin: only the equivalence test rejects",
    "negligible": "both reject: there is a difference, and it is smaller than the margin",
    "underpowered": "too few seeds for the spread: no mean difference could have shown equivalence",
    "inconclusive": "neither test rejects, though the seeds could have shown equivalence (or no margin was declared)",
}


# Fields whose values say what they are.
NAMES = ("dataset", "architecture", "order", "activation", "schedule", "optimiser")


def label(values: Mapping[str, object] | pd.Series, fields: Sequence[str]) -> str:
    """'tanh, depth 8, affine false': the fields that tell a cell from the others; names speak for themselves."""
    return ", ".join(str(values[f]) if f in NAMES else f"{f} {setting(values[f])}" for f in fields) or "all"


def setting(value: object) -> str:
    """The value of a field as plans show it, too; a dash where there is none."""
    if value is None or value != value:
        return "–"
    return grids.setting(value.item() if isinstance(value, np.generic) else value)


def varying(frame: pd.DataFrame) -> list[str]:
    """The fields that tell the cells of a frame from each other, but for the order.

    One that follows from another, as a width that each architecture has of its own, tells nothing more.
    """
    found: list[str] = []
    for field in FIELDS_OF_A_PAIR:
        follows = any(_combinations(frame, [other, field]) == _combinations(frame, [other]) for other in found)
        if not follows and _combinations(frame, [field]) > 1:
            found.append(field)
    return found


def _combinations(frame: pd.DataFrame, fields: list[str]) -> int:
    """How many rows are distinct in these fields."""
    return len(frame[fields].drop_duplicates())


def minus(contrast: str) -> str:
    """A contrast with the sign that it means: 'after − before'."""
    return contrast.replace(" - ", " − ")


def plain(value: float, digits: int = 2, signed: bool = False) -> str:
    """A number with so many decimals; a dash where there is none. signed: with a plus, unless it rounds to 0."""
    if not np.isfinite(value):
        return "–" if np.isnan(value) else "∞" if value > 0 else "−∞"
    text = f"{value:{'+' if signed else ''},.{digits}f}"
    return text.replace("-", "−") if text.strip("+-0.,") else text.lstrip("+-")


def amount(value: float, of: Measure, signed: bool = False) -> str:
    """A difference in its unit, which is not named: percentage points for shares, nats for losses."""
    return plain(value * of.factor, of.decimals, signed)


def interval(of: Measure, middle: float, low: float, high: float) -> str:
    """A difference with its interval: '+1.20 pp [0.80, 1.60]'."""
    unit = f" {of.unit}" if of.unit else ""
    return f"{amount(middle, of, signed=True)}{unit} [{amount(low, of)}, {amount(high, of)}]"


def difference(row: Mapping[str, object]) -> str:
    """That of a comparison with its 95 % interval."""
    return interval(measure(row["metric"]), row["difference"], row["low"], row["high"])


def notes(row: Mapping[str, object]) -> list[str]:
    """What qualifies a comparison; first the learning rates of its arms, where each has its own."""
    own = np.isnan(row["lr"])
    rates = " / ".join("–" if np.isnan(row[name]) else f"{row[name]:g}" for name in ("lr_a", "lr_b"))
    return [*([f"lr {rates}"] if own else []), *filter(None, [row["notes"]])]


def p_value(value: float) -> str:
    if np.isnan(value):
        return "–"
    return "< 0.0001" if value < 1e-4 else f"{value:.4f}" if value < 0.1 else f"{value:.2f}"


def p_in_words(value: float) -> str:
    """'p = 0.0213', 'p < 0.0001'"""
    text = p_value(value)
    return f"p {text}" if text.startswith("<") else f"p = {text}"


def counted(n: int, one: str, more: str = "") -> str:
    """'1 cell', '1,200 cells'. more: where it is not `one` and an s."""
    return f"{n:,} {one if n == 1 else more or one + 's'}"


def enumerated(names: Sequence[str]) -> str:
    """'a', 'a and b', 'a, b and c'"""
    return " and ".join(filter(None, [", ".join(names[:-1]), *names[-1:]]))


def listed(parts: Sequence[str], count: int) -> str:
    """'a; b; and 3 more': the first few of so many."""
    return "; ".join(parts) + (f"; and {count - len(parts)} more" if count > len(parts) else "")


def seeds(family: pd.DataFrame) -> str:
    """How many pairs its comparisons have: 'n = 20' or 'n = 17 to 20'."""
    low, high = family["n"].min(), family["n"].max()
    return f"n = {low}" if low == high else f"n = {low} to {high}"
