"""From a store to outcomes: what is read belongs to the planned runs, and nothing but the rows decides what is judged."""

import io
import math
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from simulated import ACTIVATIONS, AFTER, BEFORE, exactly, fill, planted, read_grid
from test_comparisons import PLANTED, example_counts, with_status

from grids import FIELDS
from reports.comparisons import compare
from reports.outcomes import gather
from results import METRICS, SCHEMAS, Store, StoreError
from results.upkeep import compact

ROOT = Path(__file__).parents[1]
CONTRASTS = ("after - before", "before - none")
JUDGE = """
import io, locale, pathlib, random, sys
import numpy
locale.setlocale(locale.LC_ALL, "")
folder, store, contrasts, seed = sys.argv[1:]
random.seed(int(seed))
numpy.random.seed(int(seed))
from reports.comparisons import compare
from reports.outcomes import gather
from results import Store
from simulated import ACTIVATIONS, read_grid
file = io.BytesIO()
grid = read_grid(pathlib.Path(folder), ACTIVATIONS, contrasts=contrasts.split("; "))
compare(gather(grid, Store(store))).to_parquet(file, index=False)
sys.stdout.buffer.write(file.getvalue())
print(locale.localeconv()["decimal_point"], file=sys.stderr)
"""


def judged(grid, store) -> bytes:
    """The file of comparisons that a report writes."""
    file = io.BytesIO()
    compare(gather(grid, store)).to_parquet(file, index=False)
    return file.getvalue()


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    """A grid and a store with every verdict, missing pairs, failed and diverged runs, counts of test examples, unplanned
    seeds, and runs that two engines made with other results.
    """
    folder = tmp_path_factory.mktemp("study")
    grid = read_grid(folder, ACTIVATIONS, contrasts=CONTRASTS)
    effects = [*PLANTED.values(), (0.01, 0.01)]
    differences = {name: exactly(20, *effect) for name, effect in zip(ACTIVATIONS, effects, strict=True)}
    runs = planted(grid, differences)
    whole = [r for r in runs if r["cell"].activation != "sigmoid"]
    broken = [r for r in runs if r["cell"].activation == "sigmoid" and (r["seed"], r["cell"].order) != (3, AFTER)]
    runs = whole + with_status("diverged", AFTER, [7, 8])(with_status("failed", BEFORE, [5])(broken))
    more = read_grid(folder, ("relu",), seeds=22, contrasts=CONTRASTS)
    extra = [r for r in planted(more, {"relu": exactly(22, 0, 1)}) if r["seed"] >= 20]
    again = [{**r, "test_accuracy": r["test_accuracy"] + 0.001} for r in runs[:30]]
    store = fill(Store(folder / "store"), runs + extra, counts=example_counts(grid, 40))
    fill(store, again, trial=lambda r: f"0{r['cell'].cell_id}", engine="other")
    return grid, store, judged(grid, store)


def test_the_study_has_every_verdict_and_note_of_missing_and_diverged_runs(study):
    grid, store, _ = study
    frame = compare(gather(grid, store))
    assert set(frame["verdict"]) == set(PLANTED)
    assert frame["missing"].max() >= 2
    assert frame["test_set_error"].notna().any()
    told = set("; ".join(frame["notes"]).split("; "))
    assert told >= {"diverged", "unplanned seeds", "sign depends on diverged runs"}
    assert len(store.replicates()) == 60


# Nothing but the rows decides


def rows_of(store) -> dict[str, pa.Table]:
    return {
        name: pa.concat_tables([pq.read_table(path) for path in store.files(name)])
        for name in SCHEMAS
        if store.files(name)
    }


def laid(tables, folder, files, seed=None) -> Store:
    """A store of these rows in at most so many files a table; with a seed, rows and names of files are shuffled."""
    rng = np.random.default_rng(seed)
    for name, rows in tables.items():
        (folder / name).mkdir(parents=True)
        order = np.arange(len(rows)) if seed is None else rng.permutation(len(rows))
        count = min(files, len(rows))
        names = np.arange(count) if seed is None else rng.permutation(count)
        for i, part in zip(names, np.array_split(order, count), strict=True):
            pq.write_table(rows.take(part), folder / name / f"{i}.parquet")
    return Store(folder)


@pytest.mark.parametrize(("files", "seed"), [(1, None), (1, 1), (7, 2), (7, 3), (10**6, 4)])
def test_verdicts_do_not_depend_on_the_files_nor_on_the_order_of_their_rows(study, tmp_path, files, seed):
    grid, store, wanted = study
    other = laid(rows_of(store), tmp_path / "store", files, seed)
    assert len(other.files("runs")) == min(files, len(rows_of(store)["runs"]))
    assert judged(grid, other) == wanted


def test_verdicts_do_not_depend_on_compaction(study, tmp_path):
    grid, store, wanted = study
    shutil.copytree(store.path, tmp_path / "store")
    other = Store(tmp_path / "store")
    compact(other)
    assert [len(other.files(name)) for name in ("runs", "examples")] == [1, 1]
    assert judged(grid, other) == wanted


def test_verdicts_do_not_depend_on_rows_that_are_there_twice(study, tmp_path):
    grid, store, wanted = study
    tables = {name: pa.concat_tables([rows, rows]) for name, rows in rows_of(store).items()}
    assert judged(grid, laid(tables, tmp_path / "store", 3, seed=3)) == wanted


def test_other_results_give_other_bytes(study, tmp_path):
    grid, store, wanted = study
    tables = rows_of(store)
    runs = tables["runs"].to_pylist()
    runs[11]["test_loss"] += 1e-9
    tables["runs"] = pa.Table.from_pylist(runs, schema=tables["runs"].schema)
    assert judged(grid, laid(tables, tmp_path / "store", 1)) != wanted


@pytest.fixture(scope="module")
def german(tmp_path_factory):
    """The environment of a locale with a decimal comma; skips where none can be made."""
    folder = tmp_path_factory.mktemp("locales")
    make = shutil.which("localedef")
    if not make or subprocess.run([make, "-i", "de_DE", "-f", "UTF-8", folder / "de_DE.UTF-8"]).returncode:
        pytest.skip("no localedef, or no source of a German locale")
    return {"LOCPATH": str(folder), "LC_ALL": "de_DE.UTF-8"}


def judged_elsewhere(study, seed=0, **environment) -> tuple[bytes, str]:
    """What another process judges, and its decimal point. seed: of the global generators."""
    folder = study[1].path.parent
    path = os.pathsep.join(map(str, (ROOT, ROOT / "tests")))
    done = subprocess.run(
        [sys.executable, "-c", JUDGE, folder, folder / "store", "; ".join(CONTRASTS), str(seed)],
        env={**os.environ, "PYTHONPATH": path, **environment}, capture_output=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr.decode()
    return done.stdout, done.stderr.decode().strip()


def test_verdicts_do_not_depend_on_the_locale(study, german):
    assert judged_elsewhere(study, **german) == (study[2], ",")


@pytest.mark.parametrize(
    "environment",
    [
        {"LC_ALL": "C", "PYTHONUTF8": "0", "TZ": "Asia/Kathmandu"},
        {"PYTHONHASHSEED": "1", "TZ": "America/St_Johns"},
        {"PYTHONHASHSEED": "2", "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"},
        {"OMP_NUM_THREADS": "2", "OPENBLAS_NUM_THREADS": "2"},
    ],
    ids=["time zone", "hashes", "other hashes, one thread", "two threads"],
)
def test_verdicts_do_not_depend_on_the_process(study, environment):
    assert judged_elsewhere(study, seed=len(environment), **environment)[0] == study[2]


# What is read


def test_the_rows_of_results_are_the_planned_runs_with_what_the_store_has_of_them(study):
    grid, store, _ = study
    runs = gather(grid, store).runs
    assert runs["run_id"].tolist() == [run.run_id for run in grid.runs()]
    assert runs["cell_id"].tolist() == [run.cell.cell_id for run in grid.runs()]
    assert runs[[*FIELDS, "seed"]].to_dict("records") == [{**dict(run.cell), "seed": run.seed} for run in grid.runs()]
    stored = {row["run_id"]: row for row in store.read("runs").to_pylist()}
    for row in runs.to_dict("records"):
        there = stored.get(row["run_id"], {"status": "missing", "trial": math.nan, **dict.fromkeys(METRICS)})
        assert row["status"] == there["status"]
        assert row["trial"] is there["trial"] or row["trial"] == there["trial"] or there["status"] == "missing"
        for name in METRICS:
            assert row[name] == there[name] or (math.isnan(row[name]) and there[name] is None)


def test_cells_with_seeds_beyond_the_grid_are_known(study):
    grid, store, _ = study
    relu = {cell for cell in grid.cells() if cell.activation == "relu"}
    assert gather(grid, store).unplanned == {(cell.without("order"), cell.order) for cell in relu}


def test_right_answers_are_added_over_the_trials_of_a_cell(tmp_path):
    grid = read_grid(tmp_path, seeds=10)
    runs = planted(grid, {"relu": exactly(10, 0.05, 0.01)})

    def half(run):
        return f"{run['cell'].cell_id}{run['seed'] // 5}"

    cells = [cell.cell_id for cell in grid.cells()]
    counts = {f"{cell}{i}": np.arange(4) % (2 + i) for cell in cells for i in (0, 1)}
    found = gather(grid, fill(Store(tmp_path / "store"), runs, half, counts)).counts
    assert {key: (right.tolist(), seeds) for key, (right, seeds) in found.items()} == {
        (cell, 1): ([0, 2, 2, 1], 10) for cell in cells
    }


def test_right_answers_of_a_trial_are_not_used_where_another_row_of_one_of_its_runs_is_accepted(tmp_path):
    grid = read_grid(tmp_path, seeds=10)
    runs = planted(grid, {"relu": exactly(10, 0.05, 0.01)})
    store = fill(Store(tmp_path / "store"), runs, counts=example_counts(grid, 4))
    again = [r for r in runs if r["seed"] == 3 and r["cell"].order == AFTER]
    fill(store, again, trial=lambda r: f"0{r['cell'].cell_id}", engine="other")
    assert list(gather(grid, store).counts) == [(cell.cell_id, 1) for cell in grid.cells() if cell.order == BEFORE]


@pytest.mark.parametrize("where", ["within an arm", "between arms"])
def test_right_answers_to_different_test_sets_are_no_error_of_the_test_set(tmp_path, where):
    grid = read_grid(tmp_path, seeds=10)
    runs = planted(grid, {"relu": exactly(10, 0.05, 0.01)})
    rng = np.random.default_rng(0)

    def block(run):
        return f"{run['cell'].cell_id}{run['seed'] // 5 if where == 'within an arm' else 0}"

    sizes = {name: 40 + 10 * i for i, name in enumerate(sorted({block(run) for run in runs}))}
    counts = {name: rng.binomial(5, 0.5, size) for name, size in sizes.items()}
    frame = compare(gather(grid, fill(Store(tmp_path / "store"), runs, block, counts)), ["test_accuracy"])
    assert frame["test_set_error"].isna().all()


@pytest.mark.parametrize("table", ["runs", "examples"])
@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (lambda path: path.write_bytes(path.read_bytes()[:-50]), "not a readable Parquet file: "),
        (
            lambda path: pq.write_table(pq.read_table(path).replace_schema_metadata({"schema_version": "2"}), path),
            "schema version 2, this program reads 1",
        ),
    ],
    ids=["truncated", "later schema"],
)
def test_a_file_that_cannot_be_read_is_named_in_one_line(study, tmp_path, table, damage, said):
    grid, store, _ = study
    shutil.copytree(store.path, tmp_path / "store")
    path = Store(tmp_path / "store").files(table)[2]
    damage(path)
    with pytest.raises(StoreError) as raised:
        gather(grid, Store(tmp_path / "store"))
    assert str(raised.value).startswith(f"{path}: {said}")
    assert "\n" not in str(raised.value)
