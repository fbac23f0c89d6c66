"""The rule by which candidates are chosen, and what a diverged run counts as in it."""

import math

import numpy as np
import pytest

from results import METRICS
from results.selection import best, candidates, outcomes, split, survivors, validated_by, worst_outcome

nan = math.nan


def column(*rows):
    """Scores of T seeds and C candidates as those of one order of one cell. (T, C) -> (T, C, 1, 1)"""
    return np.array(rows, float)[:, :, None, None]


def left(scores, halving, started=None):
    started = np.ones(scores.shape[1:], bool) if started is None else started
    return np.flatnonzero(survivors(scores, halving, started)).tolist()


def test_every_metric_is_chosen_by_one_of_the_validation_part():
    assert {validated_by(metric) for metric in METRICS} <= set(METRICS)
    assert {split(validated_by(metric))[1:] for metric in METRICS} == {("val", split(m)[2]) for m in METRICS}
    assert validated_by("best_test_loss") == "best_val_loss"


def test_a_diverged_run_counts_as_guessing_in_accuracy():
    assert worst_outcome("accuracy", np.array([10, 4]), np.empty((0, 2))).tolist() == [0.1, 0.25]


def test_a_diverged_run_counts_as_the_worst_finite_loss_but_at_least_guessing():
    losses = np.array([[9.0, 0.1, nan], [nan, 0.2, nan], [0.3, 0.4, nan], [math.inf, 0.1, nan]])
    worst = worst_outcome("loss", np.array([10, 10, 10]), losses)
    assert worst.tolist() == [9.0, math.log(10), math.log(10)]


def test_a_diverged_run_has_the_worst_calibration_error():
    assert worst_outcome("calibration_error", np.array([10]), np.array([[0.3]])).tolist() == [1.0]


def test_what_a_diverged_run_counts_as_is_the_same_for_all_candidates_and_orders_of_a_cell():
    values = np.array([[[[0.3, 7.0], [9.0, 0.5]], [[nan, nan], [0.2, nan]]]])  # (1, 2, 2, 2)
    diverged = np.isnan(values)
    scored = outcomes("loss", values, diverged, np.array([2, 2]))
    assert scored[0, 1, 0].tolist() == [9.0, 7.0]
    assert scored[0, 1, 1].tolist() == [0.2, 7.0]


def test_of_equals_the_first_is_best_whatever_the_sequence_of_the_seeds():
    values = [0.7, 0.1, 0.6, 0.3, 0.2]
    assert sum(values) != sum(sorted(values))
    assert best(np.ones((1, 5)), column(*zip(values, sorted(values), strict=True))).item() == 0
    assert best(np.ones((1, 5)), column(*zip(sorted(values), values, strict=True))).item() == 0


def test_without_a_run_nothing_is_best():
    assert best(np.ones((1, 1)), column([nan, nan])).item() == -1


@pytest.mark.parametrize(("halving", "expected"), [(2, [1, 3, 4]), (3, [1, 3]), (4, [1, 3]), (5, [3])])
def test_the_best_part_of_the_candidates_goes_on_rounded_up(halving, expected):
    assert left(column([0.1, 0.8, 0.2, 0.9, 0.3]), halving) == expected


def test_of_equal_candidates_the_first_go_on():
    assert left(column([0.5, 0.5, 0.5, 0.5]), 2) == [0, 1]


def test_where_a_candidate_has_no_run_none_goes_on():
    assert left(column([nan, 0.1, 0.3, 0.2]), 2) == []
    assert left(column([nan, 0.1, 0.3, 0.2], [0.5, nan, nan, nan]), 2) == [0, 2]


def test_candidates_that_were_dropped_before_do_not_come_back():
    started = np.array([True, False, True, False])[:, None, None]
    assert left(column([0.1, 0.9, 0.2, 0.8]), 2, started) == [2]


def test_numbers_are_tried_from_small_to_large_and_names_as_the_grid_has_them():
    nuisance = {"lr": (0.1, 0.01), "schedule": ("onecycle", "constant"), "affine": (True, False)}
    assert candidates(nuisance, list(nuisance)) == [[0.01, 0.1], ["onecycle", "constant"], [False, True]]
