"""The picture of a dataset card: where the data have been, what they earned, what was done."""

from __future__ import annotations

import io
from typing import Any

import numpy as np

from policylab import spaces
from policylab.data.recording import Recording
from policylab.errors import BadInput
from policylab.evaluation.diagnosis import Card
from policylab.evaluation.rows import rows_of, sample

_DOTS = 6_000
_ENTRIES = 8  # of an action that are drawn
_WIDTH, _HEIGHT, _DPI = 5.2, 6.6, 144  # inches: a telephone shows the picture 390 pixels wide, where 12 points are 12 pixels


def card_figure(card: Card, recording: Recording, *, seed: int = 0) -> bytes:
    """A PNG: states (two columns, or the two principal components) coloured by return to go; below them returns and actions.

    It is laid out for 390 pixels, the width of a telephone, and keeps its shape on wider screens.
    """
    try:
        import matplotlib
    except ImportError:
        raise BadInput('the card is drawn with matplotlib, which is missing: pip install "policylab[report]"') from None
    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    with plt.rc_context({
        "font.size": 12, "axes.titlesize": 13, "axes.spines.top": False, "axes.spines.right": False,
        "axes.formatter.limits": (-3, 4),
    }):  # fmt: skip
        figure = plt.figure(figsize=(_WIDTH, _HEIGHT), layout="constrained")
        axes = figure.subplot_mosaic([["states", "states"], ["returns", "actions"]], height_ratios=(1.25, 1))
        _states(axes["states"], figure, recording, seed)
        _returns(axes["returns"], card, recording)
        _actions(axes["actions"], recording)
        buffer = io.BytesIO()
        figure.savefig(buffer, format="png", dpi=_DPI, metadata={"Software": "policylab"})
        plt.close(figure)
    return buffer.getvalue()


def _states(axes: Any, figure: Any, recording: Recording, seed: int) -> None:
    space = recording.spec.observation
    if isinstance(space, spaces.Discrete):
        visited = np.asarray(recording.observation).reshape(-1)[recording.observation_rows]
        axes.bar(np.arange(space.n), np.bincount(visited, minlength=space.n), width=0.9, color="#56699b")
        axes.locator_params(axis="x", integer=True)
        axes.set_title("where the data have been")
        axes.set_xlabel("state")
        axes.set_ylabel("steps")
        return
    rows = rows_of(recording, limit=200_000, seed=seed)
    chosen = sample(rows.steps, _DOTS, seed)
    state = rows.state[chosen]
    x, y, names = _plane(state, [column.name for column in rows.state_columns])
    colour = np.zeros(len(chosen))
    if recording.reward is not None and rows.sequential and rows.reward is not None:
        total = np.concatenate([[0.0], np.cumsum(rows.reward, dtype=np.float64)])
        colour = (total[np.repeat(rows.starts + rows.lengths, rows.lengths)] - total[:-1])[chosen]
    drawn = axes.scatter(x, y, c=colour, s=4, alpha=0.5, linewidths=0, cmap="viridis", rasterized=True)
    if np.ptp(colour) > 0:
        figure.colorbar(drawn, ax=axes, label="return to go", fraction=0.05)
    axes.set_title("where the data have been")
    axes.set_xlabel(names[0])
    axes.set_ylabel(names[1])


def _plane(state: np.ndarray, names: list[str]) -> tuple[np.ndarray, np.ndarray, tuple[str, str]]:
    """Position-like columns where the names say so, two columns where there are only two, else principal components."""
    for start in range(len(names) - 1):
        if "achieved" in names[start] or "position" in names[start]:
            return state[:, start], state[:, start + 1], (names[start], names[start + 1])
    if state.shape[1] == 1:
        return state[:, 0], np.zeros(len(state)), (names[0], "")
    if state.shape[1] == 2:
        return state[:, 0], state[:, 1], (names[0], names[1])
    spread = state.std(axis=0)
    centred = (state - state.mean(axis=0)) / np.where(spread > 0, spread, 1.0)
    _, _, directions = np.linalg.svd(centred, full_matrices=False)
    flat = centred @ directions[:2].T
    return flat[:, 0], flat[:, 1], ("first principal component", "second")


def _returns(axes: Any, card: Card, recording: Recording) -> None:
    axes.set_title("returns of episodes")
    if recording.reward is None or np.ndim(recording.reward) > 1:
        axes.text(0.5, 0.5, "no rewards logged", ha="center", va="center", transform=axes.transAxes)
        axes.set_axis_off()
        return
    axes.hist(recording.returns, bins=min(30, max(5, len(np.unique(recording.returns)))), color="#0072B2")
    axes.locator_params(nbins=4)
    axes.set_xlabel("return")
    axes.set_ylabel("episodes")


def _actions(axes: Any, recording: Recording) -> None:
    """Bars for choices; for numbers the distribution of each entry on a line of its own."""
    axes.set_title("actions")
    space = recording.spec.action
    if isinstance(space, spaces.Discrete):
        counts = np.bincount(np.asarray(recording.action).reshape(-1), minlength=space.n)
        axes.bar(np.arange(space.n), counts, color="#009E73")
        axes.locator_params(axis="y", nbins=4)
        axes.locator_params(axis="x", nbins=6, integer=True)
        if 0 < len(space.labels) <= 6:
            axes.set_xticks(np.arange(space.n), space.labels, rotation=45 if max(map(len, space.labels)) > 2 else 0)
        axes.set_xlabel("choice")
        axes.set_ylabel("steps")
    elif isinstance(space, spaces.Box):
        flat = np.asarray(recording.action, np.float64).reshape(recording.steps, -1)
        shown = min(flat.shape[1], _ENTRIES)
        edges = np.linspace(flat.min(), flat.max() if np.ptp(flat) > 0 else flat.min() + 1, 41)
        for i in range(shown):
            counts = np.histogram(flat[:, i], edges)[0]
            axes.stairs(shown - 1 - i + 0.85 * counts / counts.max(), edges, baseline=shown - 1 - i, fill=True, color="#009E73")
        axes.set_yticks(np.arange(shown)[::-1], [str(i) for i in range(shown)])
        axes.locator_params(axis="x", nbins=4)
        axes.set_xlabel("value")
        axes.set_ylabel("entry" if shown == flat.shape[1] else f"entry (of {flat.shape[1]})")
    else:
        axes.set_axis_off()
