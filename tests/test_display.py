"""Progress: a live picture on a terminal, plain lines elsewhere."""

import io
import re
import threading

import pytest
from rich.console import Console
from rich.text import Text

from harness import display as module
from harness.display import Display, clock, rest_s
from results import StoreError


def shown(terminal: bool) -> str:
    """What is printed while three trials of 5, 5 and 2 seeds run, the first ten times the work of the others."""
    out = io.StringIO()
    with Display([5, 5, 2], [10.0, 1.0, 1.0], Console(file=out, force_terminal=terminal, width=120)) as display:
        for number in range(3):
            display.trial_started(number)
        display.trial_ended(0, {"done": 5})
        assert display.ended == 5
        display.trial_ended(1, {"done": 3, "diverged": 2})
        display.trial_ended(2, {"failed": 2})
        assert display.counts == {"done": 8, "diverged": 2, "failed": 2}
    return out.getvalue()


def test_where_there_is_no_terminal_the_last_line_has_the_sums():
    last = shown(terminal=False).splitlines()[-1]
    assert last.startswith("runs 12/12, running 0, diverged 2, failed 2, ")
    assert "\x1b" not in last


def test_a_terminal_shows_a_bar_with_the_sums():
    text = shown(terminal=True)
    assert "12/12" in text
    assert "diverged 2, failed 2" in text
    assert "\x1b[?25l" in text  # it is drawn again and again, without a cursor


@pytest.fixture
def looking(monkeypatch):
    """Shows a display whose picture is asked for every 10 ms, until it has been so often; gives what is on the terminal."""
    monkeypatch.setattr(module, "LOOK_EVERY_S", 0.01)
    monkeypatch.setattr(module, "rest_s", lambda took_s: 0.01)

    def show(picture, looks: int) -> str:
        often, heights = threading.Semaphore(0), []

        def asked(height):
            heights.append(height)
            often.release()
            return picture(len(heights))

        out = io.StringIO()
        console = Console(file=out, force_terminal=True, width=100, height=30)
        with Display([5], [1.0], console, asked) as display:
            for _ in range(looks):
                assert often.acquire(timeout=60)
            display.live.refresh()
            during = out.getvalue()
            display.trial_ended(0, {"done": 5})
        assert set(heights) == {28}
        assert display.below is None
        assert "5/5" in out.getvalue().removeprefix(during)
        return during

    return show


def test_a_terminal_shows_the_picture_below_until_the_end(looking):
    text = looking(lambda n: Text(f"picture {n}"), looks=4)
    assert re.search(r"picture [345]", text)


def test_a_store_that_cannot_be_read_now_keeps_the_last_picture(looking):
    def picture(n):
        if n > 1:
            raise StoreError("gone")
        return Text("the first")

    assert "the first" in looking(picture, looks=4)


def test_a_store_is_left_alone_for_most_of_the_time():
    assert rest_s(0.01) == 5.0
    assert rest_s(1.0) == 20.0
    assert rest_s(0.01, every_s=0.1) == pytest.approx(0.2)


@pytest.mark.parametrize(("seconds", "words"), [(7, "0:07"), (750.4, "12:30"), (11_100, "3:05:00")])
def test_times_have_hours_where_there_are_some(seconds, words):
    assert clock(seconds) == words


def test_the_time_left_goes_by_work_not_by_runs():
    display = Display([5, 5], [30.0, 10.0], Console(file=io.StringIO()))
    display.start -= 90.0
    display.trial_ended(0, {"done": 5})
    assert display.rate() == "0.1 runs/s, 0:30 left"
