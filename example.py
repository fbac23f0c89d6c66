"""A question of one's own, asked in a few lines: how soon is each arm as good as the other one is at the end?

$ .venv/bin/python example.py grids/default.toml results/data/default [plug-in ...]

Of every cell the first epoch in which the mean validation accuracy of an arm reaches that of the other arm at the end, both
over all seeds. Ask something else: `runs` has a row a run, `curves` one a run, epoch and part, `compare` all differences.
"""

import sys
from pathlib import Path

import pandas as pd

from normorder_words import Asked, read_grid, use_plugins
from reports.comparisons import compare
from reports.outcomes import gather
from results import Store


def main(grid_path: str, store_path: str, *plugins: str) -> None:
    use_plugins([Path(path) for path in plugins])
    grid, store = read_grid(Asked(Path(grid_path))), Store(store_path)
    first, second = grid.analysis.pairs[grid.analysis.primary.contrast]
    runs = store.read("runs").to_pandas().query("status == 'done'")
    curves = store.read("curves").to_pandas().query("split == 'val'").merge(runs, on=["run_id", "trial"])
    cell = [name for name in ("dataset", "architecture", "activation", "depth") if runs[name].nunique() > 1]
    mean = curves.groupby([*cell, "order", "epoch"])["accuracy"].mean().unstack("epoch")
    for one, other in ((first, second), (second, first)):
        goal = mean.xs(other, level="order").iloc[:, -1]
        reached = mean.xs(one, level="order").ge(goal, axis=0)
        epochs = reached.idxmax(axis=1).where(reached.any(axis=1)).map(lambda epoch: f"{epoch:.0f}", na_action="ignore")
        print(f"epochs until {one} is as good as {other} at the end (empty: never)")
        print(epochs.fillna("").to_frame("epoch").reset_index().to_string(index=False), "\n")
    frame = compare(gather(grid, store), ["test_accuracy"])
    columns = [*cell, "contrast", "difference", "low", "high", "n", "verdict"]
    with pd.option_context("display.width", 120):
        print(frame[columns].round(4).to_string(index=False))


if __name__ == "__main__":
    if len(sys.argv) < 3:
        sys.exit(f"a grid and a store are to be named\n\n{__doc__}")
    main(*sys.argv[1:])
