"""Merging: stores that were filled apart become one, in any order, any number of times, and no row is lost."""

import shutil
import sys
import tempfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from test_store import curves, examples, runs
from test_upkeep import fill, histories, names, said, several

import normorder
from results import Store, StoreError
from results.merging import merge
from results.upkeep import compact


def merged(folder, *sources):
    merge([Store(source) for source in sources], Store(folder))
    return folder


def command(monkeypatch, capsys, *words):
    """Exit code and what was printed."""
    monkeypatch.setattr(sys, "argv", ["normorder", *map(str, words)])
    with pytest.raises(SystemExit) as stopped:
        normorder.main()
    return stopped.value.code, capsys.readouterr()


@given(histories, histories, histories)
@settings(max_examples=10)
def test_merging_is_idempotent_commutative_and_associative(a, b, c):
    with tempfile.TemporaryDirectory() as folder:
        folder = Path(folder)
        for name, history in {"a": a, "b": b, "c": c}.items():
            fill(folder / name, history)
        a, b, c = folder / "a", folder / "b", folder / "c"
        whole = said(merged(folder / "abc", a, b, c))
        assert said(merged(folder / "cba", c, b, a)) == whole
        assert said(merged(folder / "a-bc", a, merged(folder / "bc", b, c))) == whole
        assert said(merged(folder / "ab-c", merged(folder / "ab", a, b), c)) == whole
        assert said(merged(folder / "abc", a, b, c)) == whole
        assert said(merged(a, b, c)) == whole


@given(histories, histories)
@settings(max_examples=10)
def test_merging_compacted_stores_says_the_same(a, b):
    with tempfile.TemporaryDirectory() as folder:
        folder = Path(folder)
        fill(folder / "a", a)
        fill(folder / "b", b)
        whole = said(merged(folder / "small", folder / "a", folder / "b"))
        compact(Store(folder / "a"))
        compact(Store(folder / "b"))
        assert said(merged(folder / "large", folder / "a", folder / "b")) == whole


def test_what_was_merged_is_not_copied_again_even_where_the_target_was_compacted(tmp_path):
    several(Store(tmp_path / "a"))
    target = Store(tmp_path / "into")
    assert str(merge([Store(tmp_path / "a")], target)) == "copied 12 files, 0 were there already"
    compact(target)
    files = names(target.path)
    assert str(merge([Store(tmp_path / "a")], target)) == "copied 0 files, 12 were there already"
    assert names(target.path) == files


@pytest.mark.parametrize("lost", ["runs", "curves", "examples"])
def test_what_the_target_has_lost_is_copied_again(tmp_path, lost):
    source, target = several(Store(tmp_path / "a")), Store(tmp_path / "into")
    merge([source], target)
    target.files(lost)[0].unlink()
    assert merge([source], target).copied == 1
    assert said(target.path) == said(source.path)


def test_runs_of_a_store_that_is_written_to_meanwhile_come_with_their_curves_and_examples(tmp_path):
    class Written(Store):
        """A sweep ends a trial whenever its tables are listed."""

        def files(self, name):
            found = super().files(name)
            if name != "runs" and len(super().files("runs")) < 20:
                several(Store(self.path), count=1, first=len(super().files("runs")))
            return found

    source, target = several(Written(tmp_path / "a")), Store(tmp_path / "into")
    merge([source], target)
    assert len(source.files("runs")) > len(target.files("runs")) >= 3
    for name in ("curves", "examples"):
        assert {path.name[:2] for path in target.files("runs")} <= {path.name[:2] for path in target.files(name)}


def test_a_copy_of_a_store_that_got_no_farther_than_its_ledger_is_filled(tmp_path):
    source, target = several(Store(tmp_path / "a")), Store(tmp_path / "into")
    merge([source], target)
    for name in ("curves", "examples", "runs"):
        shutil.rmtree(target.path / name)
    merge([source], target)
    assert said(target.path) == said(source.path)


def test_sources_stay_as_they_are(tmp_path):
    several(Store(tmp_path / "a"))
    several(Store(tmp_path / "b"), first=2)
    before = names(tmp_path / "a"), names(tmp_path / "b")
    merged(tmp_path / "into", tmp_path / "a", tmp_path / "b")
    assert (names(tmp_path / "a"), names(tmp_path / "b")) == before


def test_files_of_one_name_that_differ_in_times_only_are_both_kept(tmp_path):
    tables = {"curves": curves(0), "examples": examples(0)}
    Store(tmp_path / "a").write({**tables, "runs": runs(0, host="one")})
    Store(tmp_path / "b").write({**tables, "runs": runs(0, host="two")})
    assert names(tmp_path / "a") == names(tmp_path / "b")
    into = Store(merged(tmp_path / "into", tmp_path / "a", tmp_path / "b"))
    assert len(into.files("runs")) == 2
    assert len(into.files("curves")) == 1
    assert into.conflicts().empty


@pytest.mark.parametrize("table", ["runs", "curves", "examples"])
def test_a_damaged_source_leaves_the_target_as_it_was(tmp_path, table):
    good, bad = several(Store(tmp_path / "good")), several(Store(tmp_path / "bad"), first=3)
    path = bad.files(table)[1]
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(StoreError, match=f"{path}: not a readable Parquet file"):
        merge([good, bad], Store(tmp_path / "into"))
    assert names(tmp_path / "into") == []


def test_the_command_says_what_it_copied(tmp_path, monkeypatch, capsys):
    several(Store(tmp_path / "a"))
    code, told = command(monkeypatch, capsys, "merge", tmp_path / "a", tmp_path / "in to")
    assert (code, told.out) == (0, f"{tmp_path / 'in to'}: copied 12 files, 0 were there already\n")


def test_the_command_tells_conflicts_with_both_values(tmp_path, monkeypatch, capsys):
    for name, loss in (("a", 0.25), ("b", 0.75)):
        Store(tmp_path / name).write({"runs": runs(0, test_loss=loss), "curves": curves(0), "examples": examples(0)})
    code, told = command(monkeypatch, capsys, "merge", tmp_path / "a", tmp_path / "b", tmp_path / "into")
    assert code == 1
    lines = told.out.splitlines()
    assert sum(line.startswith("conflict: run ") for line in lines) == 2
    assert "test_loss 0.25" in told.out
    assert "test_loss 0.75" in told.out
    assert lines[-1].startswith("1 runs are in conflict")


@pytest.mark.parametrize(
    ("words", "error"),
    [
        (("nowhere", "into"), "nowhere: there is no store"),
        (("a",), "merge needs at least one store to read and one to merge into"),
        (("a", "file"), "file: not a folder, so it cannot be a store"),
    ],
)
def test_wrong_use_is_told_in_a_line(tmp_path, monkeypatch, capsys, words, error):
    several(Store(tmp_path / "a"), count=1)
    (tmp_path / "file").write_text("text")
    code, told = command(monkeypatch, capsys, "merge", *(tmp_path / word for word in words))
    assert code == 2
    assert told.err.count("\n") == 1
    assert error in told.err
    assert not (tmp_path / "into").exists()


def test_a_merge_into_one_of_the_sources_adds_the_others(tmp_path):
    several(Store(tmp_path / "a"), count=2)
    several(Store(tmp_path / "b"), count=2, first=2)
    shutil.copytree(tmp_path / "a", tmp_path / "copy")
    assert said(merged(tmp_path / "a", tmp_path / "a", tmp_path / "b")) == said(
        merged(tmp_path / "into", tmp_path / "copy", tmp_path / "b")
    )
