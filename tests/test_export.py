"""The comparisons as files: what programs read back is what was compared, what LaTeX and Markdown get is well formed."""

import re
import sys

import numpy as np
import pandas as pd
import pytest
from simulated import exactly, fill, planted, read_grid

import normorder
from reports import export
from reports.comparisons import COLUMNS, compare
from reports.outcomes import ReportError, gather
from results import Store

SPECIAL = r"& % $ # _ { } ~ ^ \ | < > [ ] *"


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    folder = tmp_path_factory.mktemp("study")
    grid = read_grid(folder, ("relu", "leaky_relu"), (2, 4), seeds=6)
    effects = {"relu": exactly(6, 0.05, 0.01), "leaky_relu": exactly(6, -0.03, 0.02)}
    return grid, fill(Store(folder / "store"), planted(grid, effects))


@pytest.fixture(scope="module")
def frame(study):
    return compare(gather(*study))


def odd(frame):
    """The comparisons with every special character in names and notes, some at their beginning."""
    names = [f"{'[*&|'[i % 4]}a {SPECIAL}" for i in range(len(frame))]
    return frame.assign(activation=names, notes=f"{SPECIAL}\nend")


@pytest.mark.parametrize("form", ["csv", "parquet"])
def test_every_number_comes_back_from_a_file_for_programs(study, frame, tmp_path, form):
    export.export(*study, form, tmp_path / "new folder")
    path = tmp_path / "new folder" / f"comparisons.{form}"
    again = pd.read_csv(path) if form == "csv" else pd.read_parquet(path)
    assert list(again.columns) == list(COLUMNS)
    again["notes"] = again["notes"].astype(object).fillna("")
    pd.testing.assert_frame_equal(again, frame, check_dtype=False, rtol=0, atol=0)


def rows_of(latex):
    """Lines of cells, without what follows the last cell."""
    return [line.removesuffix(r" \\") for line in latex.splitlines() if line.endswith(r" \\") and "caption" not in line]


def test_environments_and_braces_of_latex_are_balanced(study, frame):
    text = export.latex(odd(frame), study[0])
    opened = []
    for kind, name in re.findall(r"\\(begin|end)\{(\w+)\}", text):
        if kind == "begin":
            opened.append(name)
        else:
            assert opened.pop() == name
    assert not opened
    assert text.count(r"\begin{longtable}") == 2  # accuracy and loss
    bare = re.sub(r"\\[{}$]", "", text)
    depth = np.cumsum([{"{": 1, "}": -1}.get(c, 0) for c in bare])
    assert depth.min() == 0
    assert depth[-1] == 0
    assert [line for line in bare.splitlines() if line.count("$") % 2] == []


def test_every_row_of_latex_has_as_many_cells_as_the_head(study, frame):
    for row in rows_of(export.latex(odd(frame), study[0])):
        assert len(re.findall(r"(?<!\\)&", row)) == len(export.HEADS) - 1, row


def test_special_characters_are_escaped_in_latex(study, frame):
    text = export.latex(odd(frame), study[0])
    escaped = (
        r"\& \% \$ \# \_ \{ \} \textasciitilde{} \textasciicircum{} \textbackslash{} \textbar{} $<$ $>$ {[} {]} {*}"
    )
    assert escaped in text
    for row in rows_of(text):
        assert not re.search(r"(?<!\\)[%#_]|~|\^|−|\|", row), row
        assert not row.startswith(("[", "*")), "an option of the row's end before it"


def test_latex_has_the_numbers_with_their_unit_interval_and_n(study, frame):
    rows = rows_of(export.latex(frame, study[0]))
    [relu] = [row for row in rows if row.startswith("relu, depth 2") and "pp" in row]
    cells = relu.split(" & ")
    assert cells[1:3] == ["6", r"+5.00 pp {[}3.95, 6.05{]}"]
    assert cells[5] == "different"
    assert any(r"$-$3.00 pp" in row for row in rows)


def test_a_row_has_the_adjusted_p_values_of_its_comparison(study, frame):
    row = frame.iloc[0].to_dict() | {"p": 0.011, "p_holm": 0.022, "p_equivalence": 0.033, "p_equivalence_holm": 0.044}
    text = export.markdown(pd.DataFrame([row]), study[0])
    [cells] = [line.split(" | ") for line in text.splitlines() if "pp" in line and line.startswith("| all")]
    assert cells[3:5] == ["0.0220", "0.0440"]


def test_rows_of_markdown_have_as_many_cells_as_the_head(study, frame):
    text = export.markdown(odd(frame), study[0])
    rows = [line for line in text.splitlines() if line.startswith("|")]
    assert len(rows) == len(frame) + 2 * 2
    for row in rows:
        assert len(re.findall(r"(?<!\\)\|", row)) == len(export.HEADS) + 1, row
    assert r"\| \< \> \[ \] \*" in text
    assert "&amp; %" in text


def test_a_family_is_named_with_its_margin_and_the_primary_one_comes_first(study, frame):
    text = export.markdown(frame.iloc[::-1], study[0])
    first, second = re.findall(r"\*\*(.*)\*\*", text)
    assert first.startswith(
        "after − before: test accuracy, primary family: 4 comparisons, n = 6 pairs each, margin 2.00 pp"
    )
    assert "test loss, secondary family" in second
    assert "margin 0.050 nats" in second


def command(monkeypatch, capsys, *words):
    """Exit code and what was said, of the real command."""
    monkeypatch.setattr(sys, "argv", ["normorder", *map(str, words)])
    try:
        normorder.main()
    except SystemExit as end:
        return end.code or 0, capsys.readouterr()
    return 0, capsys.readouterr()


def test_the_command_says_where_it_wrote(study, tmp_path, monkeypatch, capsys):
    store = study[1]
    path = store.path.parent / "simulated.toml"
    code, said = command(
        monkeypatch, capsys, "export", path, "--store", store.path, "--format", "latex", "--out", tmp_path / "out"
    )
    assert code == 0
    assert said.out == f"{tmp_path / 'out' / 'comparisons.tex'}: 8 comparisons\n"
    assert (tmp_path / "out" / "comparisons.tex").read_text().startswith("% Comparisons of simulated.")


def test_an_unknown_format_is_an_error_of_use_that_names_the_choices(study, monkeypatch, capsys):
    code, said = command(monkeypatch, capsys, "export", study[1].path.parent / "simulated.toml", "--format", "word")
    assert code == 2
    assert "word" in said.err
    assert "markdown" in said.err


def test_a_store_that_cannot_be_reported_is_one_line(study, tmp_path, monkeypatch, capsys):
    path = study[1].path.parent / "simulated.toml"
    code, said = command(monkeypatch, capsys, "export", path, "--store", tmp_path / "none", "--format", "csv")
    assert code == 2
    assert said.err.startswith(f"normorder: {tmp_path / 'none'}: the store is empty")
    assert said.err.count("\n") == 1


def test_a_truncated_file_of_the_store_is_one_line_that_names_it(study, tmp_path, monkeypatch, capsys):
    store = study[1]
    for path in store.path.rglob("*.parquet"):
        copy = tmp_path / "store" / path.relative_to(store.path)
        copy.parent.mkdir(parents=True, exist_ok=True)
        copy.write_bytes(path.read_bytes()[: -100 if "runs" in str(path) else None])
    words = ("--store", tmp_path / "store", "--format", "csv")
    code, said = command(monkeypatch, capsys, "export", store.path.parent / "simulated.toml", *words)
    assert code == 2
    assert re.fullmatch(r"normorder: .*\.parquet: not a readable Parquet file: .*\n", said.err)


def test_a_place_that_cannot_be_written_is_named(study, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(ReportError, match=r"file: cannot be written"):
        export.export(*study, "csv", tmp_path / "file")
    (tmp_path / "folder" / "comparisons.csv").mkdir(parents=True)
    with pytest.raises(ReportError, match=r"comparisons.csv: cannot be written: Is a directory"):
        export.export(*study, "csv", tmp_path / "folder")


@pytest.mark.parametrize("begin", ["=", "+", "-", "@", "\t", "\r"])
def test_words_that_a_spreadsheet_would_compute_are_words_in_csv(tmp_path, begin):
    frame = pd.DataFrame({"host": [f"{begin}cmd|'/C calc'!A0", f"a{begin}b", None], "loss": [-1.5, 0.25, 1e-300]})
    export.write_csv(frame, tmp_path / "a.csv")
    again = pd.read_csv(tmp_path / "a.csv", keep_default_na=False)
    assert again["host"].tolist() == [f"'{begin}cmd|'/C calc'!A0", f"a{begin}b", ""]
    assert again["loss"].tolist() == frame["loss"].tolist()
