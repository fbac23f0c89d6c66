"""What was found of a claim, in a sentence: the numbers with their unit, n and interval, and what the grid covers of it."""

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
import pandas as pd

from reports.ledger import BOUNDED, SIDES, Claim, Selection, numeric
from reports.measures import Measure, measure
from reports.sides import Evidence
from reports.words import NAMES, amount, counted, enumerated, interval, label, p_in_words, setting

MOST_NAMED = 4  # cells in a sentence
Array = np.ndarray


class Judged(NamedTuple):
    """The numbers of one claim, before other claims are counted. Of its R rows of comparisons, `used` ones have pairs."""

    n: int  # seeds
    cells: int
    estimate: float  # NaN, as its interval, where more than two values vary, rise or fall
    low: float
    high: float
    p_difference: float  # what is stated, if the direction is +, or its opposite; of BOUNDED claims, beyond the margin
    p_nonzero: float  # that the mean is not 0, which with a margin is less than what is stated; NaN of BOUNDED claims
    p_within: float  # that it lies within the margin; NaN where there is none
    direction: float  # + as stated
    used: Array  # bool (R,)
    supporting: Array  # bool (R,): this row alone shows what is stated
    opposing: Array  # bool (R,): the opposite
    clear: Array  # bool (R,): what is stated, and more than the margin
    inside: Array  # bool (R,): of varies, that its values lie within the margin of each other
    above: Array  # bool (R,): that its mean is not 0,
    below: Array  # by sign
    averaged: bool  # rows alone show what their mean hides, so that to lie within the margin is nothing it can show
    parts: tuple[tuple[object, float, float, float], ...]  # of varies each value, of rises each step: mean, interval
    doubt: str  # why nothing was tested; else empty


class Decision(NamedTuple):
    verdict: str
    differs: bool  # the tests at the family's level: of a difference, as Judged says of p_difference,
    nonzero: bool  # of any difference,
    within: bool  # and of lying within the margin
    p: float  # of the one that is told, adjusted
    family: int  # of how many claims


def reason(claim: Claim, data: Evidence, numbers: Judged, decision: Decision, arms: Mapping[str, str]) -> str:
    """Sentences on one claim. arms: by order, the grid's name of it."""
    of = measure(claim.metric)
    subject = _subject(claim, data.what, arms)
    covered = _coverage(claim, data, numbers)
    if numbers.doubt:
        return " ".join([f"{subject}: {numbers.doubt}.", *covered])
    found = ", ".join(f"{_named(claim, value)} {interval(of, *ends)}" for value, *ends in numbers.parts)
    found = found or interval(of, numbers.estimate, numbers.low, numbers.high)
    family = "" if decision.family == 1 else f" after Holm over {decision.family} claims"
    size = f"n = {numbers.n}, {counted(numbers.cells, 'cell')}"
    alone = _alone(claim, of, data, numbers, decision)
    text = f"{subject}: {found}; {_finding(claim, of, numbers, decision)} ({p_in_words(decision.p)}{family}; {size}){alone}."
    return " ".join([text, *covered])


def _subject(claim: Claim, what: str, arms: Mapping[str, str]) -> str:
    """'after − before in test accuracy'"""
    first, second = (_side(selection, arms) for selection in (claim.first, claim.second))
    if claim.range_over:
        what = f"the range of {what} over {claim.range_over}"
    if claim.expected == "less_spread":
        what = f"the spread of {what} over seeds"
    if claim.expected in ("rises", "falls"):
        what = f"{what}, change from one {claim.over} to the next"
    return f"{first} − {second} in {what}"


def _side(selection: Selection, arms: Mapping[str, str]) -> str:
    parts = []
    for name, allowed in selection.items():
        text = " or ".join(arms.get(value, value) for value in allowed.values) if name == "order" else str(allowed)
        parts.append(f"{name} {text}" if numeric(name) else text)
    return ", ".join(parts)


def _finding(claim: Claim, of: Measure, numbers: Judged, decision: Decision) -> str:
    """What the tests over all cells show."""
    inside, outside = _bounds(claim, of)
    margin = f"{amount(claim.margin or 0, of)} {of.unit}".rstrip()
    yes, no = _signs(claim)
    if claim.expected in BOUNDED:
        if decision.within or decision.differs:
            return inside if decision.within else outside
        return f"neither {inside} nor {outside} is shown"
    if claim.expected in ("rises", "falls"):
        if decision.differs:
            return f"every step is {yes}" if numbers.direction > 0 else f"some step is {no}"
        return f"neither that every step is {yes} nor that one is {no} is shown"
    if claim.expected == "varies":
        if decision.differs:
            return f"some differ by more than {margin}" if claim.margin else "not all the same"
        if decision.within:
            return (
                f"not all the same, but {inside} of each other"
                if decision.nonzero
                else f"the same but for differences {inside}"
            )
        if decision.nonzero:
            return f"not all the same, but not shown to differ by more than {margin}"
        return "no difference between them is shown"
    sign = yes if numbers.direction > 0 else no
    beyond = f"above +{margin}" if yes == "above 0" else f"below −{margin}"
    if decision.within:
        return f"{sign}, but {inside}" if decision.nonzero else inside
    if decision.differs:
        return beyond if claim.margin and numbers.direction > 0 else sign
    return f"{sign}, but not shown to be {beyond}" if decision.nonzero else "neither above nor below 0 is shown"


def _signs(claim: Claim) -> tuple[str, str]:
    """Words for the stated direction and the other."""
    return ("below 0", "above 0") if claim.expected in ("less", "falls", "less_spread") else ("above 0", "below 0")


def _bounds(claim: Claim, of: Measure) -> tuple[str, str]:
    """Words for lying within the margin and beyond it."""
    margin = f"{amount(claim.margin or 0, of)} {of.unit}".rstrip()
    if claim.expected == "not_greater":
        return f"below +{margin}", f"above +{margin}"
    return f"within ±{margin}", f"beyond ±{margin}"


def _alone(claim: Claim, of: Measure, data: Evidence, numbers: Judged, decision: Decision) -> str:
    """Of an undecided claim: which cells show something by themselves, and what they differ in."""
    if decision.verdict != "undecided" or len(numbers.used) == 1:
        return ""
    yes, no = _signs(claim)
    supporting, opposing = numbers.supporting, numbers.opposing
    if claim.expected == "varies":
        yes, no = "not all the same", f"{_bounds(claim, of)[0]} of each other"
        opposing = numbers.inside & ~supporting
    elif decision.within and numbers.averaged:
        yes, no, supporting, opposing = "above 0", "below 0", numbers.above, numbers.below
    elif claim.expected in BOUNDED:
        yes, no = _bounds(claim, of)
    elif claim.expected in ("rises", "falls"):
        yes, no = f"{yes} at every step", f"{no} at some step"
    elif decision.within:
        supporting, yes = numbers.clear, f"{yes} by more than the margin"
    fields = [name for name in data.rows if data.rows[name].nunique() > 1]
    told = []
    for words, where in ((yes, supporting), (no, opposing)):
        if where.any():
            told.append(f"{words} in {_cells(data.rows[where], fields)}")
    if len(told) < 2:
        return f"; alone {told[0]}" if told else ""
    apart = [name for name in fields if not set(data.rows[name][supporting]) & set(data.rows[name][opposing])]
    on = " and ".join(_fields(apart)) or f"several of {', '.join(_fields(fields))} together"
    return f"; it depends on {on}: {'; '.join(told)}"


def _fields(columns: list[str]) -> list[str]:
    """The fields of these columns of Evidence.rows, each once."""
    return list(dict.fromkeys(name.removesuffix("_first").removesuffix("_second") for name in columns))


def _of_side(column: str) -> str:
    """Of a column of Evidence.rows: 'order_second' is 'against', 'batch_second' 'against batch'."""
    for ending, word in (("_first", "with"), ("_second", "against")):
        if column.endswith(ending):
            field = column.removesuffix(ending)
            return word if field in NAMES else f"{word} {field}"
    return column


def _cells(rows: pd.DataFrame, fields: list[str]) -> str:
    """'(relu, depth 2), (relu, depth 4) and 3 more'"""
    told = {name: _of_side(name) for name in fields}
    named = rows.rename(columns=told).head(MOST_NAMED)
    names = [label(row, list(told.values())) for _, row in named.iterrows()]
    names = [f"({name})" for name in names] if len(fields) > 1 else names
    if len(rows) > MOST_NAMED:
        names.append(f"{len(rows) - MOST_NAMED} more")
    return enumerated(names)


def _coverage(claim: Claim, data: Evidence, numbers: Judged) -> list[str]:
    """Sentences on what of the claim the grid and its store lack."""
    said = []
    slots = data.slots[numbers.used[data.slots["row"]]]
    wanted = {name: (name, allowed) for name, allowed in claim.cells.items()}
    for side in SIDES:
        wanted |= {f"{name}_{side}": (name, allowed) for name, allowed in getattr(claim, side).items()}
    for column, (name, allowed) in wanted.items():
        there = [value for value in allowed.values if (slots[column] == value).any()]
        if 0 < len(there) < len(allowed.values):
            values = ", ".join(map(setting, there))
            said.append(f"Covers {len(there)} of {len(allowed.values)} values of {name} ({values}).")
    left_out = int((~numbers.used).sum()) * len(data.levels)
    if left_out and numbers.used.any():
        said.append(f"{counted(left_out, 'cell')} left out for too few pairs.")
    if data.apart:
        said.append(f"{counted(data.apart, 'cell')} left out, since not every {claim.over} has their like.")
    if numbers.used.any() and numbers.n < len(data.d):
        said.append(f"{numbers.n} of {len(data.d)} seeds are complete.")
    if diverged := int(data.diverged[numbers.used].sum()):
        fate = "left out" if claim.expected == "less_spread" else "counted at the worst outcome"
        said.append(f"{counted(diverged, 'pair')} with a diverged run {fate}.")
    return said


def _named(claim: Claim, value: object) -> str:
    """'depth 4' or 'relu', a value of `over`; '2 to 4:', a step."""
    if claim.expected != "varies":
        return f"{value[0]:g} to {value[1]:g}:"
    return label({claim.over: value}, [claim.over])
