"""The report's pictures: learning curves, performance profile, a rollout; colour-blind-safe, the same bytes for the same numbers."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import scipy.stats

from policylab.errors import BadInput

# Okabe and Ito's palette, dark enough to be read on white and light enough to be read on black.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#8A6FDF", "#7A7A7A")


def plotting() -> Any:
    """Matplotlib, set up for reports. Raises `BadInput` where it is missing."""
    try:
        import matplotlib
    except ImportError:
        raise BadInput('the report draws with matplotlib, which is missing: pip install "policylab[report]"') from None
    matplotlib.use("Agg")
    matplotlib.rcParams.update({
        "svg.hashsalt": "policylab", "font.size": 12, "axes.spines.top": False, "axes.spines.right": False,
        "axes.grid": True, "grid.alpha": 0.25, "figure.figsize": (6.4, 4.2), "figure.dpi": 110,
    })  # fmt: skip
    import matplotlib.pyplot as plt

    return plt


def as_png(figure: Any) -> bytes:
    """The figure as a PNG, closed afterwards."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", bbox_inches="tight", metadata={"Software": "policylab"})
    plotting().close(figure)
    return buffer.getvalue()


def _label_ends(axes: Any, ends: Sequence[tuple[float, float, str, str]]) -> None:
    """Names at the right ends of lines, pushed apart where they would overlap."""
    low, high = axes.get_ylim()
    gap, placed = (high - low) * 0.055, -np.inf
    for y, x, name, colour in sorted(ends):
        placed = max(y, placed + gap)
        axes.text(x, placed, f"  {name}", color=colour, va="center", fontsize=11, clip_on=False)


def learning_curves(
    curves: Mapping[str, Mapping[str, Any]], unit: str, *, across: str = "updates", logarithmic: bool = False
) -> bytes:
    """Mean over seeds with a 95% Student t band; `curves[method]` has `steps` [point] and `values` [point, seed]. `across` is what the
    steps are; with `logarithmic` each further decade of them is as wide as the one before."""
    plt = plotting()
    figure, axes = plt.subplots()
    ends = []
    for (name, curve), colour in zip(curves.items(), _cycle(len(curves)), strict=True):
        steps, values = np.asarray(curve["steps"]), np.asarray(curve["values"], float)
        mean = values.mean(axis=1)
        axes.plot(steps, mean, color=colour, linewidth=2)
        if values.shape[1] > 1:
            half = scipy.stats.t.ppf(0.975, values.shape[1] - 1) * values.std(axis=1, ddof=1) / np.sqrt(values.shape[1])
            axes.fill_between(steps, mean - half, mean + half, color=colour, alpha=0.12, linewidth=0)
        ends.append((float(mean[-1]), float(steps[-1]), name, colour))
    means = np.concatenate([np.asarray(c["values"], float).mean(axis=1) for c in curves.values()])
    spread = max(float(np.ptp(means)), 1e-6)
    axes.set_ylim(means.min() - 0.35 * spread, means.max() + 0.35 * spread)
    if logarithmic:
        axes.set_xscale("log")
    _label_ends(axes, ends)
    axes.set_xlabel(across)
    axes.set_ylabel(unit)
    return as_png(figure)


def performance_profile(scores: Mapping[str, np.ndarray], unit: str) -> bytes:
    """For every threshold the share of episodes whose score is above it."""
    plt = plotting()
    figure, axes = plt.subplots()
    everything = np.concatenate([np.ravel(s) for s in scores.values()])
    low, high = float(everything.min()), float(everything.max())
    margin = 0.02 * max(high - low, 1e-6)
    thresholds = np.linspace(low - margin, high + margin, 201)
    ends = []
    for (name, values), colour in zip(scores.items(), _cycle(len(scores)), strict=True):
        share = (np.ravel(values)[None] > thresholds[:, None]).mean(axis=1)
        axes.plot(thresholds, share, color=colour, linewidth=2)
        middle = int(np.argmin(np.abs(thresholds - (low + high) / 2)))
        ends.append((float(share[middle]), float(thresholds[middle]), name, colour))
    axes.set_ylim(-0.02, 1.05)
    _label_ends(axes, ends)
    axes.set_xlabel(unit)
    axes.set_ylabel("share of episodes above")
    return as_png(figure)


def animation(frames: Sequence[np.ndarray], *, milliseconds: int = 60, most: int = 50, width: int = 360) -> bytes:
    """An animated GIF of RGB frames [height, width, 3], thinned to `most` and scaled to `width` pixels."""
    try:
        from PIL import Image
    except ImportError:
        raise BadInput('the report animates with pillow, which is missing: pip install "policylab[report]"') from None
    chosen = np.unique(np.linspace(0, len(frames) - 1, min(most, len(frames))).astype(int))
    pictures = [Image.fromarray(np.asarray(frames[i])) for i in chosen]
    height = round(width * pictures[0].height / pictures[0].width)
    pictures = [picture.resize((width, height)).convert("P", palette=Image.Palette.ADAPTIVE, colors=64) for picture in pictures]
    buffer = io.BytesIO()
    pictures[0].save(
        buffer, format="GIF", save_all=True, append_images=pictures[1:], duration=milliseconds, loop=0, optimize=True
    )
    return buffer.getvalue()


def _cycle(count: int) -> list[str]:
    return [COLOURS[i % len(COLOURS)] for i in range(count)]
