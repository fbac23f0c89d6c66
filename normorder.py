"""The one command, and the place where the four rooms meet: grids, harness, results, reports.

$ normorder sweep grids/smoke.toml
$ normorder report grids/smoke.toml
"""

import contextlib
import os
import platform
import subprocess
import sys
import time
from importlib.metadata import version
from pathlib import Path
from typing import Annotated

import typer

import harness
from grids import Grid, WrongUse
from harness import datasets
from harness.plan import make_plan
from results import METRICS, Store

app = typer.Typer(
    add_completion=False, no_args_is_help=True, pretty_exceptions_enable=False, help=__doc__.splitlines()[0]
)
DEFAULT_GRID = Path("grids/default.toml")
FINE, FAILED, USAGE, INTERRUPTED = 0, 1, 2, 130

GridPath = Annotated[Path, typer.Argument(help="grid file", metavar="GRID")]
StorePath = Annotated[Path | None, typer.Option("--store", help="folder of the store [results/data/<grid>]")]
SeedCount = Annotated[int | None, typer.Option("--seeds", help="seeds of each cell, in place of the grid's count")]
Fresh = Annotated[bool, typer.Option("--fresh", help="run again what other versions of code or data made")]
Retry = Annotated[bool, typer.Option("--retry", help="run again what failed")]


def choices() -> dict:
    return {**harness.choices(), "metric": METRICS}


def provenance() -> dict[str, str]:
    """Commit and versions, for every row of a sweep. The commit of this file's checkout, empty outside git."""
    git = ["git", "-C", str(Path(__file__).parent)]
    commit = ""
    with contextlib.suppress(OSError, subprocess.CalledProcessError):
        commit = subprocess.run([*git, "rev-parse", "HEAD"], capture_output=True, text=True, check=True).stdout.strip()
        status = subprocess.run([*git, "status", "--porcelain"], capture_output=True, text=True, check=True).stdout
        commit += "+" if status.strip() else ""
    versions = {"python": platform.python_version(), **{name: version(name) for name in ("torch", "ray", "numpy")}}
    return {"commit": commit, "versions": ", ".join(f"{name} {number}" for name, number in versions.items())}


def open_study(path: Path, store: Path | None, seeds: int | None, fresh: bool = False, retry: bool = False):
    """Grid, store, data sets and plan: everything that can be wrong before anything is started."""
    grid = Grid.read(path, choices(), seeds)
    where = Store(store or Path("results/data") / grid.name)
    data = {name: datasets.load(name) for name in dict.fromkeys(cell.dataset for cell in grid.cells())}
    plan = make_plan(grid, where.finished(), where.failed(), data, fresh=fresh, retry=retry)
    return grid, where, data, plan


@app.command()
def sweep(
    grid_path: GridPath = DEFAULT_GRID,
    store: StorePath = None,
    seeds: SeedCount = None,
    address: Annotated[str | None, typer.Option(help="Ray cluster; without it, one is started here")] = None,
    fresh: Fresh = False,
    retry: Retry = False,
) -> None:
    """Train every run of a grid that the store does not hold yet."""
    grid, where, data, plan = open_study(grid_path, store, seeds, fresh, retry)
    if not plan.missing:
        print(f"nothing to do: {where.path} holds all {plan.finished} runs of {grid.name}")
        return
    where.check_writable()
    from harness import sweep as ray_side
    from harness.plan import group

    counts = {"done": 0, "diverged": 0, "failed": 0}

    def on_outcome(trial, outcome):
        for status in counts:
            counts[status] += outcome.get(status, 0)
        print(counts, flush=True)

    with ray_side.cluster(address) as slots:
        trials = group(plan.missing, data, slots)
        ray_side.run_trials(trials, data, where, provenance(), on_outcome, lambda trial: None)
    if counts["failed"]:
        raise typer.Exit(FAILED)


@app.command()
def report(grid_path: GridPath = DEFAULT_GRID, store: StorePath = None, seeds: SeedCount = None) -> None:
    """Build the report of a grid from its store."""
    from reports import page

    grid = Grid.read(grid_path, choices(), seeds)
    where = Store(store or Path("results/data") / grid.name)
    print(page.write(grid, where, Path("reports/build") / grid.name))


def main() -> None:
    try:
        app()
    except WrongUse as error:
        print(f"normorder: {error}", file=sys.stderr)
        sys.exit(USAGE)


if __name__ == "__main__":
    main()
