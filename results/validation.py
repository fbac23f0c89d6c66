"""What is wrong with a store: files, identities, statuses, and what belongs to each run that is done.

Rows are streamed: what is held of a table is a few numbers of each run.
"""

import functools
from collections.abc import Iterator

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pydantic import ValidationError

from grids import FIELDS, LARGEST, TUNING_FROM, Cell, Grid, run_ids
from results.errors import OutOfReach, StoreError, Vanished
from results.files import batches, identify, read_file, retrying, trials
from results.merging import forget
from results.places import Place, at, over
from results.protocol import Wanted, planned_in, unchosen
from results.schema import METRICS, QUANTILES, SCHEMAS, columns_of
from results.store import FINISHED, VERSIONS, Store, one_a_run
from results.thinning import is_thinned

STATUSES = (*FINISHED, "failed")


def validate(store: Store) -> list[str]:
    """A line for each problem of a store; none is fine."""
    return retrying(lambda: list(_problems(store)))


def incomplete(store: Store, grid: Grid, wanted: Wanted | None = None) -> list[str]:
    """A line for the planned runs of a grid that are not finished, by fate; none where all are."""
    finished, failed = store.fates()
    will = planned_in(grid, store, finished, failed, wanted)
    planned = set(will.run_ids)
    missing = len(planned) - len(planned & finished.keys()) - len(planned & failed)
    counts = {"failed": len(planned & failed), "missing": missing}
    lines = [f"{grid.name}: {n:,} of {len(planned):,} planned runs are {fate}" for fate, n in counts.items() if n]
    if will.later:
        lines.append(f"{grid.name}: up to {will.later:,} more runs follow, which are not planned yet")
    return lines + [f"{grid.name}: {line}" for line in unchosen(grid, will.unchosen)]


def set_aside(store: Store) -> list[str]:
    """Move files that cannot be read out of the tables, into the folder `set-aside`; a line for each.

    Only temporary files that nobody will finish are deleted.
    """
    told = []
    for name in SCHEMAS:
        files = store.files(name)
        problems = dict(zip(files, over(lambda path, name=name: _unreadable(path, name), files), strict=True))
        unreadable = [path for path in files if problems[path]]
        told += [problems[path] for path in unreadable]
        for path in unreadable:
            to = store.path / "set-aside" / name / f"{path.name}.{identify(path)[0]}"  # two of one name may come
            try:
                at(path).move(path, to)
            except OSError as error:
                raise StoreError(f"{path}: cannot be moved to {to}: {error.strerror}") from None
            told.append(f"moved to {to}")
        if removed := at(store.path).remove_stale(store.path / name):
            told.append(f"{store.path / name}: {removed:,} temporary files of killed writers removed")
    if told:
        forget(store)  # what was set aside may be merged again
    return told


def _unreadable(path: Place, name: str) -> str | None:
    """Why a file of a table cannot be read; None where it can be, or has been merged into another one meanwhile."""
    try:
        read_file(path, columns_of(name))
    except Vanished:
        return None
    except OutOfReach:
        raise
    except StoreError as error:
        return str(error)
    return None


def orphans(store: Store) -> int:
    """How many trials have rows in other tables and none in `runs`: what a crash left behind, without effect."""
    beside = set().union(*(trials(store.files(name), name) for name in SCHEMAS if name != "runs"))
    return len(beside - trials(store.files("runs"), "runs"))


def _problems(store: Store) -> Iterator[str]:
    unreadable: list[StoreError] = []
    kept = [columns_of("runs", (*VERSIONS, "epochs", "seed")).empty_table()]
    for _, rows, _ in batches(store.files("runs"), "runs", unreadable=unreadable.append):
        yield from _wrong_ids(rows)
        yield from _wrong_rows(rows)
        kept.append(rows.select(kept[0].column_names))
    runs = one_a_run(pa.concat_tables(kept))
    done = runs.filter(pc.equal(runs["status"], "done"))
    if is_thinned(store):  # which left out the curves and examples of the others
        done = done.filter(pc.less(done["seed"], TUNING_FROM))
    del kept, runs
    yield from _without_curves(store, done, unreadable)
    yield from _without_examples(store, done, unreadable)
    yield from _wrong_layers(store, unreadable)
    yield from map(str, unreadable)
    if not unreadable:
        for run_id in store.conflicts()["run_id"].unique():
            yield f"run {run_id}: in conflict: equal engines, code and data measured different values"


def _wrong_ids(runs: pa.Table) -> Iterator[str]:
    """Rows whose run_id is not that of their cell and seed. Each cell is made once."""
    for run_id in runs.filter(pc.is_null(runs["seed"]))["run_id"].to_pylist():
        yield f"run {run_id}: a seed is missing"
    frame = runs.filter(pc.is_valid(runs["seed"])).select([*FIELDS, "seed", "run_id"]).to_pandas()
    cell_of_row = frame.groupby(list(FIELDS), sort=False, dropna=False).ngroup().to_numpy()
    order = np.argsort(cell_of_row, kind="stable")
    starts = np.flatnonzero(np.diff(cell_of_row[order], prepend=-1))
    cells = frame[list(FIELDS)].iloc[order[starts]].to_dict("records")
    seeds = np.split(frame["seed"].to_numpy()[order], starts[1:])
    stored = np.split(frame["run_id"].to_numpy(dtype=object)[order], starts[1:])
    for fields, block, named in zip(cells, seeds, stored, strict=True):
        try:
            wanted = run_ids(Cell(**fields), block.tolist())
        except ValidationError as error:
            problem = error.errors()[0]
            yield f"runs {', '.join(map(str, named))}: no cell: {problem['loc'][0]}: {problem['msg']}"
            continue
        for have, want in zip(named, wanted, strict=True):
            if have != want:
                yield f"run {have}: the identity of its cell and seed is {want}"


def _wrong_rows(runs: pa.Table) -> Iterator[str]:
    """Rows that no trial writes: with another status, or not with the numbers of theirs."""
    measured = [runs[name] for name in METRICS]
    finite = functools.reduce(pc.and_, (pc.fill_null(pc.is_finite(column), False) for column in measured))
    absent = functools.reduce(pc.and_, (pc.is_null(column) for column in measured))
    shares = [runs[name] for name in METRICS if not name.endswith("loss")]
    outside = [pc.or_(pc.less(share, 0.0), pc.greater(share, 1.0)) for share in shares]
    outside += [pc.less(runs[name], 0.0) for name in METRICS if name.endswith("loss")]
    outside = functools.reduce(pc.or_, (pc.fill_null(each, False) for each in outside))
    best = pc.or_(pc.less(runs["best_epoch"], 1), pc.greater(runs["best_epoch"], runs["epochs_run"]))
    known, done = pc.is_in(runs["status"], pa.array(STATUSES)), pc.equal(runs["status"], "done")
    lost = pc.and_(known, pc.invert(done))
    epochs = pc.fill_null(pc.equal(runs["epochs_run"], runs["epochs"]), False)
    wrong = {
        f"status is none of {', '.join(STATUSES)}": pc.invert(known),
        "done, but a metric is missing or not finite": pc.and_(done, pc.invert(finite)),
        "done, but not all epochs were run": pc.and_(done, pc.invert(epochs)),
        "a share beyond 0 to 1, or a negative loss": outside,
        "its best epoch was not run": pc.and_(done, pc.fill_null(best, True)),
        "not done, but with metrics": pc.and_(lost, pc.invert(absent)),
        "not done, but without a reason": pc.and_(lost, pc.is_null(runs["error"])),
    }
    for what, rows in wrong.items():
        for run_id, trial in _names(runs.filter(rows)):
            yield f"run {run_id} of trial {trial}: {what}"


def _without_curves(store: Store, done: pa.Table, unreadable: list[StoreError]) -> Iterator[str]:
    """Runs whose rows in `curves` are not those of a training: val for epochs 0 to E, train for 1 to E.

    Each (epoch, split) has a random weight, so that the number of a run's rows and the sum of their weights tell whether
    they are these, once or, after a crash in a compaction, several times each.
    """
    epochs = np.clip(done["epochs"].fill_null(0).to_numpy(), 1, LARGEST)
    most = int(epochs.max(initial=0))
    weights = np.random.default_rng(0).integers(1, 2**31, 2 * most + 3)  # [2 epoch + (split is train)]; last: any other
    keys, parts = ["run_id", "trial"], []
    for _, rows, _ in batches(store.files("curves"), "curves", unreadable=unreadable.append):
        epoch, split = rows["epoch"].fill_null(-1).to_numpy(), rows["split"]
        train = pc.fill_null(pc.equal(split, "train"), False).to_numpy()
        known = pc.is_in(split, pa.array(["train", "val"])).to_numpy() & (epoch >= 0) & (epoch <= most)
        weight = weights[np.where(known, 2 * epoch + train, 2 * most + 2)]
        part = (
            rows.select(keys)
            .append_column("weight", pa.array(weight))
            .append_column("rows", pa.array(np.ones_like(weight)))
        )
        parts.append(_summed(part, keys))
    found = done.select(keys).append_column("epochs", pa.array(epochs))
    summed = (
        _summed(pa.concat_tables(parts), keys)
        if parts
        else pa.table(
            {
                **{key: pa.array([], pa.string()) for key in keys},
                "weight": pa.array([], pa.int64()),
                "rows": pa.array([], pa.int64()),
            }
        )
    )
    found = found.join(summed, keys, join_type="left outer")
    rows, weight = (found[name].fill_null(0).to_numpy() for name in ("rows", "weight"))
    last = 2 * found["epochs"].to_numpy() + 1
    once = np.cumsum(weights)[last] - weights[1]  # there is no training before the first epoch
    times = np.maximum(rows // last, 1)
    for run_id, trial in _names(found.filter(pa.array((rows != times * last) | (weight != times * once)))):
        yield f"run {run_id} of trial {trial}: its rows in curves are not those of each epoch and split"


def _without_examples(store: Store, done: pa.Table, unreadable: list[StoreError]) -> Iterator[str]:
    """Runs that no row of `examples` of their trial counts, and rows that count something else than their runs."""
    counted = [pa.array([], pa.string())]
    for _, rows, _ in batches(store.files("examples"), "examples", unreadable=unreadable.append):
        lengths = pc.fill_null(pc.list_value_length(rows["run_ids"]), 0).combine_chunks()
        for trial in rows.filter(pc.not_equal(lengths, rows["seeds"]))["trial"].to_pylist():
            yield f"trial {trial}: examples counts another number of seeds than it has run_ids"
        runs, trials = (column.combine_chunks() for column in (pc.list_flatten(rows["run_ids"]), rows["trial"]))
        trials = trials.take(pa.array(np.repeat(np.arange(len(rows)), lengths.to_numpy())))
        counted.append(pc.binary_join_element_wise(runs, trials, " "))
    keys = pc.binary_join_element_wise(done["run_id"], done["trial"], " ")
    for run_id, trial in _names(done.filter(pc.invert(pc.is_in(keys, pa.chunked_array(counted))))):
        yield f"run {run_id} of trial {trial}: no row of examples counts it"


def _wrong_layers(store: Store, unreadable: list[StoreError]) -> Iterator[str]:
    """Rows of `layers` that no trial writes, by trial. A run may have none: where a grid asks for none, or in old stores."""
    shares = [field.name for field in SCHEMAS["layers"] if (field.metadata or {}).get(b"unit") == b"share, 0 to 1"]
    for _, rows, _ in batches(store.files("layers"), "layers", unreadable=unreadable.append):
        keyless = [pc.is_null(rows[name]) for name in ("run_id", "epoch", "block", "site")]
        keyless += [pc.less(rows[name], 0) for name in ("epoch", "block")]
        outside = [pc.or_(pc.less(rows[name], 0), pc.greater(rows[name], 1)) for name in shares]
        outside += [
            pc.less(rows[name], 0) for name in ("sd", "gradient_norm", "update_norm", "gradient_change", "drift")
        ]
        lengths = pc.fill_null(pc.list_value_length(rows["quantiles"]), len(QUANTILES))
        wrong = {
            "without a run, an epoch from 0 on, a block or a site": keyless,
            "a share beyond 0 to 1, or a size below 0": outside,
            f"other than {len(QUANTILES)} quantiles": [pc.not_equal(lengths, len(QUANTILES))],
        }
        for what, each in wrong.items():
            found = functools.reduce(pc.or_, (pc.fill_null(one, False) for one in each))
            for trial in pc.unique(rows.filter(found)["trial"]).to_pylist():
                yield f"trial {trial}: rows of layers {what}"


def _names(rows: pa.Table) -> Iterator[tuple[str, str]]:
    return zip(rows["run_id"].to_pylist(), rows["trial"].to_pylist(), strict=True)


def _summed(rows: pa.Table, keys: list[str]) -> pa.Table:
    summed = rows.group_by(keys).aggregate([("weight", "sum"), ("rows", "sum")])
    return summed.rename_columns({"weight_sum": "weight", "rows_sum": "rows"})
