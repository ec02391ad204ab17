"""Pictures in which every seed is seen: curves over training, and what the arms of a comparison scored."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import scipy.stats
from jaxtyping import Float

from policylab.comparison import Curve
from policylab.reporting.figures import COLOURS, as_png, plotting

_ACROSS = 3  # panels side by side
MOST = 24  # panels of one picture
_LONGEST = 34  # letters of a name


def curves(curves: Mapping[str, Curve]) -> bytes:
    """A PNG with a panel for each name: a thin line for every seed and a thick one for their mean, on a scale of its own. At most 24. What
    was not reported is not a number, and the line goes over it."""
    shown = dict(list(curves.items())[:MOST])
    plt = plotting()
    across = min(_ACROSS, len(shown))
    down = -(-len(shown) // across)
    size = (6.4, 3.4) if len(shown) == 1 else (0.6 + 3.0 * across, 0.4 + 2.0 * down)
    figure, axes = plt.subplots(down, across, figsize=size, squeeze=False, sharex=True)
    for axis in axes.ravel()[len(shown) :]:
        axis.set_visible(False)
    for place, (axis, (name, curve)) in enumerate(zip(axes.ravel(), shown.items(), strict=False)):
        _seeds(axis, curve, COLOURS[0])
        axis.set_title(_short(name), fontsize=10.5, parse_math=False)
        axis.tick_params(labelsize=9)
        axis.locator_params(axis="x", nbins=4)
        if place + across >= len(shown):
            axis.tick_params(labelbottom=True)
            axis.set_xlabel("updates", fontsize=10)
    figure.tight_layout()
    return as_png(figure)


def arm_curves(curves: Mapping[str, Curve], unit: str) -> bytes:
    """A PNG of several arms in one panel: a thin line for every seed, a thick one for their mean, and the band of its 95% Student t
    interval."""
    plt = plotting()
    figure, axes = plt.subplots(figsize=(7.2, 4.4))
    for number, (name, curve) in enumerate(curves.items()):
        colour = COLOURS[number % len(COLOURS)]
        _seeds(axes, curve, colour, label=_short(name))
        count = curve.values.shape[1]
        if count > 1:
            mean, spread = curve.values.mean(axis=1), curve.values.std(axis=1, ddof=1)
            half = scipy.stats.t.ppf(0.975, count - 1) * spread / np.sqrt(count)
            axes.fill_between(curve.steps, mean - half, mean + half, color=colour, alpha=0.1, linewidth=0)
    every = np.concatenate([np.ravel(curve.values) for curve in curves.values()])
    low, high = float(np.nanmin(every)), float(np.nanmax(every))
    margin = 0.08 * max(high - low, 1e-6)
    axes.set_ylim(low - margin, high + margin)  # a band of few seeds may reach far beyond all of them
    axes.set_xlabel("updates")
    axes.set_ylabel(unit, parse_math=False)
    if len(curves) > 1:
        for words in axes.legend(frameon=False, loc="best", fontsize=11).get_texts():
            words.set_parse_math(False)
    return as_png(figure)


def _seeds(axis: Any, curve: Curve, colour: str, label: str = "") -> None:
    """Thin lines and their mean; dots too where a line alone would not be seen."""
    many = len(curve.steps) > 1
    for values in curve.values.T:
        there = np.isfinite(values)
        marker = "." if there.sum() < 4 else ""
        axis.plot(curve.steps[there], values[there], color=colour, linewidth=0.9, alpha=0.5, marker=marker, markersize=5)
    there = np.isfinite(curve.values).all(axis=1)
    mean = curve.values[there].mean(axis=1)
    if many and there.sum() > 1:
        axis.plot(curve.steps[there], mean, color=colour, linewidth=2.2, label=label or None)


def scores(
    panels: Mapping[str, Mapping[str, Float[np.ndarray, " seed"]]],
    means: Mapping[str, Sequence[tuple[float, float, float]]],
    unit: str,
) -> bytes:
    """A PNG: a panel for each name of `panels`, in it a row for each arm with a dot for every seed and, from `means`, the mean with its
    interval (mean, low, high) in black."""
    plt = plotting()
    arms = list(next(iter(panels.values())))
    across = min(_ACROSS, len(panels))
    down = -(-len(panels) // across)
    height = 0.9 + 0.5 * len(arms)
    figure, axes = plt.subplots(
        down,
        across,
        figsize=(2.2 + 4.6 * across if across == 1 else 2.0 + 3.0 * across, height * down),
        squeeze=False,
        sharey=True,
    )
    for axis in axes.ravel()[len(panels) :]:
        axis.set_visible(False)
    for axis, (name, found) in zip(axes.ravel(), panels.items(), strict=False):
        for row, (values, (mean, low, high)) in enumerate(zip(found.values(), means[name], strict=True)):
            above = row - 0.16 + 0.12 * np.resize([-1.0, 1.0, 0.0], len(values))  # so that equal ones do not hide each other
            axis.scatter(values, above, s=24, color=COLOURS[row % len(COLOURS)], alpha=0.7, linewidths=0, zorder=3)
            axis.plot([low, high], [row + 0.2] * 2, color="black", linewidth=1.6, zorder=4)
            axis.plot([mean], [row + 0.2], marker="D", color="black", markersize=5, zorder=5)
        axis.set_yticks(range(len(arms)), [_short(arm) for arm in arms])
        for words in axis.get_yticklabels():
            words.set_parse_math(False)
        axis.set_ylim(len(arms) - 0.5, -0.5)
        axis.tick_params(labelsize=10.5)
        axis.set_xlabel(unit, fontsize=11, parse_math=False)
        axis.locator_params(axis="x", nbins=6)
        if len(panels) > 1:
            axis.set_title(_short(name), fontsize=12, parse_math=False)
    figure.tight_layout()
    return as_png(figure)


def _short(name: str) -> str:
    return name if len(name) <= _LONGEST else f"{name[: _LONGEST - 1]}…"
