"""What is compared: a number for each run. Metrics are columns of `runs`; what is derived from them has a name here too.

A measure knows how its differences are shown, which sign is the better one, its smallest step, and what a diverged run
counts as.
"""

from collections.abc import Mapping
from typing import Literal, NamedTuple

import numpy as np
import pandas as pd

from reports.layer_names import LOG, PREFIX, SHARES, layer_metric
from results.selection import split, worst_outcome

Array = np.ndarray
Kind = Literal["accuracy", "loss", "calibration_error", "gap", "epochs", "share", "magnitude", "number"]
SMALLEST_STEP = 1e-6  # of measures that do not count examples


class Measure(NamedTuple):
    """`part`: whose examples it is measured on, train, val or test."""

    name: str
    kind: Kind
    part: str

    @property
    def of_layers(self) -> bool:
        """Whether it is measured inside the networks, where a run that diverges has a value of its own, or none."""
        return self.name.startswith(PREFIX)

    @property
    def title(self) -> str:
        if self.of_layers:
            return layer_metric(self.name).title
        return self.name.replace("_", " ")

    @property
    def larger_is_better(self) -> bool:
        """Of accuracies; the smaller loss, calibration error, gap and number of epochs is the better."""
        return self.kind == "accuracy"

    @property
    def unit(self) -> str:
        """Of its differences: percentage points for shares, nats for losses, decades (factors of 10) for magnitudes."""
        return {"loss": "nats", "epochs": "epochs", "magnitude": "decades", "number": ""}.get(self.kind, "pp")

    @property
    def factor(self) -> float:
        """From the number in the store to its unit."""
        return 100.0 if self.unit == "pp" else 1.0

    @property
    def decimals(self) -> int:
        return {"nats": 3, "epochs": 1}.get(self.unit, 2)

    def step(self, facts: Mapping[str, Array]) -> Array:
        """The smallest difference that two runs can have, (K,): one example, for an accuracy."""
        if self.kind == "accuracy" and self.name not in OVER_EPOCHS:
            examples = facts[f"{self.part}_examples"]  # 1 where a store older than the column does not know them
            return np.where(examples > 1, 1 / examples, SMALLEST_STEP)
        if self.kind == "epochs":
            return np.ones(len(facts["classes"]))
        return np.full(len(facts["classes"]), SMALLEST_STEP)

    def worst(self, facts: Mapping[str, Array], a: Array, b: Array) -> Array:
        """What a diverged run counts as, (K,). a, b (n, K): the values of the finished runs of both arms.

        Accuracy of guessing; the larger of ln classes and the worst finite loss; calibration error 1; the worst finite gap;
        one epoch more than there were. Of layers nothing: such a run counts as it was measured, or is missing.
        """
        match self.kind:
            case "accuracy" | "loss" | "calibration_error":
                return worst_outcome(self.kind, facts["classes"], np.concatenate([a, b]))
            case "gap":
                both = np.concatenate([a, b])
                return np.where(np.isfinite(both), both, 0.0).max(0, initial=0.0)
            case "epochs":
                return facts["epochs"] + 1
            case "share" | "magnitude" | "number":
                return np.full(len(facts["classes"]), np.nan)


OVER_EPOCHS = ("mean_val_accuracy",)  # accuracies that are no share of the part's examples
DERIVED = {
    "generalisation_gap": Measure("generalisation_gap", "gap", "test"),
    "running_less_reestimated": Measure("running_less_reestimated", "gap", "test"),
    "first_epoch_val_accuracy": Measure("first_epoch_val_accuracy", "accuracy", "val"),
    "mean_val_accuracy": Measure("mean_val_accuracy", "accuracy", "val"),
    "epochs_to_threshold": Measure("epochs_to_threshold", "epochs", "val"),
}


def measure(name: str) -> Measure:
    """The measure of this name. KeyError where there is none."""
    if name.startswith(PREFIX):
        statistic = layer_metric(name).statistic
        kind = "share" if statistic in SHARES else "magnitude" if statistic.startswith(LOG) else "number"
        return Measure(name, kind, "val")
    if name in DERIVED:
        return DERIVED[name]
    _, part, kind = split(name)
    return Measure(name, kind, part)


def derive(runs: pd.DataFrame) -> pd.DataFrame:
    """`runs` with the measures that are differences of its own columns."""
    return runs.assign(
        generalisation_gap=runs["train_accuracy"] - runs["test_accuracy"],
        running_less_reestimated=runs["test_accuracy"] - runs["reestimated_test_accuracy"],
    )
