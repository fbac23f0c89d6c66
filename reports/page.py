"""One self-contained HTML page from a grid and its store, with the figures and tables that it shows as files beside it."""

from collections.abc import Sequence
from pathlib import Path

import jinja2
import numpy as np
import pandas as pd

from grids import Grid
from reports import figures
from reports.comparisons import compare
from reports.measures import measure
from reports.outcomes import FIELDS_OF_A_PAIR, ReportError, Results, gather
from reports.statistics import failure_rate_bound
from results import Store

MOST_ROWS = 300  # of a table on the page; all are in the files
VERDICTS = {
    "different": "the arms differ: the difference test rejects at the family's level, the equivalence test does not",
    "equivalent": "any difference is smaller than the margin: only the equivalence test rejects",
    "negligible": "both reject: there is a difference, and it is smaller than the margin",
    "underpowered": "too few seeds for the spread: no mean difference could have shown equivalence",
    "inconclusive": "neither test rejects, though the seeds could have shown equivalence (or no margin was declared)",
}


def build(grid: Grid, store: Store, folder: Path) -> list[str]:
    """Write index.html, comparisons.parquet and .csv, runs.csv and figures/ into `folder`; say what was written."""
    results = gather(grid, store)
    frame = compare(results)
    conflicts = store.conflicts()
    conflicts = conflicts[conflicts["run_id"].isin(results.runs["run_id"])]
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ReportError(f"{folder}: cannot be written: {error.strerror}") from None
    frame.to_parquet(folder / "comparisons.parquet", index=False)
    frame.to_csv(folder / "comparisons.csv", index=False)
    arm_of = {order: arm for arm, order in grid.analysis.arms.items()}
    runs = results.runs.assign(arm=results.runs["order"].map(arm_of))
    runs.drop(columns="cell_id").to_csv(folder / "runs.csv", index=False)
    varying = [f for f in FIELDS_OF_A_PAIR if runs[f].nunique() > 1]
    text = _template().render(
        grid=grid,
        answer=answer(frame, grid, varying),
        arms=grid.analysis.arms,
        heatmaps=_heatmaps(frame, grid, varying, folder / "figures"),
        forests=_forests(frame, grid, varying, folder / "figures"),
        pictures=_pictures(results, runs, store, varying, folder / "figures"),
        families=_families(frame, varying),
        most_rows=MOST_ROWS,
        missing=_lost(runs, ["missing", "failed"], varying),
        diverged=_lost(runs, ["diverged"], varying),
        divergence=_divergence(frame, varying),
        left_out=figures.left_out(frame, varying, grid.analysis.primary),
        warnings=_warnings(grid, runs, conflicts, store.replicates()),
        conflicts=_conflicts(conflicts),
        scope=scope(frame, grid),
        verdicts=VERDICTS,
        marks=figures.MARKS,
        provenance=_provenance(runs, store),
    )
    page = folder / "index.html"
    page.write_text(text, encoding="utf-8")
    verdicts = frame["verdict"].value_counts()
    counts = ", ".join(f"{verdicts[v]:,} {v}" for v in VERDICTS if v in verdicts)
    return [answer(frame, grid, varying)["headline"], f"{len(frame):,} comparisons: {counts}", str(page.resolve())]


def answer(frame: pd.DataFrame, grid: Grid, varying: Sequence[str]) -> dict[str, object]:
    """The primary family in words: a headline, a sentence of counts, and the extremes with their intervals."""
    primary = grid.analysis.primary
    family = frame[(frame["metric"] == primary.metric) & (frame["contrast"] == primary.contrast)]
    first, second = primary.contrast.split(" - ")
    better = 1 if measure(primary.metric).larger_is_better else -1
    different = family[family["verdict"] == "different"]
    for_first = different[different["difference"] * better > 0]
    for_second = different[different["difference"] * better < 0]
    same = family["verdict"].isin(["equivalent", "negligible"]).sum()
    count = len(family)
    name = primary.metric.replace("_", " ")
    if len(for_first) and len(for_second):
        headline = (
            f"It depends. In {name}, {first} is better than {second} in {len(for_first)} of {count} comparisons and "
            f"worse in {len(for_second)}; the sign flips, so no single number sums them up."
        )
    elif len(different):
        winner, loser = (first, second) if len(for_first) else (second, first)
        headline = (
            f"In {name}, {winner} is better than {loser} in {len(different)} of {count} comparisons; "
            "none is different the other way."
        )
    elif same:
        headline = (
            f"In {name}, no comparison of {first} and {second} is different; {same} of {count} are within the margin."
        )
    else:
        headline = f"Undecided: in {name}, no comparison of {first} and {second} shows a difference or an equivalence."
    margin = grid.analysis.margin.get(primary.metric)
    counts = family["verdict"].value_counts()
    words = ", ".join(f"{counts[v]} {v}" for v in VERDICTS if v in counts)
    pairs = sorted(set(family["n"]))
    n = f"n = {pairs[0]}" if len(pairs) == 1 else f"n = {pairs[0]} to {pairs[-1]}"
    within = "no margin declared" if margin is None else f"margin {_number(margin, primary.metric)}"
    contrast = figures.minus(primary.contrast)
    sentences = [f"Of {count} comparisons ({n} paired seeds each; {within}): {words}."]
    if len(for_first):
        sentences.append(f"Better with {first} ({contrast}): {_extremes(for_first, varying, better)}.")
    if len(for_second):
        sentences.append(f"Better with {second} ({contrast}): {_extremes(for_second, varying, -better)}.")
    if same:
        cells = family[family["verdict"].isin(["equivalent", "negligible"])]
        sentences.append(
            f"Equivalent or negligible: {_list([figures.label(r, varying) for _, r in cells.iterrows()])}."
        )
    return {
        "headline": headline,
        "sentences": sentences,
        "metric": primary.metric,
        "contrast": figures.minus(primary.contrast),
    }


def _extremes(family: pd.DataFrame, varying: Sequence[str], sign: int) -> str:
    """The largest three differences of a set, with intervals and n."""
    ranked = family.loc[(family["difference"] * sign).sort_values(ascending=False).index]
    parts = []
    for _, row in ranked.head(3).iterrows():
        beyond = ""
        if np.isfinite(row["margin"]) and (row["low_family"] > row["margin"] or row["high_family"] < -row["margin"]):
            beyond = ", larger than the margin"
        parts.append(f"{figures.label(row, varying)} {interval(row)} (n = {row['n']}{beyond})")
    rest = len(ranked) - len(parts)
    return "; ".join(parts) + (f"; and {rest} more" if rest else "")


def _list(names: list[str], most: int = 12) -> str:
    return "; ".join(names[:most]) + (f"; and {len(names) - most} more" if len(names) > most else "")


def _number(value: float, metric: str) -> str:
    """A margin in its unit: percentage points for shares, nats for losses."""
    of = measure(metric)
    return f"{_plain(value * of.factor, of.decimals)} {of.unit}"


def interval(row: pd.Series) -> str:
    """Difference with its 95 % interval: '+1.20 pp [0.80, 1.60]'."""
    of = measure(row["metric"])
    middle, low, high = (_plain(row[name] * of.factor, of.decimals) for name in ("difference", "low", "high"))
    return f"{'+' if row['difference'] > 0 else ''}{middle} {of.unit} [{low}, {high}]"


def _p(value: float) -> str:
    if np.isnan(value):
        return "–"
    return "< 0.0001" if value < 1e-4 else f"{value:.4f}" if value < 0.1 else f"{value:.2f}"


def _heatmaps(frame: pd.DataFrame, grid: Grid, varying: Sequence[str], folder: Path) -> list[dict[str, str]]:
    return [
        {
            "title": metric.replace("_", " "),
            "svg": figures.save(figures.heatmap(frame, metric, varying), folder, f"heatmap-{metric}"),
        }
        for metric in grid.analysis.metrics
    ]


def _forests(frame: pd.DataFrame, grid: Grid, varying: Sequence[str], folder: Path) -> list[dict[str, str]]:
    shown = []
    for i, contrast in enumerate(grid.analysis.contrasts):
        for metric in grid.analysis.metrics:
            figure = figures.forest(frame, metric, contrast, varying, grid.analysis.margin.get(metric))
            title = f"{figures.minus(contrast)}: {metric.replace('_', ' ')}"
            shown.append({"title": title, "svg": figures.save(figure, folder, f"forest-{i}-{metric}")})
    return shown


def _pictures(results: Results, runs: pd.DataFrame, store: Store, varying: Sequence[str], folder: Path) -> list[dict]:
    """Learning curves and values by arm, as far as the store has them."""
    arms = list(results.grid.analysis.arms)
    wanted = [*varying, "arm", "run_id", "trial"]
    curves = store.read("curves").to_pandas().drop(columns="lr")  # the schedule's; a cell has one of its own
    curves = curves[curves["split"] == "val"].merge(runs[wanted], on=["run_id", "trial"])
    metric = results.grid.analysis.primary.metric
    cells = list(dict.fromkeys(runs[list(varying)].itertuples(index=False, name=None)))
    made = {
        "Accuracy while training": ("curves-accuracy", figures.curves(curves, "accuracy", varying, cells, arms)),
        "Loss while training": ("curves-loss", figures.curves(curves, "loss", varying, cells, arms)),
        f"{metric.replace('_', ' ').capitalize()} of every run": (
            f"by-arm-{metric}", figures.by_arm(runs, metric, varying, arms)
        ),
    }  # fmt: skip
    return [{"title": t, "svg": figures.save(f, folder, name)} for t, (name, f) in made.items() if f is not None]


def _families(frame: pd.DataFrame, varying: Sequence[str]) -> list[dict]:
    """Tables of the page, in the order of the frame."""
    families = []
    for (metric, contrast), family in frame.groupby(["metric", "contrast"], sort=False):
        rows = [_row(row, varying) for _, row in family.head(MOST_ROWS).iterrows()]
        names = {"metric": metric.replace("_", " "), "contrast": figures.minus(contrast)}
        families.append({**names, "rows": rows, "count": len(family)})
    return families


def _row(row: pd.Series, varying: Sequence[str]) -> dict[str, str]:
    """One comparison, formatted. Beside equivalent and negligible stands how often a run may yet fail, unseen."""
    notes = [row["notes"]]
    if row["verdict"] in ("equivalent", "negligible"):
        bound = failure_rate_bound(max(row["diverged_a"], row["diverged_b"]), row["n"])
        notes.append(f"failure rate ≤ {bound:.0%}")
    of = measure(row["metric"])
    means = " / ".join(_plain(row[name] * of.factor, of.decimals) for name in ("mean_a", "mean_b"))
    means += " %" if of.unit == "pp" else ""
    low, high = _plain(row["improvement_low"]), _plain(row["improvement_high"])
    return {
        "cell": figures.label(row, varying),
        "n": f"{row['n']}" + (f" ({row['missing']} missing)" if row["missing"] else ""),
        "means": means,
        "difference": interval(row),
        "effect": _plain(row["effect_size"]),
        "better": f"{_plain(row['probability_of_improvement'])} [{low}, {high}]",
        "p_holm": _p(row["p_holm"]),
        "p_sign_flip": _p(row["p_sign_flip"]),
        "p_equivalence_holm": _p(row["p_equivalence_holm"]),
        "seeds_needed": _plain(row["seeds_needed"], 0),
        "verdict": row["verdict"],
        "notes": "; ".join(filter(None, notes)),
    }


def _plain(value: float, digits: int = 2) -> str:
    """A number with so many decimals; a dash where there is none."""
    if not np.isfinite(value):
        return "–" if np.isnan(value) else "∞" if value > 0 else "−∞"
    return f"{value:,.{digits}f}".replace("-", "−")


def _lost(runs: pd.DataFrame, statuses: Sequence[str], varying: Sequence[str]) -> list[dict[str, object]]:
    """Planned runs of these statuses, a row a cell and reason, with their seeds."""
    rows = runs[runs["status"].isin(statuses)]
    last_lines = [str(error).strip().splitlines()[-1] for error in rows["error"].fillna("no reason recorded")]
    rows = rows.assign(reason=np.where(rows["status"] == "missing", "not run", np.array(last_lines, object)))
    found = []
    for cell, group in rows.groupby([*varying, "order", "status", "reason"], sort=False):
        values = dict(zip([*varying, "order", "status", "reason"], cell, strict=True))
        seeds = ", ".join(map(str, group["seed"].head(12))) + (" …" if len(group) > 12 else "")
        what = {"cell": figures.label(values, varying), "order": values["order"], "n": len(group), "seeds": seeds}
        found.append({**what, "reason": ("failed: " if values["status"] == "failed" else "") + values["reason"]})
    return found


def _divergence(frame: pd.DataFrame, varying: Sequence[str]) -> list[dict[str, object]]:
    """Comparisons with diverged runs, once each whatever the metric."""
    once = frame.drop_duplicates([*FIELDS_OF_A_PAIR, "contrast"])
    rows = once[(once["diverged_a"] > 0) | (once["diverged_b"] > 0)]
    return [
        {
            "cell": figures.label(row, varying), "contrast": figures.minus(row["contrast"]), "a": row["diverged_a"],
            "b": row["diverged_b"], "n": row["n"], "p": _p(row["p_diverged_holm"]),
            "bounds": " / ".join(f"≤ {failure_rate_bound(row[arm], row['n']):.0%}" for arm in ("diverged_a", "diverged_b")),
        }
        for _, row in rows.head(MOST_ROWS).iterrows()
    ]  # fmt: skip


def _warnings(grid: Grid, runs: pd.DataFrame, conflicts: pd.DataFrame, replicates: pd.DataFrame) -> list[str]:
    """What a reader must know before the numbers: a changed analysis, conflicts, and what mixes in this store."""
    here = runs[runs["status"].isin(["done", "diverged"])]
    words = []
    if grid.seeds.count != grid.declared_seeds:
        words.append(
            f"The grid declares {grid.declared_seeds} seeds of each cell, this report is of {grid.seeds.count}: "
            "a new analysis, with a hash of its own."
        )
    replicates = replicates[replicates["run_id"].isin(runs["run_id"])]
    if len(replicates):
        apart = replicates.groupby("run_id")["test_accuracy"].agg(lambda values: values.max() - values.min()).max()
        words.append(
            f"{replicates['run_id'].nunique()} runs were made by more than one engine; the one with the smallest trial "
            f"id counts. Their test accuracies are up to {apart * 100:.2f} pp apart."
        )
    if len(conflicts):
        words.append(
            f"{len(conflicts)} rows are in conflict: equal runs by equal engine, code and data with other results."
        )
    for column, what in (("engine", "engines"), ("data", "versions of the data set"), ("device", "processors")):
        by = ["dataset"] if column == "data" else []
        mixed = here.groupby(by)[column].nunique().max() if by else here[column].nunique()
        kinds = here[column].str.replace(r", S=\d+", "", regex=True).nunique() if column == "engine" else mixed
        if kinds > 1:
            words.append(f"The runs mix {kinds} {what}.")
    mixed = here.groupby("architecture")["code"].nunique()
    for architecture in mixed[mixed > 1].index:
        words.append(f"The runs of {architecture} were made by {mixed[architecture]} versions of its code.")
    return words


def _conflicts(conflicts: pd.DataFrame) -> list[dict[str, object]]:
    columns = ["run_id", "trial", "engine", "test_accuracy", "test_loss", "started_at", "host"]
    return conflicts[columns].head(MOST_ROWS).to_dict("records")


def scope(frame: pd.DataFrame, grid: Grid) -> str:
    """What the intervals cover and what not, with the test set's own share of the error where it was measured."""
    errors = frame.loc[frame["contrast"] == grid.analysis.primary.contrast, "test_set_error"].dropna()
    size = (
        "not measured"
        if errors.empty
        else f"about {errors.median() * 100:.2f} pp in accuracy (median over comparisons)"
    )
    return (
        "Intervals and p values say what happens when this training is repeated with new seeds on the same training and "
        "test examples at these recipe values. They do not cover other data, recipes or tasks; the test set alone adds a "
        f"standard error of {size}, which more seeds do not reduce."
    )


def _provenance(runs: pd.DataFrame, store: Store) -> list[tuple[str, str]]:
    here = runs[runs["status"].isin(["done", "diverged"])]

    def kinds(column: str) -> str:
        counts = here[column].replace("", "none").value_counts()
        return "; ".join(f"{value} ({count:,} runs)" for value, count in counts.head(8).items())

    return [
        ("store", store.path.name),
        ("runs", f"{len(here):,} finished of {len(runs):,} planned"),
        ("training time", f"{here['wall_s'].sum() / 3600:.2f} slot-hours"),
        ("started", f"{here['started_at'].min():%Y-%m-%d %H:%M} to {here['started_at'].max():%Y-%m-%d %H:%M} UTC"),
        *((name, kinds(name)) for name in ("commit", "versions", "engine", "device", "code", "data")),
    ]


def _template() -> jinja2.Template:
    environment = jinja2.Environment(autoescape=True, trim_blocks=True, lstrip_blocks=True)
    return environment.from_string((Path(__file__).parent / "page.html").read_text(encoding="utf-8"))
