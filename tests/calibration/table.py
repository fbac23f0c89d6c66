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

What the intervals, tests and verdicts of a report promise, and in what share of simulations of n pairs a comparison it
holds. `python tests/calibration/table.py {times}` prints this page, with {times} × the simulations of
`tests/test_calibration.py`, which checks it. A number without ± is known beforehand, for each n where there are several;
± is what was measured where the procedure promises nothing. The tests also measure wrong versions of every procedure
(last column), and see that each is farther from the promise than 4 standard errors of the simulation.

Differences are normal unless they are said to be skewed (log-normal, skewness 0.8 or 1.75) or of heavy tails (t with 3
degrees of freedom). α is 0.05, a family has 54 comparisons. What breaks:

- Skewed differences: intervals are too short, and families err too often, most at 10 to 20 pairs (0.10 at skewness 0.8,
  0.29 at 1.75; larger families more often). Verdicts are then noted `skewed`, from 10 pairs on.
- Skewed differences or heavy tails: the upper limit of the sd, and with it the number of seeds needed, is too low.
- Failures too rare to be seen: an arm that equals the other but for a failure in 1 of n runs is called equivalent in a
  third of studies of n pairs, whence the upper bound of the failure rate beside each verdict. An arm that did fail is not
  called equivalent before n reaches 2.7 × what a failure costs / margin (80 pairs at 60 points and a margin of 2).
- Tests of spread find little below 10 pairs, and nothing below 5.
"""
CORNERS = """
## Corner cases

20 seeds, a margin of 0.02 (loss: 0.05) and a test set of 500 examples unless the case says otherwise; a diverged run
has the accuracy of guessing among 10 classes. n counts pairs, diverged ones included. Nothing that cannot be computed
is significant: its p is 1. A margin of 0 is refused when the grid is read.
"""


def shares(promised: dict[int, tuple[float, float]]) -> str:
    """The promise in words: one number or range where it is the same for each n."""
    ranges = list(promised.values())
    (low, high), half = ranges[0], (ranges[0][1] - ranges[0][0]) / 2
    if len(set(ranges)) == 1:
        return f"{low:.3f}" if low == high else f"{low:g} to {high:g}"
    return ", ".join(f"{(low + high) / 2:.3f}" for low, high in ranges) + (f" (± {half:.3f})" if half else "")


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
