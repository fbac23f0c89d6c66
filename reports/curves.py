"""What happens over epochs, and what of an effect is owed to running averages: questions to runs that are there already.

Rows of the table `curves` count only where their (run_id, trial) is the accepted row of a run. Axes: R rows of
`results.runs`, E epochs, n seeds, K comparisons.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from reports import statistics as st
from reports.measures import Measure, measure
from reports.outcomes import FIELDS_OF_A_PAIR, Paired, Results
from results import Store
from results.files import batches, retrying

MOST_EPOCHS = 20  # of a band: more would widen it for epochs that lie close to others
HALFWAY = 0.5  # of the way from guessing to the best cell: where the threshold lies
IN_BOTH_STATES = ("test_accuracy", "test_loss")  # measured with running averages and with re-estimated statistics
DIFFERENCES = ("different", "negligible")  # the verdicts that contain a difference
MOST_NAMED = 3  # cells in a sentence

EFFECT_COLUMNS = (
    "kind", "of", "metric", "n", "missing", "diverged", "running", "reestimated", "difference", "low", "high",
    "low_family", "high_family", "sd", "p", "p_holm", "different",
)  # fmt: skip

Array = np.ndarray


# Reading


class Curves(NamedTuple):
    """Validation curves of the planned runs, (R, E + 1) each, epoch 0 first; NaN where no row counts."""

    loss: Array
    accuracy: Array
    calibration_error: Array


def read(results: Results, store: Store) -> Curves:
    """The curves of the runs that are done or diverged. Of rows with equal run, trial and epoch the first by value."""
    runs = results.runs
    rows = np.flatnonzero(runs["status"].isin(["done", "diverged"]))
    run_ids, trials = (pa.array(runs[name].to_numpy(object)[rows], pa.string()) for name in ("run_id", "trial"))
    width = int(runs["epochs"].max()) + 1
    wanted = ("run_id", "trial", "epoch", "split", *Curves._fields)

    def all_that_count() -> Array:
        found = (
            _that_count(each.rows, run_ids, trials, width) for each in batches(store.files("curves"), "curves", wanted)
        )
        return np.hstack([np.empty((2 + len(Curves._fields), 0)), *found])

    at, epoch, *values = retrying(all_that_count)
    place = rows[at.astype(int)] * width + epoch.astype(int)
    if np.bincount(place, minlength=1).max() > 1:  # a conflict leaves several files of one trial
        order = np.lexsort((*values[::-1], place))
        place, first = np.unique(place[order], return_index=True)
        values = [value[order][first] for value in values]
    curves = []
    for value in values:
        dense = np.full(len(runs) * width, np.nan)
        dense[place] = value
        curves.append(dense.reshape(len(runs), width))
    return Curves(*curves)


def _that_count(rows: pa.Table, run_ids: pa.Array, trials: pa.Array, width: int) -> Array:
    """Of the validation rows of these runs and trials: place of the run, epoch, and values. (2 + values, rows)"""
    planned = pc.and_(pc.greater_equal(rows["epoch"], 0), pc.less(rows["epoch"], width))
    rows = rows.filter(pc.and_(pc.equal(rows["split"], "val"), planned))
    at = pc.index_in(rows["run_id"], run_ids)
    mine = pc.equal(trials.take(at), rows["trial"])  # null, which no filter keeps, where the run is none of ours
    rows, at = rows.filter(mine), at.filter(mine)
    return np.stack([each.to_numpy().astype(float) for each in (at, rows["epoch"], *map(rows.column, Curves._fields))])


# Measures of a curve


def with_curves(results: Results, store: Store, curves: Curves | None = None) -> tuple[Results, dict[str, float]]:
    """Results with the measures that need curves as columns of `runs`, and by data set the threshold, accuracy 0 to 1.

    NaN for runs that are not done, and where the store lacks an epoch that a measure needs. curves: where read already.
    """
    runs, curves = results.runs, curves or read(results, store)
    limits = thresholds(runs)
    limit = runs["dataset"].map(limits).to_numpy(float)
    measured = of_curves(curves.accuracy[:, 1:], runs["epochs"].to_numpy(int), limit)
    done = (runs["status"] == "done").to_numpy()
    columns = {name: np.where(done, values, np.nan) for name, values in measured.items()}
    return results._replace(runs=runs.assign(**columns)), limits


def thresholds(runs: pd.DataFrame) -> dict[str, float]:
    """By data set, the validation accuracy halfway from guessing to the best cell's mean after its last epoch.

    A diverged run counts as guessing, lest a lone survivor sets the mark. No threshold where no cell beats guessing. Arms
    are not told apart, so that a threshold favours none.
    """
    guess = 1 / runs["classes"]
    final = runs["val_accuracy"].where(runs["status"] == "done").mask(runs["status"] == "diverged", guess)
    means = final.groupby([runs["dataset"], runs["cell_id"]]).mean()
    best, guess = means.groupby("dataset").max(), guess.groupby(runs["dataset"]).max()
    learnt = best.index[best - guess > 1e-9]  # more than a mean of equal numbers is off by rounding
    return {name: float(guess[name] + HALFWAY * (best[name] - guess[name])) for name in learnt}


def of_curves(accuracy: Array, epochs: Array, threshold: Array) -> dict[str, Array]:
    """The measures of validation accuracies (R, E) of epochs 1 to E. epochs: of each run; threshold: NaN for none. (R,)

    mean_val_accuracy is the plain mean over the run's epochs. epochs_to_threshold is the first epoch whose accuracy is at
    least the threshold, and one more than there were where none is: censored. Both need every epoch.
    """
    planned = np.arange(accuracy.shape[1]) < epochs[:, None]
    complete = (np.isfinite(accuracy) | ~planned).all(1)
    reached = planned & (accuracy >= threshold[:, None])
    first = np.where(reached.any(1), reached.argmax(1) + 1, epochs + 1)
    return {
        "first_epoch_val_accuracy": accuracy[:, 0],
        "mean_val_accuracy": np.where(planned, accuracy, 0.0).sum(1) / epochs,
        "epochs_to_threshold": np.where(complete & np.isfinite(threshold), first, np.nan),
    }


# Differences over epochs


def epochs_shown(last: int, most: int = MOST_EPOCHS) -> Array:
    """At most so many of the epochs 1 to `last`, evenly chosen, with both ends. int (E,)"""
    return np.linspace(1, last, min(last, most)).round().astype(int)


def band(d: Array, floor: Array | float = 0.0, level: float = st.LEVEL) -> tuple[Array, Array, Array]:
    """Mean of d (n, E, K) and a band that holds all E means of a comparison at once with probability >= level. (E, K) each

    Student t intervals at level 1 − (1 − level)/E (Bonferroni; Dunn 1961), so that no assumption on how epochs hang together
    is needed. NaN is a missing pair; with one pair the band is unbounded. floor: the least sd, (K,).
    """
    seeds, epochs, count = d.shape
    m = st.moments(d.reshape(seeds, -1), np.broadcast_to(floor, (epochs, count)).ravel())
    low, high = st.t_interval(m, 1 - (1 - level) / epochs)
    return tuple(each.reshape(epochs, count) for each in (m.mean, low, high))


def over_epochs(results: Results, curves: Curves, metric: str, contrast: str) -> pd.DataFrame:
    """Differences of a contrast epoch by epoch, with a band over the epochs shown of each cell: a row a cell and epoch.

    metric: val_accuracy, val_loss or val_calibration_error. low, high: the band of a cell, at 95 %; low_family, high_family:
    of all K cells at once, at 1 − alpha. n counts pairs; of these `diverged` have a run that had diverged by then and
    counts as the metric's worst outcome.
    """
    of = measure(metric)
    columns, places = results.columns(contrast)
    pairs = results.cells(columns)
    family = 1 - results.grid.analysis.alpha / len(pairs)
    frames = []
    for last, cells in pairs.groupby("epochs").indices.items():
        shown = epochs_shown(int(last))
        a, b, lost, floor = _scored(results.runs, getattr(curves, of.kind), of, [p[:, cells] for p in places], shown)
        n = np.isfinite(a - b)
        numbers = {"n": n.sum(0), "diverged": (lost & n).sum(0)}
        numbers |= zip(("difference", "low", "high"), band(a - b, floor), strict=True)
        numbers |= zip(("difference", "low_family", "high_family"), band(a - b, floor, family), strict=True)
        frame = pairs.iloc[np.repeat(cells, len(shown))].assign(contrast=contrast, metric=metric)
        frames.append(frame.assign(epoch=np.tile(shown, len(cells)), **{k: v.T.ravel() for k, v in numbers.items()}))
    return pd.concat(frames).sort_index(kind="stable").reset_index(drop=True)


def _scored(runs: pd.DataFrame, values: Array, of: Measure, places: Sequence[Array], shown: Array) -> tuple[Array, ...]:
    """Outcomes of both arms, and where either had diverged by then, (n, E, K) each; least sd of the differences (K,).

    From the epoch in which it diverged on, a run counts as the worst outcome among the two arms in that epoch.
    """
    pair = Paired(runs, of, tuple(places))
    diverged, before = (runs["status"] == "diverged").to_numpy(), runs["epochs_run"].to_numpy(float)
    arms, lost = [], []
    for place in places:
        late = shown[:, None] > before[place][:, None, :]  # (n, E, K)
        lost.append(diverged[place][:, None, :] & late)
        value = values[place[:, None, :], shown[:, None]]
        arms.append(np.where(lost[-1] | ~np.isfinite(value), np.nan, value))
    seeds, epochs, count = arms[0].shape
    facts = {name: np.tile(fact, epochs) for name, fact in pair.facts.items()}
    worst = of.worst(facts, *(arm.reshape(seeds, -1) for arm in arms)).reshape(epochs, count)
    a, b = (st.score(arm, gone, worst) for arm, gone in zip(arms, lost, strict=True))
    return a, b, lost[0] | lost[1], pair.floor


# Running averages against re-estimated statistics, accuracy against loss


def statistics_effect(results: Results, alpha: float, metrics: Sequence[str] = IN_BOTH_STATES) -> pd.DataFrame:
    """What running averages change against statistics re-estimated over the training part: a row a cell, `of` and metric.

    of: an order with bn, whose metric is compared in both states seed by seed; or a contrast of two such orders, whose
    differences are: what of the effect comes from running averages. Orders without bn have one state only, and are left
    out. `running` and `reestimated` are the means of the two states, `difference` the first less the second, with its 95 %
    interval and the one at the level of the table (alpha/K), which Holm is over too: all K rows are one family. A diverged
    run has neither state: its pairs are among the `missing` ones, and counted in `diverged`.
    """
    grid = results.grid
    questions = [(order, "order", order, order) for order in results.place if "bn" in order.split("-")]
    known = {order for order, *_ in questions}
    questions += [(c, "contrast", *arms) for c, arms in grid.analysis.pairs.items() if known.issuperset(arms)]
    frames, differences, floors = [], [], []
    for of, kind, *orders in questions:
        columns = np.flatnonzero(np.all([(results.place[order] >= 0).all(0) for order in orders], axis=0))
        places = tuple(results.place[order][:, columns] for order in orders)
        for metric in metrics:
            running, fresh = (Paired(results.runs, measure(name), places) for name in (metric, f"reestimated_{metric}"))
            x, y = (pair.done[0] if kind == "order" else pair.finished for pair in (running, fresh))
            d = x - y
            gone = (results.runs["status"] == "diverged").to_numpy()
            counts = {"missing": np.isnan(d).sum(0), "diverged": (gone[places[0]] | gone[places[1]]).sum(0)}
            means = {"running": st.moments(np.where(np.isnan(d), np.nan, x)).mean}
            frame = results.cells(columns)
            frames.append(frame.assign(kind=kind, of=of, metric=metric, **counts, **means))
            differences.append(d)
            floors.append(running.floor)
    if not frames:
        return pd.DataFrame(columns=[*FIELDS_OF_A_PAIR, *EFFECT_COLUMNS])
    m = st.moments(np.hstack(differences), np.concatenate(floors))
    low, high = st.t_interval(m)
    low_family, high_family = st.t_interval(m, 1 - alpha / len(m.n))
    p = st.t_test(m)
    frame = pd.concat(frames, ignore_index=True)
    return frame.assign(
        n=m.n, reestimated=frame["running"] - m.mean, difference=m.mean, low=low, high=high, low_family=low_family,
        high_family=high_family, sd=m.sd, p=p, p_holm=st.holm(p),
        different=(st.holm(p) <= alpha) & (m.n >= st.FEWEST_PAIRS),
    )[[*FIELDS_OF_A_PAIR, *EFFECT_COLUMNS]]  # fmt: skip


def disagreements(frame: pd.DataFrame) -> pd.DataFrame:
    """Comparisons whose test accuracy and test loss both differ and favour different arms. frame: of compare.

    Of accuracy, loss and calibration_error: difference, low, high and verdict, as in accuracy_low; the last are NaN and ''
    where the frame has no test_calibration_error. Known from single runs of `after`
    (d-li14/octconv.pytorch): more right answers and a larger loss.
    """
    keys, numbers = [*FIELDS_OF_A_PAIR, "contrast"], ["difference", "low", "high", "verdict"]

    def family(kind: str) -> pd.DataFrame:
        rows = frame.loc[frame["metric"] == f"test_{kind}", [*keys, *numbers]]
        return rows.rename(columns={name: f"{kind}_{name}" for name in numbers})

    both = family("accuracy").merge(family("loss"), on=keys, validate="one_to_one")
    differ = both["accuracy_verdict"].isin(DIFFERENCES) & both["loss_verdict"].isin(DIFFERENCES)
    opposed = np.sign(both["accuracy_difference"]) * np.sign(both["loss_difference"]) > 0
    found = both[differ & opposed].merge(family("calibration_error"), on=keys, how="left", validate="one_to_one")
    arms = found["contrast"].str.split(" - ")
    first = found["accuracy_difference"] > 0
    return found.assign(
        calibration_error_verdict=found["calibration_error_verdict"].fillna(""),
        favoured_by_accuracy=arms.str[0].where(first, arms.str[1]),
        favoured_by_loss=arms.str[1].where(first, arms.str[0]),
    )
