"""Commands of every day: what there is to name, new files, a run again, the machine."""

import json
import shutil
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pytest
import typer
from simulated import fill, read_grid, run

import harness
import normorder
import normorder_everyday
from grids import Cell, Grid, order_error
from harness import datasets, doctor, new
from harness.catalogue import KINDS
from harness.cluster import ClusterError
from harness.initialisation import ACTIVATIONS
from harness.plan import Trial
from harness.provenance import provenance
from harness.replay import ReplayError, find, in_words, replay
from harness.trial import run_trial
from normorder_words import complete_architecture, complete_words
from results import METRICS, Store
from results.schema import RUNS

ROOT = Path(__file__).parents[1]
CHOICES = {**harness.choices(), "metric": METRICS}


# list


@pytest.mark.parametrize("kind", [*KINDS, "grids"])
def test_a_list_has_a_line_on_each_and_is_json_for_programs(told, kind, monkeypatch):
    monkeypatch.chdir(ROOT)
    code, out, errors = told("list", kind, "--json")
    assert (code, errors) == (0, "")
    rows = json.loads(out)
    code, table, _ = told("list", kind)
    assert code == 0
    assert all(row["name"] in table for row in rows)
    assert all(str(value) for row in rows for key, value in row.items() if key in ("about", "question", "source"))


def test_lists_are_of_what_grids_may_name():
    assert [row["name"] for row in KINDS["architectures"]()] == list(CHOICES["architecture"])
    assert [row["name"] for row in KINDS["datasets"]()] == list(CHOICES["dataset"])
    assert {row["name"]: row["parameter"] for row in KINDS["activations"]()} == CHOICES["activation"]
    orders = [row["name"] for row in KINDS["orders"]()]
    assert len(orders) == len(set(orders)) == 2 + 6 * len(harness.NORMS)
    assert [order for order in orders if order_error(order, harness.NORMS)] == []


def test_the_gains_of_the_list_are_those_of_the_weights():
    assert {row["name"]: row["gain"] for row in KINDS["activations"]()}["relu"] == round(
        ACTIVATIONS["relu"].gain(None), 4
    )


def test_a_grid_that_cannot_be_read_is_listed_with_its_error(tmp_path, monkeypatch):
    (tmp_path / "grids").mkdir()
    (tmp_path / "grids" / "odd.toml").write_text("[axis]\n")
    monkeypatch.chdir(tmp_path)
    [row] = normorder_everyday.grids_here()
    assert row["name"] == "grids/odd.toml"
    assert "did you mean axes?" in row["question"]


# new files


def test_a_new_architecture_works_as_it_is_written(told, architectures):
    name = "tried_by_a_test"
    code, out, errors = told("new-architecture", name)
    assert (code, errors) == (0, "")
    assert f"normorder check-architecture {name}" in out
    code, out, _ = told("check-architecture", name)
    assert code == 0, out
    assert "NO" not in out
    assert told("new-architecture", name) == (2, "", f"normorder: there is an architecture {name} already\n")


def test_a_new_architecture_may_begin_as_another_one(told, architectures):
    code, out, errors = told("new-architecture", "like_resnet", "--like", "resnet")
    assert (code, errors) == (0, "")
    assert "like_resnet.py, as resnet is; next:" in out
    assert (architectures / "like_resnet.py").read_text() == (architectures / "resnet.py").read_text()
    told_of = "normorder: there is no architecture resnett; did you mean resnet? there are cnn, "
    assert told("new-architecture", "other", "--like", "resnett")[2].startswith(told_of)
    assert not (architectures / "other.py").exists()


@pytest.mark.parametrize("name", ["a b", "", "1st", "Upper", "class", "../x", "é"])
def test_a_new_architecture_must_have_the_name_of_a_module(name):
    with pytest.raises(new.NewError, match="lower case letters, digits and '_'"):
        new.architecture(name)


def test_a_new_grid_can_be_planned_as_it_is_written(told, tmp_path, monkeypatch):
    (tmp_path / "grids").mkdir()
    monkeypatch.chdir(tmp_path)
    code, out, errors = told("new-grid", "mine")
    assert (code, errors) == (0, "")
    assert "normorder plan grids/mine.toml" in out
    grid = Grid.read("grids/mine.toml", CHOICES)
    assert len(list(grid.cells())) == 12
    assert grid.question.endswith("the report.")
    assert told("new-grid", "mine") == (2, "", "normorder: grids/mine.toml: is there already\n")
    assert told("new-grid", "a/b")[0] == 2
    shutil.rmtree("grids")
    assert told("new-grid", "other")[2] == "normorder: grids/other.toml: cannot be written: No such file or directory\n"


# replay


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A store with a trial of a perceptron of 3 seeds, and one of a network whose bits need one seed."""
    folder = tmp_path_factory.mktemp("replay")
    store, data = Store(folder / "store"), datasets.load("digits")
    fields = {"dataset": "digits", "order": "weight-bn-act", "activation": "relu", "depth": 1, "epochs": 2, "batch": 64}
    for architecture, width, seeds in (("mlp", 32, (0, 1, 2)), ("cnn", 4, (5,))):
        cell = Cell(architecture=architecture, width=width, **fields)
        store.write(run_trial(Trial(cell, seeds), data, provenance()).tables)
    return store


@pytest.mark.parametrize("i", range(4))
def test_a_run_is_trained_again_to_the_same_bits(trained, i):
    run_id = trained.read("runs")["run_id"][i].as_py()
    found = replay(find(trained, run_id[:8]), datasets.load)
    assert (found.run_id, found.differences, found.reasons) == (run_id, {}, [])
    assert "all 27 measured columns are equal, bit for bit" in in_words(found)[0]


def altered(rows, **values):
    for name, value in values.items():
        column = pa.array([value] * len(rows), RUNS.field(name).type)
        rows = rows.set_column(rows.column_names.index(name), name, column)
    return rows


def test_what_differs_is_told_and_is_a_fault_where_nothing_else_does(trained):
    rows = find(trained, trained.read("runs")["run_id"][0].as_py())
    found = replay(altered(rows, test_accuracy=0.5), datasets.load)
    assert [*found.differences] == ["test_accuracy"]
    assert in_words(found)[-1].endswith("equal runs must be equal, so this is a fault")
    other = replay(altered(rows, test_accuracy=0.5, code="older", engine="cuda, , torch 9, eager"), datasets.load)
    assert [reason.partition(":")[0] for reason in other.reasons] == ["the engine", "the version of the code"]
    assert "it may differ, since it was made otherwise" in in_words(other)[-1]


def test_a_run_that_is_not_there_lists_the_nearest(trained, told):
    ids = sorted(trained.read("runs")["run_id"].to_pylist())
    with pytest.raises(ReplayError, match=f"{ids[0][:3]} is shorter than 4 digits; near it are {ids[0]}, "):
        find(trained, ids[0][:3])  # too short to stand for the whole
    code, _, errors = told("replay", "xyz0", "--store", trained.path)
    assert code == 2
    assert "xyz0 is no finished run; near it are " in errors
    assert all(each in errors for each in ids)


def test_the_command_finds_the_store_and_fails_where_bits_differ(trained, told, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert told("replay", "abcd")[2].startswith("normorder: results/data: there is no store; name one with --store")
    shutil.copytree(trained.path, "results/data/mine")
    Path("results/data/another").mkdir()
    run_id = trained.read("runs")["run_id"][0].as_py()
    code, out, errors = told("replay", run_id, "--json")
    assert (code, errors, json.loads(out)["differences"]) == (0, "", {})
    rows = trained.read("runs")
    wrong = altered(rows.filter(pc.equal(rows["run_id"], run_id)), test_loss=9.0)
    Store("wrong").write({"runs": wrong.replace_schema_metadata(RUNS.metadata or {"schema_version": "1"})})
    assert told("replay", run_id, "--store", "wrong")[0] == 1


# doctor


def test_the_doctor_finds_what_works_and_says_what_to_do(tmp_path, told, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(normorder_everyday, "start_ray", lambda: 2)
    monkeypatch.setenv("NORMORDER_DATA", str(tmp_path / "data"))
    grid = read_grid(tmp_path, seeds=3)
    runs = [run(cell, seed, "failed" if seed else "done") for cell in grid.cells() for seed in range(3)]
    fill(Store("results/data/mine"), runs)
    code, out, errors = told("doctor")
    assert (code, errors) == (0, "")
    assert "ok    data set digits: 1,293 / 144 / 360 examples for training / validation / test" in out
    assert (
        "note  data set cifar10: cifar-10-binary.tar.gz: not on this machine; it is downloaded when first used" in out
    )
    assert "note  store mine: 2 runs finished, 4 failed" in out
    assert "with 2 slots" in out
    states = {each["what"]: each["state"] for each in json.loads(told("doctor", "--json")[1])}
    assert states["torch"] == states["Ray"] == states["Python"] == "works"


def test_the_doctor_fails_where_something_does(tmp_path, told, monkeypatch):
    def unreached():
        raise ClusterError("no Ray cluster at this machine: no shared memory")

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(normorder_everyday, "start_ray", unreached)
    monkeypatch.setattr(doctor, "LIBRARIES", ("no_such_library",))
    code, out, _ = told("doctor")
    assert code == 1
    assert "NO    no_such_library: is not installed: pip install -c constraints.txt -e ." in out
    assert "NO    Ray: no Ray cluster at this machine: no shared memory" in out


# help


@pytest.mark.parametrize("command", sorted(typer.main.get_group(normorder.app).commands))
def test_every_command_has_an_example(told, command):
    code, out, _ = told(command, "--help")
    assert code == 0
    assert f"Example: normorder {command}" in out


# the words of commands


def test_status_takes_its_store_as_other_commands_do_too(tmp_path, told, monkeypatch):
    grid = read_grid(tmp_path, ("relu",), seeds=2)
    store = fill(Store(tmp_path / "results" / "data" / "simulated"), [run(cell, 0) for cell in grid.cells()])
    monkeypatch.chdir(tmp_path)
    first, *others = (
        told("status", *words)
        for words in (
            ["simulated.toml"],
            [store.path, "simulated.toml"],
            ["simulated.toml", "--store", store.path],
            [store.path, "simulated.toml", "seeds=2"],
            ["simulated.toml", "seeds=2"],
        )
    )
    assert "4 planned runs" in first[1]
    assert [(code, out.partition(": ")[2], errors) for code, out, errors in others] == [
        (0, first[1].partition(": ")[2], "")
    ] * 4
    assert told("status", tmp_path / "other", "simulated.toml")[2].endswith("other: there is no store\n")


def test_shells_complete_grids_fields_and_architectures(monkeypatch):
    monkeypatch.chdir(ROOT)
    assert complete_words("grids/s") == ["grids/signs.toml", "grids/smoke.toml"]
    assert complete_words("dep") == ["depth="]
    assert complete_architecture("res") == ["resmlp", "resnet"]
