"""What is left to do: the runs of a grid that the store has not finished, grouped into trials. No torch here."""

import hashlib
from collections import Counter, defaultdict
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass
from functools import cache
from math import prod
from types import MappingProxyType

from grids import Cell, Grid, Run, WrongUse, identity, selects
from harness import HERE, convolves, plugins, products, stackable, units
from harness.datasets import Data
from harness.engine import EAGER, UNMEASURED, How, batch_sizes, bits_need_one_seed, graph
from harness.initialisation import parse
from harness.packing import Amount, block_sizes, length
from harness.seen import misfit, seen
from results import Made
from results.protocol import Outcomes, Planned, Stage, expected, planned

# Not what only looks on (probes.py, values.py): it changes no result, so that other code there leaves all runs valid.
TRAINED_BY = (
    *("layout.py", "layers.py", "branches.py", "normalizations.py", "initialisation.py", "drawing.py", "lsuv.py"),
    *("per_seed.py", "stacking.py", "step.py", "training.py", "evaluation.py", "engine.py"),
    *("seen.py", "augmentation.py"),
)
# What a unit of convolution, normalization and activation takes for a place beside its products, in multiplications.
# Measured on images of 8×8 and vectors of 40, widths 8 to 64, batches of 32 to 100: with it a multiplication takes 0.13 to
# 0.38 ns in each of 10 networks, without it 20 times as long in one as in another (beside other work).
A_UNIT = 600


class PlanError(WrongUse):
    """One line: a cell that cannot be trained, and why."""


@dataclass(frozen=True)
class Trial:
    """One cell with a block of S seeds, trained together in one process."""

    cell: Cell
    seeds: tuple[int, ...]
    block: int = UNMEASURED  # the S that was chosen for the cell, of which this trial may have fewer
    mode: str = EAGER
    accelerator: str = ""  # the kind that it is to have; empty for any
    probes: tuple[int, ...] = ()  # epochs in which the inside of the networks is measured

    @property
    def runs(self) -> list[Run]:
        return [Run(self.cell, seed) for seed in self.seeds]

    def trial_id(self, engine: str, code: str, data: str) -> str:
        return identity({**self.cell.content(), "seeds": self.seeds, "engine": engine, "code": code, "data": data})


@dataclass(frozen=True)
class Plan:
    """The planned runs of a grid by what is to be done with them."""

    missing: tuple[Run, ...]
    finished: int
    failed: int  # and not to be run again
    outdated: Mapping[str, int]  # finished runs made by another version of a file, by that file
    made: Mapping[Cell, Made]  # of each cell with finished runs, what made one of them
    stages: tuple[Stage, ...] = ()  # those that are known
    later: int = 0  # at most so many runs follow when `missing` have run
    unchosen: tuple[Cell, ...] = ()  # as in Planned


def make_plan(
    grid: Grid,
    finished: Mapping[str, Made],
    failed: Collection[str],
    data: Mapping[str, Data],
    fresh: bool = False,
    retry: bool = False,
    known: Outcomes = MappingProxyType({}),
    tried: Collection[str] = (),
    wanted: Callable[[], Mapping[tuple, int]] | None = None,
    part: Mapping[str, tuple] = MappingProxyType({}),
) -> Plan:
    """Set difference of the grid's planned runs and what the store has. PlanError where a cell does not fit its data set.

    finished: by run_id, what made it. fresh: run again what other versions made. retry: and what failed, but for `tried`.
    known: the tuning runs that choose what a grid searches. wanted: as `planned` takes it.
    part: by field, values of the cells that are run; the others lack nothing.
    """
    for cell in grid.cells():
        if problem := misfit(cell, data[cell.dataset]):
            raise PlanError(problem)

    def version(cell: Cell) -> tuple[str, str]:
        return code_version(cell.architecture, cell.activation), data[cell.dataset].checksum

    def lacks(cell: Cell, run_id: str) -> bool:
        if not selects(part, cell):
            return False
        if (made := finished.get(run_id)) is None:
            return run_id not in failed or (retry and run_id not in tried)
        return fresh and (made.code, made.data) != version(cell) and run_id not in tried

    will = planned(grid, known, lacks, wanted)
    missing, done, given_up, outdated, made_by = [], 0, 0, Counter(), {}
    for seeds, cell, ids in ((stage.seeds, *each) for stage in will.stages for each in stage.by_cell()):
        if not selects(part, cell):
            continue
        current = version(cell)
        for seed, run_id in zip(seeds, ids, strict=True):
            made = finished.get(run_id)
            if lacks(cell, run_id):
                missing.append(Run(cell, seed))
            elif made is None:
                given_up += 1
            else:
                done += 1
            if made:
                made_by.setdefault(cell, made)
                if (made.code, made.data) != current:
                    outdated[_changed(cell, made, data[cell.dataset].checksum)] += 1
    if part:
        will = _of_part(will, grid, part, bool(missing))
    return Plan(tuple(missing), done, given_up, dict(outdated), made_by, *will)


def _of_part(will: Planned, grid: Grid, part: Mapping[str, tuple], begun: bool) -> Planned:
    """What is planned for some of the cells. Later looks wait for all cells, so that none of them follows."""
    unchosen = tuple(cell for cell in will.unchosen if selects(part, cell))
    following = [stage for stage in expected(grid)[len(will.stages) :] if begun and stage.look <= 1]
    later = sum(len(stage.seeds) for stage in following for cell in stage.cells if selects(part, cell))
    return will._replace(later=later, unchosen=unchosen)


def _changed(cell: Cell, made: Made, checksum: str) -> str:
    """What differs from the version that made a run: its data set, its architecture's file or the code around it."""
    if made.data != checksum:
        return f"the data set {cell.dataset}"
    code, _, of_activation = code_version(cell.architecture, cell.activation).partition("+")
    if of_activation and made.code.partition("+")[0] == code:
        return f"{parse(cell.activation)[0]}.py"
    return f"{cell.architecture}.py or the training code"


@cache
def code_version(architecture: str, activation: str = "") -> str:
    """Hash of the files that decide a run's numbers, its architecture's and those that train it; for an activation that is a
    plug-in, + and the hash of its file.
    """
    digest = hashlib.sha256((plugins.source("architectures", architecture) or "").encode())
    ours = [f"architectures/{architecture}.py"] if architecture not in plugins.names("architectures") else []
    for name in (*ours, "architectures/__init__.py", *TRAINED_BY):
        digest.update((HERE / name).read_bytes())
    name = parse(activation)[0] if activation else ""
    of_activation = plugins.sha256("activations", name)[:16] if name in plugins.names("activations") else ""
    return "+".join(filter(None, [digest.hexdigest()[:16], of_activation]))


def group(missing: Iterable[Run], data: Mapping[str, Data], slots: int, hows: Mapping[Cell, How]) -> list[Trial]:
    """Trials, each run in exactly one, the most expensive first so that the last ones to end are short.

    Trials that share a graph follow one another: the first compiles it, the others find it on the disk. slots: trials at
    once.
    """
    seeds: dict[Cell, list[int]] = defaultdict(list)
    for run in missing:
        seeds[run.cell].append(run.seed)
    amounts = {
        cell: Amount(len(block), hows[cell].block, work(cell, data[cell.dataset])) for cell, block in seeds.items()
    }
    trials = []
    for cell, size in block_sizes(amounts, slots).items():
        block = seeds[cell]
        trials += [Trial(cell, tuple(block[i : i + size]), *hows[cell]) for i in range(0, len(block), size)]

    def order(trial: Trial) -> tuple:
        examples, count = data[trial.cell.dataset], len(trial.seeds)
        return -length(amounts[trial.cell].work, count), repr(graph(trial.cell, examples, count))

    return sorted(trials, key=order)


def seeds_in_engine(cell: Cell, data: Data, device_type: str, seeds: int) -> int | None:
    """S where the bits of a run depend on it, else None. seeds: of the trial, on which they may depend on a GPU."""
    if device_type != "cpu":
        return seeds
    batches = batch_sizes(cell.batch, seen(data, cell))
    return 1 if bits_need_one_seed(cell, stackable(cell.architecture), batches) else None


def work(cell: Cell, data: Data) -> float:
    """Multiplications of a run up to a factor: enough to put long trials first, to divide them and to guess the time left.

    A third layer in a block counts as half of the two others (measured for batch normalization: 1.1 to 1.9 times as long).
    """
    maps = 2 if parse(cell.activation)[0] == "maxout" and cell.maxout_width == "same" else 1
    block = products(cell.architecture) * cell.width**2
    if convolves(cell.architecture):
        ends, places = 9 * data.shape[0] * cell.width, prod(data.shape[1:])
        block += A_UNIT * units(cell.architecture)
    else:
        ends, places = 100 * cell.width, 1
    layers = len(cell.order.split("-"))
    examples = cell.epochs * len(seen(data, cell).x_train)
    return examples * places * (cell.depth * block + ends) * maps * layers / 2
