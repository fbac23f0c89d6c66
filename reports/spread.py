"""Spread: whether one arm varies more over seeds than the other, of finished runs."""

from collections.abc import Sequence

import numpy as np
import pandas as pd
from scipy import stats

from reports import statistics as st
from reports.measures import measure
from reports.outcomes import Paired, Results
from reports.tables import Column, Value, value
from reports.words import counted, label, minus, p_value, plain

SPREAD = (
    Column("cell"),
    Column("contrast"),
    Column("variance ratio [95 %]", "number", "first arm over second, interval of Pitman (1939) for normal values"),
    Column("sd of the first arm", "number", "over seeds"),
    Column("sd of the second", "number", "over seeds"),
    Column("n", "number", "pairs of which both runs finished"),
    Column("p", "number", "paired t test on absolute deviations from each arm's median"),
    Column("p, Holm", "number", "adjusted within the contrast"),
)


def variance_ratio_interval(a: np.ndarray, b: np.ndarray, level: float = st.LEVEL) -> tuple[np.ndarray, np.ndarray]:
    """Interval of var a / var b of normal pairs (Pitman 1939, Morgan 1939). a, b (n, K) -> (K,), (K,)

    All ratios at which sums and differences of the values, brought to equal variance, are not correlated by Student's t.
    NaN where fewer than 3 pairs are complete or an arm does not vary.
    """
    both = np.isfinite(a) & np.isfinite(b)
    a, b = np.where(both, a, np.nan), np.where(both, b, np.nan)
    m_a, m_b = st.moments(a), st.moments(b)
    products = st.moments((a - m_a.mean) * (b - m_b.mean))
    free = np.maximum(m_a.n - 2, 1)
    with np.errstate(invalid="ignore", divide="ignore"):
        ratio = m_a.sd**2 / m_b.sd**2
        r2 = np.minimum((products.mean * m_a.n / (m_a.n - 1) / (m_a.sd * m_b.sd)) ** 2, 1.0)
        k = 1 + 2 * (1 - r2) * stats.t.ppf((1 + level) / 2, free) ** 2 / free
        reach = k + np.sqrt(k**2 - 1)
        known = (m_a.n >= 3) & np.isfinite(ratio) & (ratio > 0)
        return np.where(known, ratio / reach, np.nan), np.where(known, ratio * reach, np.nan)


def spread(results: Results, varying: Sequence[str], most: int) -> list[list[Value | str]]:
    """Rows of SPREAD for the primary metric, contrast by contrast, at most so many."""
    of = measure(results.grid.analysis.primary.metric)
    rows = []
    for contrast in results.grid.analysis.contrasts:
        columns, places = results.columns(contrast)
        pair = Paired(results.runs, of, places)
        a, b = pair.done
        ratio, p = st.spread(a, b, pair.floor)
        p_holm = st.holm(p)
        low, high = variance_ratio_interval(a, b)
        both = np.isfinite(a) & np.isfinite(b)
        n = both.sum(0)
        sds = [st.moments(np.where(both, x, np.nan)).sd for x in (a, b)]
        sds = [sd * of.factor for sd in sds]
        for k in range(min(len(columns), most - len(rows))):
            words = f"{_ratio(ratio[k])} [{_ratio(low[k])}, {_ratio(high[k])}]" if np.isfinite(ratio[k]) else "–"
            rows.append([
                label(dict(results.pairs[columns[k]]), varying), minus(contrast), value(words, ratio[k]),
                *(value(f"{plain(sd[k], of.decimals)} {of.unit}", sd[k]) for sd in sds), value(str(n[k]), n[k]),
                value(p_value(p[k]), p[k]), value(p_value(p_holm[k]), p_holm[k]),
            ])  # fmt: skip
    return rows


def _ratio(value: float) -> str:
    return plain(value, 2 if value < 100 else 0)


def spread_answer(frame: pd.DataFrame, metric: str, alpha: float) -> str:
    """In how many comparisons of the metric the spreads differ, as a sentence."""
    family = frame[frame["metric"] == metric]
    rejected = family.groupby("contrast", sort=False)["p_variance"].transform(lambda p: st.holm(p.to_numpy())) <= alpha
    return (
        f"In {rejected.sum()} of {counted(len(family), 'comparison')} of {measure(metric).title} the arms differ in their "
        f"spread over seeds (p adjusted by Holm within each contrast, at most {alpha:g})."
    )
