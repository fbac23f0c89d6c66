"""The page: its words say what the comparisons say, for grids of every shape."""

import re
import warnings
import xml.etree.ElementTree as ET
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from matplotlib.figure import Figure
from simulated import AFTER, PROVENANCE, exactly, fill, planted, read_grid, run
from statsmodels.stats.multitest import multipletests

import harness
from grids import Grid
from reports import album, audit, claims, curves, figures, page, tables
from reports.comparisons import compare
from reports.measures import measure
from reports.outcomes import gather
from reports.spread import spread, spread_answer
from reports.where import export, where
from reports.words import plain
from results import METRICS, Store


def study(folder, effects, seeds=10):
    """A grid of these activations and the store in which `after` differs from `before` by their (mean, sd)."""
    grid = read_grid(folder, tuple(effects), seeds=seeds)
    differences = {name: exactly(seeds, *effect, seed=i) for i, (name, effect) in enumerate(effects.items())}
    return grid, fill(Store(folder / "store"), planted(grid, differences))


def answer(folder, effects):
    grid, store = study(folder, effects)
    return page.answer(compare(gather(grid, store)), grid, ["activation"])


def test_the_answer_names_both_signs_where_the_sign_flips(tmp_path):
    said = answer(tmp_path, {"relu": (0.05, 0.01), "tanh": (-0.06, 0.01), "elu": (0.0, 0.002)})
    assert said["headline"].startswith("It depends. In test accuracy, after is better than before in 1 of 3")
    assert "worse in 1; the sign flips" in said["headline"]
    assert "n = 10 paired seeds each; margin 2.00 pp" in said["sentence"]
    assert said["lists"] == {
        "Better with after (after − before)": ["relu: +5.00 pp [4.28, 5.72], n = 10, larger than the margin"],
        "Better with before (after − before)": ["tanh: −6.00 pp [−6.72, −5.28], n = 10, larger than the margin"],
        "Within the margin": ["elu: 0.00 pp [−0.14, 0.14], n = 10"],
    }
    assert said["counts"] == {"different": 2, "equivalent": 1}


def test_the_answer_names_the_winner_where_all_differences_agree(tmp_path):
    said = answer(tmp_path, {"relu": (-0.05, 0.01), "tanh": (-0.06, 0.01)})
    assert (
        said["headline"]
        == "In test accuracy, before is better than after in 2 of 2 comparisons; none is different the other way."
    )


def test_the_answer_says_that_arms_are_within_the_margin(tmp_path):
    said = answer(tmp_path, {"relu": (0.0, 0.002), "tanh": (0.0, 0.5)})
    assert "no comparison of after and before is different; 1 of 2 are within the margin" in said["headline"]


def test_the_answer_says_that_nothing_was_decided(tmp_path):
    assert answer(tmp_path, {"relu": (0.0, 0.5)})["headline"].startswith("Undecided: in test accuracy")


def test_for_a_loss_the_smaller_is_the_better(tmp_path):
    grid = read_grid(tmp_path, seeds=10, margins="primary = { metric = 'test_loss', contrast = 'after - before' }")
    runs = planted(grid, {"relu": exactly(10, -0.3, 0.01)}, metric="test_loss")
    said = page.answer(compare(gather(grid, fill(Store(tmp_path / "store"), runs))), grid, [])
    assert (
        said["headline"]
        == "In test loss, after is better than before in 1 of 1 comparison; none is different the other way."
    )


def test_one_comparison_is_no_comparisons(tmp_path):
    said = answer(tmp_path, {"relu": (0.0, 0.5)})
    assert said["sentence"].startswith("Of 1 comparison (n = 10 paired seeds each;")


def test_missing_and_diverged_runs_are_listed_with_their_reasons(tmp_path):
    grid = read_grid(tmp_path, ("relu", "tanh"), seeds=6)
    runs = planted(grid, {"relu": exactly(6, 0, 0.01), "tanh": exactly(6, 0, 0.01)})
    runs = [r for r in runs if not (r["cell"].activation == "tanh" and r["seed"] == 4)]
    lost = {("relu", 2): "failed", ("relu", 3): "diverged"}
    runs = [
        run(r["cell"], r["seed"], lost[key]) if (key := (r["cell"].activation, r["seed"])) in lost else r for r in runs
    ]
    page.build(grid, fill(Store(tmp_path / "store"), runs), tmp_path / "report")
    text = (tmp_path / "report" / "index.html").read_text()
    assert "Arms with different seeds" not in text
    assert "not run" in text
    assert "failed: no reason recorded" in text
    assert re.search(r"Diverged runs.*relu", text, re.S)
    assert "5 (1 missing)" in text


def test_a_finished_run_without_a_number_is_missing_and_told(tmp_path):
    grid = read_grid(tmp_path, ("relu", "tanh"), seeds=6)
    runs = planted(grid, dict.fromkeys(("relu", "tanh"), exactly(6, 0.05, 0.01)))
    unmeasured = next(r for r in runs if (r["cell"].activation, r["cell"].order, r["seed"]) == ("tanh", AFTER, 3))
    unmeasured["test_accuracy"] = np.nan
    results = gather(grid, store := fill(Store(tmp_path / "store"), runs))
    assert compare(results)["n"].tolist() == [6, 5, 6, 6]
    [[cell, order, count, seeds, reason]] = audit.missing(results.runs, grid.analysis.metrics)
    assert (cell, order, count.text, seeds, reason) == ("tanh", AFTER, "1", "3", "test_accuracy is not a number")
    assert [row[0] for row in audit.uneven(results, ["activation"])] == ["tanh"]
    page.build(grid, store, tmp_path / "report")
    text = (tmp_path / "report" / "index.html").read_text()
    assert "1 finished runs lack a number in test_accuracy; they are missing from its comparisons." in text
    assert "Every planned run has an outcome" not in text


@pytest.mark.parametrize(
    ("error", "reason"), [(None, "no reason recorded"), ("", "no reason recorded"), ("a\nb\n", "b")]
)
def test_the_reason_of_a_failure_is_the_last_line_of_its_error(tmp_path, monkeypatch, error, reason):
    monkeypatch.setitem(PROVENANCE, "error", error)
    grid = read_grid(tmp_path, seeds=5)
    runs = [run(each.cell, each.seed, "failed" if each.seed == 4 else "done") for each in grid.runs()]
    results = gather(grid, fill(Store(tmp_path / "store"), runs))
    assert {row[-1] for row in audit.missing(results.runs, [])} == {f"failed: {reason}"}


def test_seeds_of_one_arm_only_are_listed_and_not_compared(tmp_path):
    grid = read_grid(tmp_path, ("relu", "tanh"), seeds=6)
    runs = planted(grid, dict.fromkeys(("relu", "tanh"), exactly(6, 0.05, 0.01)))
    runs = [r for r in runs if (r["cell"].activation, r["cell"].order) != ("relu", AFTER) or r["seed"] not in (2, 4)]
    store = fill(Store(tmp_path / "store"), runs)
    results = gather(grid, store)
    [[cell, contrast, pairs, *only]] = audit.uneven(results, ["activation"])
    assert (cell, contrast, pairs.text, *only) == ("relu", "after − before", "4", "–", "2, 4")
    page.build(grid, store, tmp_path / "report")
    assert "Arms with different seeds" in (tmp_path / "report" / "index.html").read_text()
    assert list(compare(results)["n"]) == [4, 6, 4, 6]


def test_diverged_runs_of_an_arm_that_no_contrast_names_are_listed(tmp_path):
    grid = read_grid(tmp_path, seeds=5, contrasts=("after - before", "before - none"))
    grid = grid.model_copy(update={"analysis": grid.analysis.model_copy(update={"contrasts": ("after - before",)})})
    runs = [
        run(each.cell, each.seed, "diverged" if each.cell.order == "weight-act" else "done") for each in grid.runs()
    ]
    page.build(grid, fill(Store(tmp_path / "store"), runs), tmp_path / "report")
    text = (tmp_path / "report" / "index.html").read_text()
    assert "No run diverged" not in text
    assert "weight-act</td>" in text


def test_a_report_of_other_seeds_than_declared_says_that_it_is_a_new_analysis(tmp_path):
    grid, store = study(tmp_path, {"relu": (0.05, 0.01)})
    fewer = grid.model_copy(update={"seeds": grid.seeds.model_copy(update={"count": 6})})
    page.build(fewer, store, tmp_path / "report")
    assert (
        "declares 10 seeds of each cell, this report is of 6: a new analysis"
        in (tmp_path / "report" / "index.html").read_text()
    )


def test_runs_of_two_engines_are_told_with_their_difference(tmp_path):
    grid, store = study(tmp_path, {"relu": (0.05, 0.01)}, seeds=5)
    again = [run(each.cell, each.seed, test_accuracy=0.5) for each in grid.runs()]
    fill(store, again, trial=lambda run: "ff" + run["cell"].cell_id, engine="cuda")
    page.build(grid, store, tmp_path / "report")
    assert "10 runs were made by more than one engine" in (tmp_path / "report" / "index.html").read_text()


def test_what_a_comparison_mixes_is_told(tmp_path):
    grid = read_grid(tmp_path, ("relu", "tanh"), seeds=5)
    store = Store(tmp_path / "store")
    for activation in ("relu", "tanh"):
        runs = [run(each.cell, each.seed) for each in grid.runs() if each.cell.activation == activation]
        with pytest.MonkeyPatch.context() as patch:
            if activation == "tanh":
                patch.setitem(PROVENANCE, "commit", "abc+")
                patch.setitem(PROVENANCE, "code", "other")
            fill(store, runs[:5], trial=lambda run: "1" + run["cell"].cell_id)
            patch.setitem(PROVENANCE, "versions", "torch 9")
            fill(store, runs[5:], trial=lambda run: "2" + run["cell"].cell_id)
    results = gather(grid, store)
    assert audit.warnings(results.runs, results, store.replicates()) == [
        "The runs mix 2 commits, but no comparison does.",
        "The runs mix 2 versions of the code of an architecture, but no comparison does.",
        "The runs mix 2 sets of versions of Python and libraries, within 2 of 2 comparisons.",
    ]


@pytest.mark.parametrize(("other", "told"), [("code+1", []), ("code+2", ["2 versions of the code", "within 1 of 2"])])
def test_an_activation_from_a_file_of_its_own_has_a_version_of_its_own(tmp_path, other, told):
    grid = read_grid(tmp_path, ("relu", "tanh"), seeds=5)
    store = Store(tmp_path / "store")
    for cell in grid.cells():
        after = cell.order == "weight-act-bn"
        code = "code" if cell.activation == "relu" else other if after else "code+1"
        with pytest.MonkeyPatch.context() as patch:
            patch.setitem(PROVENANCE, "code", code)
            fill(store, [run(cell, seed) for seed in range(5)], trial=lambda run: run["cell"].cell_id)
    results = gather(grid, store)
    said = audit.warnings(results.runs, results, store.replicates())
    assert len(said) == bool(told)
    assert all(words in said[0] for words in told)


def test_pairs_with_their_runs_on_different_hardware_are_told_as_confounded(tmp_path):
    grid = read_grid(tmp_path, ("relu", "tanh"), seeds=5)
    store = Store(tmp_path / "store")
    runs = [run(each.cell, each.seed) for each in grid.runs()]
    on_a = [each for each in runs if each["cell"].activation == "tanh" or each["cell"].order == "weight-bn-act"]
    with pytest.MonkeyPatch.context() as patch:
        for device, part in {"A100": on_a, "T4": [each for each in runs if each not in on_a]}.items():
            patch.setitem(PROVENANCE, "device", device)
            fill(store, part, trial=lambda run: run["cell"].cell_id)
    results = gather(grid, store)
    assert audit.warnings(results.runs, results, store.replicates()) == [
        "5 of 10 pairs have their two runs on different kinds of hardware: there a difference between the arms may be one "
        "between machines.",
        "The runs mix 2 kinds of hardware, within 1 of 2 comparisons.",
    ]


def test_a_row_of_a_table_has_the_numbers_that_its_columns_promise(tmp_path):
    grid, store = study(tmp_path, {"relu": (0.05, 0.01)})
    names = ("p", "p_holm", "p_bh", "p_sign_flip", "p_equivalence", "p_equivalence_holm")
    numbers = {name: (i + 1) / 100 for i, name in enumerate(names)}
    row = compare(gather(grid, store)).iloc[0].to_dict() | numbers | {"seeds_needed": 17.0, "effect_size": 1.25}
    cells = dict(
        zip([column.title for column in tables.COMPARISON], tables.comparison(row, ["activation"]), strict=True)
    )
    shown = {title: cell.text for title, cell in cells.items() if title != "cell"}
    assert shown["p, Holm"] == "0.0200"
    assert shown["p sign flip"] == "0.0400"
    assert shown["p equiv., Holm"] == "0.0600"
    assert (shown["seeds needed"], shown["d_z"]) == ("17", "1.25")


@pytest.mark.parametrize(("low_family", "beyond"), [(0.021, True), (0.019, False)])
def test_a_difference_is_larger_than_the_margin_where_its_interval_at_the_level_of_the_family_is(
    tmp_path, low_family, beyond
):
    grid, store = study(tmp_path, {"relu": (0.05, 0.01)})
    frame = compare(gather(grid, store)).assign(low_family=low_family, high_family=0.09)
    [item] = page.answer(frame, grid, ["activation"])["lists"]["Better with after (after − before)"]
    assert ("larger than the margin" in item) == beyond


@pytest.mark.parametrize("metric", ["test_accuracy", "test_loss"])
def test_in_a_heatmap_red_is_where_the_first_arm_does_better(tmp_path, metric):
    better = 0.05 if metric == "test_accuracy" else -0.05
    grid, store = study(tmp_path, {"relu": (0.05, 0.01), "tanh": (0.05, 0.01)})
    frame = compare(gather(grid, store)).query("metric == @metric")
    frame["difference"] = np.where(frame["activation"] == "relu", better, -better)
    [mesh] = figures.heatmap(frame, metric, "after - before", ["activation"]).axes[0].collections
    relu, tanh = mesh.cmap(mesh.norm(mesh.get_array().ravel()))
    assert relu[0] > relu[2] + 0.3  # red more than blue
    assert tanh[2] > tanh[0] + 0.3


def test_the_spreads_of_many_cells_are_adjusted(tmp_path):
    grid, store = study(tmp_path, {"relu": (0.0, 0.02), "tanh": (0.0, 0.02), "elu": (0.0, 0.02)}, seeds=8)
    rows = spread(gather(grid, store), ["activation"], 10)
    p, adjusted = (np.array([float(row[i].key) for row in rows]) for i in (-2, -1))
    np.testing.assert_allclose(adjusted, multipletests(p, method="holm")[1], rtol=1e-6)
    assert (adjusted > p).any()


def test_an_arm_that_does_not_vary_has_no_ratio(tmp_path):
    steady, jumping = np.full(6, 0.7), 0.7 + 0.002 * np.array([1, -1, 1, -1, 1, -1])
    grid = read_grid(tmp_path, seeds=6)
    runs = [
        run(r.cell, r.seed, test_accuracy=(jumping if r.cell.order == AFTER else steady)[r.seed]) for r in grid.runs()
    ]
    row = compare(gather(grid, fill(Store(tmp_path / "store"), runs)), ["test_accuracy"]).iloc[0]
    assert np.isnan(row["variance_ratio"])
    assert 0 < row["p_variance"] < 0.05


def test_a_name_that_the_font_of_figures_lacks_is_no_warning(tmp_path):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        figure = Figure()
        figure.text(0.5, 0.5, "前")
        assert "前" in figures.save(figure, tmp_path, "name")


def test_rows_in_conflict_are_told_and_shown(tmp_path):
    grid, store = study(tmp_path, {"relu": (0.05, 0.01)}, seeds=5)
    fill(store, [run(each.cell, each.seed, test_accuracy=0.4321) for each in grid.runs()], trial=lambda run: "ff")
    page.build(grid, store, tmp_path / "report")
    text = (tmp_path / "report" / "index.html").read_text()
    assert "20 rows are in conflict" in text
    assert "the row with the smallest trial id counts" in text
    assert compare(gather(grid, store))["notes"].str.split("; ").map(lambda notes: "conflict" in notes).all()
    assert "<td>0.4321</td>" in text


def test_an_arm_that_varies_more_is_found(tmp_path):
    grid, store = study(tmp_path, {"relu": (0.0, 0.2), "tanh": (0.0, 0.001)}, seeds=20)
    results = gather(grid, store)
    frame = compare(results)
    assert spread_answer(frame, "test_accuracy", 0.05).startswith(
        "In 1 of 2 comparisons of test accuracy the arms differ"
    )
    relu, tanh = spread(results, ["activation"], 10)
    assert relu[0] == "relu"
    assert float(relu[2].key) > 10
    assert float(relu[-1].key) < 0.05 < float(tanh[-1].key)
    assert relu[-3].text == "20"
    assert len(spread(results, ["activation"], 1)) == 1


def test_every_source_of_a_method_is_in_the_references(tmp_path):
    text = (Path(page.__file__).parent / "methods.html").read_text()
    table, references = text.split("<summary>References</summary>")
    sources = [source for cell in re.findall(r"<td>([^<]*\d{4}[^<]*)</td></tr>", table) for source in cell.split("; ")]
    assert len(sources) > 10
    listed = re.findall(r"<li>(.*?)</li>", references)
    for source in sources:
        name, year = re.match(r"(\w+).* (\d{4})$", source).groups()
        assert [each for each in listed if each.startswith(name) and f"({year})" in each], source
    for each in listed:
        assert each.partition(",")[0].partition(" ")[0] in table, each


def test_the_page_of_a_large_grid_has_a_part_of_it_and_says_where_the_rest_is(tmp_path):
    depths = list(range(1, 101))
    grid = read_grid(tmp_path, ("relu", "tanh", "elu", "sigmoid", "gelu", "silu"), depths, seeds=2)
    runs = [run(*each) for each in grid.runs()]
    page.build(grid, fill(Store(tmp_path / "store"), runs, trial=lambda run: "all"), tmp_path / "report")
    path = tmp_path / "report" / "index.html"
    assert path.stat().st_size < 5_000_000
    text = path.read_text()
    assert 'The first 500 of 600 rows; <a href="comparisons.csv">comparisons.csv</a> has all.' in text
    assert "intervals the 60 largest of 600 differences" in text
    assert len(pd.read_csv(tmp_path / "report" / "comparisons.csv")) == 1200


def test_figures_that_do_not_fit_into_the_page_are_files(tmp_path, monkeypatch):
    monkeypatch.setattr(album, "MOST_SVG", 60_000)
    grid, store = study(tmp_path, {"relu": (0.05, 0.01), "tanh": (-0.06, 0.01)})
    page.build(grid, store, tmp_path / "report")
    text = (tmp_path / "report" / "index.html").read_text()
    assert "Too much for this page: see the files." in text
    assert 0 < text.count("<svg") < text.count("<figure")
    for name in re.findall(r'href="(figures/[^"]+)"', text):
        assert (tmp_path / "report" / name).exists()


def test_what_the_page_shows_of_more_than_the_comparisons_lies_beside_it_in_full(tmp_path):
    grid, store = study(tmp_path, {"relu": (0.05, 0.01), "tanh": (-0.06, 0.01)})
    page.build(grid, store, tmp_path / "report")
    results = gather(grid, store)
    frame = compare(results)
    ledger = claims.read()
    tables = {
        "statistics": curves.statistics_effect(results, grid.analysis.alpha),
        "effects": export(where(results, measure("test_accuracy"), "after - before", frame)),
        "claims": claims.judge(ledger, curves.with_curves(results, store)[0]),
    }
    for name, table in tables.items():
        written = pd.read_csv(tmp_path / "report" / f"{name}.csv")
        table = table.replace("", np.nan).reset_index(drop=True)
        pd.testing.assert_frame_equal(written, table, check_dtype=False, rtol=1e-14)


def test_no_name_stands_twice_in_a_page(tmp_path):
    grid, store = study(tmp_path, {"relu": (0.05, 0.01), "tanh": (-0.06, 0.01)})
    page.build(grid, store, tmp_path / "report")
    names = re.findall(r' id="([^"]+)"', (tmp_path / "report" / "index.html").read_text())
    assert [name for name in names if names.count(name) > 1] == []


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (-1234.567, "−1,234.57"),
        (-0.004, "0.00"),
        (0.0, "0.00"),
        (np.nan, "–"),
        (np.inf, "∞"),
        (-np.inf, "−∞"),
        (100, "100.00"),
    ],
)
def test_a_number_has_a_minus_sign_only_where_it_shows_one(value, text):
    assert plain(value) == text
    assert plain(value, signed=True) == ("+" if text[0] in "1" else "") + text


@pytest.mark.parametrize("axis", ["activation", "depth", "lr", "none", "affine", "stem_norm", "init_gain"])
def test_a_report_is_built_whatever_varies(tmp_path, axis):
    values = {"activation": '["relu", "tanh"]', "depth": "[2]", "lr": "[0.1]"}
    values |= {"depth": "[2, 4]"} if axis == "depth" else {"lr": "[0.1, 0.01]"} if axis == "lr" else {}
    values |= {} if axis == "activation" else {"activation": '["relu"]'}
    others = {"affine": "[true, false]", "stem_norm": '["none", "bn"]', "init_gain": "[1, 3]"}
    values |= {axis: others[axis]} if axis in others else {}
    orders = [f"{a}-{b}-{c}" for a, b, c in (("weight", "bn", "act"), ("weight", "act", "bn"), ("bn", "weight", "act"))]
    orders += ["weight-act", "act-weight", "bn-act-weight", "act-bn-weight", "act-weight-bn", "drop-weight-act"]
    path = tmp_path / "many arms.toml"
    path.write_text(
        f"# Ten <arms> & a question\n[axes]\ndataset = ['digits']\narchitecture = ['mlp']\norder = {orders}\n"
        + "".join(f"{name} = {value}\n" for name, value in values.items())
        + "[seeds]\ncount = 5\n"
    )
    grid = Grid.read(path, {**harness.choices(), "metric": METRICS})
    rng = np.random.default_rng(0)
    runs = [run(each.cell, each.seed, test_accuracy=rng.uniform(0.5, 0.6)) for each in grid.runs()]
    page.build(grid, fill(Store(tmp_path / "store"), runs), tmp_path / "report")
    text = (tmp_path / "report" / "index.html").read_text()
    assert "Ten &lt;arms&gt; &amp; a question" in text
    for svg in (tmp_path / "report" / "figures").glob("*.svg"):
        ET.parse(svg)
    cells = len(list(grid.cells())) // len(orders)
    assert len(pd.read_csv(tmp_path / "report" / "comparisons.csv")) == 2 * 36 * cells


def test_the_report_of_a_store_is_the_same_bytes_each_time(tmp_path):
    grid, store = study(tmp_path, {"relu": (0.05, 0.01), "tanh": (-0.06, 0.01)})
    for folder in ("a", "b"):
        np.random.seed(len(folder))  # noqa: NPY002 a global state that must not matter
        page.build(grid, store, tmp_path / folder)
    for path in (tmp_path / "a").rglob("*"):
        if path.is_file():
            assert path.read_bytes() == (tmp_path / "b" / path.relative_to(tmp_path / "a")).read_bytes(), path


def test_every_run_of_the_page_is_drawn_in_the_colour_of_its_arm():
    arms = [f"arm {i}" for i in range(12)]
    assert len(set(map(str, figures.arm_colours(arms).values()))) == 12
