"""A folder of work that a stopped run goes on in: what is to be done, and the outcome of every step that is finished."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from policylab.checkpoints import write_atomically
from policylab.errors import BadInput

_PLAN = "plan.json"


@dataclass(frozen=True)
class Steps:
    """Outcomes of steps as JSON documents in `folder/steps`, each written whole or not at all."""

    folder: Path

    @staticmethod
    def begin(folder: Path, facts: Mapping[str, Any], *, resume: bool) -> Steps:
        """The work described by `facts`, in a folder that is new, or begun with the same facts where `resume`.

        Raises `BadInput` where something else is there, or work on other facts, naming the first that differs.
        """
        plan = folder / _PLAN
        if plan.is_file():
            if not resume:
                raise BadInput(
                    f"{folder} holds work that was begun: go on with it by --resume, or name another folder with --out"
                )
            try:
                before = json.loads(plan.read_text(encoding="utf-8"))
            except ValueError:
                raise BadInput(f"{plan} is damaged: remove {folder} and start again") from None
            for name, value in json.loads(json.dumps(dict(facts))).items():
                if before.get(name) != value:
                    raise BadInput(
                        f"{folder} was begun with another {name}: resume it with what it was begun with, or name another folder with --out"
                    )
        elif folder.exists() and any(folder.iterdir()):
            raise BadInput(f"{folder} is not empty: choose another folder with --out, or remove it")
        else:
            write_atomically(plan, (json.dumps(dict(facts), indent=1) + "\n").encode())
        return Steps(folder)

    def abandon(self) -> None:
        """Take the folder back where no step is finished yet."""
        if not (self.folder / "steps").exists():
            shutil.rmtree(self.folder, ignore_errors=True)

    def once(self, name: str, make: Callable[[], Any]) -> Any:
        """The outcome of the step of this name: from its file, else what `make()` returns, which is written there."""
        path = self.folder / "steps" / f"{name}.json"
        if path.is_file():
            return json.loads(path.read_text(encoding="utf-8"))
        found = json.loads(json.dumps(make()))
        write_atomically(path, (json.dumps(found) + "\n").encode())
        return found
