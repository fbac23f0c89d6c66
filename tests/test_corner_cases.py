"""Odd stores: what the report says of each stands in reports/CALIBRATION.md, and nothing is silently not significant."""

import ast
import math
from pathlib import Path

import numpy as np
import pytest
from calibration.corner_cases import CASES, HEAD, line, row
from simulated import AFTER, fill, read_grid
from test_comparisons import accidents, assert_agrees

from grids import GridError
from reports.comparisons import compare
from reports.outcomes import gather
from results import Store

pytestmark = pytest.mark.filterwarnings("error")

ROOT = Path(__file__).parents[1]
DOCUMENT = (ROOT / "reports" / "CALIBRATION.md").read_text(encoding="utf-8")
BOUNDED = ("p", "p_holm", "p_bh", "p_sign_flip", "p_variance", "p_diverged", "p_diverged_holm")


@pytest.fixture(scope="module")
def rows(tmp_path_factory):
    return {case.what: row(case, tmp_path_factory.mktemp("case")) for case in CASES}


@pytest.fixture(params=CASES, ids=lambda case: case.what)
def case(request):
    return request.param


def test_the_document_says_what_becomes_of_a_corner_case(rows, case):
    assert line(case, rows[case.what]) in DOCUMENT.splitlines()


def test_the_document_has_the_corner_cases_only():
    table = DOCUMENT.partition(HEAD)[2].strip().splitlines()
    assert [text.split(" | ")[0].removeprefix("| ") for text in table] == [case.what for case in CASES]


def test_every_p_of_a_corner_case_is_a_number_between_0_and_1(rows, case):
    of = rows[case.what]
    p = of[list(BOUNDED)].to_numpy(float)
    assert ((p >= 0) & (p <= 1)).all()
    equivalence = of[["p_equivalence", "p_equivalence_holm", "power"]].to_numpy(float)
    assert np.isnan(equivalence).all() if math.isnan(of["margin"]) else ((equivalence >= 0) & (equivalence <= 1)).all()


def test_what_cannot_be_tested_is_said_to_be_untested(rows, case):
    of = rows[case.what]
    if of["n"] < 2:
        assert (of["p"], of["p_equivalence"]) == (1, 1)
    if of["n"] < 5:
        assert of["verdict"] in ("underpowered", "inconclusive")
    assert (of["n"] < 5) == ("n < 5" in of["notes"].split("; "))


def test_an_interval_of_a_corner_case_holds_its_difference(rows, case):
    of = rows[case.what]
    if of["n"]:
        assert of["low_family"] <= of["low"] <= of["difference"] <= of["high"] <= of["high_family"]
        assert 0 <= of["improvement_low"] <= of["probability_of_improvement"] <= of["improvement_high"] <= 1
    else:
        assert of[["difference", "low", "high", "mean_a", "mean_b", "effect_size", "seeds_needed"]].isna().all()


def test_a_verdict_of_a_corner_case_is_what_its_interval_says(rows, case):
    """Only what differs from 0 is different; only what lies within the margin is equivalent. Else a note says why."""
    of = rows[case.what]
    if "decided at an earlier look" in of["notes"]:
        return
    if of["verdict"] in ("different", "negligible"):
        assert of["low"] > 0 or of["high"] < 0
    if of["verdict"] in ("equivalent", "negligible"):
        assert -of["margin"] < of["low"] <= of["high"] < of["margin"]


def test_a_margin_of_zero_is_refused(tmp_path):
    message = r"simulated.toml: \[analysis\] margin.test_accuracy = 0: should be greater than 0"
    with pytest.raises(GridError, match=message):
        read_grid(tmp_path, margins="margin = { test_accuracy = 0 }")


def test_cells_that_were_not_run_count_in_the_family(rows):
    of = rows["one of 6 cells run"]
    assert of["p_holm"] == pytest.approx(6 * of["p"])
    assert of["p_equivalence_holm"] == pytest.approx(min(1, 6 * of["p_equivalence"]))


# Notes


def notes_of_the_code() -> set[str]:
    """Labels of the dictionary `notes` in reports/comparisons.py, with those of the functions whose answer it takes in."""
    tree = ast.parse((ROOT / "reports" / "comparisons.py").read_text(encoding="utf-8"))
    functions = {node.name: node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)}
    assigned = [n for n in ast.walk(tree) if isinstance(n, ast.Assign) and getattr(n.targets[0], "id", "") == "notes"]
    assert len(assigned) == 1
    labels = set()
    for key, value in zip(assigned[0].value.keys, assigned[0].value.values, strict=True):
        if key is not None:
            labels.add(key.value)
        elif isinstance(value, ast.Call):
            answers = [n.value for n in ast.walk(functions[value.func.id]) if isinstance(n, ast.Return)]
            labels |= {k.value for answer in answers if isinstance(answer, ast.Dict) for k in answer.keys}
    return labels


def test_every_note_of_the_code_stands_in_a_corner_case(rows):
    labels = notes_of_the_code()
    assert {"n < 5", "floor", "unplanned seeds"} <= labels
    assert labels <= {note for of in rows.values() for note in of["notes"].split("; ")}


@pytest.mark.parametrize("verdict", ["different", "equivalent", "negligible", "underpowered", "inconclusive"])
def test_every_verdict_stands_in_a_corner_case(rows, verdict):
    assert verdict in {of["verdict"] for of in rows.values()}


# Random stores

CALIBRATION = "test_calibration_error = 0.03, train_calibration_error = 0.01"
MARGIN = f"margin = {{ test_accuracy = 0.02, best_val_loss = 0.04, {CALIBRATION} }}"
SHAPES = {
    "one comparison": (("relu",), (2,), 11, 0.0),
    "five seeds": (("relu", "tanh", "elu", "maxout"), (2, 4), 5, 0.0),
    "four seeds": (("relu", "maxout"), (2, 4), 4, 0.0),
    "fifteen seeds": (("relu", "elu"), (2,), 15, 0.0),
    "one arm diverges often": (("relu", "tanh", "elu", "maxout"), (2, 4), 12, 0.4),
    "one arm always diverges": (("relu", "elu"), (2, 4), 12, 1.0),
}


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("seed", [10, 11])
def test_a_random_store_agrees_with_the_second_implementation(tmp_path, shape, seed):
    activations, depths, seeds, rate = SHAPES[shape]
    grid = read_grid(tmp_path, activations, depths, seeds, MARGIN, ("after - before", "before - none"))
    rng = np.random.default_rng(seed)
    runs = accidents(grid, seed)
    for each in runs:
        if each["cell"].order == AFTER and each["status"] == "done" and rng.random() < rate:
            each.update({**dict.fromkeys(grid.analysis.metrics, math.nan), "status": "diverged"})
    frame = compare(gather(grid, fill(Store(tmp_path / "store"), runs)))
    assert_agrees(frame, grid, runs, grid.analysis.metrics)
