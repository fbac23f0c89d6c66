"""Published claims as a TOML file holds them: what each says, of which cells, and what the data would have to show.

A claim compares two sides, first and second, on cells that agree in every field which the sides do not name, and on
equal seeds. `reports.claims` judges them.
"""

import math
import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from pydantic import ValidationError

from grids import FIELDS, Cell, WrongUse, order_error
from reports.layer_names import FORM, PREFIX, layer_metric
from reports.measures import DERIVED, measure
from reports.words import setting
from results import METRICS

SHIPPED = Path(__file__).with_name("claims.toml")
NORMS = ("bn", "ln", "gn", "in", "rms")  # that an order of a claim may name, whether or not a grid can train it yet
KEYS = {
    "id": "short name, unique in the file",
    "source": "author, year, title or repository",
    "statement": "what is claimed, in your own words",
    "cells": "field = value, list of values, or range as in { least = 4, most = 8 }; other fields are free",
    "first": "fields of the first side, written likewise; each of several values is compared, none may show the opposite",
    "second": "the same fields of the second side, with other values",
    "metric": f"a metric column of `runs`, a derived measure, or {FORM}",
    "expected": "what first − second does if the claim is right",
    "margin": "in the metric's own unit as stored (0.01 = 1 percentage point): what lies within ± of it counts as nothing",
    "over": "of varies, rises and falls: the field along which first − second changes",
    "range_over": "a field: a side's outcome is then its range over the values of that field",
    "needs": "in place of all keys from cells to range_over: the measurement that is missing",
    "anatomy": "likewise, with expected and than: section, quantity and setting (one or a list) of rows of anatomy.csv",
    "than": "of anatomy: the number that each of these values is expected to be greater or less than",
    "published": "what the source measured, and how, where it tells a number",
    "nearest": "field = value or list of values: which of the claim's cells are most like those of the source",
}
EXPECTED = {
    "greater": "it is above 0; with a margin, above + the margin",
    "less": "it is below 0; with a margin, below − the margin",
    "equivalent": "it lies within ± the margin",
    "not_greater": "it lies below the margin",
    "varies": "it is not the same at all values of `over`; with a margin, two of them differ by more",
    "rises": "it rises from each value of `over` to the next",
    "falls": "it falls from each value of `over` to the next",
    "less_spread": "the seeds of the first side scatter less than those of the second",
}
BOUNDED = ("equivalent", "not_greater")  # what a margin alone can show
ALONG = ("varies", "rises", "falls")  # what needs `over`
SIDES = ("first", "second")
OF_ANATOMY = ("section", "quantity", "setting")
EVERY = "*"  # as its setting: every one that a quantity has
LARGEST = 1e300
# A cell of its own for each value that is checked: only the error of that field is told.
ANY = {"dataset": "any", "architecture": "any", "order": "weight-act", "activation": "any", "depth": 1}


class ClaimsError(WrongUse):
    """A claims file: file, claim, key, value, rule and choices."""


class Allowed(NamedTuple):
    """Values of a cell field that a claim is about: some, or every number from `least` to `most`."""

    values: tuple[Any, ...] = ()
    least: float = -math.inf
    most: float = math.inf

    def has(self, value: Any) -> bool:
        return value in self.values if self.values else self.least <= value <= self.most

    def holds(self, column: pd.Series) -> np.ndarray:
        """Where a column has one of them. bool, as long as the column"""
        chosen = column.isin(self.values) if self.values else column.between(self.least, self.most)
        return chosen.to_numpy(bool)

    def meets(self, other: "Allowed") -> bool:
        """Whether some value is in both."""
        if self.values:
            return any(other.has(value) for value in self.values)
        return other.meets(self) if other.values else max(self.least, other.least) <= min(self.most, other.most)

    def __str__(self) -> str:
        if self.values:
            return either([setting(value) for value in self.values])
        if self.least == -math.inf:
            return f"at most {self.most:g}"
        return f"at least {self.least:g}" if self.most == math.inf else f"from {self.least:g} to {self.most:g}"


Selection = Mapping[str, Allowed]


@dataclass(frozen=True)
class Claim:
    """One claim. Where `needs` is given, no metric measures it, and the fields from `cells` on are empty.

    anatomy: where it is about numbers that need no training, by key of OF_ANATOMY which of them; each is expected to be
    greater or less than `than`. published, nearest: what the source measured, and the fields of the cells most like its own.
    """

    id: str
    source: str
    statement: str
    cells: Selection = field(default_factory=dict)
    first: Selection = field(default_factory=dict)
    second: Selection = field(default_factory=dict)
    metric: str = ""
    expected: str = ""
    margin: float | None = None
    over: str = ""
    range_over: str = ""
    needs: str = ""
    anatomy: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    than: float = math.nan
    published: str = ""
    nearest: Selection = field(default_factory=dict)

    @property
    def named(self) -> set[str]:
        """The cell fields that it names."""
        return {*self.cells, *self.first, *self.second, self.over, self.range_over} - {""}


def read(path: str | Path | None = None) -> tuple[Claim, ...]:
    """The claims of a file, by default those that come with this program. ClaimsError says what is wrong, in one line."""
    path = Path(path or SHIPPED)
    try:
        document = tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ClaimsError(f"{path}: no such claims file") from None
    except (OSError, UnicodeDecodeError) as error:
        raise ClaimsError(f"{path}: cannot be read: {getattr(error, 'strerror', None) or error}") from None
    except tomllib.TOMLDecodeError as error:
        raise ClaimsError(f"{path}: not TOML: {error}") from None
    for key in document:
        if key != "claim":
            raise ClaimsError(f"{path}: unknown key {key!r}: every entry starts with [[claim]]")
    entries = document.get("claim", [])
    if not isinstance(entries, list) or not all(isinstance(entry, dict) for entry in entries):
        raise ClaimsError(f"{path}: claim: every entry starts with [[claim]]")
    if not entries:
        raise ClaimsError(f"{path}: has no claim: every entry starts with [[claim]]")
    claims = tuple(_Reader(path, number, entry).claim() for number, entry in enumerate(entries, 1))
    refuse_repeats(claims, str(path))
    return claims


def refuse_repeats(claims: tuple[Claim, ...], where: str) -> None:
    """ClaimsError where two claims have one id."""
    ids = [claim.id for claim in claims]
    for name in ids:
        if ids.count(name) > 1:
            raise ClaimsError(f"{where}: claim {name!r}: id is given to {ids.count(name)} claims")


class _Reader:
    """Checks one entry. A class only so that every error names the file and the claim."""

    def __init__(self, path: Path, number: int, entry: dict[str, Any]):
        self.path, self.entry = path, entry
        self.name = repr(entry["id"]) if isinstance(entry.get("id"), str) else f"number {number}"

    def fail(self, where: str, rule: str) -> ClaimsError:
        return ClaimsError(f"{self.path}: claim {self.name}: {where}: {rule}")

    def claim(self) -> Claim:
        for key in self.entry:
            if key not in KEYS:
                raise self.fail(f"unknown key {key!r}", f"there are {', '.join(KEYS)}")
        words = {key: self.text(key) for key in ("id", "source", "statement")}
        words["published"] = self.text("published") if "published" in self.entry else ""
        if "needs" in self.entry:
            self.check_alone("needs", "which says that there is no such measurement", words)
            return Claim(**words, needs=self.text("needs"))
        if "anatomy" in self.entry:
            self.check_alone("anatomy", "whose numbers are of no cell", (*words, "expected", "than"))
            return Claim(**words, **self.of_anatomy())
        if "than" in self.entry:
            raise self.fail("than", "belongs to anatomy")
        metric, expected = self.text("metric"), self.choice("expected", tuple(EXPECTED))
        if metric.startswith(PREFIX):
            self.check_layers(metric)
        elif metric not in (*METRICS, *DERIVED):
            raise self.fail(f"unknown metric {metric!r}", f"there are {', '.join((*METRICS, *DERIVED))}, {FORM}")
        selections = {key: self.selection(key) for key in ("cells", *SIDES)}
        self.check_sides(**selections)
        return Claim(
            **words,
            **selections,
            metric=metric,
            expected=expected,
            margin=self.margin(expected, metric),
            over=self.over(expected, **selections),
            range_over=self.range_over(expected, **selections),
            nearest=self.nearest(selections["cells"], selections["first"]),
        )

    def check_alone(self, key: str, why: str, others: Iterable[str]) -> None:
        for name in self.entry:
            if name not in (*others, key):
                raise self.fail(name, f"cannot stand beside {key}, {why}")

    def of_anatomy(self) -> dict[str, Any]:
        table = self.entry["anatomy"]
        if not isinstance(table, dict) or set(table) != set(OF_ANATOMY):
            raise self.fail(f"anatomy = {table!r}", f"must be a table of {', '.join(OF_ANATOMY)}")
        rows = {key: tuple(value) if isinstance(value, list) else (value,) for key, value in table.items()}
        for key, values in rows.items():
            several = len(values) > 1 or EVERY in values
            if not values or not all(isinstance(each, str) for each in values) or (several and key != "setting"):
                rule = f"must be a text, or of setting {EVERY!r} or a list of texts"
                raise self.fail(f"anatomy.{key} = {table[key]!r}", rule)
        than = self.entry.get("than")
        if not _is_number(than) or math.isinf(than):
            raise self.fail("than" if than is None else f"than = {than!r}", "must be a number")
        return {"anatomy": rows, "expected": self.choice("expected", ("greater", "less")), "than": float(than)}

    def nearest(self, cells: Selection, first: Selection) -> Selection:
        found = self.selection("nearest")
        for name, allowed in found.items():
            if name in first or name in (self.entry.get("over"), self.entry.get("range_over")):
                raise self.fail(f"nearest.{name}", "is a field of the sides, or the one along which they are compared")
            if not allowed.values:
                raise self.fail(f"nearest.{name}", "is a value, or a list of values")
            for value in allowed.values:
                if name in cells and not cells[name].has(value):
                    raise self.fail(f"nearest.{name} = {value!r}", "is of none of the claim's cells")
        return found

    def check_layers(self, metric: str) -> None:
        try:
            layer_metric(metric)
        except ValueError as error:
            raise self.fail(f"unknown metric {metric!r}", str(error)) from None

    def text(self, key: str) -> str:
        if key not in self.entry:
            raise self.fail(key, "is missing")
        value = self.entry[key]
        if not isinstance(value, str) or not value.strip():
            raise self.fail(f"{key} = {value!r}", "must be a text")
        return " ".join(value.split())

    def choice(self, key: str, choices: tuple[str, ...]) -> str:
        value = self.text(key)
        if value not in choices:
            raise self.fail(f"{key} = {value!r}", f"there are {', '.join(choices)}")
        return value

    def selection(self, key: str) -> Selection:
        """Of a table, each field's values, checked."""
        table = self.entry.get(key, {})
        if key in SIDES and not table:
            raise self.fail(key, "is missing")
        if not isinstance(table, dict):
            raise self.fail(f"{key} = {table!r}", 'must be a table, as in { order = "weight-bn-act" }')
        for name in table:
            if name not in FIELDS:
                raise self.fail(f"{key}: unknown field {name!r}", f"there are {', '.join(FIELDS)}")
        return {name: self.allowed(f"{key}.{name}", name, value) for name, value in table.items()}

    def allowed(self, where: str, name: str, value: Any) -> Allowed:
        if isinstance(value, dict):
            ends = {"least": -math.inf, "most": math.inf, **value}
            if not numeric(name) or not value or len(ends) > 2 or not all(map(_is_number, value.values())):
                raise self.fail(f"{where} = {value!r}", "a range is of numbers, as in { least = 4, most = 8 }")
            if ends["least"] > ends["most"]:
                raise self.fail(f"{where} = {value!r}", "least is above most")
            return Allowed(least=ends["least"], most=ends["most"])
        values = value if isinstance(value, list) else [value]
        if not values:
            raise self.fail(f"{where} = []", "has no value")
        clean = tuple(self.value(where, name, each) for each in values)
        for each in clean:
            if clean.count(each) > 1:
                raise self.fail(f"{where} = {each!r}", "is listed twice")
        return Allowed(clean)

    def value(self, where: str, name: str, value: Any) -> Any:
        """One value as cells have it. What plug-ins are called is not known here, so that any text may name one."""
        try:
            checked = getattr(Cell.model_validate({**ANY, name: value}), name)
        except ValidationError as error:
            problem = next(each for each in error.errors() if each["loc"] == (name,))
            raise self.fail(f"{where} = {value!r}", problem["msg"].removeprefix("Value error, ").lower()) from None
        if name == "order" and (rule := order_error(checked, NORMS)):
            raise self.fail(f"{where} = {value!r}", rule)
        return checked

    def check_sides(self, cells: Selection, first: Selection, second: Selection) -> None:
        if set(first) != set(second):
            raise self.fail(
                f"first names {', '.join(first)}, second {', '.join(second)}", "both sides name the same fields"
            )
        for name in first:
            if name in cells:
                raise self.fail(f"cells.{name}", "is a field of the sides already")
        if all(first[name].meets(second[name]) for name in first):
            raise self.fail("first and second", f"do not differ: they share values of {', '.join(first)}")

    def margin(self, expected: str, metric: str) -> float | None:
        value = self.entry.get("margin")
        if value is None:
            if expected in BOUNDED:
                raise self.fail("margin", f"is missing; {expected} needs one")
            return None
        if not _is_number(value) or not 0 < value < math.inf:
            raise self.fail(f"margin = {value!r}", "must be a number above 0")
        if expected in ("rises", "falls", "less_spread"):
            raise self.fail(f"margin = {value!r}", f"has no use with {expected}")
        if value >= 1 and measure(metric).unit == "pp":
            raise self.fail(f"margin = {value!r}", f"must be below 1: {metric} is a share, 0.01 is 1 percentage point")
        return float(value)

    def over(self, expected: str, cells: Selection, first: Selection, second: Selection) -> str:
        if (expected in ALONG) != ("over" in self.entry):
            raise self.fail("over", "is missing" if expected in ALONG else f"belongs to {', '.join(ALONG)}")
        if expected not in ALONG:
            return ""
        name = self.free_field("over", cells, first)
        if expected != "varies" and not numeric(name):
            raise self.fail(f"over = {name!r}", f"{expected} needs a field of numbers")
        return name

    def range_over(self, expected: str, cells: Selection, first: Selection, second: Selection) -> str:
        if "range_over" not in self.entry:
            return ""
        name = self.free_field("range_over", cells, first)
        if expected == "less_spread" or name == self.entry.get("over"):
            raise self.fail(f"range_over = {name!r}", "a range has no spread over seeds, nor over the same field again")
        return name

    def free_field(self, key: str, cells: Selection, first: Selection) -> str:
        name = self.choice(key, FIELDS)
        if name in first:
            raise self.fail(f"{key} = {name!r}", "is a field of the sides")
        if name in cells and len(cells[name].values) == 1:
            raise self.fail(f"{key} = {name!r}", "cells has only one value of it")
        return name


def numeric(name: str) -> bool:
    """Whether a cell field holds numbers."""
    return Cell.model_fields[name].annotation in (int, float)


def either(names: list[str]) -> str:
    """'a, b or c'"""
    return " or ".join(filter(None, [", ".join(names[:-1]), names[-1]]))


def _is_number(value: Any) -> bool:
    """Whether it is a number that a float can hold, or infinite."""
    return (
        isinstance(value, int | float)
        and not isinstance(value, bool)
        and (abs(value) <= LARGEST or abs(value) == math.inf)
    )
