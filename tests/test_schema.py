"""The JSON Schema of grid files: that which is shipped is that of the models, and it takes what Grid.read takes."""

import json
import tomllib
from pathlib import Path

import jsonschema
import pytest
from test_bad_input import MISTAKES, TEXT

import harness
from grids.schema import json_schema
from results import METRICS

ROOT = Path(__file__).parents[1]
SCHEMA = json_schema({**harness.choices(), "metric": METRICS})
# Mistakes that a reader finds and no schema can: they are about several values, or about files and data sets.
FOUND_BY_A_SCHEMA = (
    "unknown table", "unknown axis", "unknown nuisance", "unknown recipe field", "unknown key of seeds",
    "unknown key of the analysis", "flip by number", "an unknown way to stop",
)  # fmt: skip


def errors(text):
    return list(jsonschema.Draft7Validator(SCHEMA).iter_errors(tomllib.loads(text)))


def test_the_shipped_schema_is_that_of_the_models():
    assert json.loads((ROOT / "grids" / "grid.schema.json").read_text()) == SCHEMA
    jsonschema.Draft7Validator.check_schema(SCHEMA)


@pytest.mark.parametrize("path", sorted((ROOT / "grids").glob("*.toml")), ids=lambda path: path.name)
def test_shipped_grids_are_valid(path):
    assert errors(path.read_text()) == []


@pytest.mark.parametrize("mistake", FOUND_BY_A_SCHEMA)
def test_an_editor_sees_a_mistake(mistake):
    old, new, _ = MISTAKES[mistake]
    assert errors(TEXT) == []
    assert errors(TEXT.replace(old, new, 1))


def test_every_field_has_its_meaning():
    for table in ("axes", "nuisance", "recipe"):
        for name, field in SCHEMA["properties"][table]["properties"].items():
            assert field.get("items", field)["description"], name
