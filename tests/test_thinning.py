"""Thinning: a store that is small and says the same of every run, and of the rest what a report shows."""

import math

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pandas.testing import assert_frame_equal
from simulated import fill, layers_of, normal_quantiles, planted, read_grid, run

from grids import TUNING_FROM, Run
from normorder import main
from reports import page
from results import SCHEMAS, Store, StoreError, table, thinning
from results.merging import merge
from results.schema import QUANTILES
from results.thinning import BITS, is_thinned, thin
from results.validation import validate

RATES = "[nuisance]\nlr = [0.1, 0.3]"
SEEDS, TUNING = 6, range(TUNING_FROM, TUNING_FROM + 5)


def curves_of(name, rows):
    """What a training writes, with numbers of many digits."""
    keys = [
        (Run(row["cell"], row["seed"]).run_id, epoch, split)
        for row in rows
        for epoch in range(21)
        for split in ("val", "train")
        if epoch or split == "val"
    ]
    rng = np.random.default_rng(len(keys))
    numbers = {key: rng.random(len(keys)) for key in ("loss", "accuracy", "calibration_error", "lr")}
    run_ids, epochs, splits = zip(*keys, strict=True)
    where = {"run_id": run_ids, "trial": name, "epoch": epochs, "split": splits}
    return table("curves", {**where, **numbers, "gradient_norm": [math.nan, *rng.random(len(keys) - 1)]})


@pytest.fixture
def study(tmp_path):
    """A grid that searches the learning rate, and its store: every run with curves, layers and examples."""
    grid = read_grid(tmp_path, seeds=SEEDS, axes=RATES)
    rng = np.random.default_rng(0)
    runs = planted(grid, {"relu": rng.normal(0.02, 0.005, SEEDS)})
    runs += [run(cell, seed, val_accuracy=rng.random()) for cell in grid.cells() for seed in TUNING]

    def measure(*_):
        return {"mean": rng.normal(), "dead": rng.random(), "quantiles": normal_quantiles(rng.normal(), 1)}

    counts = {f"{cell.cell_id}{part}": rng.integers(0, 6, 500) for cell in grid.cells() for part in ("", "t")}

    def trial(each):
        return each["cell"].cell_id + ("t" if each["seed"] in TUNING else "")

    where = fill(Store(tmp_path / "store"), runs, trial, counts=counts, curves=curves_of, layers=layers_of(measure))
    return grid, where


def rows(store, name):
    return store.read(name).to_pylist()


def test_every_run_stays_as_it_is(study, tmp_path):
    _, store = study
    thin(store, thinned := Store(tmp_path / "thinned"))
    assert repr(rows(store, "runs")) == repr(rows(thinned, "runs"))
    assert store.fates() == thinned.fates()


def test_what_is_left_of_tuning_runs_is_what_activations_gave_at_the_end(study, tmp_path):
    _, store = study
    thin(store, thinned := Store(tmp_path / "thinned"))
    tuning = {row["run_id"] for row in rows(store, "runs") if row["seed"] in TUNING}
    trials = {row["trial"] for row in rows(store, "runs") if row["seed"] in TUNING}
    left = [(row["epoch"], row["site"]) for row in rows(thinned, "layers") if row["run_id"] in tuning]
    assert set(left) == {(20, "act")}
    assert len(left) == len([row for row in rows(store, "layers") if row["run_id"] in tuning]) / 2 / 5
    assert not tuning & {row["run_id"] for row in rows(thinned, "curves")}
    assert not trials & {row["trial"] for row in rows(thinned, "examples")}


def test_of_compared_runs_every_row_is_left_with_fewer_digits(study, tmp_path):
    _, store = study
    thin(store, thinned := Store(tmp_path / "thinned"))
    compared = pa.array([row["run_id"] for row in rows(store, "runs") if row["seed"] not in TUNING])
    for name in ("curves", "layers"):
        keys = [(field, "ascending") for field in SCHEMAS[name].names if field in ("run_id", "epoch", "split", "site")]
        before, after = (
            each.filter(pc.is_in(each["run_id"], compared)).sort_by(keys)
            for each in (store.read(name), thinned.read(name))
        )
        assert len(before) == len(after) > 0
        for field in before.schema:
            a, b = (each[field.name].to_pylist() for each in (before, after))
            if pa.types.is_floating(field.type):
                assert [each is None for each in a] == [each is None for each in b]
                a, b = ([each for each in values if each is not None] for values in (a, b))
                assert a == pytest.approx(b, rel=2**-BITS)
                assert a != b or not a, field.name
            elif field.name != "quantiles":
                assert a == b
    by_site = {
        row["site"]: row["quantiles"] for row in rows(thinned, "layers") if row["run_id"] in compared.to_pylist()
    }
    assert {site for site, quantiles in by_site.items() if quantiles is not None} == {"act"}
    assert len(by_site["act"]) == len(QUANTILES)
    assert repr(rows(thinned, "examples")) == repr([row for row in rows(store, "examples") if row["trial"][-1] != "t"])


def test_a_report_says_the_same_verdicts(study, tmp_path):
    grid, store = study
    thin(store, thinned := Store(tmp_path / "thinned"))
    told = [page.build(grid, each, tmp_path / f"page{i}") for i, each in enumerate((store, thinned))]
    assert told[0][:2] == told[1][:2]
    same = [pd.read_csv(tmp_path / f"page{i}" / "comparisons.csv") for i in range(2)]
    for each in same:  # of the copy it is that of compared seeds alone
        assert each.pop("test_set_error").notna().any()
    assert_frame_equal(*same, check_exact=True)


def test_thinning_again_changes_no_byte(study, tmp_path):
    _, store = study
    once, twice = (Store(tmp_path / name) for name in ("once", "twice"))
    thin(store, once)
    thin(once, twice)
    for name in SCHEMAS:
        assert [path.name for path in once.files(name)] == [path.name for path in twice.files(name)]
        assert [path.read_bytes() for path in once.files(name)] == [path.read_bytes() for path in twice.files(name)]


def test_a_thinned_store_is_valid_and_another_that_lacks_as_much_is_not(study, tmp_path):
    _, store = study
    thin(store, thinned := Store(tmp_path / "thinned"))
    assert is_thinned(thinned)
    assert validate(store) == validate(thinned) == []
    (tmp_path / "thinned" / ".thinned").unlink()
    tuning = len([row for row in rows(store, "runs") if row["seed"] in TUNING])
    assert len(validate(thinned)) == 2 * tuning  # curves and examples


def test_a_store_that_is_there_is_not_thinned_into(study, tmp_path, monkeypatch, capsys):
    _, store = study
    with pytest.raises(StoreError, match="is there already"):
        thin(store, store)
    monkeypatch.setattr("sys.argv", ["normorder", "thin", str(tmp_path / "none"), str(tmp_path / "into")])
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 2
    assert f"{tmp_path / 'none'}: there is no store" in capsys.readouterr().err
    assert not (tmp_path / "into").exists()


def test_a_merge_takes_along_that_a_store_is_thinned(study, tmp_path):
    _, store = study
    thin(store, thinned := Store(tmp_path / "thinned"))
    merge([thinned], merged := Store(tmp_path / "merged"))
    assert is_thinned(merged)
    assert validate(merged) == []
    merge([store], whole := Store(tmp_path / "whole"))
    assert not is_thinned(whole)


def test_an_interrupted_thinning_is_begun_again(study, tmp_path, monkeypatch):
    _, store = study
    thin(store, whole := Store(tmp_path / "whole"))
    published = thinning.at(store.path).publish

    def interrupted(staged, place):
        if place.parent.name == "layers":
            raise KeyboardInterrupt
        published(staged, place)

    target = Store(tmp_path / "thinned")
    with monkeypatch.context() as patched:
        patched.setattr(thinning.at(store.path), "publish", interrupted)
        with pytest.raises(KeyboardInterrupt):
            thin(store, target)
    (tmp_path / "thinned" / "curves" / "part-old.parquet").write_bytes(b"of another attempt")
    thin(store, target)
    for name in SCHEMAS:
        assert [path.name for path in target.files(name)] == [path.name for path in whole.files(name)]


def test_an_empty_store_is_not_thinned(tmp_path):
    (tmp_path / "store" / "runs").mkdir(parents=True)
    Store(tmp_path / "store").mark()
    with pytest.raises(StoreError, match="is empty"):
        thin(Store(tmp_path / "store"), Store(tmp_path / "thinned"))
    assert not (tmp_path / "thinned").exists()


def test_a_tuning_run_keeps_the_end_of_each_of_its_trials(study, tmp_path):
    grid, store = study
    later = layers_of(lambda *_: {"mean": 1.0}, epochs=(0, 30))
    again = [run(next(iter(grid.cells())), TUNING[0])]
    fill(store, again, lambda _: "another", layers=later, engine="other")
    thin(store, thinned := Store(tmp_path / "thinned"))
    (accepted,) = [
        row["trial"] for row in rows(thinned, "runs") if row["run_id"] == Run(again[0]["cell"], TUNING[0]).run_id
    ]
    assert accepted != "another"
    assert [row["epoch"] for row in rows(thinned, "layers") if row["trial"] == accepted] == [20] * len(TUNING) * 2


@given(st.lists(st.floats(width=32) | st.none(), max_size=20))
def test_rounding_keeps_what_is_missing_and_the_rest_to_a_relative_error(values):
    found = thinning._shortened(pa.array(values, pa.float32())).to_pylist()
    assert [each is None for each in found] == [each is None for each in values]
    for before, after in zip(values, found, strict=True):
        if before is not None and not (abs(before) < 2**-120):  # what is nearly 0 has fewer digits
            assert after == pytest.approx(before, rel=2**-BITS, nan_ok=True)
