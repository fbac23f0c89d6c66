"""One ledger of published claims over several studies, and over what needs no training: a page and ledger.csv.

Each study judges a claim by itself, with its own tests, as its report does; nothing is pooled over studies, whose data and
recipes differ. What a source measured stands beside what the cells most like its own give, with both settings.
"""

import itertools
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd

from grids import TUNING_FROM, Cell, Grid, run_ids
from reports import claims, export, figures, looks
from reports.album import Album, template
from reports.answer import answer, scope
from reports.comparisons import compare
from reports.curves import with_curves
from reports.ledger import EVERY, Claim, Selection
from reports.measures import measure
from reports.outcomes import ReportError, gather
from reports.rates import select
from reports.words import counted, enumerated, interval, minus, seeds, setting, varying
from results import Store

ANATOMY = "anatomy"  # what stands in place of a study's name
COLUMNS = ("study", *claims.COLUMNS, "nearest", "nearest_estimate", "nearest_low", "nearest_high", "nearest_n")
ROUNDING = 1e-9
MOST_TOLD = 4  # numbers of the anatomy in a sentence
ALWAYS = ("epochs", "batch", "width", "lr", "optimiser", "schedule")  # fields that are told, whatever they are
METHOD = (
    "Every study judges by its own tests, adjusted over the claims that it covers; the same claim may come out otherwise in "
    "another, and then both are shown. Studies that share runs confirm each other the less. What is computed without "
    "training is no test: one drawing of the weights, from stated seeds. A number of a source was measured on its data and "
    "by its recipe, which are not those of the studies."
)


class Study(NamedTuple):
    grid: Grid
    store: Store


class Line(NamedTuple):
    """What one study, or the anatomy, says of a claim."""

    study: str
    verdict: str
    reason: str
    nearest: str


class Entry(NamedTuple):
    """A claim and what is said of it."""

    claim: Claim
    lines: list[Line]
    missing: str  # why no study says anything; else empty


def build(
    studies: Sequence[Study], anatomy: Iterable[Sequence], folder: Path, own_claims: Path | None = None
) -> list[str]:
    """Write index.html and ledger.csv into `folder`; say what was written.

    anatomy: rows of (section, quantity, setting, value). own_claims: a file of claims judged beside the published ones.
    ReportError where a store has nothing to compare, or two studies have one name.
    """
    names = [study.grid.name for study in studies]
    for name in names:
        if names.count(name) > 1:
            raise ReportError(f"{name}: is the name of two studies, and a ledger tells them by their grids' names")
        if name == ANATOMY:
            raise ReportError(f"{name}: no study can have this name, by which a ledger tells what needs no training")
    ledger = (*claims.read(), *(claims.read(own_claims) if own_claims else ()))
    by_anatomy = pd.DataFrame(anatomy, columns=["section", "quantity", "setting", "value"])
    rows = [_of_anatomy(claim, by_anatomy) for claim in ledger if claim.anatomy]
    shared = _shared(studies)
    shown, album = [], Album(folder / "figures")
    with export.writing(folder):
        for study in studies:
            judged, told = _of_study(ledger, study, album)
            rows += judged
            shown.append(told)
        frame = pd.DataFrame(rows, columns=list(COLUMNS))
        entries = [_entry(claim, frame[frame["id"] == claim.id]) for claim in ledger]
        export.write_csv(frame, folder / "ledger.csv")
        page = folder / "index.html"
        page.write_text(
            template("ledger.html").render(
                studies=shown,
                shared=shared,
                entries=entries,
                verdicts=claims.VERDICTS,
                marks=figures.MARKS,
                method=METHOD,
            ),
            encoding="utf-8",
        )
    return [
        *in_words(entries),
        str(page.resolve()),
        f"beside it ledger.csv, and {len(album.names)} figures as SVG and PNG",
    ]


def _shared(studies: Sequence[Study]) -> str:
    """'a and b 720, a and c 80': how many compared runs each two have in common, where they have some."""
    runs = {study.grid.name: _compared(study) for study in studies}
    pairs = [(a, b, len(runs[a] & runs[b])) for a, b in itertools.combinations(runs, 2)]
    return ", ".join(f"{a} and {b} {n:,}" for a, b, n in pairs if n)


def _compared(study: Study) -> set[str]:
    """The finished runs of a study that do not only choose values."""
    cells, seeds = study.grid.cells(), [seed for seed in study.grid.seeds.every if seed < TUNING_FROM]
    return {run_id for cell in cells for run_id in run_ids(cell, seeds)} & study.store.finished().keys()


def _of_study(ledger: Sequence[Claim], study: Study, album: Album) -> tuple[list[Mapping], dict[str, object]]:
    """Rows of COLUMNS, and what the page says of a study: the head of its report, and a picture of its primary family."""
    gathered = gather(*study)
    selected = select(gathered)
    results, _ = with_curves(looks.first(selected.results), study.store)
    near = [replace(claim, cells={**claim.cells, **claim.nearest}) for claim in ledger if claim.nearest]
    judged = claims.judged(ledger, gathered, results, study.store).assign(study=study.grid.name)
    nearest = claims.judged(near, gathered, results, study.store).set_index("id") if near else pd.DataFrame()
    rows = []
    for claim, row in zip(ledger, judged.to_dict("records"), strict=True):
        if claim.id in nearest.index and np.isfinite(nearest.loc[claim.id, "estimate"]):
            found = nearest.loc[claim.id]
            row |= {f"nearest_{name}": found[name] for name in ("estimate", "low", "high", "n")}
            row["nearest"] = recipe(study.grid, {**claim.cells, **claim.nearest})
        rows.append(row)
    grid, frame, fields = study.grid, compare(selected.results), varying(results.runs)
    said, primary = answer(frame, grid, fields), grid.analysis.primary
    family = frame[(frame["metric"] == primary.metric) & (frame["contrast"] == primary.contrast)]
    title = f"{measure(primary.metric).title}, {minus(primary.contrast)}"
    figure = figures.heatmap(frame, primary.metric, primary.contrast, fields)
    return rows, {
        "name": grid.name,
        "title": grid.question,
        "setting": recipe(grid),
        "seeds": grid.seeds.count,
        "answer": said,
        "picture": album.add(figure, grid.name, title, seeds(family)),
        "scope": scope(frame, grid),
        "hash": grid.analysis_hash,
    }


def _of_anatomy(claim: Claim, rows: pd.DataFrame) -> Mapping[str, object]:
    """A claim about numbers that need no training. ReportError where there are no such numbers."""
    wanted = rows
    for key, values in claim.anatomy.items():
        if values != (EVERY,):
            wanted = wanted[wanted[key].isin(values)]
            if missing := sorted(set(values) - set(wanted[key])):
                raise ReportError(f"claim {claim.id!r}: anatomy.{key}: there are no such numbers: {', '.join(missing)}")
    values = wanted["value"]
    holds = values > claim.than if claim.expected == "greater" else values < claim.than
    least, most = (value if abs(value) >= ROUNDING else 0.0 for value in (values.min(), values.max()))
    if least == most == 0:
        told = f"0 but for rounding ({enumerated(list(wanted['setting']))})"
    elif len(values) > MOST_TOLD:
        told = f"{least:.3g} to {most:.3g}, {holds.sum()} of {len(values)} {claim.expected} than {claim.than:g}"
    else:
        told = enumerated([f"{value:.3g} ({name})" for value, name in zip(values, wanted["setting"], strict=True)])
    (quantity,) = claim.anatomy["quantity"]
    return {
        "study": ANATOMY, "id": claim.id, "source": claim.source, "statement": claim.statement,
        "verdict": "supported" if holds.all() else "contradicted", "expected": claim.expected, "n": 1, "cells": len(values),
        "reason": f"{quantity[:1].upper()}{quantity[1:]}: {told}.", "low": least, "high": most,
    }  # fmt: skip


def _entry(claim: Claim, rows: pd.DataFrame) -> Entry:
    covered = rows[rows["verdict"] != "not covered"]
    lines = []
    for row in covered.to_dict("records"):
        near = ""
        if isinstance(row["nearest"], str):
            of = measure(claim.metric)
            numbers = interval(of, *(row[f"nearest_{name}"] for name in ("estimate", "low", "high")))
            spread = " in mean absolute deviation" if claim.expected == "less_spread" else ""
            near = f"{numbers}{spread}, n = {row['nearest_n']:.0f} ({row['nearest']})"
        lines.append(Line(row["study"], row["verdict"], row["reason"], near))
    return Entry(claim, lines, "" if lines else "; ".join(dict.fromkeys(rows["reason"])))


def recipe(grid: Grid, of: Selection | None = None) -> str:
    """What was trained, and how: each field with its values, but the order. of: of which cells, by field."""
    cells = [cell for cell in grid.cells() if all(each.has(getattr(cell, name)) for name, each in (of or {}).items())]
    parts = []
    for name, info in Cell.model_fields.items():
        values = list(dict.fromkeys(getattr(cell, name) for cell in cells))
        if name != "order" and (name in ALWAYS or values != [info.default]):
            chosen = ", the best for each arm" if name in grid.searched and name not in (of or {}) else ""
            parts.append(f"{name} {', '.join(map(setting, values))}{chosen}")
    return "; ".join(parts)


def in_words(entries: Sequence[Entry]) -> list[str]:
    """A line for each claim that something is said of, and how many there are of which nothing is."""
    lines = []
    for entry in entries:
        said = "; ".join(f"{line.verdict} ({line.study})" for line in entry.lines)
        if said:
            lines.append(f"{entry.claim.id}: {said}")
    lacking = sum(not entry.lines for entry in entries)
    return [*lines, *([f"{counted(lacking, 'claim')} not covered"] if lacking else [])]
