"""Tasks whose datasets come from a scripted pilot, played more or less steadily, inside one compiled program."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from importlib.metadata import version
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PRNGKeyArray, PyTree

from policylab import spaces
from policylab.data.recording import Recording
from policylab.environment import Environment
from policylab.errors import BadInput
from policylab.evaluation.rollouts import collect
from policylab.policy import Policy
from policylab.task import Task
from policylab.tasks.caching import cached, require_size


class Unsteady(Policy):
    """A pilot that takes a uniformly random action with probability `chance`, and else its own with Gaussian `noise` added.

    `noise` is a share of half the action's range; choices are not disturbed by it.
    """

    pilot: Policy
    space: spaces.Space = eqx.field(static=True)
    chance: Float[Array, ""]
    noise: Float[Array, ""]

    def act(self, observation: PyTree, memory: PyTree, *, key: PRNGKeyArray) -> tuple[PyTree, PyTree]:
        """A random action, or the pilot's, in the bounds of the space."""
        decide, choose, disturb, steer = jax.random.split(key, 4)
        action, memory = self.pilot.act(observation, memory, key=steer)
        if isinstance(self.space, spaces.Box):
            low, high = self.space.bounds()
            disturbance = self.noise * (high - low) / 2 * jax.random.normal(disturb, self.space.shape)
            action = jnp.clip(action + disturbance, low, high)
        random = jax.random.uniform(decide) < self.chance
        return jax.tree.map(lambda r, a: jnp.where(random, r, a), spaces.sample(self.space, key=choose), action), memory


@dataclass(frozen=True)
class Part:
    """A share of a dataset's steps, flown with this unsteadiness."""

    share: float
    chance: float = 0.0
    noise: float = 0.0


@dataclass(frozen=True)
class Recipe:
    """What a dataset is, in a sentence, and the parts it is made of."""

    sentence: str
    parts: tuple[Part, ...]


# The five kinds of Schweighofer et al. 2022, "A Dataset Perspective on Offline Reinforcement Learning", with a scripted pilot
# in the place of their trained one.
RECIPES: Mapping[str, Recipe] = {
    "random": Recipe("uniformly random actions", (Part(1.0, chance=1.0),)),
    "mixed": Recipe("80% of the steps random actions, 20% the pilot", (Part(0.8, chance=1.0), Part(0.2, noise=0.05))),
    "replay": Recipe(
        "from random actions to a nearly steady pilot, in ten stages",
        tuple(Part(0.1, chance=share, noise=0.3 * share) for share in (1.0, 0.9, 0.8, 0.7, 0.6, 0.5, 0.4, 0.3, 0.2, 0.1)),
    ),
    "noisy": Recipe("the pilot with 20% random actions", (Part(1.0, chance=0.2, noise=0.1),)),
    "expert": Recipe("the pilot, hardly disturbed", (Part(1.0, noise=0.05),)),
}

# Gaussian noise does not disturb choices: a pilot that hardly errs errs in 5% of its choices, the expert never.
CHOICE_RECIPES: Mapping[str, Recipe] = {
    **RECIPES,
    "mixed": Recipe(
        "80% of the steps random actions, 20% the pilot with 5% random actions", (Part(0.8, chance=1.0), Part(0.2, chance=0.05))
    ),
    "noisy": Recipe("the pilot with 20% random actions", (Part(1.0, chance=0.2),)),
    "expert": Recipe("the pilot, undisturbed", (Part(1.0),)),
}


@dataclass(frozen=True)
class Scripted(Task):
    """One environment and one pilot. `steps` is the size of a dataset, `scores` the reference returns."""

    make: Callable[[], Environment]
    fly: Callable[[], Policy]
    recipes: Mapping[str, Recipe]
    steps: int
    scores: Mapping[str, float]
    revision: int = 1

    def environment(self, instance: int = 0) -> Environment:
        """The environment with its time limit."""
        return self.make()

    @property
    def datasets(self) -> Mapping[str, str]:
        """The recipes in a sentence each."""
        return {name: recipe.sentence for name, recipe in self.recipes.items()}

    @property
    def reference(self) -> Mapping[str, float]:
        """Mean returns of random actions and of the pilot: exact, or as `python -m policylab.tasks.reference NAME` prints them."""
        return self.scores

    def pilot(self, *, chance: float = 0.0, noise: float = 0.0) -> Unsteady:
        """The scripted pilot as a policy."""
        return Unsteady(self.fly(), self.spec.action, jnp.asarray(chance), jnp.asarray(noise))

    def dataset(
        self, name: str, *, steps: int = 0, seed: int = 0, progress: Callable[[int, int], Any] | None = None
    ) -> Recording:
        """About `steps` actions of whole episodes (0: the default size), played on first use and cached.

        `progress(done, total)` is called after every part. Raises `BadInput` for a name that is not in `datasets`.
        """
        if name not in self.recipes:
            raise BadInput(f"{self.name} has no dataset {name!r}: choose one of {', '.join(self.recipes)}")
        require_size(steps)
        recipe, steps = self.recipes[name], steps or self.steps
        facts = {
            "task": self.name, "recipe": name, "revision": self.revision, "steps": steps, "seed": seed,
            "horizon": self.spec.horizon, "jax": version("jax"),
            "parts": [dataclasses.asdict(part) for part in recipe.parts],
        }  # fmt: skip

        def record() -> Recording:
            pieces, environment = [], self.environment()
            for number, part in enumerate(recipe.parts):
                pilot = self.pilot(chance=part.chance, noise=part.noise)
                key = jax.random.fold_in(jax.random.key(seed), number)
                pieces.append(collect(pilot, environment, steps=max(1, round(part.share * steps)), key=key))
                if progress is not None:
                    progress(number + 1, len(recipe.parts))
            origin = {"how": f"scripted pilot: {recipe.sentence}", **facts}
            return replace(joined(pieces), name=f"{self.name}/{name}", origin=origin)

        return cached(f"{self.name}-{name}", facts, record)


def joined(recordings: list[Recording]) -> Recording:
    """The episodes of several recordings of one environment, one after the other."""
    columns = ("observation", "action", "reward", "terminal", "truncated", "lengths", "extra")
    trees = [{column: getattr(recording, column) for column in columns} for recording in recordings]
    return replace(recordings[0], **jax.tree.map(lambda *leaves: np.concatenate(leaves), *trees))
