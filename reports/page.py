"""One HTML page from a grid and its store."""

from pathlib import Path

import pandas as pd

from grids import Grid
from results import Store


def write(grid: Grid, store: Store, folder: Path) -> Path:
    """Mean differences of each contrast, pairs joined by cell and seed."""
    runs = store.read("runs").to_pandas().set_index("run_id")
    rows = []
    for contrast, (first, second) in grid.analysis.pairs.items():
        values = {}
        for run in grid.runs():
            if run.run_id in runs.index:
                values[run.cell.without("order"), run.seed, run.cell.order] = runs.at[run.run_id, "test_accuracy"]
        pairs = {(c, s) for c, s, o in values if o == first and (c, s, second) in values}
        differences = pd.Series([values[c, s, first] - values[c, s, second] for c, s in pairs])
        rows.append({"contrast": contrast, "n": len(pairs), "difference": differences.mean()})
    folder.mkdir(parents=True, exist_ok=True)
    page = folder / "index.html"
    page.write_text(f"<h1>{grid.name}</h1>" + pd.DataFrame(rows).to_html())
    return page
