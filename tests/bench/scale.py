"""Time of what goes around a store, by its size: plan, compact, and then plan, validate and report the compacted store.

$ python tests/bench/scale.py [RUNS ...]

Each is a whole process, its start included, but `statistics`: only from the store to its verdicts, on one core. The store
has three arms, so that a million runs are 16,665 comparisons in each contrast and metric.
"""

import os
import platform
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

from synthetic import generate

BENCH, ROOT = Path(__file__).parent, Path(__file__).parents[2]
SIZES = (10_000, 100_000, 1_000_000)
ARMS = ("none", "before", "after")
# In this order.
REPETITIONS = {"plan of small files": 1, "compact": 1, "plan": 5, "validate": 3, "statistics": 5, "report": 3}


def measure(
    sizes: Sequence[int] = SIZES, folder: str | Path | None = None, times: Mapping[str, int] | None = None
) -> list[dict]:
    """Generate, or find in `folder`, a store of each size; time the commands on it. times: other than REPETITIONS.

    A dict for each command and size: what, size, seconds (a list), peak_bytes.
    """
    with tempfile.TemporaryDirectory() as temporary:
        results = []
        for size in sizes:
            kept = Path(folder or temporary) / str(size)
            if not kept.exists():
                generate(size, kept, ARMS)
            copy = kept.with_name(f"{size}-compacted")
            shutil.rmtree(copy, ignore_errors=True)
            shutil.copytree(kept, copy, copy_function=os.link)  # files of a store never change
            for what, often in {**REPETITIONS, **(times or {})}.items():
                timed = [_timed(what.split()[0], copy) for _ in range(often)]
                seconds, peaks = (list(each) for each in zip(*timed, strict=True))
                results.append({"what": what, "size": size, "seconds": seconds, "peak_bytes": max(peaks)})
            shutil.rmtree(copy)
        return results


def _timed(what: str, folder: Path) -> tuple[float, int]:
    """Seconds and peak bytes of a command, or of the statistics alone."""
    grid, store = str(folder / "synthetic.toml"), str(folder / "store")
    alone = what == "statistics"
    of_store = what in ("compact", "validate")
    command = ["-m", "normorder", what, *([store] if of_store else [grid, "--store", store])]
    command = [str(BENCH / "verdicts.py"), grid, store] if alone else command
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    start = time.perf_counter()
    # A report is written below the folder where its command runs.
    process = subprocess.Popen(
        [sys.executable, *command], stdout=subprocess.PIPE, cwd=folder, env=environment, text=True
    )
    told = process.stdout.read()
    _, status, used = os.wait4(process.pid, 0)
    wall = time.perf_counter() - start
    process.stdout.close()
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise SystemExit(f"{' '.join(command)} ended with {process.returncode}")
    return float(told) if alone else wall, used.ru_maxrss * 1024  # Linux counts in KiB


def lines(results: Iterable[dict]) -> list[str]:
    """A line for each result: median, range, how often, and the growth from the size before."""
    told, before = [], {}
    for each in results:
        median = statistics.median(each["seconds"])
        growth = ""
        if each["what"] in before:
            size, seconds = before[each["what"]]
            growth = f", {median / seconds:.1f} times that of {size:,}"
        before[each["what"]] = each["size"], median
        often = f"{min(each['seconds']):.2f} to {max(each['seconds']):.2f}, n = {len(each['seconds'])}"
        told.append(
            f"{each['what']} at {each['size']:,} runs: {median:.2f} s ({often}{growth}), "
            f"peak {each['peak_bytes'] / 2**20:,.0f} MiB"
        )
    return told


if __name__ == "__main__":
    print(f"{platform.processor() or platform.machine()}, {os.cpu_count()} cores, python {platform.python_version()}")
    print(*lines(measure([int(word) for word in sys.argv[1:]] or SIZES)), sep="\n")
