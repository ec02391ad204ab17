"""Where metrics can stream to besides `metrics.jsonl`: TensorBoard and Weights & Biases, both optional.

A tracker is any function of one row ({"step", "seconds", "metrics": {name: [per seed]}, "evaluation": ...}); give it to
`train(..., trackers=[TensorBoard("runs/board")])`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Literal

import numpy as np

from policylab.errors import BadInput


def scalars(row: Mapping[str, Any]) -> Iterator[tuple[str, float]]:
    """Names and numbers of a row: the mean over seeds of every metric, and each seed's own where there are several."""
    for group, prefix in (("metrics", "train"), ("evaluation", "evaluation")):
        for name, values in row.get(group, {}).items():
            yield f"{prefix}/{name}", float(np.mean(values))
            if len(values) > 1:
                yield from ((f"{prefix}/{name}/seed {i}", float(value)) for i, value in enumerate(values))


class TensorBoard:
    """Writes event files below `folder`. Raises `BadInput` without the tensorboard extra."""

    def __init__(self, folder: str | Path):
        try:
            from tensorboard.compat.proto.event_pb2 import Event
            from tensorboard.compat.proto.summary_pb2 import Summary
            from tensorboard.summary.writer.event_file_writer import EventFileWriter
        except ImportError:
            raise BadInput('TensorBoard is not installed: pip install "policylab[tensorboard]"') from None
        self._event, self._summary = Event, Summary
        self._writer = EventFileWriter(str(folder))

    def __call__(self, row: Mapping[str, Any]) -> None:
        """Write one row."""
        values = [self._summary.Value(tag=name, simple_value=value) for name, value in scalars(row)]
        self._writer.add_event(self._event(step=row["step"], summary=self._summary(value=values)))
        self._writer.flush()


class WeightsAndBiases:
    """Logs to a run of Weights & Biases; `mode="offline"` writes below `folder` only. Raises `BadInput` without the wandb extra."""

    def __init__(
        self,
        project: str,
        *,
        folder: str | Path | None = None,
        mode: Literal["online", "offline", "disabled"] = "online",
        name: str | None = None,
    ):
        try:
            import wandb
        except ImportError:
            raise BadInput('Weights & Biases is not installed: pip install "policylab[wandb]"') from None
        self._run = wandb.init(project=project, dir=None if folder is None else str(folder), mode=mode, name=name)

    def __call__(self, row: Mapping[str, Any]) -> None:
        """Log one row."""
        self._run.log(dict(scalars(row)), step=row["step"])

    def finish(self) -> None:
        """End the run."""
        self._run.finish()
