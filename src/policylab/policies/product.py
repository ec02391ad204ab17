"""Products: actions with named parts, each part by a form of its own."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PRNGKeyArray, PyTree

from policylab import spaces
from policylab.errors import BadInput
from policylab.experience import Spec, Statistics, Window
from policylab.policies.categorical import Categorical
from policylab.policies.gaussian import Gaussian
from policylab.policy import Form, Policy


class ProductPolicy(Policy):
    """p(a | s) = prod_part p_part(a_part | s): given the observation the parts are independent, each with a policy of its own."""

    parts: dict[str, Policy]

    def initial_memory(self, *, key: PRNGKeyArray) -> dict[str, PyTree]:
        """The memories of the parts by name."""
        return {name: part.initial_memory(key=key) for name, part in self.parts.items()}

    def act(self, observation: PyTree, memory: dict, *, key: PRNGKeyArray) -> tuple[dict[str, PyTree], dict]:
        """An action of every part."""
        keys = dict(zip(self.parts, jax.random.split(key, len(self.parts)), strict=True))
        made = {name: part.act(observation, memory[name], key=keys[name]) for name, part in self.parts.items()}
        return {name: action for name, (action, _) in made.items()}, {name: after for name, (_, after) in made.items()}

    def sample(
        self, observation: PyTree, memory: dict, *, key: PRNGKeyArray
    ) -> tuple[dict[str, PyTree], Float[Array, ""], dict]:
        """An action of every part and the sum of their log-probabilities."""
        keys = dict(zip(self.parts, jax.random.split(key, len(self.parts)), strict=True))
        made = {name: part.sample(observation, memory[name], key=keys[name]) for name, part in self.parts.items()}
        total = sum((log_prob for _, log_prob, _ in made.values()), jnp.zeros(()))
        return {name: row[0] for name, row in made.items()}, total, {name: row[2] for name, row in made.items()}

    def log_probs(self, window: Window) -> Float[Array, "time part"]:
        """The factors of all parts side by side, in the order of the space; 0 where padded."""
        pick = lambda name: dataclasses.replace(window, action=window.action[name])
        return jnp.concatenate([part.log_probs(pick(name)) for name, part in self.parts.items()], axis=-1)

    def imitation_loss(self, window: Window, *, key: PRNGKeyArray) -> Float[Array, " time"]:
        """The sum of the parts' own losses."""
        keys = jax.random.split(key, len(self.parts))
        pick = lambda name: dataclasses.replace(window, action=window.action[name])
        return sum(
            (part.imitation_loss(pick(name), key=k) for k, (name, part) in zip(keys, self.parts.items(), strict=True)),
            jnp.zeros(window.reward.shape),
        )

    def entropy(self, observation: PyTree) -> Float[Array, ""]:
        """The sum of the parts' entropies, in nats, where all have a closed form."""
        return sum((part.entropy(observation) for part in self.parts.values()), jnp.zeros(()))

    def mode(self) -> Policy:
        """The modes of the parts."""
        return ProductPolicy({name: part.mode() for name, part in self.parts.items()})


@dataclass(frozen=True)
class Product(Form):
    """`box` for the parts that are numbers, `discrete` for those that are choices; parts within parts are products again."""

    box: Form = dataclasses.field(default_factory=Gaussian)
    discrete: Form = dataclasses.field(default_factory=Categorical)

    def build(self, spec: Spec, *, key: PRNGKeyArray) -> ProductPolicy:
        """Raises `BadInput` unless actions have named parts."""
        if not isinstance(spec.action, spaces.Composite):
            raise BadInput(
                f"the form Product is for actions with named parts but these are {spaces.describe(spec.action)}:"
                " use Gaussian or Categorical"
            )
        names = [name for name, _ in spec.action.parts]
        ends = np.cumsum([spaces.size(part) for _, part in spec.action.parts])
        keys = jax.random.split(key, len(names))
        built: dict[str, Policy] = {}
        for (name, part), end, part_key in zip(spec.action.parts, ends, keys, strict=True):
            form = {spaces.Box: self.box, spaces.Discrete: self.discrete}.get(type(part), self)
            built[name] = form.build(_of_part(spec, part, int(end) - spaces.size(part), int(end)), key=part_key)
        return ProductPolicy(built)


def _of_part(spec: Spec, part: spaces.Space, start: int, end: int) -> Spec:
    """The spec with one part of the action as the action, and with its slice of the statistics."""
    statistics = dict(spec.statistics)
    if "action" in statistics:
        columns = (getattr(statistics["action"], name)[start:end] for name in ("mean", "std", "low", "high"))
        statistics["action"] = Statistics(*columns)
    return dataclasses.replace(spec, action=part, statistics=statistics)
