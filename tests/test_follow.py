"""How far a sweep is, while it goes on: rate, time left, first results, and never a verdict."""

import io
import re

import pytest
from rich.console import Console
from simulated import AFTER, fill, read_grid, run

from normorder_follow import Progress, picture
from reports.so_far import so_far
from reports.words import VERDICTS
from results import Store
from results.overview import overview


@pytest.fixture
def half(tmp_path):
    """tanh has 5 of 6 pairs, of which one diverged; relu has 2; a failed run."""
    grid = read_grid(tmp_path, ("relu", "tanh"), seeds=6)
    rows = []
    for cell in grid.cells():
        for seed in range(5 if cell.activation == "tanh" else 2):
            shift = {"relu": 0.2, "tanh": -0.1}[cell.activation] + 0.001 * seed
            rows.append(run(cell, seed, test_accuracy=0.5 + shift * (cell.order == AFTER)))
    rows[0] |= {"status": "failed"}
    rows[-1] |= {"status": "diverged"}
    return grid, fill(Store(tmp_path / "store"), rows)


def test_first_results_have_intervals_and_enough_pairs_and_no_verdict(half):
    [line] = so_far(*half, 5)
    assert line.startswith("tanh: −")
    assert line.endswith("], n = 5")
    assert not any(verdict in line for verdict in VERDICTS)
    assert so_far(*half, 0) == []


def test_there_is_nothing_to_tell_of_a_store_without_pairs(tmp_path, half):
    assert so_far(half[0], Store(tmp_path / "nothing"), 5) == []


def test_the_largest_differences_come_first(tmp_path):
    grid = read_grid(tmp_path, ("relu", "tanh", "elu"), seeds=3)
    shift = {"relu": 0.01, "tanh": -0.2, "elu": 0.1}
    rows = [
        run(cell, s, test_accuracy=0.5 + (shift[cell.activation] + 0.001 * s) * (cell.order == AFTER))
        for cell in grid.cells()
        for s in range(3)
    ]
    lines = so_far(grid, fill(Store(tmp_path / "store"), rows), 2)
    assert [line.partition(":")[0] for line in lines] == ["tanh", "elu"]


def test_the_rate_is_of_what_ended_while_it_was_watched(half):
    times = iter([0.0, 0.0, 4.0])
    progress = Progress(lambda: next(times))
    found = overview(*half)
    assert progress.words(found) == "runs 14/24, diverged 1, failed 1"
    later = found._replace(total={**found.total, "done": found.total["done"] + 2, "missing": 8})
    assert progress.words(later) == "runs 16/24, diverged 1, failed 1, 0.5 runs/s, 0:16 left"


def test_the_picture_has_progress_by_what_varies_reasons_and_first_results(half):
    grid, store = half
    console = Console(width=100, file=io.StringIO())
    console.print(picture(grid, store, overview(grid, store), height=30))
    text = console.file.getvalue()
    assert re.search(r"activation relu +━{8}╌{16} +4/12 +1 failed", text)
    assert re.search(r"activation tanh +━{20}╌{4} +10/12 +1 diverged", text)
    assert "1 failed: no reason recorded" in text
    assert "so far, after − before, 95 % intervals each on its own; verdicts come at the end:\n  tanh: −" in text


def test_on_a_low_terminal_values_give_way_to_reasons_and_results(tmp_path):
    grid = read_grid(tmp_path, ("relu", "tanh", "elu", "gelu", "silu", "selu"), seeds=3)
    rows = [
        run(cell, s, test_accuracy=0.5 + 0.001 * s * (cell.order == AFTER)) for cell in grid.cells() for s in range(3)
    ]
    rows[0] |= {"status": "failed"}
    store = fill(Store(tmp_path / "store"), rows)
    console = Console(width=100, file=io.StringIO())
    console.print(picture(grid, store, overview(grid, store), height=14))
    lines = console.file.getvalue().splitlines()
    assert len(lines) == 14
    assert lines[6].strip() == "and 2 more values"
    assert lines[7] == "1 failed: no reason recorded"
    assert sum("n = 3" in line for line in lines) == 5  # the pair of the failed run is none


def test_a_store_that_is_not_there_yet_is_waited_for(told, tmp_path, monkeypatch):
    grid = read_grid(tmp_path, ("relu",), seeds=3)
    slept = []

    def sleep(seconds):
        slept.append(seconds)
        if len(slept) == 2:
            fill(Store(tmp_path / "store"), [run(cell, s) for cell in grid.cells() for s in range(3)])

    monkeypatch.setattr("normorder_follow.time.sleep", sleep)
    code, out, errors = told("status", tmp_path / "store", tmp_path / "simulated.toml", "--follow")
    assert (code, errors, slept) == (0, "", [5.0, 5.0])
    waiting, done = out.splitlines()
    assert waiting == f"waiting for {tmp_path / 'store'}: no sweep has written there yet"
    assert done.startswith("runs 6/6")


def test_without_a_terminal_it_is_a_line_where_something_changed(half, told, tmp_path, monkeypatch):
    grid, store = half
    looked = []

    def sleep(seconds):
        looked.append(seconds)
        if len(looked) == 2:
            fill(store, [run(cell, s) for cell in grid.cells() for s in range(6)], trial=lambda _: "rest")

    monkeypatch.setattr("normorder_follow.time.sleep", sleep)
    code, out, errors = told("status", store.path, tmp_path / "simulated.toml", "--follow", "--every", "0.2")
    assert (code, errors) == (0, "")
    first, last = out.splitlines()
    assert first == "runs 14/24, diverged 1, failed 1"
    assert last.startswith("runs 24/24, diverged 1, failed 0")
    assert len(looked) == 2
    assert all(each >= 0.2 for each in looked)
