"""How far a grid is, by what varies, and why."""

import sys

import pytest
from simulated import PROVENANCE, fill, read_grid, run

import normorder
from results import Store
from results.overview import overview


def half_done(tmp_path):
    """Of 2 orders × 2 activations × 3 seeds: tanh missing, one relu run failed, one diverged."""
    grid = read_grid(tmp_path, activations=("relu", "tanh"), seeds=3)
    rows = [run(cell, seed) for cell in grid.cells() if cell.activation == "relu" for seed in range(3)]
    rows[0] |= {"status": "failed"}
    rows[1] |= {"status": "diverged"}
    return grid, fill(Store(tmp_path / "store"), rows)


def test_runs_are_counted_by_fate_and_by_what_varies(tmp_path):
    found = overview(*half_done(tmp_path))
    assert found.total == {"done": 4, "diverged": 1, "failed": 1, "missing": 6}
    assert found.by_value["activation", "tanh"] == {"done": 0, "diverged": 0, "failed": 0, "missing": 6}
    assert found.by_value["order", "weight-bn-act"] == {"done": 1, "diverged": 1, "failed": 1, "missing": 3}
    assert {field for field, _ in found.by_value} == {"order", "activation"}


def test_reasons_are_counted(tmp_path):
    assert overview(*half_done(tmp_path)).reasons == {
        ("failed", "no reason recorded"): 1,
        ("diverged", "no reason recorded"): 1,
    }


def test_losses_that_are_not_finite_are_one_reason_whatever_their_epoch(tmp_path):
    grid = read_grid(tmp_path, seeds=3)
    for epoch, cell in enumerate(grid.cells(), 4):
        with pytest.MonkeyPatch.context() as patch:
            patch.setitem(PROVENANCE, "error", f"a loss of epoch {epoch} was not finite")
            store = fill(Store(tmp_path / "store"), [run(cell, seed, "diverged") for seed in range(3)])
    assert overview(grid, store).reasons == {("diverged", "a loss was not finite"): 6}


def test_a_store_of_other_runs_has_none_of_the_grid(tmp_path):
    _, store = half_done(tmp_path)
    other = read_grid(tmp_path, activations=("elu",), seeds=2)
    assert overview(other, store).total == {"done": 0, "diverged": 0, "failed": 0, "missing": 4}


def test_the_command_prints_a_line_for_each_value(tmp_path, monkeypatch, capsys):
    half_done(tmp_path)
    words = ["normorder", "status", str(tmp_path / "store"), str(tmp_path / "simulated.toml")]
    monkeypatch.setattr(sys, "argv", words)
    with pytest.raises(SystemExit) as stopped:
        normorder.main()
    assert stopped.value.code == 0
    lines = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert ["all", "4", "1", "1", "6"] in lines
    assert ["activation", "tanh", "0", "0", "0", "6"] in lines
