"""Every public annotation of the package is checked at run time in the tests: shapes by jaxtyping, types by beartype."""

import os

os.environ.setdefault("JAX_PLATFORMS", "cpu")
os.environ.setdefault("MUJOCO_GL", "egl")

from jaxtyping import install_import_hook

hook = install_import_hook("policylab", "beartype.beartype")
