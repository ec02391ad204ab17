"""Tasks whose datasets come from a learner on its way: what SAC does untrained, half-way and at the end of its training.

The recipes are D4RL's (Fu et al. 2020, arXiv 2004.07219, section 5): "medium" stops at a third of the expert's score, "medium-replay"
is all that was done until then, "expert" trains for a million steps. The size is ours: 200,000 steps unless told otherwise, not 1M.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import jax
import numpy as np

from policylab.data.recording import Recording
from policylab.errors import BadInput
from policylab.evaluation.rollouts import collect
from policylab.learners.online.sac import SAC
from policylab.policies.uniform import UniformRandom
from policylab.policy import Policy
from policylab.registry import to_json
from policylab.runs import Run
from policylab.sources.kept import kept
from policylab.sources.replay import Replay
from policylab.task import Task
from policylab.tasks.caching import cache_folder, cached, digest, require_size
from policylab.training import train

STEPS, LEARNING, WARMUP = 200_000, 1_000_000, 5_000  # the last is the replay's own, of random steps before the first update
MEDIUM = 100.0 / 3.0  # points of the task's scale
CHECKPOINTS = 5  # evaluations from one to the next: some two minutes of learning, beside which writing a replay takes no time
RECIPES: Mapping[str, str] = {
    "random": "uniformly random actions",
    "medium": "sampled from SAC's policy, the first to score a third of the expert's return",
    "medium-replay": "all that SAC did until its policy scored a third of the expert's return",
    "expert": "sampled from SAC's policy at the end of its training",
}


@dataclass(frozen=True)
class Trained(Task):
    """A task with a scale, on which SAC (`learner`) makes the datasets; `every` so many updates its mode plays 10 episodes."""

    learner: SAC = field(default_factory=SAC)
    every: int = 5_000

    @property
    def datasets(self) -> Mapping[str, str]:
        """The recipes in a sentence each."""
        return RECIPES

    def dataset(
        self,
        name: str,
        *,
        steps: int = 0,
        seed: int = 0,
        progress: Callable[[int, int], Any] | None = None,
        learning: int = 0,
    ) -> Recording:
        """About `steps` actions of whole episodes (0: 200,000; of "medium-replay" the last that many). The learner is trained for at
        most `learning` steps (0: a million), which takes hours for "expert"; its policy and its replay are cached, too.

        Raises `BadInput` for a name that is not in `datasets`, or where "medium" is not reached in `learning` steps.
        """
        if name not in RECIPES:
            raise BadInput(f"{self.name} has no dataset {name!r}: choose one of {', '.join(RECIPES)}")
        require_size(steps)
        steps, learning = steps or STEPS, learning or LEARNING
        facts = {
            "task": self.name, "recipe": name, "steps": steps, "seed": seed, **_versions(),
            "learner": None if name == "random" else to_json(self.learner),
            "learning": 0 if name == "random" else learning, "every": self.every,
        }  # fmt: skip
        return cached(f"{self.name}-{name}", facts, lambda: self._made(name, facts, progress))

    def _learned(self, name: str, facts: Mapping[str, Any], progress: bool) -> tuple[Run, float, Replay]:
        """The run, its last score and its source. It is kept in the cache and, where it was cut short, goes on from there."""
        goal = math.inf if name == "expert" else MEDIUM
        facts = {key: value for key, value in facts.items() if key not in ("recipe", "steps")}
        folder = cache_folder() / "training" / f"{self.name}-{'expert' if name == 'expert' else 'medium'}-{digest(facts)}"
        # All of it is kept, also where it stops at the last moment.
        source = Replay(self.environment(), capacity=facts["learning"] + WARMUP)
        if progress and name != "expert":
            print(
                f"{type(self.learner).__name__} learns until it scores {MEDIUM:.0f} points, for {facts['learning']:,} steps at the most: "
                "what is left then ends earlier",
                file=sys.stderr,
            )
        run = train(
            self.learner, source, steps=facts["learning"], seeds=[facts["seed"]], evaluate=self, every=self.every, episodes=10,
            out=folder, resume=(folder / "run.json").exists(), progress=progress, checkpoint_every=CHECKPOINTS * self.every,
            until=lambda row: row.get("evaluation", {"score": [-math.inf]})["score"][0] >= goal,
        )  # fmt: skip
        score = run.metrics[-1]["evaluation"]["score"][0]
        if name != "expert" and score < MEDIUM:
            raise BadInput(
                f"{self.name}/{name} stops at {MEDIUM:.0f} points and {run.step:,} steps of learning came to {score:.0f}: "
                f"allow more with --learning, or take another seed"
            )
        return run, score, source

    def _made(self, name: str, facts: Mapping[str, Any], progress: Callable[[int, int], Any] | None) -> Recording:
        origin: dict[str, Any] = {"how": RECIPES[name], **facts}
        if name == "random":
            policy: Policy = UniformRandom(self.spec.action)
        else:
            run, score, source = self._learned(name, facts, progress is not None)
            origin |= {"updates": run.step, "score": score}
            if name == "medium-replay":
                state = jax.tree.map(lambda leaf: leaf[0], run.source_state)
                found = kept(source, state, name=f"{self.name}/{name}", origin=origin)
                first = np.searchsorted(np.cumsum(found.lengths[::-1]), facts["steps"]) + 1
                return found.select(np.arange(max(0, found.episodes - first), found.episodes))
            policy = run.policy()
        key = jax.random.fold_in(jax.random.key(facts["seed"]), 1)
        played = collect(policy, self.environment(), steps=facts["steps"], key=key, progress=progress)
        return replace(played, name=f"{self.name}/{name}", origin=origin)


def _versions() -> dict[str, str]:
    """What moves the environment and computes the learner, as far as it is installed."""
    found = {}
    for name in ("jax", "gymnasium", "mujoco"):
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found
