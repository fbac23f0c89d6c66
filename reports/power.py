"""What a study can show, before it is trained: the power of its primary family at its number of seeds.

The sd of differences is not known beforehand. It is taken at its 80 % upper limit, of each comparison by itself, so that
in four of five studies there is more power than is told.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from grids import Cell, Grid
from reports import statistics as st
from reports.measures import Measure, measure
from reports.outcomes import Paired, ReportError, Results, gather
from reports.rates import select
from reports.words import amount, counted, enumerated, p_value, plain
from results import Store

MOST_COMPARISONS = 500  # that are looked at: enough to know their median and how far they are apart
MOST_SEEDS = 20  # that are looked for, where a grid has fewer: an sd is then known to 16 %
AIM = 0.8  # probability with which a difference is to be detected
Array = np.ndarray


class Spread(NamedTuple):
    """Of differences of pairs. m: their moments in some comparisons, (K,). source: where these come from."""

    m: st.Moments
    source: str


class Power(NamedTuple):
    """Of a family of `comparisons`, at L looks. Arrays have an entry for each of K comparisons whose spread is known."""

    of: Measure
    contrast: str
    comparisons: int
    looks: tuple[int, ...]  # pairs at each look: one where seeds are not adaptive
    alpha: float
    margin: float | None
    sd: Array  # (K,), 80 % upper limits
    detectable: Array  # (L, K), the difference that the t test finds with probability AIM, at the first step of Holm
    equivalence: Array  # (L, K), probability that TOST does so for equivalence if the difference is 0
    certain: Array  # (K,), pairs with which some verdict is certain
    source: str  # of the spread; empty where it is not known

    @property
    def pairs(self) -> int:
        """At most."""
        return self.looks[-1]

    @property
    def smallest_p(self) -> float:
        """Of the sign-flip test: all differences have one sign. Of many pairs signs are drawn."""
        return 2.0 ** (1 - self.pairs) if self.pairs <= st.EXACT_PAIRS else 1 / (st.EXACT_FLIPS + 1)


def known_spread(grid: Grid, store: Store, source: str, cells: Sequence[Cell] = ()) -> Spread | None:
    """Of the primary family, as far as the store has pairs of these cells, of more seeds than the grid has, too.

    Without `cells` of those of the grid; of many, of some.
    """
    more = grid.seeds.model_copy(update={"count": max(grid.seeds.most, MOST_SEEDS), "stop": "count"})
    try:
        return spread(gather(grid.model_copy(update={"seeds": more}), store, cells or _some_cells(grid)), source)
    except ReportError:  # of a store that has nothing yet
        return None


def spread(results: Results, source: str) -> Spread | None:
    """Of the primary family, of pairs of which no run diverged; None where no comparison has two."""
    results = select(results).results
    primary = results.grid.analysis.primary
    _, places = results.columns(primary.contrast)
    pair = Paired(results.runs, measure(primary.metric), places)
    m = st.moments(pair.finished, pair.floor)
    known = m.n >= 2
    return Spread(st.Moments(*(each[known] for each in m)), source) if known.any() else None


def _some_cells(grid: Grid) -> list[Cell]:
    """All cells of at most so many comparisons, evenly spread."""
    groups = list(grid.compared.values())
    places = np.unique(np.linspace(0, len(groups) - 1, MOST_COMPARISONS).round().astype(int))
    return [cell for place in places for cell in groups[place]]


def power(grid: Grid, found: Spread | None) -> Power | None:
    """Of the primary family of a grid; None where it compares nothing. found: None for what needs no spread."""
    analysis = grid.analysis
    if analysis.primary is None:
        return None
    primary, looks = analysis.primary, grid.seeds.looks
    count, margin = comparisons(grid), analysis.margin.get(primary.metric)
    m = found.m if found else st.Moments(*np.empty((3, 0)))
    sd = st.upper_sd(m)
    levels = analysis.alpha * st.look_weights(looks)
    nothing = np.full((len(looks), len(sd)), np.nan)
    planned = [st.Moments(np.full(len(sd), pairs), np.zeros(len(sd)), sd) for pairs in looks]
    at_looks = list(zip(planned, levels / count, strict=True))
    return Power(
        of=measure(primary.metric),
        contrast=primary.contrast,
        comparisons=count,
        looks=looks,
        alpha=analysis.alpha,
        margin=margin,
        sd=sd,
        detectable=np.array([st.detectable(pairs, level, AIM) for pairs, level in at_looks]),
        equivalence=nothing
        if margin is None
        else np.array([st.tost_power(pairs, margin, level) for pairs, level in at_looks]),
        certain=nothing[-1] if margin is None else st.seeds_needed(m, margin, levels[-1], count),
        source=found.source if found else "",
    )


def comparisons(grid: Grid) -> int:
    """How many the primary family has."""
    orders = set(grid.analysis.pairs[grid.analysis.primary.contrast])
    return sum(orders <= {cell.order for cell in cells} for cells in grid.compared.values())


def warnings(found: Power) -> list[str]:
    """Why such a study cannot reach a verdict, before anything is spent."""
    told = []
    if found.pairs < st.FEWEST_PAIRS:
        told.append(f"{counted(found.pairs, 'seed')}: there is no verdict below {st.FEWEST_PAIRS}")
    elif found.smallest_p > found.alpha:
        told.append(f"{found.pairs} seeds: the exact paired test cannot go below p = {p_value(found.smallest_p)}")
    elif found.smallest_p * found.comparisons > found.alpha:
        told.append(
            f"{found.pairs} seeds: the exact paired test cannot go below p = {p_value(found.smallest_p)}, after Holm over "
            f"{found.comparisons:,} comparisons {p_value(min(1.0, found.smallest_p * found.comparisons))}"
        )
    few = [pairs for pairs in found.looks[:-1] if pairs < st.FEWEST_PAIRS]
    if few:
        told.append(
            f"at {enumerated([*map(str, few)])} seeds nothing is decided: no look counts below {st.FEWEST_PAIRS}"
        )
    if found.margin is None:
        told.append(f"no margin for {found.of.name}: nothing can be shown to be equivalent")
    elif len(found.sd) and (found.equivalence[-1] == 0).all():
        told.append(f"{counted(found.pairs, 'seed')}: no difference could be shown to lie within ±{_margin(found)}")
    return told


def in_words(found: Power) -> list[str]:
    """What `plan` prints of it."""
    of, unit = found.of, f" {found.of.unit}" if found.of.unit else ""
    pairs = " to ".join(dict.fromkeys(f"{pairs}" for pairs in (found.looks[0], found.looks[-1])))
    lines = [
        f"power of {found.contrast} in {of.title}: {counted(found.comparisons, 'comparison')} of {pairs} pairs",
        f"  the exact paired test (sign flips) can reach p = {found.smallest_p:.2g}; verdicts are by t tests",
    ]
    if not found.source:
        return [*lines, "  the spread of differences is not known, so no more can be told"]
    lines.append(
        f"  sd of differences {_several(found.sd, lambda x: amount(x, of))}{unit}, 80 % upper limits, {found.source}"
    )
    several = len(found.looks) > 1
    for pairs, detectable, equivalence in zip(found.looks, found.detectable, found.equivalence, strict=True):
        when = f"at {pairs} pairs " if several else ""
        size = _several(detectable, lambda x: amount(x, of))
        lines.append(f"  {when}a difference of {size}{unit} is found with probability {AIM:g}")
        if found.margin is None:
            continue
        chance = _several(equivalence, plain)
        if several:
            lines[-1] += f", equivalence shown with {chance}"
        else:
            within = f"within ±{_margin(found)}"
            lines.append(f"  equivalence {within} is shown with probability {chance} where there is no difference")
    if several and found.margin is not None:
        lines.append(f"  (equivalence within ±{_margin(found)}, where there is no difference)")
    if found.margin is not None:
        most = "with a max of " if several else "with "
        lines.append(f"  some verdict is certain {most}{_several(found.certain, lambda x: plain(x, 0))} seeds")
    return lines


def _margin(found: Power) -> str:
    return f"{amount(found.margin, found.of)} {found.of.unit}".rstrip()


def _several(values: Array, told) -> str:
    """'1.20 (0.60 to 2.10)': the median of several comparisons, with the smallest and largest."""
    middle, low, high = np.median(values), values.min(), values.max()
    text = told(middle)
    return text if told(low) == told(high) else f"{text} ({told(low)} to {told(high)})"
