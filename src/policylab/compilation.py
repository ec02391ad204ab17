"""The persistent compilation cache: on by default, so that a program is compiled once per machine and not once per process."""

from __future__ import annotations

import os
from pathlib import Path

import jax


def cache_folder() -> Path:
    """Where policylab keeps what it can make again: compiled programs, collected demonstrations."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "policylab"


def enable_cache() -> None:
    """Turn the cache on unless the user has set one or has switched it off with POLICYLAB_CACHE=0."""
    if os.environ.get("POLICYLAB_CACHE") == "0" or jax.config.values["jax_compilation_cache_dir"] is not None:
        return
    folder = cache_folder() / "compiled"
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError:  # no disk or no rights: compile without a cache
        return
    jax.config.update("jax_compilation_cache_dir", str(folder))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.2)
    jax.config.update("jax_persistent_cache_min_entry_size_bytes", 0)
