"""What commands do with damaged, foreign and odd stores: a line that names the file, exit code 2, nothing changed."""

import hashlib
import itertools
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from simulated import fill, planted, read_grid

import normorder
from results import SCHEMAS, Store

# Names that shells, HTML or the store's own naming might trip over.
ODD_NAMES = ("a b", "a'; x", 'a"b', "a\nb", "a\\b", "-x", "$(touch hit)", "ä ö", "<b>", "x" * 200, "#", "a,b=c")


@pytest.fixture
def grid(tmp_path):
    return read_grid(tmp_path, seeds=2)


@pytest.fixture
def store(tmp_path, grid):
    return fill(Store(tmp_path / "store"), planted(grid, {"relu": [0.0, 0.0]}))


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    """Commands run in `tmp_path`, where the grid is."""
    monkeypatch.chdir(tmp_path)


def content(folder):
    """Every file below a folder with a hash of its bytes."""
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(Path(folder).rglob("*"))
        if path.is_file()
    }


def rewritten(path, change):
    """A file with its table changed."""
    pq.write_table(change(pq.read_table(path)), path)


def as_type(column, kind):
    def change(rows):
        index = rows.schema.get_field_index(column)
        return rows.set_column(index, column, pa.array([kind(0)] * len(rows)))

    return lambda path: rewritten(path, change)


def with_seed_twice(rows):
    return rows.append_column(rows.schema.field("seed"), rows["seed"])


DAMAGES = {
    "an empty file": lambda path: path.write_bytes(b""),
    "a half": lambda path: path.write_bytes(path.read_bytes()[: path.stat().st_size // 2]),
    "no end": lambda path: path.write_bytes(path.read_bytes()[:-1]),
    "no beginning": lambda path: path.write_bytes(path.read_bytes()[4:]),
    "a text": lambda path: path.write_text("run_id,trial\n1,2\n"),
    "zeros": lambda path: path.write_bytes(bytes(path.stat().st_size)),
    "a flipped bit": lambda path: path.write_bytes(bytes([*(b := path.read_bytes())[:60], b[60] ^ 1, *b[61:]])),
    "a link to nothing": lambda path: (path.unlink(), path.symlink_to("nowhere.parquet")),
    "a link to itself": lambda path: (path.unlink(), path.symlink_to(path.name)),
    "a folder": lambda path: (path.unlink(), path.mkdir()),
    "a later schema": lambda path: rewritten(path, lambda rows: rows.replace_schema_metadata({"schema_version": "99"})),
    "no schema version": lambda path: rewritten(path, lambda rows: rows.replace_schema_metadata(None)),
    "a column twice": lambda path: rewritten(path, with_seed_twice),
    "a foreign table": lambda path: pq.write_table(pa.table({"a": [1]}), path),
    "numbers as texts": as_type("seed", lambda _: "none"),
    "ids as lists": as_type("run_id", lambda _: [1]),
    "metrics as texts": as_type("test_loss", lambda _: "low"),
}


NOT_READ = {("plan", "numbers as texts"), ("plan", "metrics as texts")}  # a plan reads neither seeds nor metrics
READ = itertools.product(["report", "plan", "status", "compact", "merge"], DAMAGES)


@pytest.mark.parametrize(("command", "damage"), [each for each in READ if each not in NOT_READ])
def test_a_damaged_file_is_named_in_a_line_and_nothing_is_changed(tmp_path, store, told, command, damage):
    path = store.files("runs")[0]
    DAMAGES[damage](path)
    before = content(store.path)
    words = {
        "report": ("simulated.toml", "--store", store.path),
        "plan": ("simulated.toml", "--store", store.path),
        "status": (store.path, "simulated.toml"),
        "compact": (store.path,),
        "merge": (store.path, tmp_path / "into"),
    }[command]
    code, _, errors = told(command, *words)
    assert code == 2, errors
    assert errors.startswith("normorder: ")
    assert errors.count("\n") == 1
    assert path.name in errors
    assert content(store.path) == before
    assert not list((tmp_path / "into").rglob("*.parquet"))


@pytest.mark.parametrize("damage", DAMAGES)
def test_validate_lists_a_damaged_file_and_repair_moves_it_aside(store, told, damage):
    path = store.files("runs")[0]
    DAMAGES[damage](path)
    code, out, _ = told("validate", store.path)
    assert code == 1
    assert str(path) in out
    code, out, _ = told("validate", store.path, "simulated.toml")
    assert (code, str(path) in out) == (1, True)
    others = set(content(store.path)) - {str(path.relative_to(store.path))}
    code, out, _ = told("validate", "--repair", store.path)
    assert not os.path.lexists(path)
    assert others <= set(content(store.path))
    assert len(list((store.path / "set-aside" / "runs").iterdir())) == 1
    code, out, _ = told("plan", "simulated.toml", "--store", store.path)
    assert code == 0
    assert "to do 2" in out


@pytest.mark.parametrize("name", ODD_NAMES)
def test_a_store_may_have_any_name_that_a_folder_can_have(tmp_path, store, told, name):
    odd = tmp_path / name
    store.path.rename(odd)
    words = ["--", f"./{name}"] if name.startswith("-") else [odd]
    code, out, errors = told("validate", *words)
    assert (code, errors) == (1, "")  # simulated runs have no curves
    code, out, errors = told("status", *words, "simulated.toml")
    assert (code, errors) == (0, "")
    assert "4" in out
    assert told("merge", *words, tmp_path / "into")[0] == 0
    assert len(content(tmp_path / "into")) == len(content(odd)) + 1  # and what was merged
    assert not (tmp_path / "hit").exists()


def test_a_table_that_is_a_link_to_another_place_is_read_and_never_emptied(tmp_path, store, told):
    elsewhere = tmp_path / "elsewhere"
    (store.path / "runs").rename(elsewhere)
    (store.path / "runs").symlink_to(elsewhere)
    before = content(elsewhere)
    assert told("status", store.path, "simulated.toml")[0] == 0
    assert told("merge", store.path, tmp_path / "into")[0] == 0
    assert content(elsewhere) == before


@pytest.mark.parametrize("command", ["status", "validate", "compact", "merge"])
@pytest.mark.parametrize("store", ["", ".", "nowhere", "x" * 300, "~nobody-of-this-name/store", "simulated.toml"])
def test_what_is_no_store_is_told_in_a_line(tmp_path, grid, told, command, store):
    words = {"status": (store, "simulated.toml"), "merge": (store, "into")}.get(command, (store,))
    code, out, errors = told(command, *words)
    assert (code, out) == (2, "")
    assert errors.startswith("normorder: ")
    assert errors.count("\n") == 1
    assert not (tmp_path / "into").exists()


@pytest.mark.parametrize("command", ["status", "validate", "compact", "merge", "plan"])
@pytest.mark.parametrize("way", ["file", "nowhere", "runs"])
def test_a_table_that_is_no_folder_is_told_in_a_line(tmp_path, store, told, command, way):
    (store.path / "runs").rename(tmp_path / "elsewhere")
    (store.path / "runs").symlink_to(way)
    (store.path / "file").write_text("text")
    (tmp_path / "into").mkdir()
    words = {"status": (store.path, "simulated.toml"), "merge": (store.path, "into")}
    words["plan"] = ("simulated.toml", "--store", store.path)
    code, _, errors = told(command, *words.get(command, (store.path,)))
    assert code == 2
    assert errors.startswith(f"normorder: {store.path}/runs: ")
    assert errors.count("\n") == 1
    assert content(tmp_path / "into") == {}


@pytest.mark.parametrize("column", ["engine", "epochs", "seed_block", "code", "started_at", "lr", "trial"])
def test_rows_without_a_value_are_told_or_read(tmp_path, store, told, column):
    for path in store.files("runs"):
        field = SCHEMAS["runs"].field(column)
        index = SCHEMAS["runs"].get_field_index(column)
        rewritten(path, lambda rows, i=index, f=field: rows.set_column(i, f, pa.nulls(len(rows), f.type)))
    assert told("validate", store.path)[0] == 1
    assert told("plan", "simulated.toml", "--store", store.path)[0] == 0
    assert told("status", store.path, "simulated.toml")[0] == 0
    assert told("merge", store.path, tmp_path / "into")[0] == 0
    assert told("compact", store.path)[0] == 0


def test_a_conflict_at_an_unknown_time_is_told(tmp_path, store, told):
    for number, path in enumerate(store.files("runs")):
        rows = pq.read_table(path)
        field, loss = rows.schema.field("started_at"), rows.schema.get_field_index("test_loss")
        rows = rows.set_column(rows.schema.get_field_index("started_at"), field, pa.nulls(len(rows), field.type))
        pq.write_table(rows.set_column(loss, "test_loss", pa.array([float(number)] * len(rows))), path)
        shutil.copy(path, path.with_name(f"{number:016x}-{number:016x}.parquet"))
        pq.write_table(rows.set_column(loss, "test_loss", pa.array([number + 0.5] * len(rows))), path)
    code, out, _ = told("merge", store.path, tmp_path / "into")
    assert code == 1
    assert "at an unknown time: test_loss 0.0" in out


def test_a_ledger_that_is_no_text_is_as_good_as_none(tmp_path, store, told):
    ledger = tmp_path / "into" / ".merged"
    (ledger / "folder.txt").mkdir(parents=True)
    (ledger / "bytes.txt").write_bytes(b"\xff\xfe")
    assert told("merge", store.path, tmp_path / "into")[0] == 0
    assert len(Store(tmp_path / "into").read("runs")) == 4


def test_stores_that_cannot_be_written_are_told_before_anything_is_read(tmp_path, store, told):
    (tmp_path / "file").write_text("text")
    for words in (("merge", store.path, tmp_path / "file" / "into"), ("merge", store.path, "/proc/store")):
        code, _, errors = told(*words)
        assert code == 2
        assert errors.count("\n") == 1


def test_a_pipe_in_place_of_a_file_does_not_hang_a_command(tmp_path, store):
    path = store.files("runs")[0]
    path.unlink()
    os.mkfifo(path)
    words = [sys.executable, "-m", "normorder", "status", str(store.path), str(tmp_path / "simulated.toml")]
    root = Path(normorder.__file__).parent
    done = subprocess.run(words, cwd=root, capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 2
    assert path.name in done.stderr


def test_every_table_of_the_schema_is_checked(store, told):
    for name in SCHEMAS:
        folder = store.path / name
        folder.mkdir(exist_ok=True)
        (folder / "0123456789abcdef-0123456789abcdef.parquet").write_bytes(b"PAR1")
        code, out, _ = told("validate", store.path)
        assert code == 1
        assert f"{folder}/0123456789abcdef-0123456789abcdef.parquet: not a readable Parquet file" in out
