"""Progress: a live line on a terminal, plain lines elsewhere."""

import io

from rich.console import Console

from harness.display import Display


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
    assert "\x1b[2K" in text  # the line is drawn again


def test_the_time_left_goes_by_work_not_by_runs():
    display = Display([5, 5], [30.0, 10.0], Console(file=io.StringIO()))
    display.start -= 90.0
    display.trial_ended(0, {"done": 5})
    assert display.rate() == "0.1 runs/s, 0:30 left"
