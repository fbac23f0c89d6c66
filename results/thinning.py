"""Copy a store as small as its report allows, so that it can be published: `thin`.

What was measured of a run stays as it is, bit for bit: `runs` is copied whole, so that plans, comparisons and replays of
the copy are those of the store. Beside them a report shows a few digits of many numbers, and that is what is left:

- of runs with tuning seeds, which choose values and are not compared: no curves, no examples (so that the error of the
  test set is estimated on compared seeds alone), and of layers what activations gave after the last probed epoch. So a
  claim about a searched field is judged by `runs` and by these; if it asks for curves or other layers, it is not covered;
- in `curves` and `layers` numbers are rounded to BITS binary digits, a relative change of at most 2**-BITS (0.012 %);
- quantiles of what activations give, of which a report draws histograms; of other sites none.

A thinned store can be thinned again, which changes nothing, and swept on: new runs are then as large as ever.
"""

import hashlib
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from grids import TUNING_FROM
from results.errors import StoreError
from results.files import PART, batches, retrying, serialised
from results.places import at
from results.schema import SCHEMA_VERSION, SCHEMAS
from results.store import KEYS, Store

BITS = 13
MARK = ".thinned"  # an empty file in the folder of a store: what belongs to runs with tuning seeds may be missing
ROUNDED = ("curves", "layers")
ACT = "act"  # the site whose rows are needed most


class Thinning(NamedTuple):
    """Bytes of all tables, before and after."""

    before: int
    after: int

    def __str__(self) -> str:
        return f"thinned from {self.before / 1e6:.1f} to {self.after / 1e6:.1f} MB"


def is_thinned(store: Store) -> bool:
    return at(store.path).exists(store.path / MARK)


def mark_thinned(store: Store) -> None:
    """Say of a store that it is thinned, or holds what is."""
    at(store.path).touch(store.path / MARK)


def thin(source: Store, target: Store) -> Thinning:
    """Write what a report needs of `source` into `target`, a file a table, in which there must be nothing yet.

    What an interrupted thinning left there is replaced. StoreError where one cannot be read, the other cannot be written
    or is there already. All that is left is held in memory.
    """
    source.check_there()
    unfinished = is_thinned(target) and not target.files("runs")  # which are written last
    if target.is_there() and not unfinished:
        raise StoreError(f"{target.path}: is there already; a thinned store is a new one")
    tables = retrying(lambda: _read(source))
    if not len(tables["runs"]):
        raise StoreError(f"{source.path}: the store is empty")
    target.check_writable()
    try:
        for path in (path for name in SCHEMAS for path in target.files(name)):
            at(path).remove(path)
        mark_thinned(target)
        for name in sorted(tables, key=lambda name: name == "runs"):
            if len(tables[name]):
                rows = tables[name].replace_schema_metadata({"schema_version": str(SCHEMA_VERSION)})
                content = serialised(rows, small=True)
                place = target.path / name / f"{PART}{hashlib.sha256(content).hexdigest()[:32]}.parquet"
                at(place).publish(at(place).stage(place, content), place)
    except OSError as error:
        raise StoreError(f"{target.path}: cannot be written: {error.strerror}") from None
    return Thinning(*(_bytes(store) for store in (source, target)))


def _bytes(store: Store) -> int:
    return sum(at(path).size(path) for name in SCHEMAS for path in store.files(name))


def _read(source: Store) -> dict[str, pa.Table]:
    """Of each table what is left of it, sorted, so that equal stores make equal files and near rows are alike."""
    runs = _kept(source, "runs")
    chose = pc.greater_equal(runs["seed"], TUNING_FROM)
    tuning, trials = (pc.unique(runs.filter(chose)[name]) for name in ("run_id", "trial"))
    return {
        "runs": _sorted(runs, "trial", "seed"),
        "curves": _sorted(_kept(source, "curves", lambda rows: ~_among(rows["run_id"], tuning)), *KEYS["curves"]),
        "layers": _sorted(_kept(source, "layers", lambda rows: _needed(rows, tuning)), *KEYS["layers"]),
        "examples": _sorted(_kept(source, "examples", lambda rows: ~_among(rows["trial"], trials)), "trial"),
    }


def _kept(source: Store, name: str, keep: Callable[[pa.Table], np.ndarray] | None = None) -> pa.Table:
    """The rows of a table for which `keep` gives true, rounded where its numbers are."""
    parts = [SCHEMAS[name].empty_table()]
    for batch in batches(source.files(name), name):
        rows = batch.rows if keep is None else batch.rows.filter(pa.array(keep(batch.rows)))
        parts.append(_rounded(rows) if name in ROUNDED else rows)
    return pa.concat_tables(parts).combine_chunks()


def _among(column: pa.ChunkedArray, values: pa.Array) -> np.ndarray:
    return pc.is_in(column, values).to_numpy()


def _needed(layers: pa.Table, tuning: pa.Array) -> np.ndarray:
    """All rows of compared runs; of tuning runs those of activations in the last probed epoch. layers: of whole trials."""
    keys = layers.select(["run_id", "trial", "epoch"]).to_pandas()
    last = keys.groupby(["run_id", "trial"])["epoch"].transform("max")
    return (keys["epoch"] == last).to_numpy() & _gives(layers) | ~_among(layers["run_id"], tuning)


def _gives(layers: pa.Table) -> np.ndarray:
    """Whether a row is of what an activation gives, in whatever branch of a block."""
    return pc.match_substring_regex(layers["site"], rf"(^|\.){ACT}$").to_numpy()


def _rounded(rows: pa.Table) -> pa.Table:
    """The same with numbers of BITS binary digits, and quantiles only of what activations give."""
    for k, field in enumerate(rows.schema):
        if pa.types.is_floating(field.type):
            rows = rows.set_column(k, field, _shortened(rows[field.name].combine_chunks()))
        elif pa.types.is_list(field.type):
            lists = pc.if_else(pa.array(_gives(rows)), rows[field.name], pa.scalar(None, field.type)).combine_chunks()
            lengths = pc.fill_null(pc.list_value_length(lists), 0).to_numpy()
            starts = pa.array(np.concatenate([[0], np.cumsum(lengths)]).astype(np.int32))
            values = _shortened(pc.list_flatten(lists))
            short = pa.ListArray.from_arrays(starts, values, type=field.type, mask=lists.is_null())
            rows = rows.set_column(k, field, short)
    return rows


def _shortened(numbers: pa.Array) -> pa.Array:
    """Rounded to BITS binary digits; what is missing or not finite stays so."""
    values = numbers.fill_null(np.nan).to_numpy(zero_copy_only=False)
    mantissa, exponent = np.frexp(values)
    with np.errstate(over="ignore"):
        short = np.ldexp(np.round(mantissa * 2**BITS) / 2**BITS, exponent)
    short = np.where(np.isfinite(short), short, values)  # the largest numbers have no room to be rounded up
    return pa.array(short, numbers.type, mask=numbers.is_null().to_numpy(zero_copy_only=False))


def _sorted(rows: pa.Table, *keys: str) -> pa.Table:
    return rows.sort_by([(key, "ascending") for key in keys])
