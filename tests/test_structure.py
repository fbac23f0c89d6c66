"""The four rooms: imports point one way, reading needs no torch, and files say of themselves what is so."""

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

import harness
from grids import Cell
from harness.architectures import build
from harness.layers import Weight

ROOT = Path(__file__).parent.parent
ROOMS = ("grids", "results", "harness", "reports")
SOURCES = sorted(path for room in ROOMS for path in (ROOT / room).rglob("*.py"))
MAY_IMPORT = {
    "grids": {"grids"},
    "results": {"grids", "results"},
    "harness": {"grids", "results", "harness"},
    "reports": {"grids", "results", "reports"},
}
UNFINISHED = re.compile("TO" + "DO|FIX" + "ME|@" + "@")  # in parts, since this file is tracked too
HOME = re.compile(r"/(home|root|Users)/\w")


def relative(path):
    return str(path.relative_to(ROOT))


def imported(path):
    """First names of all modules that a file imports, wherever in the file."""
    names = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            names.add(node.module.partition(".")[0])
    return names


def tracked():
    """Files of this checkout that git tracks; skips outside git."""
    listed = subprocess.run(["git", "-C", str(ROOT), "ls-files", "-z"], capture_output=True, text=True)
    if listed.returncode:
        pytest.skip("not a git checkout")
    return [ROOT / name for name in listed.stdout.split("\0") if name and (ROOT / name).is_file()]


@pytest.mark.parametrize("path", SOURCES, ids=relative)
def test_imports_point_down(path):
    room = path.relative_to(ROOT).parts[0]
    assert imported(path) & {*ROOMS, "normorder"} <= MAY_IMPORT[room]


@pytest.mark.parametrize("path", SOURCES, ids=relative)
def test_only_what_needs_a_cluster_imports_ray(path):
    assert ("ray" in imported(path)) == (relative(path) in ("harness/cluster.py", "harness/sweep.py"))


def test_the_command_does_not_import_ray_itself():
    assert "ray" not in imported(ROOT / "normorder.py")


def test_only_the_command_imports_all_rooms():
    assert imported(ROOT / "normorder.py") >= set(ROOMS)
    assert [relative(path) for path in SOURCES if imported(path) >= set(ROOMS)] == []


def test_grids_need_only_pydantic_and_the_standard_library():
    assert imported(ROOT / "grids" / "__init__.py") - sys.stdlib_module_names == {"pydantic"}


@pytest.mark.parametrize(
    "module",
    ["grids", "results", "harness", "harness.plan", "harness.datasets", "reports", "reports.comparisons", "normorder"],
)
def test_a_module_that_trains_nothing_needs_neither_torch_nor_ray(module):
    code = f"import sys, {module}; print([name for name in ('torch', 'ray') if name in sys.modules])"
    answer = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    assert answer.stdout.strip() == "[]"


@pytest.mark.parametrize("name", harness.names("architectures"))
def test_an_architecture_states_whether_it_convolves(name):
    tree = ast.parse((ROOT / "harness" / "architectures" / f"{name}.py").read_text(encoding="utf-8"))
    stated = [t.id for node in tree.body if isinstance(node, ast.Assign) for t in node.targets]
    assert "CONVOLUTIONS" in stated


@pytest.mark.parametrize("shape", [(1, 16), (3, 16, 16)])
@pytest.mark.parametrize("name", harness.names("architectures"))
def test_what_an_architecture_states_of_its_convolutions_is_true(name, shape):
    cell = Cell(dataset="any", architecture=name, order="weight-bn-act", activation="relu", depth=3, width=4)
    weights = [layer for layer in build(cell, shape, classes=5).modules() if isinstance(layer, Weight)]
    assert weights
    assert harness.convolves(name) == any(layer.kernel for layer in weights)


@pytest.mark.parametrize(("words", "what"), [(UNFINISHED, "unfinished work"), (HOME, "somebody's home")])
def test_no_tracked_file_mentions_unfinished_work_or_a_home(words, what):
    found = []
    for path in tracked():
        content = path.read_bytes()
        text = "" if b"\0" in content else content.decode("utf-8", errors="ignore")  # numbers spell anything
        found += [f"{relative(path)}: {match.group()}" for match in words.finditer(text)]
    assert not found, what


def test_what_the_program_writes_is_not_tracked():
    written = ("results/data/", "reports/build/")
    assert [relative(path) for path in tracked() if relative(path).startswith(written)] == []
