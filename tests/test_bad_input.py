"""What bad input gets: one line that names the place, the value and the choices, exit code 2, and nothing else."""

import gzip
import os
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pytest

import harness
import normorder
from grids import Cell, Run
from harness.datasets import fashion_mnist, mnist1d
from results import METRICS, Store, table

ROOT = Path(__file__).parent.parent
TEXT = """# Which?
[axes]
dataset      = ["digits"]
architecture = ["mlp"]
order        = ["weight-act", "weight-bn-act"]
activation   = ["relu"]
depth        = [2]

[recipe]
epochs = 2

[seeds]
count = 2

[analysis]
arms      = { none = "weight-act", before = "weight-bn-act" }
contrasts = ["before - none"]
primary   = { metric = "test_accuracy", contrast = "before - none" }
margin    = { test_accuracy = 0.02 }
"""
FIELDS = tuple(Cell.model_fields)
RULE = (
    "'weight' and 'act', each exactly once",
    "at most one normalization (bn, ln, gn, in, rms)",
    "at most one 'drop'",
)
ARMS = ("none", "before")

# What is changed in the grid, into what, and the words that its error must have beside the grid's name.
MISTAKES = {
    "unknown table": ("[seeds]", "[seed]", ("'seed'", "axes, nuisance, recipe, seeds, analysis, resources, probes")),
    "a part of more than one GPU": ("[seeds]", "[resources]\ngpus = 1.5\n[seeds]", ("gpus = 1.5", "or whole GPUs")),
    "a trace of a GPU": ("[seeds]", "[resources]\ngpus = 0.00001\n[seeds]", ("gpus = 1e-05", "from 0.0001 on")),
    "a trace of a core": ("[seeds]", "[resources]\ncpus = 0.00001\n[seeds]", ("cpus = 1e-05", "0.0001")),
    "unknown axis": ("depth ", "depht ", ("[axes]", "'depht'", *FIELDS)),
    "unknown nuisance": ("[recipe]", "[nuisance]\nrate = [0.1]\n[recipe]", ("[nuisance]", "'rate'", *FIELDS)),
    "unknown recipe field": ("epochs", "epoch", ("[recipe]", "'epoch'", *FIELDS)),
    "unknown key of seeds": ("count = 2", "count = 2\nfirst = 3", ("[seeds]", "'first'", "count")),
    "max without a reason to stop": ("count = 2", "count = 2\nmax = 8", ("max = 8", 'needs stop = "decided"')),
    "stop without max": ("count = 2", 'count = 2\nstop = "decided"', ('stop = "decided"', "needs max")),
    "max below count": (
        "count = 2", 'count = 2\nmax = 1\nstop = "decided"', ("max = 1", "must be at least count = 2")),
    "looks that do not divide": (
        "count = 2", 'count = 2\nmax = 12\nstop = "decided"', ("max = 12", "count = 2 doubled some times, as 8 or 16")),
    "an unknown way to stop": ("count = 2", 'count = 2\nmax = 8\nstop = "soon"', ("stop = 'soon'", "'count' or 'decided'")),
    "margin of zero": ("test_accuracy = 0.02", "test_accuracy = 0", ("margin.test_accuracy = 0", "greater than 0")),
    "unknown key of the analysis": ("margin ", "margins ", ("[analysis]", "'margins'", "margin", "alpha")),
    "unknown key of primary": ("contrast =", "pair = 1, contrast =", ("primary.pair", "metric, contrast")),
    "unknown activation": ('"relu"', '"rleu"', ("[axes]", "activation = 'rleu'", "relu, leaky_relu, prelu", "maxout")),
    "parameter that is no number": ('"relu"', '"elu:x"', ("activation = 'elu:x'", "must be a number", "elu:1")),
    "parameter that is not finite": ('"relu"', '"elu:inf"', ("activation = 'elu:inf'", "must be a number")),
    "parameter for an activation without": ('"relu"', '"relu:1"', ("activation = 'relu:1'", "takes no parameter")),
    "unknown architecture": ('"mlp"', '"mpl"', ("architecture = 'mpl'", ", ".join(harness.names("architectures")))),
    "unknown data set": ('"digits"', '"digit"', ("dataset = 'digit'", ", ".join(harness.names("datasets")))),
    "a file of one's own without a name": ('"digits"', '"npz"', ("dataset = 'npz'", "as in npz:mine for mine.npz")),
    "a file elsewhere": ('"digits"', '"npz:../mine"', ("dataset = 'npz:../mine'", "letters, digits, '_', '-' and '.'")),
    "a file of a data set": ('"digits"', '"digits:mine"', ("dataset = 'digits:mine'", "there are cifar10, digits")),
    "training size larger than the training part": (
        "epochs = 2", "train_size = 1294", ("train_size = 1294", "larger than the training part of digits (1293")),
    "batch larger than the training size": ("epochs = 2", "train_size = 99", ("batch = 100", "train_size = 99")),
    "noise of every label": ("epochs = 2", "label_noise = 1", ("label_noise = 1", "less than 1")),
    "shift beyond the image": ("epochs = 2", "shift = 8", ("shift = 8", "less than 8, the smallest dimension of digits")),
    "mirrored digits": ("epochs = 2", "flip = true", ("flip = true", "of digits may be", "fashion14, fashion_mnist")),
    "flip by number": ("epochs = 2", "flip = 1", ("flip = 1", "boolean")),
    "unknown normalization of the stem": ("epochs = 2", 'stem_norm = "xn"', ("stem_norm = 'xn'", "none, bn, ln, gn")),
    "two normalizations after the sum": ("epochs = 2", 'after_sum = "bn-ln"', ("after_sum = 'bn-ln'", "as in bn-act")),
    "weights after the blocks": ("epochs = 2", 'after_blocks = "weight"', ("after_blocks = 'weight'", "join 'act'")),
    "weights after the sum": ("epochs = 2", 'after_sum = "weight"', ("after_sum = 'weight'", "must be none, or join 'act'")),
    "unknown end of a branch": ("epochs = 2", 'branch_end = "act"', ("branch_end = 'act'", "'order', 'norm' or 'weight'")),
    "unknown initialisation": ("epochs = 2", 'init = "kaiming"', ("'he', 'xavier', 'orthogonal' or 'lsuv'",)),
    "initial weights of nothing": ("epochs = 2", "init_gain = 0", ("init_gain = 0", "greater than 0")),
    "scale and shift by number": ("epochs = 2", "affine = 1", ("affine = 1", "boolean")),
    "probe after the last epoch": ("[seeds]", "[probes]\nepochs = [3]\n[seeds]", ("[probes] epochs = 3", "at most 2")),
    "probe before the first": ("[seeds]", "[probes]\nepochs = [-1]\n[seeds]", ("[probes]", "greater than or equal to 0")),
    "unknown key of probes": ("[seeds]", "[probes]\nevery = 1\n[seeds]", ("[probes]", "'every'", "epochs")),
    "order without act": ('"weight-act"', '"weight-bn"', ("[axes]", "order = 'weight-bn'", *RULE)),
    "order without weight": ('"weight-act"', '"act"', ("order = 'act'", *RULE)),
    "order with two norms": ('"weight-act"', '"bn-weight-bn-act"', ("order = 'bn-weight-bn-act'", *RULE)),
    "order with two drops": ('"weight-act"', '"drop-weight-act-drop"', ("order = 'drop-weight-act-drop'", *RULE)),
    "order with an unknown layer": ('"weight-act"', '"weight-act-xn"', ("order = 'weight-act-xn'", *RULE)),
    "order with spaces": ('"weight-act"', '"weight - act"', ("order = 'weight - act'", *RULE)),
    "empty order": ('"weight-act"', '""', ("order = ''", *RULE)),
    "order over two lines": ('"weight-act"', '"weight\\nact"', (r"order = 'weight\nact'", *RULE)),
    "order that is a number": ('"weight-act"', "1", ("order = 1", "string")),
    "empty axis": ("[2]", "[]", ("[axes]", "depth = []", "has no value")),
    "duplicate value": ("[2]", "[2, 4, 2]", ("[axes]", "depth = 2", "twice")),
    "duplicate value by another name": ("[2]", "[1, 1.0]", ("[axes]", "depth = 1", "twice")),
    "duplicate text": ('"relu"', '"relu", "relu"', ("activation = 'relu'", "twice")),
    "field given twice": ("[recipe]", "[recipe]\ndepth = 3", ("[recipe]", "depth", "[axes]")),
    "missing axis": ("depth        = [2]", "", ("depth", "missing")),
    "negative depth": ("[2]", "[-1]", ("[axes]", "depth = -1", "greater than or equal to 1")),
    "depth 0": ("[2]", "[0]", ("depth = 0", "greater than or equal to 1")),
    "depth with a fraction": ("[2]", "[2.5]", ("depth = 2.5", "integer")),
    "depth as text": ("[2]", '["4"]', ("depth = '4'", "number")),
    "depth true": ("[2]", "[true]", ("depth = True", "number")),
    "depth not a number": ("[2]", "[nan]", ("depth = nan",)),
    "depth a date": ("[2]", "[2026-01-01]", ("depth = ", "2026", "integer")),
    "list in a list": ("[2]", "[[2]]", ("depth = [2]", "single value")),
    "one value for an axis": ("[2]", "2", ("[axes]", "depth = 2", "list")),
    "list in the recipe": ("epochs = 2", "epochs = [2, 3]", ("[recipe]", "epochs = [2, 3]", "[axes]")),
    "learning rate 0": ("epochs = 2", "lr = 0", ("[recipe]", "lr = 0", "greater than 0")),
    "learning rate without end": ("epochs = 2", "lr = inf", ("lr = inf", "finite")),
    "unknown schedule": ("epochs = 2", 'schedule = "cos"', ("schedule = 'cos'", "'constant', 'cosine' or 'onecycle'")),
    "batch of one": ("epochs = 2", "batch = 1", ("batch = 1", "greater than or equal to 2")),
    "batch larger than the training part": ("epochs = 2", "batch = 1294", ("batch = 1294", "digits", "1293")),
    "axes a list of tables": ("[axes]", "[[axes]]", ("axes = [{", "must be a table, [axes]")),
    "seeds a list of tables": ("[seeds]", "[[seeds]]", ("seeds = [{'count': 2}]", "must be a table, [seeds]")),
    "analysis not a table": (TEXT, f"analysis = 1\n{TEXT.partition('[analysis]')[0]}", ("analysis = 1", "[analysis]")),
    "zero seeds": ("count = 2", "count = 0", ("[seeds]", "count = 0", "greater than or equal to 1")),
    "seeds as text": ("count = 2", 'count = "2"', ("[seeds]", "count = '2'", "number")),
    "no seeds": ("count = 2", "", ("[seeds]", "count", "missing")),
    "margin for an unknown metric": ("{ test_accuracy", "{ accuracy", ("[analysis]", "margin", "'accuracy'", *METRICS)),
    "negative margin": ("0.02", "-0.02", ("[analysis]", "margin.test_accuracy = -0.02", "greater than 0")),
    "margin without a metric": ("{ test_accuracy = 0.02 }", "0.02", ("[analysis]", "margin = 0.02")),
    "alpha 2": ("[analysis]", "[analysis]\nalpha = 2", ("[analysis]", "alpha = 2", "less than 1")),
    "alpha 0": ("[analysis]", "[analysis]\nalpha = 0", ("[analysis]", "alpha = 0", "greater than 0")),
    "unknown primary contrast": ('contrast = "before', 'contrast = "x', ("primary.contrast = 'x - none'", "before -")),
    "unknown primary metric": ('metric = "test_', 'metric = "', ("primary.metric", "'accuracy'", *METRICS)),
    "primary without metric": ('metric = "test_accuracy", ', "", ("[analysis]", "primary.metric", "missing")),
    "contrast of an unknown arm": ('["before -', '["after -', ("contrasts", "'after - none'", *ARMS)),
    "contrast of an arm with itself": ('["before - none"]', '["none - none"]', ("contrasts", "'none - none'", *ARMS)),
    "contrast without spaces": ('["before - none"]', '["before-none"]', ("contrasts", "'before-none'", *ARMS)),
    "contrast twice": ('["before', '["before - none", "before', ("contrasts", "before - none", "twice")),
    "arm of another order": ('"weight-bn-act" }', '"act" }', ("arms.before = 'act'", "weight-act, weight-bn-act")),
    "arm without a name": ("none = ", "' ' = ", ("[analysis] arms.' '", "can be printed")),
    "two arms with one order": ('"weight-bn-act" }', '"weight-act" }', ("[analysis] arms", "weight-act", "same order")),
    "exclude that is no list": ("# Which?", "exclude = 3", ("exclude", "list of tables")),
    "exclude of an unknown key": ("# Which?", "exclude = [{depht = 2}]", ("exclude", "depht", "depth")),
    "exclude of a value that is not there": ("# Which?", "exclude = [{depth = 3}]", ("exclude depth = 3", "depth 2")),
    "exclude of everything": ("# Which?", "exclude = [{depth = 2}]", ("exclude", "no cell")),
    "not TOML": ("[axes]", "[axes", ("not TOML", "line 2")),
}  # fmt: skip


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    """Everything is done in an empty folder with one grid."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "study.toml").write_text(TEXT)
    return tmp_path


@pytest.fixture
def refuse(monkeypatch, capsys):
    """Give a command and take its one line of complaint."""

    def refuse(*words):
        before = snapshot()
        monkeypatch.setattr(sys, "argv", ["normorder", *map(str, words)])
        with pytest.raises(SystemExit) as end:
            normorder.main()
        said = capsys.readouterr()
        return complaint(end.value.code, said.out, said.err, before)

    return refuse


def refuse_in_a_process(*words, start=("-m", "normorder"), **environment):
    """The same through the real command; where Ray keeps its sessions shows that it was not started."""
    before = snapshot()
    sessions = Path.cwd().with_name("sessions of ray")
    end = subprocess.run(
        [sys.executable, *start, *map(str, words)],
        capture_output=True,
        text=True,
        env={**os.environ, "RAY_TMPDIR": str(sessions), "PYTHONPATH": str(ROOT), **environment},
    )
    assert not sessions.exists()
    return complaint(end.returncode, end.stdout, end.stderr, before)


def complaint(code, out, err, before):
    assert "Traceback" not in err
    assert err.count("\n") == 1
    assert err.startswith("normorder: ")
    assert code == 2
    assert out == ""
    assert snapshot() == before
    return err


def snapshot():
    return {path: path.is_file() and path.read_bytes() for path in Path.cwd().rglob("*")}


def write_runs(store, order):
    """Finished runs of one arm."""
    cell = Cell(dataset="digits", architecture="mlp", order=order, activation="relu", depth=2, epochs=2)
    numbers = (
        "epochs_run",
        "train_examples",
        "val_examples",
        "test_examples",
        "classes",
        "best_epoch",
        "wall_s",
        "memory_bytes",
    )
    words = ("engine", "code", "data", "commit", "versions", "host", "device")
    columns = {
        **dict.fromkeys(METRICS, 0.5),
        **dict.fromkeys(numbers, 1),
        **dict.fromkeys(words, "any"),
        **cell.model_dump(),
        "run_id": [Run(cell, seed).run_id for seed in (0, 1)],
        "seed": [0, 1],
        "trial": order,
        "status": "done",
        "error": None,
        "memory_bytes": 1,
        "parameters": 1,
        "seed_block": 1,
        "started_at": datetime(2026, 1, 1, tzinfo=UTC),
    }
    Store(store).write({"runs": table("runs", columns)})


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_in_a_grid_is_one_line_that_names_it(refuse, here, mistake):
    old, new, words = MISTAKES[mistake]
    assert old in TEXT
    (here / "study.toml").write_text(TEXT.replace(old, new, 1))
    line = refuse("plan", here / "study.toml")
    assert [word for word in (f"{here}/study.toml: ", *words) if word not in line] == []


ADAPTIVE = TEXT.replace("count = 2", 'count = 2\nmax = 8\nstop = "decided"')


@pytest.mark.parametrize(
    ("old", "new", "why"),
    [
        (
            "margin    = { test_accuracy = 0.02 }",
            "",
            "needs [analysis] margin.test_accuracy: without it no equivalence can",
        ),
        ("margin    = { test_accuracy", "margin    = { test_loss", "needs [analysis] margin.test_accuracy: without it"),
        ('order        = ["weight-act", "weight-bn-act"]', 'order = ["weight-act"]', "there is nothing to decide"),
    ],
    ids=["no margin", "a margin for another metric", "one order"],
)
def test_adaptive_seeds_that_could_not_stop_say_why(refuse, here, old, new, why):
    text = ADAPTIVE.replace(old, new)
    assert text != ADAPTIVE
    if "nothing" in why:
        text = text.partition("[analysis]")[0]
    (here / "study.toml").write_text(text)
    assert f'study.toml: [seeds] stop = "decided": {why}' in refuse("plan", here / "study.toml")


def test_the_grid_without_a_mistake_can_be_planned(here, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["normorder", "plan", "study.toml"])
    with pytest.raises(SystemExit) as end:
        normorder.main()
    assert end.value.code == 0
    assert "2 cells × 2 seeds = 4 runs" in capsys.readouterr().out
    assert [path.name for path in here.iterdir()] == ["study.toml"]


@pytest.mark.parametrize("seeds", [0, -3])
def test_seeds_asked_for_must_be_positive(refuse, seeds):
    line = refuse("plan", "study.toml", "--seeds", seeds)
    assert f"{seeds}: should be greater than or equal to 1" in line


def test_a_grid_that_is_not_there_is_named(refuse):
    assert refuse("plan", "grids/nothing.toml") == "normorder: grids/nothing.toml: no such grid file\n"


def test_a_folder_is_not_a_grid(refuse, here):
    (here / "folder").mkdir()
    assert refuse("plan", "folder") == "normorder: folder: cannot be read: Is a directory\n"


@pytest.mark.parametrize("name", ["study.toml/below", "x" * 300])
def test_a_grid_that_cannot_be_is_named(refuse, name):
    assert refuse("plan", name).startswith(f"normorder: {name}: ")


def test_a_grid_must_be_utf_8(refuse, here):
    (here / "study.toml").write_bytes(TEXT.replace("Which", "Größe").encode("latin-1"))
    assert refuse("plan", "study.toml").startswith("normorder: study.toml: cannot be read: 'utf-8' codec can't decode")


def test_a_grid_may_not_be_binary(refuse, here):
    (here / "study.toml").write_bytes(bytes(100))
    assert refuse("plan", "study.toml").startswith("normorder: study.toml: not TOML: ")


@pytest.mark.parametrize("command", ["plan", "sweep", "report"])
def test_a_file_is_not_a_store(refuse, here, command):
    (here / "file").write_text("not a folder")
    line = refuse(command, "study.toml", "--store", "file")
    assert line == f"normorder: {here}/file: not a folder, so it cannot be a store\n"


def test_a_sweep_cannot_store_below_a_file(refuse, here):
    (here / "file").write_text("not a folder")
    line = refuse("sweep", "study.toml", "--store", "file/store")
    assert line == f"normorder: {here}/file: not a folder, so {here}/file/store cannot be a store\n"


def test_a_sweep_cannot_store_where_nothing_can_be_written(refuse):
    line = refuse("sweep", "study.toml", "--store", "/proc/nonexistent")
    assert line.startswith("normorder: /proc/nonexistent: cannot be written: ")


@pytest.mark.parametrize("command", ["plan", "sweep", "report"])
def test_the_name_of_a_store_may_not_be_too_long(refuse, command):
    assert "x" * 300 in refuse(command, "study.toml", "--store", "x" * 300)


@pytest.mark.parametrize("command", ["plan", "sweep", "report"])
def test_the_home_of_nobody_is_not_a_store(refuse, command):
    assert "~nobody-of-that-name" in refuse(command, "study.toml", "--store", "~nobody-of-that-name/store")


@pytest.mark.parametrize("command", ["plan", "sweep", "report"])
def test_a_file_of_the_store_that_is_broken_is_named(refuse, here, command):
    write_runs("store", "weight-act")
    [path] = here.glob("store/runs/*.parquet")
    path.write_bytes(path.read_bytes()[:-100])
    assert f"{path}: not a readable Parquet file: " in refuse(command, "study.toml", "--store", "store")


def data_files(folder, content):
    """A folder that has the four files of Fashion-MNIST by name only."""
    folder.mkdir()
    for name in fashion_mnist.FILES:
        (folder / name).write_bytes(content)


def with_data_set(here, name):
    (here / "study.toml").write_text(TEXT.replace('"digits"', f'"{name}"'))


damaged = bytearray(gzip.compress(bytes(range(256)) * 40))
damaged[20:60] = b"\xff" * 40


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (gzip.compress(b"other images"), "wrong checksum"),
        (gzip.compress(b"other images")[:-9], "cannot be read"),
        (bytes(damaged), "cannot be read"),
        (b"no archive", "cannot be read"),
        (b"", "wrong checksum"),
    ],
    ids=["other", "truncated", "damaged", "text", "empty"],
)
def test_a_data_file_that_is_not_the_published_one_is_named(refuse, here, monkeypatch, content, words):
    data_files(here / "data", content)
    monkeypatch.setenv("NORMORDER_DATA", str(here / "data"))
    with_data_set(here, "fashion_mnist")
    line = refuse("plan", "study.toml")
    assert str(here / "data" / next(iter(fashion_mnist.FILES))) in line
    assert words in line


def test_a_data_file_that_is_nowhere_is_named_with_what_to_do(here):
    with_data_set(here, "fashion_mnist")
    offline = f"""
from harness.datasets import fashion_mnist
import normorder, pathlib
fashion_mnist.DEBIAN = pathlib.Path({str(here)!r}, "debian")
fashion_mnist.SOURCE = "http://127.0.0.1:9/"  # the port named discard, which nobody serves
normorder.main()
"""
    data = here.with_name("data")
    line = refuse_in_a_process("plan", "study.toml", start=("-c", offline), NORMORDER_DATA=str(data))
    file = next(iter(fashion_mnist.FILES))
    for word in (file, f"{data}", f"{here}/debian", "$NORMORDER_DATA", "dataset-fashion-mnist"):
        assert word in line


@pytest.mark.parametrize("content", [b"no archive", b"", b"PK\x05\x06" + bytes(18)], ids=["text", "empty", "no arrays"])
def test_a_cached_data_set_that_is_damaged_is_named_with_what_to_do(refuse, here, monkeypatch, content):
    monkeypatch.setenv("NORMORDER_DATA", str(here))
    path = here / f"mnist1d-{mnist1d.VERSION}-{mnist1d.TRAIN}-{mnist1d.TEST}.npz"
    path.write_bytes(content)
    with_data_set(here, "mnist1d")
    line = refuse("plan", "study.toml")
    assert str(path) in line
    assert "delete it to have it made again" in line


def test_a_file_of_ones_own_is_planned_and_a_missing_one_is_named(refuse, here, monkeypatch, told):
    monkeypatch.setenv("NORMORDER_DATA", str(here))
    with_data_set(here, "npz:mine")
    assert refuse("plan", "study.toml").startswith(f"normorder: {here}/mine.npz: cannot be read: No such file")
    x, y = np.arange(1200.0).reshape(200, 6), np.arange(200) % 2
    np.savez(here / "mine.npz", x_train=x, y_train=y, x_test=x, y_test=y)
    code, out, _ = told("plan", "study.toml")
    assert (code, "2 cells × 2 seeds = 4 runs" in out) == (0, True)


def test_an_archive_of_cifar10_that_is_not_the_published_one_is_named(refuse, here, monkeypatch):
    monkeypatch.setenv("NORMORDER_DATA", str(here))
    (here / "cifar-10-binary.tar.gz").write_bytes(gzip.compress(b"other images"))
    with_data_set(here, "cifar10")
    assert f"{here}/cifar-10-binary.tar.gz: wrong checksum, so not the" in refuse("plan", "study.toml")


def test_a_place_for_data_that_cannot_be_written_is_named(refuse, here, monkeypatch):
    monkeypatch.setenv("NORMORDER_DATA", str(here / "study.toml"))
    with_data_set(here, "mnist1d")
    assert str(here / "study.toml") in refuse("plan", "study.toml")


@pytest.mark.parametrize("store", ["store", "results/data/study"])
def test_a_report_on_an_empty_store_says_so(refuse, here, store):
    (here / store).mkdir(parents=True)
    line = refuse("report", "study.toml", *(["--store", store] if store == "store" else []))
    assert f"{here / store}: " in line
    assert "empty" in line


def test_a_report_on_a_single_arm_says_which(refuse, here):
    write_runs("store", "weight-act")
    line = refuse("report", "study.toml", "--store", "store")
    assert f"{here / 'store'}: " in line
    assert "'none'" in line


def test_a_report_on_the_runs_of_another_grid_says_so(refuse, here):
    write_runs("store", "weight-act-bn")
    line = refuse("report", "study.toml", "--store", "store")
    assert f"{here / 'store'}: " in line
    assert "no finished run of study" in line


@pytest.mark.parametrize("words", [["--seed", "3"], ["--seeds", "some"], ["one.toml", "two.toml"]])
def test_a_command_that_is_misspelt_has_exit_code_2_and_no_traceback(monkeypatch, capsys, words):
    monkeypatch.setattr(sys, "argv", ["normorder", "plan", *words])
    with pytest.raises(SystemExit) as end:
        normorder.main()
    said = capsys.readouterr().err
    assert end.value.code == 2
    assert words[0] in said or words[1] in said
    assert "Traceback" not in said


@pytest.mark.parametrize("command", ["plan", "sweep"])
def test_the_real_command_refuses_a_grid_before_ray_starts(here, command):
    (here / "study.toml").write_text(TEXT.replace('"weight-act"', '"weight"', 1))
    line = refuse_in_a_process(command, here / "study.toml")
    assert f"{here}/study.toml: [axes] order = 'weight': " in line


def test_the_real_sweep_refuses_a_store_before_ray_starts(here):
    line = refuse_in_a_process("sweep", here / "study.toml", "--store", here / "study.toml" / "store")
    assert f"{here}/study.toml: not a folder" in line


def test_the_real_sweep_refuses_a_batch_before_ray_starts(here):
    (here / "study.toml").write_text(TEXT.replace("epochs = 2", "batch = 9999"))
    assert "batch = 9999: larger than the training part of digits" in refuse_in_a_process("sweep", "study.toml")


def test_the_real_report_refuses_an_empty_store(here):
    assert "the store is empty" in refuse_in_a_process("report", here / "study.toml")
