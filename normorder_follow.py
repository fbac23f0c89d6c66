"""How far a sweep is, shown while it goes on: below its own progress, and from any terminal that sees its store."""

import time
from collections.abc import Callable
from contextlib import nullcontext

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.table import Table
from rich.text import Text

from grids import Grid, setting
from harness.display import clock, rest_s
from reports.so_far import so_far
from reports.words import minus
from results import Store
from results.overview import FATES, Overview, overview
from results.protocol import Wanted

BAR = 24  # characters
MOST_RESULTS, MOST_REASONS, FEWEST_VALUES = 12, 5, 4  # lines
ENDED = ("done", "diverged", "failed")


class Progress:
    """What has ended, and how fast: as seen since it was first looked at."""

    def __init__(self, clock: Callable[[], float] = time.monotonic):
        self.clock, self.since_s, self.at_first = clock, clock(), None

    def words(self, found: Overview) -> str:
        """As in 'runs 120/1,080, diverged 3, failed 0, 4.1 runs/s, 3:54 left'."""
        ended, total = sum(found.total[fate] for fate in ENDED), sum(found.total.values())
        self.at_first = ended if self.at_first is None else self.at_first
        rate = (ended - self.at_first) / max(self.clock() - self.since_s, 1e-9)
        told = f"runs {ended:,}/{total:,}, diverged {found.total['diverged']:,}, failed {found.total['failed']:,}"
        if rate > 0 and total > ended:
            told += f", {rate:.1f} runs/s, {clock((total - ended) / rate)} left"
        return told + (f", then up to {found.later:,} more" if found.later else "")


def follow(grid: Grid, store: Store, look: Callable[[], Overview], every_s: float) -> None:
    """Show it until every planned run has ended: as a picture on a terminal, else as a line where it has changed.

    A store that is not there yet is waited for; one that goes away again is an error.
    """
    wait_for(store, every_s)
    progress, console, last = Progress(), Console(), ""
    with Live(console=console, auto_refresh=False) if console.is_terminal else nullcontext() as live:
        while True:
            start = time.monotonic()
            store.check_there()  # one that is gone looks empty
            found = look()
            line = progress.words(found)
            if live:
                head = [Text(f"{grid.name} in {store.path}", "bold"), Text(line)]
                live.update(Group(*head, picture(grid, store, found, console.height - len(head) - 1)), refresh=True)
            elif line != last:
                print(line, flush=True)
            last = line
            if not found.total["missing"]:
                return
            time.sleep(rest_s(time.monotonic() - start, every_s))


def wait_for(store: Store, every_s: float) -> None:
    """Until a sweep has begun to write there, which it does when Ray runs."""
    told = False
    while not store.is_there():
        if not told:
            print(f"waiting for {store.path}: no sweep has written there yet", flush=True)
        told = True
        time.sleep(every_s)


def seen(grid: Grid, store: Store, wanted: Wanted | None, height: int) -> RenderableType:
    """The picture of a store as it stands."""
    return picture(grid, store, overview(grid, store, wanted), height)


def picture(grid: Grid, store: Store, found: Overview, height: int) -> RenderableType:
    """Progress by what varies, why runs failed or diverged, and first results, in at most so many lines."""
    below = [Text(f"{n:,} {fate}: {reason}", "red") for (fate, reason), n in list(found.reasons.items())[:MOST_REASONS]]
    if grid.analysis.primary and (lines := so_far(grid, store, MOST_RESULTS)):
        head = f"so far, {minus(grid.analysis.primary.contrast)}, 95 % intervals each on its own; verdicts come at the end:"
        below += [Text(head, "bold"), *(Text(f"  {line}") for line in lines)]
    for line in below:
        line.no_wrap, line.overflow = True, "ellipsis"
    rows = max(FEWEST_VALUES, height - len(below) - 1)
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), show_header=False)
    for (field, value), counts in list(found.by_value.items())[:rows]:
        ended, total = sum(counts[fate] for fate in ENDED), sum(counts[fate] for fate in FATES)
        full = round(BAR * ended / max(total, 1))
        bar = Text("━" * full, "green").append("╌" * (BAR - full), "bright_black")
        lost = ", ".join(f"{counts[fate]:,} {fate}" for fate in ("diverged", "failed") if counts[fate])
        table.add_row(Text(f"{field} {setting(value)}"), bar, f"{ended:,}/{total:,}", Text(lost, "red"))
    more = len(found.by_value) - rows
    return Group(table, *([Text(f"and {more} more values")] if more > 0 else []), *below)
