"""What is measured inside networks, by name: statistics of the table `layers`, and metrics of runs that are made of them.

The name of such a metric says where and when: layers.saturated.act.last.end is the share of saturated values that the
act of the last block gave after training.
"""

from typing import NamedTuple

import pyarrow as pa

from results.schema import LAYERS

MEASURED = tuple(field.name for field in LAYERS if pa.types.is_floating(field.type))
OF_MAGNITUDE = ("sd", "gradient_norm", "update_norm", "gradient_change")  # whose differences are ratios
LOG = "log10_"  # before the name of one of them: its decimal logarithm, so that a mean over seeds is the geometric one
STATISTICS = (*MEASURED, *(LOG + name for name in OF_MAGNITUDE))
SHARES = tuple(name for name in MEASURED if (LAYERS.field(name).metadata or {}).get(b"unit", b"").startswith(b"share"))
PLACES = {
    "first": "first block",
    "middle": "middle block",
    "last": "last block",
    "mean": "mean over blocks",
}
WHEN = {"start": "at initialisation", "end": "after the last probed epoch"}
TITLES = {
    "saturated": "share of saturated values",
    "dead": "share of dead channels",
    "negative": "share of negative values",
    "zeros": "share of zeros",
    "mean_cosine": "mean cosine of two examples",
    "sd": "standard deviation",
    "gradient_norm": "gradient norm",
    "update_norm": "relative size of a step",
    "gradient_change": "change of the gradient",
}
PREFIX = "layers."
FORM = "layers.<statistic>.<site>.<place>.<when>"


class LayerMetric(NamedTuple):
    """A statistic of one site of one block, or its mean over the blocks that have it, at one time."""

    statistic: str
    site: str
    place: str
    when: str

    @property
    def title(self) -> str:
        """'share of saturated values (act, last block, at initialisation)'"""
        return self.title_since(None)

    def title_since(self, epoch: int | None) -> str:
        """The same, of drift with the epoch that it is since, where that is one."""
        name = f"drift {since_when(epoch)}" if self.statistic == "drift" else title(self.statistic)
        logarithm = "logarithm of the " if self.statistic.startswith(LOG) else ""
        return f"{logarithm}{name} ({self.site}, {PLACES[self.place]}, {WHEN[self.when]})"


def since_when(epoch: int | None) -> str:
    """'since initialisation', 'since epoch 3': of drift; None where that depends on the run."""
    return f"since {f'epoch {epoch}' if epoch else 'initialisation'}" if epoch is not None else "since the probe before"


def title(statistic: str) -> str:
    """A statistic in words, of a logarithm what it is one of."""
    name = statistic.removeprefix(LOG)
    return TITLES.get(name, name.replace("_", " "))


def layer_metric(name: str) -> LayerMetric:
    """What the name of a metric stands for. ValueError, without the name, says the rule that it breaks, and the choices."""
    parts = name.split(".")
    if len(parts) != 5 or f"{parts[0]}." != PREFIX or not parts[2]:
        raise ValueError(f"a metric of layers is {FORM}")
    found = LayerMetric(*parts[1:])
    for key, value, choices in (
        ("statistics", found.statistic, STATISTICS),
        ("places", found.place, PLACES),
        ("times", found.when, WHEN),
    ):
        if value not in choices:
            raise ValueError(f"{value!r} is none of the {key}: {', '.join(choices)}")
    return found
