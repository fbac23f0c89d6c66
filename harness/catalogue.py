"""What there is to name in a grid, with a line on each. Nothing is imported for it, so that a plug-in need not work."""

import ast
import re
from collections.abc import Callable
from itertools import permutations

from harness import HERE, NORMS, names
from harness.initialisation import ACTIVATIONS

Row = dict[str, object]


def architectures() -> list[Row]:
    return [{"name": name, "about": _first_sentence("architectures", name)} for name in names("architectures")]


def datasets() -> list[Row]:
    return [{"name": name, "about": _first_sentence("datasets", name)} for name in names("datasets")]


def activations() -> list[Row]:
    """parameter: the default of what may follow the name and a colon; gain: of the weights before it, with its source."""
    return [
        {"name": name, "parameter": each.default, "gain": round(each.gain(each.default), 4), "source": each.source}
        for name, each in ACTIVATIONS.items()
    ]


def orders() -> list[Row]:
    """Every order, but for those with drop, which may stand anywhere in each of them."""
    return [
        {"name": "-".join(order), "about": _about(order)}
        for norm in ("", *NORMS)
        for order in permutations(("weight", norm, "act") if norm else ("weight", "act"))
    ]


def _about(order: tuple[str, ...]) -> str:
    """Where its normalization stands."""
    norm = next((layer for layer in order if layer in NORMS), None)
    if norm is None:
        return "no normalization"
    where = "before" if order.index(norm) < order.index("act") else "after"
    first = ", at the front of the block" if order[0] == norm else ""
    return f"{norm} {where} the activation{first}"


def _first_sentence(folder: str, name: str) -> str:
    """Of the docstring of a plug-in's file."""
    try:
        text = ast.get_docstring(ast.parse((HERE / folder / f"{name}.py").read_text(encoding="utf-8"))) or ""
    except (SyntaxError, UnicodeDecodeError) as error:
        return f"cannot be read: {error}"
    return re.split(r"(?<!al)\. ", " ".join(text.split()))[0].rstrip(".")  # 'et al. 2016' ends none


KINDS: dict[str, Callable[[], list[Row]]] = {
    "architectures": architectures,
    "activations": activations,
    "orders": orders,
    "datasets": datasets,
}
