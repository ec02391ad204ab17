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


def card_figure(card: Card, recording: Recording, *, seed: int = 0) -> bytes:
    """A PNG of three panels: states (two columns, or the two principal components) coloured by return to go, returns, actions."""
    try:
        import matplotlib
    except ImportError:
        raise BadInput('the card is drawn with matplotlib, which is missing: pip install "policylab[report]"') from None
    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    with plt.rc_context({"font.size": 11, "axes.spines.top": False, "axes.spines.right": False}):
        figure, axes = plt.subplots(1, 3, figsize=(11, 3.6), layout="constrained")
        _states(axes[0], figure, recording, seed)
        _returns(axes[1], card, recording)
        _actions(axes[2], recording)
        buffer = io.BytesIO()
        figure.savefig(buffer, format="png", dpi=110, metadata={"Software": "policylab"})
        plt.close(figure)
    return buffer.getvalue()


def _states(axes: Any, figure: Any, recording: Recording, seed: int) -> None:
    space = recording.spec.observation
    if isinstance(space, spaces.Discrete):
        visited = np.asarray(recording.observation).reshape(-1)[recording.observation_rows]
        axes.bar(np.arange(space.n), np.bincount(visited, minlength=space.n), width=1.0, color="#56699b")
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
    axes.hist(recording.returns, bins=min(40, max(5, len(np.unique(recording.returns)))), color="#0072B2")
    axes.set_xlabel("return")
    axes.set_ylabel("episodes")


def _actions(axes: Any, recording: Recording) -> None:
    axes.set_title("actions")
    space = recording.spec.action
    if isinstance(space, spaces.Discrete):
        counts = np.bincount(np.asarray(recording.action).reshape(-1), minlength=space.n)
        axes.bar(np.arange(space.n), counts, color="#009E73")
        if 0 < len(space.labels) <= 6:
            axes.set_xticks(np.arange(space.n), space.labels)
        axes.set_xlabel("choice")
    elif isinstance(space, spaces.Box):
        flat = np.asarray(recording.action).reshape(recording.steps, -1)
        for i in range(min(flat.shape[1], 6)):
            axes.hist(flat[:, i], bins=40, histtype="step", linewidth=1.6, label=f"entry {i}")
        axes.legend(fontsize=9, frameon=False)
        axes.set_xlabel("value")
    else:
        axes.set_axis_off()
    axes.set_ylabel("steps")
