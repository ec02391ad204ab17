"""`rounds`: work that goes round by round (collect, filter, train, again), each saved whole, finished ones not done again."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from policylab.checkpoints import write_atomically
from policylab.data import columns
from policylab.data.atomic import atomic
from policylab.data.recording import Recording
from policylab.errors import BadInput
from policylab.learner import Learner
from policylab.runs import Run, load_run

Results = dict[str, Any]
_DESCRIPTION = "round.json"


def rounds(
    step: Callable[[int, Results | None], Mapping[str, Any]],
    n: int,
    out: str | Path,
    *,
    learners: Mapping[str, Learner] = {},
) -> list[Results]:
    """Call `step(number, previous)` for number 0 ... n-1 and return the results of all rounds.

    A result maps names to Recordings, Runs and things that JSON can hold. Round k becomes the folder `out/round-00k` in one
    step, so that a kill loses at most the round under way; rounds whose folder exists are read and not done again. `previous`
    (None in round 0) and what is returned are always as read back, so that an interrupted call and an uninterrupted one see
    the same. Let `step` draw from `number` and nothing else. `learners` gives, by name, those of your own class behind a Run.

    Raises `BadInput` for a result that cannot be saved, naming it.
    """
    folder, found = Path(out), []
    for number in range(n):
        place = folder / f"round-{number:03d}"
        if not place.exists():
            for scrap in folder.glob(f".{place.name}.*"):  # of a round that was killed
                shutil.rmtree(scrap)
            result = step(number, found[-1] if found else None)
            with atomic(place, folder=True) as scratch:
                _write(result, scratch, number)
        found.append(_read(place, learners))
    return found


def _write(result: Mapping[str, Any], folder: Path, number: int) -> None:
    if not isinstance(result, Mapping):
        raise BadInput(f"round {number} gave a {type(result).__name__}: give a dict of names to recordings, runs and numbers")
    kinds, values = {}, {}
    for name, value in result.items():
        if not name.isidentifier():
            raise BadInput(f"round {number} calls a result {name!r}: use letters, digits and underscores")
        match value:
            case Recording():
                kinds[name] = "recording"
                columns.write(value, folder / name)
            case Run():
                kinds[name] = "run"
                value.save(folder / name)
            case _:
                kinds[name] = "value"
                values[name] = value
    try:
        text = json.dumps({"round": number, "kinds": kinds, "values": values}, indent=1, allow_nan=False)
    except (TypeError, ValueError) as error:
        raise BadInput(
            f"round {number} gave what cannot be saved ({error}): give recordings, runs, and numbers, texts, lists or dicts of these"
        ) from error
    write_atomically(folder / _DESCRIPTION, (text + "\n").encode())


def _read(folder: Path, learners: Mapping[str, Learner]) -> Results:
    path = folder / _DESCRIPTION
    if not path.is_file():
        raise BadInput(f"{folder} is no saved round, it has no {_DESCRIPTION}: choose another folder, or move it away")
    try:
        document = json.loads(path.read_text())
        found: Results = dict(document["values"])
        kinds: dict[str, str] = dict(document["kinds"])
        known = all(kind in ("recording", "run") or name in found for name, kind in kinds.items())
    except (OSError, ValueError, KeyError, TypeError):
        known = False
    if not known:
        raise BadInput(f"{path} is damaged or is not what rounds wrote: remove {folder}, and the round is done again")
    for name, kind in kinds.items():
        if kind == "recording":
            found[name] = columns.read(folder / name)
        elif kind == "run":
            found[name] = load_run(folder / name, learner=learners.get(name))
    return {name: found[name] for name in kinds}
