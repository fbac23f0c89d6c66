"""What happened to every planned run, what mixes in a store, and where all of it comes from."""

from collections.abc import Sequence

import numpy as np
import pandas as pd

from grids import Grid
from reports.outcomes import FIELDS_OF_A_PAIR, Results, of_runs
from reports.statistics import failure_rate_bound
from reports.tables import Column, Value, value
from reports.words import label, minus, p_value, varying
from results import Store
from results.overview import last_line
from results.store import FINISHED

LOST = (Column("cell"), Column("order"), Column("runs", "number"), Column("seeds", "long"), Column("reason", "long"))
UNEVEN = (
    Column("cell"),
    Column("contrast"),
    Column("pairs", "number", "seeds with an outcome in both arms: what is compared"),
    Column("seeds of the first arm only", "long"),
    Column("seeds of the second arm only", "long"),
)
DIVERGENCE = (
    Column("cell"),
    Column("contrast"),
    Column("diverged, first arm", "number"),
    Column("second arm", "number"),
    Column("pairs", "number"),
    Column("rates at most", "number", "upper ends of the Wilson intervals, first arm / second"),
    Column(
        "p, Holm", "number", "exact McNemar test that both arms diverge equally often, adjusted within the contrast"
    ),
)
CONFLICT = ("run_id", "trial", "engine", "test_accuracy", "test_loss", "started_at", "host")
MIXED = {
    "commit": "commits",
    "device": "kinds of hardware",
    "engine": "engines",
    "code": "versions of the code of an architecture",
    "data": "versions of a data set",
    "versions": "sets of versions of Python and libraries",
}
BELONGS_TO = {"code": "architecture", "data": "dataset"}  # which of them a value of the column is about


def missing(runs: pd.DataFrame, metrics: Sequence[str]) -> list[list[Value | str]]:
    """Planned runs that have no outcome, or lack one of the metrics, a row of LOST for each cell and reason."""
    reasons = pd.Series("not run", runs.index[runs["status"] == "missing"])
    failed = "failed: " + _last_lines(runs.loc[runs["status"] == "failed", "error"])
    unmeasured = [pd.Series(f"{metric} is not a number", runs.index[without(runs, metric)]) for metric in metrics]
    return _by_reason(runs, pd.concat([reasons, failed, *unmeasured]))


def diverged(runs: pd.DataFrame) -> list[list[Value | str]]:
    """Planned runs that diverged, a row of LOST for each cell and reason."""
    return _by_reason(runs, _last_lines(runs.loc[runs["status"] == "diverged", "error"]))


def _last_lines(errors: pd.Series) -> pd.Series:
    return pd.Series([last_line(error) for error in errors.fillna("")], errors.index, object)


def without(runs: pd.DataFrame, metric: str) -> pd.Series:
    """Which runs are done and yet have no number in this metric."""
    return (runs["status"] == "done") & ~np.isfinite(runs[metric].astype(float))


def _by_reason(runs: pd.DataFrame, reasons: pd.Series) -> list[list[Value | str]]:
    """Rows of LOST. reasons: by the places of the runs that have one."""
    if reasons.empty:
        return []
    told = varying(runs)
    by = [*told, "order", "reason"]
    rows = runs.loc[reasons.index].assign(reason=reasons.to_numpy())
    found = []
    for cell, group in rows.groupby(by, sort=False):
        values = dict(zip(by, cell, strict=True))
        count = value(f"{len(group):,}", len(group))
        found.append([label(values, told), values["order"], count, _seeds(group["seed"]), values["reason"]])
    return found


def uneven(results: Results, varying: Sequence[str]) -> list[list[Value | str]]:
    """Comparisons whose arms have outcomes of different seeds in the primary metric, in the columns UNEVEN."""
    runs = results.runs
    lacking = without(runs, results.grid.analysis.primary.metric)
    there = np.append((runs["status"].isin(FINISHED) & ~lacking).to_numpy(), False)
    found = []
    for contrast in results.grid.analysis.contrasts:
        columns, places = results.columns(contrast)
        a, b = (there[place] for place in places)
        for k in np.flatnonzero((a ^ b).any(0)):
            pairs = (a & b)[:, k].sum()
            cell = label(dict(results.pairs[columns[k]]), varying)
            only = [_seeds(np.flatnonzero(each[:, k])) for each in (a & ~b, b & ~a)]
            found.append([cell, minus(contrast), value(str(pairs), pairs), *only])
    return found


def _seeds(seeds: Sequence[int]) -> str:
    return (", ".join(map(str, seeds[:12])) + (" …" if len(seeds) > 12 else "")) or "–"


def divergence(frame: pd.DataFrame, varying: Sequence[str]) -> list[list[Value | str]]:
    """Comparisons with diverged runs, once each whatever the metric, in the columns DIVERGENCE."""
    once = frame.drop_duplicates([*FIELDS_OF_A_PAIR, "contrast"])
    rows = once[(once["diverged_a"] > 0) | (once["diverged_b"] > 0)]
    found = []
    for row in rows.to_dict("records"):
        bounds = [failure_rate_bound(row[arm], row["n"]) for arm in ("diverged_a", "diverged_b")]
        counts = [value(str(row[name]), row[name]) for name in ("diverged_a", "diverged_b", "n")]
        rates = value(" / ".join(f"{bound:.0%}" for bound in bounds), max(bounds))
        p = value(p_value(row["p_diverged_holm"]), row["p_diverged_holm"])
        found.append([label(row, varying), minus(row["contrast"]), *counts, rates, p])
    return found


def conflicts(rows: pd.DataFrame) -> list[list[str]]:
    """Rows in conflict, in the columns CONFLICT."""
    return rows[list(CONFLICT)].astype(str).to_numpy().tolist()


def warnings(runs: pd.DataFrame, results: Results, replicates: pd.DataFrame) -> list[str]:
    """What a reader must know before the numbers: a changed analysis, conflicts, and what mixes in this store.

    runs: the planned ones, those too by which results were chosen. results: what is compared.
    """
    grid, conflicts = results.grid, results.conflicts
    words = []
    if grid.seeds.count != grid.declared_seeds:
        words.append(
            f"The grid declares {grid.declared_seeds} seeds of each cell, this report is of {grid.seeds.count}: "
            "a new analysis, with a hash of its own."
        )
    if grid.changes:
        words.append(
            f"Of what the grid declares these values were replaced: {', '.join(grid.changes)}: a new analysis, with a hash "
            "of its own."
        )
    replicates = of_runs(replicates, runs)
    if len(replicates):
        apart = replicates.groupby("run_id")["test_accuracy"].agg(lambda values: values.max() - values.min()).max()
        words.append(
            f"{replicates['run_id'].nunique()} runs were made by more than one engine; the one with the smallest trial "
            f"id counts. Their test accuracies are up to {apart * 100:.2f} pp apart."
        )
    if len(conflicts):
        words.append(
            f"{len(conflicts)} rows are in conflict: equal runs by equal engine, code and data with other results. Of each "
            "run the row with the smallest trial id counts; comparisons that rest on one say so in their notes."
        )
    for metric in grid.analysis.metrics:
        if lacking := without(runs, metric).sum():
            words.append(f"{lacking:,} finished runs lack a number in {metric}; they are missing from its comparisons.")
    mixed = (_mix(runs, results, column) for column in MIXED)
    return [*words, *filter(None, [_pairs_apart(results), *mixed])]


def _pairs_apart(results: Results) -> str:
    """A sentence where the two runs of a pair were trained on different hardware; else nothing."""
    codes = np.append(pd.factorize(_made(results.runs, "device"))[0], -1)  # −1: no outcome
    apart = total = 0
    for contrast in results.grid.analysis.contrasts:
        first, second = (codes[places] for places in results.columns(contrast)[1])
        both = (first >= 0) & (second >= 0)
        apart += (both & (first != second)).sum()
        total += both.sum()
    if not apart:
        return ""
    return (
        f"{apart:,} of {total:,} pairs have their two runs on different kinds of hardware: there a difference between the "
        "arms may be one between machines."
    )


def _mix(planned: pd.DataFrame, results: Results, column: str) -> str:
    """A sentence where planned runs differ in what made them, and in how many comparisons they do; else nothing."""
    made = _made(planned, column)
    belongs = planned[BELONGS_TO[column]] if column in BELONGS_TO else np.zeros(len(planned))
    kinds = made.groupby(belongs).nunique().max()
    if column == "code":  # an activation from a file of its own has a version of its own
        ours = made.str.partition("+")[0]
        kinds = max(
            ours.groupby(belongs).nunique().max(),
            made.groupby([belongs, planned["activation"]]).nunique().max(),
        )
    if kinds < 2:
        return ""
    codes = np.append(pd.factorize(_made(results.runs, column))[0], -1)  # −1: no outcome
    mixed = total = 0
    for contrast in results.grid.analysis.contrasts:
        columns, places = results.columns(contrast)
        here = codes[np.concatenate(places)]
        smallest = np.where(here < 0, len(codes), here).min(0)
        mixed += (here.max(0) > smallest).sum()
        total += len(columns)
    where = f"within {mixed} of {total} comparisons" if mixed else "but no comparison does"
    return f"The runs mix {kinds} {MIXED[column]}, {where}."


def _made(runs: pd.DataFrame, column: str) -> pd.Series:
    """What made the runs that have an outcome."""
    made = runs[column].where(runs["status"].isin(FINISHED))
    if column == "engine":
        made = made.str.replace(r", S=\d+", "", regex=True)  # as many seeds together as the shape asks for
    return made


def provenance(grid: Grid, runs: pd.DataFrame, store: Store) -> list[tuple[str, str]]:
    """Names and words. runs: with `planned`; those that are not were made for another choice or look, and decide nothing."""
    here = runs[runs["status"].isin(FINISHED)]
    finished = f"{here['planned'].sum():,} finished of {runs['planned'].sum():,} planned"
    others = (~here["planned"]).sum()
    unplanned = "values that were not chosen" if grid.searched else "seeds that nothing asked for"
    if grid.searched and len(grid.seeds.looks) > 1:
        unplanned += ", or seeds that nothing asked for"

    def kinds(column: str) -> str:
        counts = here[column].replace("", "none").value_counts()
        rest = f"; and {len(counts) - 8} more" if len(counts) > 8 else ""
        return "; ".join(f"{kind} ({count:,} runs)" for kind, count in counts.head(8).items()) + rest

    return [
        (
            "analysis hash",
            f"{grid.analysis_hash} (arms, contrasts, primary, margins, α, cells, seeds and looks as declared)",
        ),
        ("store", store.path.name),
        (
            "runs",
            finished + (f"; {others:,} more at {unplanned}" if others else ""),
        ),
        ("training time", f"{here['wall_s'].sum() / 3600:.2f} slot-hours"),
        ("started", f"{here['started_at'].min():%Y-%m-%d %H:%M} to {here['started_at'].max():%Y-%m-%d %H:%M} UTC"),
        *((name, kinds(name)) for name in ("commit", "versions", "engine", "device", "host", "code", "data")),
    ]
