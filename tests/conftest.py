"""Every public annotation of the package is checked at run time in the tests: shapes by jaxtyping, types by beartype."""

import gc
import os
from pathlib import Path

os.environ.setdefault("JAX_PLATFORMS", "cpu")
os.environ.setdefault("MUJOCO_GL", "egl")
# Most of the suite's time goes into compiling small programs that run once. Without XLA's optimisations, and with its plain code
# generator in place of the one for fused operations, compiling takes about a third as long; the programs mean the same.
os.environ.setdefault("XLA_FLAGS", "--xla_backend_optimization_level=0 --xla_cpu_use_fusion_emitters=false")

import pytest
from jaxtyping import install_import_hook

import tests.typechecker  # noqa: F401  (the hook looks the checker up by name)
from tests.slow import SLOW

hook = install_import_hook("policylab", "tests.typechecker.check")

gc.set_threshold(200_000, 20, 20)  # JAX keeps millions of objects that never die: looking through them took 5% of the time

_MAPS = Path("/proc/self/maps")


def pytest_collection_modifyitems(items):
    """Mark what `slow.py` names."""
    for item in items:
        if item.nodeid.removeprefix("tests/") in SLOW:
            item.add_marker(pytest.mark.slow)


@pytest.fixture(scope="module", autouse=True)
def _forget_programs():
    """Linux allows a process 65,530 memory maps, and every compiled program takes a few: one process cannot keep all of this suite."""
    yield
    if _MAPS.exists() and _MAPS.read_bytes().count(b"\n") > 30_000:
        import jax

        jax.clear_caches()
        gc.collect()
