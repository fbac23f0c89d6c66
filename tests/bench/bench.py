"""Measure everything that normorder promises about speed on this machine, print a table, write bench.json.

$ make bench                                               about an hour
$ .venv/bin/python tests/bench/bench.py --quick            about two minutes, too few repetitions to quote

Every ratio is of measurements that took turns (A B A B …): the median over the rounds, with the smallest and largest.
"""

import argparse
import json
import os
import platform
import shutil
import tempfile
import time
from collections.abc import Sequence
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from statistics import median
from typing import NamedTuple

import agreement
import numpy as np
import pandas as pd
import plain
import probing
import scale
import steps
import study
import variants
from rich.console import Console
from rich.table import Table

from harness import datasets
from harness.trial import processor


class Row(NamedTuple):
    """One promise: what was measured in each round, and what limits it or how it was computed."""

    what: str
    values: Sequence[float]  # a number a round
    unit: str  # × is a ratio of two times
    target: str
    stretch: str
    met: bool
    engine: str

    @property
    def told(self) -> str:
        low, mid, high = min(self.values), median(self.values), max(self.values)
        digits = 1 if mid >= 10 else 2
        spread = f" ({low:.{digits}f} to {high:.{digits}f})" if len(self.values) > 1 else ""
        return f"{mid:.{digits}f} {self.unit}{spread}, n = {len(self.values)}"


def at_least(what, values, unit, target, stretch, engine="") -> Row:
    shown = [f"{each:g} {unit}" if each else "–" for each in (target, stretch)]
    return Row(what, values, unit, *shown, median(values) >= target, engine)


def at_most(what, values, unit, target, stretch, engine="") -> Row:
    shown = [f"{each:g} {unit}" if each else "–" for each in (target, stretch)]
    return Row(what, values, unit, *shown, median(values) <= target, engine)


def ratios(a: Sequence[float], b: Sequence[float]) -> list[float]:
    return [x / y for x, y in zip(a, b, strict=True)]


def of_studies(quick: bool, rounds: int, folder: Path, raw: dict) -> list[Row]:
    """Sweeps into empty stores, with cold and with warm caches, in turns with two Ray Tune programs on a sample."""
    cells, seeds = (3, 2) if quick else (18, 2)
    grid = folder / "study.toml"
    text = study.DEFAULT.read_text(encoding="utf-8")
    if quick:  # of the default study, one activation and a few seeds
        text = text.replace('"leaky_relu", "elu", "maxout", "tanh", "sigmoid"', "").replace("count = 20", "count = 8")
    grid.write_text(text, encoding="utf-8")
    environment = dict(os.environ)
    found: dict[str, list[dict]] = {name: [] for name in ("idiomatic", "tuned", "cold", "warm")}
    warm = {**environment, "TORCHINDUCTOR_CACHE_DIR": str(folder / "warm")}
    if not quick:  # the study once with every graph compiled; its time tells what compiling costs
        raw["warming"] = study.sweep(grid, folder / "warming", warm, "--mode", "compiled")
        progress(f"sweep that compiles everything: {per_run(raw['warming']):.3f} s a run")
    for turn in range(rounds):
        for program in ("idiomatic", "tuned"):
            out = folder / f"{program}.json"
            found[program].append(study.baseline(program, grid, cells, seeds, out, environment))
            progress(f"{program}: {per_run(found[program][-1]):.2f} s a run")
        cold = {**environment, "TORCHINDUCTOR_CACHE_DIR": str(folder / f"cold{turn}")}
        for name, where in {"cold": cold, "warm": warm}.items():
            if name == "cold" or not quick:
                found[name].append(study.sweep(grid, folder / f"{name}{turn}", where))
                progress(f"sweep with {name} caches: {per_run(found[name][-1]):.3f} s a run")
    raw["studies"] = found
    per = {name: [per_run(each) for each in of] for name, of in found.items()}
    how = {name: engines(found[name]) for name in ("cold", "warm")}
    rows = [
        at_least(
            "default study, caches cold, against idiomatic Ray Tune",
            ratios(per["idiomatic"], per["cold"]),
            "×",
            25,
            40,
            how["cold"],
        )
    ]
    if per["warm"]:
        rows.append(at_least("the same, caches warm", ratios(per["idiomatic"], per["warm"]), "×", 30, 60, how["warm"]))
    rows.append(at_least("cold, against tuned Ray Tune", ratios(per["tuned"], per["cold"]), "×", 4, 8, how["cold"]))
    for name in ("idiomatic", "tuned"):
        same = agreed(found["cold"][0], found[name])
        what, target = f"test accuracy less that of {name}, mean over cells", f"±{100 * agreement.MARGIN:g} points"
        rows.append(Row(what, [100 * same.difference], "points", target, "–", same.verdict == "agree", str(same)))
    raw["baseline_threads"] = {
        name: sorted({run["threads"] for each in found[name] for run in each["runs"]})
        for name in ("idiomatic", "tuned")
    }
    raw["sample"] = f"{cells} cells of the grid over all its depths and orders, {seeds} seeds each"
    return rows


def per_run(found: dict) -> float:
    """Wall seconds for each run; a sweep gives their number, a baseline the runs."""
    return found["wall_s"] / (found["runs"] if isinstance(found["runs"], int) else len(found["runs"]))


def engines(sweeps: Sequence[dict]) -> str:
    """What really ran in each sweep: runs by mode, and the largest S that was chosen."""
    told = []
    for each in sweeps:
        compiled = sum(n for engine, n in each["engines"].items() if "compiled" in engine)
        told.append(f"{compiled} of {each['runs']} runs compiled, S to {max(each['seed_blocks'], default=1):.0f}")
    return "; ".join(dict.fromkeys(told))


def agreed(ours: dict, theirs: Sequence[dict]) -> agreement.Agreement:
    """Whether a program's accuracies on its cells are distributed as those of the sweep: runs of its first round."""
    by_cell: dict[tuple, list[float]] = {}
    for row in theirs[0]["runs"]:
        cell = row["cell"]
        by_cell.setdefault((cell["order"], cell["activation"], cell["depth"]), []).append(row["test_accuracy"])
    mine = pd.DataFrame(ours["accuracy"]).groupby(["order", "activation", "depth"]).test_accuracy
    columns = [mine.get_group(cell) for cell in by_cell]
    mine = np.nan_to_num(np.array(columns).T, nan=0.1)  # (seeds, cells); a diverged run guesses one of ten classes
    return agreement.agreement(mine, np.array(list(by_cell.values())).T)


def of_steps(quick: bool, rounds: int, folder: Path, raw: dict) -> list[Row]:
    """Training steps on one thread."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "TORCHINDUCTOR_CACHE_DIR": str(folder / "steps")}
    found = steps.compare(rounds if quick else 2 * rounds + 1, 0.5 if quick else 4.0, environment)
    raw["steps"] = found
    s = {what: steps.seed_step(each) for what, each in found.items() if what != "sgemm"}
    n = len(s["mlp eager"])
    compiled, cold = s["mlp compiled"][-n:], found["mlp compiled"][0]["compile_s"]
    loaded = [each["compile_s"] for each in found["mlp compiled"][1:]]
    flops = [each["flops"] for each in found["sgemm"]]
    share = {
        how: [100 * steps.FLOPS / t / f for t, f in zip(times, flops, strict=True)]
        for how, times in (("eager", s["mlp eager"]), ("compiled", compiled), ("plain", s["mlp plain"]))
    }
    gain = median(s["mlp eager"]) - median(compiled)
    pays = (
        f"pays from {cold / gain:,.0f} seed-steps cold, {median(loaded) / gain:,.0f} from disk"
        if gain > 0
        else "never pays"
    )
    raw["compiling"] = {"cold_s": cold, "from_disk_s": loaded, "pays": pays}
    S, together = found["mlp eager"][0]["seeds"], found["mlp compiled"][0]["seeds"]
    how = {
        "eager": f"eager, S = {S}",
        "compiled": f"1 graph, no fallback, S = {together}; compiling took {cold:.0f} s, {pays}",
    }
    rows = []
    for name, times in (("compiled", compiled), ("eager", s["mlp eager"])):
        rows.append(
            at_least(
                f"MLP 8 × 64, batch 32, {name} step against the plain loop",
                ratios(s["mlp plain"], times),
                "×",
                5,
                7,
                how[name],
            )
        )
        rows.append(
            at_least(
                f"share of sgemm, {name} ({median(flops) / 1e9:.0f} GFLOP/s)",
                share[name],
                "%",
                45,
                70,
                f"the plain loop: {median(share['plain']):.0f} %",
            )
        )
    by_hand = ratios(s["mlp plain-compiled"][-n:], compiled)
    what = "the same against a plain step that is compiled likewise"
    rows.append(Row(what, by_hand, "×", "–", "–", True, "a graph a network: pays later still"))
    rows.append(
        at_least(
            "CNN 3 × 16 on 28×28, batch 100, against the plain loop",
            ratios(s["cnn plain"], s["cnn eager"]),
            "×",
            1.2,
            1.5,
            "eager, S = 1",
        )
    )
    raw["plain"] = {}
    for name in steps.CELLS if not quick else ("mlp",):
        timing = variants.fastest_plain(steps.CELLS[name], plain.parts(steps.data_of(name)), rounds=1 if quick else 9)
        rows.append(
            at_most(
                f"plain loop of the {name} against the fastest of {len(timing.seconds)} variants",
                [timing.ratio("fast")],
                "×",
                variants.ALLOWED,
                0,
                f"fastest: {timing.fastest}",
            )
        )
        raw["plain"][name] = timing.seconds
    return rows


def of_probes(quick: bool, rounds: int, folder: Path, raw: dict) -> list[Row]:
    """What probes at initialisation and after the last epoch add to a trial."""
    cases = dict(list(probing.CASES.items())[: 1 if quick else None])
    raw["probes"] = found = probing.measure(1 if quick else 2 * rounds + 1, cases)
    return [
        at_most(f"probes, of a trial's time: {name}", shares, "%", probing.ALLOWED, 0, "eager")
        for name, shares in found.items()
    ]


def of_architectures(quick: bool, rounds: int, folder: Path, raw: dict) -> list[Row]:
    """A training step of a small network of each architecture, against the plain loop with the same network, one thread."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    found = steps.compare_architectures(rounds if quick else 2 * rounds + 1, 0.3 if quick else 2.0, environment)
    raw["architectures"] = found
    rows = []
    for name, cell in steps.SMALL.items():
        ours, theirs = (steps.seed_step(found[how][name]) for how in ("ours", "plain"))
        chosen = ", ".join(map(str, sorted({each["seeds"] for each in found["ours"][name]})))
        how = f"eager, S = {chosen}: {told_ms(ours)} a seed, the plain loop {told_ms(theirs)}"
        what = f"{name} {cell.depth} × {cell.width}, {cell.dataset}, batch {cell.batch}: step against the plain loop"
        rows.append(Row(what, ratios(theirs, ours), "×", "–", "–", True, how))
    return rows


def told_ms(seconds: Sequence[float]) -> str:
    low, mid, high = (1e3 * each(seconds) for each in (min, median, max))
    return f"{mid:.2f} ms ({low:.2f} to {high:.2f})"


def of_sweeps(quick: bool, rounds: int, folder: Path, raw: dict) -> list[Row]:
    """What a sweep of long trials does beside training, and what hundreds of short trials do to its memory."""
    slots = os.cpu_count() or 1
    environment = {**os.environ, "TORCHINDUCTOR_CACHE_DIR": str(folder / "long-cache")}
    grid = folder / "long.toml"
    grid.write_text(study.LONG.format(epochs=4 if quick else 120))
    found = [study.sweep(grid, folder / f"long{turn}", environment) for turn in range(rounds)]
    raw["long"] = found
    progress("sweep of long trials")
    shortest = min(each["shortest_trial_s"] for each in found)
    rows = [
        at_most(
            f"share of a sweep not spent training, trials of {shortest:.0f} s and more",
            [100 * study.idle_share(each, slots) for each in found],
            "%",
            5,
            2,
            engines(found),
        )
    ]
    if not quick:
        grid = folder / "short.toml"
        grid.write_text(study.SHORT.format(seeds=100))
        short = study.sweep(grid, folder / "short", environment)
        raw["short"] = short
        memory = f"peak {short['peak_bytes'] / 2**30:.2f} GiB, most growth {short['growth_bytes'] / 2**20:.0f} MiB"
        progress(f"600 trials of one run: {short['wall_s']:.0f} s, {memory}")
    return rows


def of_stores(quick: bool, rounds: int, folder: Path, raw: dict) -> list[Row]:
    """Commands around a store by its size."""
    sizes = (1_000, 10_000) if quick else scale.SIZES
    found = scale.measure(
        sizes, folder / "stores", times={"plan": 2, "validate": 1, "statistics": 2, "report": 1} if quick else {}
    )
    raw["stores"] = found
    seconds = {(each["what"], each["size"]): each["seconds"] for each in found}
    memory = {(each["what"], each["size"]): each["peak_bytes"] / 2**30 for each in found}
    rows = []
    for what in scale.REPETITIONS:
        times = seconds[what, sizes[-1]]
        if what == "plan":
            rows.append(at_most(f"plan over a store of {sizes[-1]:,} finished runs", times, "s", 10, 3))
        if what == "statistics":
            rows.append(at_most(f"statistics of {sizes[-2]:,} runs, one core", seconds[what, sizes[-2]], "s", 5, 0))
        if what == "report":
            rows.append(at_most(f"whole report of {sizes[-1]:,} runs", times, "s", 60, 20))
            rows.append(at_most("its peak memory", [memory[what, sizes[-1]]], "GiB", 4, 2))
        growth = median(times) / median(seconds[what, sizes[-2]])
        rows.append(
            at_most(f"{what}: growth from {sizes[-2]:,} to {sizes[-1]:,} ({median(times):.1f} s)", [growth], "×", 11, 0)
        )
    for line in scale.lines(found):
        progress(line)
    return rows


def table(rows: Sequence[Row], quick: bool) -> Table:
    shown = Table(title=f"{processor()}, {datetime.now(UTC):%Y-%m-%d}")
    for name in ("what", "measured", "target", "stretch", "met", "engine"):
        shown.add_column(name)
    for row in rows:
        met = "quick" if quick else "yes" if row.met else "no"  # the promises are not about a quick measurement
        shown.add_row(row.what, row.told, row.target, row.stretch, met, row.engine)
    return shown


def progress(text: str) -> None:
    print(text, flush=True)


PARTS = {
    "steps": of_steps,
    "architectures": of_architectures,
    "probes": of_probes,
    "studies": of_studies,
    "sweeps": of_sweeps,
    "stores": of_stores,
}


def main() -> None:
    words = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    words.add_argument("--quick", action="store_true", help="two minutes, too few repetitions to quote")
    words.add_argument("--rounds", type=int, help="of each comparison [3, quick 1]")
    words.add_argument("--only", choices=PARTS, nargs="*", default=list(PARTS), help="parts of it")
    words.add_argument("--out", type=Path, default=Path("bench.json"))
    given = words.parse_args()
    datasets.load("mnist1d")  # generated once, before anything is timed
    rounds = given.rounds or (1 if given.quick else 3)
    raw: dict = {}
    rows: list[Row] = []
    folder = Path(tempfile.mkdtemp(prefix="normorder-bench-"))
    try:
        for part in given.only:
            start = time.monotonic()
            rows += PARTS[part](given.quick, rounds, folder, raw)
            progress(f"{part}: {time.monotonic() - start:.0f} s")
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    told = {
        "date": f"{datetime.now(UTC):%Y-%m-%d}",
        "quick": given.quick,
        "hardware": f"{processor()}, {platform.machine()}",
        "versions": {
            "python": platform.python_version(),
            **{name: version(name) for name in ("torch", "ray", "pandas", "pyarrow")},
        },
        "rows": [
            {**row._asdict(), "values": list(row.values), "median": median(row.values), "n": len(row.values)}
            for row in rows
        ],
        "raw": raw,
    }
    given.out.write_text(json.dumps(told, indent=1), encoding="utf-8")
    Console(width=None if os.isatty(1) else 160).print(table(rows, given.quick))
    for what in ("sample", "baseline_threads", "compiling"):
        if what in raw:
            print(f"{what}: {raw[what]}")
    print(f"written: {given.out}")


if __name__ == "__main__":
    main()
