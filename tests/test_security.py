"""Hostile files: what is read is not run, what is named lies where it should, what is downloaded is what it should be."""

import ast
import gzip
import json
import os
import pickle
import shutil
import subprocess
import sys
import zipfile
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import numpy as np
import pooch
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from simulated import exactly, fill, planted, read_grid

import normorder
from harness.datasets import cifar10, fashion_mnist, mnist1d
from results import Store

ROOT = Path(normorder.__file__).parent
SOURCES = [
    ROOT / "normorder.py",
    *(p for room in ("grids", "harness", "results", "reports") for p in (ROOT / room).rglob("*.py")),
]


@pytest.fixture
def here(tmp_path, monkeypatch):
    """An empty folder, in which commands write."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("NORMORDER_DATA", str(tmp_path / "data"))
    return tmp_path


@pytest.fixture
def study(here):
    """A grid file and its store, of two arms."""
    grid = read_grid(here, seeds=6)
    return here / "simulated.toml", fill(Store(here / "store"), planted(grid, {"relu": exactly(6, 0.05, 0.01)}))


# Pickle


class Act:
    """Makes a file where it is unpickled."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return Path.touch, (Path(self.path),)


@pytest.fixture
def bomb(here):
    """A pickle that leaves a trace, which must not be there after the test."""
    content = pickle.dumps(Act(here / "trace"))
    yield content
    assert not (here / "trace").exists()


def test_a_pickle_that_is_read_would_leave_its_trace(tmp_path):
    pickle.loads(pickle.dumps(Act(tmp_path / "trace")))
    assert (tmp_path / "trace").exists()


def everything_reads(told, grid, store):
    """Run every command that reads a store, or plans by it; their exit codes."""
    return [
        told(*words)[0]
        for words in (
            ("validate", store.path, grid),
            ("status", store.path, grid),
            ("plan", grid, "--store", store.path),
            ("report", grid, "--store", store.path),
            ("export", grid, "--store", store.path, "--format", "csv"),
            ("merge", store.path, "merged"),
            ("compact", store.path),
        )
    ]


def rewritten(store, change):
    """Each file of `runs` of a store written again, its table being changed."""
    for path in store.files("runs"):
        pq.write_table(change(pq.read_table(path)), path, write_page_checksum=True)


def test_a_pickled_type_in_the_schema_of_a_file_is_not_read(study, told, bomb):
    grid, store = study
    about = {b"ARROW:extension:name": b"arrow.py_extension_type", b"ARROW:extension:metadata": bomb}

    def change(rows):
        fields = [field.with_metadata({**(field.metadata or {}), **about}) for field in rows.schema]
        return rows.cast(pa.schema(fields, rows.schema.metadata))

    rewritten(store, change)
    assert everything_reads(told, grid, store) == [1, *[0] * 6]  # simulated runs have no curves, which validate tells


def test_types_that_are_named_for_pandas_are_not_evaluated(study, told, bomb, here):
    grid, store = study
    words = f"__import__('pathlib').Path({str(here / 'trace')!r}).touch()"
    columns = [{"name": "host", "field_name": "host", "pandas_type": words, "numpy_type": words, "metadata": words}]
    about = {"index_columns": [words], "column_indexes": columns, "columns": columns, "pandas_version": "2"}

    def change(rows):
        return rows.replace_schema_metadata({**rows.schema.metadata, b"pandas": json.dumps(about), b"pickle": bomb})

    rewritten(store, change)
    assert everything_reads(told, grid, store) == [1, *[0] * 6]  # simulated runs have no curves, which validate tells


@pytest.mark.parametrize("table", ["runs", "curves", "examples"])
def test_a_pickle_in_place_of_a_file_is_not_read(study, told, bomb, table):
    grid, store = study
    (store.path / table).mkdir(exist_ok=True)
    for name in ("a.parquet", f".{table}.tmp"):
        (store.path / table / name).write_bytes(bomb)
    (store.path / ".store-mark").write_bytes(bomb)
    assert set(everything_reads(told, grid, store)) <= {0, 1, 2}


@pytest.mark.parametrize("what", ["a pickle", "arrays of pickles"])
def test_a_pickle_in_place_of_a_generated_data_set_is_not_read(here, told, bomb, what):
    path = here / "data" / f"mnist1d-{mnist1d.VERSION}-{mnist1d.TRAIN}-{mnist1d.TEST}.npz"
    path.parent.mkdir()
    if what == "a pickle":
        path.write_bytes(bomb)
    else:
        objects = np.array([Act(here / "trace")], dtype=object)
        names = ("x_train", "y_train", "x_test", "y_test", "sha256")
        np.savez(path, **dict.fromkeys(names, objects), allow_pickle=True)
    code, _, errors = told("plan", ROOT / "grids" / "default.toml")
    assert (code, errors.count("\n")) == (2, 1)
    assert "delete it to have it made again" in errors


def test_a_pickle_in_place_of_a_downloaded_data_set_is_not_read(here, told, bomb):
    (here / "data").mkdir()
    for name in fashion_mnist.FILES:
        (here / "data" / name).write_bytes(gzip.compress(bomb))
    code, _, errors = told("plan", ROOT / "grids" / "fashion_mnist.toml")
    assert (code, errors.count("\n")) == (2, 1)
    assert "wrong checksum" in errors


@pytest.mark.parametrize("what", ["a pickle", "arrays of pickles", "pickles as members", "one array of pickles"])
def test_a_pickle_in_place_of_a_file_of_ones_own_is_not_read(here, told, bomb, what):
    path = here / "data" / "mine.npz"
    path.parent.mkdir()
    arrays = {
        "x_train": np.ones((20, 3)),
        "y_train": np.arange(20) % 2,
        "x_test": np.ones((4, 3)),
        "y_test": np.arange(4) % 2,
    }
    if what == "a pickle":
        path.write_bytes(bomb)
    elif what == "pickles as members":
        with zipfile.ZipFile(path, "w") as packed:
            for name in arrays:
                packed.writestr(f"{name}.npy", bomb)
    else:
        objects = np.array([Act(here / "trace")] * 20, dtype=object)
        changed = dict.fromkeys(arrays, objects) if what == "arrays of pickles" else {"classes": objects}
        np.savez(path, **arrays | changed, allow_pickle=True)
    code, out, errors = told("plan", grid_with(here / "g.toml", dataset="npz:mine"))
    assert (code, out, errors.count("\n")) == (2, "", 1)
    assert errors.startswith(f"normorder: {path}: cannot be read: ")


def test_a_pickle_in_place_of_a_grid_or_of_claims_is_not_read(study, told, bomb, here):
    grid, store = study
    (here / "pickle.toml").write_bytes(bomb)
    for words in (
        ("plan", here / "pickle.toml"),
        ("report", grid, "--store", store.path, "--claims", here / "pickle.toml"),
    ):
        code, _, errors = told(*words)
        assert (code, errors.count("\n")) == (2, 1)


UNPICKLE = {"pickle", "_pickle", "cPickle", "marshal", "shelve", "dill", "cloudpickle", "joblib"}
RUN = {"eval", "exec", "compile", "__import__", "execfile"}
RUN_OF = {("torch", "load"), ("pd", "read_pickle"), ("pandas", "read_pickle"), ("os", "system"), ("os", "popen")}
# Between two processes of ours, over a pipe that nobody else has, or by Ray, which pickles all that it sends.
MAY_RUN = {"harness/plugins.py": ["exec", "compile"]}  # files that a user names with --plugin, whose hash is checked
MAY_UNPICKLE = {"harness/apart.py", "harness/sweep.py"}


def runs_what_it_reads(path):
    """Imports and calls of a file that could run what is read, in words."""
    found = []
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import | ast.ImportFrom):
            names = {alias.name for alias in node.names} | {getattr(node, "module", "") or ""}
            found += sorted({name.partition(".")[0] for name in names} & UNPICKLE)
        elif isinstance(node, ast.Call):
            options = {word.arg: getattr(word.value, "value", None) for word in node.keywords}
            if isinstance(node.func, ast.Name) and node.func.id in RUN:
                found.append(node.func.id)
            elif isinstance(node.func, ast.Attribute) and isinstance(node.func.value, ast.Name):
                call = (node.func.value.id, node.func.attr)
                if call in RUN_OF or (
                    call[1] == "load" and call[0] in ("np", "numpy") and options.get("allow_pickle") is not False
                ):
                    found.append(".".join(call))
            if options.get("shell"):
                found.append("shell=True")
    return found


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(ROOT)))
def test_no_module_runs_what_it_reads(path):
    here = str(path.relative_to(ROOT))
    assert runs_what_it_reads(path) == (["pickle"] if here in MAY_UNPICKLE else MAY_RUN.get(here, []))


@pytest.mark.parametrize(
    "line",
    ["import pickle", "from joblib import load", "eval('1')", "import numpy as np\nnp.load(p)", "torch.load(p)",
     "run(a, shell=True)"],
)  # fmt: skip
def test_what_runs_what_it_reads_is_seen(tmp_path, line):
    (tmp_path / "a.py").write_text(line)
    assert len(runs_what_it_reads(tmp_path / "a.py")) == 1


# Grids

HOSTILE = (
    "__import__('pathlib').Path('trace').touch()", "$(touch trace)", "`touch trace`", "; touch trace", "| touch trace",
    "../../trace", "/etc/passwd", "..", "os", "x\0y", "x\ny", "x\u001b[2J", "{{7*7}}", "{trace!r}", "%s%n", "<script>",
    "a'b\"c", "__init__", "digits/../digits", "digits.py", "٣", "x" * 5000, "npz", "npz:", "npz:../digits",
    "npz:/etc/passwd", "npz:.hidden", "npz:a b", "npz:a\nb", "npz:a:b", "digits:mine", "_files",
)  # fmt: skip
TEXT = """# {question}
[axes]
dataset      = [{dataset}]
architecture = [{architecture}]
order        = ["weight-act", {order}]
activation   = [{activation}]
depth        = [1]
[recipe]
epochs = 1
schedule = {schedule}
[seeds]
count = 2
[analysis]
arms      = {{ {arm} = "weight-act", before = "weight-bn-act" }}
contrasts = [{contrast}]
"""
SOUND = {
    "question": "Which?", "dataset": '"digits"', "architecture": '"mlp"', "order": '"weight-bn-act"', "activation": '"relu"',
    "schedule": '"cosine"', "arm": '"none"', "contrast": '"before - none"',
}  # fmt: skip


def grid_with(path, **texts):
    """A grid whose fields are these texts."""
    given = {name: json.dumps(text) for name, text in texts.items()}  # strings of JSON are strings of TOML
    path.write_text(TEXT.format(**{**SOUND, **given}), encoding="utf-8")
    return path


@pytest.mark.parametrize("text", HOSTILE, ids=lambda text: ascii(text)[:20])
@pytest.mark.parametrize("field", [name for name in SOUND if name not in ("question", "arm")])
def test_a_hostile_value_in_a_grid_is_refused_in_a_line(here, told, field, text):
    code, out, errors = told("plan", grid_with(here / "g.toml", **{field: text}))
    assert (code, out, errors.count("\n")) == (2, "", 1)
    assert errors.startswith(f"normorder: {here}/g.toml: ")
    assert errors.strip().isprintable()
    assert [path.name for path in here.rglob("*")] == ["g.toml"]


NAMES = (
    "$(touch trace)", "`touch trace`", "; touch trace", "a'b", 'a"b', "a b", "$x", "$(shell touch trace)", "--help", "*",
    "a#b",
)  # fmt: skip


@pytest.fixture
def made(here):
    """`make` in a folder with this project's Makefile, and this program as what it has installed."""
    for name in ("Makefile", "pyproject.toml", "constraints.txt"):
        shutil.copy(ROOT / name, here)
    program = here / ".venv" / "bin" / "normorder"
    program.parent.mkdir(parents=True)
    program.write_text(f'#!/bin/sh\nPYTHONPATH="{ROOT}" exec "{sys.executable}" -m normorder "$@"\n')
    program.chmod(0o755)
    (here / ".venv" / "installed").touch()

    def make(target, *words, **environment):
        given = {**os.environ, **environment}
        return subprocess.run(
            ["make", target, *words], cwd=here, env=given, capture_output=True, text=True, check=False
        )

    return make


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("typed", [True, False], ids=["typed", "in the environment"])
def test_make_takes_a_hostile_path_as_it_is(here, made, name, typed):
    grid, store = grid_with(here / f"{name}.toml"), here / "stores" / name
    given = {"GRID": str(grid), "STORE": str(store)}
    done = made("plan", *(f"{k}={v}" for k, v in given.items())) if typed else made("plan", **given)
    assert (done.returncode, done.stderr) == (0, "")
    assert f"store {store}\n" in done.stdout
    assert not list(here.rglob("trace"))


# Downloads


@pytest.fixture
def wrong_server(tmp_path, monkeypatch):
    """A server on loopback that has other files in place of each data set's source; they are nowhere else."""
    served = tmp_path / "served"
    served.mkdir()
    for name in (*fashion_mnist.FILES, "cifar-10-binary.tar.gz"):
        (served / name).write_bytes(gzip.compress(b"other"))

    class Quiet(SimpleHTTPRequestHandler):
        def log_message(self, *_):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(served)))
    Thread(target=server.serve_forever, daemon=True).start()
    address = f"http://127.0.0.1:{server.server_port}/"
    monkeypatch.setattr(fashion_mnist, "SOURCE", address)
    monkeypatch.setattr(cifar10, "SOURCE", f"{address}cifar-10-binary.tar.gz")
    monkeypatch.setattr(fashion_mnist, "DEBIAN", tmp_path / "nowhere")
    yield server
    server.shutdown()
    server.server_close()


@pytest.mark.parametrize("dataset", ["fashion_mnist", "fashion14", "cifar10"])
def test_a_wrong_download_is_refused_in_a_line_and_not_kept(here, told, wrong_server, dataset):
    for _ in range(2):  # the second time as the first: nothing was kept
        code, out, errors = told("plan", grid_with(here / "g.toml", dataset=dataset))
        assert (code, out, errors.count("\n")) == (2, "", 1)
        assert "its download failed (ValueError)" in errors
    assert [path for path in (here / "data").rglob("*") if path.is_file()] == []


def test_a_right_download_would_be_taken(here, wrong_server, monkeypatch):
    name = next(iter(fashion_mnist.FILES))
    monkeypatch.setitem(fashion_mnist.FILES, name, (pooch.file_hash(here / "served" / name), ""))
    assert fashion_mnist._find(name).read_bytes() == (here / "served" / name).read_bytes()


def test_every_address_in_the_code_is_fetched_with_a_checksum():
    fetching = [path.name for path in SOURCES if "import pooch" in path.read_text()]
    assert fetching == ["_files.py"]
    others = ("urllib.request", "requests", "http.client", "urlopen", "urlretrieve", "download_url", "fetch_openml")
    assert [path for path in SOURCES if any(word in path.read_text() for word in others)] == []
    assert all(len(sha) == 64 for pair in fashion_mnist.FILES.values() for sha in pair)
    assert len(cifar10.SHA256) == 64
    using = {path.name for path in SOURCES if "find_or_download(" in path.read_text()}
    assert using == {"_files.py", "fashion_mnist.py", "cifar10.py"}
