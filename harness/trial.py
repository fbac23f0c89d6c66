"""From a trial to the rows of its tables. What Ray calls, less Ray."""

import contextlib
import os
import platform
import socket
import traceback
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import torch
from torch import nn

from grids import Cell
from harness import graphs, memory
from harness.architectures import build
from harness.datasets import Data
from harness.engine import COMPILED, EAGER, describe, keep_memory, marker
from harness.evaluation import shared_batch
from harness.normalizations import GroupNorm
from harness.per_seed import PerSeed
from harness.plan import PlanError, Trial, code_version, seeds_in_engine
from harness.plugins import in_a_line
from harness.probes import COLUMNS
from harness.seen import seen
from harness.stacking import stack
from harness.step import NotCompiled
from harness.training import Training, train
from results import METRICS, table
from results.secrets import without_secrets

HEEDED_BY_SOME = ("after_sum", "branch_end", "pool")  # fields of a cell
_CPUINFO = Path("/proc/cpuinfo")


def check_trainable(cells: Iterable[Cell], data: Mapping[str, Data]) -> list[str]:
    """PlanError for a cell whose architecture refuses it, as a convolution does without space, or gives no logits.

    Every network is built; of each architecture and data set, one is tried on two examples, and so is every network that
    normalises over nothing but space, of which pooling must leave something. Gives warnings: of architectures that are slow,
    and of fields that do nothing in them.
    """
    tried, slowness = set(), {}
    values: dict[tuple[str, str], set] = defaultdict(set)  # of a field in an architecture
    heeded: set[tuple[str, str]] = set()
    for cell in cells:
        examples, architecture = data[cell.dataset], cell.architecture
        try:
            model = build(cell, examples.shape, examples.classes)
            slowness[slow(architecture, model)] = None
            over_space = any(isinstance(layer, GroupNorm) and layer.each_channel for layer in model.modules())
            if over_space or (architecture, cell.dataset) not in tried:
                tried.add((architecture, cell.dataset))
                x = shared_batch(torch.from_numpy(examples.x_train[:2].copy()), seeds=1)
                logits = stack(model, [0])(x)
                if logits.shape != (1, examples.classes, len(x[0, 0])):
                    raise ValueError(f"gives {tuple(logits.shape)} where (1, classes, batch) is due")
            for field in HEEDED_BY_SOME:
                values[architecture, field].add(getattr(cell, field))
                if (architecture, field) not in heeded and _heeds(cell, field, examples):
                    heeded.add((architecture, field))
        except Exception as error:  # whatever its file does
            reason = in_a_line(error, architecture)
            raise PlanError(f"architecture {architecture}, data set {cell.dataset}: {reason}") from None
    ignored = [key for key, there in values.items() if len(there) > 1 and key not in heeded]
    return [*filter(None, slowness), *(_ignored(*key) for key in ignored)]


def slow(architecture: str, model: nn.Module) -> str:
    """What to know of a network with layers in PerSeed; empty where it has none."""
    paths = [path for path, layer in model.named_modules() if isinstance(layer, PerSeed)]
    if not paths:
        return ""
    more = f" and {len(paths) - 1} more" if len(paths) > 1 else ""
    return (
        f"architecture {architecture} has ordinary torch modules ({paths[0]}{more}): seeds pass them one after the other, "
        "so that many seeds together are hardly faster there than each alone"
    )


def _heeds(cell: Cell, field: str, data: Data) -> bool:
    """Whether the network would be another one if the field had its default."""
    default = Cell.model_fields[field].default
    if getattr(cell, field) == default:
        return False
    pair = [build(each, data.shape, data.classes) for each in (cell, cell.model_copy(update={field: default}))]
    if repr(pair[0]) != repr(pair[1]):
        return True
    x = shared_batch(torch.from_numpy(data.x_train[:2].copy()), seeds=1)
    return not torch.equal(*(stack(each, [0]).train()(x) for each in pair))


def _ignored(architecture: str, field: str) -> str:
    return (
        f"{field} does nothing in architecture {architecture}: cells that differ in it alone are the same network, and "
        f'count as several; exclude = [{{ architecture = "{architecture}", {field} = … }}] leaves them out'
    )


class Outcome(NamedTuple):
    """The tables of a trial, and why its steps were not one graph where they were to be."""

    tables: dict[str, pa.Table]
    not_compiled: str | None = None
    out_of_memory: bool = False


def run_within_memory(
    trial: Trial, data: Data, provenance: Mapping[str, str], device: str = "cpu"
) -> Iterator[Outcome]:
    """run_trial, and its halves one after the other where the memory does not hold all of its seeds."""
    outcome = run_trial(trial, data, provenance, device)
    if outcome.out_of_memory and len(trial.seeds) > 1:
        for half in halves(trial):
            yield from run_within_memory(half, data, provenance, device)
    else:
        yield outcome


def halves(trial: Trial) -> list[Trial]:
    middle = (len(trial.seeds) + 1) // 2
    return [replace(trial, seeds=seeds) for seeds in (trial.seeds[:middle], trial.seeds[middle:])]


def is_out_of_memory(error: BaseException) -> bool:
    """Whether memory could not be had: torch has a class for GPUs, and a word for the CPU."""
    return isinstance(error, MemoryError | torch.OutOfMemoryError) or "DefaultCPUAllocator" in str(error)


def run_trial(trial: Trial, data: Data, provenance: Mapping[str, str], device: str = "cpu") -> Outcome:
    """Train a trial and give its tables. An error inside is a fate: rows of status `failed` with its traceback.

    Steps that cannot be compiled are trained eagerly instead; the rows' engine says what was done.
    """
    torch.set_num_threads(1)  # beside other work, default threads made tiny runs 8x slower (16.5 s against 1.9 s)
    keep_memory()
    started_at = datetime.now(UTC)
    not_compiled = None
    taken = memory.taken(device)
    try:
        try:
            if trial.mode == COMPILED:
                graphs.guard()
            training = train(trial.cell, trial.seeds, data, device, trial.mode, trial.probes)
        except NotCompiled as error:
            not_compiled, trial = str(error), replace(trial, mode=EAGER)
            training = train(trial.cell, trial.seeds, data, device, EAGER, trial.probes)
    except Exception as error:
        tables = failed_tables(trial, data, provenance, traceback.format_exc(), started_at, device)
        return Outcome(tables, not_compiled, is_out_of_memory(error))
    if trial.mode == COMPILED:
        compiled = marker(
            trial.cell, data, len(trial.seeds), code_version(trial.cell.architecture, trial.cell.activation)
        )
        with contextlib.suppress(OSError):  # a full disk costs a later sweep the knowledge, not this one its runs
            compiled.parent.mkdir(parents=True, exist_ok=True)
            compiled.touch()
    return Outcome(_tables(trial, training, taken(), data, provenance, device, started_at), not_compiled)


def _tables(
    trial: Trial, training: Training, memory_bytes: int, data: Data, provenance, device: str, started_at
) -> dict[str, pa.Table]:
    common = _common(trial, data, provenance, device, started_at)
    rows = {
        **common,
        **training.metrics,
        "status": np.where(training.diverged_at > 0, "diverged", "done").tolist(),
        "error": [f"a loss of epoch {epoch} was not finite" if epoch else None for epoch in training.diverged_at],
        "epochs_run": np.where(training.diverged_at > 0, training.diverged_at - 1, trial.cell.epochs).tolist(),
        "best_epoch": [None if e else b for e, b in zip(training.diverged_at, training.best_epoch, strict=True)],
        "parameters": training.parameters,
        "wall_s": training.wall_s / len(trial.seeds),
        "memory_bytes": round(memory_bytes / len(trial.seeds)),
    }
    tables = {"runs": table("runs", rows), "curves": _curves(trial, training, common["trial"])}
    if training.probes:
        tables["layers"] = _layers(trial, training, common["trial"])
    done = training.diverged_at == 0
    if done.any():
        run_ids = [run.run_id for run, fine in zip(trial.runs, done, strict=True) if fine]
        counts = training.correct[done].sum(0, dtype=np.int32)
        columns = {"trial": [common["trial"]], "seeds": [len(run_ids)], "run_ids": [run_ids], "correct": [counts]}
        tables["examples"] = table("examples", columns)
    return tables


def failed_tables(
    trial: Trial, data: Data, provenance: Mapping[str, str], error: str, started_at: datetime, device: str = "cpu"
) -> dict[str, pa.Table]:
    """Rows that record an attempt without result, and nothing secret that the error may tell."""
    error = without_secrets(error).encode("utf-8", "backslashreplace").decode()  # Arrow refuses half a surrogate
    columns = dict.fromkeys((*METRICS, "epochs_run", "best_epoch", "wall_s", "memory_bytes", "parameters"))
    return {
        "runs": table(
            "runs",
            {**columns, **_common(trial, data, provenance, device, started_at), "status": "failed", "error": error},
        )
    }


def _common(trial: Trial, data: Data, provenance: Mapping[str, str], device: str, started_at: datetime) -> dict:
    cell = trial.cell
    code = code_version(cell.architecture, cell.activation)
    engine = describe(
        torch.device(device).type,
        torch.backends.cpu.get_cpu_capability(),
        torch.__version__.partition("+")[0],
        trial.mode,
        seeds_in_engine(cell, data, torch.device(device).type, len(trial.seeds)),
    )
    return {
        "run_id": [run.run_id for run in trial.runs],
        "trial": trial.trial_id(engine, code, data.checksum),
        **cell.model_dump(),
        "seed": list(trial.seeds),
        "train_examples": len(seen(data, cell).x_train),
        "val_examples": len(data.x_val),
        "test_examples": len(data.x_test),
        "classes": data.classes,
        "engine": engine,
        "seed_block": trial.block,
        "code": code,
        "data": data.checksum,
        "host": socket.gethostname(),
        "device": on(device, trial.accelerator),
        "started_at": started_at,
        **provenance,
    }


def _curves(trial: Trial, training: Training, trial_id: str) -> pa.Table:
    """One row a run, epoch and split, up to the epoch in which a run diverged."""
    columns: dict[str, list] = {name: [] for name in (
        "run_id", "trial", "epoch", "split", "loss", "accuracy", "calibration_error", "gradient_norm", "lr"
    )}  # fmt: skip
    for s, run in enumerate(trial.runs):
        last = training.diverged_at[s] or np.inf
        for row in training.curves:
            if row["epoch"] > last:
                break
            columns["run_id"].append(run.run_id)
            columns["trial"].append(trial_id)
            for name in ("epoch", "split", "lr"):
                columns[name].append(row[name])
            for name in ("loss", "accuracy", "calibration_error", "gradient_norm"):
                columns[name].append(float(row[name][s]))
    return table("curves", columns)


def _layers(trial: Trial, training: Training, trial_id: str) -> pa.Table:
    """One row a run, probed epoch, block and site, up to the epoch in which a run diverged."""
    probes = training.probes
    last = np.where(training.diverged_at > 0, training.diverged_at, trial.cell.epochs)
    wanted = np.concatenate([np.full((len(p.sites), len(last)), p.epoch) <= last for p in probes]).T  # (S, rows)

    def of_sites(values: list) -> np.ndarray:
        """A value a site and epoch -> a value a row."""
        return np.broadcast_to(np.array(values), wanted.shape)[wanted]

    columns = {name: np.concatenate([p.numbers[name] for p in probes]).T[wanted].astype(np.float32) for name in COLUMNS}
    quantiles = np.concatenate([p.quantiles for p in probes]).swapaxes(0, 1)[wanted].astype(np.float32)
    run_ids = np.array([run.run_id for run in trial.runs])
    columns |= {
        "run_id": np.broadcast_to(run_ids[:, None], wanted.shape)[wanted],
        "trial": trial_id,
        "epoch": of_sites([p.epoch for p in probes for _ in p.sites]),
        "block": of_sites([block for p in probes for block, _ in p.sites]),
        "site": of_sites([site for p in probes for _, site in p.sites]),
        "quantiles": [None if np.isnan(row[0]) else row for row in quantiles],
    }
    return table("layers", columns)


def on(device: str, accelerator: str) -> str:
    """What a trial is trained on, for its rows. accelerator: the kind that it was to have; later sweeps look for it."""
    name = torch.cuda.get_device_name(device) if torch.device(device).type == "cuda" else processor()
    return f"{name} ({accelerator})" if accelerator else name


def processor() -> str:
    """Name and number of the processors."""
    names = []
    if _CPUINFO.exists():
        names = [line.partition(":")[2].strip() for line in _CPUINFO.read_text().splitlines() if "model name" in line]
    return f"{names[0] if names else platform.machine()}, {os.cpu_count()} cores"
