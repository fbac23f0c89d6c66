"""How a trial runs. This file names what the folders hold, without importing torch, which costs seconds."""

from functools import cache
from pathlib import Path
from typing import Any

from harness import plugins
from harness.initialisation import ACTIVATIONS, default_parameter

HERE = Path(__file__).parent
NORMS = ("bn", "ln", "gn", "in", "rms")


def names(folder: str) -> tuple[str, ...]:
    """The plug-ins in a folder of this room, a file each, whose name is theirs; and those from elsewhere."""
    ours = (path.stem for path in (HERE / folder).glob("*.py") if not path.stem.startswith("_"))
    return tuple(sorted({*ours, *plugins.names(folder)}))


def choices() -> dict[str, Any]:
    """The valid names of each field of a grid; for activations, each with its default parameter or None."""
    return {
        "dataset": names("datasets"),
        "architecture": names("architectures"),
        "activation": {name: default_parameter(name) for name in (*ACTIVATIONS, *plugins.names("activations"))},
        "norm": NORMS,
    }


@cache
def _states(folder: str, name: str, fact: str) -> Any:
    """The literal that a plug-in's file assigns to `fact`, read without running the file; None if it does not."""
    text = plugins.source(folder, name)
    return plugins.states((HERE / folder / f"{name}.py").read_text(encoding="utf-8") if text is None else text, fact)


def convolves(architecture: str) -> bool:
    """Whether a weight layer of the architecture has a kernel, by its CONVOLUTIONS."""
    return _states("architectures", architecture, "CONVOLUTIONS") is not False


def mirrors(dataset: str) -> bool:
    """Whether the mirror image of an example is of the same class, by the FLIPS of the data set's file."""
    return _states("datasets", dataset, "FLIPS") is True


def stackable(architecture: str) -> bool:
    """Whether its shapes let seeds be stacked without changing bits: no kernels, and cell.width channels in every block.

    An architecture that does not state CONSTANT_WIDTH is trained one seed at a time: right for every network, if slower.
    """
    return not convolves(architecture) and _states("architectures", architecture, "CONSTANT_WIDTH") is True


def products(architecture: str) -> float:
    """Multiplications of a block for each place of an example's space, in units of width², by its PRODUCTS.

    2 for two square matrices, 9 for a 3×3 convolution, less where space is halved and width is not doubled. Where it is not
    stated, that of a single weight layer.
    """
    stated = _states("architectures", architecture, "PRODUCTS")
    return (9 if convolves(architecture) else 1) if stated is None else stated


def units(architecture: str) -> int:
    """How often a block has the layers of the order, by its UNITS; once where it is not stated."""
    return _states("architectures", architecture, "UNITS") or 1
