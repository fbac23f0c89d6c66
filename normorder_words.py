"""What commands are asked: a grid file and values in place of its own, a store; and answers as tables and JSON."""

import json
import math
import re
import sys
from collections.abc import Sequence
from pathlib import Path
from shutil import which
from typing import Annotated, Any, NamedTuple

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

import harness
from grids import Cell, Grid, WrongUse
from harness import plugins
from harness.initialisation import ACTIVATIONS
from results import METRICS, Store
from results.protocol import unchosen

DEFAULT_GRID = Path("grids/default.toml")
FAILED = 1  # exit code: something that was asked for did not hold, as runs that failed or a check
Json = Annotated[bool, typer.Option("--json", help="as JSON, for programs")]


def use_plugins(paths: list[Path] | None) -> list[Path] | None:
    """Make files known as plug-ins, before anything reads a grid; gives them."""
    if paths:
        ours = {folder: harness.names(folder) for folder in ("architectures", "datasets")}
        plugins.add(paths, {**ours, "activations": tuple(ACTIVATIONS)})
    return paths


Plugins = Annotated[
    list[Path] | None,
    typer.Option(
        "--plugin",
        callback=use_plugins,
        is_eager=True,
        help="file of an architecture, an activation or a data set of your own; may be repeated",
    ),
]


class Asked(NamedTuple):
    """A grid file, and what is asked for in place of what it says."""

    path: Path
    seeds: int | None = None
    changes: tuple[str, ...] = ()

    @property
    def words(self) -> list[str]:
        """As they can be typed behind a command."""
        seeds = [] if self.seeds is None else ["--seeds", str(self.seeds)]
        return [str(self.path), *self.changes, *seeds]


def complete_words(incomplete: str) -> list[str]:
    """Of '[GRID] [FIELD=VALUE ...]' in a shell: grid files here, and fields."""
    words = [*map(str, sorted(Path("grids").glob("*.toml"))), *(f"{field}=" for field in (*Cell.model_fields, "seeds"))]
    return [word for word in words if word.startswith(incomplete)]


def complete_architecture(incomplete: str) -> list[str]:
    return [name for name in harness.names("architectures") if name.startswith(incomplete)]


def program() -> str:
    """This command, as it can be typed here."""
    typed = Path(sys.argv[0])
    return "normorder" if typed.name != "normorder" or which("normorder") == sys.argv[0] else sys.argv[0]


def is_change(word: str) -> bool:
    """Whether it is a value in place of a grid's own, as depth=8, and no path."""
    return re.match(r"\w+=", word) is not None and not word.endswith(".toml")


def asked(words: Sequence[str] | None, seeds: int | None) -> Asked:
    """Of '[GRID] [FIELD=VALUE ...]'. seeds: of --seeds, for which seeds=N is another name."""
    words = words or ()
    changes = [word for word in words if is_change(word)]
    paths = [word for word in words if word not in changes]
    if len(paths) > 1:
        raise WrongUse(f"one grid at a time, and values as FIELD=VALUE: {' '.join(paths)}")
    counts = [word for word in changes if word.startswith("seeds=")]
    if len(counts) + (seeds is not None) > 1:
        raise WrongUse(f"the number of seeds is given more than once: {' '.join(counts)}")
    if counts:
        try:
            seeds = int(counts[0].removeprefix("seeds="))
        except ValueError:
            raise WrongUse(f"{counts[0]}: seeds is a whole number") from None
    path = Path(paths[0]) if paths else DEFAULT_GRID
    return Asked(path, seeds, tuple(word for word in changes if word not in counts))


def read_grid(what: Asked) -> Grid:
    return Grid.read(what.path, choices(), what.seeds, what.changes)


def choices() -> dict[str, Any]:
    """The valid names of everything that a grid names."""
    return {**harness.choices(), "metric": METRICS}


def open_grid(what: Asked, store: str | None) -> tuple[Grid, Store]:
    grid = read_grid(what)
    return grid, Store(Path("results/data") / grid.name if store is None else store)


def existing(place: str) -> Store:
    """The store at a place. StoreError where there is none."""
    where = Store(place)
    where.check_there()
    return where


def print_unchosen(grid: Grid, cells: Sequence[Cell]) -> None:
    """The cells for which no value could be chosen, and why."""
    for line in unchosen(grid, cells):
        print(line)


def print_json(value: object) -> None:
    print(json.dumps(_known(value), ensure_ascii=False, indent=1))


def _known(value: object) -> object:
    """The same with null in place of numbers that JSON has not."""
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if isinstance(value, dict):
        return {key: _known(each) for key, each in value.items()}
    return [_known(each) for each in value] if isinstance(value, list | tuple) else value


def print_table(rows: Sequence[Sequence[object]], heads: Sequence[str]) -> None:
    """Numbers to the right; as wide as the terminal, and 120 characters where there is none."""
    table = Table(box=None, pad_edge=False, padding=(0, 3, 0, 0))
    for k, head in enumerate(heads):
        numbers = all(isinstance(row[k], int | float) or row[k] is None for row in rows)
        table.add_column(head, justify="right" if numbers else "left", overflow="fold")
    for row in rows:
        table.add_row(*(Text(_shown(each)) for each in row))
    Console(width=None if sys.stdout.isatty() else 120, highlight=False, markup=False).print(table)


def _shown(value: object) -> str:
    if value is None:
        return ""
    return f"{value:,}" if isinstance(value, int) else f"{value:g}" if isinstance(value, float) else str(value)
