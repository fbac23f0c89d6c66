"""What the page says beside the verdicts: where the effect depends, how it grows, what rates were chosen, what others claim.

Each function gives a section of page.html: sentences, figures that are in the album, and tables as columns and rows.
"""

import itertools
from collections.abc import Callable, Sequence

import pandas as pd

from reports import claims as ledger
from reports import curve_words, curves, inside_figures, inside_words, rate_curves
from reports import inside as inner
from reports.measures import measure
from reports.outcomes import Results
from reports.rates import Selected
from reports.tables import MOST_ROWS, Column, Value, value
from reports.where import Where
from reports.where_words import effects_figure, sentences
from reports.words import amount, difference, enumerated, interval, label, minus, p_value, seeds, setting
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
    Column("of", hint="an arm, or a difference of two"),
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
INSIDE = (
    Column("cell"),
    Column("statistic"),
    Column("when"),
    Column("contrast"),
    Column("difference [95 %]", "number", f"over pairs of equal seed; of magnitudes their ratio; {INTERVAL}"),
    Column("means", "number", "of the first arm / of the second; of magnitudes geometric ones"),
    Column("n", "number", "pairs of seeds that have the statistic"),
)


def depends(where: Where, add: Add) -> dict[str, object]:
    """Where it depends: the primary family over all its cells and along its axes."""
    figure = effects_figure(where)
    of = where.measure
    rows = [
        [
            f"{row['field']} {row['level']}".strip() if row["field"] not in row["level"] else row["level"],
            row["with_level"],
            value(interval(of, row["estimate"], row["low"], row["high"]), row["estimate"]),
            *(value(p_value(row[name]), row[name]) for name in ("p", "p_holm")),
        ]
        for row in where.effects.to_dict("records")
    ]
    title = f"{of.title}, {minus(where.contrast)}: effects of the levels"
    return {
        "sentences": sentences(where),
        "figures": [add(figure, "effects", title, f"n = {where.seeds[0]}")] if figure else [],
        "rows": rows,
    }


def growth(results: Results, store: Store, frame: pd.DataFrame, varying: Sequence[str], add: Add) -> dict[str, object]:
    """Over epochs, and running averages against re-estimated statistics. Results with curve measures, and the curves."""
    grid = results.grid
    read = curves.read(results, store)
    results, limits = curves.with_curves(results, store, read)
    contrast = grid.analysis.primary.contrast
    by_metric = {name: curves.over_epochs(results, read, name, contrast) for name in ("val_accuracy", "val_loss")}
    effect = curves.statistics_effect(results, grid.analysis.alpha)
    named = curve_words.named_by_arm(effect.head(MOST_ROWS), grid)
    shown = []
    for name, over in by_metric.items():
        if figure := curve_words.band_figure(over, varying):
            title = f"{measure(name).title.replace('val ', 'validation ')}, {minus(contrast)}, over epochs"
            shown.append(add(figure, f"epochs-{name}", title, seeds(over)))
    return {
        "results": results,
        "curves": read,
        "sentences": curve_words.sentences(results, limits, by_metric["val_accuracy"], effect, frame, varying),
        "figures": shown,
        "statistics": effect,
        "rows": [_statistics(row, varying) for row in named.to_dict("records")],
    }


def _statistics(row: dict[str, object], varying: Sequence[str]) -> list[Value | str]:
    of = measure(row["metric"])
    means = [value(amount(row[name], of), row[name]) for name in ("running", "reestimated")]
    n = f"{row['n']}" + (f" ({row['missing']} missing)" if row["missing"] else "")
    return [
        label(row, varying),
        minus(row["of"]),
        of.title,
        value(difference(row), row["difference"]),
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
            label(row, varying),
            row["arm"],
            ", ".join(f"{rate_curves.name(field)} {setting(row[field])}" for field in searched),
            value(_level(row), row["mean"]),
            value(f"{row['n']}" + (f" ({row['diverged']} diverged)" if row["diverged"] else ""), row["n"]),
            value(f"{row['frequency']:.0%}" + (", chosen" if row["selected"] else ""), row["frequency"]),
        ]
        for row in tried.to_dict("records")
    ]
    names = enumerated([*map(rate_curves.name, searched)])
    title = f"What {names} {'was' if len(searched) == 1 else 'were'} chosen by"
    return {
        "sentences": rate_curves.sentences(selected),
        "figures": [add(figure, "rates", title, f"n = {selected.results.grid.seeds.tuning} tuning seeds")]
        if figure
        else [],
        "rows": rows,
    }


def inside(results: Results, store: Store, varying: Sequence[str], add: Add) -> dict[str, object] | None:
    """What was measured inside the networks; None where no run was."""
    found = inner.read(results, store)
    if found.rows.empty:
        return None
    arms = list(results.grid.analysis.arms)
    levels, since = inner.summary(results, found, varying), found.since(results.runs)
    pairs = inner.paired(results, found)
    pictures = {
        kind: [(of.statistic, inside_figures.over_depth(levels, of, varying, arms, since)) for of in shown]
        for kind, shown in (("activations", inside_figures.ACTIVATIONS), ("gradients", inside_figures.GRADIENTS))
    }
    pictures["histograms"] = [
        (f"histogram-{i}", each) for i, each in enumerate(inside_figures.histograms(results, found, store, varying), 1)
    ]
    figures = {
        kind: [add(each.figure, f"inside-{name}", each.title, each.about) for name, each in named if each]
        for kind, named in pictures.items()
    }
    return {
        "coverage": inside_words.coverage(results, found),
        "left_out": inside_figures.left_out(levels, varying),
        "sentences": inside_words.sentences(results, found, pairs, varying),
        "rows": [_inside(row, varying) for row in pairs.head(MOST_ROWS).to_dict("records")],
        "count": len(pairs),
        "files": {"layers": levels, "inside": pairs.drop(columns="pair")},
        **figures,
    }


def _inside(row: dict[str, object], varying: Sequence[str]) -> list[Value | str]:
    of = row["statistic"]
    means = " / ".join(inside_words.number(row[name], of) for name in ("mean_a", "mean_b"))
    return [
        label(row, varying),
        inside_words.subject(inner.Statement(of, row["site"], row["place"])),
        inside_words.WHEN[row["when"]],
        minus(row["contrast"]),
        value(inside_words.change(of, row["difference"], row["low"], row["high"]), row["difference"]),
        value(means, row["mean_a"]),
        value(f"{row['n']}", row["n"]),
    ]


def claims(judged: pd.DataFrame) -> dict[str, object]:
    """The ledger of published claims; apart from the others those that this grid does not reach."""
    verdicts = list(ledger.VERDICTS)
    counts = judged["verdict"].value_counts()
    rows = {verdict: [] for verdict in verdicts}
    for row in judged.to_dict("records"):
        verdict = value(row["verdict"], verdicts.index(row["verdict"]))
        rows[row["verdict"]].append([row["statement"], verdict, row["reason"], row["source"]])
    lacking = rows.pop("not covered")
    return {
        "counts": ", ".join(f"{counts[each]} {each}" for each in verdicts if each in counts),
        "verdicts": ledger.VERDICTS,
        "method": ledger.METHOD,
        "rows": list(itertools.chain(*rows.values())),
        "not_covered": lacking,
    }


def _level(row: dict[str, object]) -> str:
    """A mean that is no difference: '71.20 % [70.10, 72.30]'."""
    of = measure(row["metric"])
    middle, low, high = (amount(row[name], of) for name in ("mean", "low", "high"))
    return f"{middle} {'%' if of.unit == 'pp' else of.unit} [{low}, {high}]"
