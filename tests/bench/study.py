"""Time and memory of whole commands on this machine: sweep, plan and report of a grid, and of hundreds of short trials.

$ make bench

Each command runs in processes of its own, into a store in a temporary folder. Memory is the sum over the process tree
of proportional set sizes (shared pages counted once), sampled every second; a figure for the record, not a test.
"""

import contextlib
import os
import platform
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import psutil

DEFAULT = Path(__file__).parents[2] / "grids" / "default.toml"
SHORT = """
[axes]
dataset      = ["digits"]
architecture = ["cnn"]        # one seed a trial
order        = ["weight-act", "weight-bn-act", "weight-act-bn"]
activation   = ["relu", "tanh"]
depth        = [1]
[recipe]
epochs = 1
width  = 4
[seeds]
count = 100
"""


def tree_bytes(process: psutil.Process) -> dict[int, int]:
    """Proportional set size of a process and its descendants, by process number."""
    sizes = {}
    for each in [process, *process.children(recursive=True)]:
        try:
            sizes[each.pid] = each.memory_full_info().pss
        except psutil.Error:
            continue
    return sizes


def run(*words: str) -> tuple[float, int, list[dict[int, int]]]:
    """Wall seconds, peak bytes of the tree, and all samples of a command."""
    start = time.monotonic()
    process = psutil.Popen([sys.executable, "-m", "normorder", *words], stdout=subprocess.DEVNULL)
    samples = []
    while process.poll() is None:
        samples.append(tree_bytes(process))
        with contextlib.suppress(psutil.TimeoutExpired):
            process.wait(timeout=1.0)
    if process.returncode:
        raise SystemExit(f"{' '.join(words)} ended with {process.returncode}")
    return time.monotonic() - start, max(sum(sample.values()) for sample in samples), samples


def growth(samples: list[dict[int, int]]) -> int:
    """Bytes by which the process that grew most did so from a third to nine tenths of the run."""
    third, end = samples[len(samples) // 3], samples[len(samples) * 9 // 10]
    return max((end[pid] - third[pid] for pid in third.keys() & end.keys()), default=0)


def main() -> None:
    grid = sys.argv[1] if len(sys.argv) > 1 else str(DEFAULT)
    print(f"{platform.processor() or platform.machine()}, {os.cpu_count()} cores, python {platform.python_version()}")
    with tempfile.TemporaryDirectory() as folder:
        store, short = ["--store", f"{folder}/store"], Path(folder) / "short.toml"
        short.write_text(SHORT)
        os.chdir(folder)
        wall, peak, _ = run("sweep", grid, *store)
        print(f"sweep of {Path(grid).stem}: {wall:.0f} s, peak {peak / 2**30:.2f} GiB", flush=True)
        for command in ("plan", "report"):
            times = sorted(run(command, grid, *store)[0] for _ in range(5))
            print(f"{command}: median {times[2]:.1f} s (n = 5, {times[0]:.1f} to {times[-1]:.1f})", flush=True)
        wall, peak, samples = run("sweep", str(short), "--store", f"{folder}/short")
        print(
            f"600 trials of one run in reused workers: {wall:.0f} s, peak {peak / 2**30:.2f} GiB, "
            f"most growth of a process from a third to nine tenths of it {growth(samples) / 2**20:.0f} MiB"
        )


if __name__ == "__main__":
    main()
