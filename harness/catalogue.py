"""What there is to name in a grid, with a line on each. Nothing is imported for it, so that a plug-in need not work."""

import ast
import re
from collections.abc import Callable
from itertools import permutations

from harness import HERE, NORMS, names, plugins
from harness.initialisation import ACTIVATIONS, default_parameter, gain

Row = dict[str, object]


def architectures() -> list[Row]:
    return [{"name": name, "about": _first_sentence("architectures", name)} for name in names("architectures")]


def datasets() -> list[Row]:
    return [{"name": name, "about": _first_sentence("datasets", name)} for name in names("datasets")]


def activations() -> list[Row]:
    """parameter: the default of what may follow the name and a colon; gain: of the weights before it, with its source."""
    sources = {name: each.source for name, each in ACTIVATIONS.items()}
    sources |= dict.fromkeys(plugins.names("activations"), "a plug-in")
    return [
        {"name": name, "parameter": default_parameter(name), "gain": round(gain(name), 4), "source": source}
        for name, source in sources.items()
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
        source = plugins.source(folder, name) or (HERE / folder / f"{name}.py").read_text(encoding="utf-8")
        text = ast.get_docstring(ast.parse(source)) or ""
    except (SyntaxError, UnicodeDecodeError) as error:
        return f"cannot be read: {error}"
    return re.split(r"(?<!al)\. ", " ".join(text.split()))[0].rstrip(".")  # 'et al. 2016' ends none


KINDS: dict[str, Callable[[], list[Row]]] = {
    "architectures": architectures,
    "activations": activations,
    "orders": orders,
    "datasets": datasets,
}
