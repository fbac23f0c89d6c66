"""How a trial runs. This file names what the folders hold, without importing torch, which costs seconds."""

import ast
from pathlib import Path
from typing import Any

from harness.initialisation import ACTIVATIONS

HERE = Path(__file__).parent
NORMS = ("bn",)


def names(folder: str) -> tuple[str, ...]:
    """The plug-ins in a folder of this room: a file each, its name is their name."""
    return tuple(sorted(path.stem for path in (HERE / folder).glob("*.py") if not path.stem.startswith("_")))


def choices() -> dict[str, Any]:
    """The valid names of each field of a grid; for activations, each with its default parameter or None."""
    return {
        "dataset": names("datasets"),
        "architecture": names("architectures"),
        "activation": {name: activation.default for name, activation in ACTIVATIONS.items()},
        "norm": NORMS,
    }


def convolves(architecture: str) -> bool:
    """What an architecture's file says of itself in `CONVOLUTIONS`, read without running the file."""
    tree = ast.parse((HERE / "architectures" / f"{architecture}.py").read_text(encoding="utf-8"))
    for node in tree.body:
        if isinstance(node, ast.Assign) and [getattr(t, "id", "") for t in node.targets] == ["CONVOLUTIONS"]:
            return bool(ast.literal_eval(node.value))
    return True  # trained one seed at a time: right for every network, if not the fastest
