"""`collect`: let a policy play and keep what it experiences, as a Recording."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import jax
import numpy as np

from policylab.data.recording import Recording
from policylab.environment import Environment
from policylab.errors import BadInput
from policylab.evaluation import rollouts
from policylab.policies.uniform import UniformRandom
from policylab.policy import Policy
from policylab.progress import Progress
from policylab.runs import Run, load_product
from policylab.task import Task


def collect(
    policy: Policy | Run | str | Path,
    environment: Environment | Task | str,
    episodes: int = 0,
    *,
    steps: int = 0,
    keep: Callable[[Recording], np.ndarray] | None = None,
    mode: bool = False,
    horizon: int = 0,
    seed: int = 0,
    name: str = "",
    progress: bool = False,
) -> Recording:
    """Whole episodes of a policy: `episodes` of them, or as many as it takes to hold at least `steps` actions.

    `policy` is a Policy (a planner is one), a Run (the policy of its first seed), the file of a saved policy, or `"random"`;
    with `mode` it plays its deterministic version. `environment` is an Environment, a Task, a task's name or a Gymnasium id;
    `horizon` cuts its episodes short, which marks them truncated. Equal seeds give equal recordings.

    `keep(recording)` says True or False for every episode played; the others are left out, and `origin` counts both
    (`episodes_played`, `episodes_kept`). Raises `BadInput` if policy and environment do not fit, or no episode is kept.
    """
    place = _environment(environment, horizon)
    actor = _policy(policy, place)
    bar = Progress(f"playing {place.spec.environment}".strip(), steps, enabled=progress and steps > 0)
    recording = rollouts.collect(
        actor.mode() if mode else actor, place, key=jax.random.key(seed), episodes=episodes, steps=steps, horizon=horizon,
        name=name, progress=lambda done, total: bar.advance(done),
    )  # fmt: skip
    facts = {"seed": seed, "action": "mode" if mode else "sampled"}
    if keep is not None:
        wanted = np.asarray(keep(recording))
        if wanted.shape != (recording.episodes,) or wanted.dtype != bool:
            raise BadInput(
                f"keep gave {wanted.dtype} of shape {wanted.shape}: give True or False for each of {recording.episodes} episodes"
            )
        if not wanted.any():
            raise BadInput(f"none of {recording.episodes} episodes was kept: play more of them, or ask less of them")
        facts |= {"episodes_played": recording.episodes, "episodes_kept": int(wanted.sum())}
        recording = recording.select(wanted)
    return replace(recording, origin={**recording.origin, **facts})


def _environment(environment: Environment | Task | str, horizon: int) -> Environment:
    if isinstance(environment, Environment):
        return environment
    if isinstance(environment, Task):
        return environment.environment()
    from policylab.tasks import TASKS, load_task
    from policylab.tasks.in_environment import InEnvironment

    return (load_task(environment) if environment in TASKS else InEnvironment.of(environment, horizon)).environment()


def _policy(policy: Policy | Run | str | Path, environment: Environment) -> Policy:
    if isinstance(policy, Policy):
        return policy
    if isinstance(policy, Run):
        policy.spec.require(environment.spec)
        return policy.policy()
    if policy == "random":
        return UniformRandom(environment.spec.action)
    if not Path(policy).is_file():
        raise BadInput(f"there is no policy at {policy}: give a saved policy's file, or the word random")
    found, spec = load_product(policy)
    spec.require(environment.spec, ours=str(policy))
    return found
