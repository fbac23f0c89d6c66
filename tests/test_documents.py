"""What the pages show of a terminal happens: commands run in a copy of the project, in order, and print what is shown.

A line `…` stands for any lines, and … in a line for anything. A block of Python or TOML is the file that the lines
before it name, if they name one. Of commands that take minutes, or a cluster, only the words are tried.
"""

import contextlib
import os
import re
import shlex
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import typer
from typer.main import get_command

import harness
import normorder
from grids import Grid
from harness.new import GRID
from reports import ledger
from results import METRICS

ROOT = Path(__file__).parents[1]
FOLDERS = ("*.md", "[ghr]*/*.md", "results/published/*.md")
PAGES = {str(path.relative_to(ROOT)): path.read_text() for folder in FOLDERS for path in ROOT.glob(folder)}
ENDINGS = {"python": "py", "toml": "toml"}
LANGUAGES = {"console", "sh", "", *ENDINGS}


def fenced(page: str) -> list[tuple[str, str, str]]:
    """The paragraph before each block of a page, its language, and the block."""
    found, before, gap, block, language = [], "", False, None, ""
    for line in PAGES[page].splitlines(keepends=True):
        if line.startswith("```") and block is None:
            block, language = "", line.strip("`\n")
        elif line.startswith("```"):
            found.append((before, language, block))
            block = None
        elif block is not None:
            block += line
        elif line.strip():
            before, gap = line if gap else before + line, False
        else:
            gap = True
    return found


def consoles() -> list[str]:
    return [page for page in PAGES if any(language == "console" for _, language, _ in fenced(page))]


@pytest.fixture(scope="module")
def project(tmp_path_factory):
    """A copy of this project, with a command `normorder`, and a store of its smoke grid."""
    copy = tmp_path_factory.mktemp("project")
    for name in ("grids", "harness", "results", "reports"):
        shutil.copytree(ROOT / name, copy / name, ignore=shutil.ignore_patterns("data", "build", "__pycache__"))
    for path in [*ROOT.glob("*.py"), *ROOT.glob("*.toml")]:
        shutil.copy(path, copy)
    (copy / "bin").mkdir()
    command = copy / "bin" / "normorder"
    command.write_text(f'#!/bin/sh\nexec {sys.executable} -m normorder "$@"\n')
    command.chmod(0o755)
    assert told(copy, "normorder sweep grids/smoke.toml").splitlines()[-1] == "next: normorder report grids/smoke.toml"
    return copy


def told(folder: Path, command: str) -> str:
    """What a command prints, with the folder's path as /tmp."""
    paths = f"{folder / 'bin'}{os.pathsep}{os.environ['PATH']}"
    environment = {**os.environ, "PATH": paths, "PYTHONPATH": str(folder), "NORMORDER_PLUGINS": ""}
    words = command.replace("/tmp/", f"{folder}/tmp/")
    tried = subprocess.run(
        words, shell=True, cwd=folder, env=environment, capture_output=True, text=True, check=False, timeout=500
    )
    lines = [line.rstrip() for line in (tried.stdout + tried.stderr).splitlines()]
    return "\n".join(lines).replace(f"{folder}/tmp/", "/tmp/").replace(f"{folder}/", "")


def matches(shown: str, printed: str) -> bool:
    """Whether it is what was printed, but for what … stands for."""
    rest, anything = printed.strip("\n").splitlines(), False
    for line in shown.strip("\n").splitlines():
        if line == "…":
            anything = True
            continue
        pattern = re.escape(line).replace("…", ".*")
        while anything and rest and not re.fullmatch(pattern, rest[0]):
            rest.pop(0)
        if not rest or not re.fullmatch(pattern, rest.pop(0)):
            return False
        anything = False
    return anything or not rest


def test_what_is_left_out_is_matched_and_nothing_else():
    assert matches("a\n…\nb", "a\nb")
    assert matches("a\n…\nb", "a\nx\ny\nb")
    assert matches("a … s\n…", "a 12 s\nb")
    assert not matches("a\n…\nb", "a\nx\nc")
    assert not matches("a … s", "a 12 s\nb")
    assert not matches("a.", "ab")


@pytest.mark.parametrize("page", consoles())
def test_a_page_shows_what_its_commands_print(project, page, tmp_path):
    copy = tmp_path / "copy"
    shutil.copytree(project, copy)
    for before, language, text in fenced(page):
        if language in ENDINGS and (named := re.findall(rf"`([\w/]+\.{ENDINGS[language]})`", before)):
            (copy / named[-1]).write_text(text)
        if language != "console":
            continue
        for command, shown in re.findall(r"^\$ (.*)\n((?:(?!\$ ).*\n)*)", text, re.M):
            printed = told(copy, command)
            assert matches(shown, printed), f"{page}: {command}\n{printed}"


def test_blocks_are_of_kinds_that_are_tried():
    assert {language for page in PAGES for _, language, _ in fenced(page)} <= LANGUAGES
    assert {page for page in PAGES if PAGES[page].count("\n```") != 2 * len(fenced(page))} == set()


def test_blocks_of_toml_are_parts_of_grids_or_claims(tmp_path):
    for page in PAGES:
        for _, language, text in fenced(page):
            if language != "toml":
                continue
            (tmp_path / "block.toml").write_text(text)
            if "[[claim]]" in text:
                assert len(ledger.read(tmp_path / "block.toml")) == text.count("[[claim]]")
                continue
            base = GRID.format(dataset="mnist1d", architecture="mlp")
            for table in tomllib.loads(text):
                base = re.sub(rf"^\[{table}\].*?(?=^\[|\Z)", "", base, flags=re.M | re.S)
            (tmp_path / "block.toml").write_text(f"{base}\n{text}")
            Grid.read(tmp_path / "block.toml", {**harness.choices(), "metric": METRICS})


def commands() -> list[tuple[str, str]]:
    """Every command of a page, in a block or between backquotes: 'normorder plan grids/smoke.toml'."""
    found = []
    for page, text in PAGES.items():
        for line in re.findall(r"`(normorder [^`]+)`|^(?:\$ )?(?:\.venv/bin/)?(normorder .*)$", text, re.M):
            found.append((page, "".join(line)))
    return found


@pytest.mark.parametrize(("page", "command"), commands())
def test_every_command_of_a_page_can_be_asked(page, command):
    """Its name, options and number of words are right; what they name need not be there."""
    group = get_command(normorder.app)
    name, *words = shlex.split(command.replace("…", "x"), comments=True)[1:]
    assert name in group.commands, command
    made = group.commands[name]
    for parameter in made.params:
        parameter.callback = None
    with contextlib.suppress(typer.Exit):  # of --help
        made.make_context(name, words)
