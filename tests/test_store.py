"""The store: what is written is read, a file is absent or complete, what a crash leaves behind is without effect."""

import math
import tempfile
from datetime import UTC, datetime, timedelta

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from grids import Cell, Run
from results import METRICS, SCHEMAS, Made, Store, StoreError, table
from results.files import TRIES, Vanished, retrying
from results.schema import QUANTILES

CELL = Cell(dataset="digits", architecture="mlp", order="weight-act", activation="relu", depth=2)
START = datetime(2026, 1, 1, tzinfo=UTC)
ODD_NAMES = ["a b", "a'; x", "a\n0", "größe 訓練", "a%20b", "[ab]*", "#?&", "-x"]


def run_ids(*seeds):
    return [Run(CELL, seed).run_id for seed in seeds]


def columns(*seeds, **changes):
    return {
        **dict.fromkeys(METRICS, 0.5),
        **CELL.model_dump(),
        "run_id": run_ids(*seeds),
        "trial": "trial",
        "seed": list(seeds),
        "status": "done",
        "error": None,
        "epochs_run": 20,
        "train_examples": 1293,
        "val_examples": 144,
        "test_examples": 360,
        "classes": 10,
        "best_epoch": 7,
        "wall_s": 0.1,
        "memory_bytes": 1000,
        "parameters": 5000,
        "engine": "cpu",
        "seed_block": 32,
        "code": "code",
        "data": "data",
        "commit": "",
        "versions": "python 3.11",
        "host": "here",
        "device": "2 cores",
        "started_at": START,
        **changes,
    }


def runs(*seeds, **changes):
    return table("runs", columns(*seeds, **changes))


def curves(*seeds, trial="trial", **changes):
    """One epoch of each seed."""
    numbers = dict.fromkeys(("loss", "accuracy", "calibration_error", "gradient_norm", "lr"), 0.5)
    where = {"run_id": run_ids(*seeds), "trial": trial, "epoch": 1, "split": "train"}
    return table("curves", {**where, **numbers, **changes})


def layers(*seeds, trial="trial", **changes):
    """One site of one epoch of each seed."""
    where = {"run_id": run_ids(*seeds), "trial": trial, "epoch": 0, "block": 1, "site": "act"}
    numbers = dict.fromkeys([name for name in SCHEMAS["layers"].names if name not in (*where, "quantiles")], 0.5)
    return table("layers", {**where, **numbers, "quantiles": [[0.5] * len(QUANTILES)] * len(seeds), **changes})


def examples(*seeds, trial="trial"):
    counts = {"trial": [trial], "seeds": len(seeds), "run_ids": [run_ids(*seeds)], "correct": [[2, 0, 1]]}
    return table("examples", counts)


def sorted_rows(rows):
    """In the order of the store, NaN as None: both are null there."""
    clean = [{k: None if isinstance(v, float) and math.isnan(v) else v for k, v in row.items()} for row in rows]
    return sorted(clean, key=lambda row: row["run_id"])


def test_a_store_that_is_not_there_is_empty(tmp_path):
    store = Store(tmp_path / "store")
    assert (store.finished(), store.failed(), len(store.conflicts())) == ({}, set(), 0)
    for name, schema in SCHEMAS.items():
        assert store.read(name).schema.names == schema.names
        assert len(store.read(name)) == 0
    assert not store.path.exists()


numbers = st.none() | st.floats()
rows_of_runs = st.lists(
    st.fixed_dictionaries(
        {
            "test_accuracy": numbers,
            "test_loss": numbers,
            "wall_s": numbers,
            "best_epoch": st.none() | st.integers(0, 2**31),
            "error": st.none() | st.text(),
            "host": st.none() | st.text(),
            "started_at": st.datetimes(datetime(1990, 1, 1), datetime(2200, 1, 1), timezones=st.just(UTC)),
            "status": st.sampled_from(["done", "diverged", "failed"]),
        }
    ),
    min_size=1,
    max_size=4,
)


@given(rows_of_runs)
@settings(max_examples=60, deadline=None)
def test_runs_are_read_as_they_were_written(rows):
    seeds = range(len(rows))
    written = columns(*seeds, **{name: [row[name] for row in rows] for name in rows[0]})
    with tempfile.TemporaryDirectory() as folder:
        Store(folder).write({"runs": table("runs", written)})
        read = Store(folder).read("runs")
    whole = [{**{k: v for k, v in written.items() if k not in row}, **row} for row in rows]
    wanted = [{**row, "run_id": run_ids(seed)[0], "seed": seed} for seed, row in zip(seeds, whole, strict=True)]
    assert read.schema == SCHEMAS["runs"]
    assert sorted_rows(read.to_pylist()) == sorted_rows(wanted)


def test_curves_and_examples_are_read_as_they_were_written(tmp_path):
    written = {"curves": curves(0, loss=[math.inf]), "examples": examples(0)}
    Store(tmp_path).write({"runs": runs(0), **written})
    for name, rows in written.items():
        assert Store(tmp_path).read(name).to_pylist() == rows.to_pylist()


def test_what_is_not_a_number_is_null_in_a_table():
    assert curves(0, 1, loss=[math.nan, math.inf])["loss"].to_pylist() == [None, math.inf]


def test_curves_are_read_in_the_order_of_runs_and_epochs(tmp_path):
    ids = run_ids(0, 1, 0, 1)
    shuffled = curves(0, 1, 0, 1, epoch=[1, 1, 0, 0], split=["train", "val", "val", "val"])
    Store(tmp_path).write({"runs": runs(0, 1), "curves": shuffled})
    read = Store(tmp_path).read("curves").to_pylist()
    assert [(row["run_id"], row["epoch"]) for row in read] == sorted(zip(ids, [1, 1, 0, 0], strict=True))


def test_runs_are_found_in_the_order_asked_for_with_nulls_for_those_that_are_not_there(tmp_path):
    store = Store(tmp_path)
    store.write({"runs": runs(0, 1, 2, 5, 6, status=["done", "failed", "diverged", "done", "failed"])})
    found, beyond = store.find(pa.array(run_ids(2, 9, 0, 1)), range(3, 100))
    assert found["run_id"].to_pylist() == [run_ids(2)[0], None, *run_ids(0, 1)]
    assert found["status"].to_pylist() == ["diverged", None, "done", "failed"]
    assert beyond["seed"].to_pylist() == [5]


def test_rows_of_given_runs_are_those_of_their_trials(tmp_path):
    store = Store(tmp_path)
    store.write({"runs": runs(0, 1), "curves": curves(0, 1), "examples": examples(0, 1)})
    store.write({"runs": runs(2, trial="b"), "curves": curves(2, trial="b"), "examples": examples(2, trial="b")})
    accepted = store.read("runs")
    for name in ("curves", "examples"):
        assert store.read(name, of=accepted) == store.read(name)
    one = accepted.filter(pc.equal(accepted["seed"], 2))
    assert store.read("curves", of=one)["run_id"].to_pylist() == run_ids(2)
    assert store.read("examples", of=one)["trial"].to_pylist() == ["b"]
    from_pandas = pa.Table.from_pandas(one.to_pandas(), preserve_index=False)  # has strings of another width
    assert store.read("curves", of=from_pandas) == store.read("curves", of=one)
    other = one.select(["run_id"]).append_column("trial", pa.array(["trial"]))
    assert len(store.read("curves", of=other)) == 0


def test_a_table_with_a_misspelt_column_is_refused():
    wrong = columns(0)
    wrong["test_acuracy"] = wrong.pop("test_accuracy")
    with pytest.raises(ValueError, match="table runs: columns missing or unknown: test_accuracy, test_acuracy"):
        table("runs", wrong)


def test_a_table_with_a_missing_column_is_refused():
    short = columns(0)
    del short["engine"]
    with pytest.raises(ValueError, match="table runs: columns missing or unknown: engine"):
        table("runs", short)


def test_a_table_with_columns_of_different_lengths_is_refused():
    with pytest.raises(ValueError, match="expected length 2 but got length 3"):
        runs(0, 1, wall_s=[1, 2, 3])


@pytest.mark.parametrize("name", SCHEMAS)
def test_every_column_says_what_it_means(name):
    assert all(field.metadata[b"meaning"] for field in SCHEMAS[name])


@pytest.mark.parametrize("name", METRICS)
def test_every_metric_has_a_unit(name):
    assert SCHEMAS["runs"].field(name).metadata[b"unit"] in (b"share, 0 to 1", b"nats per example")


def test_a_repeated_trial_is_one_file(tmp_path):
    store = Store(tmp_path)
    beside = {"curves": curves(0), "layers": layers(0), "examples": examples(0)}
    store.write({"runs": runs(0), **beside})
    store.write({"runs": runs(0, host="there", wall_s=9.0), **beside})
    assert [len(store.files(name)) for name in SCHEMAS] == [1, 1, 1, 1]


def test_rows_of_layers_count_once_for_each_run_epoch_block_and_site(tmp_path):
    store = Store(tmp_path)
    where = {"epoch": [0, 0, 0, 2], "block": [1, 1, 2, 1], "site": ["act", "weight", "act", "act"]}
    four = layers(0, 0, 0, 0, **where, quantiles=[None] * 4)
    store.write({"runs": runs(0), "layers": four})
    store.write({"runs": runs(0), "layers": layers(0, quantiles=[[0.25] * len(QUANTILES)])})  # of one, once more
    read = store.read("layers")
    assert [read[name].to_pylist() for name in where] == [[0, 0, 0, 2], [1, 1, 2, 1], ["act", "weight", "act", "act"]]
    assert store.read("layers", of=runs(1)).num_rows == 0
    again = Store(tmp_path / "again")  # which of the two stands does not depend on which came first
    again.write({"runs": runs(0), "layers": layers(0, quantiles=[[0.25] * len(QUANTILES)])})
    again.write({"runs": runs(0), "layers": four})
    assert again.read("layers").equals(read)


def test_other_content_of_a_trial_never_overwrites(tmp_path):
    store = Store(tmp_path)
    store.write({"runs": runs(0), "curves": curves(0)})
    before = {path: path.read_bytes() for name in ("runs", "curves") for path in store.files(name)}
    store.write({"runs": runs(0, test_loss=0.4), "curves": curves(0, loss=0.4)})
    assert {path: path.read_bytes() for path in before} == before
    assert [len(store.files(name)) for name in ("runs", "curves")] == [2, 2]


def test_a_write_leaves_no_temporary_file(tmp_path):
    Store(tmp_path).write({"runs": runs(0), "curves": curves(0)})
    assert [path.name for path in tmp_path.rglob("*") if path.is_file() and path.suffix != ".parquet"] == []


def test_a_write_that_fails_leaves_no_temporary_file(tmp_path):
    Store(tmp_path / "one").write({"runs": runs(0)})
    [path] = Store(tmp_path / "one").files("runs")
    in_the_way = tmp_path / "two" / "runs" / path.name
    in_the_way.mkdir(parents=True)
    with pytest.raises(IsADirectoryError):
        Store(tmp_path / "two").write({"runs": runs(0)})
    assert list(in_the_way.parent.iterdir()) == [in_the_way]


@pytest.mark.parametrize("name", [".half.parquet", ".trial-0123456789abcdef.parquet.0123.tmp"])
def test_temporary_files_are_never_read(tmp_path, name):
    store = Store(tmp_path)
    store.write({"runs": runs(0)})
    (tmp_path / "runs" / name).write_bytes(b"PAR1 half")
    assert list(store.finished()) == run_ids(0)
    assert len(store.read("runs")) == 1


def test_runs_are_written_last_and_without_them_the_rest_does_not_count(tmp_path):
    store = Store(tmp_path)
    (tmp_path / "runs").write_text("in the way of the folder")
    with pytest.raises(OSError, match="runs"):
        store.write({"runs": runs(0), "curves": curves(0), "examples": examples(0)})
    (tmp_path / "runs").unlink()
    assert [len(store.files(name)) for name in ("curves", "examples")] == [1, 1]
    assert [len(store.read(name)) for name in ("curves", "examples")] == [0, 0]


def test_curves_of_an_attempt_that_is_not_accepted_do_not_count(tmp_path):
    store = Store(tmp_path)
    store.write({"runs": runs(0), "curves": curves(0), "examples": examples(0)})
    store.write({"curves": curves(0, trial="killed", loss=9.0), "examples": examples(0, trial="killed")})
    assert [set(store.read(name)["trial"].to_pylist()) for name in ("curves", "examples")] == [{"trial"}, {"trial"}]


def test_done_and_diverged_are_finished_and_failed_is_not(tmp_path):
    store = Store(tmp_path)
    store.write({"runs": runs(0, 1, 2, status=["done", "diverged", "failed"], code="v", data="d")})
    assert store.finished() == dict.fromkeys(run_ids(0, 1), Made("v", "d", "cpu", 32, "2 cores", 1024))
    assert store.failed() == set(run_ids(2))


@pytest.mark.parametrize("failed_first", [True, False])
def test_a_failed_run_is_superseded_by_a_finished_one(tmp_path, failed_first):
    store, hour = Store(tmp_path), timedelta(hours=1 if failed_first else -1)
    store.write({"runs": runs(0, status="failed", error="lost", test_loss=None)})
    store.write({"runs": runs(0, started_at=START + hour)})
    assert store.failed() == set()
    assert store.read("runs")["status"].to_pylist() == ["done"]


def test_of_several_failures_the_last_is_read(tmp_path):
    store = Store(tmp_path)
    for hour, error in enumerate(["first", "last", "second"]):
        at = START + timedelta(hours=5 if error == "last" else hour)
        store.write({"runs": runs(0, status="failed", error=error, started_at=at)})
    assert store.read("runs")["error"].to_pylist() == ["last"]


def test_a_failure_never_conflicts(tmp_path):
    store = Store(tmp_path)
    store.write({"runs": runs(0)})
    store.write({"runs": runs(0, status="failed", error="lost", test_loss=None)})
    assert len(store.conflicts()) == 0


def test_equal_runs_with_other_metrics_are_a_conflict_that_shows_both(tmp_path):
    store = Store(tmp_path)
    store.write({"runs": runs(0, 1)})
    store.write({"runs": runs(0, 1, test_loss=[0.5, 0.4])})
    assert store.conflicts()["run_id"].tolist() == run_ids(1, 1)
    assert sorted(store.conflicts()["test_loss"]) == [0.4, 0.5]


@pytest.mark.parametrize("column", ["engine", "code", "data"])
def test_other_metrics_by_another_engine_or_version_are_no_conflict(tmp_path, column):
    store = Store(tmp_path)
    store.write({"runs": runs(0)})
    store.write({"runs": runs(0, trial="other", test_loss=0.4, **{column: "other"})})
    assert len(store.conflicts()) == 0


def test_equal_metrics_that_are_not_finite_are_no_conflict(tmp_path):
    store = Store(tmp_path)
    for error in ("one reason", "another"):
        store.write({"runs": runs(0, status="diverged", test_loss=math.nan, error=error)})
    assert len(store.files("runs")) == 2
    assert len(store.conflicts()) == 0


@pytest.mark.parametrize("trials", [("aa", "bb"), ("bb", "aa")])
def test_of_replicates_the_smallest_trial_is_read(tmp_path, trials):
    store = Store(tmp_path)
    for hour, trial in enumerate(trials):
        at = START + timedelta(hours=hour)
        store.write({"runs": runs(0, trial=trial, engine=trial, started_at=at), "curves": curves(0, trial=trial)})
    assert [store.read(name)["trial"].to_pylist() for name in ("runs", "curves")] == [["aa"], ["aa"]]


def test_a_run_by_newer_code_is_read_in_place_of_the_old(tmp_path):
    store = Store(tmp_path)
    store.write({"runs": runs(0, trial="aa", code="old")})
    store.write({"runs": runs(0, trial="bb", code="new", started_at=START + timedelta(hours=1))})
    assert store.read("runs")["code"].to_pylist() == ["new"]
    assert store.finished() == {run_ids(0)[0]: Made("new", "data", "cpu", 32, "2 cores", 1024)}


def test_a_column_that_a_file_is_too_old_to_have_reads_as_its_default(tmp_path):
    store = Store(tmp_path)
    store.write({"runs": runs(0, dropout=0.3, maxout_width="matched")})
    [path] = store.files("runs")
    old = pq.read_table(path).drop_columns(["dropout", "maxout_width", "wall_s"])
    pq.write_table(old, path)
    [row] = store.read("runs").to_pylist()
    assert (row["dropout"], row["maxout_width"], row["wall_s"]) == (0.1, "same", None)
    assert list(store.finished()) == run_ids(0)


def test_a_column_of_a_later_program_is_left_out(tmp_path):
    store = Store(tmp_path)
    store.write({"runs": runs(0)})
    [path] = store.files("runs")
    pq.write_table(pq.read_table(path).append_column("energy", pa.array([1.0])), path)
    assert store.read("runs").schema.names == SCHEMAS["runs"].names


def test_old_and_new_files_are_read_together(tmp_path):
    store = Store(tmp_path)
    store.write({"runs": runs(0, trial="old")})
    [path] = store.files("runs")
    pq.write_table(pq.read_table(path).drop_columns(["dropout"]), path)
    store.write({"runs": runs(1, trial="new", dropout=0.3)})
    assert sorted(store.read("runs")["dropout"].to_pylist()) == [0.1, 0.3]


@pytest.mark.parametrize("share", [0.0, 0.001, 0.5, 0.99])
def test_a_truncated_file_is_named(tmp_path, share):
    store = Store(tmp_path)
    store.write({"runs": runs(0), "curves": curves(0)})
    [path] = store.files("runs")
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * share)])
    for ask in (
        store.finished,
        store.failed,
        store.conflicts,
        lambda: store.read("runs"),
        lambda: store.read("curves"),
    ):
        with pytest.raises(StoreError, match=rf"{path.name}: not a readable Parquet file"):
            ask()


@pytest.mark.parametrize(("metadata", "version"), [({}, "none"), ({"schema_version": "99"}, "99")])
def test_a_file_of_an_unknown_schema_version_is_named(tmp_path, metadata, version):
    (tmp_path / "runs").mkdir()
    foreign = pa.table({"x": [1]}).replace_schema_metadata(metadata)
    pq.write_table(foreign, tmp_path / "runs" / "foreign.parquet")
    with pytest.raises(StoreError, match=rf"foreign.parquet: schema version {version}, this program reads 1"):
        Store(tmp_path).finished()


def test_a_column_of_another_type_is_named(tmp_path):
    store = Store(tmp_path)
    store.write({"runs": runs(0)})
    [path] = store.files("runs")
    rows = pq.read_table(path)
    pq.write_table(rows.set_column(rows.schema.get_field_index("depth"), "depth", [["two"]]), path)
    with pytest.raises(StoreError, match=rf"{path.name}: .*'two'"):
        store.read("runs")


@pytest.mark.parametrize("name", ODD_NAMES)
def test_a_store_may_have_any_name(tmp_path, name):
    store = Store(tmp_path / name)
    store.check_writable()
    store.write({"runs": runs(0), "curves": curves(0)})
    assert list(Store(tmp_path / name).finished()) == run_ids(0)
    assert len(store.read("curves")) == 1
    assert [path.name for path in tmp_path.iterdir()] == [name]


def test_a_file_cannot_be_a_store(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(StoreError, match="file: not a folder, so it cannot be a store"):
        Store(tmp_path / "file")


def test_nothing_can_be_stored_below_a_file(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(StoreError, match=r"file: not a folder, so .*/file/a/b cannot be a store"):
        Store(tmp_path / "file" / "a" / "b").check_writable()


@pytest.mark.parametrize("name", SCHEMAS)
def test_a_store_of_which_one_table_cannot_be_written_is_named(tmp_path, name):
    (tmp_path / name).write_text("in the way of the folder")
    with pytest.raises(StoreError, match=str(tmp_path)):
        Store(tmp_path).check_writable()


def test_a_place_without_write_access_is_named():
    with pytest.raises(StoreError, match="/proc/nonexistent: cannot be written: "):
        Store("/proc/nonexistent").check_writable()


def test_asking_whether_a_store_can_be_written_leaves_nothing(tmp_path):
    Store(tmp_path / "a" / "b").check_writable()
    assert list(tmp_path.iterdir()) == []


def test_deleting_a_file_makes_exactly_its_runs_missing(tmp_path):
    store = Store(tmp_path)
    store.write({"runs": runs(0, 1, trial="aa")})
    store.write({"runs": runs(2, 3, trial="bb")})
    [path] = tmp_path.glob("runs/aa-*.parquet")
    path.unlink()
    assert set(store.finished()) == set(run_ids(2, 3))


def test_who_made_a_run_is_one_object_for_many_runs(tmp_path):
    store = Store(tmp_path)
    store.write({"runs": runs(0, 1, 2, trial="aa")})
    store.write({"runs": runs(3, 4, trial="bb", engine=None, seed_block=None, code="other")})
    finished = store.finished()
    assert [finished[run_id] for run_id in run_ids(2, 3)] == [
        Made("code", "data", "cpu", 32, "2 cores", 1024),
        Made("other", "data", None, None, "2 cores", 1024),
    ]
    assert len({id(made) for made in finished.values()}) == 2


def test_memory_is_recalled_as_a_little_more_so_that_there_are_few_of_it(tmp_path):
    store = Store(tmp_path)
    store.write({"runs": runs(*range(6), memory_bytes=[1000, 1001, 1024, 1025, 0, None])})
    finished = store.finished()
    assert [finished[run_id].memory_bytes for run_id in run_ids(*range(6))] == [1024, 1024, 1024, 1217, None, None]


def test_finished_and_failed_are_one_reading(tmp_path):
    store = Store(tmp_path)
    store.write({"runs": runs(0, 1, 2, status=["done", "failed", "diverged"])})
    assert store.fates() == (store.finished(), store.failed())


def test_a_run_without_versions_that_several_rows_have_is_finished_once(tmp_path):
    store = Store(tmp_path)
    for trial in ("bb", "aa"):
        store.write({"runs": runs(0, trial=trial, engine=trial, code=None)})
    assert store.finished() == {run_ids(0)[0]: Made(None, "data", "aa", 32, "2 cores", 1024)}


def test_of_a_conflict_inside_one_trial_each_row_of_curves_and_examples_counts_once(tmp_path):
    store = Store(tmp_path)
    for loss in (0.5, 0.4):
        store.write({"runs": runs(0, 1, test_loss=loss), "curves": curves(0, 1, loss=loss), "examples": examples(0, 1)})
    store.write({"examples": examples(0)})
    assert store.read("curves")["loss"].to_pylist() == [0.4, 0.4]
    assert store.read("examples")["seeds"].to_pylist() == [1]


def test_a_page_that_rotted_is_told(tmp_path):
    store = Store(tmp_path)
    store.write({"runs": runs(0)})
    [path] = store.files("runs")
    content = bytearray(path.read_bytes())
    content[40] ^= 0xFF
    path.write_bytes(bytes(content))
    with pytest.raises(StoreError, match=rf"{path.name}: not a readable Parquet file"):
        store.read("runs")


def test_a_reading_that_a_compaction_disturbs_begins_again_but_not_for_ever():
    left = [Vanished("gone")] * (TRIES - 1)

    def read():
        if left:
            raise left.pop()
        return "read"

    assert retrying(read) == "read"
    left += [Vanished("gone")] * TRIES
    with pytest.raises(Vanished, match="gone"):
        retrying(read)


def test_a_link_to_nothing_is_named(tmp_path):
    (tmp_path / "runs").mkdir()
    (tmp_path / "runs" / "gone.parquet").symlink_to(tmp_path / "nowhere")
    with pytest.raises(StoreError, match=r"gone.parquet: not a readable Parquet file: .* a link to no file"):
        Store(tmp_path).finished()
