"""The README and the pages of the rooms say what is there."""

import ast
import math
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import typer
from simulated import fill, run

import example
import harness
import normorder
from grids import Cell, Grid, Run
from reports.words import VERDICTS
from results import METRICS, SCHEMAS, Store, table
from results.protocol import expected

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()


def tracked() -> list[str]:
    listed = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=False)
    return listed.stdout.splitlines()


def tree_paths() -> list[str]:
    """Paths of the README's file tree, folders with a slash at the end."""
    tree = re.search(r"## What is where\n\n```\n(.*?)```", README, re.S).group(1)
    paths, folder = [], ""
    for line in tree.splitlines():
        if "(not in git)" in line:
            continue
        name = line.split()[0] if line.strip() else ""
        if not line.startswith(" "):
            folder = name if name.endswith("/") else ""
            paths.append(name)
        elif line.startswith("  ") and not line.startswith("   "):
            paths.append(folder + name)
    return [path for path in paths if path]


def test_the_file_tree_names_what_exists():
    assert [path for path in tree_paths() if not (ROOT / path).exists()] == []


def test_the_file_tree_leaves_no_tracked_file_out():
    if not tracked():
        pytest.skip("not in a git checkout")
    paths = tree_paths()
    folders = tuple(path for path in paths if path.endswith("/") and path.count("/") > 1)
    told = (*folders, "tests/test_")  # "a file for each module"
    rest = [path for path in tracked() if path not in paths and not path.startswith(told)]
    assert [path for path in rest if not path.endswith("__init__.py")] == []


def test_every_make_target_of_the_readme_exists():
    targets = set(re.findall(r"make (\w+)", README))
    rules = set(re.findall(r"^(\w+):", (ROOT / "Makefile").read_text(), re.M))
    assert targets <= rules | {"and"}


def test_the_names_in_the_readme_are_the_choices():
    text = re.search(r"Activations: (.*?)\n\n", README, re.S).group(1)
    ours = {Path(path).stem for path in tracked()}  # what a user adds need not stand in the README
    choices = harness.choices()
    for kind in ("activation", "architecture", "dataset"):
        for name in choices[kind] if kind == "activation" else ours & set(choices[kind]):
            assert re.search(rf"\b{name}\b", text), name


def test_the_table_of_grids_counts_their_runs():
    rows = re.findall(r"\| `(grids/\w+\.toml)` \|.*\| ([\d,]+) \|", README)
    assert sorted(path for path, _ in rows) == sorted(f"grids/{p.name}" for p in (ROOT / "grids").glob("*.toml"))
    for path, runs in rows:
        grid = Grid.read(ROOT / path, {**harness.choices(), "metric": METRICS})
        assert sum(map(len, expected(grid))) == int(runs.replace(",", "")), path


def field_table() -> str:
    """The table of cell fields in grids/README.md, from the model."""
    lines = ["| field | default | meaning |", "|---|---|---|"]
    for name, info in Cell.model_fields.items():
        shown = str(info.default).lower() if isinstance(info.default, bool) else info.default  # as TOML has it
        default = "required" if info.is_required() else f"`{shown}`"
        lines.append(f"| `{name}` | {default} | {info.description} |")
    return "\n".join(lines)


def test_the_table_of_cell_fields_is_that_of_the_model():
    assert field_table() in (ROOT / "grids" / "README.md").read_text()


def column_tables() -> str:
    """The tables of columns in results/README.md, from the schema."""
    parts = []
    for name, schema in SCHEMAS.items():
        parts.append(f"### {name}\n\n| column | type | unit | meaning |\n|---|---|---|---|")
        for field in schema:
            about = {key.decode(): value.decode() for key, value in field.metadata.items()}
            parts.append(f"| `{field.name}` | {field.type} | {about.get('unit', '')} | {about['meaning']} |")
        parts.append("")
    return "\n".join(parts)


def test_the_tables_of_columns_are_those_of_the_schema():
    assert column_tables() in (ROOT / "results" / "README.md").read_text()


@pytest.fixture
def with_example(tmp_path):
    """A copy of this project with the README's architecture in it, as a user would put it."""
    copy = tmp_path / "copy"
    copy.mkdir()
    for name in ("grids", "harness", "results", "reports", "tests", "pyproject.toml"):
        source = ROOT / name
        ignore = shutil.ignore_patterns("data", "build", "__pycache__", "published")
        if source.is_dir():
            shutil.copytree(source, copy / name, ignore=ignore)
        else:
            shutil.copy(source, copy / name)
    source = re.search(r"```python\n(.*?)```", README, re.S).group(1)
    (copy / "harness" / "architectures" / "funnel.py").write_text(source)
    return copy


def test_the_architecture_of_the_readme_passes_the_tests_that_it_is_said_to_pass(with_example):
    command = [sys.executable, "-m", "pytest", "-q", "-k", "funnel and (relu or maxout or not activation)"]
    files = ["tests/test_architectures.py", "tests/test_stacking.py"]
    environment = {**os.environ, "PYTHONPATH": str(with_example)}
    tried = subprocess.run(
        [*command, *files], cwd=with_example, env=environment, capture_output=True, text=True, check=False
    )
    assert tried.returncode == 0, tried.stdout[-3000:]
    assert " passed" in tried.stdout or "[100%]" in tried.stdout


def test_the_slurm_job_is_bash():
    subprocess.run(["bash", "-n", ROOT / "harness" / "slurm.sh"], check=True)


def blocks(heading: str, language: str) -> list[str]:
    """The code of a section of the README."""
    section = README.partition(f"\n## {heading}\n")[2].partition("\n## ")[0]
    return re.findall(rf"```{language}\n(.*?)```", section, re.S)


@pytest.fixture
def with_default(tmp_path, monkeypatch):
    """A folder with a store of the default study, of a few simulated runs."""
    grid = Grid.read(ROOT / "grids" / "default.toml", {**harness.choices(), "metric": METRICS})
    cells = [cell for cell in grid.cells() if cell.depth == 2]
    fill(Store(tmp_path / "results" / "data" / "default"), [run(cell, seed) for cell in cells for seed in range(2)])
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_what_the_readme_says_of_python_and_sql_runs(with_default, capsys):
    python = blocks("In Python and SQL", "python")
    assert len(python) == 3
    names: dict = {}
    for text in python:
        *rest, last = ast.parse(text).body
        exec(compile(ast.Module(rest, []), "README", "exec"), names)
        if isinstance(last, ast.Expr):
            names["answer"] = eval(compile(ast.Expression(last.value), "README", "eval"), names)
        else:
            exec(compile(ast.Module([last], []), "README", "exec"), names)
            assert len(names["runs"]) == 36
    assert "weight-bn-act" in capsys.readouterr().out  # what DuckDB shows
    assert sorted(names["answer"]["order"].unique()) == ["weight-act", "weight-act-bn", "weight-bn-act"]
    assert names["answer"]["test_accuracy"].to_list() == [0.5] * 18


def test_the_example_answers_its_question(with_default, capsys):
    grid = Grid.read(ROOT / "grids" / "default.toml", {**harness.choices(), "metric": METRICS})
    rows = [run(cell, seed) for cell in grid.cells() if cell.depth == 2 for seed in range(2)]

    def curves(name, rows):
        columns = {column: [] for column in SCHEMAS["curves"].names}
        for row in rows:
            speed = 2 if row["cell"].order == "weight-bn-act" else 1
            for epoch in range(21):
                values = {
                    "run_id": Run(row["cell"], row["seed"]).run_id, "trial": name, "epoch": epoch, "split": "val",
                    "accuracy": min(1.0, speed * epoch / 20),
                }  # fmt: skip
                for column in columns:
                    columns[column].append(values.get(column))
        return table("curves", columns)

    fill(Store("curved"), rows, curves=curves)
    example.main(str(ROOT / "grids" / "default.toml"), "curved")
    first, second, _ = capsys.readouterr().out.split("\n\n", 2)
    assert first.startswith("epochs until weight-act-bn is as good as weight-bn-act at the end")
    assert {line.split()[-1] for line in first.splitlines()[2:]} == {"20"}
    assert {line.split()[-1] for line in second.strip().splitlines()[2:]} == {"10"}


def test_the_commands_of_the_readme_are_commands():
    shown = set(re.findall(r"normorder ([a-z]+(?:-[a-z]+)*)", README)) - {"report"}
    known = {each.name or each.callback.__name__ for each in typer.main.get_group(normorder.app).commands.values()}
    assert {word for word in shown if word not in known} <= {"plan", "answers"}


def test_the_sweeps_of_the_readme_can_be_planned(told, monkeypatch):
    monkeypatch.chdir(ROOT)
    for line in "\n".join(blocks("Commands", "sh")).splitlines():
        words = line.replace(".venv/bin/normorder sweep ", "").split()
        code, out, errors = told("plan", *words, "--rehearse", "0", "--store", "no/such/store")
        assert (code, errors) == (0, ""), line
        assert "cells" in out


def test_the_page_on_statistics_has_every_verdict():
    page = (ROOT / "reports" / "STATISTICS.md").read_text()
    assert re.findall(r"^\| (\w+) \| ", page.partition("## Verdicts")[2].partition("## ")[0], re.M)[1:] == list(
        VERDICTS
    )


def test_the_numbers_of_the_example_of_an_activation_are_what_they_are_said_to_be():
    page = (ROOT / "harness" / "README.md").read_text()
    gain, low = (float(re.search(rf"^{name} = \(?([-\d.]+)", page, re.M)[1]) for name in ("GAIN", "SATURATED"))
    assert gain == pytest.approx(1 / math.sqrt((2 + 4.0) / 4), abs=1e-4)
    assert (1 + low / math.sqrt(low**2 + 4)) / 2 == pytest.approx(1 - 0.97**2, abs=1e-5)
