"""The table of comparisons as a file: all columns for programs (CSV, Parquet), the readable ones for papers and pages."""

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv

from grids import Grid
from reports import words
from reports.comparisons import compare
from reports.measures import measure
from reports.outcomes import ReportError, gather
from reports.rate_curves import how
from reports.tables import by_family, title
from reports.words import amount, difference, enumerated, label, notes, p_value, seeds
from results import Store

FILES = {
    "csv": "comparisons.csv",
    "parquet": "comparisons.parquet",
    "latex": "comparisons.tex",
    "markdown": "comparisons.md",
}
HEADS = ("cell", "n", "difference [95 %]", "p (Holm)", "p equivalence (Holm)", "verdict", "notes")
FORMULA = r"^([=+\-@\t\r])"
_LATEX = str.maketrans({
    "\\": r"\textbackslash{}", "&": r"\&", "%": r"\%", "$": r"\$", "#": r"\#", "_": r"\_", "{": r"\{", "}": r"\}",
    "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "|": r"\textbar{}", "<": "$<$", ">": "$>$",
    "[": "{[}", "]": "{]}", "*": "{*}",  # behind the end of a row they would be its options
    "−": "$-$", "–": "--", "≤": r"$\leq$", "×": r"$\times$", "α": r"$\alpha$", "∞": r"$\infty$", "\n": " ", "\r": " ",
})  # fmt: skip
_MARKDOWN = str.maketrans({c: "\\" + c for c in "\\|*_`<>[]~#"} | {"&": "&amp;", "\n": " ", "\r": " "})


def export(grid: Grid, store: Store, form: str, folder: Path) -> list[str]:
    """Compare what the store holds and write it as `form`, a key of FILES; say what was written. ReportError if not."""
    frame = compare(gather(grid, store))
    with writing(folder):
        path = write(frame, grid, form, folder)
    return [f"{path.resolve()}: {len(frame):,} comparisons"]


@contextlib.contextmanager
def writing(folder: Path) -> Iterator[None]:
    """Make the folder where it is not there, and say what in it cannot be written. ReportError"""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        yield
    except OSError as error:
        raise ReportError(f"{error.filename or folder}: cannot be written: {error.strerror or error}") from None


def write(frame: pd.DataFrame, grid: Grid, form: str, folder: Path) -> Path:
    """Write comparisons into a folder that exists; give the file's path."""
    path = folder / FILES[form]
    if form == "csv":
        write_csv(frame, path)
    elif form == "parquet":
        frame.to_parquet(path, index=False)
    else:
        path.write_text(latex(frame, grid) if form == "latex" else markdown(frame, grid), encoding="utf-8")
    return path


def write_csv(frame: pd.DataFrame, path: Path) -> None:
    """Every number in full, and no formula. Arrow takes a tenth of pandas' time: 4 s for the runs of a million."""
    rows = pa.Table.from_pandas(frame, preserve_index=False)
    with path.open("wb") as file:  # whose errors name the path
        pyarrow.csv.write_csv(pa.table({name: _plain(rows[name]) for name in rows.column_names}), file)


def _plain(column: pa.ChunkedArray) -> pa.ChunkedArray:
    """Words that a spreadsheet would compute, as a host named =cmd|…, get an apostrophe before them, which it leaves out."""
    words = pa.types.is_string(column.type) or pa.types.is_large_string(column.type)
    if not words or not pc.any(pc.match_substring_regex(pc.unique(column), FORMULA)).as_py():
        return column
    return pc.replace_substring_regex(column, FORMULA, r"'\1")


def latex(frame: pd.DataFrame, grid: Grid) -> str:
    r"""A longtable for each family, for \input: tables of many cells go over pages, which a table* cannot."""
    head = " & ".join(f"{_latex(name)}" for name in HEADS) + r" \\"
    lines = [f"% Comparisons of {_line(grid.name)}. The preamble needs \\usepackage{{booktabs,longtable}}."]
    for caption, rows in _families(frame, grid, _latex):
        lines += [
            r"\begingroup\footnotesize\setlength{\tabcolsep}{4pt}",
            r"\begin{longtable}{@{}lrrrrlp{0.2\textwidth}@{}}",
            rf"\caption{{{caption}}} \\",
            *(r"\toprule", head, r"\midrule", r"\endfirsthead"),
            *(r"\toprule", head, r"\midrule", r"\endhead", r"\bottomrule", r"\endfoot"),
            *(" & ".join(row) + r" \\" for row in rows),
            *(r"\end{longtable}", r"\endgroup", ""),
        ]
    return "\n".join(lines)


def markdown(frame: pd.DataFrame, grid: Grid) -> str:
    """A table for each family, as GitHub renders it."""
    lines = [f"# {_markdown(grid.question)}", ""]
    for caption, rows in _families(frame, grid, _markdown):
        heads = [_markdown(name) for name in HEADS]
        rule = ["---", *["---:"] * 4, "---", "---"]
        lines += [f"**{caption}**", "", *("| " + " | ".join(row) + " |" for row in (heads, rule, *rows)), ""]
    return "\n".join(lines)


def _families(
    frame: pd.DataFrame, grid: Grid, escape: Callable[[str], str]
) -> Iterator[tuple[str, Iterator[list[str]]]]:
    """Of each family its caption and rows, escaped."""
    varying = words.varying(frame)
    for (metric, contrast), role, family in by_family(frame, grid):
        of, margin = measure(metric), grid.analysis.margin.get(metric)
        within = "no margin" if margin is None else f"margin {amount(margin, of)} {of.unit}"
        caption = (
            f"{title(metric, contrast)}, {role} family: {len(family):,} comparisons, {seeds(family)} pairs each, {within}, "
            f"α = {grid.analysis.alpha:g}. Differences are first arm minus second with 95 % t intervals; p values are "
            "adjusted by Holm."
        )
        if len(grid.seeds.looks) > 1:
            caption += (
                f" Seeds are adaptive, with looks after {enumerated([*map(str, grid.seeds.looks)])}: intervals hold at all "
                "looks together, and p values are adjusted for them."
            )
        if at := how(grid):
            caption += f" Compared {at}; notes: the value of the first arm / of the second."
        yield escape(caption), ([escape(text) for text in _row(row, varying)] for row in family.to_dict("records"))


def _row(row: Mapping[str, object], varying: Sequence[str]) -> list[str]:
    """A comparison in the columns HEADS."""
    tests = [p_value(row[name]) for name in ("p_holm", "p_equivalence_holm")]
    return [label(row, varying), str(row["n"]), difference(row), *tests, row["verdict"], "; ".join(notes(row))]


def _line(text: str) -> str:
    return " ".join(text.split())


def _latex(text: str) -> str:
    return text.translate(_LATEX)


def _markdown(text: str) -> str:
    return text.translate(_MARKDOWN)
