"""Datasets that are made on first use and kept under the user's cache folder."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from policylab.data import columns
from policylab.data.recording import Recording
from policylab.errors import BadInput


def cache_folder() -> Path:
    """Where datasets are kept: `policylab/datasets` in XDG_CACHE_HOME, which is ~/.cache unless set."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "policylab" / "datasets"


def require_size(steps: int) -> None:
    """Raise `BadInput` for a negative number of steps; 0 is a dataset's own size."""
    if steps < 0:
        raise BadInput(f"a dataset of {steps} steps cannot be: give a positive number, or 0 for the dataset's own size")


def digest(facts: Mapping[str, Any]) -> str:
    """A short hash of what a dataset follows from."""
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()[:12]


def cached(name: str, facts: Mapping[str, Any], make: Callable[[], Recording]) -> Recording:
    """The recording that `make` gives, read from disk if it was made before from the same `facts`.

    The folder's name ends in a hash of the facts (recipe, sizes, seed, versions of the simulators), so a changed recipe
    makes a new dataset. Written whole or not at all, so that two processes may ask for it at the same time.
    """
    path = cache_folder() / f"{name.replace('/', '-')}-{digest(facts)}"
    if not path.exists():
        recording = make()
        try:
            columns.write(recording, path)
        except BadInput:
            if not path.exists():  # not merely another process that was faster
                raise
    return columns.read(path)
