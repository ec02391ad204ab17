"""What a replay holds, as a recording: the data that an online run leaves behind."""

from __future__ import annotations

from typing import Any

import jax
import numpy as np

from policylab.data.recording import Recording
from policylab.sources.replay import Replay, Stored


def kept(source: Replay, state: Stored, *, name: str = "", origin: dict[str, Any] | None = None) -> Recording:
    """The transitions of one seed's replay as episodes, copy by copy and the oldest first.

    An episode that was under way when the run ended ends as truncated. Where the ring has gone round, a copy's first episode may
    lack its beginning.
    """
    written, slots = int(state.written), source.slots
    order = np.arange(written) if written <= slots else (written + np.arange(slots)) % slots
    rows = jax.tree.map(lambda leaf: np.swapaxes(np.asarray(leaf)[order], 0, 1), state.rows)  # [copy, step, ...]
    copies, steps = rows.reward.shape[:2]
    terminal, truncated = rows.terminal.copy(), rows.truncated.copy()
    truncated[:, -1] |= ~terminal[:, -1]
    flat = lambda tree: jax.tree.map(lambda leaf: leaf.reshape(copies * steps, *leaf.shape[2:]), tree)
    last = (terminal | truncated).reshape(-1)
    ends = np.flatnonzero(last)
    # After each episode's last observation stands what followed its last action.
    place = np.arange(copies * steps) + np.concatenate([[0], np.cumsum(last)[:-1]])

    def together(observation: np.ndarray, after: np.ndarray) -> np.ndarray:
        out = np.empty((len(last) + len(ends), *observation.shape[1:]), observation.dtype)
        out[place], out[place[ends] + 1] = observation, after[ends]
        return out

    return Recording(
        jax.tree.map(together, flat(rows.observation), flat(rows.next_observation)),
        flat(rows.action), rows.reward.reshape(-1), terminal.reshape(-1), truncated.reshape(-1),
        np.diff(ends, prepend=-1), source.spec, name=name, origin=origin or {},
    )  # fmt: skip
