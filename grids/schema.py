"""JSON Schema of grid files, for editors that complete and check them while they are written."""

from collections.abc import Mapping
from typing import Any

from grids import Analysis, Cell, Probes, Resources, Seeds

JSON = dict[str, Any]


def json_schema(choices: Mapping[str, Any]) -> JSON:
    """Of a grid file (draft 7). It allows a little more than Grid.read: no rule about several values together is in it."""
    fields = {name: _field(name, choices) for name in Cell.model_fields}
    lists = {
        name: {"type": "array", "items": each, "minItems": 1, "uniqueItems": True} for name, each in fields.items()
    }
    rule = {name: {"anyOf": [each, lists[name]]} for name, each in fields.items()}
    tables = {
        "axes": _table("every combination of these values is a cell", lists),
        "nuisance": _table("what is not asked about: of several values each arm is compared at its own best", lists),
        "recipe": _table("one value each: the caveats of every conclusion", fields),
        "exclude": {
            "type": "array",
            "items": _table("a combination to leave out", rule),
            "description": "combinations to leave out; before the tables",
        },
    }
    models = {"seeds": Seeds, "analysis": Analysis, "resources": Resources, "probes": Probes}
    for name, model in models.items():
        tables[name] = _plain(model.model_json_schema())
        tables[name].pop("description", None)
    return {"$schema": "http://json-schema.org/draft-07/schema#", "title": "normorder grid", **_table("", tables)}


def _table(description: str, properties: Mapping[str, JSON]) -> JSON:
    told = {"description": description} if description else {}
    return {"type": "object", **told, "properties": dict(properties), "additionalProperties": False}


def _field(name: str, choices: Mapping[str, Any]) -> JSON:
    """One value of a cell field. Names of plug-ins are not known here, so those of ours are examples."""
    found = _plain(Cell.model_json_schema()["properties"][name])
    found.pop("default", None)
    if name in ("dataset", "architecture"):
        found["examples"] = list(choices[name])
    if name == "activation":
        found["pattern"] = "^[a-z][a-z0-9_]*(:.+)?$"
        found["examples"] = list(choices["activation"])
    if name == "order":
        found["pattern"] = f"^({'|'.join(('weight', 'act', 'drop', *choices['norm']))})(-[a-z]+)*$"
    return found


def _plain(schema: JSON) -> JSON:
    """Without titles, and with what is defined elsewhere in its place."""
    definitions = schema.get("$defs", {})

    def walk(part: Any, is_properties: bool = False) -> Any:
        if isinstance(part, list):
            return [walk(each) for each in part]
        if not isinstance(part, dict):
            return part
        if "$ref" in part:
            rest = {key: value for key, value in part.items() if key != "$ref"}
            return walk({**definitions[part["$ref"].rpartition("/")[2]], **rest})
        return {
            key: walk(value, key == "properties")
            for key, value in part.items()
            if is_properties or key not in ("title", "$defs")
        }

    return walk(schema)
