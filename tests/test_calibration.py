"""Intervals, tests and verdicts keep what they promise in simulations, and wrong versions of them are seen not to."""

import re
from pathlib import Path

import numpy as np
import pytest
from calibration.families import ALPHA, families, paired
from calibration.promises import RIGHT, Promise, band, measured, standard_error
from calibration.table import PARTS, shares
from simulated import exactly

from reports import statistics as st
from reports.measures import measure
from reports.outcomes import Paired

pytestmark = pytest.mark.filterwarnings("error")

DOCUMENT = (Path(__file__).parents[1] / "reports" / "CALIBRATION.md").read_text(encoding="utf-8")
PROMISES = [promise for part in PARTS.values() for promise in part]
EACH = [pytest.param(promise, n, id=f"{promise.what}, n = {n}") for promise in PROMISES for n in promise.draws]
MARGIN = 0.02


@pytest.mark.parametrize(("promise", "n"), EACH)
def test_a_promise_is_kept_and_the_same_check_sees_every_wrong_version(promise: Promise, n: int):
    low, high = band(promise, n)
    seen = measured(promise, n)
    assert low <= seen.pop(RIGHT) <= high
    assert seen, "no wrong version"
    assert {version: share for version, share in seen.items() if low <= share <= high} == {}


def documented() -> dict[str, list[str]]:
    """Cells of each line of the tables of promises, by what is promised."""
    tables = DOCUMENT.partition("## Corner cases")[0]
    rows = [re.split(r" ?\| ?", text.strip("|\n ")) for text in re.findall(r"^\|.*\|$", tables, re.M)]
    return {row[0]: row[1:] for row in rows if len(row) == 8}


@pytest.mark.parametrize("promise", PROMISES, ids=lambda promise: promise.what)
def test_the_document_states_what_is_promised_and_measured(promise: Promise):
    promised, *cells = documented()[promise.what]
    assert promised == shares(promise.share)
    for cell, n in zip([c for c in cells[:4] if c], promise.draws, strict=True):
        share = measured(promise, n)[RIGHT]
        assert float(cell) == pytest.approx(share, abs=6 * standard_error(share, promise.draws[n]) + 0.001)


def test_the_document_states_nothing_else():
    assert set(documented()) <= {promise.what for promise in PROMISES} | {"promise", "---"}


# Seeds that make a verdict certain


def verdict(pair: Paired) -> str:
    """Of the first comparison, in a family of all."""
    (tests,) = families(pair, pair.d.shape[1], MARGIN)
    return tests.verdicts[0]


def decided(n: int, sd: float, planned: int, mean: float) -> bool:
    """Whether a comparison with this mean and sd has a verdict in a family of which nothing else was run."""
    d = np.full((n, planned), np.nan)
    d[:, 0] = exactly(n, mean, sd)
    return verdict(paired(d, np.zeros_like(d))) not in ("underpowered", "inconclusive")


@pytest.mark.parametrize("planned", [1, 6, 54])
@pytest.mark.parametrize("sd", [0.01, 0.02, 0.05])
def test_with_the_seeds_needed_there_is_a_verdict_whatever_the_mean(sd, planned):
    few = st.Moments(np.array([10]), np.zeros(1), np.array([sd]))
    needed, upper = int(st.seeds_needed(few, MARGIN, ALPHA, planned)[0]), st.upper_sd(few)[0]
    means = np.linspace(0, 2 * MARGIN, 41)
    assert all(decided(needed, upper, planned, mean) for mean in means)
    assert not all(decided(max(5, needed * 4 // 5), upper, planned, mean) for mean in means)


# Divergence


def arms_that_differ_in_failures(n: int, failures: int, drop: float):
    """Outcomes of equal arms of which the first diverged in the first seeds. (n, 1) each, and where it diverged."""
    accuracy = 0.1 + drop + 0.001 * np.random.default_rng(n).standard_normal((n, 1))
    lost = np.arange(n)[:, None] < failures
    return accuracy, accuracy - 0.0001, (lost, np.zeros_like(lost))


@pytest.mark.parametrize("n", [5, 10, 20, 50])
def test_an_arm_that_diverged_in_one_seed_or_more_is_never_equivalent(n):
    for failures in range(1, n + 1):
        a, b, lost = arms_that_differ_in_failures(n, failures, drop=0.6)
        pair = paired(a, b, lost, "test_accuracy")
        assert verdict(pair) in ("different", "inconclusive")
        only_finished = st.tost(st.moments(pair.finished, pair.floor), MARGIN)
        assert (only_finished <= ALPHA) == (n - failures >= 2)  # what leaving them out would say


def test_one_diverged_run_among_very_many_is_within_the_margin_of_a_mean():
    # one failure moves the mean by drop/n and has a standard error of about as much: TOST rejects from
    # drop/n·(1 + t) = margin on, with t the 95 % quantile
    drop, said = 0.6, {}
    for n in range(60, 100):
        a, b, lost = arms_that_differ_in_failures(n, 1, drop)
        said[n] = verdict(paired(a, b, lost, "test_accuracy"))
    first = min(n for n, word in said.items() if word == "equivalent")
    assert first == pytest.approx(drop / MARGIN * (1 + 1.66), abs=2)


def test_arms_whose_every_pair_diverged_have_no_verdict():
    a, b, (lost, _) = arms_that_differ_in_failures(20, 20, drop=0.6)
    pair = paired(a, b, (lost, lost), "test_accuracy")
    assert verdict(pair) == "inconclusive"
    assert measure("test_accuracy").worst(pair.facts, a, b).tolist() == [0.1]
