"""Packages that only some formats need: imported when they are needed, and named when they are missing."""

from __future__ import annotations

import importlib
from types import ModuleType

from policylab.errors import BadInput

_EXTRAS = {"h5py": "policylab[data]", "pyarrow": "policylab[data]", "PIL": "policylab[report]", "av": "policylab[video]"}


def package(name: str, purpose: str = "reading tables") -> ModuleType:
    """The module `name`; raises `BadInput` saying what to install if `purpose` cannot be done without it."""
    try:
        return importlib.import_module(name)
    except ImportError as missing:
        root = name.split(".")[0]
        raise BadInput(f'{purpose} needs {root}, which is not installed: pip install "{_EXTRAS.get(root, root)}"') from missing
