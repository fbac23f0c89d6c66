"""Plug-ins from outside of the checkout: an architecture, an activation or a data set, a file each, named by the file.

What goes to other processes, here and on a cluster, is the source text, in a variable of their environment; each process
checks its SHA-256 before it runs it. A file with `build` is an architecture, one with `load` a data set, both as those of
harness/architectures and harness/datasets. One with `activation(parameter)`, which gives a torch module that acts on each
number alone, is an activation; it states `GAIN`, the standard deviation of the weights before it in units of 1/sqrt(fan_in),
and, if it has one, `PARAMETER`, its default. It may state `SATURATED`, up to where and from where on it is saturated at that
default, None where it is not: without it nothing is reported of its saturation.
"""

import ast
import base64
import contextlib
import hashlib
import json
import math
import os
import re
import sys
import traceback
import zlib
from collections.abc import Iterable
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any

from grids import WrongUse

VARIABLE = "NORMORDER_PLUGINS"
DEFINES = {"build": "architectures", "load": "datasets", "activation": "activations"}
FACTS = {
    "architectures": ("CONVOLUTIONS", "CONSTANT_WIDTH", "UNITS", "PRODUCTS"),
    "datasets": ("FLIPS",),
    "activations": ("GAIN", "PARAMETER", "SATURATED"),
}
MOST_BYTES = 100_000  # of the variable, since systems take no more in one


class PluginError(WrongUse):
    """A plug-in that cannot be used: its file, and why."""


def add(paths: Iterable[Path], taken: dict[str, Iterable[str]]) -> None:
    """Make plug-ins known to this process and to those that it starts. taken: by folder, names that are others' already."""
    found, given = dict(_sources(os.environ.get(VARIABLE, ""))), {}
    for path in paths:
        folder, name, text = _read(path)
        if given.setdefault((folder, name), text) != text:
            raise PluginError(f"{path}: another plug-in has the name {name}, too; name one of the files otherwise")
        if name in taken[folder] and (folder, name) not in found:
            raise PluginError(f"{path}: there is {_one(folder)} {name} already; name the file otherwise")
        found[folder, name] = text
    packed = [[*key, _sha256(text), text] for key, text in sorted(found.items())]
    content = base64.b64encode(zlib.compress(json.dumps(packed).encode(), 9)).decode()
    if len(content) > MOST_BYTES:
        raise PluginError(f"plug-ins are too large: {len(content):,} bytes where {MOST_BYTES:,} can be sent")
    os.environ[VARIABLE] = content


def _read(path: Path) -> tuple[str, str, str]:
    """Folder, name and source text of a file."""
    try:
        text = path.read_text(encoding="utf-8")
        tree = ast.parse(text)
    except OSError as error:
        raise PluginError(f"{path}: cannot be read: {error.strerror}") from None
    except (SyntaxError, ValueError) as error:
        raise PluginError(f"{path}: is no Python: {error}") from None
    if not re.fullmatch(r"[a-z][a-z0-9_]*", path.stem):
        raise PluginError(f"{path}: its name must be that of a module: lower case letters, digits and '_'")
    defined = {node.name for node in tree.body if isinstance(node, ast.FunctionDef)} & DEFINES.keys()
    if len(defined) != 1:
        several = f"defines {' and '.join(sorted(defined))}" if defined else "defines none of them"
        raise PluginError(
            f"{path}: must define build (an architecture), load (a data set) or activation, one of them; it {several}"
        )
    folder = DEFINES[defined.pop()]
    try:
        facts = {fact: states(text, fact) for fact in FACTS[folder]}
    except ValueError as error:
        raise PluginError(f"{path}: {error}") from None
    if folder == "activations":
        gain, parameter = facts["GAIN"], facts["PARAMETER"]
        if not _is_number(gain) or not 0 < gain < math.inf:
            raise PluginError(f"{path}: an activation states GAIN = a number above 0, of the weights before it")
        if parameter is not None and not _is_number(parameter):
            raise PluginError(f"{path}: PARAMETER must be a number, or be left out where there is none")
        if not _is_range(facts["SATURATED"]):
            raise PluginError(
                f"{path}: SATURATED must be up to where and from where on it is saturated, as (-2.25, None), or be left out"
            )
    return folder, path.stem, text


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _is_range(value: Any) -> bool:
    ends = value if isinstance(value, tuple | list) else ()
    return value is None or (len(ends) == 2 and all(each is None or _is_number(each) for each in ends))


def _one(folder: str) -> str:
    return {"architectures": "an architecture", "datasets": "a data set", "activations": "an activation"}[folder]


def _sha256(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


@cache
def _sources(content: str) -> dict[tuple[str, str], str]:
    """By folder and name, the source texts in the variable. PluginError where one is not what was sent."""
    if not content:
        return {}
    found = {}
    for folder, name, sha256, text in json.loads(zlib.decompress(base64.b64decode(content))):
        if _sha256(text) != sha256:
            raise PluginError(f"the plug-in {name} is not the one that was sent: its SHA-256 is another")
        found[folder, name] = text
    return found


def names(folder: str) -> tuple[str, ...]:
    return tuple(name for where, name in _sources(os.environ.get(VARIABLE, "")) if where == folder)


def source(folder: str, name: str) -> str | None:
    """The text of a plug-in; None where there is no such."""
    return _sources(os.environ.get(VARIABLE, "")).get((folder, name))


def filename(name: str) -> str:
    """As tracebacks have it."""
    return f"<plug-in {name}>"


def in_a_line(error: Exception, name: str) -> str:
    """What went wrong in an architecture's file, and where: as 'TypeError: ... (mixer.py, line 12)'. ValueErrors speak for
    themselves.
    """
    told = str(error).splitlines()[0] if str(error) else ""
    if isinstance(error, ValueError | WrongUse):
        return told
    frames = traceback.extract_tb(error.__traceback__)
    own = [frame for frame in frames if frame.filename.endswith((f"{name}.py", filename(name)))]
    where = f" ({name}.py, line {own[-1].lineno})" if own else ""
    return f"{type(error).__name__}: {told}".removesuffix(": ") + where


def sha256(folder: str, name: str) -> str:
    """Of the text of a plug-in."""
    return _sha256(_sources(os.environ[VARIABLE])[folder, name])


@cache
def states(text: str, fact: str) -> Any:
    """The literal that a file assigns to `fact`, read without running it; None if it does not. ValueError if it is none."""
    for node in ast.parse(text).body:
        if isinstance(node, ast.Assign) and [getattr(target, "id", "") for target in node.targets] == [fact]:
            try:
                return ast.literal_eval(node.value)
            except ValueError:
                raise ValueError(
                    f"{fact} must be a plain value, as 1.5 or True: it is read without being run"
                ) from None
    return None


def module(folder: str, name: str) -> ModuleType | None:
    """What a plug-in defines, run once in a process; None where there is no such. PluginError where it cannot be run."""
    text, full = source(folder, name), f"harness.{folder}.{name}"
    if text is None:
        return None
    found = sys.modules.get(full)
    if found is None or getattr(found, "__source__", None) != text:
        found = sys.modules[full] = ModuleType(full)  # before it runs, since dataclasses look there
        found.__source__ = text
        try:
            with contextlib.redirect_stdout(sys.stderr):  # what it prints is no answer of a command
                exec(compile(text, filename(name), "exec"), found.__dict__)
        except Exception as error:  # whatever it does
            del sys.modules[full]
            raise PluginError(f"plug-in {name}: cannot be imported: {type(error).__name__}: {error}") from None
    return found
