"""The smoke grid through real Ray to a real report; what a sweep does to a store, and what it writes when trials fail."""

import os
import re
import shutil
import subprocess
import sys
import tempfile
import threading
from pathlib import Path

import pandas as pd
import pyarrow.parquet as pq
import pytest
import ray

import harness
import normorder
from grids import Grid
from harness import cluster, datasets, sweep
from harness.engine import MOST_COMPILED
from harness.plan import group, make_plan
from harness.trial import check_trainable
from harness.tuning import choose_how
from reports import page
from results import METRICS, Store

SMOKE = Path(__file__).parents[1] / "grids" / "smoke.toml"
PROVENANCE = {"commit": "", "versions": "test"}


@pytest.fixture(scope="module")
def slots():
    ray.init("local", num_cpus=2, object_store_memory=300_000_000, include_dashboard=False, log_to_driver=False)
    with cluster.cluster():
        yield 2
    ray.shutdown()


@pytest.fixture
def data():
    return {"digits": datasets.load("digits")}


def read_grid(path: Path, **changes: str) -> Grid:
    """The smoke grid with some of its text replaced, each old text by its new one."""
    text = SMOKE.read_text()
    for old, new in changes.values():
        assert old in text
        text = text.replace(old, new)
    path.write_text(text)
    return Grid.read(path, {**harness.choices(), "metric": METRICS})


def run(grid: Grid, store: Store, data, slots: int, **how) -> dict[str, int]:
    """Plan and train; the runs by status."""
    plan = make_plan(grid, store.finished(), store.failed(), data, **how)
    trials = group(plan.missing, data, slots, choose_how(plan, data, {}, slots))
    with tempfile.TemporaryDirectory() as scratch:
        return sweep.run_trials(trials, data, sweep.share(data), store, PROVENANCE, Path(scratch))


@pytest.fixture(scope="module")
def swept(slots, tmp_path_factory):
    """The smoke grid, trained: its store is only read."""
    store = Store(tmp_path_factory.mktemp("smoke") / "a store")
    grid = Grid.read(SMOKE, {**harness.choices(), "metric": METRICS})
    counts = run(grid, store, {"digits": datasets.load("digits")}, slots)
    assert counts == {"done": 30, "diverged": 0, "failed": 0}
    return grid, store


def test_every_planned_run_is_in_the_store_once(swept):
    grid, store = swept
    runs = store.read("runs").to_pandas()
    assert sorted(runs["run_id"]) == sorted(run.run_id for run in grid.runs())
    assert set(runs["status"]) == {"done"}


def test_a_second_sweep_has_nothing_to_do(swept, data):
    grid, store = swept
    assert make_plan(grid, store.finished(), store.failed(), data).missing == ()


class Leaving(dict):
    """Tables of a trial whose store goes away before the first `runs` are written, leaving an empty folder for a moment."""

    def __init__(self, tables, store: Path):
        super().__init__(tables)
        self.store, self.away = store, store.with_name("away")

    def __getitem__(self, name):
        if name == "runs" and not self.away.exists():
            self.store.rename(self.away)
            self.store.mkdir()
            threading.Timer(0.5, self.back).start()
        return super().__getitem__(name)

    def back(self):
        shutil.rmtree(self.store)
        self.away.rename(self.store)
        self.away.mkdir()  # it has been away


def test_a_store_that_goes_away_while_a_trial_is_written_has_it_whole_when_it_is_back(swept, tmp_path):
    _, store = swept
    tables = {name: pq.read_table(store.files(name)[0]) for name in ("curves", "runs")}
    other = Store(tmp_path / "store")
    assert sweep._write(other, other.mark(), Leaving(tables, other.path)) is None
    assert len(other.files("curves")) == len(other.files("runs")) == 1


def test_a_value_added_to_an_axis_runs_only_the_new_cells(swept, data, slots, tmp_path):
    _, store = swept
    larger = read_grid(tmp_path / "smoke.toml", activation=('["relu", "tanh"]', '["relu", "tanh", "elu"]'))
    plan = make_plan(larger, store.finished(), store.failed(), data)
    assert {run.cell.activation for run in plan.missing} == {"elu"}
    assert len(plan.missing) == 15


def test_a_deleted_file_makes_exactly_its_runs_again_with_equal_bits(swept, data, slots, tmp_path):
    grid, store = swept
    copy = Store(tmp_path / "copy")
    for source in (store.path / "runs").iterdir():
        (copy.path / "runs").mkdir(parents=True, exist_ok=True)
        (copy.path / "runs" / source.name).write_bytes(source.read_bytes())
    before = copy.read("runs").to_pandas()
    removed = copy.files("runs")[0]
    lost = set(pd.read_parquet(removed)["run_id"])
    removed.unlink()
    assert {run.run_id for run in make_plan(grid, copy.finished(), copy.failed(), data).missing} == lost
    assert run(grid, copy, data, slots)["done"] == len(lost)
    after = copy.read("runs").to_pandas()
    pd.testing.assert_frame_equal(before[["run_id", *METRICS]], after[["run_id", *METRICS]])


def test_cells_with_parts_of_a_data_set_are_trained_on_them_from_one_shared_set(data, slots, tmp_path):
    axes = ('["relu", "tanh"]', '["relu"]\ntrain_size = [0, 200]\nlabel_noise = [0, 0.5]')
    grid = read_grid(tmp_path / "g.toml", axes=axes, recipe=("[recipe]", "[recipe]\nshift = 1"), count=("= 5", "= 1"))
    store = Store(tmp_path / "store")
    assert run(grid, store, data, slots) == {"done": 12, "diverged": 0, "failed": 0}
    runs = store.read("runs").to_pandas()
    assert (runs["train_examples"] == runs["train_size"].replace(0, 1293)).all()
    assert set(runs["data"]) == {data["digits"].checksum}
    mean = runs.groupby("label_noise")["train_accuracy"].mean()
    assert mean[0.0] > mean[0.5] + 0.1


def test_the_report_of_a_sweep_is_one_file_that_needs_no_other(swept, tmp_path):
    grid, store = swept
    lines = page.build(grid, store, tmp_path / "report")
    text = (tmp_path / "report" / "index.html").read_text()
    assert "after − before" in text
    assert lines[0] in text
    assert "<img" not in text
    assert "<link" not in text
    assert 'src="' not in text
    assert len(pd.read_parquet(tmp_path / "report" / "comparisons.parquet")) == 2 * 2 * 2
    assert (tmp_path / "report" / "figures" / "heatmap-0-test_accuracy.svg").exists()


def test_a_diverging_run_is_a_row_with_its_reason(data, slots, tmp_path):
    grid = read_grid(tmp_path / "g.toml", lr=("epochs = 2", "epochs = 2\nlr = 1e30"))
    store = Store(tmp_path / "store")
    counts = run(grid, store, data, slots)
    runs = store.read("runs").to_pandas()
    assert counts["diverged"] == (runs["status"] == "diverged").sum() > 0
    assert runs.loc[runs["status"] == "diverged", "error"].str.contains("not finite").all()
    assert runs.loc[runs["status"] == "diverged", "test_accuracy"].isna().all()


def test_a_trial_that_raises_is_failed_rows_and_runs_again_only_on_request(data, slots, tmp_path):
    grid = read_grid(tmp_path / "g.toml", count=("count = 5", "count = 1"))
    store = Store(tmp_path / "store")
    broken = {"digits": datasets.Data(**{**vars(data["digits"]), "y_train": data["digits"].y_train + 100})}
    assert run(grid, store, broken, slots)["failed"] == 6
    assert store.read("runs").to_pandas()["error"].str.contains("Traceback").all()
    assert make_plan(grid, store.finished(), store.failed(), data).failed == 6
    assert run(grid, store, data, slots)["done"] == 0
    assert run(grid, store, data, slots, retry=True)["done"] == 6
    assert store.failed() == set()


def test_a_network_that_an_architecture_refuses_is_told_before_ray_starts(data, tmp_path):
    grid = read_grid(tmp_path / "g.toml", architecture=('["mlp"]', '["cnn"]'))
    narrow = {"digits": datasets.prepare("digits", datasets.Examples(*(data["digits"].x_train[:, :, :2],) * 1,
              data["digits"].y_train, data["digits"].x_test[:, :, :2], data["digits"].y_test, classes=10))}  # fmt: skip
    with pytest.raises(harness.plan.PlanError, match=r"architecture cnn, data set digits: .* at least 4"):
        check_trainable(grid.cells(), narrow)


@pytest.mark.parametrize(
    ("architecture", "order", "side", "told"),
    [
        (
            "cnn",
            "weight-act-in",
            8,
            "order weight-act-in: before the mean over space",
        ),
        ("mlp", "weight-in-act", 8, "32 channels in 32 groups without space"),
        ("cnn", "weight-in-act", 4, "128 channels in 128 groups without space"),  # pooled to a single place
    ],
)
def test_an_order_that_cannot_work_is_told_before_ray_starts(data, tmp_path, architecture, order, side, told):
    changes = {
        "architecture": ('["mlp"]', f'["{architecture}"]'),
        "orders": ('"weight-act-bn"]', f'"weight-act-bn", "{order}"]'),
        "depth": ("depth        = [2]", "depth        = [3]"),
    }
    grid = read_grid(tmp_path / "g.toml", **changes)
    assert order in grid.axes["order"]
    x, x_test = (part[:, :, :side, :side] for part in (data["digits"].x_train, data["digits"].x_test))
    small = {"digits": datasets.prepare("digits", datasets.Examples(x, data["digits"].y_train, x_test,
             data["digits"].y_test, classes=10))}  # fmt: skip
    with pytest.raises(harness.plan.PlanError, match=f"^architecture {architecture}, data set digits: .*{told}"):
        check_trainable(grid.cells(), small)


@pytest.mark.parametrize(
    ("architecture", "field", "values", "orders", "ignored"),
    [
        ("mlp", "after_sum", '["none", "bn"]', ["weight-bn-act"], True),
        ("resmlp", "after_sum", '["none", "bn"]', ["weight-bn-act"], False),
        ("mlp", "after_sum", '["bn"]', ["weight-bn-act"], False),  # no network counts twice
        ("cnn", "pool", '["after", "before"]', ["weight-act"], True),  # nothing to be before
        ("cnn", "pool", '["after", "before"]', ["weight-act", "weight-bn-act"], False),
        ("resmlp", "branch_end", '["order", "norm"]', ["act-weight"], True),
        ("resmlp", "branch_end", '["order", "norm"]', ["weight-act-bn"], False),
    ],
)
def test_a_field_that_does_nothing_is_told_where_it_makes_cells(
    data, tmp_path, architecture, field, values, orders, ignored
):
    changes = {
        "architecture": ('["mlp"]', f'["{architecture}"]'),
        "field": ("depth        = [2]", f"depth        = [3]\n{field} = {values}"),
    }
    cells = read_grid(tmp_path / "g.toml", **changes).cells()
    told = check_trainable({cell.model_copy(update={"order": order}) for cell in cells for order in orders}, data)
    assert [f"{field} does nothing in architecture {architecture}: " in line for line in told] == [True] * ignored


def test_a_field_that_a_module_of_ones_own_heeds_does_something(data, tmp_path, architectures):
    (architectures / "heeding.py").write_text("""
from torch import nn
from harness.layers import block, network
from harness.per_seed import PerSeed
CONVOLUTIONS = False

class Scaled(nn.Linear):
    def __init__(self, i, o, scale):
        super().__init__(i, o)
        self.scale = scale

    def forward(self, x):
        return self.scale * super().forward(x)

def build(cell, shape, classes):
    made = lambda i, o: PerSeed(lambda: Scaled(i, o, 2 if cell.pool == "before" else 1))
    return network(cell, shape, classes, nn.Sequential(block(cell, cell.width, cell.width, weight=made)))
""")
    cell = next(iter(read_grid(tmp_path / "g.toml").cells())).model_copy(
        update={"architecture": "heeding", "order": "weight-act"}
    )
    told = check_trainable([cell, cell.model_copy(update={"pool": "before"})], data)
    assert [line for line in told if "does nothing" in line] == []


def test_a_mistake_in_the_file_of_an_architecture_is_told_with_its_line(data, tmp_path, architectures):
    (architectures / "mistaken.py").write_text("CONVOLUTIONS = False\n\ndef build(cell):\n    return None\n")
    (architectures / "misspelt.py").write_text("def build(cell, shape, classes):\n    return cell.widht\n")
    cells = read_grid(tmp_path / "g.toml").cells()
    cell = next(iter(cells))
    for name, told in (
        ("mistaken", r"TypeError: build\(\) takes 1 positional argument but 3 were given$"),
        ("misspelt", r"AttributeError: 'Cell' object has no attribute 'widht' \(misspelt.py, line 2\)$"),
    ):
        with pytest.raises(harness.plan.PlanError, match=f"^architecture {name}, data set digits: {told}"):
            check_trainable([cell.model_copy(update={"architecture": name})], data)


def test_few_examples_are_no_reason_to_refuse_a_network(tmp_path, blobs):
    data = blobs(train=10)
    assert len(data.x_val) == 1
    grid = read_grid(tmp_path / "g.toml")
    check_trainable(grid.cells(), {"digits": data})


def test_a_plan_tells_what_no_sweep_could_train(tmp_path, told):
    read_grid(tmp_path / "g.toml", order=('"weight-bn-act"', '"weight-in-act"'))
    code, out, errors = told("plan", tmp_path / "g.toml", "--store", tmp_path / "store")
    assert (code, out) == (2, "")
    assert errors.startswith(f"normorder: {tmp_path / 'g.toml'}: architecture mlp, data set digits: ")
    assert "without space" in errors


def test_the_commands_of_the_readme_run_from_plan_to_report(tmp_path):
    environment = {**os.environ, "PYTHONPATH": str(SMOKE.parents[1])}
    environment.pop("RAY_ADDRESS", None)

    def normorder(*words: str) -> subprocess.CompletedProcess:
        command = [sys.executable, "-m", "normorder", *words]
        return subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)

    planned = normorder("plan", str(SMOKE))
    assert planned.returncode == 0
    assert "to do 30 in 6 trials of 5 seeds on" in planned.stdout
    swept = normorder("sweep", str(SMOKE))
    assert swept.returncode == 0, swept.stderr
    assert "runs 30/30" in swept.stdout
    assert "30 done, 0 diverged, 0 failed" in swept.stdout
    assert swept.stderr == ""
    layers = Store(tmp_path / "results" / "data" / "smoke").read("layers").to_pandas()
    assert layers.run_id.nunique() == 30
    assert layers.groupby("run_id").epoch.unique().map(list).map(sorted).map(tuple).unique().tolist() == [(0, 2)]
    again = normorder("sweep", str(SMOKE))
    assert again.returncode == 0
    assert "nothing to do" in again.stdout
    reported = normorder("report", str(SMOKE))
    assert reported.returncode == 0, reported.stderr
    assert (tmp_path / "reports" / "build" / "smoke" / "index.html").exists()


def test_a_pilot_that_fails_is_left_out_and_the_others_are_measured(slots, data):
    good = next(Grid.read(SMOKE, {**harness.choices(), "metric": METRICS}).cells())
    bad = good.model_copy(update={"architecture": "nothing"})
    pilots = sweep.measure_all({"good": (good, [2]), "bad": (bad, [2])}, sweep.share(data), slots)
    assert list(pilots) == ["good"]
    assert pilots["good"].seconds[2] > 0


def compiled_sweep(folder: Path, *options: str, **environment: str) -> tuple[str, pd.DataFrame]:
    """`normorder sweep` of a tiny grid in a folder: what it prints, and the rows of its store."""
    text, _, _ = SMOKE.read_text().partition("[analysis]")
    for old, new in (('"relu", "tanh"', '"relu"'), (', "weight-act-bn"', ""), ("count = 5", "count = 2")):
        assert old in text
        text = text.replace(old, new)
    (folder / "tiny.toml").write_text(text)
    everything = {**os.environ, "PYTHONPATH": str(SMOKE.parents[1]), **environment}
    everything.pop("RAY_ADDRESS", None)
    command = [sys.executable, "-m", "normorder", "sweep", "tiny.toml", "--store", "store", *options]
    swept = subprocess.run(command, cwd=folder, env=everything, capture_output=True, text=True, check=False)
    assert (swept.returncode, swept.stderr) == (0, ""), swept.stderr
    return swept.stdout, Store(folder / "store").read("runs").to_pandas()


def test_a_compiled_sweep_says_so_and_what_is_lost_of_it_is_compiled_again_to_equal_bits(tmp_path):
    printed, before = compiled_sweep(tmp_path, "--mode", "compiled")
    assert re.search(r"to do 4 in (2|4) trials of \d seeds?, \1 compiled on", printed)
    assert before["engine"].str.endswith(", compiled").all()
    assert (before["seed_block"] == MOST_COMPILED).all()
    lost, *_ = Store(tmp_path / "store").files("runs")
    lost.unlink()
    printed, after = compiled_sweep(tmp_path)  # nothing is asked for: the store knows
    assert re.search(r"to do (1|2) in (1|2) trials of \d seeds?, \2 compiled on", printed)
    pd.testing.assert_frame_equal(before[["run_id", "engine", *METRICS]], after[["run_id", "engine", *METRICS]])


def test_without_a_compiler_a_sweep_is_eager_and_says_so(tmp_path):
    environment = {"CXX": "/nonexistent/c++", "TORCHINDUCTOR_CACHE_DIR": str(tmp_path / "empty")}
    printed, runs = compiled_sweep(tmp_path, "--mode", "compiled", **environment)
    assert "trained eagerly, not compiled: " in printed
    assert "4 done, 0 diverged, 0 failed" in printed
    assert runs["engine"].str.endswith(", eager").all()


def test_an_address_is_auto_or_a_host_with_a_port(told):
    for address in (
        "local",
        "host",
        "127.0.0.1",
        "http://host:1",
        "ray://",
        "ray://host",
        "u@host:1",
        "host:123456",
        "",
        " auto",
    ):
        code, _, errors = told("sweep", SMOKE, "--address", address)
        assert (code, errors.startswith("normorder: --address: must be auto, host:port")) == (2, True), address
    for address in ("auto", "a.b:6379", "10.0.0.1:1", "[::1]:6379", "ray://head:10001"):
        assert normorder.ADDRESS.fullmatch(address)
