"""Where an effect depends on the cell, of stores with planted effects: what is found, said and drawn."""

import itertools
import xml.etree.ElementTree as ET

import numpy as np
import pandas as pd
import pytest
import simulated
from simulated import AFTER, exactly, fill, read_grid, run

import harness
from grids import Grid
from reports import effects as fx
from reports import figures, where_words
from reports import statistics as st
from reports.comparisons import compare
from reports.measures import measure
from reports.outcomes import ReportError, gather
from reports.where import EXPORT, export, where
from reports.where_words import effects_figure, sentences
from results import METRICS, Store

pytestmark = pytest.mark.filterwarnings("error")

ACTIVATION = {"relu": 0.03, "elu": 0.01, "tanh": -0.01}
DEPTH = {2: 0.01, 4: -0.01}
TWO_ARCHITECTURES = {'architecture = ["mlp"]': 'architecture = ["mlp", "cnn"]'}


def read(folder, replaced=(), **options):
    """The simulated grid with some of its text replaced."""
    read_grid(folder, **options)
    path = folder / "simulated.toml"
    text = path.read_text()
    for old, new in dict(replaced).items():
        assert old in text
        text = text.replace(old, new)
    path.write_text(text)
    return Grid.read(path, {**harness.choices(), "metric": METRICS})


def differences(grid, effect, sd=0.002):
    """Of every cell without order, as many as seeds, whose mean is exactly its effect."""
    pairs = dict.fromkeys(cell.without("order") for cell in grid.cells())
    count = grid.seeds.count
    return {
        pair: exactly(count, effect(dict(pair)), sd, seed=i) if sd else np.full(count, effect(dict(pair)))
        for i, pair in enumerate(pairs)
    }


def runs_of(grid, planted, metric="test_accuracy", base=lambda pair: 0.5):
    """Runs of every cell; what a seed does to both arms is the same in both."""
    rows = []
    for cell in grid.cells():
        pair = cell.without("order")
        shared = np.random.default_rng(cell.depth).normal(0, 0.02, grid.seeds.count)
        for seed in range(grid.seeds.count):
            shift = planted[pair][seed] if cell.order == AFTER else 0.0
            rows.append(run(cell, seed, **{metric: base(dict(pair)) + shared[seed] + shift}))
    return rows


def without(rows, lost):
    """The rows but those of which `lost` says so, as cell and seed."""
    return [row for row in rows if not lost(row["cell"], row["seed"])]


def found(folder, grid, rows, metric="test_accuracy", contrast="after - before"):
    results = gather(grid, fill(Store(folder / "store"), rows))
    return where(results, measure(metric), contrast, compare(results, [metric]))


def planted_study(folder, effect, metric="test_accuracy", sd=0.002, replaced=(), **options):
    grid = read(folder, replaced, **{"activations": tuple(ACTIVATION), "depths": tuple(DEPTH), "seeds": 10, **options})
    return found(folder, grid, runs_of(grid, differences(grid, effect, sd), metric), metric)


def additive(pair):
    return 0.05 + ACTIVATION[pair["activation"]] + DEPTH[pair["depth"]]


def levels(of, kind="main effect"):
    rows = of.effects[of.effects["kind"] == kind]
    names = zip(rows["level"], rows["with_level"], strict=True)
    return dict(zip((", ".join(filter(None, name)) for name in names), rows["estimate"], strict=True))


def said(of, start):
    """The only sentence that starts so."""
    (sentence,) = [sentence for sentence in sentences(of) if sentence.startswith(start)]
    return sentence


# Published numbers


@pytest.fixture
def published(tmp_path):
    """Two nets in which the sign is opposite: top-1 accuracies on ImageNet, LSUV, of ducha-aiki/caffenet-benchmark.

    From its batchnorm.md, normalization before with scale and shift: CaffeNet before .478, after .493; GoogLeNet before
    .603, after (without them) .596. One run a cell there; here each has ten seeds with a small noise. The grid's rules want
    architectures that exist: mlp stands in for CaffeNet, cnn for GoogLeNet.
    """
    before, after = {"mlp": 0.478, "cnn": 0.603}, {"mlp": 0.493, "cnn": 0.596}
    grid = read(tmp_path, TWO_ARCHITECTURES, seeds=10, margins="margin = { test_accuracy = 0.005 }")
    planted = differences(grid, lambda pair: after[pair["architecture"]] - before[pair["architecture"]])
    return found(tmp_path, grid, runs_of(grid, planted, base=lambda pair: before[pair["architecture"]]))


def test_published_differences_of_opposite_sign_are_named_and_never_averaged(published):
    assert published.pooled is None
    assert "over all cells" not in set(export(published)["kind"])
    assert not [sentence for sentence in sentences(published) if sentence.startswith("Over ")]
    assert sentences(published)[0] == (
        "No single number sums up after − before in test accuracy: it is above 0 in 1 different cell "
        "(mlp +1.50 pp [1.36, 1.64], n = 10); and below 0 in 1 different cell (cnn −0.70 pp [−0.84, −0.56], n = 10)."
    )


def test_published_differences_flip_between_architectures(published):
    (flip,) = published.flips
    assert (flip.field, flip.positive, flip.negative, flip.mixed) == ("architecture", ("mlp",), ("cnn",), ())
    assert said(published, "The sign flips") == (
        "The sign flips with architecture: wherever the arms differ, with mlp after is better (1 cell), "
        "with cnn before is better (1 cell); 1 pair of these cells is alike in all but architecture."
    )
    assert levels(published) == pytest.approx({"mlp": 0.011, "cnn": -0.011})


# What is found


def test_main_effects_are_the_planted_ones_and_there_is_no_interaction(tmp_path):
    of = planted_study(tmp_path, additive)
    mean = np.mean(list(ACTIVATION.values()))
    expected = {name: effect - mean for name, effect in ACTIVATION.items()}
    assert levels(of) == pytest.approx({**expected, "depth 2": 0.01, "depth 4": -0.01})
    assert list(levels(of, "interaction").values()) == pytest.approx([0] * 6, abs=1e-12)
    assert "activation together with depth (from 0.00 to 0.00 pp" in said(of, "Not shown to depend")
    rows = of.effects.set_index("level")
    assert (rows.loc[["relu", "tanh", "depth 2"]].query("kind == 'main effect'")["p_holm"] < 0.001).all()
    assert of.pooled.estimate == pytest.approx(0.05 + mean)


def test_an_interaction_is_the_planted_one(tmp_path):
    sign = {("relu", 2): 1, ("relu", 4): -1, ("tanh", 2): -1, ("tanh", 4): 1}
    of = planted_study(tmp_path, lambda pair: 0.05 + 0.01 * sign.get((pair["activation"], pair["depth"]), 0))
    expected = {(a, f"depth {d}"): 0.01 * sign.get((a, d), 0) for a, d in itertools.product(ACTIVATION, DEPTH)}
    assert levels(of, "interaction") == pytest.approx({", ".join(key): value for key, value in expected.items()})
    assert list(levels(of).values()) == pytest.approx([0] * 5, abs=1e-12)
    assert of.joint.set_index(["field", "with_field"])["p_holm"].loc[[("activation", "depth")]].item() <= 3 * 2**-9
    assert "activation together with depth (from −1.00 to +1.00 pp, p = 0.0059)" in said(
        of, "after − before depends on"
    )
    assert "depth 4 −1.00 pp" in said(of, "Beyond what both levels do alone")


def test_every_number_of_a_contrast_is_that_of_its_seeds(tmp_path):
    of = planted_study(tmp_path, additive, sd=0.01)
    grid = read(tmp_path, activations=tuple(ACTIVATION), depths=tuple(DEPTH), seeds=10)
    d = np.array(list(differences(grid, additive, 0.01).values())).T  # (n, K), depth fastest
    row = of.effects.query("level == 'elu' and kind == 'main effect'").iloc[0]
    of_seeds = (d[:, 2:4].mean(1) - d.mean(1))[:, None]
    m = st.moments(of_seeds)
    low, high = st.t_interval(m)
    wide = st.t_interval(m, 1 - 0.05 / of.tests)
    numbers = [row[name] for name in ("estimate", "low", "high", "low_family", "high_family", "p", "n", "cells")]
    assert numbers == pytest.approx([m.mean[0], low[0], high[0], wide[0][0], wide[1][0], st.t_test(m)[0], 10, 6])
    assert of.tests == 3 + 1 + 3
    p_holm = st.holm(of.effects["p"].to_numpy()[[0, 1, 2, 3, 5, 7, 9]])
    assert of.effects["p_holm"].to_numpy() == pytest.approx(p_holm[[0, 1, 2, 3, 3, 4, 4, 5, 5, 6, 6]])


def test_in_a_grid_with_holes_main_effects_are_adjusted_and_interactions_left_out(tmp_path):
    of = planted_study(tmp_path, additive, exclude='exclude = [{ activation = "tanh", depth = 4 }]\n')
    mean = np.mean(list(ACTIVATION.values()))
    expected = {name: effect - mean for name, effect in ACTIVATION.items()}
    assert levels(of) == pytest.approx({**expected, "depth 2": 0.01, "depth 4": -0.01})
    assert of.not_told == (("activation", "depth"),)
    assert said(of, "No interplay can be told") == (
        "No interplay can be told of activation with depth: not every combination of their levels has a cell."
    )


def test_axes_that_change_together_are_not_told_apart(tmp_path):
    rule = 'exclude = [{ activation = "relu", depth = 4 }, { activation = "tanh", depth = 2 }]\n'
    of = planted_study(
        tmp_path, lambda pair: 0.05 + DEPTH[pair["depth"]], activations=("relu", "tanh"), depths=(2, 4), exclude=rule
    )
    assert of.effects.empty
    assert of.joint.empty
    assert of.not_told == (("activation",), ("depth",))
    assert said(of, "No effect of activation or depth can be told")
    assert effects_figure(of) is None
    assert of.pooled.estimate == pytest.approx(0.05)


def test_the_mean_over_cells_is_the_t_interval_of_the_seeds_means(tmp_path):
    of = planted_study(tmp_path, additive, sd=0.02)
    grid = read(tmp_path, activations=tuple(ACTIVATION), depths=tuple(DEPTH), seeds=10)
    d = np.array(list(differences(grid, additive, 0.02).values())).T
    m = st.moments(d.mean(1)[:, None])
    expected = [m.mean[0], *np.ravel(st.t_interval(m)), st.t_test(m)[0]]
    assert list(of.pooled) == pytest.approx(expected)
    low, high = (f"{x * 100:.2f}" for x in (of.pooled.low, of.pooled.high))
    assert sentences(of)[0].startswith(f"Over 6 cells, after − before in test accuracy is +6.00 pp [{low}, {high}] (p")


def test_differences_of_a_loss_are_said_in_nats_and_the_smaller_is_better(tmp_path):
    of = planted_study(tmp_path, lambda pair: 0.3 if pair["activation"] == "relu" else -0.3, "test_loss")
    assert of.pooled is None
    assert "+0.300 nats [" in sentences(of)[0]
    assert "with relu before is better (2 cells), with elu and tanh after is better (4 cells); 4 pairs" in (
        said(of, "The sign flips with activation")
    )
    assert not [sentence for sentence in sentences(of) if sentence.startswith("The sign flips with depth")]
    assert said(of, "Effects of the other axes are means over levels of activation that have opposite signs")


def test_a_flip_that_no_axis_alone_explains_is_said_so(tmp_path):
    effect = {("relu", 2): 0.05, ("tanh", 4): -0.05}
    of = planted_study(tmp_path, lambda pair: effect.get((pair["activation"], pair["depth"]), 0.0))
    assert [flip.field for flip in of.flips] == ["activation", "depth"]
    assert "no two of these cells are alike in all but depth" in said(of, "The sign flips with depth")


def test_a_level_with_both_signs_is_neither(tmp_path):
    effect = {("relu", 2): 0.05, ("tanh", 2): -0.05, ("relu", 4): 0.05, ("tanh", 4): 0.05}
    of = planted_study(tmp_path, lambda pair: effect.get((pair["activation"], pair["depth"]), 0.0))
    assert of.pooled is None
    assert of.flips == ()


def test_cells_of_one_sign_have_a_mean_however_unequal(tmp_path):
    of = planted_study(tmp_path, lambda pair: 0.2 if pair["activation"] == "relu" else 0.0)
    assert of.pooled is not None
    assert of.flips == ()


# Between cells


MANY = ("relu", "leaky_relu", "elu", "maxout", "tanh", "sigmoid")


def test_from_ten_cells_on_their_spread_and_a_new_cell_are_told(tmp_path):
    of = planted_study(tmp_path, lambda pair: 0.05 + 0.01 * MANY.index(pair["activation"]), activations=MANY)
    effects = 0.05 + 0.01 * np.repeat(np.arange(6), 2)
    tau = np.sqrt(effects.var(ddof=1) - of.between.residual**2 / 10)
    assert of.between.tau == pytest.approx(tau)
    assert of.between.low < tau < of.between.high
    assert of.predicted[0] < effects.min() < effects.max() < of.predicted[1]
    assert f"standard deviation τ of {tau * 100:.2f} pp [" in said(of, "The true differences")
    assert f"between {of.predicted[0] * 100:.2f} and {of.predicted[1] * 100:.2f} pp" in said(of, "In a new cell")
    rows = export(of).set_index("kind")
    assert rows.loc["tau", "estimate"] == of.between.tau
    assert rows.loc["prediction", ["low", "high"]].tolist() == list(of.predicted)


def test_below_ten_cells_no_spread_is_told(tmp_path):
    of = planted_study(tmp_path, additive)
    assert (of.between, of.predicted) == (None, None)
    assert not {"tau", "prediction"} & set(export(of)["kind"])


def test_nothing_is_predicted_where_the_sign_flips_with_an_axis(tmp_path):
    of = planted_study(tmp_path, lambda pair: 0.05 if pair["activation"] == "relu" else -0.05, activations=MANY)
    assert of.between is not None
    assert of.predicted is None
    assert said(of, "For a new cell nothing is predicted, since the sign depends on activation.")


# What is missing


def test_lost_seeds_and_cells_are_counted_and_named(tmp_path):
    grid = read(tmp_path, activations=tuple(ACTIVATION), depths=tuple(DEPTH), seeds=10)

    def lost(cell, seed):
        of = cell.activation, cell.depth
        return of == ("elu", 4) or (of == ("tanh", 2) and seed > 2) or (of == ("relu", 2) and seed == 7)

    of = found(tmp_path, grid, without(runs_of(grid, differences(grid, additive)), lost))
    assert (of.seeds, of.cells) == ((9, 10), (4, 6))
    assert (of.without_pairs, of.too_few) == (("elu, depth 4",), ("tanh, depth 2",))
    words = " ".join(sentences(of))
    assert "1 cell without a pair (elu, depth 4)" in words
    assert "1 cell with too few pairs (tanh, depth 2)" in words
    assert "1 of 10 seeds" in words
    assert set(of.effects["n"]) == {9}


def test_a_pair_with_a_diverged_run_counts_with_its_worst_outcome(tmp_path):
    grid = read(tmp_path, activations=tuple(ACTIVATION), depths=tuple(DEPTH), seeds=10)
    rows = [
        run(row["cell"], row["seed"], "diverged") if row["seed"] == 3 and row["cell"].order == AFTER else row
        for row in runs_of(grid, differences(grid, additive))
    ]
    of = found(tmp_path, grid, rows)
    assert of.diverged == 6
    values = [np.nan_to_num(row["test_accuracy"], nan=1 / simulated.CLASSES) for row in rows]  # at its worst: guessing
    is_after = np.array([row["cell"].order == AFTER for row in rows])
    assert of.pooled.estimate == pytest.approx(np.mean(values, where=is_after) - np.mean(values, where=~is_after))
    assert of.seeds == (10, 10)
    assert "6 pairs hold a diverged run, which counts with its worst outcome." in sentences(of)


@pytest.mark.parametrize("seeds", [1, 2, 3])
def test_few_seeds_say_little_and_do_not_warn(tmp_path, seeds):
    of = planted_study(tmp_path, additive, seeds=seeds, sd=0.0)
    assert of.seeds == (seeds, seeds)
    assert f"n = {seeds} seed" in sentences(of)[0]
    assert said(of, f"With {seeds} seed")
    assert (of.joint["p_holm"] > 0.05).all()
    if seeds == 1:
        assert "[−∞, ∞]" in sentences(of)[0]
        assert np.isinf(of.effects["high"]).all()
    ET.fromstring(figures.save(effects_figure(of), tmp_path, "effects"))


def test_one_cell_is_its_own_mean(tmp_path):
    of = planted_study(tmp_path, lambda pair: 0.05, activations=("relu",), depths=(2,))
    assert of.fields == ()
    assert sentences(of) == [
        "In the only cell, after − before in test accuracy is +5.00 pp [4.86, 5.14] (p < 0.0001, n = 10 seeds)."
    ]
    assert effects_figure(of) is None
    assert export(of)["kind"].tolist() == ["over all cells"]


def test_a_family_without_a_pair_says_so(tmp_path):
    grid = read(tmp_path, activations=tuple(ACTIVATION), depths=tuple(DEPTH), seeds=4)
    rows = runs_of(grid, differences(grid, additive))
    of = found(tmp_path, grid, without(rows, lambda cell, seed: (cell.order == AFTER) == (seed < 2)))
    assert of.pooled is None
    assert sentences(of)[0].startswith("No two runs make a pair")
    assert len(of.without_pairs) == 6
    assert of.effects.empty
    assert export(of).empty


def test_a_family_that_was_not_compared_is_an_error(tmp_path):
    grid = read(tmp_path)
    results = gather(grid, fill(Store(tmp_path / "store"), runs_of(grid, differences(grid, lambda pair: 0.05))))
    with pytest.raises(ReportError, match="test_loss, after - before: 0 comparisons for 1 cells"):
        where(results, measure("test_loss"), "after - before", compare(results, ["test_accuracy"]))


# As data and as a picture


def test_the_export_holds_every_number_and_survives_a_file(tmp_path):
    of = planted_study(tmp_path, lambda pair: 0.05 if pair["activation"] == "relu" else -0.05, activations=MANY)
    table = export(of)
    assert tuple(table.columns) == EXPORT
    counts = table["kind"].value_counts().to_dict()
    assert counts == {
        "interaction": 12, "main effect": 8, "only negative": 5, "joint main effect": 2, "tau": 1, "I squared": 1,
        "only positive": 1, "joint interaction": 1,
    }  # fmt: skip
    table.to_parquet(tmp_path / "where.parquet", index=False)
    pd.testing.assert_frame_equal(pd.read_parquet(tmp_path / "where.parquet"), table, check_dtype=False)
    rows = table[table["kind"] == "main effect"]
    np.testing.assert_array_equal(rows["estimate"], of.effects["estimate"][:8])


def test_the_figure_has_a_panel_an_axis_and_a_row_a_level(tmp_path):
    of = planted_study(tmp_path, additive)
    figure = effects_figure(of)
    assert [ax.get_title(loc="left") for ax in figure.axes] == ["activation", "depth"]
    drawn = {
        tick.get_text(): line.get_xdata()[0]
        for ax in figure.axes
        for tick, line in zip(ax.get_yticklabels(), [x for x in ax.lines if x.get_marker() == "o"], strict=True)
    }
    assert drawn == pytest.approx({name: effect * 100 for name, effect in levels(of).items()})
    assert figure.axes[-1].get_xlabel() == "test accuracy, after − before: level less the mean of its axis (pp)"
    ET.fromstring(figures.save(figure, tmp_path, "effects"))


def test_the_figure_says_what_it_leaves_out(tmp_path, monkeypatch):
    monkeypatch.setattr(where_words, "MOST_LEVELS", 2)
    monkeypatch.setattr(where_words, "MOST_PANELS", 1)
    (ax,) = effects_figure(planted_study(tmp_path, additive)).axes
    assert ax.get_title(loc="left") == "activation: the 2 largest of 3 effects"
    assert [tick.get_text() for tick in ax.get_yticklabels()] == ["tanh", "relu"]
    assert ax.get_xlabel().endswith("(pp); the first 1 of 2 axes")


def test_filled_marks_are_the_effects_that_holm_leaves(tmp_path):
    of = planted_study(tmp_path, lambda pair: 0.05 + DEPTH[pair["depth"]], sd=0.004)
    for ax in effects_figure(of).axes:
        marks = [line for line in ax.lines if line.get_marker() == "o"]
        names = [tick.get_text() for tick in ax.get_yticklabels()]
        rejected = of.effects.set_index("level").loc[names].query("kind == 'main effect'")["p_holm"] <= 0.05
        assert [line.get_markerfacecolor() != "white" for line in marks] == rejected.tolist()


# Calibration over whole families


def test_the_pooled_interval_of_a_store_holds_the_planted_mean_as_often_as_it_says():
    """Of `over_cells` with the floors of `Paired`, which only ever widen it: 1 in 20 misses, not more, at n = 10."""
    rng, draws = np.random.default_rng(20), 8000
    d = 0.02 + rng.normal(0, 0.01, (10, 6, draws)) + rng.normal(0, 0.01, (10, 1, draws))
    floor = np.full(6, 1 / simulated.EXAMPLES / np.sqrt(6))
    low, high = st.t_interval(fx.over_cells(d, floor))
    share = ((low <= 0.02) & (high >= 0.02)).mean()
    assert abs(share - 0.95) <= 4 * np.sqrt(0.95 * 0.05 / draws)
    naive = d.reshape(60, draws)
    low, high = st.t_interval(st.moments(naive))  # cells × seeds as if they were independent
    share = ((low <= 0.02) & (high >= 0.02)).mean()
    assert abs(share - 0.95) > 4 * np.sqrt(0.95 * 0.05 / draws)
