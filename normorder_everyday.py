"""Commands that need no study: what there is to name, new files, checks of an architecture, a run again, the machine."""

from pathlib import Path
from typing import Annotated, Literal

import typer

import harness
from grids import GridError, Resources, WrongUse, near
from harness import datasets
from harness.apart import apart, private_folder
from normorder_words import (
    FAILED,
    Asked,
    Json,
    Plugins,
    choices,
    complete_architecture,
    existing,
    print_json,
    print_table,
    program,
    read_grid,
)
from results import Store, StoreError
from results.protocol import expected

app = typer.Typer()


@app.command("list")
def list_command(
    kind: Annotated[Literal["architectures", "activations", "orders", "datasets", "grids"], typer.Argument()],
    plugin: Plugins = None,
    as_json: Json = False,
) -> None:
    """List what a grid may name, or the grids that there are.

    Example: normorder list activations
    """
    from harness.catalogue import KINDS

    rows = list(KINDS[kind]()) if kind in KINDS else grids_here()
    if as_json:
        print_json(rows)
    else:
        print_table([[*row.values()] for row in rows], list(rows[0]) if rows else [])
    if kind == "orders" and not as_json:
        print("'drop' may stand anywhere in each of them, once")


def grids_here() -> list[dict[str, object]]:
    """The grid files of the folder `grids`."""
    rows = []
    for path in sorted(Path("grids").glob("*.toml")):
        try:
            grid = read_grid(Asked(path))
        except GridError as error:
            rows.append({"name": str(path), "cells": None, "runs": None, "question": str(error)})
            continue
        stages = expected(grid)
        runs = sum(map(len, stages))
        rows.append({"name": str(path), "cells": len(list(grid.cells())), "runs": runs, "question": grid.question})
    return rows


@app.command("new-architecture")
def new_architecture(
    name: Annotated[str, typer.Argument(help="its name in grids, and of its file")],
    like: Annotated[
        str | None, typer.Option(help="an architecture to begin with", autocompletion=complete_architecture)
    ] = None,
) -> None:
    """Write the file of a new architecture, which works as it is, and say what to do next.

    Example: normorder new-architecture convmixer --like cnn
    """
    from harness import new

    path = shown(new.architecture(name, like))
    print(f"wrote {path}, {f'as {like} is' if like else 'a perceptron to begin with'}; next:")
    print(f"  change it, then   {program()} check-architecture {name}")
    print(f"  try it at once    {program()} sweep grids/smoke.toml architecture={name} --store /tmp/{name}")
    print(f'  or in a grid      architecture = ["mlp", "{name}"]')


def shown(path: Path) -> Path:
    """As it is typed here."""
    return path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path


@app.command("new-grid")
def new_grid(name: Annotated[str, typer.Argument(help="of its file in the folder grids")]) -> None:
    """Write a new grid, which can be planned as it is, and say what to do next.

    Example: normorder new-grid mine
    """
    from harness import new

    path = new.grid(name, Path("grids"))
    print(f"wrote {path}; next:")
    print(f"  change it; what there is to name, tells   {program()} list architectures|activations|orders|datasets")
    print(f"  what it takes and can show                {program()} plan {path}")
    print(f"  train and read                            {program()} sweep {path}, then {program()} report {path}")


@app.command("check-architecture")
def check_architecture(
    name: Annotated[
        str, typer.Argument(help="a file in harness/architectures, or a plug-in", autocompletion=complete_architecture)
    ],
    plugin: Plugins = None,
    as_json: Json = False,
) -> None:
    """Check that an architecture keeps what comparisons need: its orders, its draws, its shapes, that it learns.

    Example: normorder check-architecture resnet
    """
    there = harness.names("architectures")
    if name not in there:
        raise WrongUse(f"there is no architecture {name}; {near(name, there)}there are {', '.join(there)}")
    from harness.conformance import check, warning  # torch costs seconds

    found = []
    for each in check(name):
        found.append(each)
        if not as_json:
            print(f"{'NO' if each.problem else 'ok'}  {each.what}" + (f": {each.problem}" if each.problem else ""))
    broken = sum(bool(each.problem) for each in found)
    if as_json:
        print_json({"architecture": name, "checks": [each._asdict() for each in found], "warning": warning(name)})
    elif told := warning(name):
        print(f"warning: {told}")
    if broken and not as_json:
        verb = "fails" if broken == 1 else "fail"
        print(f"{name}: {broken} of {len(found)} checks {verb}, so its arms cannot be compared")
    if broken:
        raise typer.Exit(FAILED)


@app.command("schema")
def schema_command() -> None:
    """Print the JSON Schema of grid files, for editors. grids/grid.schema.json has it for what is shipped.

    Example: normorder schema
    """
    from grids.schema import json_schema

    print_json(json_schema(choices()))


@app.command("replay")
def replay_command(
    run_id: Annotated[str, typer.Argument(help="of a finished run, or its first digits", metavar="RUN_ID")],
    plugin: Plugins = None,
    store: Annotated[
        str | None, typer.Option("--store", help="where it is (default: the stores in results/data)", metavar="STORE")
    ] = None,
    as_json: Json = False,
) -> None:
    """Train a finished run again from its row, and compare what was measured, bit for bit.

    Example: normorder replay 3f9ac1 --store results/data/smoke
    """
    from harness.replay import ReplayError, find, in_words, replay  # torch costs seconds

    folder = Path("results/data")
    stores = [existing(store)] if store else [Store(path) for path in sorted(folder.glob("*")) if path.is_dir()]
    if not stores:
        raise WrongUse(f"{folder}: there is no store; name one with --store")
    there, errors = [], []
    for where in stores:
        try:
            there.append(find(where, run_id))
        except (ReplayError, StoreError) as error:
            errors.append(str(error))
    if not there:
        raise WrongUse("; ".join(errors))
    rows = there[0]
    if len({each["run_id"][0].as_py() for each in there}) > 1:
        raise WrongUse(f"{run_id} is the beginning of several runs in different stores; name one with --store")
    found = replay(rows, datasets.load)
    if as_json:
        print_json(found._asdict())
    else:
        for line in in_words(found):
            print(line)
    if found.differences and not found.reasons:
        raise typer.Exit(FAILED)


@app.command("anatomy")
def anatomy_command(
    out: Annotated[Path, typer.Option("--out", help="folder of what is built", metavar="FOLDER")] = Path(
        "reports/build/anatomy"
    ),
) -> None:
    """Build a page on what both orders do to numbers, without training: distributions, saturation, gradients, rank.

    Example: normorder anatomy
    """
    from harness.anatomy import anatomy  # torch and matplotlib cost seconds
    from reports import anatomy as page

    found = anatomy()
    for line in page.build(found.rows, found.histograms, out):
        print(line)


@app.command()
def doctor(as_json: Json = False) -> None:
    """Say what works on this machine, and what to do about the rest.

    Example: normorder doctor
    """
    from harness.doctor import examine

    marks = {"works": "ok  ", "note": "note", "fails": "NO  "}
    found = []
    for each in examine(Path("results/data"), start_ray):
        found.append(each)
        if not as_json:
            print(f"{marks[each.state]}  {each.what}: {each.words}", flush=True)
    if as_json:
        print_json([each._asdict() for each in found])
    if any(each.state == "fails" for each in found):
        raise typer.Exit(FAILED)


def start_ray() -> int:
    """The slots of a Ray cluster that is started here, and stopped again."""
    from harness.drive import count_slots

    with private_folder() as scratch:
        return apart(count_slots, None, Resources(), Path(scratch))
