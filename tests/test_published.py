"""The reference study: its stores are whole, and small, and what the README says of it is what they give."""

import os
import re
import subprocess
import sys
from functools import cache
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

import harness
from grids import FEWEST_TUNING, TUNING_FROM, Grid
from harness.anatomy import anatomy
from reports.comparisons import compare
from reports.export import write_csv
from reports.figures import MARKS
from reports.outcomes import gather
from reports.rates import select
from reports.studies import Study, build
from results import METRICS, Store
from results.thinning import is_thinned
from results.validation import incomplete, orphans, validate

ROOT = Path(__file__).parents[1]
PUBLISHED = ROOT / "results" / "published"
GRIDS = sorted(path.stem for path in PUBLISHED.glob("*.toml"))
MOST_BYTES = 20_000_000


@cache
def grid(name):
    return Grid.read(PUBLISHED / f"{name}.toml", {**harness.choices(), "metric": METRICS})


@cache
def comparisons(name):
    """As a report of the study has them."""
    return compare(select(gather(grid(name), Store(PUBLISHED / name))).results)


def family(name):
    """The comparisons of the primary metric."""
    frame = comparisons(name)
    return frame[frame["metric"] == grid(name).analysis.primary.metric]


@pytest.mark.parametrize("name", GRIDS)
def test_a_store_of_the_study_is_whole(name):
    store = Store(PUBLISHED / name)
    assert is_thinned(store)
    assert validate(store) == []
    assert orphans(store) == 0
    assert incomplete(store, grid(name)) == []


@pytest.mark.parametrize("name", GRIDS)
def test_each_arm_has_its_own_best_rate_and_at_least_20_seeds(name):
    assert grid(name).seeds.count >= 20
    assert grid(name).seeds.tuning >= FEWEST_TUNING
    assert len(grid(name).nuisance["lr"]) >= 4


def test_every_store_and_report_of_the_study_has_its_grid():
    assert {path.name for path in PUBLISHED.iterdir() if path.is_dir()} == {*GRIDS, "report"}
    assert {path.name for path in (PUBLISHED / "report").iterdir() if path.is_dir()} == {*GRIDS, "figures"}


def test_the_study_takes_little_room():
    assert sum(path.stat().st_size for path in PUBLISHED.rglob("*") if path.is_file()) <= MOST_BYTES


def words(text):
    """Without digits, the last of which another processor may round otherwise, and without pictures."""
    return re.sub(r"[\d.]+", "#", re.sub("(?s)<svg.*?</svg>", "", text)) if isinstance(text, str) else text


def assert_same(published, rebuilt):
    """Words are equal, numbers but for rounding."""
    text = [name for name in published if not pd.api.types.is_numeric_dtype(published[name])]
    pd.testing.assert_frame_equal(published[text].map(words), rebuilt[text].map(words))
    pd.testing.assert_frame_equal(published.drop(columns=text), rebuilt.drop(columns=text), rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("name", GRIDS)
def test_the_published_comparisons_are_those_of_the_store(name, tmp_path):
    write_csv(comparisons(name), tmp_path / "comparisons.csv")
    assert_same(*(pd.read_csv(folder / "comparisons.csv") for folder in (PUBLISHED / "report" / name, tmp_path)))


def test_the_published_page_is_that_of_the_stores(tmp_path):
    build([Study(grid(name), Store(PUBLISHED / name)) for name in GRIDS], anatomy().rows, tmp_path)
    folders = (PUBLISHED / "report", tmp_path)
    assert_same(*(pd.read_csv(folder / "ledger.csv") for folder in folders))
    published, rebuilt = (words((folder / "index.html").read_text()) for folder in folders)
    assert published == rebuilt
    published, rebuilt = (sorted(path.name for path in (folder / "figures").iterdir()) for folder in folders)
    assert published == rebuilt


@pytest.mark.parametrize(
    ("table", "command"),
    [
        (
            "comparisons.csv",  # those of identity are 0 for every seed
            ["export", "--format", "csv", PUBLISHED / "perceptrons.toml", "--store", PUBLISHED / "perceptrons"],
        ),
        ("ledger.csv", ["ledger", PUBLISHED / "inside.toml", "--stores", PUBLISHED]),
    ],
)
def test_tables_have_the_same_bits_without_the_instructions_that_numpy_finds(table, command, tmp_path):
    """Another processor's exp, log10 and order of equal numbers, as far as they are numpy's."""
    found = np.show_config(mode="dicts")["SIMD Extensions"].get("found", [])
    made = []
    for name, disabled in (("with", ""), ("without", " ".join(found))):
        line = [Path(sys.executable).with_name("normorder"), *command, "--out", tmp_path / name]
        environment = os.environ | {"NPY_DISABLE_CPU_FEATURES": disabled}
        subprocess.run(line, env=environment, cwd=ROOT, check=True, capture_output=True)
        made.append((tmp_path / name / table).read_bytes())
    assert made[0] == made[1]


def in_points(value):
    return f"{100 * value:.1f}".replace("-", "−")


def told(row):
    sign = "+" if row["difference"] > 0 else ""
    ends = f"[{in_points(row['low'])}, {in_points(row['high'])}]"
    return f"{sign}{in_points(row['difference'])} {ends} {MARKS[row['verdict']]}"


def table_of_the_readme(head):
    """What stands in the table with this first line: the cells of each row."""
    lines = (ROOT / "README.md").read_text().split(f"\n{head}\n")[1].split("\n\n")[0].splitlines()[1:]
    return [line.strip("| ").split(" | ") for line in lines]


def test_the_table_of_the_readme_is_that_of_the_store():
    frame = family("perceptrons")
    frame = frame[(frame["contrast"] == "after - before") & (frame["dataset"] == "mnist1d")]
    rows = table_of_the_readme("| activation | 1 layer | 2 layers | 4 layers | 8 layers | 16 layers |")
    texts = {(row[0], depth): text for row in rows for depth, text in zip((1, 2, 4, 8, 16), row[1:], strict=True)}
    frame = frame[frame["activation"] != "identity"]
    assert texts == {(row["activation"], row["depth"]): told(row) for row in frame.to_dict("records")}


def test_the_table_of_real_images_in_the_readme_is_that_of_the_store():
    frame = family("images")
    frame = frame[frame["contrast"] == "after - before"]
    rows = table_of_the_readme("| network | activation | 2 layers | 4 layers |")
    texts = {(row[0].lower(), row[1], depth): text for row in rows for depth, text in zip((2, 4), row[2:], strict=True)}
    assert texts == {
        (row["architecture"], row["activation"], row["depth"]): told(row) for row in frame.to_dict("records")
    }


def test_the_counts_of_the_readme_are_those_of_the_store():
    text = " ".join((ROOT / "README.md").read_text().split())
    frame = family("perceptrons")
    frame = frame[frame["contrast"] == "after - before"]
    identity = frame["activation"] == "identity"
    assert set(frame[identity]["verdict"]) == {"equivalent"}
    frame = frame[~identity]
    counts, different = frame["verdict"].value_counts(), frame[frame["verdict"] == "different"]["difference"]
    before, after = (different < 0).sum(), (different > 0).sum()
    assert (
        f"*before* the activation is better in {before} of {len(frame)} comparisons and *after* it in {after}" in text
    )
    undecided = counts["underpowered"] + counts["inconclusive"]
    assert (
        f"{counts['equivalent']} are equivalent within one point of test accuracy, and {undecided} are not decided"
        in text
    )
    runs = Store(PUBLISHED / "perceptrons").read("runs").to_pandas()
    diverged = runs[runs["status"] == "diverged"]
    compared = (diverged["seed"] < TUNING_FROM).sum()
    assert f"of its {len(runs):,} runs {len(diverged)} diverged, {compared} of them compared ones" in text
