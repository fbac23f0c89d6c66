"""Progress of a sweep: a live picture on a terminal, plain lines elsewhere."""

import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress import BarColumn, MofNCompleteColumn, Progress, ProgressColumn, TextColumn, TimeElapsedColumn
from rich.text import Text

from results import StoreError

Picture = Callable[[int], RenderableType]  # of at most so many lines
PLAIN_EVERY_S = 10.0
LOOK_EVERY_S = 5.0  # between looks at the store for the picture, at least
LOOK_SHARE = 0.05  # of the time, at most, that they take


def clock(seconds: float) -> str:
    """'0:07', '12:30', '3:05:00'"""
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{seconds:02}" if hours else f"{minutes}:{seconds:02}"


def rest_s(took_s: float, every_s: float = LOOK_EVERY_S) -> float:
    """How long to leave a store alone after a look that took so long."""
    return max(every_s, took_s / LOOK_SHARE)


class Display:
    """Counts runs as trials start and end. Use as a context; `counts` holds the sums afterwards.

    work: of each trial, in any unit; long trials come first, so runs alone would tell far too long a time left.
    picture: what a terminal shows below the line; it is asked for now and then, by a thread of its own.
    """

    def __init__(
        self,
        seeds: Sequence[int],
        work: Sequence[float],
        console: Console | None = None,
        picture: Picture | None = None,
    ):
        self.seeds, self.work = seeds, work
        self.runs, self.work_done = sum(seeds), 0.0
        self.counts = {"done": 0, "diverged": 0, "failed": 0}
        self.console = console or Console()
        self.running: set[int] = set()  # numbers of the trials that run now
        self.waiting = set(range(len(seeds)))
        self.notes: set[str] = set()
        self.unread = False  # nobody reads what is printed any more
        self.start = self.last_plain = time.monotonic()
        self.live, self.picture, self.below = None, picture, None
        if self.console.is_terminal:
            columns = (TextColumn("runs"), BarColumn(20), MofNCompleteColumn(), TextColumn("{task.fields[counts]}"))
            self.line = Progress(*columns, _Rest(self), TimeElapsedColumn(), console=self.console)
            self.task = self.line.add_task("runs", total=self.runs, counts="starting")
            self.live = Live(get_renderable=self._rendered, console=self.console)
            self.over = threading.Event()
            self.looker = threading.Thread(target=self._look, daemon=True)

    def __enter__(self):
        if self.live:
            self.live.start()
            if self.picture:
                self.looker.start()
        return self

    def __exit__(self, *_):
        if self.live:
            self.over.set()
            self.below = None  # the line says how it ended
            self.live.stop()

    def _rendered(self) -> RenderableType:
        return Group(self.line, self.below) if self.below else self.line

    def _look(self) -> None:
        took_s = None
        while not self.over.wait(rest_s(took_s or 0.0)):
            start = time.thread_time()
            with suppress(StoreError, OSError):  # of which the trials tell
                below = self.picture(self.console.height - 2)
                self.below = None if self.over.is_set() else below
            took_s = 0.0 if took_s is None else time.thread_time() - start  # the first one imports what it needs

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
        return f"{self.ended / elapsed:.1f} runs/s, {clock(elapsed * (sum(self.work) / self.work_done - 1))} left"

    def _show(self, line: bool) -> None:
        running = sum(self.seeds[number] for number in self.running)
        # 80 columns have no room for zeros.
        lost = [fate for fate in ("diverged", "failed") if self.counts[fate] or not self.live]
        words = ", ".join([f"running {running}", *(f"{fate} {self.counts[fate]}" for fate in lost)])
        if self.live:
            self.line.update(self.task, completed=self.ended, counts=words)
        elif self.ended == self.runs or (line and time.monotonic() - self.last_plain >= PLAIN_EVERY_S):
            self.last_plain = time.monotonic()
            line = ", ".join(filter(None, [f"runs {self.ended}/{self.runs}", words, self.rate()]))
            self._print(line)

    def _print(self, line: str) -> None:
        if self.live:
            self.console.print(line, highlight=False)
        elif not self.unread:  # rich would end the process where nobody reads it any more
            try:
                print(line, file=self.console.file)
            except BrokenPipeError:
                self.unread = True
                raise


class _Rest(ProgressColumn):
    def __init__(self, display: Display):
        super().__init__()
        self.display = display

    def render(self, task):
        return Text(self.display.rate())
