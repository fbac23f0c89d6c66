"""One ledger over several studies: each judged as its own report judges it, beside what needs no training."""

import numpy as np
import pandas as pd
import pytest
from simulated import fill, planted, read_grid

from harness.anatomy import anatomy
from normorder import main
from reports import page
from reports.claims import VERDICTS, read
from reports.ledger import ClaimsError
from reports.outcomes import ReportError
from reports.studies import ANATOMY, Study, build, recipe
from results import Store

SEEDS = 8
CLAIMS = """
[[claim]]
id        = "better"
source    = "Somebody 2020"
statement = "After is better."
cells     = { activation = "relu", depth = { least = 2 } }
first     = { order = "weight-act-bn" }
second    = { order = "weight-bn-act" }
metric    = "test_accuracy"
expected  = "greater"
nearest   = { depth = 4 }
published = "+1.0 points (5 runs on <another> data set)"

[[claim]]
id        = "wide"
source    = "Somebody 2022"
statement = "Sigmoid is at its ends."
anatomy   = { section = "s", quantity = "q", setting = SETTING }
expected  = "greater"
than      = 0.5
"""
NUMBERS = [("s", "q", "tanh", 0.9), ("s", "q", "sigmoid", 0.4), ("s", "other", "tanh", 0.0)]


@pytest.fixture(scope="module")
def numbers():
    return anatomy().rows


def study(folder, name, effect):
    folder = folder / name
    folder.mkdir()
    grid = read_grid(folder, depths=(2, 4), seeds=SEEDS).model_copy(update={"name": name})
    rng = np.random.default_rng(len(name))
    return Study(grid, fill(Store(folder / "store"), planted(grid, {"relu": rng.normal(effect, 0.003, SEEDS)})))


def own(folder, setting="'tanh'"):
    path = folder / "mine.toml"
    path.write_text(CLAIMS.replace("SETTING", setting))
    return path


def test_each_study_says_what_its_own_report_says(tmp_path, numbers):
    studies = [study(tmp_path, "up", 0.05), study(tmp_path, "down", -0.05)]
    lines = build(studies, [*numbers, *NUMBERS], tmp_path / "ledger", own(tmp_path))
    assert "better: supported (up); contradicted (down)" in lines
    frame = pd.read_csv(tmp_path / "ledger" / "ledger.csv").set_index(["study", "id"])
    for each in studies:
        page.build(each.grid, each.store, tmp_path / each.grid.name / "page", own(tmp_path))
        alone = pd.read_csv(tmp_path / each.grid.name / "page" / "claims.csv").set_index("id")
        pd.testing.assert_frame_equal(frame.loc[each.grid.name][alone.columns], alone)
    assert set(frame["verdict"]) <= set(VERDICTS)


def test_the_nearest_cells_and_what_was_published_stand_beside_the_claim(tmp_path, numbers):
    build([study(tmp_path, "up", 0.05)], [*numbers, *NUMBERS], tmp_path / "ledger", own(tmp_path))
    row = pd.read_csv(tmp_path / "ledger" / "ledger.csv").set_index(["study", "id"]).loc["up", "better"]
    assert row["nearest_n"] == SEEDS
    assert "; activation relu; depth 4; " in row["nearest"]  # its setting, beside that of the source
    assert row["nearest_low"] < row["nearest_estimate"] < row["nearest_high"]
    assert row["nearest_estimate"] == pytest.approx(row["estimate"], abs=0.01)
    text = (tmp_path / "ledger" / "index.html").read_text()
    assert "+1.0 points (5 runs on &lt;another&gt; data set)" in text
    assert f"<b>nearest cells</b>: +{100 * row['nearest_estimate']:.2f} pp [" in text
    assert f"n = {SEEDS} ({row['nearest']})" in text


@pytest.mark.parametrize(
    ("setting", "verdict", "told"),
    [
        ("'tanh'", "supported", "Q: 0.9 (tanh)."),
        ("['tanh', 'sigmoid']", "contradicted", "Q: 0.9 (tanh) and 0.4 (sigmoid)."),
        ("'*'", "contradicted", "Q: 0.9 (tanh) and 0.4 (sigmoid)."),
    ],
)
def test_a_claim_about_the_anatomy_holds_where_each_of_its_numbers_does(tmp_path, numbers, setting, verdict, told):
    build([study(tmp_path, "up", 0.05)], [*numbers, *NUMBERS], tmp_path / "ledger", own(tmp_path, setting))
    row = pd.read_csv(tmp_path / "ledger" / "ledger.csv").set_index(["study", "id"]).loc[ANATOMY, "wide"]
    assert (row["verdict"], row["reason"]) == (verdict, told)


def test_numbers_that_the_anatomy_has_not_are_named(tmp_path, numbers):
    with pytest.raises(ReportError, match=r"'wide': anatomy.setting: there are no such numbers: elu"):
        build([study(tmp_path, "up", 0.05)], [*numbers, *NUMBERS], tmp_path / "ledger", own(tmp_path, "['elu']"))
    assert not (tmp_path / "ledger" / "index.html").exists()


def test_every_claim_about_the_anatomy_that_is_shipped_names_numbers_that_it_has(tmp_path, numbers):
    build([study(tmp_path, "up", 0.05)], numbers, tmp_path / "ledger")
    frame = pd.read_csv(tmp_path / "ledger" / "ledger.csv")
    judged = frame[frame["study"] == ANATOMY].set_index("id")["verdict"]
    assert set(judged.index) == {claim.id for claim in read() if claim.anatomy}
    assert judged["karki-2022-tanh-at-ends"] == "supported"  # 22 sd wide, as the article has it
    assert judged["kanungo-2019-shape-kept"] == "supported"  # an affine map of each channel
    (reason,) = frame.loc[frame["id"].eq("kanungo-2019-shape-kept") & frame["study"].eq(ANATOMY), "reason"]
    assert reason.endswith(": 0 but for rounding (normal, uniform, exponential and two peaks).")
    assert judged["kanungo-2019-range-only"] == "contradicted"  # not where the mean of a channel is not 0


def test_two_studies_of_one_name_are_refused(tmp_path, numbers):
    one = study(tmp_path, "up", 0.05)
    with pytest.raises(ReportError, match="up: is the name of two studies"):
        build([one, one], numbers, tmp_path / "ledger")


def test_runs_that_two_studies_share_are_counted(tmp_path, numbers):
    one = study(tmp_path, "up", 0.05)
    part = read_grid(tmp_path, depths=(2,), seeds=SEEDS).model_copy(update={"name": "part"})
    build([one, Study(part, one.store)], numbers, tmp_path / "ledger")
    text = (tmp_path / "ledger" / "index.html").read_text()
    assert f"Compared runs that two of them share: up and part {2 * SEEDS}." in text


def test_a_recipe_tells_what_was_trained_and_that_the_rate_was_searched(tmp_path):
    told = recipe(read_grid(tmp_path, depths=(2, 4), seeds=SEEDS, axes="[nuisance]\nlr = [0.1, 0.3]"))
    assert "depth 2, 4" in told
    assert "lr 0.1, 0.3, the best for each arm" in told
    assert "weight_decay" not in told  # which is the default
    assert "weight-act-bn" not in told


def test_what_is_wrong_with_a_file_of_claims_or_a_store_is_one_line(tmp_path, monkeypatch, capsys):
    with pytest.raises(ClaimsError, match="no such claims file"):
        build([], NUMBERS, tmp_path / "ledger", tmp_path / "none.toml")
    grid = tmp_path / "lonely.toml"
    read_grid(tmp_path)
    (tmp_path / "simulated.toml").rename(grid)
    monkeypatch.setattr("sys.argv", ["normorder", "ledger", str(grid), "--stores", str(tmp_path)])
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 2
    assert f"{tmp_path}/lonely: there is no store" in capsys.readouterr().err
