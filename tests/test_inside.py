"""What happens inside the networks, on stores with planted statistics: summaries, pairs, histograms, sentences, figures."""

import math
import re

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
from scipy import stats
from simulated import AFTER, BEFORE, NONE, exactly, fill, layers_of, normal_quantiles, read_grid, run

from reports import claims, inside, inside_figures, inside_words, page, sections
from reports.album import Album
from reports.layer_names import OF_MAGNITUDE
from reports.outcomes import gather
from reports.rates import select
from reports.words import varying
from results import Store
from results.schema import QUANTILES

pytestmark = pytest.mark.filterwarnings("error")

NAN, LAST = math.nan, 20
SATURATED = {BEFORE: 0.05, AFTER: 0.4, NONE: 0.2}


def jitter(row, *of):
    """A normal number that this run has at this place."""
    return np.random.default_rng([int(row["cell"].cell_id, 16) % 2**32, row["seed"], *of]).normal()


def typical(row, epoch, block, site):
    """Statistics with planted differences: saturation by order, gradients that grow towards the input in after."""
    if row["status"] == "diverged" and epoch > 0:
        return {}
    order, noise, name = row["cell"].order, jitter(row, epoch, block), site.split(".")[-1]
    if name in ("input", "output"):
        drift = {"drift": 0.5 + 0.01 * noise} if name == "input" and epoch else {}
        return {"sd": math.exp(0.1 * noise), "effective_rank": 10 + 0.1 * noise - 5 * (order == NONE), **drift}
    if name == "act":
        share = SATURATED[order] + 0.01 * noise + 0.1 * (epoch > 0)
        return {"saturated": share, "dead": 0.0, "quantiles": normal_quantiles(0.01 * noise, 1.0)}
    if name == "weight":
        growth = {BEFORE: 1.0, AFTER: 2.0, NONE: 0.5}[order]
        return {"gradient_norm": growth ** (row["cell"].depth - block) * math.exp(0.1 * noise), "update_norm": 0.01}
    return {"mean": noise, "sd": 1.0}


def study(folder, measure=typical, activations=("tanh",), depths=(4,), seeds=6, status=None, contrasts=None, **options):
    """Results and store of a grid whose runs have these layers. status: of a planned run, if not done; "" leaves it out."""
    folder.mkdir(exist_ok=True)
    grid = read_grid(folder, activations, depths, seeds, contrasts=contrasts or ("after - before", "after - none"))
    kinds = {each.run_id: (status(each) if status else None) or "done" for each in grid.runs()}
    runs = [run(each.cell, each.seed, kinds[each.run_id]) for each in grid.runs() if kinds[each.run_id] != "absent"]
    store = fill(Store(folder / "store"), runs, layers=layers_of(measure, **options) if measure else None)
    return gather(grid, store), store


def read(folder, *arguments, **options):
    results, store = study(folder, *arguments, **options)
    return results, inside.read(results, store)


# Summaries


def test_the_summary_is_that_of_all_planted_rows_one_by_one(tmp_path):
    results, found = read(tmp_path, activations=("tanh", "relu"), depths=(1, 3))
    table = inside.summary(results, found, ["activation", "depth"])
    rows = []
    for each in results.grid.runs():
        row = run(each.cell, each.seed)
        sites = ["input", *each.cell.order.split("-"), "output"]
        for epoch in (0, LAST):
            for block in range(1, each.cell.depth + 1):
                for site in sites:
                    measured = typical(row, epoch, block, site)
                    numbers = {name: number for name, number in measured.items() if name != "quantiles"}
                    for name in OF_MAGNITUDE:
                        if name in numbers:
                            numbers[f"log10_{name}"] = math.log10(numbers[name])
                    key = (each.cell.activation, each.cell.depth, each.cell.order, epoch, block, site)
                    rows += [(*key, name, number) for name, number in numbers.items()]
    keys = ["activation", "depth", "order", "epoch", "block", "site", "statistic"]
    by_key = pd.DataFrame(rows, columns=[*keys, "value"]).groupby(keys)["value"]
    expected = by_key.agg(["size", "mean", "std"])
    half = stats.t.ppf(0.975, expected["size"] - 1) * expected["std"] / np.sqrt(expected["size"])
    got = table.set_index(keys).sort_index()
    assert got.index.equals(expected.index)
    assert (got["n"] == 6).all()
    np.testing.assert_allclose(got["mean"], expected["mean"], rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(got["sd"], expected["std"], rtol=1e-3, atol=1e-6)
    np.testing.assert_allclose(got["low"], expected["mean"] - half, rtol=1e-3, atol=1e-5)
    np.testing.assert_allclose(got["high"], expected["mean"] + half, rtol=1e-3, atol=1e-5)
    assert set(table.loc[table["order"] == AFTER, "arm"]) == {"after"}


def test_layers_of_one_kind_in_a_block_are_averaged_within_a_run(tmp_path):
    by_site = {"branch.0.act": 0.1, "branch.1.act": 0.4}
    results, found = read(tmp_path, lambda row, epoch, block, site: {"saturated": by_site[site]}, sites=tuple(by_site))
    assert set(found.rows["site"]) == {"act"}
    table = inside.summary(results, found, [])
    np.testing.assert_allclose(table["mean"], 0.25, rtol=1e-6)
    assert (table["n"] == 6).all()


def test_what_is_missing_or_no_number_is_not_counted(tmp_path):
    def measure(row, epoch, block, site):
        if row["cell"].order == BEFORE and row["seed"] == 0:
            return None
        if row["cell"].order == BEFORE and row["seed"] == 1:
            return {"saturated": NAN}
        return typical(row, epoch, block, site)

    results, found = read(tmp_path, measure)
    table = inside.summary(results, found, [])
    n = table[table["statistic"] == "saturated"].groupby("arm")["n"].unique().map(list)
    assert n.to_dict() == {"before": [4], "after": [6], "none": [6]}
    pairs = inside.paired(results, found)
    assert set(pairs.loc[pairs["statistic"] == "saturated", "n"]) == {4, 6}
    assert pairs.loc[(pairs["statistic"] == "saturated") & (pairs["contrast"] == "after - before"), "n"].tolist() == [
        4,
        4,
    ]
    assert inside_words.coverage(results, found).startswith("17 of 18 finished runs were measured inside")


def test_a_diverged_run_counts_at_initialisation_only(tmp_path):
    def lost(each):
        return "diverged" if each.cell.order == AFTER and each.seed < 2 else "done"

    results, found = read(tmp_path, status=lost)
    pairs = inside.paired(results, found)
    of_it = pairs[(pairs["statistic"] == "saturated") & (pairs["contrast"] == "after - before")]
    assert of_it.set_index("when")["n"].to_dict() == {"start": 6, "end": 4}
    assert "Of these 2 diverged: they count as long as they were finite." in inside_words.coverage(results, found)


def test_gradients_that_are_0_have_no_logarithm_and_are_missing(tmp_path):
    def measure(row, epoch, block, site):
        return {"gradient_norm": 0.0 if row["seed"] == 0 else 0.01} if site == "weight" else None

    results, found = read(tmp_path, measure)
    table = inside.summary(results, found, []).groupby("statistic")[["n", "mean"]].first()
    assert table["n"].to_dict() == {"gradient_norm": 6, "log10_gradient_norm": 5}
    assert table.loc["log10_gradient_norm", "mean"] == pytest.approx(-2)


def test_one_seed_has_a_mean_and_no_bounded_interval(tmp_path):
    results, store = study(tmp_path, seeds=1)
    found = inside.read(results, store)
    table = inside.summary(results, found, [])
    assert (table["n"] == 1).all()
    assert np.isinf(table["low"]).all()
    assert inside_words.sentences(results, found, inside.paired(results, found), []) == []
    assert "inside-saturated" in [each["name"] for each in section(tmp_path, results, store)["activations"]]


# Which rows count


def test_rows_of_another_trial_and_of_other_runs_are_without_effect(tmp_path):
    results, store = study(tmp_path)
    before = inside.summary(results, inside.read(results, store), [])
    cell = next(iter(results.grid.cells()))
    strangers = [run(cell, seed, saturated=0.9) for seed in (0, 500)]
    wrong = layers_of(lambda *_: {"saturated": 0.9})("elsewhere", strangers)
    store.write({"layers": wrong})
    pd.testing.assert_frame_equal(inside.summary(results, inside.read(results, store), []), before)


def test_rows_that_a_conflict_left_twice_count_once_whatever_their_files_are_called(tmp_path):
    def other(row, epoch, block, site):
        return {**typical(row, epoch, block, site), "saturated": 0.3 + 0.01 * jitter(row, 1, epoch, block)}

    tables = []
    for turn in (1, -1):
        results, store = study(tmp_path / str(turn))
        cells = {cell.cell_id: cell for cell in results.grid.cells()}
        for trial, rows in results.runs.groupby("trial"):
            runs = [run(cells[row.cell_id], row.seed) for row in rows.itertuples()]
            store.write({"layers": layers_of(other)(trial, runs)})
            both = [path for path in store.files("layers") if path.name.startswith(trial)]
            for number, path in enumerate(both[::turn]):
                path.rename(path.with_name(f"{trial}-{number}.parquet"))
        found = inside.read(results, store)
        tables.append(inside.summary(results, found, []))
        at_act = found.rows[found.rows["site"] == "act"]
        assert len(at_act) == 18 * 2 * 4
        for row in at_act.itertuples():
            planned = results.runs.iloc[row.run]
            of = run(cells[planned["cell_id"]], planned["seed"])
            either = [measure(of, row.epoch, row.block, "act")["saturated"] for measure in (typical, other)]
            assert np.isclose(row.saturated, either, rtol=1e-5).any()
    pd.testing.assert_frame_equal(*tables)


def test_of_a_searching_grid_only_fresh_seeds_at_the_chosen_rate_count(tmp_path):
    grid = read_grid(tmp_path, ("tanh",), (2,), axes="[nuisance]\nlr = [0.1, 0.01]\n", seeds="6\ntuning = 5")
    runs = [run(each.cell, each.seed, val_accuracy=0.5 + (each.cell.lr == 0.01) * 0.1) for each in grid.runs()]

    def measure(row, epoch, block, site):
        return {"saturated": row["cell"].lr} if site == "act" else None

    store = fill(Store(tmp_path / "store"), runs, layers=layers_of(measure))
    results = select(gather(grid, store)).results
    found = inside.read(results, store)
    assert len(found.runs) == found.finished == 12
    np.testing.assert_allclose(found.rows["saturated"], 0.01, rtol=1e-6)


def test_where_a_grid_searches_depth_each_arm_has_the_blocks_of_its_chosen_one(tmp_path):
    grid = read_grid(tmp_path, ("tanh",), (), seeds="6\ntuning = 5", axes="[nuisance]\ndepth = [2, 4]\n")
    best = {BEFORE: 2, AFTER: 4}
    runs = [
        run(each.cell, each.seed, val_accuracy=0.5 + 0.1 * (each.cell.depth == best[each.cell.order]))
        for each in grid.runs()
    ]

    def measure(row, epoch, block, site):
        return {"saturated": block / 10, "quantiles": normal_quantiles(0, 1)} if site == "act" else None

    store = fill(Store(tmp_path / "store"), runs, layers=layers_of(measure))
    results = select(gather(grid, store)).results
    found = inside.read(results, store)
    assert found.room == found.finished == len(found.runs) == 12
    for place, blocks in (("first", (1, 1)), ("middle", (1, 2)), ("last", (2, 4)), ("mean", (1.5, 2.5))):
        name = f"layers.saturated.act.{place}.end"
        of_claims = inside.with_layers(results, store, [name]).runs[name]
        of_all = inside.of_runs(results, found, inside.Statement("saturated", "act", place), "end")
        for values in (of_claims, of_all):
            by_arm = [values[results.runs["order"] == order] for order in (BEFORE, AFTER)]
            np.testing.assert_allclose(by_arm, np.repeat(blocks, 6).reshape(2, 6) / 10, rtol=1e-6)
    difference = inside.paired(results, found).set_index(["statistic", "when"])["difference"]
    assert difference["saturated", "end"] == pytest.approx(0.2)
    lines = inside_figures.over_depth(
        inside.summary(results, found, []), inside_figures.ACTIVATIONS[0], [], list(results.grid.analysis.arms)
    )
    assert [len(line.get_xdata()) for line in lines.figure.axes[0].lines] == [2, 4]
    [picture] = inside_figures.histograms(results, found, store, [])
    assert {ax.get_title().split(",")[0]: len(ax.lines) for ax in picture.figure.axes} == {
        "block 1": 2, "block 2": 2, "block 4": 1,
    }  # fmt: skip


def test_only_the_first_cells_are_looked_at_where_there_is_no_room_for_all(tmp_path, monkeypatch):
    monkeypatch.setattr(inside, "FEWEST_SEEDS", 1)
    monkeypatch.setattr(inside, "MOST_BLOCKS", 3 * 6 * 6 + 1)  # three cells of depth 4 with six seeds
    results, found = read(tmp_path, activations=("tanh", "relu"))
    assert (found.room, len(found.runs)) == (18, 18)
    assert "There is room for 18, those of the first cells; the others were not looked at." in inside_words.coverage(
        results, found
    )


# Pairs


def test_planted_differences_are_found_with_their_sign_and_size(tmp_path):
    results, found = read(tmp_path, seeds=10)
    pairs = inside.paired(results, found).set_index(["statistic", "when", "contrast"])
    for when in ("start", "end"):
        row = pairs.loc["saturated", when, "after - before"]
        assert row["low"] < 0.35 < row["high"]
        assert row["difference"] == pytest.approx(row["mean_a"] - row["mean_b"])
        assert row["high"] - row["low"] < 0.05
        rank = pairs.loc["effective_rank", when, "after - none"]
        assert rank["difference"] == pytest.approx(5, abs=0.2)
        assert rank["low"] > 4.5
        growth = pairs.loc["log10_gradient_norm", when, "after - before"]
        assert growth["difference"] == pytest.approx(math.log10(2**3), abs=0.06)  # of three blocks
        assert growth["low"] > 0.8
    a, b = (
        np.array([typical(run(cell, seed), LAST, 4, "act")["saturated"] for seed in range(10)])
        for cell in (next(c for c in results.grid.cells() if c.order == order) for order in (AFTER, BEFORE))
    )
    ends = stats.ttest_rel(a, b).confidence_interval()
    row = pairs.loc["saturated", "end", "after - before"]
    np.testing.assert_allclose([row["low"], row["high"]], [ends.low, ends.high], rtol=1e-4)


def test_the_end_is_the_last_epoch_in_which_any_run_of_that_length_was_probed(tmp_path):
    def measure(row, epoch, block, site):
        late = epoch == LAST and row["cell"].order == BEFORE  # was not probed there
        return None if late else {"saturated": epoch / 100} if site == "act" else None

    results, found = read(tmp_path, measure, epochs=(0, 5, LAST))
    assert set(found.ends(results.runs)) == {LAST}
    pairs = inside.paired(results, found).set_index(["when", "contrast"])["difference"]
    assert ("end", "after - before") not in pairs.index
    assert pairs["start", "after - before"] == 0


def test_a_mean_over_blocks_is_of_those_that_have_it_without_stem_and_head(tmp_path):
    def measure(row, epoch, block, site):
        return {"gradient_change": 10.0**block} if site == "weight" and block != 2 else None

    results, found = read(tmp_path, measure)
    outside = found.rows.loc[found.rows["block"] == 4].assign(gradient_change=1e9)
    rows = pd.concat([found.rows, outside.assign(block=0), outside.assign(block=5)], ignore_index=True)
    statement = inside.Statement("log10_gradient_change", "weight", "mean")
    mean = inside.of_runs(results, found._replace(rows=rows), statement, "end")
    np.testing.assert_allclose(mean, (1 + 3 + 4) / 3, rtol=1e-6)


@pytest.mark.parametrize(("depth", "middle"), [(1, 1), (2, 1), (3, 2), (8, 4)])
def test_the_places_in_a_network_are_its_first_middle_and_last_block(depth, middle):
    places = [int(inside.block_at(place, np.array(depth))) for place in ("first", "middle", "last")]
    assert places == [1, middle, depth]


# Drift


def drifting(probes):
    """Inputs that drift by a tenth an epoch since the probe before. probes: of a run, the epochs of its probes."""

    def measure(row, epoch, block, site):
        if epoch not in probes(row):
            return None
        before = max((each for each in probes(row) if each < epoch), default=None)
        drift = {"drift": (epoch - before) / 10 * (1 + 0.01 * jitter(row, epoch))} if before is not None else {}
        return drift if site == "input" else {"sd": 1.0}

    return measure


OF_DRIFT = 'metric = "layers.drift.input.mean.end"\nexpected = "less"'


@pytest.mark.parametrize(
    ("contrasts", "usual", "left", "title", "said"),
    [
        (
            ["after - before", "after - none"], 1.0, [AFTER, NONE], "drift since epoch 10",
            "12 in 0, 10 and 20; 6 in 0 and 20. Drift at the end is left out for 6 runs that",
        ),
        (
            ["after - before"], 2.0, [BEFORE], "drift since initialisation",
            "6 in 0 and 20; 6 in 0, 10 and 20. Drift at the end is left out for 6 runs that",
        ),
    ],
    ids=["most", "of equals the earliest"],
)  # fmt: skip
def test_drift_counts_where_it_is_since_the_epoch_that_most_runs_have(tmp_path, contrasts, usual, left, title, said):
    measure = drifting(lambda row: (0, LAST) if row["cell"].order == BEFORE else (0, 10, LAST))
    results, store = study(tmp_path, measure, epochs=(0, 10, LAST), contrasts=contrasts)
    found = inside.read(results, store)
    ends = inside.of_runs(results, found, inside.Statement("drift", "input", "mean"), "end")
    np.testing.assert_allclose(ends[results.runs["order"].isin(left)], usual, rtol=0.05)
    assert np.isnan(ends[~results.runs["order"].isin(left)]).all()
    assert f" Runs were probed in different epochs: {said}" in inside_words.coverage(results, found)
    row = judged(results, store, SIDES + OF_DRIFT, tmp_path)
    assert (row["verdict"], row["n"]) == ("undecided", 0)
    assert f"in {title} (input, mean over blocks, after the last probed epoch): no cell has 5 pairs" in row["reason"]
    [drift] = [each for each in section(tmp_path, results, store)["gradients"] if each["name"] == "inside-drift"]
    assert drift["title"].startswith(title.replace("drift", "drift of a block's input"))


def test_drift_over_one_span_is_compared_and_nothing_is_said(tmp_path):
    def probes(row):
        return () if row["seed"] == 0 else (0, 5, 10) if row["status"] == "diverged" else (0, 5, 10, LAST)

    status = {1: "diverged"}
    results, store = study(
        tmp_path, drifting(probes), epochs=(0, 5, 10, LAST), seeds=8, status=lambda each: status.get(each.seed)
    )
    row = judged(results, store, SIDES + OF_DRIFT, tmp_path)
    assert row["n"] == 6
    assert "in drift since epoch 10 (input, " in row["reason"]
    assert "different epochs" not in inside_words.coverage(results, inside.read(results, store))


def test_drift_of_runs_of_other_lengths_has_spans_of_its_own(tmp_path):
    grid = read_grid(tmp_path, axes="epochs = [10, 20]", seeds=6)
    measure = drifting(lambda row: {10: (0, 5, 10), 20: (0, 10, 20)}[row["cell"].epochs])
    runs = [run(each.cell, each.seed) for each in grid.runs()]
    store = fill(Store(tmp_path / "store"), runs, layers=layers_of(measure, epochs=(0, 5, 10, LAST)))
    results = gather(grid, store)
    found = inside.read(results, store)
    ends = inside.of_runs(results, found, inside.Statement("drift", "input", "mean"), "end")
    np.testing.assert_allclose(ends, np.where(results.runs["epochs"] == 10, 0.5, 1.0), rtol=0.05)
    assert "different epochs" not in inside_words.coverage(results, found)
    row = judged(results, store, SIDES + OF_DRIFT, tmp_path)
    assert "in drift since the probe before (input, " in row["reason"]


def test_drift_that_a_run_has_twice_since_different_epochs_does_not_count(tmp_path):
    results, store = study(tmp_path, drifting(lambda row: (0, LAST)))
    cells = {cell.cell_id: cell for cell in results.grid.cells()}
    for trial, rows in results.runs[results.runs["order"] != BEFORE].groupby("trial"):
        again = layers_of(drifting(lambda row: (0, 10, LAST)), epochs=(0, 10, LAST))
        store.write({"layers": again(trial, [run(cells[row.cell_id], row.seed) for row in rows.itertuples()])})
    found = inside.read(results, store)
    ends = inside.of_runs(results, found, inside.Statement("drift", "input", "mean"), "end")
    assert np.isnan(ends).all()  # of before too, whose spans are those of few
    rows = found.rows[(found.rows["site"] == "input") & (found.rows["epoch"] == 10)]
    np.testing.assert_allclose(rows["drift"], 1, rtol=0.05)


# Histograms


def test_files_without_a_row_of_these_runs_give_no_quantiles(tmp_path):
    results, store = study(tmp_path)
    keys, values = inside.quantiles(results, store, np.array([], int), "act", lambda rows: rows["block"] > 0)
    assert (len(keys), values.shape) == (0, (0, len(QUANTILES)))


def test_shares_of_a_distribution_are_those_that_its_quantiles_say():
    edges = np.linspace(-3, 3, 13)
    [found] = inside.shares(np.array([normal_quantiles(0, 1)]), edges)
    np.testing.assert_allclose(found, np.diff(stats.norm.cdf(edges)), atol=0.03)
    [uniform] = inside.shares(np.array([QUANTILES]), np.linspace(-0.5, 1.5, 5))
    np.testing.assert_allclose(uniform, [0, 0.5, 0.5, 0], atol=1e-12)


def test_values_that_many_have_lie_in_the_bin_of_that_value():
    relu = np.maximum(normal_quantiles(0, 1), 0)
    [found] = inside.shares(relu[None], np.array([-0.3, -0.1, 0.1, 0.3, 5]))
    assert found[0] == 0
    assert found[1] == pytest.approx(0.5, abs=0.06)
    [constant] = inside.shares(np.ones((1, len(QUANTILES))), np.array([0.0, 0.5, 1.5, 2]))
    np.testing.assert_array_equal(constant, [0, 1, 0])


def test_the_bins_of_a_histogram_have_0_in_the_middle_of_one_and_do_not_follow_one_arm_that_explodes():
    calm, wild = (np.array([normal_quantiles(0, sd)] * 3) for sd in (1, 1000))
    edges = inside_figures._edges([calm, calm, wild])
    assert np.abs(edges).max() < 12
    assert np.abs(edges).min() == pytest.approx(np.diff(edges)[0] / 2)
    assert len(edges) < 40
    assert len(inside_figures._edges([np.zeros((2, len(QUANTILES)))])) > 1


def test_histograms_show_the_quantiles_of_the_deepest_networks_by_arm_block_and_epoch(tmp_path):
    def measure(row, epoch, block, site):
        centre = (row["cell"].order == AFTER) * 2 + (row["cell"].depth == 2) * 100
        return {"quantiles": normal_quantiles(centre, 0.5)} if site == "act" else None

    results, store = study(tmp_path, measure, depths=(2, 3))
    [picture] = inside_figures.histograms(results, inside.read(results, store), store, ["depth"])
    assert (picture.title, picture.about) == ("depth 3", "n = 6")
    axes = picture.figure.axes
    assert [ax.get_title() for ax in axes] == [
        f"block {block}, {when}" for block in (1, 2, 3) for when in ("initialisation", f"epoch {LAST}")
    ]
    for ax in axes:
        before, after, _ = (line.get_xdata()[line.get_ydata().argmax()] for line in ax.lines)
        assert before == pytest.approx(0, abs=0.2)
        assert after == pytest.approx(2, abs=0.3)
        assert sum(ax.lines[0].get_ydata()) == pytest.approx(100, abs=5)


# Figures and words


def test_a_line_over_depth_is_the_mean_of_its_arm_in_the_deepest_networks(tmp_path):
    results, found = read(tmp_path, activations=("tanh", "relu"), depths=(2, 4))
    table = inside.summary(results, found, ["activation", "depth"])
    arms = list(results.grid.analysis.arms)
    picture = inside_figures.over_depth(table, inside_figures.ACTIVATIONS[0], ["activation", "depth"], arms)
    assert picture.about == "depth 4, n = 6"
    start, _, end, _ = picture.figure.axes
    assert [ax.get_title() for ax in picture.figure.axes] == ["tanh", "relu", "", ""]
    for ax, epoch in ((start, 0), (end, LAST)):
        for arm, line in zip(arms, ax.lines, strict=True):
            rows = table[(table["activation"] == "tanh") & (table["depth"] == 4) & (table["arm"] == arm)]
            rows = rows[(rows["statistic"] == "saturated") & (rows["epoch"] == epoch)]
            np.testing.assert_allclose(line.get_ydata(), 100 * rows["mean"])
            np.testing.assert_array_equal(line.get_xdata(), [1, 2, 3, 4])
    gradient = inside_figures.over_depth(table, inside_figures.GRADIENTS[0], ["activation", "depth"], arms)
    assert gradient.figure.axes[0].get_yscale() == "log"
    np.testing.assert_allclose(gradient.figure.axes[0].lines[1].get_ydata(), [8, 4, 2, 1], rtol=0.2)  # after
    drift = inside_figures.over_depth(table, inside_figures.GRADIENTS[-1], ["activation", "depth"], arms)
    assert len(drift.figure.axes) == 2  # there is none at initialisation


def test_blocks_that_are_none_are_named_where_a_statistic_has_them(tmp_path):
    def measure(row, *at):
        return {**typical(row, *at), **({"gradient_change": 0.1} if at[-1] == "weight" else {})}

    results, found = read(tmp_path, measure)
    stem = found.rows[(found.rows["block"] == 1) & (found.rows["site"] == "weight")].assign(
        block=0, gradient_change=NAN
    )
    table = inside.summary(results, found._replace(rows=pd.concat([found.rows, stem], ignore_index=True)), [])
    pictures = {
        of.statistic: inside_figures.over_depth(table, of, [], list(results.grid.analysis.arms))
        for of in (*inside_figures.ACTIVATIONS, *inside_figures.GRADIENTS)
    }
    assert {name: picture.figure.get_supxlabel() for name, picture in pictures.items() if picture} == {
        "saturated": "block",
        "effective_rank": "block",
        "log10_sd": "block",
        "log10_gradient_norm": "block (0: stem, last + 1: head)",
        "log10_gradient_change": "block (last + 1: head)",
        "log10_update_norm": "block (0: stem, last + 1: head)",
        "drift": "block (last + 1: head)",
    }


@pytest.mark.parametrize(("spread", "about"), [(0.01, "n = 2"), (0.1, "n = 2, wide intervals leave the axes")])
def test_a_caption_says_where_intervals_leave_the_axes(tmp_path, spread, about):
    def measure(row, epoch, block, site):
        of_seed = spread * (row["seed"] - 0.5)
        return {"saturated": 0.5 + of_seed, "quantiles": normal_quantiles(of_seed, 1)} if site == "act" else None

    results, store = study(tmp_path, measure, seeds=2)
    found = inside.read(results, store)
    table, arms = inside.summary(results, found, []), list(results.grid.analysis.arms)
    picture = inside_figures.over_depth(table, inside_figures.ACTIVATIONS[0], [], arms)
    bottom, top = picture.figure.axes[0].get_ylim()
    assert ((100 * table["low"] < bottom) | (100 * table["high"] > top)).any() == ("leave" in about)
    assert picture.about == about
    [histogram] = inside_figures.histograms(results, found, store, [])
    assert histogram.about == about


def test_what_is_0_everywhere_is_said_and_not_drawn(tmp_path):
    def none_of_relu(row, *at):
        return typical(row, *at) | ({"saturated": 0.0} if row["cell"].activation == "relu" else {})

    results, found = read(tmp_path, none_of_relu, activations=("tanh", "relu"))
    table, arms = inside.summary(results, found, ["activation"]), list(results.grid.analysis.arms)
    picture = inside_figures.over_depth(table, inside_figures.ACTIVATIONS[0], ["activation"], arms)
    assert picture.about == "n = 6, 0 everywhere: relu"
    assert [ax.get_title() for ax in picture.figure.axes] == ["tanh", ""]
    dead = next(each for each in inside_figures.ACTIVATIONS if each.statistic == "dead")
    assert inside_figures.over_depth(table, dead, ["activation"], arms) is None


def test_figures_of_many_kinds_of_cells_show_some_and_say_so(tmp_path):
    names = (
        "relu",
        "leaky_relu",
        "elu",
        "tanh",
        "sigmoid",
        "gelu",
        "silu",
        "selu",
        "softsign",
        "softplus",
        "prelu",
        "identity",
        "maxout",
    )

    def sparse(row, epoch, block, site):
        return typical(row, epoch, block, site) if site == "act" else None

    results, store = study(tmp_path, sparse, names, (1,), seeds=2)
    found = inside.read(results, store)
    table, arms = inside.summary(results, found, ["activation"]), list(results.grid.analysis.arms)
    picture = inside_figures.over_depth(table, inside_figures.ACTIVATIONS[0], ["activation"], arms)
    assert len(picture.figure.axes) == 24
    assert len(inside_figures.histograms(results, found, store, ["activation"])) == inside_figures.MOST_HISTOGRAMS
    assert inside_figures.left_out(table, ["activation"]) == (
        "Figures show only 12 of 13 kinds of cells over depth, the first 6 in histograms; layers.csv has all."
    )


def test_the_sentences_name_arms_intervals_and_seeds(tmp_path):
    planted = {
        BEFORE: exactly(6, 0.02, 0.01, seed=1),
        AFTER: exactly(6, 0.40, 0.02, seed=2),
        NONE: exactly(6, 0.2, 0.01),
    }

    def measure(row, epoch, block, site):
        if site == "act":
            return {"saturated": planted[row["cell"].order][row["seed"]] if epoch and block == 4 else 0.1}
        if site == "weight":
            return {"gradient_norm": 1e-5 * (1 + (row["cell"].order == AFTER)) * (1 + 0.1 * row["seed"])}
        return None

    results, found = read(tmp_path, measure)
    saturated, gradient = inside_words.sentences(results, found, inside.paired(results, found), [])
    d = planted[AFTER] - planted[BEFORE]
    half = stats.t.ppf(0.975, 5) * d.std(ddof=1) / math.sqrt(6)
    assert saturated == (
        "Share of saturated values, last block, after − before: at initialisation the interval lies above 0 in 0 and below "
        "in 0 of 1 cell; after the last probed epoch the interval lies above 0 in 1 and below in 0 of 1 cell. Largest after "
        f"the last probed epoch: all: +38.0 pp [{100 * (0.38 - half):.1f}, {100 * (0.38 + half):.1f}], n = 6 (before 2.0 % "
        "[1.0, 3.0], after 40.0 % [37.9, 42.1], none 20.0 % [19.0, 21.0])."
    )
    assert "×\u00a02.00 [2.00, 2.00], n = 6 (before 1.24·10⁻⁵ [" in gradient


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.0, "0.00"),
        (0.012345, "0.0123"),
        (3.14159, "3.14"),
        (9990.0, "9,990"),
        (2.3e-4, "2.30·10⁻⁴"),
        (1.5e12, "1.50·10¹²"),
        (NAN, "–"),
        (math.inf, "∞"),
    ],
)
def test_a_magnitude_is_written_with_three_digits(value, text):
    assert inside_words.significant(value) == text


# Claims


def judged(results, store, text, folder):
    path = folder / "own.toml"
    path.write_text(f'[[claim]]\nid = "x"\nsource = "s"\nstatement = "t"\n{text}')
    ledger = claims.read(path)
    return claims.judge(ledger, claims.measured(ledger, results, store)).iloc[0]


SIDES = f'first = {{ order = "{AFTER}" }}\nsecond = {{ order = "{BEFORE}" }}\n'


def test_a_claim_about_what_was_measured_inside_is_judged_on_it(tmp_path):
    results, store = study(tmp_path)
    text = SIDES + 'metric = "layers.saturated.act.last.end"\nexpected = '
    row = judged(results, store, text + '"greater"', tmp_path)
    assert (row["verdict"], row["n"]) == ("supported", 6)
    assert row["estimate"] == pytest.approx(0.35, abs=0.02)
    assert "in share of saturated values (act, last block, after the last probed epoch): +3" in row["reason"]
    assert judged(results, store, text + '"less"', tmp_path)["verdict"] == "contradicted"


@pytest.mark.parametrize("place", ["first", "middle", "last", "mean"])
@pytest.mark.parametrize("when", ["start", "end"])
def test_the_metric_of_a_run_is_the_same_as_from_all_rows(tmp_path, place, when):
    results, store = study(tmp_path)
    name = f"layers.log10_gradient_norm.weight.{place}.{when}"
    few = inside.with_layers(results, store, [name, "test_accuracy"]).runs
    statement = inside.Statement("log10_gradient_norm", "weight", place)
    of_all = inside.of_runs(results, inside.read(results, store), statement, when)
    np.testing.assert_allclose(few[name], of_all)
    assert np.isfinite(of_all).all()
    assert list(few.drop(columns=name)) == list(results.runs)


def test_a_run_that_diverges_counts_in_a_claim_as_it_was_measured_and_not_as_the_worst(tmp_path):
    results, store = study(tmp_path, status=lambda each: "diverged" if each.seed == 0 else "done")
    row = {}
    for when in ("start", "end"):
        text = SIDES + f'metric = "layers.saturated.act.last.{when}"\nexpected = "greater"'
        row[when] = judged(results, store, text, tmp_path)
        assert row[when]["estimate"] == pytest.approx(0.35, abs=0.02)
    assert (row["start"]["n"], row["end"]["n"]) == (6, 5)


def test_a_claim_about_what_was_not_measured_is_not_covered(tmp_path):
    results, store = study(tmp_path, None)
    row = judged(results, store, SIDES + 'metric = "layers.dead.act.last.end"\nexpected = "less"', tmp_path)
    assert (row["verdict"], row["reason"]) == ("not covered", "Metric not measured: layers.dead.act.last.end.")


@pytest.mark.parametrize(
    ("metric", "rule"),
    [
        ("layers.dead", "a metric of layers is layers.<statistic>.<site>.<place>.<when>"),
        ("layers.deaf.act.last.end", "'deaf' is none of the statistics: mean, sd, "),
        ("layers.dead.act.8.end", "'8' is none of the places: first, middle, last, mean"),
        ("layers.dead.act.last.20", "'20' is none of the times: start, end"),
    ],
)
def test_a_name_that_stands_for_nothing_inside_is_told_in_one_line(tmp_path, metric, rule):
    (tmp_path / "own.toml").write_text(
        f'[[claim]]\nid = "x"\nsource = "s"\nstatement = "t"\n{SIDES}metric = "{metric}"\nexpected = "less"'
    )
    with pytest.raises(claims.ClaimsError, match=re.escape(f"own.toml: claim 'x': unknown metric '{metric}': {rule}")):
        claims.read(tmp_path / "own.toml")


# The page


def section(folder, results, store):
    return sections.inside(results, store, varying(results.runs), Album(folder / "figures").add)


def test_the_page_has_a_section_and_its_numbers_beside_it(tmp_path):
    results, store = study(
        tmp_path, activations=("tanh", "relu"), depths=(1, 2), seeds=5, contrasts=("after - before",)
    )
    said = page.build(results.grid, store, tmp_path / "report")
    text = (tmp_path / "report" / "index.html").read_text()
    assert '<h2 id="inside">Inside the networks</h2>' in text
    assert "40 of 40 finished runs were measured inside: initialisation and epoch 20." in text
    assert "layers.csv" in said[-1]
    assert "layers.parquet" in said[-1]
    levels = pd.read_csv(tmp_path / "report" / "layers.csv")
    assert list(levels) == [
        *(
            "activation",
            "depth",
            "order",
            "arm",
            "epoch",
            "block",
            "site",
            "statistic",
            "n",
            "mean",
            "sd",
            "low",
            "high",
        ),
    ]
    pd.testing.assert_frame_equal(levels, pd.read_parquet(tmp_path / "report" / "layers.parquet"), check_dtype=False)
    pairs = pd.read_csv(tmp_path / "report" / "inside.csv")
    assert {"statistic", "site", "place", "when", "contrast", "n", "difference", "low", "high"} <= set(pairs)
    for name in re.findall(r'href="(figures/inside[^"]+)"', text):
        assert (tmp_path / "report" / name).exists()


@pytest.mark.parametrize("measure", [None, lambda *_: None], ids=["older store", "no epochs"])
def test_a_store_that_was_not_probed_has_no_section(tmp_path, measure):
    results, store = study(tmp_path, measure, depths=(1,), seeds=2, contrasts=("after - before",))
    said = page.build(results.grid, store, tmp_path / "report")
    text = (tmp_path / "report" / "index.html").read_text()
    assert 'id="inside"' not in text
    assert "layers.csv" not in text + said[-1]


def test_a_store_with_rows_of_a_few_cells_only_has_a_section_of_those(tmp_path):
    def few(row, *at):
        return typical(row, *at) if (row["cell"].activation, row["cell"].order) == ("relu", AFTER) else None

    shown = section(tmp_path, *study(tmp_path, few, activations=("tanh", "relu"), depths=(2,)))
    assert shown["coverage"].startswith("6 of 36 finished runs were measured inside")
    assert len(shown["histograms"]) == 1
    assert shown["rows"] == []


def test_rows_without_a_number_are_no_reason_to_fail(tmp_path):
    shown = section(tmp_path, *study(tmp_path, lambda *_: {}, depths=(2,)))
    assert shown["coverage"].startswith("18 of 18 finished runs were measured inside")
    assert not shown["activations"] + shown["gradients"] + shown["histograms"] + shown["sentences"]


@pytest.mark.parametrize("epochs", [(0,), (LAST,), (0, 1, 2, 5, 10, LAST)])
def test_there_is_a_section_whatever_epochs_were_probed(tmp_path, epochs):
    results, store = study(tmp_path, depths=(2,), seeds=3, epochs=epochs)
    shown = section(tmp_path, results, store)
    assert len(shown["histograms"]) == 1
    assert {row[2] for row in shown["rows"]} == {
        *(["at initialisation"] if 0 in epochs else []),
        *(["after the last probed epoch"] if LAST in epochs else []),
    }


def test_the_section_is_the_same_bytes_whatever_the_order_of_rows_and_files(tmp_path):
    results, store = study(tmp_path, activations=("tanh", "relu"), depths=(2,), seeds=5)
    rng = np.random.default_rng(0)
    other = Store(tmp_path / "other")
    for name in ("layers", "runs"):
        for path in reversed(store.files(name)):
            rows = pq.read_table(path)
            rows = rows.take(rng.permutation(len(rows)))
            for part in (rows.slice(0, len(rows) // 3), rows.slice(len(rows) // 3)):
                other.write({name: part})
    a, b = section(tmp_path / "a", results, store), section(tmp_path / "b", gather(results.grid, other), other)
    for name, table in a.pop("files").items():
        pd.testing.assert_frame_equal(table, b["files"][name], check_exact=True)
    del b["files"]
    assert a == b
    assert "<svg" in a["histograms"][0]["svg"]
