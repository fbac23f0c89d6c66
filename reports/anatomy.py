"""A page of what normalization and activation do to numbers, from the rows and histograms of harness/anatomy.py.

Every number in a sentence or a table is a row of anatomy.csv, which is written beside the page.
"""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import matplotlib as mpl
import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator

from reports import export, figures
from reports.album import Album, template

ARMS = ("none", "before", "after")
CHANNEL_MEAN, CHANNEL_DISTANCE = "mean of the channel in sd", "distance of the orders, each at mean 0 and sd 1"
GRADIENT, RANK = "norm of the first block's gradient", "effective rank of what the last block gives"
CHANGE, BIAS = "relative change of the output, weights times 10", "gradient of the bias over that of the weights"
SAME = 1e-6  # change of the output: less is rounding
LEAST_SHOWN = 1e-16  # on a logarithmic axis, which has no 0


class Values:
    """The numbers of a section, by quantity and setting."""

    def __init__(self, rows: pd.DataFrame):
        self.rows = rows
        keys = zip(rows["quantity"], rows["setting"], strict=True)
        self.known = dict(zip(keys, rows["value"], strict=True))

    def __call__(self, quantity: str, setting: str) -> float:
        return self.known[quantity, setting]

    def words(self, quantity: str, setting: str) -> str:
        return number(self(quantity, setting))

    def percent(self, quantity: str, setting: str) -> str:
        return f"{100 * self(quantity, setting):.1f} %"

    def table(self) -> tuple[list[str], list[list[str]]]:
        """Heads and rows: a setting a row, a quantity a column, in the order of the rows."""
        settings, quantities = (list(dict.fromkeys(self.rows[name])) for name in ("setting", "quantity"))
        found = [[self.known.get((quantity, setting)) for quantity in quantities] for setting in settings]
        cells = [["" if value is None else number(value) for value in row] for row in found]
        return ["", *quantities], [[setting, *row] for setting, row in zip(settings, cells, strict=True)]

    def parts(self, place: int) -> list[str]:
        """What settings, as 'tanh, before, depth 4', have at a place between commas, each once."""
        return list(dict.fromkeys(setting.split(", ")[place] for setting in self.rows["setting"]))


class Part(NamedTuple):
    """A section. says: sentences, from its values. figure: its picture, from its values and histograms."""

    title: str
    about: str
    says: Callable[[Values], list[str]]
    figure: Callable[[Values, Sequence], Figure]
    caption: str


def number(value: float) -> str:
    """Three significant digits; powers of ten where it is very small or large."""
    if value == 0 or 1e-3 <= abs(value) < 1e5:
        text = f"{value:.3g}" if abs(value) < 1000 else f"{value:,.0f}"
    else:
        text = f"{value:.1e}"
    return text.replace("-", "−")


def build(rows: Sequence, histograms: Mapping[str, Sequence], folder: Path) -> list[str]:
    """Write index.html, anatomy.csv and figures/ into `folder`; say what was written.

    rows: (section, quantity, setting, value). histograms: by section, each with name, edges and shares. ReportError if not.
    """
    frame = pd.DataFrame(rows, columns=["section", "quantity", "setting", "value"])
    page, parts = folder / "index.html", []
    with export.writing(folder):
        album = Album(folder / "figures")
        for name, part in PARTS.items():
            values = Values(frame[frame["section"] == name])
            with mpl.rc_context(figures.STYLE):
                picture = album.add(part.figure(values, histograms[name]), name, part.caption)
            heads, cells = values.table()
            shown = {"says": part.says(values), "picture": picture, "heads": heads, "cells": cells}
            parts.append({"id": name, "part": part, **shown})
        export.write_csv(frame, folder / "anatomy.csv")
        page.write_text(template("anatomy.html").render(parts=parts), encoding="utf-8")
    files = f"anatomy.csv with {len(frame)} numbers, and {len(album.names)} figures as SVG and PNG"
    return [str(page.resolve()), f"beside it {files}"]


def _panels(count: int, columns: int, width: float = 2.6, height: float = 2.1, **shared) -> tuple[Figure, list]:
    rows = -(-count // columns)
    figure = Figure(figsize=(width * columns, height * rows), layout="constrained")
    axes = figure.subplots(rows, columns, squeeze=False, **shared).ravel()
    for ax in axes[count:]:
        ax.set_visible(False)
    return figure, list(axes[:count])


def _histogram(ax, histogram, colour: object, label: str = "") -> None:
    ax.stairs(histogram.shares, histogram.edges, fill=True, color=colour, alpha=0.6, label=label)
    ax.set_yticks([])
    ax.grid(visible=False)


def _plain_ticks(axis, places: Sequence[float] = ()) -> None:
    """Plain numbers on a logarithmic axis, at these places or where matplotlib puts them."""
    if len(places):
        axis.set_major_locator(FixedLocator(places))
    axis.set_minor_locator(NullLocator())
    axis.set_major_formatter(FuncFormatter(lambda x, _: f"{x:g}"))


def _arm_lines(ax, values: Values, quantity: str, name: str, key: str, xs: Sequence[float]) -> None:
    """A line for each arm over xs, the ends of settings '<name>, <arm>, <key> <x>'."""
    colours, lines = figures.arm_colours(ARMS), figures.arm_lines(ARMS)
    for arm in ARMS:
        ys = [values(quantity, f"{name}, {arm}, {key} {x:g}") for x in xs]
        ax.plot(xs, ys, linestyle=lines[arm], color=colours[arm], marker="o", markersize=3, label=arm)
    ax.set(xscale="log", xlabel=key)
    _plain_ticks(ax.xaxis, xs)


def _layer_figure(values: Values, histograms: Sequence) -> Figure:
    colours = {"in": "#777777", **figures.arm_colours(ARMS)}
    figure, axes = _panels(len(histograms) + 1, 4)
    for ax, each in zip(axes, histograms, strict=False):
        _histogram(ax, each, colours[each.name.partition(",")[0]])
        ax.set_title(each.name)
    rows = values.rows
    means, apart = (rows[rows["quantity"] == name]["value"].to_numpy() for name in (CHANNEL_MEAN, CHANNEL_DISTANCE))
    axes[-1].plot(np.abs(means), apart, "o", markersize=3.5)
    axes[-1].set(title="orders apart", xlabel="|mean| of the channel, in sd", ylabel="distance")
    return figure


def _layer_says(values: Values) -> list[str]:
    zero, negative, mean = "share of exact zeros", "share below 0", "mean"
    apart = values.rows[values.rows["quantity"] == CHANNEL_DISTANCE]["value"]
    return [
        f"With normalization before ReLU {values.percent(negative, 'before')} of the outputs are below 0 and "
        f"{values.percent(zero, 'before')} exactly 0; with it after ReLU {values.percent(negative, 'after')} are below 0 "
        f"and {values.percent(zero, 'after')} exactly 0.",
        f"Behind 2×2 max pooling the mean is {values.words(mean, 'before, pooled')} with normalization before, and "
        f"{values.words(mean, 'after, pooled')} after.",
        "Were the range all that differs, the outputs of the two orders would have one distribution once each is brought "
        f"to mean 0 and sd 1. They are {number(apart.min())} to {number(apart.max())} sd apart (first Wasserstein "
        "distance), the more the farther a channel's mean is from 0: before the activation, normalization decides how "
        "much of a channel ReLU cuts off; after it, the channel's own mean does.",
    ]


def _shapes_figure(values: Values, histograms: Sequence) -> Figure:
    colours = figures.arm_colours(ARMS)
    figure, axes = _panels(len(histograms) // 2, 4)
    for k, each in enumerate(histograms):
        name, _, when = each.name.partition(", ")
        _histogram(axes[k // 2], each, colours["none" if when == "before" else "before"], f"{when} normalization")
        axes[k // 2].set_title(name)
    figure.legend(*axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=2)
    return figure


def _shapes_says(values: Values) -> list[str]:
    together, apart = "all channels together", "distance of the two, each at mean 0 and sd 1"
    channels = values.rows[(values.rows["quantity"] == apart) & (values.rows["setting"] != together)]["value"]
    before, after = (values.words(f"skewness {when}", together) for when in ("before", "after"))
    return [
        "Within a channel batch normalization keeps the shape: skewness and kurtosis stay, and no channel is more than "
        f"{number(channels.max())} sd from where it was, once both are brought to mean 0 and sd 1. A uniform channel "
        "does not become a normal one.",
        f"Of all channels together it changes the shape, by {values.words(apart, together)} sd, since each is moved by "
        f"itself: a skewness of {before} becomes {after}.",
    ]


def _saturation_figure(values: Values, histograms: Sequence) -> Figure:
    figure, axes = _panels(len(histograms), 4)
    for ax, each in zip(axes, histograms, strict=True):
        _histogram(ax, each, figures.arm_colours(ARMS)["none"])
        ax.set_title(each.name)
    return figure


def _saturation_says(values: Values) -> list[str]:
    share, slope = "share saturated", "root mean square of the slope"
    never = [name for name in values.parts(0) if values.known.get((share, name)) == 0]
    tanh, sigmoid, relu, elu = (values.percent(share, name) for name in ("tanh", "sigmoid", "relu", "elu"))
    return [
        f"Products of 500 inputs with unscaled weights have an sd of {values.words('sd of weights @ x', 'x')}: {tanh} of "
        f"the outputs of tanh are saturated, and {sigmoid} of those of sigmoid. Gradients pass on times "
        f"{values.words(slope, 'tanh')} and {values.words(slope, 'sigmoid')} (root mean square).",
        f"ReLU is at 0 in {relu}, and the left side of ELU is flat in {elu}, though the other half of each passes "
        f"gradients on whole; {' and '.join(never)} have no place to saturate.",
    ]


def _scales_figure(values: Values, _: Sequence) -> Figure:
    names, scales = values.parts(0), [float(text.removeprefix("scale ")) for text in values.parts(2)]
    figure, axes = _panels(len(names), 3, width=3.0, sharey=True)
    for ax, name in zip(axes, names, strict=True):
        _arm_lines(ax, values, "share saturated", name, "scale", scales)
        ax.set(title=name, ylim=(-0.03, 1.03))
    for ax in axes[::3]:
        ax.set_ylabel("share saturated")
    figure.legend(*axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=len(ARMS))
    return figure


def _scales_says(values: Values) -> list[str]:
    least, *_, most = values.parts(2)
    said = []
    for name in ("tanh", "sigmoid"):
        none, before, after = (
            " to ".join(values.percent("share saturated", f"{name}, {arm}, {end}") for end in (least, most))
            for arm in ARMS
        )
        said.append(
            f"Between weights of {least} and of {most} the share of saturated values of {name} goes from {none} without "
            f"normalization, from {after} with it after the activation, where it comes too late for this layer, and from "
            f"{before} with it before."
        )
    return [*said, "ReLU is at 0 for half of the values whatever the scale; leaky ReLU and maxout never saturate."]


def _depth_figure(values: Values, _: Sequence) -> Figure:
    names, depths = values.parts(0), [int(text.removeprefix("depth ")) for text in values.parts(2)]
    figure, axes = _panels(2 * len(names), len(names), width=3.6)
    for k, ax in enumerate(axes):
        of_gradient, name = k < len(names), names[k % len(names)]
        _arm_lines(ax, values, GRADIENT if of_gradient else RANK, name, "depth", depths)
        ax.set(title=name, ylabel="gradient of the first block" if of_gradient else "effective rank")
        if of_gradient:
            ax.set_yscale("log")
            _plain_ticks(ax.yaxis)
    figure.legend(*axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=len(ARMS))
    return figure


def _depth_says(values: Values) -> list[str]:
    deepest, said = values.parts(2)[-1], []
    for name in values.parts(0):
        growth, rank = (
            [values.words(quantity, f"{name}, {arm}, {deepest}") for arm in ARMS]
            for quantity in ("growth of the gradient for each block", RANK)
        )
        said.append(
            f"With {name} at {deepest} the gradient changes towards the input by a factor of {growth[0]} a block without "
            f"normalization, {growth[1]} with it before the activation and {growth[2]} after. What the last block gives "
            f"has an effective rank of {rank[0]}, {rank[1]} and {rank[2]}."
        )
    return said


def _invariance_figure(values: Values, _: Sequence) -> Figure:
    figure, axes = _panels(2, 2, width=4.4, height=2.8)
    names, colours = values.parts(0), figures.arm_colours(ARMS)
    for ax, quantity in zip(axes, (CHANGE, BIAS), strict=True):
        for k, arm in enumerate(ARMS):
            ys = [max(values(quantity, f"{name}, {arm}"), LEAST_SHOWN) for name in names]
            ax.plot(np.arange(len(names)) + (k - 1) * 0.2, ys, "o", color=colours[arm], label=arm)
        ax.set(yscale="log", title=quantity)
        _plain_ticks(ax.yaxis)
        ax.set_xticks(range(len(names)), names, rotation=30)
    figure.legend(*axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=len(ARMS))
    return figure


def _invariance_says(values: Values) -> list[str]:
    names = values.parts(0)

    def named(arm: str, same: bool) -> str:
        return ", ".join(name for name in names if (values(CHANGE, f"{name}, {arm}") < SAME) == same) or "none of them"

    return [
        "Ten times the weights leave the output as it is, but for rounding, with normalization before the activation for "
        f"{named('before', True)}; with it after the activation for {named('after', True)}, for which f(cx) = c f(x), and "
        f"not for {named('after', False)}; without it for {named('none', True)}.",
        "A bias in front of normalization has no gradient but rounding errors, and is dead; where the activation stands "
        "between them it has one.",
    ]


PARTS = {
    "layer": Part(
        "One layer in both orders",
        "32 channels of 200 maps of 5×5 (generator seed 0), normal with sd 1 around a mean of each channel that is drawn "
        "from the standard normal; batch normalization and ReLU in both orders, and 2×2 max pooling behind them.",
        _layer_says,
        _layer_figure,
        "distribution of the values, and how far apart the two orders are in each channel",
    ),
    "shapes": Part(
        "The shape of a channel",
        "Four channels of 5,000 values each (generator seed 1), before and after batch normalization.",
        _shapes_says,
        _shapes_figure,
        "each channel before and after batch normalization",
    ),
    "saturation": Part(
        "Unscaled weights",
        "x of 500 × 16 and weights of 500 × 500, both standard normal, drawn in this order by one generator with seed "
        "2147483647; for maxout a second map is drawn behind them. Saturated is where the slope is below 5.9 % of the "
        "steepest, as with |tanh| above 0.97.",
        _saturation_says,
        _saturation_figure,
        "what activations are given, and what they make of it; what lies beyond the axes is in the last bars",
    ),
    "scales": Part(
        "The scale of the weights, and saturation",
        "The same products with weights of sd 1/sqrt(500) times a scale. What is counted is what the activation is given.",
        _scales_says,
        _scales_figure,
        "share of saturated values by the scale of the weights; none lies under after",
    ),
    "depth": Part(
        "Depth at initialisation",
        "Perceptrons of width 64 with He's initial weights (seeds 0 to 7; medians) on 64 normal inputs of 40 numbers with "
        "random labels (generator seed 0).",
        _depth_says,
        _depth_figure,
        "gradient of the first block's weights, and effective rank of what the last block gives",
    ),
    "invariance": Part(
        "What the size of weights and a bias can change",
        "One block of width 64 (seed 0) on 200 normal inputs (generator seed 0), in float64; gradients are of a random "
        "linear function of its output.",
        _invariance_says,
        _invariance_figure,
        "change of the output when weights are ten times as large, and the gradient of the bias",
    ),
}
