"""A store is sound, or validate says in a line each what is not."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
from test_store import layers

import harness
import normorder
from grids import Grid
from reports.comparisons import compare
from reports.outcomes import gather
from results import METRICS, Store
from results.disk import WRITER
from results.upkeep import compact
from results.validation import orphans, set_aside, validate

sys.path.append(str(Path(__file__).parent / "bench"))
from synthetic import SHIFT, generate


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A valid store of 80 runs in 4 trials: only read."""
    return generate(80, tmp_path_factory.mktemp("synthetic"))


@pytest.fixture
def store(whole, tmp_path):
    return Store(shutil.copytree(whole[1], tmp_path / "store"))


def change(store, name, column, value, row=0):
    """Put a value into a row of the first file of a table, and give the file."""
    path = store.files(name)[0]
    rows = pq.read_table(path)
    values = rows[column].to_pylist()
    values[row] = value
    index = rows.schema.get_field_index(column)
    pq.write_table(rows.set_column(index, rows.schema.field(index), pa.array(values, rows.schema.types[index])), path)
    return path


def first_run(store):
    return pq.read_table(store.files("runs")[0]).to_pylist()[0]


def test_a_store_as_sweeps_write_it_has_no_problem(store):
    assert validate(store) == []


def test_what_a_crash_left_without_runs_is_told_and_no_problem(store, monkeypatch, capsys):
    assert orphans(store) == 0
    store.files("runs")[0].unlink()
    assert orphans(store) == 1
    assert validate(store) == []
    monkeypatch.setattr(sys, "argv", ["normorder", "validate", str(store.path)])
    with pytest.raises(SystemExit) as stopped:
        normorder.main()
    assert stopped.value.code == 0
    assert "without effect: curves, layers or examples of 1 trials without runs" in capsys.readouterr().out


def test_a_compacted_store_has_no_problem(store):
    compact(store)
    assert validate(store) == []


def test_a_store_that_is_not_there_has_no_problem(tmp_path):
    assert validate(Store(tmp_path / "nowhere")) == []


def test_files_that_a_crash_in_a_compaction_left_twice_are_no_problem(store, whole):
    compact(store)
    shutil.copytree(whole[1], store.path, dirs_exist_ok=True)
    assert validate(store) == []


@pytest.mark.parametrize(
    ("column", "value", "message"),
    [
        ("seed", 7, "the identity of its cell and seed is"),
        ("width", 999, "the identity of its cell and seed is"),
        ("run_id", "0123456789abcdef", "run 0123456789abcdef: the identity of its cell and seed is"),
        ("depth", 0, "no cell: depth: .*greater than or equal to 1"),
        ("seed", None, "a seed is missing"),
        ("status", "finished", "status is none of done, diverged, failed"),
        ("test_loss", None, "done, but a metric is missing or not finite"),
        ("best_val_accuracy", float("inf"), "done, but a metric is missing or not finite"),
        ("epochs_run", 0, "done, but not all epochs were run"),
        ("test_accuracy", 1.7, "a share beyond 0 to 1, or a negative loss"),
        ("reestimated_val_calibration_error", -0.1, "a share beyond 0 to 1, or a negative loss"),
        ("best_test_loss", -3.0, "a share beyond 0 to 1, or a negative loss"),
        ("best_epoch", 2, "its best epoch was not run"),
        ("best_epoch", None, "its best epoch was not run"),
        ("status", "diverged", "not done, but with metrics"),
        ("status", "failed", "not done, but without a reason"),
    ],
)
def test_a_row_of_runs_that_no_training_writes_is_told(store, column, value, message):
    change(store, "runs", column, value)
    found = validate(store)
    assert any(pc.match_substring_regex(pa.array(found), message).to_pylist()), found


def test_a_missing_seed_accuses_its_own_run_alone(store):
    change(store, "runs", "seed", None)
    assert validate(store) == [f"run {first_run(store)['run_id']}: a seed is missing"]


@pytest.mark.parametrize(
    ("column", "value"), [("epoch", 2), ("epoch", 1), ("epoch", -1), ("split", "train"), ("split", "test")]
)
def test_a_run_whose_curves_are_not_those_of_a_training_is_told(store, column, value):
    change(store, "curves", column, value)
    run_id = pq.read_table(store.files("curves")[0])["run_id"][0].as_py()
    [problem] = validate(store)
    assert problem.startswith(f"run {run_id} of trial ")
    assert problem.endswith("its rows in curves are not those of each epoch and split")


def test_runs_without_curves_are_told(store):
    store.files("curves")[0].unlink()
    assert [problem.rpartition(": ")[2] for problem in validate(store)] == [
        "its rows in curves are not those of each epoch and split"
    ] * 20


def test_runs_that_no_row_of_examples_counts_are_told(store):
    store.files("examples")[0].unlink()
    assert [problem.rpartition(": ")[2] for problem in validate(store)] == ["no row of examples counts it"] * 20


def test_a_row_of_examples_with_another_number_of_seeds_is_told(store):
    change(store, "examples", "seeds", 19)
    [problem] = validate(store)
    assert problem.endswith("examples counts another number of seeds than it has run_ids")


@pytest.mark.parametrize("name", ["runs", "curves", "examples"])
def test_each_file_that_cannot_be_read_is_told(store, name):
    broken = store.files(name)[:2]
    for path in broken:
        path.write_bytes(path.read_bytes()[:-100])
    told = [problem for problem in validate(store) if "not a readable Parquet file" in problem]
    assert [problem.partition(": ")[0] for problem in told] == [str(path) for path in broken]


def test_a_conflict_is_told(store):
    rows = pq.read_table(store.files("runs")[0])
    index = rows.schema.get_field_index("test_loss")
    store.write({"runs": rows.set_column(index, rows.schema.field(index), pa.array([0.123] * len(rows)))})
    assert sum("in conflict" in problem for problem in validate(store)) == 20


@pytest.mark.parametrize(
    ("column", "value", "said"),
    [
        ("saturated", 1.5, "a share beyond 0 to 1, or a size below 0"),
        ("zeros", -0.5, "a share beyond 0 to 1, or a size below 0"),
        ("sd", -1.0, "a share beyond 0 to 1, or a size below 0"),
        ("site", None, "without a run, an epoch from 0 on, a block or a site"),
        ("epoch", -1, "without a run, an epoch from 0 on, a block or a site"),
        ("quantiles", [0.5], "other than 15 quantiles"),
        ("sd", None, None),
        ("quantiles", None, None),
    ],
)
def test_a_row_of_layers_that_no_trial_writes_is_a_problem(store, column, value, said):
    store.write({"layers": layers(0, 1)})
    assert validate(store) == []
    change(store, "layers", column, value)
    assert validate(store) == ([f"trial trial: rows of layers {said}"] if said else [])


def test_a_failed_attempt_needs_neither_metrics_nor_curves(store):
    row = first_run(store)
    nothing = dict.fromkeys((*METRICS, "epochs_run", "best_epoch"))
    failed = {**row, **nothing, "status": "failed", "error": "lost", "trial": "other"}
    store.write({"runs": pa.Table.from_pylist([failed], pq.read_schema(store.files("runs")[0]))})
    assert validate(store) == []


def test_the_command_tells_problems_and_their_number(store, whole, capsys, monkeypatch):
    words = ["normorder", "validate", str(store.path)]
    monkeypatch.setattr(sys, "argv", words)
    for code, end in ((0, "no conflicts\n"), (1, f"20 problems in {store.path}\n")):
        with pytest.raises(SystemExit) as stopped:
            normorder.main()
        assert stopped.value.code == code
        assert capsys.readouterr().out.endswith(end)
        store.files("curves")[0].unlink()


def test_a_store_that_is_not_there_cannot_be_validated_by_command(whole, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["normorder", "validate", str(tmp_path / "nowhere")])
    with pytest.raises(SystemExit) as stopped:
        normorder.main()
    assert stopped.value.code == 2
    assert capsys.readouterr().err == f"normorder: {tmp_path / 'nowhere'}: there is no store\n"


def test_a_disk_that_is_full_while_files_are_merged_is_told_in_a_line_and_loses_nothing(store, whole):
    """RLIMIT_FSIZE stands for the full disk: the merged file would be larger than a process may write."""
    before = validate(store), sorted(path.name for path in store.path.rglob("*"))
    limit = f"ulimit -f 8; exec {sys.executable} -m normorder compact '{store.path}'"
    root = Path(normorder.__file__).parent
    done = subprocess.run(["bash", "-c", limit], cwd=root, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (2, f"normorder: {store.path}: cannot be written: File too large\n")
    assert (validate(store), sorted(path.name for path in store.path.rglob("*"))) == before


def test_the_command_compacts(store, whole, capsys, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["normorder", "compact", str(store.path)])
    for told in ("merged 12 files into 3", "no files to merge"):
        with pytest.raises(SystemExit):
            normorder.main()
        assert capsys.readouterr().out == f"{store.path}: {told}\n"


def test_a_sweep_compacts_a_store_of_many_small_files_and_says_so(store, whole, capsys, monkeypatch):
    monkeypatch.setattr("results.upkeep.MANY", 3)
    monkeypatch.setattr(sys, "argv", ["normorder", "sweep", str(whole[0]), "--store", str(store.path)])
    with pytest.raises(SystemExit) as stopped:
        normorder.main()
    assert stopped.value.code == 0
    assert f"{store.path}: merged 12 files into 3\n" in capsys.readouterr().out
    assert len(store.files("runs")) == 1


def test_a_sweep_that_cannot_compact_says_why_and_goes_on(store, whole, capsys, monkeypatch):
    monkeypatch.setattr("results.upkeep.MANY", 3)
    monkeypatch.setattr(sys, "argv", ["normorder", "sweep", str(whole[0]), "--store", str(store.path)])
    path = store.files("curves")[0]
    path.write_bytes(b"PAR1")
    with pytest.raises(SystemExit) as stopped:
        normorder.main()
    assert stopped.value.code == 0
    told = capsys.readouterr().out
    assert f"not compacted: {path}: not a readable Parquet file" in told
    assert "nothing to do" in told


def test_the_report_of_a_synthetic_store_shows_the_planted_effect(whole):
    grid = Grid.read(whole[0], {**harness.choices(), "metric": METRICS})
    found = compare(gather(grid, Store(whole[1])))
    found = found[found["metric"] == "test_accuracy"]
    assert found["verdict"].tolist() == ["different"] * 2
    assert found["difference"].between(SHIFT - 0.01, SHIFT + 0.01).all()


def test_a_grid_that_is_not_complete_is_a_problem(store, whole, capsys, monkeypatch):
    path = store.files("runs")[0]
    runs = pq.read_metadata(path).num_rows
    for name in ("runs", "curves", "examples"):
        store.files(name)[0].unlink()
    monkeypatch.setattr(sys, "argv", ["normorder", "validate", str(store.path), str(whole[0])])
    with pytest.raises(SystemExit) as stopped:
        normorder.main()
    assert stopped.value.code == 1
    assert f"{runs} of 80 planned runs are missing" in capsys.readouterr().out


def test_repair_moves_what_cannot_be_read_aside_and_deletes_nothing(store, capsys, monkeypatch):
    path = store.files("curves")[0]
    path.write_bytes(path.read_bytes()[:50])
    monkeypatch.setattr(sys, "argv", ["normorder", "validate", "--repair", str(store.path)])
    with pytest.raises(SystemExit) as stopped:
        normorder.main()
    assert stopped.value.code == 1
    assert f"{path}: not a readable Parquet file" in capsys.readouterr().out
    (moved,) = (store.path / "set-aside" / "curves").iterdir()
    assert moved.stat().st_size == 50
    assert not path.exists()


def test_repair_of_a_sound_store_changes_nothing(store):
    before = sorted(path.name for path in store.path.rglob("*"))
    assert set_aside(store) == []
    assert sorted(path.name for path in store.path.rglob("*")) == before


def test_repair_removes_temporary_files_of_processes_that_are_gone_and_no_others(store):
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()
    ours, theirs, elsewhere = (
        store.path / "runs" / f".x.parquet.{writer}.{process}.0123.tmp"
        for writer, process in ((WRITER, os.getpid()), (WRITER, gone.pid), ("0123456789ab", gone.pid))
    )
    for path in (ours, theirs, elsewhere):
        path.write_bytes(b"half")
    assert set_aside(store) == [f"{store.path / 'runs'}: 1 temporary files of killed writers removed"]
    assert (ours.exists(), theirs.exists(), elsewhere.exists()) == (True, False, True)


def test_the_command_answers_programs(store, told):
    assert json.loads(told("validate", store.path, "--json")[1]) == {
        "store": str(store.path), "grid": None, "files": 12, "set_aside": [], "problems": [], "orphans": 0,
    }  # fmt: skip
    path = store.files("runs")[0]
    path.write_bytes(path.read_bytes()[:100])
    code, out, errors = told("validate", store.path, "--json", "--repair")
    found = json.loads(out)
    assert (code, errors, found["problems"], found["orphans"]) == (0, "", [], 1)
    assert path.name in found["set_aside"][0]
