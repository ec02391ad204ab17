"""Claims: one file per system in a folder per kind of learner; `claims/offline/riql.py` holds the `CLAIM` of the system `riql`."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import TYPE_CHECKING

from policylab.errors import BadInput

if TYPE_CHECKING:
    from policylab.claim import Claim


def find(package: Path = Path(__file__).resolve().parents[1]) -> dict[str, Path]:
    """{system: file} of every claim, found by name and without importing one: `il_data_quality.py` is that of `il-data-quality`."""
    files = sorted((package / "claims").glob("*/*.py"))
    return {file.stem.replace("_", "-"): file for file in files if file.stem != "__init__"}


def load(system: str) -> Claim:
    """The claim of a system. Raises `BadInput` for a system that has none, or that the catalogue does not know."""
    files = find()
    if system not in files:
        from policylab.catalogue import meant

        raise BadInput(meant(system, files))
    file = files[system]
    claim = getattr(importlib.import_module(f"policylab.claims.{file.parent.name}.{file.stem}"), "CLAIM", None)
    if claim is None or claim.system != system:
        raise BadInput(
            f"claims/{file.parent.name}/{file.name} holds no CLAIM of {system!r}: name it CLAIM = Claim(system={system!r}, ...)"
        )
    return claim
