"""Compaction: fewer files that say the same, whoever else compacts, writes or crashes meanwhile."""

import os
import shutil
import subprocess
import sys
import tempfile
import time
from datetime import timedelta
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from test_store import START, curves, examples, layers, run_ids, runs

from results import SCHEMAS, Store, StoreError, disk, files
from results.files import identify
from results.upkeep import MANY, _remove, compact, needs_compaction

ROOT = Path(__file__).parents[1]

histories = st.lists(
    st.fixed_dictionaries(
        {
            "seeds": st.lists(st.integers(0, 3), min_size=1, max_size=3, unique=True),
            "trial": st.sampled_from(["aa", "bb", "cc"]),
            "status": st.sampled_from(["done", "done", "diverged", "failed"]),
            "code": st.sampled_from(["old", "new"]),
            "engine": st.sampled_from(["cpu", "gpu"]),
            "loss": st.sampled_from([0.5, 0.25]),
            "hour": st.integers(0, 2),
            "killed": st.booleans(),
        }
    ),
    min_size=1,
    max_size=7,
)


def fill(folder, history):
    for h in history:
        measured = {"test_loss": None if h["status"] == "failed" else h["loss"], "status": h["status"]}
        at = {"trial": h["trial"], "started_at": START + timedelta(hours=h["hour"])}
        tables = {"curves": curves(*h["seeds"], trial=h["trial"], loss=h["loss"])}
        if h["trial"] == "aa":  # of some trials, since each file costs time
            tables["layers"] = layers(*h["seeds"], trial=h["trial"], sd=h["loss"])
        tables["examples"] = examples(*h["seeds"], trial=h["trial"])
        if not h["killed"]:
            tables["runs"] = runs(*h["seeds"], code=h["code"], engine=h["engine"], **measured, **at)
        Store(folder).write(tables, durable=False)


def said(folder):
    """All that a store says."""
    store = Store(folder)
    frames = [repr(frame.to_dict("records")) for frame in (store.conflicts(), store.replicates())]
    return store.finished(), store.failed(), frames, [store.read(name).to_pylist() for name in SCHEMAS]


def copied(source, target, *, leave_out=()):
    for path in Path(source).rglob("*.parquet"):
        if path.name not in leave_out:
            to = target / path.relative_to(source)
            to.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(path, to)
    return target


def names(folder):
    return sorted(path.name for path in Path(folder).rglob("*") if path.is_file())


def several(store, count=3, first=0):
    """Files of `count` trials, a run each."""
    for i in range(first, first + count):
        trial = f"{i:02x}"
        beside = {"curves": curves, "layers": layers, "examples": examples}
        store.write({"runs": runs(i, trial=trial), **{name: of(i, trial=trial) for name, of in beside.items()}})
    return store


def test_what_killed_writers_left_a_day_ago_goes_with_the_next_compaction_and_younger_files_stay(tmp_path):
    store = several(Store(tmp_path))
    old, young = (tmp_path / "runs" / f".part-{age}.parquet.0123.tmp" for age in ("old", "young"))
    for path in (old, young):
        path.write_bytes(b"PAR1 half")
    a_day_ago = time.time() - disk.STALE_S - 60
    os.utime(old, (a_day_ago, a_day_ago))
    compact(store)
    assert (old.exists(), young.exists()) == (False, True)


@given(histories)
@settings(max_examples=15)
def test_a_compaction_changes_nothing_that_a_store_says(history):
    with tempfile.TemporaryDirectory() as folder:
        fill(folder, history)
        before = said(folder)
        for _ in range(2):
            compact(Store(folder))
            assert said(folder) == before
        assert max(len(Store(folder).files(name)) for name in SCHEMAS) == 1


@given(histories, st.data())
@settings(max_examples=15)
def test_after_a_crash_between_writing_and_removing_a_store_says_the_same(history, data):
    with tempfile.TemporaryDirectory() as folder:
        store, backup = Path(folder) / "store", Path(folder) / "backup"
        fill(store, history)
        copied(store, backup)
        before = said(store)
        compact(Store(store))
        copied(backup, store, leave_out=data.draw(st.sets(st.sampled_from(names(backup)))))
        assert said(store) == before
        compact(Store(store))
        assert said(store) == before


@given(histories, st.data())
@settings(max_examples=15)
def test_two_compactions_of_overlapping_listings_lose_nothing(history, data):
    with tempfile.TemporaryDirectory() as folder:
        whole = Path(folder) / "whole"
        fill(whole, history)
        before, every = said(whole), names(whole)
        joined = Path(folder) / "joined"
        seen = []
        for each in ("one", "two"):
            unseen = data.draw(st.sets(st.sampled_from(every)))
            compact(Store(copied(whole, Path(folder) / each, leave_out=unseen)))
            copied(Path(folder) / each, joined)
            seen += [unseen]
        copied(whole, joined, leave_out=set(every) - (seen[0] & seen[1]))  # what neither has seen
        assert said(joined) == before
        compact(Store(joined))
        assert said(joined) == before


@given(histories, st.randoms())
@settings(max_examples=15)
def test_what_a_store_says_does_not_depend_on_the_order_of_writes_and_compactions(history, random):
    with tempfile.TemporaryDirectory() as folder:
        # A repeated trial takes the place of the first, so that the order of the two would show in its times.
        once = list({(h["trial"], tuple(h["seeds"]), h["status"], h["loss"]): h for h in history}.values())
        fill(Path(folder) / "one", once)
        random.shuffle(once)
        for h in once:
            fill(Path(folder) / "two", [h])
            if random.random() < 0.5:
                compact(Store(Path(folder) / "two"))
        assert said(Path(folder) / "one") == said(Path(folder) / "two")


def test_a_compacted_store_has_a_file_a_table_and_tells_how_many_went(tmp_path):
    store = several(Store(tmp_path), 3)
    assert str(compact(store)) == "merged 12 files into 4"
    assert [len(store.files(name)) for name in SCHEMAS] == [1, 1, 1, 1]
    assert str(compact(store)) == "no files to merge"


def test_nothing_is_dropped_but_equal_rows_of_runs(tmp_path):
    store = Store(tmp_path)
    store.write({"runs": runs(0, 1), "curves": curves(0, 1, trial="killed")})
    store.write({"runs": runs(1, 2, started_at=START + timedelta(hours=1)), "curves": curves(2)})
    store.write({"runs": runs(0, test_loss=0.4)})
    [twice, *_] = store.files("runs")
    shutil.copy(twice, twice.with_name("ff-copy.parquet"))
    rows = sum(pq.read_metadata(path).num_rows for path in store.files("runs")) - pq.read_metadata(twice).num_rows
    compact(store)
    assert [sum(pq.read_metadata(p).num_rows for p in store.files(name)) for name in ("runs", "curves")] == [rows, 3]
    assert rows == 5


def test_a_repeated_compaction_of_the_same_files_writes_the_same_files(tmp_path):
    several(Store(tmp_path / "one"))
    copied(tmp_path / "one", tmp_path / "two")
    compact(Store(tmp_path / "one"))
    compact(Store(tmp_path / "two"))
    assert names(tmp_path / "one") == names(tmp_path / "two")
    copied(tmp_path / "two", tmp_path / "one")
    assert len(names(tmp_path / "one")) == 4


def test_parts_are_merged_again_so_that_they_stay_few(tmp_path):
    store = Store(tmp_path)
    for i in range(40):
        for trial in (f"{i:02x}a", f"{i:02x}b"):
            store.write({"runs": runs(i, trial=trial, engine=trial)}, durable=False)
        compact(store)
    assert len(store.files("runs")) <= 8
    assert len(store.finished()) == 40


def test_a_full_file_is_never_touched_again(tmp_path, monkeypatch):
    monkeypatch.setattr(files, "MOST_ROWS", 4)
    store = several(Store(tmp_path), 10)
    compact(store)
    full = [path.name for path in store.files("runs") if path.name.startswith("full-")]
    kept = {path: identify(path) for path in store.files("runs") if path.name in full}
    assert [pq.read_metadata(path).num_rows for path in kept] == [4, 4]
    several(Store(tmp_path), 10, first=10)
    compact(store)
    assert {path: identify(path) for path in kept} == kept
    assert len(store.finished()) == 20


@pytest.mark.parametrize("name", SCHEMAS)
@pytest.mark.parametrize("share", [0.0, 0.5, 0.99])
def test_a_file_that_cannot_be_read_is_named_and_nothing_is_touched(tmp_path, name, share, monkeypatch):
    monkeypatch.setattr(files, "MOST_ROWS", 2)  # so that other groups are ready before it
    store = several(Store(tmp_path), 6)
    path = store.files(name)[-1]
    path.write_bytes(path.read_bytes()[: int(path.stat().st_size * share)])
    before = names(tmp_path)
    with pytest.raises(StoreError, match=rf"{path.name}: not a readable Parquet file"):
        compact(store)
    assert names(tmp_path) == before


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            lambda rows: rows.replace_schema_metadata({"schema_version": "99"}),
            "schema version 99, this program reads 1",
        ),
        (lambda rows: rows.append_column("energy", pa.array([1.0])), "columns of a later program.*: energy"),
    ],
)
def test_a_file_of_a_later_program_is_named_and_nothing_is_touched(tmp_path, change, message):
    store = several(Store(tmp_path))
    path = store.files("runs")[-1]
    pq.write_table(change(pq.read_table(path)), path)
    before = names(tmp_path)
    with pytest.raises(StoreError, match=rf"{path.name}: .*{message}"):
        compact(store)
    assert names(tmp_path) == before


def test_a_file_that_was_written_again_meanwhile_is_not_removed(tmp_path):
    store = Store(tmp_path)
    store.write({"runs": runs(0)})
    [path] = store.files("runs")
    read = identify(path)
    store.write({"runs": runs(0, started_at=START + timedelta(hours=1))})
    assert store.files("runs") == [path]
    _remove(path, read)
    assert path.exists()
    _remove(path, identify(path))
    assert not path.exists()


def test_a_store_that_is_not_there_or_has_one_file_has_nothing_to_merge(tmp_path):
    assert not compact(Store(tmp_path / "nowhere")).merged
    assert not (tmp_path / "nowhere").exists()
    assert not compact(several(Store(tmp_path / "one"), 1)).merged


@pytest.mark.parametrize("name", SCHEMAS)
def test_more_than_500_small_files_of_a_table_need_a_compaction(tmp_path, name):
    (tmp_path / name).mkdir()
    for i in range(MANY):
        (tmp_path / name / f"{i:016x}-0.parquet").touch()
        (tmp_path / name / f"part-{i:016x}.parquet").touch()
    assert not needs_compaction(Store(tmp_path))
    (tmp_path / name / "ff-0.parquet").touch()
    assert needs_compaction(Store(tmp_path))


WRITER = """
import sys
sys.path.insert(0, {tests!r})
from test_upkeep import *
store = Store({store!r})
for i in range(60):
    store.write({{"runs": runs(i, trial=f"{{i:02x}}"), "curves": curves(i, trial=f"{{i:02x}}")}}, durable=False)
    if i % 3 == 2:
        compact(store)
"""


def test_who_reads_and_compacts_while_another_process_writes_and_compacts_misses_nothing(tmp_path):
    store = Store(tmp_path / "store")
    code = WRITER.format(tests=str(ROOT / "tests"), store=str(store.path))
    writer = subprocess.Popen([sys.executable, "-c", code], cwd=ROOT)
    seen, times = set(), 0
    while writer.poll() is None:
        now = set(store.finished())
        assert seen <= now, "a run that was there is not there any more"
        seen, times = now, times + 1
        assert len(store.read("curves")) >= len(seen)
        if times % 5 == 0:
            compact(store)
    assert writer.returncode == 0
    assert set(store.finished()) == set(run_ids(*range(60)))
    assert len(store.read("curves")) == 60
    assert times > 3
