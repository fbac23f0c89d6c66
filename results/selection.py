"""The rule by which values under [nuisance] are chosen: arrays in, choices out. Plans and reports both use it.

Shapes: T tuning seeds, C candidates from small to large, O orders, P cells without order and without what is searched.
Outcomes are NaN where a run is missing; scores are outcomes of which the larger is the better.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np

from results.schema import PARTS

Array = np.ndarray
KINDS = ("accuracy", "loss", "calibration_error")
DECIMALS = 12  # to which means are equal: sums of the same numbers in another sequence differ behind them


def split(metric: str) -> tuple[str, str, str]:
    """Prefix, part and kind: 'best_test_loss' is ('best_', 'test', 'loss'). KeyError where it is no metric of a run."""
    for kind in KINDS:
        for part in PARTS:
            if metric.endswith(f"{part}_{kind}"):
                return metric.removesuffix(f"{part}_{kind}"), part, kind
    raise KeyError(metric)


def validated_by(metric: str) -> str:
    """The same metric on the validation part, by which values are chosen."""
    prefix, _, kind = split(metric)
    return f"{prefix}val_{kind}"


def worst_outcome(kind: str, classes: Array, values: Array) -> Array:
    """What a diverged run counts as, (K,): accuracy of guessing, the larger of ln classes and the worst finite loss,
    calibration error 1. values (n, K): of the finished runs.
    """
    if kind == "accuracy":
        return 1 / np.asarray(classes, float)
    if kind == "calibration_error":
        return np.ones(len(classes))
    return np.maximum(np.log(classes), np.where(np.isfinite(values), values, -np.inf).max(0, initial=-np.inf))


def outcomes(kind: str, values: Array, diverged: Array, classes: Array) -> Array:
    """With diverged runs at the worst of all orders and candidates of their cell, so that it is the same for all of them.

    values, diverged (T, C, O, P): values are NaN where no run is done. classes (P,).
    """
    values = np.where(np.isfinite(values), values, np.nan)
    return np.where(diverged, worst_outcome(kind, classes, values.reshape(-1, values.shape[-1])), values)


def scores(kind: str, outcomes: Array) -> Array:
    return outcomes if kind == "accuracy" else -outcomes


def means(weights: Array, scores: Array) -> Array:
    """Weighted means over seeds that can be compared, −inf where there is no run. (D, T), (T, C, O, P) -> (D, C, O, P)"""
    there = np.isfinite(scores)
    n = np.tensordot(weights, there.astype(float), 1)
    total = np.tensordot(weights, np.where(there, scores, 0.0), 1)
    return np.round(np.divide(total, n, out=np.full(n.shape, -np.inf), where=n > 0), DECIMALS)


def best(weights: Array, scores: Array) -> Array:
    """The candidate with the largest weighted mean, the first of equals, −1 where none has a run. -> (D, O, P)"""
    mean = means(weights, scores)
    return np.where(np.isfinite(mean).any(1), mean.argmax(1), -1)


def tuned(climbing: Array, outcomes: Array) -> Array:
    """Where every candidate that climbs has a finished run; arms that choose among fewer are not compared. -> bool (O, P)

    climbing: bool (C, O, P); outcomes (T, C, O, P).
    """
    return (np.isfinite(outcomes).any(0) | ~climbing).all(0) & climbing.any(0)


def chosen(kind: str, climbing: Array, outcomes: Array) -> Array:
    """The candidate with the best mean outcome, −1 where those that climb are not all tuned. -> (O, P)"""
    found = best(np.ones((1, len(outcomes))), scores(kind, outcomes))[0]
    return np.where(tuned(climbing, outcomes), found, -1)


def survivors(scores: Array, halving: int, started: Array) -> Array:
    """Which candidates go on to the next rung: the best 1/halving of those that began this one, rounded up, the first of
    equals; none where those that began are not all tuned. scores (T, C, O, P), started bool (C, O, P) -> bool (C, O, P)
    """
    mean = np.where(started, means(np.ones((1, len(scores))), scores)[0], -np.inf)
    places = np.argsort(np.argsort(-mean, axis=0, kind="stable"), axis=0, kind="stable")
    return (places < -(-started.sum(0) // halving)) & tuned(started, scores)


def candidates(nuisance: dict[str, tuple[Any, ...]], fields: Sequence[str]) -> list[list[Any]]:
    """The values of each field in the sequence in which the first of equals is taken: numbers from small to large."""
    return [list(nuisance[f]) if isinstance(nuisance[f][0], str) else sorted(nuisance[f]) for f in fields]
