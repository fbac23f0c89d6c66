"""Progress of a sweep: a live line on a terminal, plain lines elsewhere."""

import time
from collections.abc import Mapping

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, ProgressColumn, TextColumn, TimeElapsedColumn
from rich.text import Text

PLAIN_EVERY_S = 10.0


class Display:
    """Counts runs as trials start and end. Use as a context; `counts` holds the sums afterwards."""

    def __init__(self, runs: int, console: Console | None = None):
        self.runs = runs
        self.counts = {"done": 0, "diverged": 0, "failed": 0}
        self.console = console or Console()
        self.running: dict[int, int] = {}  # seeds of each trial that runs now, by the trial's number
        self.start = self.last_plain = time.monotonic()
        self.live = None
        if self.console.is_terminal:
            columns = (TextColumn("runs"), BarColumn(), MofNCompleteColumn(), TextColumn("{task.fields[counts]}"))
            self.live = Progress(*columns, _Rest(self), TimeElapsedColumn(), console=self.console)
            self.task = self.live.add_task("runs", total=runs, counts="starting")

    def __enter__(self):
        if self.live:
            self.live.start()
        return self

    def __exit__(self, *_):
        if self.live:
            self.live.stop()

    @property
    def ended(self) -> int:
        return sum(self.counts.values())

    def trial_started(self, number: int, seeds: int) -> None:
        self.running[number] = seeds
        self._show()

    def trial_ended(self, number: int, outcome: Mapping[str, int]) -> None:
        """outcome: runs of this trial by status."""
        self.running.pop(number, None)
        for status, count in outcome.items():
            self.counts[status] += count
        self._show(last=self.ended == self.runs)

    def rate(self) -> str:
        """Runs a second and time left, from the mean so far."""
        elapsed = time.monotonic() - self.start
        if not self.ended:
            return ""
        left = round((self.runs - self.ended) * elapsed / self.ended)
        return f"{self.ended / elapsed:.1f} runs/s, {left // 60}:{left % 60:02} left"

    def _show(self, last: bool = False) -> None:
        words = (
            f"running {sum(self.running.values())}, diverged {self.counts['diverged']}, failed {self.counts['failed']}"
        )
        if self.live:
            self.live.update(self.task, completed=self.ended, counts=words)
        elif last or time.monotonic() - self.last_plain >= PLAIN_EVERY_S:
            self.last_plain = time.monotonic()
            line = ", ".join(filter(None, [f"runs {self.ended}/{self.runs}", words, self.rate()]))
            self.console.print(line, highlight=False)


class _Rest(ProgressColumn):
    def __init__(self, display: Display):
        super().__init__()
        self.display = display

    def render(self, task):
        return Text(self.display.rate())
