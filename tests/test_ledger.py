"""The ledger of claims: what a claims file may hold, and what the page says of it."""

import dataclasses
import re
import tomllib
from pathlib import Path

import pytest
from simulated import AFTER

from grids import FIELDS, WrongUse
from reports.claims import VERDICTS
from reports.ledger import EXPECTED, KEYS, NORMS, Allowed, ClaimsError, read
from reports.measures import DERIVED
from results import METRICS

ROOT = Path(__file__).parents[1]
LEDGER = read()

ENTRY = """
[[claim]]
id        = "one"
source    = "Somebody 2020"
statement = "After is better."
cells     = { activation = ["relu", "tanh"], depth = { least = 4 } }
first     = { order = "weight-act-bn" }
second    = { order = "weight-bn-act" }
metric    = "test_accuracy"
expected  = "greater"
margin    = 0.01
"""
VARIES = 'expected  = "varies"\nover = '
# What is changed in the entry, into what, and the words of the error beside the file's name.
MISTAKES = {
    "not TOML": ("[[claim]]", "[[claim", ("not TOML", "line 2")),
    "not a list": ("[[claim]]", "[claim]", ("claim", "[[claim]]")),
    "unknown table": ("[[claim]]", "[[claims]]", ("'claims'", "[[claim]]")),
    "unknown key": ("margin ", "margins ", ("'one'", "unknown key 'margins'", *KEYS)),
    "no id": ('id        = "one"', "", ("number 1", "id", "is missing")),
    "id that is no text": ('"one"', "1", ("number 1", "id = 1", "text")),
    "empty source": ('"Somebody 2020"', '" "', ("'one'", "source = ' '", "text")),
    "no source": ('source    = "Somebody 2020"', "", ("source", "is missing")),
    "no statement": ('statement = "After is better."', "", ("statement", "is missing")),
    "no metric": ('metric    = "test_accuracy"', "", ("'one'", "metric", "is missing")),
    "unknown metric": ('"test_accuracy"', '"accuracy"', ("unknown metric 'accuracy'", *METRICS, *DERIVED)),
    "no expectation": ('expected  = "greater"', "", ("expected", "is missing")),
    "unknown expectation": ('"greater"', '"larger"', ("expected = 'larger'", *EXPECTED)),
    "no first side": ('first     = { order = "weight-act-bn" }', "", ("first", "is missing")),
    "side without a field": ('{ order = "weight-bn-act" }', "{}", ("second", "is missing")),
    "side that is no table": ('{ order = "weight-bn-act" }', '"weight-bn-act"', ("second = 'weight-bn-act'", "table")),
    "unknown field of cells": ("depth =", "depht =", ("cells: unknown field 'depht'", *FIELDS)),
    "unknown field of a side": ("first     = { order", "first     = { seed", ("first: unknown field 'seed'", *FIELDS)),
    "unknown layer": ('"weight-act-bn"', '"weight-act-xn"', ("first.order = 'weight-act-xn'", "'weight'", *NORMS)),
    "value of the wrong kind": ('"relu", "tanh"', '"relu", 3', ("cells.activation = 3", "string")),
    "value that no cell can have": ("{ least = 4 }", "0", ("cells.depth = 0", "greater than or equal to 1")),
    "unknown choice": ("depth = { least = 4 }", 'schedule = "cos"', ("cells.schedule = 'cos'", "'cosine'")),
    "no value": ('["relu", "tanh"]', "[]", ("cells.activation = []", "has no value")),
    "value twice": ('"relu", "tanh"', '"relu", "relu"', ("cells.activation = 'relu'", "twice")),
    "range of names": ('["relu", "tanh"]', '{ least = "relu" }', ("cells.activation", "a range is of numbers")),
    "range without ends": ("{ least = 4 }", "{}", ("cells.depth = {}", "least = 4, most = 8")),
    "range with other ends": ("{ least = 4 }", "{ from = 4 }", ("cells.depth", "least = 4, most = 8")),
    "range of text": ("{ least = 4 }", '{ least = "4" }', ("cells.depth", "a range is of numbers")),
    "range the wrong way": ("{ least = 4 }", "{ least = 4, most = 2 }", ("cells.depth", "least is above most")),
    "sides with other fields": ('{ order = "weight-bn-act" }', "{ lr = 0.1 }", ("first names order, second lr", "same")),
    "sides that do not differ": ('"weight-bn-act"', '["weight-bn-act", "weight-act-bn"]', ("do not differ", "order")),
    "side's field in cells": ("depth = { least = 4 }", 'order = "weight-act"', ("cells.order", "the sides already")),
    "margin 0": ("0.01", "0", ("margin = 0", "above 0")),
    "negative margin": ("0.01", "-0.01", ("margin = -0.01", "above 0")),
    "margin that is no number": ("0.01", '"0.01"', ("margin = '0.01'", "number")),
    "margin true": ("0.01", "true", ("margin = True", "number")),
    "endless margin": ("0.01", "inf", ("margin = inf", "above 0")),
    "margin that no share reaches": ("0.01", "1", ("margin = 1", "test_accuracy is a share", "0.01 is 1 percentage point")),
    "equivalence without margin": ('"greater"\nmargin    = 0.01', '"equivalent"', ("margin", "is missing", "equivalent")),
    "margin of a slope": ('expected  = "greater"', 'expected  = "rises"\nover = "lr"', ("margin = 0.01", "rises")),
    "variation over nothing": ('"greater"', '"varies"', ("over", "is missing")),
    "over without variation": ("margin ", 'over = "lr"\nmargin ', ("over", "varies, rises, falls")),
    "over of an unknown field": ('expected  = "greater"', VARIES + '"size"', ("over = 'size'", *FIELDS)),
    "over a side's field": ('expected  = "greater"', VARIES + '"order"', ("over = 'order'", "field of the sides")),
    "over a single value": ('expected  = "greater"', VARIES + '"depth"', ("over = 'depth'", "only one value")),
    "slope over names": ('"greater"\nmargin    = 0.01', '"falls"\nover = "activation"', ("over = 'activation'", "numbers")),
    "range over a side's field": ("margin ", 'range_over = "order"\nmargin ', ("range_over = 'order'", "of the sides")),
    "spread of a range": ('"greater"\nmargin    = 0.01', '"less_spread"\nrange_over = "lr"', ("range_over", "spread")),
    "needs beside a metric": ("margin ", 'needs = "a probe"\nmargin ', ("cells", "cannot stand beside needs")),
    "anatomy beside a metric": ("margin ", 'anatomy = "layer"\nmargin ', ("cells", "cannot stand beside anatomy")),
    "than without anatomy": ("margin ", "than = 1\nmargin ", ("than", "belongs to anatomy")),
    "nearest cell of a side": ("margin ", 'nearest = { order = "weight-act" }\nmargin ', ("nearest.order", "of the sides")),
    "nearest cell of none": ("margin ", "nearest = { depth = [4, 2] }\nmargin ", ("nearest.depth = 2", "claim's cells")),
    "nearest cells as a range": ("margin ", "nearest = { depth = { most = 8 } }\nmargin ", ("nearest.depth", "a list")),
    "margin that is no float": ("0.01", "1" + "0" * 400, ("margin = 1000", "number")),
    "published as a number": ("margin ", "published = 0.5\nmargin ", ("published = 0.5", "text")),
    "no claim": (ENTRY, "# later\n", ("has no claim", "[[claim]]")),
    "list of no claim": (ENTRY, "claim = []", ("has no claim", "[[claim]]")),
    "two with one id": (ENTRY, ENTRY + ENTRY, ("claim 'one'", "id is given to 2 claims")),
}  # fmt: skip


def written(folder, text):
    path = folder / "mine.toml"
    path.write_text(text)
    return path


def refused(path):
    with pytest.raises(ClaimsError) as caught:
        read(path)
    assert isinstance(caught.value, WrongUse)
    line = str(caught.value)
    assert "\n" not in line
    assert line.startswith(f"{path}: ")
    return line


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_in_a_claims_file_is_one_line_with_the_claim_the_value_and_the_choices(tmp_path, mistake):
    old, new, words = MISTAKES[mistake]
    text = ENTRY.replace("depth = { least = 4 }", "depth = 4") if mistake == "over a single value" else ENTRY
    assert text.count(old) == 1
    line = refused(written(tmp_path, text.replace(old, new)))
    for word in words:
        assert word in line


COMPUTED = """
[[claim]]
id        = "wide"
source    = "Somebody 2022"
statement = "Most values of tanh lie at its ends."
anatomy   = { section = "saturation", quantity = "share saturated", setting = ["tanh", "sigmoid"] }
expected  = "greater"
than      = 0.5
"""
COMPUTED_WRONG = {
    "no table": ("{ section", '"saturation" # { section', ("anatomy = 'saturation'", "section, quantity, setting")),
    "a key less": ('quantity = "share saturated", ', "", ("anatomy", "section, quantity, setting")),
    "several sections": ('section = "saturation"', 'section = ["a", "b"]', ("anatomy.section", "list of texts")),
    "no setting": ('["tanh", "sigmoid"]', "[]", ("anatomy.setting = []", "text")),
    "no number": ("than      = 0.5", "", ("than", "number")),
    "no finite number": ("0.5", "inf", ("than = inf", "number")),
    "a number that no float is": ("0.5", "1" + "0" * 400, ("than = 1000", "number")),
    "every section": ('section = "saturation"', 'section = "*"', ("anatomy.section = '*'", "of setting '*'")),
    "another expectation": ('"greater"', '"equivalent"', ("expected = 'equivalent'", "greater, less")),
    "a margin": ("than ", "margin = 0.1\nthan ", ("margin", "cannot stand beside anatomy")),
}


def test_a_claim_about_the_anatomy_reads_as_it_is_written(tmp_path):
    (which,) = read(written(tmp_path, COMPUTED))
    assert (which.expected, which.than, which.metric) == ("greater", 0.5, "")
    assert which.anatomy == {
        "section": ("saturation",), "quantity": ("share saturated",), "setting": ("tanh", "sigmoid")
    }  # fmt: skip


@pytest.mark.parametrize("mistake", COMPUTED_WRONG)
def test_a_mistake_in_a_claim_about_the_anatomy_is_one_line_with_the_rule(tmp_path, mistake):
    old, new, words = COMPUTED_WRONG[mistake]
    assert COMPUTED.count(old) == 1
    line = refused(written(tmp_path, COMPUTED.replace(old, new)))
    for word in ("'wide'", *words):
        assert word in line


def test_a_claims_file_that_is_absent_or_unreadable_is_named(tmp_path):
    assert "no such claims file" in refused(tmp_path / "mine.toml")
    (tmp_path / "mine.toml").write_bytes(b"\xff")
    assert "cannot be read" in refused(tmp_path / "mine.toml")


def test_a_claim_reads_as_it_is_written(tmp_path):
    (which,) = read(written(tmp_path, ENTRY.replace("After is better.", "After is\\n  better.")))
    assert (which.id, which.statement, which.margin) == ("one", "After is better.", 0.01)
    assert which.cells == {"activation": Allowed(("relu", "tanh")), "depth": Allowed(least=4)}
    assert which.first == {"order": Allowed((AFTER,))}


def test_an_order_of_a_claim_may_name_layers_that_no_grid_can_train_yet(tmp_path):
    (which,) = read(written(tmp_path, ENTRY.replace("weight-act-bn", "weight-act-ln")))
    assert which.first == {"order": Allowed(("weight-act-ln",))}


@pytest.mark.parametrize("metric", [*METRICS, *DERIVED])
def test_a_margin_of_1_or_more_is_refused_of_shares_only(tmp_path, metric):
    text = ENTRY.replace("0.01", "1.5").replace("test_accuracy", metric)
    if metric.endswith(("loss", "epochs_to_threshold")):
        assert read(written(tmp_path, text))[0].margin == 1.5
    else:
        assert f"{metric} is a share" in refused(written(tmp_path, text))


# What comes with the program


def test_each_claim_is_told_apart():
    for key in ("id", "statement"):
        texts = [getattr(each, key) for each in LEDGER]
        assert len(set(texts)) == len(texts)


def test_the_ledger_is_part_of_the_package():
    package = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["package-data"]["reports"]
    assert "claims.toml" in package


README = (ROOT / "reports" / "README.md").read_text()


@pytest.mark.parametrize(("table", "quote"), [(KEYS, "`"), (EXPECTED, "`"), (VERDICTS, "")])
def test_the_tables_of_the_page_are_those_of_the_code(table, quote):
    rows = "\n".join(f"| {quote}{name}{quote} | {meaning} |" for name, meaning in table.items())
    assert rows in README


def test_the_example_of_the_page_is_an_entry_of_the_ledger_under_a_name_of_its_own(tmp_path):
    (example,) = read(written(tmp_path, re.search(r"```toml\n(.*?)```", README, re.S).group(1)))
    (same,) = [claim for claim in LEDGER if claim.id == "kim-2023-bounded"]
    assert example.id not in {claim.id for claim in LEDGER}
    assert dataclasses.replace(example, id=same.id, source=same.source) == same
