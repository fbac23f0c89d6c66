"""Print reports/CALIBRATION.md: what intervals, tests and verdicts promise and what simulations give, and corner cases.

$ python tests/calibration/table.py [TIMES] > reports/CALIBRATION.md

TIMES: how many times the simulations of the tests, 1 if not given.
"""

import sys
import tempfile
from collections.abc import Iterable, Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from calibration import corner_cases
from calibration.errors import TESTS
from calibration.families import FAMILIES
from calibration.intervals import INTERVALS
from calibration.promises import RIGHT, SIZES, Promise, measured

PARTS = {"Intervals": INTERVALS, "Tests of one comparison": TESTS, "Families and verdicts": FAMILIES}
INTRODUCTION = """# Calibration

What the intervals, tests and verdicts of a report promise, and in what share of simulations it holds: for n pairs a
comparison, {times} times as many simulations as the tests run (`python tests/calibration/table.py {times}` prints this
page; `tests/test_calibration.py` checks it). A promised share is known beforehand, or is a bound that the procedure
keeps; a range is what was measured where the assumption of normal differences does not hold. The tests also measure
wrong versions of every procedure (the last column) and see that each leaves the band of 4 standard errors about the
promise.

Differences are normal, or log-normal with a skewness of 0.8 or 1.75, or of heavy tails (t with 3 degrees of freedom).
α is 0.05, a family has 54 comparisons. What breaks: skewed differences make intervals too short and families err too
often, the more so the fewer pairs there are (notes say `skewed` from 10 pairs on); the limit of the sd, and with it the
number of seeds needed, is too low where tails are heavy; an arm that fails too rarely to be seen is called equivalent.
"""
CORNERS = """
## Corner cases

20 seeds, a margin of 0.02 (loss: 0.05) and a test set of 500 examples unless the case says otherwise; a diverged run
has the accuracy of guessing among 10 classes. n counts pairs, diverged ones included. Nothing that cannot be computed
is significant: its p is 1. A margin of 0 is refused when the grid is read.
"""


def shares(promised: dict[int, tuple[float, float]]) -> str:
    """The promise in words: one number or range where it is the same for each n."""
    alike = len(set(promised.values())) == 1
    texts = [f"{(low + high) / 2:.3f}" + f" ± {(high - low) / 2:.3f}" * (low < high) for low, high in promised.values()]
    if not alike:
        return ", ".join(texts)
    low, high = next(iter(promised.values()))
    return texts[0] if low == high else f"{low:g} to {high:g}"


def line(promise: Promise, times: int) -> str:
    by_size = {n: measured(promise, n, times) for n in promise.draws}
    seen = [f"{by_size[n][RIGHT]:.3f}" if n in by_size else "" for n in SIZES]
    wrong = sorted({version for each in by_size.values() for version in each} - {RIGHT})
    counts = sorted({draws * times for draws in promise.draws.values()})
    simulations = " to ".join(f"{count:,}" for count in dict.fromkeys((counts[0], counts[-1])))
    return f"| {' | '.join([promise.what, shares(promise.share), *seen, simulations, '; '.join(wrong)])} |"


def head() -> str:
    columns = ["promise", "promised", *(f"n = {n}" for n in SIZES), "simulations", "wrong versions that are seen"]
    return f"| {' | '.join(columns)} |\n{'|---' * len(columns)}|"


def corner_lines(folder: Path) -> Iterable[str]:
    for i, case in enumerate(corner_cases.CASES):
        place = folder / str(i)
        place.mkdir()
        yield corner_cases.line(case, corner_cases.row(case, place))


def main(arguments: Sequence[str]) -> None:
    times = int(arguments[0]) if arguments else 1
    print(INTRODUCTION.format(times=times))
    for title, promises in PARTS.items():
        print(f"## {title}\n\n{head()}")
        for promise in promises:
            print(line(promise, times), flush=True)
        print()
    print(f"{CORNERS.strip()}\n\n{corner_cases.HEAD}")
    with tempfile.TemporaryDirectory() as folder:
        for text in corner_lines(Path(folder)):
            print(text, flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
