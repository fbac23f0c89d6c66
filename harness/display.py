"""Progress of a sweep: a live line on a terminal, plain lines elsewhere."""

import time
from collections.abc import Mapping, Sequence

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, ProgressColumn, TextColumn, TimeElapsedColumn
from rich.text import Text

PLAIN_EVERY_S = 10.0


class Display:
    """Counts runs as trials start and end. Use as a context; `counts` holds the sums afterwards.

    work: of each trial, in any unit; long trials come first, so runs alone would tell far too long a time left.
    """

    def __init__(self, seeds: Sequence[int], work: Sequence[float], console: Console | None = None):
        self.seeds, self.work = seeds, work
        self.runs, self.work_done = sum(seeds), 0.0
        self.counts = {"done": 0, "diverged": 0, "failed": 0}
        self.console = console or Console()
        self.running: set[int] = set()  # numbers of the trials that run now
        self.waiting = set(range(len(seeds)))
        self.notes: set[str] = set()
        self.start = self.last_plain = time.monotonic()
        self.live = None
        if self.console.is_terminal:
            columns = (TextColumn("runs"), BarColumn(), MofNCompleteColumn(), TextColumn("{task.fields[counts]}"))
            self.live = Progress(*columns, _Rest(self), TimeElapsedColumn(), console=self.console)
            self.task = self.live.add_task("runs", total=self.runs, counts="starting")

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

    def trial_started(self, number: int) -> None:
        self.running.add(number)
        self.waiting.discard(number)
        self._show(line=True)

    def trial_ended(self, number: int, outcome: Mapping[str, int]) -> None:
        """outcome: runs of this trial by status; fewer than it has where the rest is tried again."""
        self.running.discard(number)
        self.work_done += self.work[number] * sum(outcome.values()) / self.seeds[number]
        for status, count in outcome.items():
            self.counts[status] += count
        # While trials wait, another starts at once: the line is better told then, when nothing seems to idle.
        self._show(line=not self.waiting)

    def note(self, text: str) -> None:
        """A line of its own, once."""
        if text not in self.notes:
            self.notes.add(text)
            self._print(text)

    def rate(self) -> str:
        """Runs a second so far, and the time left if the rest goes on at this rate of work."""
        elapsed = time.monotonic() - self.start
        if not self.ended:
            return ""
        left = round(elapsed * (sum(self.work) / self.work_done - 1))
        return f"{self.ended / elapsed:.1f} runs/s, {left // 60}:{left % 60:02} left"

    def _show(self, line: bool) -> None:
        running = sum(self.seeds[number] for number in self.running)
        words = f"running {running}, diverged {self.counts['diverged']}, failed {self.counts['failed']}"
        if self.live:
            self.live.update(self.task, completed=self.ended, counts=words)
        elif self.ended == self.runs or (line and time.monotonic() - self.last_plain >= PLAIN_EVERY_S):
            self.last_plain = time.monotonic()
            line = ", ".join(filter(None, [f"runs {self.ended}/{self.runs}", words, self.rate()]))
            self._print(line)

    def _print(self, line: str) -> None:
        if self.live:
            self.console.print(line, highlight=False)
        else:  # rich would end the process where nobody reads it any more
            print(line, file=self.console.file)


class _Rest(ProgressColumn):
    def __init__(self, display: Display):
        super().__init__()
        self.display = display

    def render(self, task):
        return Text(self.display.rate())
