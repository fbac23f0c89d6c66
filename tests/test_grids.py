"""Grids and identity: what a file may say, which cells follow from it, and that equal content has equal names."""

import hashlib
import itertools
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

import harness
from grids import TABLES, Cell, Grid, GridError, Run, Seeds, identity, order_error, run_ids
from results import METRICS

GRIDS = Path(__file__).parent.parent / "grids"
CHOICES = {**harness.choices(), "metric": METRICS}
NORMS = ("bn", "ln")

TEXT = """# Which?
[axes]
dataset      = ["digits"]
architecture = ["mlp"]
order        = ["weight-act", "weight-bn-act"]
activation   = ["relu", "tanh"]
depth        = [2, 4]

[nuisance]
lr = [0.1, 0.01]

[recipe]
epochs = 3

[seeds]
count = 2

[analysis]
arms      = { none = "weight-act", before = "weight-bn-act" }
contrasts = ["before - none"]
primary   = { metric = "test_accuracy", contrast = "before - none" }
margin    = { test_accuracy = 0.02 }
"""

ONE_RATE = TEXT.replace("[0.1, 0.01]", "[0.1]")  # nothing to choose

DEFAULTS = {  # lines may be added, never changed: the ids of stored runs leave these values out
    "lr": 0.1,
    "epochs": 20,
    "batch": 100,
    "width": 64,
    "schedule": "cosine",
    "optimiser": "sgd",
    "momentum": 0.9,
    "weight_decay": 0.0,
    "dropout": 0.1,
    "maxout_width": "same",
    "affine": True,
    "bias": True,
    "bn_momentum": 0.1,
    "bn_eps": 1e-5,
    "groups": 8,
    "weight_decay_norm": True,
    "stem_norm": "none",
    "head_norm": "none",
    "pool": "after",
    "after_sum": "none",
    "after_blocks": "none",
    "branch_end": "order",
    "init": "he",
    "init_gain": 1.0,
    "train_size": 0,
    "label_noise": 0.0,
    "shift": 0,
    "flip": False,
}

cells = st.builds(
    Cell,
    dataset=st.text(),
    architecture=st.text(),
    order=st.text(),
    activation=st.text(),
    depth=st.integers(1, 100),
    lr=st.floats(1e-6, 10),
    epochs=st.integers(1, 30),
    batch=st.integers(2, 200),
    width=st.integers(1, 100),
    schedule=st.sampled_from(["constant", "cosine", "onecycle"]),
    optimiser=st.sampled_from(["sgd", "adam"]),
    momentum=st.floats(0, 0.99),
    weight_decay=st.floats(0, 1),
    dropout=st.floats(0, 0.9),
    maxout_width=st.sampled_from(["same", "matched"]),
    affine=st.booleans(),
    init_gain=st.floats(0.01, 10),
    after_sum=st.sampled_from(["none", "bn-act"]),
    train_size=st.integers(0, 1000),
)


def cell(**changes):
    fields = {"dataset": "mnist1d", "architecture": "mlp", "order": "weight-bn-act", "activation": "relu", "depth": 4}
    return Cell(**{**fields, **changes})


def read(folder, text=TEXT, **options):
    path = folder / "study.toml"
    path.write_text(text, encoding="utf-8")
    return Grid.read(path, CHOICES, **options)


def activation(folder, name):
    """The activation of a grid that asks for `name`."""
    [first, *_] = read(folder, TEXT.replace('["relu", "tanh"]', f'["{name}"]')).cells()
    return first.activation


def test_the_id_of_a_cell_never_changes():
    assert cell(lr=0.05, width=32).cell_id == "16b517c34ecab34a"


def test_the_id_of_a_run_never_changes():
    assert Run(cell(), 3).run_id == "732de8e0867c452a"


def test_an_id_is_the_start_of_the_sha256_of_the_json_of_what_is_not_default():
    json = (
        '{"activation":"relu","architecture":"mlp","dataset":"mnist1d","depth":4,'
        '"lr":0.05,"order":"weight-bn-act","seed":3,"width":32}'
    )
    assert Run(cell(lr=0.05, width=32), 3).run_id == hashlib.sha256(json.encode()).hexdigest()[:16]


@given(cells, st.lists(st.integers(0, 10**6), max_size=5))
def test_ids_of_many_seeds_are_those_of_the_plain_definition(each, seeds):
    wanted = [identity({**each.content(), "seed": seed}) for seed in seeds]
    assert run_ids(each, seeds) == wanted == [Run(each, seed).run_id for seed in seeds]


@pytest.mark.parametrize("text", ['"seed":null', '\\","seed":null,"', "seed", 'a","seed":0'])
def test_no_text_in_a_cell_is_taken_for_the_place_of_its_seed(text):
    odd = cell(dataset=text, order=text)
    assert run_ids(odd, [3]) == [identity({**odd.content(), "seed": 3})]


def test_a_new_field_with_a_default_leaves_every_id_alone():
    class LaterCell(Cell):
        stem: str = "plain"

    fields = dict(cell(lr=0.05))
    assert LaterCell(**fields).cell_id == cell(lr=0.05).cell_id
    assert LaterCell(**fields, stem="wide").cell_id != cell(lr=0.05).cell_id


def test_a_default_once_released_never_changes():
    assert {name: getattr(cell(), name) for name in DEFAULTS} == DEFAULTS


def test_a_default_that_is_given_has_the_id_of_one_left_out():
    assert cell(**DEFAULTS).cell_id == cell().cell_id


@pytest.mark.parametrize(("field", "one", "same"), [("depth", 2, 2.0), ("lr", 1, 1.0), ("width", 32.0, 32)])
def test_1_and_1_point_0_are_one_id(field, one, same):
    assert cell(**{field: one}).cell_id == cell(**{field: same}).cell_id


@pytest.mark.parametrize("field", ["momentum", "weight_decay", "dropout"])
def test_0_and_minus_0_are_one_id(field):
    assert cell(**{field: -0.0}).cell_id == cell(**{field: 0.0}).cell_id


@given(st.lists(st.tuples(cells, st.integers(0, 1000)), unique=True))
def test_ids_do_not_collide(runs):
    assert len({Run(*run).run_id for run in runs}) == len(runs)


@given(st.lists(cells, unique=True))
def test_ids_of_cells_do_not_collide(several):
    assert len({each.cell_id for each in several}) == len(several)


@given(cells, st.integers(0, 1000))
def test_a_copy_of_a_run_has_its_id(original, seed):
    copy = Cell.model_validate_json(original.model_dump_json())
    assert Run(copy, seed).run_id == Run(original, seed).run_id


def test_nothing_that_is_not_a_number_has_an_id():
    with pytest.raises(ValueError, match="not JSON compliant"):
        identity({"lr": float("nan")})


def test_a_cell_cannot_be_changed():
    with pytest.raises(ValueError, match="frozen"):
        cell().depth = 8


@pytest.mark.parametrize("name", ["leaky_relu:0.01", "leaky_relu:1e-2", "leaky_relu:0.010"])
def test_the_default_parameter_of_an_activation_is_left_out_of_its_name(tmp_path, name):
    assert activation(tmp_path, name) == "leaky_relu"


@pytest.mark.parametrize("name", ["leaky_relu:0.333", "leaky_relu:0.3330", "leaky_relu:.333"])
def test_a_parameter_is_written_in_one_way(tmp_path, name):
    assert activation(tmp_path, name) == "leaky_relu:0.333"


def test_the_two_spellings_of_one_activation_are_a_duplicate(tmp_path):
    with pytest.raises(GridError, match=r"activation = 'leaky_relu': is listed twice"):
        read(tmp_path, TEXT.replace('"tanh"', '"leaky_relu", "leaky_relu:0.01"'))


def test_neither_the_analysis_nor_the_number_of_seeds_is_part_of_an_id(tmp_path):
    declared = [run.run_id for run in read(tmp_path).runs()]
    other = [run.run_id for run in read(tmp_path, TEXT.partition("[analysis]")[0], seeds=5).runs()]
    assert set(declared) < set(other)


def test_every_combination_of_axes_and_nuisance_is_one_cell(tmp_path):
    found = [(c.order, c.activation, c.depth, c.lr) for c in read(tmp_path).cells()]
    wanted = itertools.product(["weight-act", "weight-bn-act"], ["relu", "tanh"], [2, 4], [0.1, 0.01])
    assert found == list(wanted)


def test_cells_are_made_once_and_can_be_walked_again(tmp_path):
    grid = read(tmp_path)
    assert len(list(grid.cells())) == 16
    assert all(a is b for a, b in zip(grid.cells(), grid.cells(), strict=True))


def test_a_copy_of_a_grid_is_equal_to_it_whether_or_not_its_cells_were_made(tmp_path):
    assert read(tmp_path) == read(tmp_path)


def test_a_recipe_holds_for_every_cell(tmp_path):
    assert {c.epochs for c in read(tmp_path).cells()} == {3}


def test_a_recipe_field_may_be_an_axis(tmp_path):
    grid = read(tmp_path, TEXT.replace("[nuisance]", "width = [8, 16]\n[nuisance]"))
    assert [c.width for c in grid.cells()][::2] == [8, 16] * 8


def test_an_axis_may_be_fixed_in_the_recipe(tmp_path):
    grid = read(tmp_path, TEXT.replace("depth        = [2, 4]", "").replace("[recipe]", "[recipe]\ndepth = 3"))
    assert {c.depth for c in grid.cells()} == {3}


def test_every_cell_has_the_seeds_from_0(tmp_path):
    grid = read(tmp_path, ONE_RATE)
    assert [(run.cell, run.seed) for run in grid.runs()] == [(c, seed) for c in grid.cells() for seed in (0, 1)]


def test_a_number_of_seeds_can_be_given_in_place_of_the_grids(tmp_path):
    assert read(tmp_path, seeds=7).seeds.count == 7


# Values that tuning seeds choose among


@pytest.mark.parametrize(
    ("text", "tuning"), [(TEXT, 5), (ONE_RATE, 0), (TEXT.replace("[seeds]", "[seeds]\ntuning = 8"), 8)]
)
def test_several_values_have_tuning_seeds_that_no_count_reaches(tmp_path, text, tuning):
    grid = read(tmp_path, text)
    assert (grid.seeds.tuning, grid.seeds.count, grid.declared_seeds) == (tuning, 2, 2)
    assert grid.seeds.every == (*range(10_000, 10_000 + tuning), 0, 1)
    assert [(run.cell, run.seed) for run in grid.runs()] == list(itertools.product(grid.cells(), grid.seeds.every))
    assert grid.searched == (("lr",) if tuning else ())


def test_a_nuisance_left_out_has_nothing_to_choose(tmp_path):
    assert read(tmp_path, ONE_RATE.replace("[nuisance]\nlr = [0.1]", "")).seeds.tuning == 0


def test_a_number_of_seeds_that_is_given_leaves_the_tuning_seeds_alone(tmp_path):
    grid = read(tmp_path, TEXT.replace("[seeds]", "[seeds]\ntuning = 6"), seeds=7)
    assert (grid.seeds.tuning, grid.seeds.count, grid.declared_seeds) == (6, 7, 2)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (TEXT.replace("[seeds]", "[seeds]\ntuning = 4"), r"\[seeds\] tuning = 4: must be at least 5, .* values of lr"),
        (TEXT.replace("[seeds]", "[seeds]\ntuning = 0"), r"\[seeds\] tuning = 0: must be at least 5"),
        (
            TEXT.replace("[seeds]", "[seeds]\ntuning = -1"),
            r"\[seeds\] tuning = -1: should be greater than or equal to 0",
        ),
        (TEXT.replace("[seeds]", "[seeds]\ntuning = '5'"), r"\[seeds\] tuning = '5': must be a number"),
        (
            ONE_RATE.replace("[seeds]", "[seeds]\ntuning = 5"),
            r"\[seeds\] tuning = 5: must be left out, .* \[nuisance\]",
        ),
        (
            TEXT.replace("count = 2", "count = 10001"),
            r"\[seeds\] count = 10001: must be at most 10000, .* values of lr",
        ),
        (
            TEXT.replace('order        = ["weight-act", "weight-bn-act"]', "").replace(
                "[nuisance]", '[nuisance]\norder = ["weight-act", "weight-bn-act"]'
            ),
            r"\[nuisance\] order: cannot be chosen by its results; several values belong under \[axes\]",
        ),
        (
            "exclude = [{order = 'weight-act', depth = 4, lr = 0.1}]\n" + TEXT,
            "exclude: must leave weight-act and weight-bn-act the same values of lr in every cell",
        ),
    ],
)
def test_a_choice_that_cannot_be_fair_is_an_error(tmp_path, text, words):
    with pytest.raises(GridError, match=f"study.toml: {words}"):
        read(tmp_path, text)


def test_a_number_of_seeds_that_is_given_must_not_reach_the_tuning_seeds_either(tmp_path):
    with pytest.raises(GridError, match=r"count = 10001: must be at most 10000"):
        read(tmp_path, seeds=10_001)
    assert read(tmp_path, ONE_RATE, seeds=10_001).seeds.count == 10_001


def test_a_value_may_be_left_out_for_all_orders_and_an_order_for_all_values(tmp_path):
    rules = "[{depth = 4, lr = 0.1}, {order = 'weight-act', activation = 'tanh', depth = 2}]"
    assert len(list(read(tmp_path, f"exclude = {rules}\n{TEXT}").cells())) == 16 - 4 - 2


@pytest.mark.parametrize("text", [ONE_RATE, ONE_RATE.replace("[nuisance]\nlr = [0.1]", "")])
def test_without_tuning_seeds_the_analysis_hash_is_what_it_was_before_there_were_any(tmp_path, text):
    grid = read(tmp_path, text)
    content = {**grid.analysis.model_dump(), "cells": sorted(cell.cell_id for cell in grid.cells()), "seeds": 2}
    assert grid.analysis_hash == identity(content) == "d960f2f38962e408"


def test_the_analysis_hash_covers_the_tuning_seeds_and_what_they_choose(tmp_path):
    more = read(tmp_path, TEXT.replace("[seeds]", "[seeds]\ntuning = 6"))
    other = read(
        tmp_path, TEXT.replace("[nuisance]", "").replace("[recipe]", "[nuisance]\nmomentum = [0.9, 0.8]\n[recipe]")
    )
    swapped = "[axes]\nmomentum = [0.9, 0.8]"
    same_cells = read(tmp_path, TEXT.replace("[axes]", swapped))
    assert {c.cell_id for c in other.cells()} == {c.cell_id for c in same_cells.cells()}
    assert len({grid.analysis_hash for grid in (read(tmp_path), more, other, same_cells)}) == 4


ADAPTIVE = ONE_RATE.replace("count = 2", 'count = 5\nmax = 40\nstop = "decided"')


def test_looks_double_the_seeds_up_to_max(tmp_path):
    grid = read(tmp_path, ADAPTIVE)
    assert grid.seeds.looks == (5, 10, 20, 40)
    assert (grid.seeds.most, grid.seeds.every) == (40, tuple(range(40)))
    assert read(tmp_path, ADAPTIVE.replace("40", "5")).seeds.looks == (5,)
    assert read(tmp_path, ONE_RATE).seeds.looks == (2,)
    searching = read(tmp_path, TEXT.replace("count = 2", 'count = 5\nmax = 10\nstop = "decided"'))
    assert searching.seeds.every == (*range(10_000, 10_005), *range(10))


def test_seeds_that_are_asked_for_are_those_of_the_first_look(tmp_path):
    assert read(tmp_path, ADAPTIVE, seeds=10).seeds.looks == (10, 20, 40)
    with pytest.raises(GridError, match=r"max = 40: must be count = 7 doubled some times, as 28 or 56"):
        read(tmp_path, ADAPTIVE, seeds=7)


def test_the_analysis_hash_covers_the_looks(tmp_path):
    texts = [
        ADAPTIVE,
        ADAPTIVE.replace("40", "20"),
        ADAPTIVE.replace("40", "5"),
        ONE_RATE.replace("count = 2", "count = 5"),
    ]
    assert len({read(tmp_path, text).analysis_hash for text in texts}) == 4


def test_the_page_of_grids_names_every_key_of_the_seeds():
    page = (GRIDS / "README.md").read_text()
    assert [key for key in Seeds.model_fields if f"`{key}`" not in page] == []


def test_the_page_of_grids_names_every_table():
    page = (GRIDS / "README.md").read_text()
    assert [table for table in TABLES if f"| `[{table}]` |" not in page] == []


def left(folder, rules, text=TEXT):
    """(activation, depth) of the cells that `exclude` leaves; each comes with two orders and two learning rates."""
    cells = list(read(folder, f"exclude = {rules}\n{text}").cells())
    found = sorted({(c.activation, c.depth) for c in cells})
    assert len(cells) == 4 * len(found)
    return found


def test_exclude_drops_the_cells_that_match_all_of_a_rule(tmp_path):
    assert left(tmp_path, '[{activation = "tanh", depth = 4}]') == [("relu", 2), ("relu", 4), ("tanh", 2)]


def test_a_list_in_exclude_matches_any_of_its_values(tmp_path):
    assert left(tmp_path, '[{activation = "tanh", depth = [2, 4]}]') == [("relu", 2), ("relu", 4)]


def test_each_rule_of_exclude_drops_cells(tmp_path):
    assert left(tmp_path, '[{activation = "tanh"}, {depth = 4}]') == [("relu", 2)]


def test_exclude_may_name_a_value_of_the_recipe(tmp_path):
    assert left(tmp_path, "[{epochs = 3, depth = 4}]") == [("relu", 2), ("tanh", 2)]


def test_exclude_matches_values_by_meaning_and_not_by_spelling(tmp_path):
    text = TEXT.replace('"tanh"', '"leaky_relu"')
    assert left(tmp_path, '[{activation = "leaky_relu:0.010"}, {depth = 4.0}]', text) == [("relu", 2)]


def test_exclude_must_leave_a_cell(tmp_path):
    with pytest.raises(GridError, match="exclude: leaves no cell"):
        left(tmp_path, "[{depth = [2, 4]}]")


def test_exclude_of_a_value_that_the_grid_does_not_have_is_an_error(tmp_path):
    with pytest.raises(GridError, match=r"exclude depth = .*8.*: the grid has depth 2, 4"):
        left(tmp_path, "[{depth = [2, 8]}]")


def test_without_an_analysis_the_arms_are_the_orders_and_every_pair_is_a_contrast(tmp_path):
    text = TEXT.replace('"weight-bn-act"]', '"weight-bn-act", "weight-act-bn"]').partition("[analysis]")[0]
    analysis = read(tmp_path, text).analysis
    assert analysis.arms == {order: order for order in ("weight-act", "weight-bn-act", "weight-act-bn")}
    assert analysis.contrasts == (
        "weight-bn-act - weight-act", "weight-act-bn - weight-act", "weight-act-bn - weight-bn-act",
    )  # fmt: skip
    assert (analysis.primary.metric, analysis.primary.contrast) == ("test_accuracy", analysis.contrasts[0])
    assert (analysis.margin, analysis.alpha) == ({}, 0.05)


def test_a_contrast_leads_to_the_orders_of_its_two_arms(tmp_path):
    assert read(tmp_path).analysis.pairs == {"before - none": ("weight-bn-act", "weight-act")}


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("{ test_accuracy = 0.02 }", "{ test_accuracy = 0.03 }"),
        ("{ test_accuracy = 0.02 }", "{ test_accuracy = 0.02, test_loss = 0.05 }"),
        ("[analysis]", "[analysis]\nalpha = 0.01"),
        ("before - none", "none - before"),
        ('"test_accuracy"', '"test_loss"'),
        ("depth        = [2, 4]", "depth        = [2, 8]"),
        ("epochs = 3", "epochs = 4"),
        ("count = 2", "count = 3"),
        ("[axes]", "exclude = [{depth = 4, lr = 0.1}]\n[axes]"),
    ],
)
def test_the_analysis_hash_changes_with_what_decides_a_verdict(tmp_path, old, new):
    assert read(tmp_path, TEXT.replace(old, new)).analysis_hash != read(tmp_path).analysis_hash


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("# Which?", "# Which one?"),
        ("[seeds]", "# ten would be better\n\n  [seeds]"),
        ("epochs = 3", "epochs=3.0 # few"),
        ("[2, 4]", "[4, 2]"),
        ("[analysis]", "[analysis]\nalpha = 0.05"),
        ("epochs = 3", "width = 64\nepochs = 3"),
    ],
)
def test_the_analysis_hash_does_not_change_with_what_decides_nothing(tmp_path, old, new):
    assert read(tmp_path, TEXT.replace(old, new)).analysis_hash == read(tmp_path).analysis_hash


def test_the_question_is_the_comment_on_the_first_line(tmp_path):
    assert read(tmp_path).question == "Which?"


def test_a_grid_without_a_question_has_its_name_for_one(tmp_path):
    assert read(tmp_path, TEXT.removeprefix("# Which?\n")).question == "study"


def orders():
    """Every order of the grammar, made rather than checked: permutations of what may stand together."""
    for extra in itertools.product(([], ["bn"], ["ln"]), ([], ["drop"])):
        for names in itertools.permutations(["weight", "act", *extra[0], *extra[1]]):
            yield "-".join(names)


def test_the_grammar_of_orders_accepts_what_can_be_made_and_nothing_else():
    names = ("weight", "act", "bn", "drop", "ln", "foo")
    every = {"-".join(order) for n in range(1, 6) for order in itertools.product(names, repeat=n)}
    assert len(every) == 6 + 6**2 + 6**3 + 6**4 + 6**5
    accepted = {order for order in every if order_error(order, NORMS) is None}
    assert accepted == set(orders())


@given(
    st.text() | st.text("-weightacbndropl ").map(lambda text: f"weight-act{text}") | st.sampled_from(["weight-act "])
)
def test_no_other_text_is_an_order(text):
    assert (order_error(text, NORMS) is None) == (text in set(orders()))


def test_what_breaks_the_grammar_is_told_the_rule_and_the_normalizations():
    rule = order_error("weight-bn-act-ln", NORMS)
    assert "'weight' and 'act', each exactly once" in rule
    assert "at most one normalization (bn, ln)" in rule
    assert "at most one 'drop'" in rule


@pytest.mark.parametrize("path", sorted(GRIDS.glob("*.toml")), ids=lambda path: path.name)
def test_a_grid_that_is_shipped_can_be_read(path):
    grid = Grid.read(path, CHOICES)
    assert "?" in grid.question
    assert grid.analysis.margin


def test_the_default_grid_is_the_declared_study():
    grid = Grid.read(GRIDS / "default.toml", CHOICES)
    assert grid.axes == {
        "dataset": ("mnist1d",),
        "architecture": ("mlp",),
        "order": ("weight-act", "weight-bn-act", "weight-act-bn"),
        "activation": ("relu", "leaky_relu", "elu", "maxout", "tanh", "sigmoid"),
        "depth": (2, 4, 8),
    }
    assert grid.nuisance == {"lr": (0.1,)}
    assert grid.recipe == {"epochs": 20, "batch": 100, "width": 64, "schedule": "cosine"}
    analysis = grid.analysis
    assert analysis.arms == {"none": "weight-act", "before": "weight-bn-act", "after": "weight-act-bn"}
    assert analysis.contrasts == ("after - before", "before - none", "after - none")
    assert dict(analysis.primary) == {"metric": "test_accuracy", "contrast": "after - before"}
    assert analysis.margin == {"test_accuracy": 0.02, "test_loss": 0.05}
    assert analysis.alpha == 0.05


def test_the_default_grid_has_54_cells_and_1080_runs():
    grid = Grid.read(GRIDS / "default.toml", CHOICES)
    assert len(list(grid.cells())) == 54
    assert len({run.run_id for run in grid.runs()}) == 1080
