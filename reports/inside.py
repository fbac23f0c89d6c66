"""What happens inside the networks: rows of `layers`, summed up over seeds. Description: intervals, no verdicts.

Rows count only where their (run_id, trial) is the accepted row of a run. Where a block has several layers of one kind, as
two branches with an act each, their mean stands for the block. Axes: R rows of `results.runs`, N rows of `layers`, n
seeds, G groups of rows that differ in nothing but the seed.
"""

import math
from collections.abc import Callable, Iterable, Sequence
from typing import Literal, NamedTuple

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from reports import statistics as st
from reports.layer_names import LOG, MEASURED, PREFIX, STATISTICS, layer_metric
from reports.outcomes import Results
from reports.rates import own
from results import Store
from results.files import batches, retrying
from results.schema import LAYERS, QUANTILES
from results.store import FINISHED

KEYS = ("epoch", "block", "site")
MOST_BLOCKS = 200_000  # of all summed up runs, stem and head included: 2 million rows in two epochs, 0.4 GB
FEWEST_SEEDS = 20  # that a cell is taken to have in this, for the size of the tables

Array = np.ndarray
When = Literal["start", "end"]
Place = Literal["first", "middle", "last", "mean"]


class Statement(NamedTuple):
    """A statistic of one block that is compared between arms, or its mean over the blocks that have it."""

    statistic: str
    site: str
    place: Place


STATEMENTS = (
    Statement("saturated", "act", "last"),
    Statement("dead", "act", "last"),
    Statement("effective_rank", "output", "last"),
    Statement(LOG + "gradient_norm", "weight", "first"),
    Statement(LOG + "gradient_change", "weight", "mean"),  # a trial measures it in some blocks only
)


# Reading


class Inside(NamedTuple):
    """Rows of `layers` of the runs of `results`, sorted by run, epoch, block and site."""

    rows: pd.DataFrame  # `run`, the row of `results.runs`, epoch, block, site, and MEASURED as float32
    finished: int  # runs of the results that are done or diverged,
    room: int  # of these, runs that were looked for

    @property
    def runs(self) -> Array:
        """The rows of `results.runs` that have rows here."""
        return self.rows["run"].unique()

    def since(self, runs: pd.DataFrame) -> int | None:
        """The epoch that drift at the last probe of finished training is since; None where there is none, or several."""
        last = spans(self.rows, runs).drop_duplicates("run", keep="last")
        done = (runs["status"] == "done").to_numpy()[last["run"]]
        found = last.loc[done & (last["usual"] >= 0), "usual"].unique()
        return int(found[0]) if len(found) == 1 else None

    def ends(self, runs: pd.DataFrame) -> Array:
        """Of each run the last epoch in which any run of as many epochs was probed, 0 where none was after training. (R,)"""
        length = runs["epochs"].to_numpy()
        last = self.rows["epoch"].groupby(length[self.rows["run"]]).max()
        return runs["epochs"].map(last).fillna(0).to_numpy(int)


def read(results: Results, store: Store) -> Inside:
    """The rows of the runs that are done or diverged, of as many cells as there is room for."""
    finished = np.flatnonzero(results.runs["status"].isin(FINISHED))
    rows = finished[_has_room(results.runs)[finished]]
    found = _of_equal_spans(_one_a_block(_read(results.runs, rows, store, MEASURED), MEASURED), results.runs)
    return Inside(found, len(finished), len(rows))


def with_layers(results: Results, store: Store, metrics: Iterable[str]) -> Results:
    """Results with those of these metrics that are of layers as columns of `runs`, NaN where a run lacks one; `titles`
    say since when drift is.
    """
    wanted = {name: layer_metric(name) for name in metrics if name.startswith(PREFIX)}
    if not wanted:
        return results
    runs = results.runs
    depth, sites = own(runs, "depth").to_numpy(), {of.site for of in wanted.values()}
    columns = sorted({of.statistic.removeprefix(LOG) for of in wanted.values()})
    places = {of.place for of in wanted.values()}

    def keep(rows: pd.DataFrame) -> Array:
        here = rows["site"].isin([name for name in rows["site"].unique() if _last(name) in sites]).to_numpy()
        if "mean" in places:
            return here
        return here & np.any([rows["block"] == block_at(place, depth[rows["run"]]) for place in places], axis=0)

    finished = np.flatnonzero(runs["status"].isin(FINISHED))
    rows = _of_equal_spans(_one_a_block(_read(runs, finished, store, columns, keep), columns), runs)
    found = Inside(rows, len(finished), len(finished))
    measured = {
        name: of_runs(results, found, Statement(of.statistic, of.site, of.place), of.when)
        for name, of in wanted.items()
    }
    since = found.since(runs)
    titles = {name: of.title_since(since) for name, of in wanted.items()}
    return results._replace(runs=runs.assign(**measured), titles=results.titles | titles)


def _has_room(runs: pd.DataFrame) -> Array:
    """Which runs are of the first cells that MOST_BLOCKS has room for; those of the first cell are, whatever it is. (R,)"""
    cells = own(runs, "depth").groupby(runs["cell_id"], sort=False).agg(["size", "first"])
    blocks = (cells["size"].clip(lower=FEWEST_SEEDS) * (cells["first"] + 2)).cumsum()
    kept = blocks.index[(blocks <= MOST_BLOCKS) | (np.arange(len(blocks)) == 0)]
    return runs["cell_id"].isin(kept).to_numpy()


def quantiles(results: Results, store: Store, runs: Array, site: str, blocks: Callable[[pd.DataFrame], Array]) -> tuple:
    """Rows of some runs at sites of one name, in the blocks for which `blocks` gives true: keys, and quantiles (N, Q).

    runs: rows of `results.runs`. keys: run, epoch, block. Rows with a quantile that is not finite are left out.
    """

    def keep(rows: pd.DataFrame) -> Array:
        wanted = [name for name in rows["site"].unique() if _last(name) == site]
        return rows["site"].isin(wanted).to_numpy() & blocks(rows)

    found = _read(results.runs, runs, store, ("quantiles",), keep)
    if found.empty:
        return found, np.empty((0, len(QUANTILES)))
    values = np.stack(found.pop("quantiles").to_numpy()).astype(float)
    finite = np.isfinite(values).all(1)
    return found[finite].reset_index(drop=True), values[finite]


def _read(
    runs: pd.DataFrame,
    rows: Array,
    store: Store,
    columns: Sequence[str],
    keep: Callable[[pd.DataFrame], Array] | None = None,
) -> pd.DataFrame:
    """run, epoch, block, site and `columns` of the runs in `rows`, sorted. Of rows with equal keys the first by value.

    keep: of rows with run, epoch, block and site, those that are wanted.
    """
    run_ids, trials = (pa.array(runs[name].to_numpy(object)[rows], pa.string()) for name in ("run_id", "trial"))
    wanted = ("run_id", "trial", *KEYS, *columns)

    def that_count(table: pa.Table) -> pd.DataFrame:
        at = pc.index_in(table["run_id"], run_ids)
        mine = pc.equal(trials.take(at), table["trial"])  # null, which no filter keeps, where the run is none of ours
        table, at = table.filter(mine), at.filter(mine)
        frame = table.select(KEYS).to_pandas()
        frame.insert(0, "run", rows[at.to_numpy()])
        if keep is not None:
            chosen = keep(frame)
            table, frame = table.filter(pa.array(chosen)), frame[chosen].reset_index(drop=True)
        for name in columns:
            values = table[name]
            frame[name] = _lists(values) if pa.types.is_list(values.type) else values.to_numpy().astype(np.float32)
        return frame.astype({"run": np.int32, "epoch": np.int32, "block": np.int32, "site": "str"})

    def all_that_count() -> pd.DataFrame:
        empty = LAYERS.empty_table().select(wanted)
        found = [that_count(each.rows) for each in batches(store.files("layers"), "layers", wanted)]
        return pd.concat([frame for frame in found if len(frame)] or [that_count(empty)], ignore_index=True)

    frame = retrying(all_that_count)
    site, names = pd.factorize(frame["site"], sort=True)
    order = np.lexsort((site, frame["block"], frame["epoch"], frame["run"]))
    frame = frame.iloc[order].assign(site=pd.Categorical.from_codes(site[order], names)).reset_index(drop=True)
    if frame.duplicated(["run", *KEYS]).any():  # a conflict, or other probes, leave several files of one trial
        if "drift" in columns:  # since which epoch each is, is not known
            several = frame.groupby(["run", *KEYS], observed=True)["drift"].transform("nunique") > 1
            frame["drift"] = frame["drift"].mask(several)
        words = pd.Series(list(map(repr, frame[list(columns)].itertuples(index=False, name=None))))
        order = np.lexsort((words, frame["site"].cat.codes, frame["block"], frame["epoch"], frame["run"]))
        frame = frame.iloc[order].drop_duplicates(["run", *KEYS]).reset_index(drop=True)
    return frame


def _lists(column: pa.ChunkedArray) -> list[Array]:
    """Each quantiles as an array; NaN where there are none, or other ones."""
    none = np.full(len(QUANTILES), np.nan)
    found = (np.asarray(each, float) if each is not None else none for each in column.to_pylist())
    return [each if each.shape == none.shape else none for each in found]


def _one_a_block(rows: pd.DataFrame, columns: Sequence[str]) -> pd.DataFrame:
    """One row a run, epoch, block and last part of the site, with the means of those that have one."""
    last = list(map(_last, rows["site"].cat.categories))
    names = sorted(set(last))
    codes = np.array([names.index(name) for name in last], int)[rows["site"].cat.codes]
    rows = rows.assign(site=pd.Categorical.from_codes(codes, names))
    if not rows.duplicated(["run", *KEYS]).any():
        return rows
    return rows.groupby(["run", *KEYS], sort=True, observed=True, as_index=False)[list(columns)].mean()


def _last(site: str) -> str:
    """The name of a layer in its order, without the path to it."""
    return site.rpartition(".")[2]


def spans(rows: pd.DataFrame, runs: pd.DataFrame) -> pd.DataFrame:
    """Since when each drift is: a row a run and probed epoch, with `before`, the epoch probed before it, and `usual`, in
    which most runs of as many epochs were probed before it; of equals the earliest. −1 where there is none.
    """
    probes = rows[["run", "epoch"]].drop_duplicates(ignore_index=True)
    probes["before"] = probes.groupby("run")["epoch"].shift(fill_value=-1)
    length = runs["epochs"].to_numpy()[probes["run"]]
    there = probes["before"].where(probes["before"] >= 0)
    usual = there.groupby([length, probes["epoch"]]).transform(lambda before: before.mode().min())
    return probes.assign(usual=usual.fillna(-1).astype(int))


def _of_equal_spans(rows: pd.DataFrame, runs: pd.DataFrame) -> pd.DataFrame:
    """Rows with drift only where it is since the usual epoch: over other spans it is another number."""
    if "drift" not in rows:
        return rows
    probes = spans(rows, runs)
    other = probes.loc[probes["before"] != probes["usual"], ["run", "epoch"]]
    if other.empty:
        return rows
    where = pd.MultiIndex.from_frame(rows[["run", "epoch"]]).isin(pd.MultiIndex.from_frame(other))
    return rows.assign(drift=rows["drift"].mask(where))


# Over seeds


def summary(results: Results, inside: Inside, fields: Sequence[str]) -> pd.DataFrame:
    """Mean, sd and 95 % t interval over seeds of each statistic: a row a cell, epoch, block, site and statistic.

    fields: that tell cells from each other; beside them stand order and arm. Statistics that no seed has are left out.
    """
    runs, rows = results.runs, inside.rows
    cell = pd.factorize(runs["cell_id"])[0]
    seed = runs.groupby("cell_id", sort=False).cumcount().to_numpy()
    keys = pd.DataFrame({"cell": cell[rows["run"]], **{name: rows[name] for name in KEYS}})
    group = keys.groupby(list(keys), sort=True, observed=True).ngroup().to_numpy()
    first = np.unique(group, return_index=True)[1]
    arms = {order: arm for arm, order in results.grid.analysis.arms.items()}
    found = runs.iloc[rows["run"].iloc[first]][[*fields, "order"]]
    found = found.assign(arm=found["order"].map(arms)).reset_index(drop=True)
    found = found.assign(**{name: rows[name].iloc[first].to_numpy() for name in KEYS})
    frames = []
    for statistic in STATISTICS:
        dense = np.full((seed.max(initial=0) + 1, len(first)), np.nan)
        dense[seed[rows["run"]], group] = values(rows, statistic)
        m = st.moments(dense)
        low, high = st.t_interval(m)
        frame = found.assign(statistic=statistic, n=m.n, mean=m.mean, sd=m.sd, low=low, high=high)
        frames.append(frame[m.n > 0])
    frame = pd.concat(frames).sort_index(kind="stable").reset_index(drop=True)
    return frame.astype({"site": str})


def values(rows: pd.DataFrame, statistic: str) -> Array:
    """One of STATISTICS, float64; no logarithm of 0. (N,)

    math.log10, since that of numpy has other last bits on processors with AVX-512.
    """
    if not statistic.startswith(LOG):
        return rows[statistic].to_numpy(float)
    number = rows[statistic.removeprefix(LOG)].to_numpy(float)
    return np.array([math.log10(x) if x > 0 else math.nan for x in number.tolist()], float)


def block_at(place: Literal["first", "middle", "last"], depth: Array) -> Array:
    """The first, middle or last block of networks of this depth; of an even number the middle is the earlier one."""
    return {"first": np.ones_like(depth), "middle": (depth + 1) // 2, "last": depth}[place]


def of_runs(results: Results, inside: Inside, statement: Statement, when: When) -> Array:
    """The statistic of each run at the start of training or its end, NaN where there is none. (R,)"""
    runs, rows = results.runs, inside.rows
    run = rows["run"].to_numpy()
    epoch = inside.ends(runs)[run] if when == "end" else np.zeros(len(rows), int)
    at = (rows["epoch"] == epoch) & (rows["site"] == statement.site) & ((when == "start") | (epoch > 0))
    depth, block = own(runs, "depth").to_numpy()[run], rows["block"].to_numpy()
    if statement.place == "mean":
        at &= (block >= 1) & (block <= depth)
    else:
        at &= block == block_at(statement.place, depth)
    of_run = pd.Series(values(rows[at], statement.statistic)).groupby(run[at]).mean()
    return of_run.reindex(range(len(runs))).to_numpy(float)


def levels(results: Results, of_run: Array) -> dict[str, st.Moments]:
    """By arm, the moments over seeds of each pair. of_run: (R,)"""
    arms = results.grid.analysis.arms
    return {arm: st.moments(_at(of_run, results.place[order])) for arm, order in arms.items()}


def paired(results: Results, inside: Inside) -> pd.DataFrame:
    """Differences of pairs by seed, with 95 % t intervals: a row a statement, `when`, contrast and cell.

    mean_a, mean_b: of the arms over these pairs. Of a statistic that begins with log10_ all are logarithms. A run that
    diverged before the epoch has no value there and is missing.
    """
    frames = []
    for statement in STATEMENTS:
        for when in ("start", "end"):
            of_run = of_runs(results, inside, statement, when)
            for contrast in results.grid.analysis.contrasts:
                columns, places = results.columns(contrast)
                a, b = (_at(of_run, place) for place in places)
                m = st.moments(a - b)
                low, high = st.t_interval(m)
                frame = results.cells(columns).assign(**statement._asdict(), when=when, contrast=contrast, n=m.n)
                means = {f"mean_{x}": st.moments(y).mean for x, y in (("a", a + 0 * b), ("b", b + 0 * a))}
                frame = frame.assign(**means, difference=m.mean, sd=m.sd, low=low, high=high, pair=columns)
                frames.append(frame[m.n > 0])
    return pd.concat(frames, ignore_index=True)


def _at(of_run: Array, place: Array) -> Array:
    return np.where(place >= 0, of_run[place], np.nan)


# Histograms


def shares(quantiles: Array, edges: Array) -> Array:
    """Of each distribution with these QUANTILES the share of its values between two edges. (N, Q), (B + 1,) -> (N, B)

    Between two quantiles values are taken to lie evenly, as is all that quantiles say; where several are equal, so much
    lies on one point.
    """
    below = np.stack([np.interp(edges, each, QUANTILES, left=0.0, right=1.0) for each in quantiles])
    return np.diff(below, axis=1)
