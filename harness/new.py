"""New files for what is to be tried: an architecture that works as it is written, and a grid that can be planned."""

import keyword
import re
from pathlib import Path

from grids import WrongUse, near
from harness import HERE, names, plugins

ARCHITECTURE = '''"""{title}: say here in a line what it is, and its source."""

from torch import nn

from harness.layers import block, network

CONVOLUTIONS = False  # whether any weight layer has a kernel; then block() below is given one, as (3,) * dimensions
CONSTANT_WIDTH = True  # whether every block has cell.width channels: then many seeds are trained as one


def build(cell, shape, classes):
    """shape (C, *space) of an example -> a module from (S, C, B, *space) to logits (S, classes, B)."""
    # What has weights comes from block(), which puts its layers in the order that the cell names.
    blocks = nn.Sequential(*(block(cell, cell.width, cell.width) for _ in range(cell.depth)))
    return network(cell, shape, classes, blocks)  # with a stem before the blocks and a head behind them
'''
GRID = """# What is the question? This line is the title of the report.
[axes]
dataset      = ["{dataset}"]
architecture = ["{architecture}"]
order        = ["weight-act", "weight-bn-act", "weight-act-bn"]
activation   = ["relu", "tanh"]
depth        = [2, 4]

[nuisance]
lr = [0.1]           # of several values, each arm of each cell is compared at its own best

[recipe]
epochs = 10
width  = 64

[seeds]
count = 10

[analysis]           # declared before the sweep
arms      = {{ none = "weight-act", before = "weight-bn-act", after = "weight-act-bn" }}
contrasts = ["after - before", "before - none", "after - none"]
primary   = {{ metric = "test_accuracy", contrast = "after - before" }}
margin    = {{ test_accuracy = 0.02 }}   # the smallest difference that matters
"""


class NewError(WrongUse):
    """A file that is not made, and why."""


def architecture(name: str, like: str | None = None) -> Path:
    """Write harness/architectures/<name>.py: a perceptron to begin with, or as another one is. NewError if not."""
    if not re.fullmatch(r"[a-z][a-z0-9_]*", name) or keyword.iskeyword(name):
        raise NewError(f"{name!r}: an architecture's name is that of a module: lower case letters, digits and '_'")
    if name in names("architectures"):
        raise NewError(f"there is an architecture {name} already")
    if like is None:
        text = ARCHITECTURE.format(title=name)
    elif like in names("architectures"):
        text = plugins.source("architectures", like) or (HERE / "architectures" / f"{like}.py").read_text(
            encoding="utf-8"
        )
    else:
        there = names("architectures")
        raise NewError(f"there is no architecture {like}; {near(like, there)}there are {', '.join(there)}")
    return _write(HERE / "architectures" / f"{name}.py", text)


def grid(name: str, folder: Path, dataset: str = "mnist1d", architecture: str = "mlp") -> Path:
    """Write <folder>/<name>.toml, a small grid to begin with. NewError where that cannot be its name."""
    if not re.fullmatch(r"\w[\w.-]*", name):
        raise NewError(f"{name!r}: a grid's name is that of a file: letters, digits, '_', '-' and '.'")
    return _write(
        folder / f"{name.removesuffix('.toml')}.toml", GRID.format(dataset=dataset, architecture=architecture)
    )


def _write(path: Path, text: str) -> Path:
    try:
        with path.open("x", encoding="utf-8") as file:
            file.write(text)
    except FileExistsError:
        raise NewError(f"{path}: is there already") from None
    except OSError as error:
        raise NewError(f"{path}: cannot be written: {error.strerror}") from None
    return path
