"""The one command, and the place where the four rooms meet: grids, harness, results, reports.

$ normorder plan grids/smoke.toml
$ normorder sweep grids/smoke.toml
$ normorder report grids/smoke.toml
"""

import contextlib
import errno
import re
import shlex
import sys
import time
import traceback
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Annotated, Literal, NoReturn

import pandas as pd
import typer
from rich.console import Console, RenderableType

import normorder_everyday
from grids import Grid, WrongUse, setting
from harness import datasets, plugins
from harness.apart import Lost, apart, ignore_signals, interruptible, private_folder
from harness.initialisation import parse
from harness.plan import PlanError
from harness.study import Study, look, tell
from normorder_words import (
    FAILED,
    Asked,
    Json,
    Plugins,
    asked,
    choices,
    complete_words,
    existing,
    is_change,
    open_grid,
    print_json,
    print_table,
    print_unchosen,
    program,
    read_grid,
)
from results import SCHEMAS, Store, StoreError
from results.files import retrying
from results.merging import merge
from results.overview import FATES, overview
from results.protocol import Wanted, unchosen
from results.schema import MEASURED
from results.secrets import without_secrets
from results.thinning import thin
from results.upkeep import compact, needs_compaction
from results.validation import incomplete, orphans, set_aside, validate

HELP = "Does a normalization layer belong before or after the activation? Trains many seeds, and tests the differences."
app = typer.Typer(no_args_is_help=True, pretty_exceptions_enable=False, help=HELP)
app.add_typer(normorder_everyday.app)
USAGE, INTERRUPTED, OURS = 2, 130, 70
TO_GO_ON = "finished trials are in the store; to go on:"
ADDRESS = re.compile(r"auto|(ray://)?([^\s/@:\[\]]+|\[[\da-fA-F:.]+\]):\d{1,5}")
STARTS, QUICK_S = 3, 600.0  # of the process that uses Ray: it is not started again where it is lost so often so soon

Words = Annotated[
    list[str] | None,
    typer.Argument(
        help="grid file, else grids/default.toml; and values in place of its own, as in depth=8 activation=tanh,relu",
        metavar="[GRID] [FIELD=VALUE ...]",
        autocompletion=complete_words,
    ),
]
Select = Annotated[
    list[str] | None,
    typer.Option("--select", help="only cells with these values, as in --select depth=8,16; may be repeated"),
]
# Not a Path, which would make one slash of two in s3://bucket/prefix.
StorePath = Annotated[
    str | None,
    typer.Option(
        "--store", help="folder or s3://bucket/prefix of the store (default: results/data/<grid>)", metavar="STORE"
    ),
]
StoreFolder = Annotated[str, typer.Argument(help="folder or s3://bucket/prefix of the store", metavar="STORE")]
SeedCount = Annotated[
    int | None, typer.Option("--seeds", help="seeds of each cell that are compared, in place of the grid's count")
]
Fresh = Annotated[bool, typer.Option("--fresh", help="run again what other versions of code or data made")]
Mode = Annotated[
    Literal["eager", "compiled"] | None,
    typer.Option(
        help="how steps of new cells are computed (default: by measurement); cells in the store stay as they are"
    ),
]
Out = Annotated[
    Path | None,
    typer.Option("--out", help="folder of what is built, in place of reports/build/<grid>", metavar="FOLDER"),
]
Claims = Annotated[
    Path | None, typer.Option("--claims", help="file of claims of your own, judged beside the published ones")
]
Retry = Annotated[bool, typer.Option("--retry", help="run again what failed")]


def open_study(
    what: Asked,
    store: str | None = None,
    fresh: bool = False,
    retry: bool = False,
    select: Sequence[str] | None = None,
    sweeping: bool = False,
) -> Study:
    """Everything that can be wrong in a grid, a store and their data sets shows here, before anything is started.

    sweeping: the store is tidied, and must be writable.
    """
    grid, where = open_grid(what, store)
    part = grid.selection(what.path, choices(), select or ())
    if sweeping:
        tidy(where)
    data = {name: datasets.load(name) for name in dict.fromkeys(cell.dataset for cell in grid.cells())}
    check_plugins(grid)
    with naming(what.path):
        study = look(grid, where, data, fresh=fresh, retry=retry, wanted=decides(grid), part=part)
    if sweeping and study.plan.missing:
        where.check_writable()
    return study


def used_plugins(grid: Grid) -> dict[str, list[str]]:
    """By folder, the names of the plug-ins that a grid uses."""
    used = {
        "architectures": {cell.architecture for cell in grid.cells()},
        "activations": {parse(cell.activation)[0] for cell in grid.cells()},
        "datasets": {cell.dataset for cell in grid.cells()},
    }
    return {folder: sorted(names.intersection(plugins.names(folder))) for folder, names in used.items()}


def check_plugins(grid: Grid) -> None:
    """Refuse a plug-in whose arms could not be compared."""
    used = used_plugins(grid)
    if used["architectures"] or used["activations"]:
        from harness.conformance import refuse  # torch costs seconds

        refuse(used["architectures"], used["activations"])


def plugins_of(grid: Grid) -> list[str]:
    """As in 'mish.py (activation), SHA-256 0123456789abcdef…'"""
    return [
        f"{name}.py ({folder.removesuffix('s')}), SHA-256 {plugins.sha256(folder, name)[:16]}…"
        for folder, names in used_plugins(grid).items()
        for name in names
    ]


def decides(grid: Grid) -> Wanted | None:
    """What decides who gets more seeds where they are adaptive: harness and results ask, and only the reports know."""
    if len(grid.seeds.looks) == 1:
        return None
    from reports.looks import wanted  # pandas and scipy cost seconds, which other grids need not wait for

    return wanted


def tidy(store: Store) -> None:
    """Compact a store of many small files. What prevents it is told and prevents nothing else."""
    if needs_compaction(store):
        try:
            store.check_writable()
            print(f"{store.path}: {compact(store)}")
        except StoreError as error:
            print(f"not compacted: {error}")


@contextlib.contextmanager
def naming(path: Path):
    """The plan knows the grid, not its file: name it in what the plan finds wrong."""
    try:
        yield
    except PlanError as error:
        raise PlanError(f"{path}: {error}") from None


@app.command("plan")
def plan_command(
    words: Words = None,
    plugin: Plugins = None,
    store: StorePath = None,
    seeds: SeedCount = None,
    address: Annotated[
        str | None, typer.Option(help="Ray cluster whose slots are counted; without it, this machine's are")
    ] = None,
    select: Select = None,
    fresh: Fresh = False,
    retry: Retry = False,
    rehearse: Annotated[
        float,
        typer.Option(min=0.0, help="seconds of training, at most, that may be spent to know how far pairs scatter"),
    ] = 60.0,
    as_json: Json = False,
) -> None:
    """Say what a sweep would do, what it would take and what it could show, and write nothing to the store.

    Example: normorder plan grids/default.toml depth=8
    """
    from normorder_plan import as_json as in_json  # torch costs seconds
    from normorder_plan import foresee, tell_plan

    check_address(address)
    what = asked(words, seeds)
    study = open_study(what, store, fresh, retry, select)
    with naming(what.path):
        found = foresee(study, address, rehearse)
    if as_json:
        print_json(in_json(found))
    else:
        tell_plan(found)


def check_address(address: str | None) -> None:
    if address is not None and not ADDRESS.fullmatch(address):  # it is not repeated, since it may hold a secret
        raise WrongUse("--address: must be auto, host:port or ray://host:port, and nothing more")


@app.command()
def sweep(
    words: Words = None,
    plugin: Plugins = None,
    store: StorePath = None,
    seeds: SeedCount = None,
    address: Annotated[str | None, typer.Option(help="Ray cluster; without it, one is started here")] = None,
    select: Select = None,
    fresh: Fresh = False,
    retry: Retry = False,
    mode: Mode = None,
    limit: Annotated[
        float,
        typer.Option("--trial-limit", min=1.0, max=1e7, help="seconds after which a trial counts as hanging"),
    ] = 21_600.0,
) -> None:
    """Train every run of a grid that the store does not hold yet.

    Example: normorder sweep grids/default.toml activation=tanh,relu seeds=40 --select depth=8
    """
    start = time.monotonic()
    check_address(address)
    what = asked(words, seeds)
    study = open_study(what, store, fresh, retry, select, sweeping=True)
    ended = study.plan.finished + study.plan.failed
    if not study.plan.missing:
        tell(study, [], 0)
        print("nothing to do" + (f": {study.plan.failed:,} runs failed before" if study.plan.failed else ""))
        finish(study, failed=study.plan.failed)
    before, counts, quick = 0, dict.fromkeys(("done", "diverged", "failed"), 0), 0
    while study.plan.missing:
        begun = time.monotonic()
        try:
            with naming(what.path), private_folder() as scratch:
                counts = apart(train, study, address, mode, limit, Path(scratch))
            break
        except Lost as lost:
            Console().show_cursor()  # which a live display hides
            quick = quick + 1 if time.monotonic() - begun < QUICK_S else 1
            if quick == STARTS:
                raise Lost(f"{lost}; {TO_GO_ON} {again()}") from None
            print(f"{lost}; it is started again", file=sys.stderr)
        except BrokenPipeError:
            raise Lost(f"nobody reads what it prints any more; {TO_GO_ON} {again()}") from None
        study = open_study(what, store, fresh, retry, select)
        before = study.plan.finished + study.plan.failed - ended
    where = study.store
    last = study._replace(fresh=False, retry=False).again()
    gone = len(last.plan.missing)
    print(
        f"{counts['done']:,} done, {counts['diverged']:,} diverged, {counts['failed']:,} failed "
        + (f"and {before:,} before Ray was started again " if before > 0 else "")
        + f"in {time.monotonic() - start:.0f} s; store {where.path}"
    )
    if gone:
        print(f"{gone:,} runs are not in the store any more: somebody removed them; the same command trains them again")
    if counts["failed"]:
        print(f"reasons of failure: column 'error' of {where.path / 'runs'}; --retry runs them again")
    given = [*([("--store", store)] if store else []), *(("--plugin", path) for path in plugin or ())]
    options = [str(word) for pair in given for word in pair]
    print("next:", shlex.join([program(), "report", *what.words, *options]))
    finish(last, failed=counts["failed"] + last.plan.failed + gone)


def train(study: Study, address: str | None, mode: str | None, limit_s: float, scratch: Path) -> dict[str, int]:
    """The part of a sweep that uses Ray, in a process of its own. Gives the runs by status."""
    from harness.drive import drive  # torch and ray cost seconds, which other commands need not wait for

    def picture(height: int) -> RenderableType:
        from normorder_follow import seen  # pandas and scipy cost seconds

        return seen(study.grid, study.store, study.wanted, height)

    plain_output()
    return drive(study, address, mode, limit_s, scratch, picture)


def finish(study: Study, failed: int) -> NoReturn:
    """End a sweep: compact, and the exit code that says whether runs failed, are in conflict or could not be chosen."""
    tidy(study.store)
    store, plan = study.store, study.plan
    print_unchosen(study.grid, study.plan.unchosen)
    conflicts = store.conflicts()
    ours = {run_id for stage in plan.stages for _, ids in stage.by_cell() for run_id in ids} if len(conflicts) else ()
    rows = conflicts["run_id"].isin(ours).sum()
    if rows:
        print(f"{rows:,} rows are in conflict: equal runs by equal engines with other results; see the report")
    raise typer.Exit(FAILED if failed or rows or plan.unchosen else 0)


@app.command()
def report(
    words: Words = None,
    plugin: Plugins = None,
    store: StorePath = None,
    seeds: SeedCount = None,
    claims: Claims = None,
    out: Out = None,
) -> None:
    """Build the report of a grid from its store: a page, figures and tables in reports/build/<grid>.

    Example: normorder report grids/default.toml
    """
    from reports import page  # pandas, scipy and seaborn cost seconds

    grid, where = open_grid(asked(words, seeds), store)
    for line in page.build(grid, where, out or Path("reports/build") / grid.name, claims, plugins_of(grid)):
        print(line)


@app.command("ledger")
def ledger_command(
    grids: Annotated[list[Path], typer.Argument(help="grid files of studies", metavar="GRID ...")],
    plugin: Plugins = None,
    stores: Annotated[
        str,
        typer.Option("--stores", help="folder of the studies' stores, each under its grid's name", metavar="FOLDER"),
    ] = "results/data",
    claims: Claims = None,
    out: Annotated[Path, typer.Option("--out", help="folder of what is built", metavar="FOLDER")] = Path(
        "reports/build/ledger"
    ),
) -> None:
    """Judge published claims by several studies, and by what needs no training, side by side: a page and a table.

    Example: normorder ledger grids/default.toml grids/fair.toml
    """
    from harness.anatomy import anatomy  # torch, pandas and scipy cost seconds
    from reports.studies import Study, build

    studies = []
    for path in grids:
        grid = read_grid(asked([str(path)], None))
        studies.append(Study(grid, existing(f"{stores.rstrip('/')}/{grid.name}")))
    for line in build(studies, anatomy().rows, out, claims):
        print(line)


@app.command("export")
def export_command(
    form: Annotated[
        Literal["csv", "parquet", "latex", "markdown"],
        typer.Option("--format", help="csv and parquet have every column, latex and markdown those to be read"),
    ],
    words: Words = None,
    plugin: Plugins = None,
    store: StorePath = None,
    seeds: SeedCount = None,
    out: Out = None,
) -> None:
    """Write the table of comparisons of a grid as a file, without the report.

    Example: normorder export grids/default.toml --format latex
    """
    from reports.export import export

    grid, where = open_grid(asked(words, seeds), store)
    for line in export(grid, where, form, out or Path("reports/build") / grid.name):
        print(line)


@app.command("compact")
def compact_command(store: StoreFolder) -> None:
    """Merge the small files of a store into few large ones, as a sweep does by itself where there are many.

    Example: normorder compact results/data/default
    """
    where = existing(store)
    where.check_writable()
    print(f"{where.path}: {compact(where)}")


@app.command("thin")
def thin_command(
    store: StoreFolder,
    into: Annotated[str, typer.Argument(help="folder or s3://bucket/prefix that is not there yet", metavar="INTO")],
) -> None:
    """Copy a store as small as its report allows, to publish it: runs bit for bit, the rest rounded, or left out.

    Example: normorder thin results/data/default published/default
    """
    target = Store(into)
    print(f"{target.path}: {thin(existing(store), target)}")


@app.command("validate")
def validate_command(
    store: StoreFolder,
    words: Annotated[
        list[str] | None,
        typer.Argument(
            help="grid whose runs must all be finished, and values in place of its own",
            metavar="[GRID] [FIELD=VALUE ...]",
        ),
    ] = None,
    plugin: Plugins = None,
    seeds: SeedCount = None,
    repair: Annotated[bool, typer.Option("--repair", help="first move unreadable files into STORE/set-aside")] = False,
    as_json: Json = False,
) -> None:
    """Check a store: files, identities, statuses, curves and examples of each run; with a grid, that it is complete.

    Example: normorder validate results/data/default grids/default.toml
    """
    where = existing(store)
    grid = read_grid(asked(words, seeds)) if words else None
    if repair:
        where.check_writable()
    moved = list(set_aside(where)) if repair else []
    problems = validate(where)
    if grid:
        try:
            problems += incomplete(where, grid, decides(grid))
        except StoreError:
            problems.append(f"whether {grid.name} is complete cannot be told while files are unreadable")
    files = sum(len(where.files(name)) for name in SCHEMAS)
    left = 0 if problems else retrying(lambda: orphans(where))
    if as_json:
        told = {"files": files, "set_aside": moved, "problems": problems, "orphans": left}
        print_json({"store": str(where.path), "grid": grid and grid.name, **told})
    else:
        for line in [*moved, *problems]:
            print(line)
        if problems:
            print(f"{len(problems):,} problems in {where.path}")
        else:
            checked = "readable, identities, statuses, metrics, curves, examples, no conflicts"
            complete = f", every run of {grid.name}" if grid else ""
            print(f"{where.path}: {files:,} files checked: {checked}{complete}")
        if left:
            print(
                "orphans of a crash or of deleted files, without effect: "
                f"curves, layers or examples of {left:,} trials without runs"
            )
    if problems:
        raise typer.Exit(FAILED)


@app.command("status")
def status_command(
    words: Annotated[
        list[str],
        typer.Argument(
            help="store, else that of --store; grid file, and values in place of its own",
            metavar="[STORE] GRID [FIELD=VALUE ...]",
        ),
    ],
    plugin: Plugins = None,
    store: StorePath = None,
    seeds: SeedCount = None,
    as_json: Json = False,
    follow: Annotated[
        bool, typer.Option("--follow", help="show it until all runs have ended, with first results")
    ] = False,
    every: Annotated[float, typer.Option(min=0.1, help="seconds between two looks of --follow")] = 5.0,
) -> None:
    """Say how far a grid is in a store: runs done, diverged, failed and missing, by what varies, and why.

    Example: normorder status results/data/default grids/default.toml
    """
    if follow and as_json:
        raise WrongUse("--json tells how it is now, and --follow shows it while it goes on: one of them")
    if not store and len(words) > 1 and not is_change(words[1]):
        store, *words = words
    elif Path(words[0]).is_dir():
        raise WrongUse(f"{words[0]}: is a store, and a grid is to be named behind it")
    grid, where = open_grid(asked(words, seeds), store)
    if follow:
        import normorder_follow  # pandas and scipy cost seconds

        normorder_follow.follow(grid, where, partial(overview, grid, where, decides(grid)), every)
        return
    where.check_there()
    found = overview(grid, where, decides(grid))
    if as_json:
        by_value = [{"field": field, "value": value, **counts} for (field, value), counts in found.by_value.items()]
        reasons = [{"fate": fate, "reason": reason, "runs": runs} for (fate, reason), runs in found.reasons.items()]
        told = {"total": dict(found.total), "by_value": by_value, "reasons": reasons, "later": found.later}
        print_json({"grid": grid.name, "store": str(where.path), **told, "unchosen": unchosen(grid, found.unchosen)})
        return
    more = f", then up to {found.later:,} more" if found.later else ""
    print(f"{grid.name} in {where.path}: {sum(found.total.values()):,} planned runs{more}")
    rows = [(f"{field} {setting(value)}", counts) for (field, value), counts in found.by_value.items()]
    print_table([[what, *counts.values()] for what, counts in [("all", found.total), *rows]], ["", *FATES])
    for (fate, reason), count in found.reasons.items():
        print(f"{count:,} {fate}: {reason}")
    print_unchosen(grid, found.unchosen)


@app.command("merge")
def merge_command(
    stores: Annotated[
        list[str], typer.Argument(help="stores to read, and at last the one to merge into", metavar="A B … INTO")
    ],
) -> None:
    """Copy what stores hold into the last one, which need not be there yet. Exit code 1 where runs are in conflict.

    Example: normorder merge a/store b/store both
    """
    *sources, target = map(Store, stores)
    if not sources:
        raise StoreError(f"{target.path}: merge needs at least one store to read and one to merge into")
    print(f"{target.path}: {merge(sources, target)}")
    conflicts = target.conflicts()
    for run_id, rows in conflicts.groupby("run_id"):
        apart = [name for name in MEASURED if rows[name].nunique(dropna=False) > 1]
        for _, row in rows.iterrows():
            values = ", ".join(f"{name} {row[name]}" for name in apart[:3]) + (", …" if len(apart) > 3 else "")
            print(f"conflict: run {run_id}, {row['host']} {_moment(row['started_at'])}: {values}")
    if len(conflicts):
        runs = conflicts["run_id"].nunique()
        print(f"{runs:,} runs are in conflict: equal runs by equal engine, code and data with other results")
        raise typer.Exit(FAILED)


def _moment(started_at: pd.Timestamp) -> str:
    return "at an unknown time" if pd.isna(started_at) else f"{started_at:%Y-%m-%d %H:%M}"


def plain_output() -> None:
    """In a log errors stand below what led to them; names of files that are no text can be told."""
    sys.stdout.reconfigure(line_buffering=True, errors="backslashreplace")


def again() -> str:
    """The command that was given, as it can be typed."""
    return without_secrets(shlex.join([program(), *sys.argv[1:]]))


def main() -> None:
    plain_output()
    with interruptible():
        try:
            app()
        except (KeyboardInterrupt, SystemExit) as end:
            if (
                isinstance(end, SystemExit) and end.code != INTERRUPTED
            ):  # which it is where typer has seen the interrupt
                raise
            ignore_signals()
            Console().show_cursor()
            hint = TO_GO_ON if sys.argv[1:2] == ["sweep"] else "to go on:"
            print(f"normorder: interrupted; {hint} {again()}", file=sys.stderr)
            sys.exit(INTERRUPTED)
        except WrongUse as error:
            line = without_secrets(str(error)).replace("\n", "\\n")  # one line, whatever a path holds
            print("normorder:", line, file=sys.stderr)
            sys.exit(USAGE)
        except Exception as error:
            if getattr(error, "errno", None) in (errno.ENOSPC, errno.EDQUOT):
                print(f"normorder: {error.filename or 'what it prints'}: {error.strerror}", file=sys.stderr)
                sys.exit(USAGE)
            print(without_secrets("".join(traceback.format_exception(error))), end="", file=sys.stderr)
            print("normorder: this is a fault of normorder, not of yours", file=sys.stderr)
            sys.exit(OURS)


if __name__ == "__main__":
    main()
