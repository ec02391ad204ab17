"""Every public annotation of the package is checked at run time in the tests: shapes by jaxtyping, types by beartype."""

import os

os.environ.setdefault("JAX_PLATFORMS", "cpu")
os.environ.setdefault("MUJOCO_GL", "egl")

from jaxtyping import install_import_hook

import tests.typechecker  # noqa: F401  (the hook looks the checker up by name)

hook = install_import_hook("policylab", "tests.typechecker.check")
