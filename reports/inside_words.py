"""What was measured inside the networks, in sentences and in numbers as a reader sees them."""

from collections.abc import Sequence

import numpy as np
import pandas as pd

from reports import statistics as st
from reports.inside import STATEMENTS, Inside, Statement, levels, of_runs, spans
from reports.layer_names import LOG, PLACES, SHARES, WHEN, title
from reports.outcomes import Results
from reports.words import counted, enumerated, label, listed, minus, plain

MOST_NAMED = 3  # cells in a sentence
_RAISED = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")


def subject(of: Statement) -> str:
    """'share of saturated values, last block'"""
    return f"{title(of.statistic)}, {PLACES[of.place]}"


def number(value: float, statistic: str) -> str:
    """A mean in its unit; of a logarithm the geometric mean."""
    if statistic.startswith(LOG):
        return significant(10.0**value)
    return plain(100 * value, 1) if statistic in SHARES else plain(value)


def significant(value: float) -> str:
    """A positive number with three digits, from 0.001 to 10,000 without an exponent: '0.0123', '2.30·10⁻⁴'"""
    if not np.isfinite(value) or value == 0:
        return plain(value)
    digits, power = f"{value:.2e}".split("e")
    if -3 <= int(power) < 4:
        return plain(value, max(0, 2 - int(power)))
    return f"{digits}·10{str(int(power)).translate(_RAISED)}"


def level(statistic: str, mean: float, low: float, high: float) -> str:
    """'40.0 % [38.1, 41.9]', '0.0123 [0.0101, 0.0150]'"""
    unit = " %" if statistic in SHARES else ""
    return f"{number(mean, statistic)}{unit} [{number(low, statistic)}, {number(high, statistic)}]"


def change(statistic: str, difference: float, low: float, high: float) -> str:
    """'+38.0 pp [36.0, 40.0]', of logarithms the ratio: '× 3.20 [2.80, 3.66]'"""
    ends = f"[{number(low, statistic)}, {number(high, statistic)}]"
    if statistic.startswith(LOG):
        return f"×\u00a0{number(difference, statistic)} {ends}"
    if statistic in SHARES:
        return f"{plain(100 * difference, 1, signed=True)} pp {ends}"
    return f"{plain(difference, signed=True)} {ends}"


def coverage(results: Results, inside: Inside) -> str:
    """Of how many runs the section is, and of which epochs."""
    runs = results.runs.iloc[inside.runs]
    epochs = sorted(set(inside.rows["epoch"]))
    shown = [f"epoch {epoch}" for epoch in epochs if epoch]
    shown = [f"epochs {', '.join(each.removeprefix('epoch ') for each in shown)}"] if len(shown) > 2 else shown
    when = enumerated([*(["initialisation"] if 0 in epochs else []), *shown])
    text = f"{len(runs):,} of {counted(inside.finished, 'finished run')} were measured inside: {when}."
    if inside.room < inside.finished:
        text += f" There is room for {inside.room:,}, those of the first cells; the others were not looked at."
    if diverged := (runs["status"] == "diverged").sum():
        text += f" Of these {diverged:,} diverged: they count as long as they were finite."
    return text + _unlike(results, inside)


def _unlike(results: Results, inside: Inside) -> str:
    """Which runs that are done were probed in other epochs than others of as many epochs; empty where none was."""
    runs, probes = results.runs, spans(inside.rows, results.runs)
    done = probes[(runs["status"] == "done").to_numpy()[probes["run"]]]
    probed = done.groupby("run")["epoch"].agg(lambda epochs: enumerated([*map(str, epochs)]))
    length = runs["epochs"].to_numpy()[probed.index]
    counts = probed[probed.groupby(length).transform("nunique") > 1].value_counts()
    if counts.empty:
        return ""
    counts = counts.sort_index().sort_values(ascending=False, kind="stable")
    parts = [f"{n:,} in {epochs}" for epochs, n in counts.head(MOST_NAMED).items()]
    text = f" Runs were probed in different epochs: {listed(parts, len(counts))}."
    last = probes[(probes["epoch"] == inside.ends(runs)[probes["run"]]) & (probes["before"] >= 0)]
    if lost := (last["before"] != last["usual"]).sum():
        text += (
            f" Drift at the end is left out for {counted(lost, 'run')} that have it since another epoch than the rest."
        )
    return text


def sentences(results: Results, inside: Inside, frame: pd.DataFrame, fields: Sequence[str]) -> list[str]:
    """What the primary contrast changes, a sentence a statistic. frame: of inside.paired"""
    contrast = results.grid.analysis.primary.contrast
    found = []
    for of in STATEMENTS:
        rows = frame[(frame["contrast"] == contrast) & (frame[list(of._fields)] == list(of)).all(axis=1)]
        rows = rows[np.isfinite(rows["low"])]
        parts = [part for when in WHEN if (part := _where(rows[rows["when"] == when], of, when))]
        if not parts:
            continue
        text = f"{subject(of).capitalize()}, {minus(contrast)}: {'; '.join(parts)}."
        when = "end" if (rows["when"] == "end").any() else "start"
        named = rows[(rows["when"] == when) & ((rows["low"] > 0) | (rows["high"] < 0))]
        if len(named):
            largest = named.loc[named["difference"].abs().sort_values(ascending=False, kind="stable").index]
            by_arm = levels(results, of_runs(results, inside, of, when))
            words = [_named(row, of, by_arm, fields) for row in largest.head(MOST_NAMED).to_dict("records")]
            text += f" Largest {WHEN[when]}: {listed(words, len(named))}."
        found.append(text)
    return found


def _where(rows: pd.DataFrame, of: Statement, when: str) -> str:
    """In how many cells an interval leaves out no difference."""
    if rows.empty:
        return ""
    none = 1 if of.statistic.startswith(LOG) else 0
    above, below = (rows["low"] > 0).sum(), (rows["high"] < 0).sum()
    return (
        f"{WHEN[when]} the interval lies above {none} in {above} and below in {below} of {counted(len(rows), 'cell')}"
    )


def _named(row: dict, of: Statement, by_arm: dict[str, st.Moments], fields: Sequence[str]) -> str:
    """'tanh, depth 8: +38.0 pp [36.0, 40.0], n = 20 (before 2.0 % [1.9, 2.1], after 40.0 % [38.1, 41.9])'"""
    arms = []
    for arm, m in by_arm.items():
        low, high = st.t_interval(m)
        if m.n[row["pair"]]:
            arms.append(f"{arm} {level(of.statistic, *(each[row['pair']] for each in (m.mean, low, high)))}")
    difference = change(of.statistic, row["difference"], row["low"], row["high"])
    return f"{label(row, fields)}: {difference}, n = {row['n']} ({', '.join(arms)})"
