"""Compiled graphs are run as they are found, so a folder where others can write is not used."""

import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest
from torch._inductor import codecache

from harness import graphs
from harness.step import NotCompiled

ROOT = Path(__file__).parents[1]


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path / "data" / "compiled"))
    for name in ("_HEADER_DIR", "_HEADER_LOCK_DIR"):
        monkeypatch.setattr(codecache, name, getattr(codecache, name))
    return tmp_path / "data" / "compiled"


@pytest.fixture
def open_umask():
    before = os.umask(0)
    yield
    os.umask(before)


def mode(path):
    return stat.S_IMODE(path.stat().st_mode)


def test_the_folder_is_made_for_this_user_alone_whatever_the_umask(folder, open_umask):
    graphs.guard()
    assert mode(folder) == 0o700
    graphs.guard()


def test_a_folder_that_a_group_may_write_to_is_closed(folder):
    folder.mkdir(parents=True)
    folder.chmod(0o775)
    graphs.guard()
    assert mode(folder) == 0o700


def test_a_folder_that_everybody_may_write_to_is_not_used(folder):
    folder.mkdir(parents=True)
    folder.chmod(0o777)
    with pytest.raises(NotCompiled, match="compiled: others can write there, and what lies there is run; remove it"):
        graphs.guard()


def test_the_folder_of_somebody_else_is_not_used(folder):
    if os.geteuid() != 0:
        pytest.skip("only root can give a folder away")
    folder.mkdir(parents=True, mode=0o700)
    os.chown(folder, 12345, 12345)
    with pytest.raises(NotCompiled, match="others can write there"):
        graphs.guard()


def test_a_folder_that_cannot_be_made_is_told(folder):
    folder.parent.touch()
    with pytest.raises(NotCompiled, match="File exists"):
        graphs.guard()


def test_what_torch_compiles_lies_in_the_folder_alone(folder, tmp_path):
    code = "import torch; from harness import graphs; graphs.guard(); torch.compile(lambda x: x + 1)(torch.ones(3))"
    (tmp_path / "tmp").mkdir()
    environment = {**os.environ, "TMPDIR": str(tmp_path / "tmp"), "PYTHONPATH": str(ROOT)}
    subprocess.run([sys.executable, "-c", code], env=environment, cwd=tmp_path, check=True)
    assert list((tmp_path / "tmp").iterdir()) == []  # where anybody could have made it
    assert list((folder / "precompiled_headers").glob("*.gch"))
