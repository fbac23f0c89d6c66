"""What to run: a grid is a TOML file; its cells and runs have names that follow from their content.

Imports pydantic and tomllib only. The names that are valid for architectures, activations, data sets,
normalizations and metrics are handed in as `choices`, so that a grid can be read without torch.
"""

import difflib
import hashlib
import itertools
import json
import math
import re
import tomllib
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationError,
    ValidationInfo,
    field_validator,
)

DEFAULT_METRICS = ("test_accuracy", "test_loss")
TABLES = ("axes", "nuisance", "recipe", "seeds", "analysis", "resources", "probes")
NONE = "none"
FEWEST_TUNING = 5  # seeds that choose among values; also how many do where a grid does not say
TUNING_FROM = 10_000  # their range, which no count of seeds may reach beside them: what chose is never compared


class WrongUse(ValueError):
    """What a user gave cannot be used. One line: where, the value, the rule and the choices. Every room has its own."""


class GridError(WrongUse):
    """A grid file: file, key, value, rule and choices."""


def near(name: object, known: Iterable[str]) -> str:
    """'did you mean relu? ' where a known name is near, to stand before all that there are."""
    found = difflib.get_close_matches(str(name), list(known), n=1)
    return f"did you mean {found[0]}? " if found else ""


def _number(value: Any) -> Any:
    if isinstance(value, bool | str):
        raise ValueError("must be a number")
    return value


LARGEST = 1_000_000  # of whole numbers and of parameters of activations
Integer = Annotated[int, BeforeValidator(_number), Field(le=LARGEST)]
# −0 + 0 is 0: one number, one id.
Real = Annotated[float, BeforeValidator(_number), Field(allow_inf_nan=False), AfterValidator(lambda x: x + 0.0)]


Boolean = Annotated[bool, Field(strict=True)]


def order_error(order: str, norms: tuple[str, ...]) -> str | None:
    """Why `order` is not an order, or None: the grammar, in one place."""
    names = order.split("-")
    rule = (
        f"an order joins 'weight' and 'act', each exactly once, at most one normalization ({', '.join(norms)}) "
        "and at most one 'drop' with '-', as in weight-bn-act"
    )
    known = {"weight", "act", "drop", *norms}
    once = names.count("weight") == 1 and names.count("act") == 1 and names.count("drop") <= 1
    if once and known.issuperset(names) and sum(names.count(norm) for norm in norms) <= 1:
        return None
    return rule


OWN = "npz"  # the data set that is a file of the user's own


def own_file_error(name: str) -> str | None:
    """Why npz:`name` names no file in the folder of data, or None."""
    if re.fullmatch(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,99}", name):
        return None
    return (
        f"{OWN} takes the name of a file in the folder of data, of letters, digits, '_', '-' and '.', "
        f"as in {OWN}:mine for mine.npz"
    )


class Cell(BaseModel):
    """Everything that defines a training except the seed. A default, once released, never changes."""

    model_config = ConfigDict(frozen=True, extra="forbid", protected_namespaces=())

    dataset: str = Field(description="data set, a file in harness/datasets; npz:mine is a file mine.npz of your own")
    architecture: str = Field(description="architecture, a file in harness/architectures")
    order: str = Field(description="layers inside a block, dash-joined, in the order in which they act")
    activation: str = Field(description="activation, with its parameter after a colon where it is not the default")
    depth: Integer = Field(ge=1, description="number of blocks; stem and head do not count")
    lr: Real = Field(0.1, gt=0, description="peak learning rate of the schedule")
    epochs: Integer = Field(20, ge=1, description="passes over the training set")
    batch: Integer = Field(100, ge=2, description="examples a step; an incomplete last batch is left out")
    width: Integer = Field(64, ge=1, description="channels of a block")
    schedule: Literal["constant", "cosine", "onecycle"] = Field("cosine", description="learning rate over the steps")
    optimiser: Literal["sgd", "adam"] = Field("sgd", description="sgd is SGD with momentum")
    momentum: Real = Field(0.9, ge=0, lt=1, description="momentum of sgd; adam does not use it")
    weight_decay: Real = Field(0.0, ge=0, description="L2 penalty on every parameter")
    dropout: Real = Field(0.1, ge=0, lt=1, description="rate of 'drop' where the order has one")
    maxout_width: Literal["same", "matched"] = Field(
        "same", description="matched: maxout nets are narrower by sqrt(2), for about equal parameters"
    )
    affine: Boolean = Field(True, description="whether normalizations have a trained scale and shift")
    bias: Boolean = Field(
        True, description="whether weight layers of blocks have a bias, dead where bn follows; stem and head have one"
    )
    bn_momentum: Real = Field(0.1, gt=0, le=1, description="share of a batch in the running averages of bn")
    bn_eps: Real = Field(1e-5, gt=0, description="what every normalization adds to the variance")
    groups: Integer = Field(8, ge=1, description="of gn: it has gcd(groups, channels) groups")
    weight_decay_norm: Boolean = Field(True, description="whether weight decay acts on scale and shift, too")
    stem_norm: str = Field(NONE, description="normalization after the stem's weight layer, or none")
    head_norm: str = Field(NONE, description="normalization of what enters the head's linear layer, or none")
    pool: Literal["after", "before"] = Field(
        "after",
        description="max pooling where an architecture pools: at the end of a block, or before its normalization",
    )
    after_sum: str = Field(
        NONE, description="what follows the addition of a residual block, as in bn, act, bn-act or act-bn; or none"
    )
    after_blocks: str = Field(
        NONE, description="what stands between the last block and the head, before a mean over space; as after_sum"
    )
    branch_end: Literal["order", "norm", "weight"] = Field(
        "order",
        description="what the last layers of a residual branch keep behind their weight: what the order says, no "
        "activation, or nothing",
    )
    init: Literal["he", "xavier", "orthogonal", "lsuv"] = Field("he", description="initial weights")
    init_gain: Real = Field(
        1.0, gt=0, description="multiplies the initial weights of blocks, beside the activation's gain"
    )
    train_size: Integer = Field(0, ge=0, description="training examples that are used; 0: all")
    label_noise: Real = Field(0.0, ge=0, lt=1, description="share of training labels that are another class's")
    shift: Integer = Field(
        0, ge=0, description="training examples are shifted by up to so many places, anew each epoch"
    )
    flip: Boolean = Field(False, description="training images are mirrored at random, where labels allow")

    @field_validator("dataset", "architecture")
    @classmethod
    def _listed(cls, value: str, info: ValidationInfo) -> str:
        choices = (info.context or {}).get(info.field_name)
        kind, _, file = value.partition(":")
        if choices and info.field_name == "dataset" and kind == OWN in choices:
            if error := own_file_error(file):
                raise ValueError(error)
            return value
        if choices is not None and value not in choices:
            raise ValueError(
                f"there is no such {info.field_name}; {near(value, choices)}there are {', '.join(choices)}, and files of "
                "your own with --plugin"
            )
        return value

    @field_validator("order")
    @classmethod
    def _grammar(cls, value: str, info: ValidationInfo) -> str:
        if info.context and (error := order_error(value, tuple(info.context["norm"]))):
            raise ValueError(error)
        return value

    @field_validator("stem_norm", "head_norm")
    @classmethod
    def _norm(cls, value: str, info: ValidationInfo) -> str:
        if info.context and value not in (NONE, *info.context["norm"]):
            raise ValueError(f"there are {', '.join((NONE, *info.context['norm']))}")
        return value

    @field_validator("after_sum", "after_blocks")
    @classmethod
    def _layers(cls, value: str, info: ValidationInfo) -> str:
        if not info.context or value == NONE:
            return value
        names, norms = value.split("-"), info.context["norm"]
        if not {"act", *norms}.issuperset(names) or names.count("act") > 1 or len(names) - names.count("act") > 1:
            raise ValueError(
                f"must be {NONE}, or join 'act' and at most one normalization ({', '.join(norms)}) with '-', as in bn-act"
            )
        return value

    @field_validator("activation")
    @classmethod
    def _activation(cls, value: str, info: ValidationInfo) -> str:
        """The name, and the parameter only where it differs from the default: one activation, one name."""
        if not info.context:
            return value
        defaults = info.context["activation"]
        name, colon, text = value.partition(":")
        if name not in defaults:
            raise ValueError(
                f"there is no such activation; {near(name, defaults)}there are {', '.join(defaults)}, and files of your own "
                "with --plugin"
            )
        if not colon:
            return name
        if defaults[name] is None:
            raise ValueError(f"{name} takes no parameter")
        try:
            parameter = float(text) + 0.0  # −0 is 0
        except ValueError:
            parameter = math.nan
        if not abs(parameter) <= LARGEST:
            raise ValueError(f"the parameter of {name} must be a number up to 1e6, as in {name}:{defaults[name]:g}")
        return name if parameter == defaults[name] else f"{name}:{parameter!r}"

    def content(self) -> dict[str, Any]:
        """The fields that differ from their defaults: what identity is made of."""
        return self.model_dump(exclude_defaults=True)

    @property
    def cell_id(self) -> str:
        return identity(self.content())

    def without(self, *names: str) -> tuple[tuple[str, Any], ...]:
        """The other fields as (name, value) pairs, hashable: what the two arms of a pair have in common."""
        return tuple((name, value) for name, value in self.__dict__.items() if name not in names)


def selects(selection: Mapping[str, tuple[Any, ...]], cell: Cell) -> bool:
    """Whether a cell has one of the values of each field."""
    return all(getattr(cell, key) in values for key, values in selection.items())


def setting(value: str | bool | float) -> str:
    """The value of a field as a grid file has it, but for quotes: 0.1, 1e+06, true, cosine."""
    if isinstance(value, str):
        return value
    return str(value).lower() if isinstance(value, bool) else f"{value:g}"


FIELDS = tuple(Cell.model_fields)
TYPES = {int: "a whole number", float: "a number", bool: "true or false"}  # of fields that are no names
DIGITS = 16  # hexadecimal, of every id
_canonical = json.JSONEncoder(sort_keys=True, separators=(",", ":"), allow_nan=False).encode


def identity(content: Mapping[str, Any]) -> str:
    """16 hexadecimal digits of the SHA-256 of sorted JSON; equal content has equal identity on every machine."""
    return hashlib.sha256(_canonical(content).encode()).hexdigest()[:DIGITS]


def run_ids(cell: Cell, seeds: Iterable[int]) -> list[str]:
    """identity({**cell.content(), "seed": seed}) of each seed. The cell is written and hashed once: 1 s for 10^6 runs."""
    # Quotes inside of JSON strings are escaped, so that this text can only be the seed's own place.
    before, after = _canonical({**cell.content(), "seed": None}).encode().split(b'"seed":null')
    start = hashlib.sha256(before + b'"seed":')
    ids = []
    for seed in seeds:
        digest = start.copy()
        digest.update(b"%d%b" % (seed, after))
        ids.append(digest.hexdigest()[:DIGITS])
    return ids


class Run(NamedTuple):
    """One cell trained with one seed."""

    cell: Cell
    seed: int

    @property
    def run_id(self) -> str:
        return run_ids(self.cell, [self.seed])[0]


class Seeds(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")

    count: Integer = Field(ge=1, description="seeds 0 to count - 1 of every cell, which are compared")
    max: Integer = Field(
        0,
        ge=0,
        description="seeds that a cell has at most where its comparisons are undecided: count, doubled some times",
    )
    stop: Literal["count", "decided"] = Field(
        "count", description="decided: cells get more seeds, up to max, while comparisons of theirs are undecided"
    )
    tuning: Integer = Field(
        0, ge=0, description=f"seeds from {TUNING_FROM} on, which only choose among the values of the nuisance"
    )
    halving: Integer = Field(
        0,
        ge=0,
        description="of the candidates, 1/halving go on from each rung to the next, which is halving times as long",
    )

    @property
    def looks(self) -> tuple[int, ...]:
        """Seeds that a cell has at each look at its comparisons: count and, where seeds are adaptive, doubled up to max."""
        sizes = [self.count]
        while self.stop == "decided" and sizes[-1] < self.max:
            sizes.append(2 * sizes[-1])
        return tuple(sizes)

    @property
    def most(self) -> int:
        """Seeds that a cell has at most to be compared on."""
        return self.looks[-1]

    @property
    def tunes(self) -> tuple[int, ...]:
        """The seeds that choose."""
        return tuple(range(TUNING_FROM, TUNING_FROM + self.tuning))

    def rungs(self, candidates: int) -> int:
        """How many rungs so many candidates climb: on the last, with all epochs, at most `halving` are left."""
        number = 1
        while self.halving and candidates > self.halving:
            candidates, number = -(-candidates // self.halving), number + 1
        return number

    def rung_epochs(self, epochs: int, later: int) -> int:
        """Epochs on a rung that `later` others follow, for cells of so many epochs."""
        return -(-epochs // self.halving**later) if later else epochs

    @property
    def every(self) -> tuple[int, ...]:
        """All seeds that a cell may have: the tuning seeds, then the fresh ones that are compared."""
        return *self.tunes, *range(self.most)


LEAST = 0.0001  # of a core or GPU: Ray counts in these


def _whole_or_a_part(gpus: float) -> float:
    if (gpus > 1 and gpus != int(gpus)) or 0 < gpus < LEAST:
        raise ValueError(f"must be 0, a part of one from {LEAST} on, or whole GPUs")
    return gpus


class Resources(BaseModel):
    """What a trial asks of a node of a cluster. No part of any identity: it decides where a run is trained, not what."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    cpus: Annotated[Real, Field(ge=LEAST, le=1000)] = Field(1.0, description="cores; a trial has one thread")
    gpus: Annotated[Real, Field(ge=0, le=1000), AfterValidator(_whole_or_a_part)] | None = Field(
        None,
        description="GPUs; a part of one, as in 0.25, shares it among trials; by default what measured memory allows, "
        "where nodes have GPUs that torch can use",
    )


class Probes(BaseModel):
    """When the inside of networks is measured. No part of any identity: it changes no result."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    epochs: tuple[Annotated[Integer, Field(ge=0)], ...] | None = Field(
        None, description="epochs, 0 at initialisation; by default 0 and the last; [] for none"
    )

    def of(self, cell: Cell) -> tuple[int, ...]:
        """The epochs in which a run of `cell` is probed."""
        epochs = (0, cell.epochs) if self.epochs is None else self.epochs
        return tuple(sorted({epoch for epoch in epochs if epoch <= cell.epochs}))


class Primary(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")

    metric: str
    contrast: str


class Analysis(BaseModel):
    """Declared before the sweep; what the report tests."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    arms: dict[str, str] = Field(default={}, description="name of each arm and its order")
    contrasts: tuple[str, ...] = Field(default=(), description="pairs of arms, as in 'after - before'")
    primary: Primary | None = Field(default=None, description="the family that makes the headline")
    margin: dict[str, Annotated[Real, Field(gt=0)]] = Field(
        default={}, description="by metric, the smallest difference that matters"
    )
    alpha: Annotated[Real, Field(gt=0, lt=1)] = Field(default=0.05, description="family-wise error")

    @property
    def pairs(self) -> dict[str, tuple[str, str]]:
        """Of each contrast, the orders of its first and second arm."""
        return {c: tuple(self.arms[name] for name in c.split(" - ")) for c in self.contrasts}

    @property
    def metrics(self) -> tuple[str, ...]:
        primary = [self.primary.metric] if self.primary else []
        return tuple(dict.fromkeys([*primary, *DEFAULT_METRICS, *self.margin]))


class Grid(BaseModel):
    """A grid file, read and checked."""

    model_config = ConfigDict(frozen=True)

    name: str
    question: str
    text: str = Field(repr=False)
    axes: dict[str, tuple[Any, ...]]
    nuisance: dict[str, tuple[Any, ...]]
    recipe: dict[str, Any]
    exclude: tuple[dict[str, tuple[Any, ...]], ...]
    seeds: Seeds
    declared_seeds: int  # what the file says, whatever `seeds` was overridden to
    changes: tuple[str, ...] = ()  # of the file's fields, as in depth=8,16
    analysis: Analysis
    resources: Resources = Resources()
    probes: Probes = Probes()

    @classmethod
    def read(
        cls, path: str | Path, choices: Mapping[str, Any], seeds: int | None = None, changes: Iterable[str] = ()
    ) -> "Grid":
        """Read and check a grid file. GridError says what is wrong, in one line.

        seeds: in place of its count. changes: as in depth=8,16: values of cell fields in place of the file's; of a field
        that the file does not have, one value is its recipe, several are an axis.
        """
        path = Path(path)
        try:
            text = path.read_text(encoding="utf-8")
            document = tomllib.loads(text)
        except FileNotFoundError:
            raise GridError(f"{path}: no such grid file") from None
        except (OSError, UnicodeDecodeError) as error:
            raise GridError(f"{path}: cannot be read: {getattr(error, 'strerror', None) or error}") from None
        except tomllib.TOMLDecodeError as error:
            raise GridError(f"{path}: not TOML: {error}") from None
        return _Reader(path, choices).grid(text, document, seeds, tuple(changes))

    def selection(
        self, path: str | Path, choices: Mapping[str, Any], texts: Sequence[str]
    ) -> dict[str, tuple[Any, ...]]:
        """By field the values of texts as depth=8,16. GridError where the grid, whose file is at `path`, lacks one."""
        return _Reader(Path(path), choices).selection(texts, self)

    @property
    def searched(self) -> tuple[str, ...]:
        """The nuisance fields with several values: each arm of a cell is compared at its own best one."""
        return tuple(name for name, values in self.nuisance.items() if len(values) > 1)

    def cells(self) -> Iterator[Cell]:
        """Every combination of axes and nuisance that is not excluded, the last axis fastest."""
        return iter(self._cells)

    @property
    def compared(self) -> dict[tuple, list[Cell]]:
        """Cells that are compared, or searched, with one another: by all fields but the order and what is searched."""
        found: dict[tuple, list[Cell]] = {}
        for cell in self.cells():
            found.setdefault(cell.without("order", *self.searched), []).append(cell)
        return found

    @cached_property
    def _cells(self) -> tuple[Cell, ...]:
        varied = {**self.axes, **self.nuisance}
        cells = []
        for values in itertools.product(*varied.values()):
            fields = dict(zip(varied, values, strict=True))
            if not any(all(fields.get(k, self.recipe.get(k)) in v for k, v in rule.items()) for rule in self.exclude):
                cells.append(Cell(**fields, **self.recipe))
        return tuple(cells)

    def runs(self) -> Iterator[Run]:
        """Every cell with every seed. Of a grid that searches only some are planned: see results/protocol.py."""
        for cell in self.cells():
            for seed in self.seeds.every:
                yield Run(cell, seed)

    @property
    def analysis_hash(self) -> str:
        """Identity of all that decides a verdict: arms, contrasts, primary, margins, alpha, cells, seeds, looks, tuning."""
        cells = sorted(cell.cell_id for cell in self.cells())
        content = {**self.analysis.model_dump(), "cells": cells, "seeds": self.seeds.count}
        if self.seeds.tuning:  # a grid that tunes nothing keeps the hash that it had before there was tuning
            content |= {"tuning": self.seeds.tuning, "searched": sorted(self.searched)}
        if self.seeds.halving:
            content |= {"halving": self.seeds.halving}
        if self.seeds.stop == "decided":
            content |= {"looks": self.seeds.looks}
        return identity(content)


class _Reader:
    """Checks a parsed grid file. A class only so that every error names the file."""

    def __init__(self, path: Path, choices: Mapping[str, Any]):
        self.path, self.choices = path, choices

    def fail(self, where: str, rule: str) -> GridError:
        return GridError(f"{self.path}: {where}: {rule}")

    def grid(self, text: str, document: dict[str, Any], seeds: int | None, changes: tuple[str, ...]) -> Grid:
        for key in document:
            if key not in (*TABLES, "exclude"):
                known = (*TABLES, "exclude")
                raise self.fail(f"unknown key {key!r}", f"{near(key, known)}there are {', '.join(known)}")
        for key in TABLES:
            if not isinstance(document.get(key, {}), dict):
                raise self.fail(f"{key} = {document[key]!r}", f"must be a table, [{key}]")
        parsed = [self.parsed(change) for change in changes]
        for key, _ in parsed:
            if [each for each, _ in parsed].count(key) > 1:
                raise self.fail(
                    " ".join(changes), f"{key} is given more than once; several values are joined, as in 2,4"
                )
        self.change(document, dict(parsed))
        fields = self.fields(document)
        exclude = self.exclude(document.get("exclude", []), fields)
        declared = self.seeds(document.get("seeds", {}), fields["nuisance"])
        grid = Grid(
            name=self.path.stem,
            question=_question(text, self.path.stem),
            text=text,
            axes=fields["axes"],
            nuisance=fields["nuisance"],
            recipe={key: values[0] for key, values in fields["recipe"].items()},
            exclude=exclude,
            seeds=declared if seeds is None else self.seeds({**document["seeds"], "count": seeds}, fields["nuisance"]),
            declared_seeds=declared.count,
            changes=changes,
            analysis=Analysis(),
            resources=self.model(Resources, "resources", document.get("resources", {})),
            probes=self.probes(document.get("probes", {}), fields),
        )
        cells = list(grid.cells())
        if not cells:
            raise self.fail("exclude", "leaves no cell")
        self.check_search(cells, grid.searched)
        self.check_halving(cells, grid)
        analysis = self.analysis(document.get("analysis", {}), cells)
        self.check_stop(grid.seeds, analysis)
        return grid.model_copy(update={"analysis": analysis})

    def selection(self, texts: Sequence[str], grid: "Grid") -> dict[str, tuple[Any, ...]]:
        """By field, the values of 'depth=8,16' that the grid has."""
        found: dict[str, tuple[Any, ...]] = {}
        for text in texts:
            key, values = self.parsed(text)
            known = {**grid.axes, **grid.nuisance, **{name: (value,) for name, value in grid.recipe.items()}}
            first = {name: several[0] for name, several in known.items()}
            if key not in known:
                raise self.fail(f"{text}: the grid has no {key}", f"it has {', '.join(known)}")
            found[key] = (*found.get(key, ()), *(self.value(key, value, first, text) for value in values))
            if key in grid.searched or (key == "epochs" and grid.seeds.halving):
                raise self.fail(text, "cannot be selected, since its values are what is chosen among, or climb rungs")
            for value in found[key]:
                if value not in known[key]:
                    raise self.fail(text, f"the grid has {key} {', '.join(map(setting, known[key]))}")
        if not any(selects(found, cell) for cell in grid.cells()):
            raise self.fail(" ".join(texts), "selects no cell")
        return found

    def parsed(self, text: str) -> tuple[str, list[Any]]:
        """The field and the values of 'depth=8,16'."""
        key, _, values = text.partition("=")
        if key not in FIELDS:
            raise self.fail(f"{text}: there is no field {key!r}", f"{near(key, FIELDS)}there are {', '.join(FIELDS)}")
        return key, [self.typed(key, value.strip(), text) for value in values.split(",")]

    def typed(self, key: str, text: str, where: str) -> Any:
        """A value of a field from its text."""
        kind = Cell.model_fields[key].annotation
        try:
            if kind is bool:
                return {"true": True, "false": False}[text]
            return kind(text) if kind in (int, float) else text
        except (KeyError, ValueError):
            raise self.fail(where, f"{key} is {TYPES[kind]}") from None

    def change(self, document: dict[str, Any], changes: dict[str, list[Any]]) -> None:
        """Put values in place of the file's, and leave out what the file says of values that are gone."""
        for key, values in changes.items():
            table = next((name for name in ("axes", "nuisance", "recipe") if key in document.get(name, {})), "recipe")
            if table == "recipe" and len(values) > 1:
                document.get("recipe", {}).pop(key, None)
                table = "axes"
            document.setdefault(table, {})[key] = values[0] if table == "recipe" else values
        if not changes:
            return
        if isinstance(rules := document.get("exclude"), list):
            document["exclude"] = [left for rule in rules if (left := _still_excluded(rule, changes))]
        if not any(isinstance(v, list) and len(v) > 1 for v in document.get("nuisance", {}).values()):
            for key in ("tuning", "halving"):  # there is nothing to choose any more
                document.get("seeds", {}).pop(key, None)
        if "epochs" in changes and isinstance(probed := document.get("probes", {}).get("epochs"), list):
            last = max(changes["epochs"])
            within = (min(each, last) if isinstance(each, int) else each for each in probed)
            document["probes"]["epochs"] = list(dict.fromkeys(within))
        if "order" in changes and document.get("analysis"):
            document["analysis"] = _of_orders(document["analysis"], changes["order"])

    def fields(self, document: dict[str, Any]) -> dict[str, dict[str, tuple[Any, ...]]]:
        """Values of every cell field, checked and normalised, by table."""
        raw: dict[str, tuple[str, list[Any]]] = {}
        for table in ("axes", "nuisance", "recipe"):
            for key, value in document.get(table, {}).items():
                if key not in FIELDS:
                    raise self.fail(
                        f"[{table}] unknown key {key!r}", f"{near(key, FIELDS)}there are {', '.join(FIELDS)}"
                    )
                if key in raw:
                    raise self.fail(f"[{table}] {key}", f"is given in [{raw[key][0]}] already")
                if table == "recipe" and isinstance(value, list):
                    raise self.fail(f"[recipe] {key} = {value!r}", "takes one value; several belong under [axes]")
                if table != "recipe" and not isinstance(value, list):
                    raise self.fail(
                        f"[{table}] {key} = {value!r}", f"takes a list of values, as in [{json.dumps(value)}]"
                    )
                if value == []:
                    raise self.fail(f"[{table}] {key} = []", "has no value")
                raw[key] = table, value if isinstance(value, list) else [value]
        for key, info in Cell.model_fields.items():
            if info.is_required() and key not in raw:
                raise self.fail(f"[axes] {key}", "is missing")
        first = {key: values[0] for key, (_, values) in raw.items()}
        checked: dict[str, dict[str, tuple[Any, ...]]] = {"axes": {}, "nuisance": {}, "recipe": {}}
        for key, (table, values) in raw.items():
            clean = [self.value(key, value, first, f"[{table}] {key} = {value!r}") for value in values]
            for value in clean:
                if clean.count(value) > 1:
                    raise self.fail(f"[{table}] {key} = {value!r}", "is listed twice")
            checked[table][key] = tuple(clean)
        return checked

    def value(self, key: str, value: Any, first: dict[str, Any], where: str) -> Any:
        """One value of one field, normalised. Other fields' errors are told at those fields' own turn."""
        if isinstance(value, list | dict):
            raise self.fail(where, "must be a single value")
        try:
            return getattr(Cell.model_validate({**first, key: value}, context=self.choices), key)
        except ValidationError as error:
            for problem in error.errors():
                if problem["loc"] == (key,):
                    raise self.fail(where, _words(problem)) from None
            return value

    def exclude(self, rules: Any, fields: dict[str, Any]) -> tuple[dict[str, tuple[Any, ...]], ...]:
        known = {key: values for table in fields.values() for key, values in table.items()}
        if not isinstance(rules, list) or not all(isinstance(rule, dict) and rule for rule in rules):
            raise self.fail("exclude", "must be a list of tables, as in [{activation = 'tanh', depth = 8}]")
        checked = []
        for rule in rules:
            clean = {}
            for key, value in rule.items():
                where = f"exclude {key} = {value!r}"
                if key not in known:
                    raise self.fail(where, f"the grid has no {key}; it has {', '.join(known)}")
                first = {name: values[0] for name, values in known.items()}
                values = value if isinstance(value, list) else [value]
                if not values:
                    raise self.fail(where, "has no value")
                clean[key] = tuple(self.value(key, v, first, where) for v in values)
                for v in clean[key]:
                    if v not in known[key]:
                        raise self.fail(where, f"the grid has {key} {', '.join(map(str, known[key]))}")
            checked.append(clean)
        return tuple(checked)

    def seeds(self, values: dict[str, Any], nuisance: dict[str, tuple[Any, ...]]) -> Seeds:
        """With their number of tuning seeds: at least FEWEST_TUNING where there is something to choose, else none."""
        declared = self.model(Seeds, "seeds", values)
        self.check_looks(declared)
        searched = [name for name, several in nuisance.items() if len(several) > 1]
        if not searched:
            if "tuning" in values:
                raise self.fail(
                    f"[seeds] tuning = {declared.tuning}",
                    "must be left out, since nothing under [nuisance] has several values",
                )
            if declared.halving:
                raise self.fail(
                    f"[seeds] halving = {declared.halving}",
                    "must be left out, since nothing under [nuisance] has several values",
                )
            return declared
        if declared.most > TUNING_FROM:
            raise self.fail(
                f"[seeds] {'count' if declared.stop == 'count' else 'max'} = {declared.most}",
                f"must be at most {TUNING_FROM}, from where on seeds choose among the values of {', '.join(searched)}",
            )
        if declared.halving == 1:
            raise self.fail(
                "[seeds] halving = 1", "must be 0, for none, or at least 2: 1/halving of the candidates go on"
            )
        if "tuning" not in values:
            return declared.model_copy(update={"tuning": FEWEST_TUNING})
        if declared.tuning < FEWEST_TUNING:
            raise self.fail(
                f"[seeds] tuning = {declared.tuning}",
                f"must be at least {FEWEST_TUNING}, since these seeds choose among the values of {', '.join(searched)}",
            )
        return declared

    def check_looks(self, seeds: Seeds) -> None:
        """Looks must end at max, and be asked for."""
        if seeds.stop == "count":
            if seeds.max:
                raise self.fail(
                    f"[seeds] max = {seeds.max}", 'needs stop = "decided": without it cells have count seeds'
                )
            return
        if not seeds.max:
            raise self.fail('[seeds] stop = "decided"', "needs max, the seeds that a cell has at most")
        if seeds.max < seeds.count:
            raise self.fail(f"[seeds] max = {seeds.max}", f"must be at least count = {seeds.count}")
        if seeds.most != seeds.max:
            raise self.fail(
                f"[seeds] max = {seeds.max}",
                f"must be count = {seeds.count} doubled some times, as {seeds.most // 2} or {seeds.most}",
            )

    def check_stop(self, seeds: Seeds, analysis: Analysis) -> None:
        """What is to be decided must be declared."""
        if seeds.stop == "count":
            return
        if analysis.primary is None:
            raise self.fail('[seeds] stop = "decided"', "there is nothing to decide, since the grid compares no orders")
        if analysis.primary.metric not in analysis.margin:
            raise self.fail(
                '[seeds] stop = "decided"',
                f"needs [analysis] margin.{analysis.primary.metric}: without it no equivalence can be shown, and where arms "
                "do not differ seeds would never stop before max",
            )

    def probes(self, values: dict[str, Any], fields: dict[str, dict[str, tuple[Any, ...]]]) -> Probes:
        probes = self.model(Probes, "probes", values)
        epochs = max(
            next(
                (table["epochs"] for table in fields.values() if "epochs" in table),
                (Cell.model_fields["epochs"].default,),
            )
        )
        for epoch in probes.epochs or ():
            if epoch > epochs:
                raise self.fail(f"[probes] epochs = {epoch}", f"must be at most {epochs}, the epochs of the grid")
        return probes

    def check_search(self, cells: list[Cell], searched: tuple[str, ...]) -> None:
        """Every arm of a cell must have the same values to choose among, on the same examples."""
        for name in searched:
            if name in ("order", "dataset", "epochs"):
                raise self.fail(
                    f"[nuisance] {name}", "cannot be chosen by its results; several values belong under [axes]"
                )
        tried: dict[tuple, dict[str, set]] = {}
        for cell in cells if searched else ():
            by_order = tried.setdefault(cell.without("order", *searched), {})
            by_order.setdefault(cell.order, set()).add(tuple(getattr(cell, name) for name in searched))
        for by_order in tried.values():
            (first, values), *others = by_order.items()
            for order, other in others:
                if other != values:
                    raise self.fail(
                        "exclude",
                        f"must leave {first} and {order} the same values of {', '.join(searched)} in every cell",
                    )

    def check_halving(self, cells: list[Cell], grid: Grid) -> None:
        """Each rung must be longer than the one before, and drop a candidate."""
        seeds = grid.seeds
        if not seeds.halving:
            return
        sizes = Counter(cell.without(*grid.searched) for cell in cells)
        most = max(sizes.values())
        if most <= seeds.halving:
            raise self.fail(
                f"[seeds] halving = {seeds.halving}",
                f"must be less than {most}, the number of candidates of a cell, or it drops none",
            )
        for fields, size in sizes.items():
            epochs = dict(fields)["epochs"]
            lengths = [seeds.rung_epochs(epochs, later) for later in reversed(range(seeds.rungs(size)))]
            if len(set(lengths)) < len(lengths):
                raise self.fail(
                    f"[seeds] halving = {seeds.halving}",
                    f"{size} candidates need {len(lengths)} rungs of different length, and {epochs} epochs leave rungs of "
                    f"{', '.join(map(str, lengths))}",
                )

    def model(self, model: type[BaseModel], table: str, values: dict[str, Any]) -> Any:
        try:
            return model.model_validate(values)
        except ValidationError as error:
            problems = error.errors()  # a misspelt key first, and not the one that is therefore missing
            problem = next((each for each in problems if each["type"] == "extra_forbidden"), problems[0])
            key = ".".join(str(part) for part in problem["loc"])
            if problem["type"] == "extra_forbidden":
                known = Primary if problem["loc"][0] == "primary" else model
                raise self.fail(
                    f"[{table}] unknown key {key!r}",
                    f"{near(key, known.model_fields)}there are {', '.join(known.model_fields)}",
                ) from None
            if problem["type"] == "missing":
                raise self.fail(f"[{table}] {key}", "is missing") from None
            raise self.fail(f"[{table}] {key} = {problem['input']!r}", _words(problem)) from None

    def analysis(self, values: dict[str, Any], cells: list[Cell]) -> Analysis:
        pairs: dict[str, set] = {}  # by order, what its cells are but for the order
        for cell in cells:
            pairs.setdefault(cell.order, set()).add(cell.without("order"))
        orders = list(pairs)
        analysis = self.model(Analysis, "analysis", values)
        arms = analysis.arms or {order: order for order in orders}
        for name, order in arms.items():
            if order not in orders:
                raise self.fail(f"[analysis] arms.{name} = {order!r}", f"the grid has the orders {', '.join(orders)}")
            if " - " in name:
                raise self.fail(f"[analysis] arms.{name}", "an arm's name must not contain ' - '")
            if not name.strip() or not name.isprintable():
                raise self.fail(f"[analysis] arms.{name!r}", "an arm's name must be something that can be printed")
        for name, order in arms.items():
            if list(arms.values()).count(order) > 1:
                raise self.fail(f"[analysis] arms.{name} = {order!r}", "two arms have the same order")
        contrasts = analysis.contrasts or tuple(f"{b} - {a}" for a, b in itertools.combinations(arms, 2))
        for contrast in contrasts:
            pair = contrast.split(" - ")
            if len(pair) != 2 or pair[0] == pair[1] or not set(pair) <= set(arms):
                raise self.fail(
                    f"[analysis] contrasts = {contrast!r}", f"must be 'arm - arm' with two of {', '.join(arms)}"
                )
            if not pairs[arms[pair[0]]] & pairs[arms[pair[1]]]:
                raise self.fail(f"[analysis] contrasts = {contrast!r}", "no cell has both arms")
        for contrast in contrasts:
            if contrasts.count(contrast) > 1:
                raise self.fail(f"[analysis] contrasts = {contrast!r}", "is listed twice")
        primary = analysis.primary
        if primary is None and contrasts:
            primary = Primary(metric=DEFAULT_METRICS[0], contrast=contrasts[0])
        if primary and primary.contrast not in contrasts:
            raise self.fail(
                f"[analysis] primary.contrast = {primary.contrast!r}", f"there are {', '.join(contrasts) or 'none'}"
            )
        named = {f"margin.{metric}": metric for metric in analysis.margin}
        if primary:
            named["primary.metric"] = primary.metric
        for key, metric in named.items():
            if metric not in self.choices["metric"]:
                raise self.fail(
                    f"[analysis] {key}: unknown metric {metric!r}",
                    f"{near(metric, self.choices['metric'])}there are {', '.join(self.choices['metric'])}",
                )
        return analysis.model_copy(update={"arms": arms, "contrasts": contrasts, "primary": primary})


def _still_excluded(rule: Any, changes: Mapping[str, list[Any]]) -> Any:
    """A rule without values that are gone; None where it then excludes nothing."""
    if not isinstance(rule, dict):
        return rule
    left = dict(rule)
    for key in rule.keys() & changes.keys():
        values = rule[key] if isinstance(rule[key], list) else [rule[key]]
        left[key] = [value for value in values if _is_among(key, value, changes[key])]
        if not left[key]:
            return None
    return left


def _is_among(field: str, value: Any, values: list[Any]) -> bool:
    """Whether a value is one of others; of activations by name where a parameter is given, which may be the default."""
    name = value.partition(":")[0] if field == "activation" and isinstance(value, str) else value
    return value in values or name in values


def _of_orders(analysis: dict[str, Any], orders: list[str]) -> dict[str, Any]:
    """An analysis of these orders: arms and contrasts that are left. An order that has no arm is one by its own name, and
    then all pairs of arms are contrasts.
    """
    arms = analysis.get("arms")
    contrasts, primary = analysis.get("contrasts"), analysis.get("primary")
    if not isinstance(arms or {}, dict) or not isinstance(contrasts or [], list):
        return analysis
    left = {name: order for name, order in (arms or {order: order for order in orders}).items() if order in orders}
    new = [order for order in orders if order not in left.values()]
    left |= {order: order for order in new}
    changed = {**analysis, "arms": left}
    if contrasts is not None:
        kept = [each for each in contrasts if isinstance(each, str) and left.keys() >= set(each.split(" - "))]
        pairs = [f"{b} - {a}" for a, b in itertools.combinations(left, 2) if f"{a} - {b}" not in kept]
        changed["contrasts"] = [*kept, *(each for each in pairs if each not in kept)] if new or not kept else kept
    if isinstance(primary, dict) and not left.keys() >= set(str(primary.get("contrast")).split(" - ")):
        del changed["primary"]
        names = list(left)
        if len(names) > 1:
            first = changed.get("contrasts") or [f"{names[1]} - {names[0]}"]
            changed["primary"] = {**primary, "contrast": first[0]}
    return changed


def _words(problem: Mapping[str, Any]) -> str:
    """A pydantic error in our words: without its prefix, lower case, literals as choices."""
    if problem["type"] == "literal_error":
        return f"there are {problem['ctx']['expected']}"
    message = problem["msg"].removeprefix("Value error, ").removeprefix("Input ")
    return message[:1].lower() + message[1:]


def _question(text: str, name: str) -> str:
    """The comment on the first line, which says what the grid asks; else its name."""
    first = text.lstrip().partition("\n")[0]
    return first.lstrip("# ").strip() if first.startswith("#") else name
