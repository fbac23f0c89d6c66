"""What the page says beside the verdicts: where the effect depends, how it grows, what rates were chosen, what others claim.

Each function gives a section of page.html: sentences, figures that are in the album, and tables as columns and rows.
"""

from collections.abc import Callable, Sequence

import pandas as pd

from reports import claims as ledger
from reports import curves, figures, rate_curves
from reports.measures import measure
from reports.outcomes import Results
from reports.rates import Selected
from reports.tables import MOST_ROWS, Column, Value, value
from reports.where import Where, effects_figure, sentences
from reports.words import p_value, plain, seeds
from results import Store

Add = Callable[..., dict[str, object]]  # Album.add

INTERVAL = "Student t interval over seeds"
EFFECTS = (
    Column("level"),
    Column("with"),
    Column(
        "effect [95 %]", "number", f"level less the mean of its axis, or beyond what both levels do alone; {INTERVAL}"
    ),
    Column("p", "number", "t test over seeds"),
    Column("p, Holm", "number", "adjusted over all contrasts of the family"),
)
STATISTICS = (
    Column("cell"),
    Column("of", hint="an order, or a difference of two"),
    Column("metric"),
    Column("running less re-estimated [95 %]", "number", INTERVAL),
    Column("running", "number", "mean with running averages"),
    Column("re-estimated", "number", "mean with statistics re-estimated over the training part"),
    Column("n", "number", "seeds"),
    Column("p, Holm", "number", "adjusted over this table"),
)
CLAIMS = (
    Column("claim", "long"),
    Column("verdict"),
    Column("numbers", "long"),
    Column("source", "long"),
)
TRIED = (
    Column("cell"),
    Column("arm"),
    Column("value"),
    Column("mean over tuning seeds [95 %]", "number", INTERVAL),
    Column("n", "number", "tuning seeds"),
    Column("chosen", "number", "share of resamples of the tuning seeds that choose it"),
)


def depends(where: Where, add: Add) -> dict[str, object]:
    """Where it depends: the primary family over all its cells and along its axes."""
    figure = effects_figure(where)
    of = where.measure
    rows = [
        [
            f"{row['field']} {row['level']}".strip() if row["field"] not in row["level"] else row["level"],
            row["with_level"],
            value(_interval(row["estimate"], row["low"], row["high"], of.name), row["estimate"]),
            *(value(p_value(row[name]), row[name]) for name in ("p", "p_holm")),
        ]
        for row in where.effects.to_dict("records")
    ]
    title = f"{of.title}, {figures.minus(where.contrast)}: effects of the levels"
    return {
        "sentences": sentences(where),
        "figures": [add(figure, "effects", title, f"n = {where.seeds[0]}")] if figure else [],
        "rows": rows,
    }


def growth(results: Results, store: Store, frame: pd.DataFrame, varying: Sequence[str], add: Add) -> dict[str, object]:
    """Over epochs, and running averages against re-estimated statistics. Results with curve measures come back too."""
    grid = results.grid
    read = curves.read(results, store)
    results, limits = curves.with_curves(results, store, read)
    contrast = grid.analysis.primary.contrast
    by_metric = {name: curves.over_epochs(results, read, name, contrast) for name in ("val_accuracy", "val_loss")}
    effect = curves.statistics_effect(results, grid.analysis.alpha)
    shown = []
    for name, over in by_metric.items():
        if figure := curves.band_figure(over, varying):
            title = f"{measure(name).title.replace('val ', 'validation ')}, {figures.minus(contrast)}, over epochs"
            shown.append(add(figure, f"epochs-{name}", title, seeds(over)))
    return {
        "results": results,
        "sentences": curves.sentences(results, limits, by_metric["val_accuracy"], effect, frame, varying),
        "figures": shown,
        "statistics": [_statistics(row, varying) for row in effect.head(MOST_ROWS).to_dict("records")],
        "statistics_count": len(effect),
    }


def _statistics(row: dict[str, object], varying: Sequence[str]) -> list[Value | str]:
    of = measure(row["metric"])
    means = [value(f"{plain(row[name] * of.factor, of.decimals)}", row[name]) for name in ("running", "reestimated")]
    n = f"{row['n']}" + (f" ({row['missing']} missing)" if row["missing"] else "")
    return [
        figures.label(row, varying),
        figures.minus(row["of"]),
        of.title,
        value(_interval(row["difference"], row["low"], row["high"], of.name), row["difference"]),
        *means,
        value(n, row["n"]),
        value(p_value(row["p_holm"]), row["p_holm"]),
    ]


def chosen_rates(selected: Selected, varying: Sequence[str], add: Add) -> dict[str, object] | None:
    """How each arm's value of what is searched was chosen; None where the grid searches nothing."""
    if selected.tried.empty:
        return None
    figure = rate_curves.rate_curves(selected, varying)
    searched = selected.results.grid.searched
    tried = selected.tried[selected.tried["arm"].notna()]
    rows = [
        [
            figures.label(row, varying),
            row["arm"],
            ", ".join(f"{rate_curves.name(field)} {row[field]}" for field in searched),
            value(_interval(row["mean"], row["low"], row["high"], row["metric"], signed=False), row["mean"]),
            value(f"{row['n']}" + (f" ({row['diverged']} diverged)" if row["diverged"] else ""), row["n"]),
            value(f"{row['frequency']:.0%}" + (", chosen" if row["selected"] else ""), row["frequency"]),
        ]
        for row in tried.to_dict("records")
    ]
    title = f"What {' and '.join(map(rate_curves.name, searched))} was chosen by"
    return {
        "sentences": rate_curves.sentences(selected),
        "figures": [add(figure, "rates", title, f"n = {selected.results.grid.seeds.tuning} tuning seeds")]
        if figure
        else [],
        "rows": rows,
    }


def claims(judged: pd.DataFrame) -> dict[str, object]:
    """The ledger of published claims, those that this grid reaches first."""
    verdicts = list(ledger.VERDICTS)
    judged = judged.sort_values("verdict", key=lambda column: column.map(verdicts.index), kind="stable")
    counts = judged["verdict"].value_counts()
    rows = [
        [row["statement"], value(row["verdict"], verdicts.index(row["verdict"])), row["reason"], row["source"]]
        for row in judged.to_dict("records")
    ]
    return {
        "counts": ", ".join(f"{counts[each]} {each}" for each in verdicts if each in counts),
        "verdicts": ledger.VERDICTS,
        "method": ledger.METHOD,
        "rows": rows,
    }


def _interval(estimate: float, low: float, high: float, metric: str, signed: bool = True) -> str:
    """'+1.20 pp [0.80, 1.60]', or '71.20 % [70.10, 72.30]' of a value that is no difference."""
    of = measure(metric)
    middle, low, high = (plain(each * of.factor, of.decimals) for each in (estimate, low, high))
    unit = of.unit if signed or of.unit != "pp" else "%"
    return f"{'+' if signed and estimate > 0 else ''}{middle} {unit} [{low}, {high}]"
