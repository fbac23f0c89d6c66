"""How far a sweep is, shown while it goes on, from any terminal that sees its store."""

import time
from collections.abc import Callable

from rich.console import Console, Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from grids import Grid, setting
from reports.so_far import so_far
from reports.words import minus
from results import Store
from results.overview import FATES, Overview

BAR = 24  # characters
MOST_RESULTS, MOST_REASONS = 12, 5
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
            minutes, seconds = divmod(round((total - ended) / rate), 60)
            told += f", {rate:.1f} runs/s, {minutes}:{seconds:02} left"
        return told + (f", then up to {found.later:,} more" if found.later else "")


def follow(grid: Grid, store: Store, look: Callable[[], Overview], every_s: float) -> None:
    """Show it until every planned run has ended: as a picture on a terminal, else as a line where it has changed."""
    progress, console = Progress(), Console()

    def seen() -> Overview:
        store.check_there()  # one that is gone looks empty
        return look()

    if not console.is_terminal:
        last = ""
        while True:
            found = seen()
            if (line := progress.words(found)) != last:
                print(line, flush=True)
            last = line
            if not found.total["missing"]:
                return
            time.sleep(every_s)
    with Live(console=console, auto_refresh=False, screen=False) as live:
        while True:
            found = seen()
            live.update(picture(grid, store, found, progress), refresh=True)
            if not found.total["missing"]:
                return
            time.sleep(every_s)


def picture(grid: Grid, store: Store, found: Overview, progress: Progress) -> Group:
    """Progress by what varies, why runs failed or diverged, and first results."""
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), show_header=False)
    for (field, value), counts in found.by_value.items():
        ended, total = sum(counts[fate] for fate in ENDED), sum(counts[fate] for fate in FATES)
        full = round(BAR * ended / max(total, 1))
        bar = Text("━" * full, "green").append("━" * (BAR - full), "bright_black")
        lost = ", ".join(f"{counts[fate]:,} {fate}" for fate in ("diverged", "failed") if counts[fate])
        table.add_row(Text(f"{field} {setting(value)}"), bar, f"{ended:,}/{total:,}", Text(lost, "red"))
    parts = [Text(f"{grid.name} in {store.path}", "bold"), Text(progress.words(found)), table]
    for (fate, reason), count in list(found.reasons.items())[:MOST_REASONS]:
        parts.append(Text(f"{count:,} {fate}: {reason}", "red"))
    if grid.analysis.primary and (lines := so_far(grid, store, MOST_RESULTS)):
        head = f"so far, {minus(grid.analysis.primary.contrast)}, 95 % intervals each on its own; verdicts come at the end:"
        parts += [Text(head, "bold"), *(Text(f"  {line}") for line in lines)]
    return Group(*parts)
