"""Architectures, activations and data sets from files elsewhere: known everywhere, recorded, refused if they break rules."""

import base64
import hashlib
import json
import math
import os
import subprocess
import sys
import zlib
from pathlib import Path

import numpy as np
import pytest

import harness
from grids import Cell
from harness import datasets, plugins
from harness.architectures import build
from harness.conformance import acts_alone
from harness.engine import bits_need_one_seed
from harness.initialisation import ACTIVATIONS, gain, parse
from harness.plan import code_version
from harness.plugins import PluginError
from harness.replay import find, replay
from harness.training import train
from harness.values import saturation
from results import Store

MIXER = '''"""Mixes space and channels in turn."""

from torch import nn

from harness.architectures import dimensions
from harness.layers import block, network

CONVOLUTIONS = True
UNITS = 2


def build(cell, shape, classes):
    kernels = [(size,) * dimensions(cell, shape) for size in (3, 1)]
    blocks = [nn.Sequential(*(block(cell, cell.width, cell.width, k) for k in kernels)) for _ in range(cell.depth)]
    return network(cell, shape, classes, nn.Sequential(*blocks), cell.width, kernels[0])
'''
SQUAREPLUS = '''"""(x + sqrt(x² + b)) / 2."""

import torch
from torch import nn

GAIN = 1.2
PARAMETER = 4.0


class Squareplus(nn.Module):
    def __init__(self, b):
        super().__init__()
        self.b = b

    def forward(self, x):
        return (x + torch.sqrt(x * x + self.b)) / 2


def activation(parameter):
    return Squareplus(parameter)
'''
DATA = '''"""Two classes apart."""

import numpy as np

from harness.datasets import Examples


def load():
    y = np.arange(120) % 2
    x = np.random.default_rng(0).normal(size=(120, 4)) + y[:, None]
    return Examples(x[:80], y[:80], x[80:], y[80:], classes=2)
'''
TAKEN = {"architectures": ("mlp",), "datasets": ("digits",), "activations": tuple(ACTIVATIONS)}
GRID = """
[axes]
dataset = ["digits"]
architecture = ["{architecture}"]
order = ["weight-bn-act", "weight-act-bn"]
activation = ["{activation}"]
depth = [1]
[recipe]
epochs = 1
width = 8
batch = 64
[seeds]
count = 5
"""


@pytest.fixture(autouse=True)
def forgotten(monkeypatch):
    """No plug-in is known at first, and none is left."""
    monkeypatch.setenv(plugins.VARIABLE, "")


@pytest.fixture
def written(tmp_path):
    def write(name: str, text: str) -> Path:
        (tmp_path / f"{name}.py").write_text(text, encoding="utf-8")
        return tmp_path / f"{name}.py"

    return write


def grid_of(folder, architecture="mlp", activation="relu"):
    (folder / "g.toml").write_text(GRID.format(architecture=architecture, activation=activation))
    return folder / "g.toml"


def test_plugins_are_among_the_choices_and_can_be_used(written):
    plugins.add([written("mixer_a", MIXER), written("squareplus_a", SQUAREPLUS), written("apart_a", DATA)], TAKEN)
    choices = harness.choices()
    assert "mixer_a" in choices["architecture"]
    assert "apart_a" in choices["dataset"]
    assert choices["activation"]["squareplus_a"] == 4.0
    assert parse("squareplus_a") == ("squareplus_a", 4.0)
    assert gain("squareplus_a:2.0") == 1.2
    assert harness.units("mixer_a") == 2
    cell = Cell(dataset="apart_a", architecture="mixer_a", order="weight-bn-act", activation="squareplus_a", depth=2)
    assert "Squareplus" in str(build(cell, (1, 8), 3))
    assert len(datasets.load("apart_a").x_train) == 72
    assert bits_need_one_seed(cell.model_copy(update={"width": 5}), True, (3,))


def test_the_code_of_a_run_is_that_of_its_plugins_and_of_no_others(written):
    before = code_version("mlp"), code_version("mlp", "relu")
    plugins.add([written("squareplus_b", SQUAREPLUS), written("mixer_b", MIXER)], TAKEN)
    versions = code_version("mlp", "squareplus_b"), code_version("mixer_b", "relu")
    assert (code_version("mlp"), code_version("mlp", "relu")) == before
    assert len({*before, *versions}) == 3
    code_version.cache_clear()
    plugins.add([written("squareplus_b", SQUAREPLUS + "\n# another\n")], TAKEN)
    assert code_version("mlp", "squareplus_b") != versions[0]
    assert code_version("mixer_b", "relu") == versions[1]


def test_processes_that_are_started_know_them_and_check_what_they_got(written):
    plugins.add([written("squareplus_c", SQUAREPLUS)], TAKEN)
    asks = "import harness; print(harness.choices()['activation']['squareplus_c'])"
    command = [sys.executable, "-c", asks]
    told = subprocess.run(command, capture_output=True, text=True, check=True, cwd=harness.HERE.parent)
    assert told.stdout == "4.0\n"
    sent = json.loads(zlib.decompress(base64.b64decode(os.environ[plugins.VARIABLE])))
    sent[0][-1] += "# changed on the way"
    changed = base64.b64encode(zlib.compress(json.dumps(sent).encode())).decode()
    environment = {**os.environ, plugins.VARIABLE: changed}
    told = subprocess.run(
        command, capture_output=True, text=True, check=False, cwd=harness.HERE.parent, env=environment
    )
    assert told.returncode
    assert "the plug-in squareplus_c is not the one that was sent: its SHA-256 is another" in told.stderr


@pytest.mark.parametrize(
    ("name", "text", "why"),
    [
        ("mixer", "x = 1\n", "must define build (an architecture), load (a data set) or activation, one of them"),
        ("mixer", "def build(): pass\ndef load(): pass\n", "it defines build and load"),
        ("mixer", "def build(:\n", "is no Python: "),
        ("mlp", MIXER, "there is a architecture mlp already; name the file otherwise"),
        ("relu", SQUAREPLUS, "there is a activation relu already"),
        ("Mixer", MIXER, "its name must be that of a module: lower case letters"),
        ("squareplus", SQUAREPLUS.replace("GAIN = 1.2", ""), "an activation states GAIN = a number"),
        ("squareplus", SQUAREPLUS.replace("GAIN = 1.2", "GAIN = 1 / 2"), "GAIN must be a plain value, as 1.5 or True"),
        ("squareplus", SQUAREPLUS.replace("GAIN = 1.2", "GAIN = True"), "an activation states GAIN = a number above 0"),
        ("squareplus", SQUAREPLUS.replace("PARAMETER = 4.0", "PARAMETER = 'b'"), "PARAMETER must be a number"),
        ("squareplus", SQUAREPLUS + "SATURATED = -2.0\n", "SATURATED must be up to where and from where on"),
        ("large", MIXER + "# " + base64.b64encode(os.urandom(200_000)).decode(), "plug-ins are too large: "),
    ],
    ids=["nothing", "two things", "no Python", "a taken name", "a taken activation", "no module", "no gain",
         "a computed gain", "a truth for a gain", "a word for a parameter", "one end", "too large"],
)  # fmt: skip
def test_a_file_that_is_no_plugin_says_why(written, name, text, why):
    with pytest.raises(PluginError) as error:
        plugins.add([written(name, text)], TAKEN)
    assert why.replace("a architecture", "an architecture").replace("a activation", "an activation") in str(error.value)
    assert "\n" not in str(error.value)


def test_two_files_of_one_name_are_told_apart(written, tmp_path):
    (tmp_path / "other").mkdir()
    other = tmp_path / "other" / "mixer_e.py"
    other.write_text(MIXER + "# another\n")
    with pytest.raises(PluginError, match="another plug-in has the name mixer_e, too; name one of the files otherwise"):
        plugins.add([written("mixer_e", MIXER), other], TAKEN)


def test_saturation_is_known_of_a_plugin_that_states_it(written, blobs):
    stated = SQUAREPLUS + "SATURATED = (-0.5, None)\n"
    plugins.add([written("squareplus_g", SQUAREPLUS), written("squareplus_h", stated)], TAKEN)
    assert saturation("squareplus_g") is None
    assert saturation("squareplus_h") == (-0.5, math.inf)
    assert saturation("squareplus_h:1.0") is None  # it is stated of the default
    shares = {}
    for name in ("squareplus_g", "squareplus_h"):
        cell = Cell(dataset="x", architecture="mlp", order="weight-act", activation=name, depth=1, epochs=1, batch=30)
        (probe,) = train(cell, [0, 1], blobs(), probes=[1]).probes
        shares[name] = probe.numbers["saturated"][probe.sites.index((1, "act"))]
    assert np.isnan(shares["squareplus_g"]).all()
    assert ((shares["squareplus_h"] > 0) & (shares["squareplus_h"] < 1)).all()


SMOOTH = {
    "swish_f": "x * torch.sigmoid(self.b * x)", "mish_f": "nn.functional.mish(x)", "elu_f": "nn.functional.elu(x, self.b)"
}  # fmt: skip


@pytest.mark.parametrize("name", SMOOTH)
def test_activations_whose_kernels_end_otherwise_are_no_less_good(written, name):
    plugins.add([written(name, SQUAREPLUS.replace("(x + torch.sqrt(x * x + self.b)) / 2", SMOOTH[name]))], TAKEN)
    acts_alone(name)


@pytest.mark.parametrize(
    ("name", "load", "why"),
    [
        ("raises", "raise KeyError('x')", "load() failed: KeyError: 'x'"),
        ("tuples", "return (1, 2)", "must give harness.datasets.Examples, not tuple"),
    ],
)
def test_a_data_set_that_is_none_is_named(written, name, load, why):
    plugins.add([written(name, f"def load():\n    {load}\n")], TAKEN)
    with pytest.raises(datasets.DataError) as error:
        datasets.load(name)
    assert why in str(error.value)


def test_a_file_that_is_not_there_is_one_line(told):
    code, out, errors = told("plan", "--plugin", "no/such.py")
    assert (code, out, errors) == (2, "", "normorder: no/such.py: cannot be read: No such file or directory\n")


def before_kernels(line: str) -> str:
    return MIXER.replace("    kernels", f"    {line}\n    kernels", 1)


BROKEN = {
    "fails to import": (
        "import no_such_module\n" + MIXER, "cannot be imported: ModuleNotFoundError: No module named 'no_such_module'"),
    "wrong shape": (
        MIXER.replace("shape, classes, nn", "shape, classes + 1, nn"), "(seeds, classes, batch) = (3, 5, 6) is due"),
    "ignores the order": (
        before_kernels('cell = cell.model_copy(update={"order": "weight-act"})'),
        "with weight-bn-act a block runs weight-act"),
    "global randomness": (before_kernels("import torch; torch.rand(1)"), "global generator of torch"),
}  # fmt: skip


@pytest.mark.parametrize("what", BROKEN)
def test_an_architecture_that_breaks_a_rule_is_refused_by_name_before_a_sweep(written, told, tmp_path, what):
    text, why = BROKEN[what]
    name = f"mixer_{what.split()[0]}"
    for command in ("plan", "sweep"):
        grid, store = grid_of(tmp_path, architecture=name), tmp_path / "store"
        code, _, errors = told(command, grid, "--plugin", written(name, text), "--store", store)
        assert code == 2
        assert errors.startswith(f"normorder: plug-in {name}: ")
        assert why in errors
        assert errors.count("\n") == 1
        assert not store.exists()


@pytest.mark.parametrize(
    ("old", "new", "why"),
    [
        ("/ 2", "/ 2 * x.mean()", "does not act on each number alone"),
        ("/ 2", "/ 2 + torch.rand(1)", "does not act on each number alone"),
        ("return (x +", "return x[0] + (x[0] +", "gives (4, 4) for (4, 4, 4)"),
        ("self.b = b", "self.b = nn.Parameter(torch.ones(1))", "has weights"),
        ("self.b = b", "self.b = b; self.register_buffer('calls', torch.zeros(1))", "has weights or buffers"),
        ("/ 2", "/ (2 if self.training else 3)", "does not act in the same way each time, and in evaluation"),
    ],
    ids=["a mean", "random", "another shape", "weights", "buffers", "evaluation"],
)
def test_an_activation_that_does_more_than_act_on_a_number_is_refused(written, told, tmp_path, request, old, new, why):
    name = f"odd_{request.node.callspec.id.replace(' ', '_')}"
    path = written(name, SQUAREPLUS.replace(old, new).replace("x * x", "x[0] * x[0]" if "[0]" in new else "x * x"))
    code, _, errors = told("plan", grid_of(tmp_path, activation=name), "--plugin", path, "--store", tmp_path / "store")
    assert (code, why in errors) == (2, True), errors


def test_a_sweep_with_plugins_trains_them_in_workers_and_its_runs_can_be_replayed(written, tmp_path):
    paths = [written("mixer_d", MIXER), written("squareplus_d", SQUAREPLUS)]
    grid, store = grid_of(tmp_path, "mixer_d", "squareplus_d"), tmp_path / "store"
    options = [word for path in paths for word in ("--plugin", str(path))]
    environment = {**os.environ, "PYTHONPATH": str(harness.HERE.parent)}

    def normorder(*words):
        command = [sys.executable, "-m", "normorder", *map(str, words)]
        return subprocess.run(command, capture_output=True, text=True, check=False, env=environment, cwd=tmp_path)

    told = normorder("sweep", grid, "--store", store, *options)
    assert told.returncode == 0, told.stderr
    assert "10 done, 0 diverged, 0 failed" in told.stdout
    assert f"--plugin {paths[0]} --plugin {paths[1]}" in told.stdout.splitlines()[-1]
    runs = Store(store).read("runs")
    plugins.add(paths, TAKEN)
    assert set(runs["code"].to_pylist()) == {code_version("mixer_d", "squareplus_d")}
    found = replay(find(Store(store), runs["run_id"][0].as_py()), datasets.load)
    assert (found.differences, found.reasons) == ({}, [])
    alone = normorder("replay", runs["run_id"][0].as_py(), "--store", store)
    why = "there is no architecture mixer_d here; name its file with --plugin if it was one"
    assert (alone.returncode, alone.stderr) == (2, f"normorder: {why}\n")
    assert normorder("report", grid, "--store", store, "--out", tmp_path / "report", *options).returncode == 0
    page = (tmp_path / "report" / "index.html").read_text()
    for path in paths:
        kind = "architecture" if path == paths[0] else "activation"
        assert f"{path.name} ({kind}), SHA-256 {hashlib.sha256(path.read_bytes()).hexdigest()[:16]}…" in page
    without = normorder("report", grid, "--store", store)
    assert without.returncode == 2
    assert "there is no such architecture" in without.stderr
