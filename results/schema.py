"""The tables of a store: columns, units and meanings, and what a column reads as in a file older than it."""

from collections.abc import Iterable, Mapping
from typing import Any

import pyarrow as pa

from grids import Cell

SCHEMA_VERSION = 1
PARTS = ("train", "val", "test")

_UNITS = {"accuracy": "share, 0 to 1", "loss": "nats per example", "calibration_error": "share, 0 to 1"}
_MEANINGS = {
    "accuracy": "share of examples classified right",
    "loss": "mean cross-entropy",
    "calibration_error": "expected calibration error, 15 bins of equal width",
}
_STATES = {
    "": "after the last epoch, running averages",
    "best_": "after best_epoch, running averages",
    "reestimated_": "after the last epoch, statistics re-estimated over the training part (without BN: the same)",
}


def _field(name: str, kind: pa.DataType, meaning: str, unit: str = "") -> pa.Field:
    return pa.field(name, kind, metadata={"meaning": meaning, **({"unit": unit} if unit else {})})


def _metrics() -> list[pa.Field]:
    fields = []
    for prefix, state in _STATES.items():
        for part in PARTS if not prefix.startswith("re") else ("val", "test"):
            for metric, unit in _UNITS.items():
                fields.append(
                    _field(f"{prefix}{part}_{metric}", pa.float64(), f"{_MEANINGS[metric]} of {part}, {state}", unit)
                )
    return fields


_KINDS = {str: pa.string(), int: pa.int64(), float: pa.float64(), bool: pa.bool_()}


def _cell_fields() -> list[pa.Field]:
    fields = []
    for name, info in Cell.model_fields.items():
        kind = _KINDS.get(info.annotation, pa.string())  # a Literal is text
        fields.append(_field(name, kind, info.description))
    return fields


RUN_ID = _field("run_id", pa.string(), "identity of cell and seed")
TRIAL = _field("trial", pa.string(), "identity of the trial: cell, seeds, engine, code, data")

RUNS = pa.schema(
    [
        RUN_ID,
        TRIAL,
        *_cell_fields(),
        _field("seed", pa.int64(), "seed of initial weights, batches and dropout"),
        _field("status", pa.string(), "done, diverged (a loss was not finite) or failed (no result)"),
        _field("error", pa.string(), "reason of diverged and failed"),
        _field("epochs_run", pa.int64(), "epochs with finite losses"),
        _field("train_examples", pa.int64(), "size of the training part"),
        _field("val_examples", pa.int64(), "size of the validation part"),
        _field("test_examples", pa.int64(), "size of the test set"),
        _field("classes", pa.int64(), "number of classes"),
        *_metrics(),
        _field("best_epoch", pa.int64(), "first epoch with the highest validation accuracy"),
        _field("wall_s", pa.float64(), "time of the trial divided by its seeds", "s"),
        _field(
            "memory_bytes",
            pa.int64(),
            "most memory that the trial took at once, beyond what its worker held before (its first trial loads "
            "libraries, too), divided by its seeds",
            "bytes",
        ),
        _field("parameters", pa.int64(), "trainable numbers of one seed's network"),
        _field(
            "engine",
            pa.string(),
            "device type, CPU capability, torch version, S where bits depend on it, compiled or not",
        ),
        _field(
            "seed_block",
            pa.int64(),
            "most seeds that a trial of this shape trains together, as chosen; later sweeps keep to it",
        ),
        _field(
            "code",
            pa.string(),
            "hash of the architecture's file and of what trains it; + that of an activation from a file of its own",
        ),
        _field("data", pa.string(), "checksum of the prepared data set"),
        _field("commit", pa.string(), "git commit, '+' appended where the tree had changes; empty outside git"),
        _field("versions", pa.string(), "python, torch, ray, numpy"),
        _field("host", pa.string(), "name of the machine"),
        _field("device", pa.string(), "processor or accelerator, in brackets its kind where trials were to have one"),
        _field("started_at", pa.timestamp("us", tz="UTC"), "start of the trial"),
    ]
)
METRICS = tuple(field.name for field in _metrics())
# What two rows of one run and one engine must agree in: everything measured, nothing about where and when.
MEASURED = ("status", "epochs_run", "best_epoch", *METRICS)

CURVES = pa.schema(
    [
        RUN_ID,
        TRIAL,
        _field("epoch", pa.int64(), "1 = after the first pass over the training part, 0 = at initialisation"),
        _field("split", pa.string(), "train: mean over the epoch's steps, in training mode; val: after the epoch"),
        _field("loss", pa.float64(), _MEANINGS["loss"], _UNITS["loss"]),
        _field("accuracy", pa.float64(), _MEANINGS["accuracy"], _UNITS["accuracy"]),
        _field("calibration_error", pa.float64(), _MEANINGS["calibration_error"] + "; val only", "share, 0 to 1"),
        _field("gradient_norm", pa.float64(), "L2 norm of the gradient at the epoch's last step; train only"),
        _field("lr", pa.float64(), "learning rate of the epoch's first step; train only"),
    ]
)
QUANTILES = (0.0, 0.01, 0.05, *(q / 10 for q in range(1, 10)), 0.95, 0.99, 1.0)
_SHARE = "share, 0 to 1"


def _measured(name: str, meaning: str, unit: str = "") -> pa.Field:
    """A number that is measured inside of a network: there are many, and none is known to more than seven digits."""
    return _field(name, pa.float32(), meaning, unit)


LAYERS = pa.schema(
    [
        RUN_ID,
        TRIAL,
        _field("epoch", pa.int64(), "0 = at initialisation, 1 = after the first pass over the training part"),
        _field("block", pa.int64(), "1 to depth; 0 is the stem, depth + 1 the head"),
        _field(
            "site",
            pa.string(),
            "input (what the block is given), a layer by its name in the order (its output; where a block has several "
            "sets of layers, after their path, as in 1.weight), or output (what the block gives)",
        ),
        _measured(
            "mean",
            "of all values at this site, of the first 1,000 examples of the validation part or as many as have 4 million "
            "values; in evaluation mode, at epoch 0 with the statistics of these examples in place of running averages",
        ),
        _measured("sd", "standard deviation of all these values"),
        _measured("skewness", "third standardised moment of all these values; 0 of a normal variable"),
        _measured("kurtosis", "fourth standardised moment of all these values; 3 of a normal variable"),
        _measured("zeros", "share of these values that are exactly 0", _SHARE),
        _measured("negative", "share of these values below 0", _SHARE),
        _measured(
            "saturated",
            "share of all values of the whole validation part where the activation hardly has a slope; act only",
            _SHARE,
        ),
        _measured(
            "dead",
            "share of the channels that are saturated for every example of the validation part, everywhere in space; "
            "act only",
            _SHARE,
        ),
        _measured(
            "effective_rank",
            "tr(M)² / tr(M²), M the second moments of the channels (after the mean over space) over the same examples as "
            "mean; a lower bound of the rank; input and output only",
        ),
        _measured(
            "mean_cosine", "mean cosine of these representations of two different examples; input and output only"
        ),
        _measured(
            "drift",
            "mean distance of equal quantiles now and at the last probed epoch (the 1-Wasserstein distance), by the sd "
            "then; input only",
        ),
        _measured(
            "gradient_norm",
            "L2 norm of the gradient of the loss by the weights, on the first examples of the training part, as many as "
            "a batch has, at most 32, in training mode; weight only",
        ),
        _measured(
            "update_norm",
            "L2 norm of what a first step of the optimiser adds with these gradients at the peak learning rate, by that "
            "of the weights; weight only",
        ),
        _measured(
            "gradient_change",
            "L2 norm of the change of the gradient by the weights when this step has updated all layers before them "
            "(parallel branches are one after the other), by that of the gradient before (Santurkar et al. 2018, "
            "arXiv:1805.11604); weight of some blocks only",
        ),
        _measured("gradient_cosine", "cosine of these two gradients; weight of some blocks only"),
        _field(
            "quantiles",
            pa.list_(pa.float32()),
            "of up to 2,048 of the values that mean is of, at 0, 1, 5, 10, 20, …, 90, 95, 99 and 100 %",
        ),
    ]
)
EXAMPLES = pa.schema(
    [
        TRIAL,
        _field("seeds", pa.int64(), "finished seeds that are counted"),
        _field("run_ids", pa.list_(pa.string()), "their runs"),
        _field(
            "correct", pa.list_(pa.int32()), "of each test example, the number of these seeds that classify it right"
        ),
    ]
)
SCHEMAS = {"runs": RUNS, "curves": CURVES, "layers": LAYERS, "examples": EXAMPLES}


def table(name: str, columns: Mapping[str, Any]) -> pa.Table:
    """A table of a store from its columns, each a sequence or one value for all rows. ValueError unless they fit.

    Arrow itself would drop a misspelt column and fill a missing one with nulls in silence.
    """
    schema = SCHEMAS[name]
    if wrong := set(columns) ^ set(schema.names):
        raise ValueError(f"table {name}: columns missing or unknown: {', '.join(sorted(wrong))}")
    rows = max(len(value) for value in columns.values() if _many(value))
    arrays = []
    for field in schema:
        value = columns[field.name]
        arrays.append(pa.array(value if _many(value) else [value] * rows, field.type, from_pandas=True))
    return pa.Table.from_arrays(arrays, schema=schema.with_metadata({"schema_version": str(SCHEMA_VERSION)}))


def _many(value: Any) -> bool:
    return not isinstance(value, str) and hasattr(value, "__len__")


def columns_of(name: str, columns: Iterable[str] | None = None) -> pa.Schema:
    """Today's schema of a table, or of only `columns` of it."""
    return SCHEMAS[name] if columns is None else pa.schema([SCHEMAS[name].field(column) for column in columns])


def conform(read: pa.Table, schema: pa.Schema) -> pa.Table:
    """A table as read from a file of any age, with today's columns: a missing one has its field's default, or null."""
    if read.schema.equals(schema):  # as nearly always; column by column it costs more than the reading
        return read
    arrays, there = [], set(read.column_names)
    for field in schema:
        if field.name in there:
            arrays.append(read[field.name].cast(field.type))
        else:
            info = Cell.model_fields.get(field.name)
            default = None if info is None or info.is_required() else info.default
            arrays.append(pa.repeat(pa.scalar(default, field.type), len(read)))
    return pa.Table.from_arrays(arrays, schema=schema)
