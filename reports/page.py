"""One self-contained HTML page from a grid and its store, with the figures and tables that it shows as files beside it.

A section is a title in SECTIONS, a block in page.html and what `build` hands to it: figures that are in the album, and
tables as columns and rows.
"""

import base64
import hashlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from grids import Grid
from reports import audit, claims, export, figures, looks, sections, tables, words
from reports.album import Album, template
from reports.answer import answer, scope
from reports.comparisons import compare
from reports.curves import Curves
from reports.estimation import estimation
from reports.measures import measure
from reports.outcomes import Paired, Results, gather
from reports.rate_curves import how
from reports.rates import Selected, select
from reports.spread import SPREAD, spread, spread_answer
from reports.where import export as export_effects
from reports.where import where
from reports.words import VERDICTS, minus, seeds
from results import Store
from results.store import FINISHED

# Compared beside the metrics of the analysis, for the primary contrast alone.
SECONDARY = (
    "test_calibration_error", "generalisation_gap", "first_epoch_val_accuracy", "mean_val_accuracy", "epochs_to_threshold",
)  # fmt: skip
SECTIONS = {
    "differences": "Where the arms differ",
    "intervals": "Differences and their intervals",
    "depends": "Where it depends",
    "seeds": "Seed by seed",
    "training": "Training",
    "growth": "Over epochs, and running averages",
    "inside": "Inside the networks",
    "rates": "How the nuisance was chosen",
    "spread": "Variance and divergence",
    "claims": "Published claims",
    "table": "Every comparison",
    "audit": "Missing and diverged runs",
    "methods": "Methods",
    "provenance": "Provenance",
}


ALWAYS = ("parquet", "csv")  # forms of the table of comparisons that every report has


def build(
    grid: Grid, store: Store, folder: Path, own_claims: Path | None = None, plugins: Sequence[str] = ()
) -> list[str]:
    """Write index.html, its tables as files and figures/ into `folder`; say what was written.

    own_claims: a file of claims that are judged beside the published ones. plugins: what the page says of each that is used.
    """
    ledger = (*claims.read(), *(claims.read(own_claims) if own_claims else ()))
    gathered = gather(grid, store)
    selected = select(gathered)
    selected = selected._replace(known=looks.known(selected))
    frame = compare(selected.results)
    album = Album(folder / "figures")
    page, script = folder / "index.html", Path(__file__).with_name("page.js").read_text(encoding="utf-8")
    with export.writing(folder):
        for form, name in export.FILES.items():
            if form in ALWAYS or (folder / name).exists():  # an earlier export, which would tell of another analysis
                export.write(frame, grid, form, folder)
        export.write_csv(selected.known.drop(columns="cell_id"), folder / "runs.csv")
        shown, beside = _contents(gathered, selected, frame, store, ledger, album)
        shown["provenance"] += [("plug-ins", "; ".join(plugins))] if plugins else []
        for name, table in beside.items():
            export.write_csv(table, folder / f"{name}.csv")
        if "layers" in beside:
            beside["layers"].to_parquet(folder / "layers.parquet", index=False)
        shown |= {"script": script, "script_hash": _hash(script)}
        page.write_text(template("page.html").render(shown), encoding="utf-8")
    verdicts = frame["verdict"].value_counts()
    counts = ", ".join(f"{verdicts[v]:,} {v}" for v in VERDICTS if v in verdicts)
    tables = ", ".join(f"{name}.csv" for name in ("comparisons", "runs", *beside))
    parquet = ", ".join(f"{name}.parquet" for name in ("comparisons", "layers") if name in ("comparisons", *beside))
    files = f"{tables}, {parquet}, and {len(album.names)} figures as SVG and PNG"
    headline = shown["answer"]["headline"]
    return [headline, f"{len(frame):,} comparisons: {counts}", str(page.resolve()), f"beside it {files}"]


def _contents(
    gathered: Results,
    selected: Selected,
    frame: pd.DataFrame,
    store: Store,
    ledger: Sequence[claims.Claim],
    album: Album,
) -> tuple[dict[str, object], dict[str, pd.DataFrame]]:
    """What page.html shows, by the names that it has there, and the tables that are files beside it."""
    grid, compared, results = gathered.grid, looks.taken(selected.results), looks.first(selected.results)
    primary = grid.analysis.primary
    varying = words.varying(results.runs)
    planned = selected.known[selected.known["planned"]]
    early = frame if results is compared else compare(results)  # of the first look
    depends = where(results, measure(primary.metric), primary.contrast, frame)
    growth = sections.growth(results, store, frame, varying, album.add)
    secondary = compare(growth["results"], SECONDARY, [primary.contrast])
    judged = claims.judged(ledger, gathered, growth["results"], store)
    beside = {
        "secondary": secondary, "effects": export_effects(depends), "statistics": growth["statistics"], "claims": judged,
    }  # fmt: skip
    if len(selected.tried):
        beside["tried"] = selected.tried
    if len(selected.rungs):
        beside["rungs"] = selected.rungs
    shown = {
        "grid": grid,
        "tables": tables,
        "audit": audit,
        "verdicts": VERDICTS,
        "marks": figures.MARKS,
        "answer": answer(frame, grid, varying),
        "warnings": audit.warnings(planned, compared, store.replicates()),
        "how": how(grid),
        "looks": looks.in_words(selected.results, frame),
        "columns": sections,
        "depends": sections.depends(depends, album.add),
        "growth": growth,
        "rates": sections.chosen_rates(selected, varying, album.add),
        "claims": sections.claims(judged),
        "left_out": figures.left_out(frame, varying, primary),
        **_families(frame, grid, varying, album),
        "seeds": _seeds(compared, frame, varying, album),
        "training": _training(results, growth["curves"], varying, album),
        "spread_columns": SPREAD,
        "spread": spread(results, varying, tables.MOST_ROWS),
        "spread_count": (frame["metric"] == primary.metric).sum(),
        "spread_answer": spread_answer(early, primary.metric, grid.analysis.alpha),
        "families": [
            *tables.families(frame, grid, varying),
            *tables.families(secondary, results.grid, varying, tables.MOST_SECONDARY),
        ],
        "missing": audit.missing(planned, grid.analysis.metrics),
        "diverged": audit.diverged(planned),
        "divergence": audit.divergence(early, varying),
        "uneven": audit.uneven(compared, varying),
        "conflicts": audit.conflicts(gathered.conflicts),
        "scope": scope(frame, grid),
        "provenance": audit.provenance(grid, selected.known, store),
    }
    shown["inside"] = sections.inside(results, store, varying, album.add)  # last, so that others have room before it
    if shown["inside"]:
        beside |= shown["inside"]["files"]
    absent = {name for name in ("rates", "inside") if not shown[name]}
    shown["sections"] = {name: title for name, title in SECTIONS.items() if name not in absent}
    return shown, beside


def _families(frame: pd.DataFrame, grid: Grid, varying: Sequence[str], album: Album) -> dict[str, list[dict]]:
    """A forest and a heatmap a family, as far as there is room; the primary one first, then those of its metric."""
    analysis = grid.analysis
    contrasts = sorted(analysis.contrasts, key=lambda contrast: contrast != analysis.primary.contrast)
    shown = [(metric, contrast) for metric in analysis.metrics for contrast in contrasts][: figures.MOST_FAMILIES]
    pictures = {"heatmaps": [], "forests": []}
    for metric, contrast in shown:
        family = frame[(frame["metric"] == metric) & (frame["contrast"] == contrast)]
        title, name = (
            f"{measure(metric).title}, {minus(contrast)}",
            f"{analysis.contrasts.index(contrast)}-{metric}",
        )
        figure = figures.forest(frame, metric, contrast, varying, analysis.margin.get(metric))
        pictures["forests"].append(album.add(figure, f"forest-{name}", title, seeds(family)))
        figure = figures.heatmap(frame, metric, contrast, varying)
        pictures["heatmaps"].append(album.add(figure, f"heatmap-{name}", title, seeds(family)))
    return pictures


def _by_arm(results: Results) -> pd.DataFrame:
    """Its runs, with their arms."""
    arms = {order: arm for arm, order in results.grid.analysis.arms.items()}
    return results.runs.assign(arm=results.runs["order"].map(arms))


def _seeds(results: Results, frame: pd.DataFrame, varying: Sequence[str], album: Album) -> list[dict]:
    """The seeds behind the primary family in pairs, and behind every arm."""
    primary, arms = results.grid.analysis.primary, list(results.grid.analysis.arms)
    of = measure(primary.metric)
    family = frame[(frame["metric"] == primary.metric) & (frame["contrast"] == primary.contrast)]
    _, places = results.columns(primary.contrast)
    paired = estimation(family, Paired(results.runs, of, places), primary.contrast, varying, arms)
    runs = _by_arm(results)
    single = figures.by_arm(runs, primary.metric, varying, arms)
    n = runs[runs["status"] == "done"].groupby("cell_id").size()
    found = []
    if paired is not None:
        title = f"{of.title}, {minus(primary.contrast)}: pairs of equal seed"
        found.append(album.add(paired, f"seeds-{primary.metric}", title, f"{seeds(family)} pairs"))
    if single is not None:
        about = f"{seeds(pd.DataFrame({'n': n}))} finished runs a cell and arm"
        found.append(album.add(single, f"by-arm-{primary.metric}", f"{of.title} of every run", about))
    return found


def _training(results: Results, read: Curves, varying: Sequence[str], album: Album) -> list[dict]:
    """Learning curves, as far as the store has them."""
    runs = _by_arm(results)
    fields, arms = list(varying) or ["architecture"], list(results.grid.analysis.arms)
    rows = np.flatnonzero(runs["status"].isin(FINISHED))
    rows = rows[runs.iloc[rows].groupby(fields, sort=False).ngroup() < figures.MOST_PANELS]
    made, epochs = runs.iloc[rows][[*fields, "arm"]], np.arange(read.loss.shape[1])
    cells = list(made[list(varying)].drop_duplicates().itertuples(index=False, name=None))
    long = made.iloc[np.repeat(np.arange(len(rows)), len(epochs))].assign(
        epoch=np.tile(epochs, len(rows)), accuracy=read.accuracy[rows].ravel(), loss=read.loss[rows].ravel()
    )
    found = []
    for value in ("accuracy", "loss"):
        figure = figures.curves(long, value, varying, cells, arms)
        if figure is not None:
            about = f"up to {results.grid.seeds.count} seeds an arm"
            title = f"validation {value} while training"
            found.append(album.add(figure, f"curves-{value}", title, about))
    return found


def _hash(script: str) -> str:
    """By which a browser knows the one script that it may run."""
    return "sha256-" + base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
