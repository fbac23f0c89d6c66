"""Where an effect depends on the cell: one family over all its cells and along its axes, as data.

A family whose sign flips gets no mean over its cells: the flips are named instead. In words and as a picture: where_words.
"""

import itertools
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import pandas as pd

from reports import effects as fx
from reports import statistics as st
from reports.measures import Measure
from reports.outcomes import FIELDS_OF_A_PAIR, Paired, ReportError, Results
from reports.words import label, varying

FEWEST_CELLS = 10  # for tau and what follows from it
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
    told = varying(cells)
    names = np.array([label(row, told) for row in cells.to_dict("records")], object)
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
