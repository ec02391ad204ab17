"""HILP: foundation policies with Hilbert representations (Park, Kreiman and Levine 2024, arXiv 2402.15567)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, PRNGKeyArray, PyTree

from policylab import spaces
from policylab.errors import BadInput
from policylab.experience import Spec, Statistics, Window
from policylab.hyperparameters import setting, settings
from policylab.learner import Clock, Goals, Learner, Request, Steps
from policylab.learners.offline.iql import expectile_loss
from policylab.networks.frozen import Normaliser, observation_normaliser
from policylab.networks.mlp import MLP, Ensemble
from policylab.networks.optimisation import Trained, descend, follow, trained
from policylab.policies.gaussian import Gaussian
from policylab.policies.prompted import Prompted
from policylab.policy import Form, imitation_loss
from policylab.scorers.critic import ActionValue, StateValue


class Encoder(eqx.Module):
    """phi: a state to a vector whose Euclidean distances are numbers of (discounted) steps."""

    network: Any
    normaliser: Normaliser
    space: spaces.Space = eqx.field(static=True)

    def __call__(self, state: PyTree) -> Float[Array, "*member dimension"]:
        """phi(s) for one state; of an ensemble, of every member."""
        return self.network(self.normaliser(spaces.flatten(self.space, state)))


def distance(a: Float[Array, "*batch dimension"], b: Float[Array, "*batch dimension"]) -> Float[Array, "*batch"]:
    """||a - b||, at least 0.001, so that its gradient exists where both are equal."""
    return jnp.sqrt(jnp.maximum(jnp.sum((a - b) ** 2, axis=-1), 1e-6))


@settings
class HILP(Learner):
    r"""Without rewards: a space whose distances are times, and a policy that moves along any direction of it.

    V_i(s, g) = -||phi_i(s) - phi_i(g)||, r = -1 and 0 at s = g, which ends it; i = 1, 2, bars for slow targets:

        q_i = r + gamma (s != g) Vbar_i(s', g),   A = r + gamma (s != g) min_i Vbar_i(s', g) - mean_i Vbar_i(s, g)
        phi:    min sum_i E[ |tau - 1(A < 0)| (q_i - V_i(s, g))^2 ]                                        (equation 5)

    Then skills z, uniform on the unit sphere, with r = <phi_1(s') - phi_1(s), z>, by IQL without an end (equation 7):

        V:      min E[ L2^tau'( min_i Qbar_i(s, a, z) - V(s, z) ) ]
        Q_i:    min E[ (r + gamma' V(s', z) - Q_i(s, a, z))^2 ]
        policy: min E[ min(exp(beta A), 100) imitation_loss(s, z, a) ]

    All from the values before the update, as the authors' code (its goal-reaching half, whose defaults these are) takes one Adam step
    on the sum; no gradient of the skills reaches phi. Layer norm stands before the activation, in their code after it.

    Distances are symmetric, so that a one-way door cannot be represented. `part` names the part of the observation that is the state,
    `into` the part that tells the goal, as in `GoalConditioned`.
    """

    expectile: float = setting(0.95, "tau of the distances", above=0.0, below=1.0)
    discount: float = setting(
        0.99, "gamma of the distances, and the chance of each further step to a goal", above=0.0, below=1.0
    )
    future: float = setting(
        0.625, "share of goals from later in the episode; the others are from anywhere in the data", low=0.0, high=1.0
    )
    dimension: int = setting(32, "of phi and of skills", low=1)
    skill_expectile: float = setting(0.9, "tau' of the skills' values", above=0.0, below=1.0)
    skill_discount: float = setting(0.99, "gamma' of the skills", low=0.0, below=1.0)
    temperature: float = setting(10.0, "beta, the inverse temperature of the advantage weights", low=0.0)
    largest_weight: float = setting(100.0, "the advantage weights are clipped here", above=0.0)
    target_rate: float = setting(0.005, "share by which targets follow, per update", above=0.0, high=1.0)
    learning_rate: float = setting(3e-4, "of Adam", above=0.0)
    encoder_rate: float = setting(1.0, "learning rate of phi, in shares of the other one; 0 keeps random features", low=0.0)
    batch_size: int = setting(1024, "steps per update", low=1)
    width: int = setting(512, "hidden units of phi and the critics", low=1)
    depth: int = setting(3, "hidden layers of phi and the critics", low=1)
    part: str = setting("", "the part of the observation that is the state; empty: all of it")
    into: str = setting("", "the part of the observation that tells the goal; empty: none does")
    policy: Form | None = setting(None, "the form of the policy; None is a Gaussian of this width and depth")

    title: ClassVar[str] = "Foundation policies with Hilbert representations"
    actions: ClassVar[str] = "continuous"

    @property
    def needs(self) -> Mapping[str, Request]:
        """Steps with goals."""
        goals = Goals(0.0, self.future, 1.0 - self.future, discount=self.discount, part=self.part)
        return {"steps": Steps(self.batch_size, goals=goals)}

    def _state_spec(self, spec: Spec) -> Spec:
        """The spec of states: of the part that they are."""
        if not (self.part or self.into):
            return spec
        parts = dict(spec.observation.parts) if isinstance(spec.observation, spaces.Composite) else {}
        for name in (self.part, self.into):
            if name not in parts:
                raise BadInput(
                    f"HILP names the part {name!r} but the observation has {', '.join(parts) or 'no named parts'}: name two of them"
                )
        names, known = list(parts), spec.statistics.get("observation")
        begin = sum(spaces.size(parts[name]) for name in names[: names.index(self.part)])
        own = slice(begin, begin + spaces.size(parts[self.part]))
        statistics = dict(spec.statistics)
        if known is not None:
            statistics["observation"] = jax.tree.map(lambda leaf: leaf[own], known)
        return replace(spec, observation=parts[self.part], statistics=statistics)

    def _skill_spec(self, states: Spec) -> Spec:
        """What the policy of skills sees: a state and a direction, which is not normalised."""
        known, plain = states.statistics.get("observation"), jnp.ones(self.dimension)
        statistics = dict(states.statistics)
        if known is not None:
            beside = Statistics(0.0 * plain, plain, -plain, plain)
            statistics["observation"] = jax.tree.map(lambda a, b: jnp.concatenate([a, b]), known, beside)
        seen = spaces.Composite((("observation", states.observation), ("skill", spaces.Box((self.dimension,), -1.0, 1.0))))
        return replace(states, observation=seen, statistics=statistics)

    def init(self, spec: Spec, *, key: PRNGKeyArray, given: Mapping[str, Any] = {}) -> dict[str, PyTree]:
        """Networks with fresh parameters; targets equal them."""
        keys = jax.random.split(key, 4)
        states = self._state_spec(spec)
        skills, size = self._skill_spec(states), spaces.size(states.observation)
        shape: dict[str, Any] = {"width": self.width, "depth": self.depth, "activation": "gelu", "layer_norm": True}
        form = self.policy or Gaussian(width=self.width, depth=self.depth, activation="gelu")
        network = Ensemble.of(lambda k: MLP(size, self.dimension, **shape, key=k), 2, key=keys[0])
        encoder = Encoder(network, observation_normaliser(states), states.observation)
        critic = ActionValue(skills, **shape, key=keys[1])
        return {
            "encoder": trained(encoder, optax.adam(self.learning_rate)),
            "slow encoder": encoder,
            "critic": trained(critic, optax.adam(self.learning_rate)),
            "slow critic": critic,
            "value": trained(StateValue(skills, **shape, key=keys[2]), optax.adam(self.learning_rate)),
            "policy": trained(form.build(skills, key=keys[3]), optax.adam(self.learning_rate)),
            "goal": spaces.zeros(states.observation),
        }

    def update(
        self, state: dict[str, PyTree], batch: Window, *, clock: Clock, key: PRNGKeyArray
    ) -> tuple[dict[str, PyTree], dict[str, Array]]:
        """Distances, then the skills' values and policy, all from what was known before."""
        skill_key, loss_key = jax.random.split(key)
        here, after = (tree[self.part] if self.part else tree for tree in (batch.observation, batch.next_observation))
        goal, reached = batch.extra["goal"], batch.extra["reached"]
        encoder, encoder_error = self._fit_distances(state, here, after, goal, reached)

        phi = jax.vmap(state["encoder"].model)
        skill = jax.random.normal(skill_key, (reached.shape[0], self.dimension))
        skill = skill / jnp.linalg.norm(skill, axis=-1, keepdims=True)
        reward = jnp.sum((phi(after)[:, 0] - phi(here)[:, 0]) * skill, axis=-1)
        seen, then = {"observation": here, "skill": skill}, {"observation": after, "skill": skill}
        slow_q = jnp.min(jax.vmap(state["slow critic"].values)(seen, batch.action), axis=-1)
        v = jax.vmap(state["value"].model)
        optimiser = optax.adam(self.learning_rate)

        value_loss = lambda value: (jnp.mean(expectile_loss(slow_q - jax.vmap(value)(seen), self.skill_expectile)), None)
        value, value_error, _ = descend(state["value"], value_loss, optimiser)
        wanted = reward + self.skill_discount * v(then)
        critic_loss = lambda critic: (
            jnp.mean(jnp.sum((jax.vmap(critic.values)(seen, batch.action) - wanted[:, None]) ** 2, axis=-1)),
            None,
        )
        critic, critic_error, _ = descend(state["critic"], critic_loss, optimiser)
        advantage = slow_q - v(seen)
        weight = jnp.minimum(jnp.exp(self.temperature * advantage), self.largest_weight)
        skilled = replace(batch, observation=seen, next_observation=then)
        policy_loss = lambda policy: (jnp.mean(weight * imitation_loss(policy, skilled, key=loss_key)), None)
        policy, policy_error, _ = descend(state["policy"], policy_loss, optimiser)

        metrics = {
            "distance_loss": encoder_error, "value_loss": value_error, "critic_loss": critic_error, "policy_loss": policy_error,
            "advantage": jnp.mean(advantage), "weight": jnp.mean(weight),
        }  # fmt: skip
        slow = {
            "slow encoder": follow(state["slow encoder"], state["encoder"].model, self.target_rate),
            "slow critic": follow(state["slow critic"], state["critic"].model, self.target_rate),
        }
        return {"encoder": encoder, "value": value, "critic": critic, "policy": policy, "goal": state["goal"], **slow}, metrics

    def _fit_distances(
        self, state: dict[str, PyTree], here: PyTree, after: PyTree, goal: PyTree, reached: Array
    ) -> tuple[Trained, Float[Array, ""]]:
        """One step on equation 5."""
        slow = jax.vmap(state["slow encoder"])
        to_goal = slow(goal)
        next_value, now = -distance(slow(after), to_goal), -distance(slow(here), to_goal)  # [batch, 2]
        reward, goes_on = jnp.where(reached, 0.0, -1.0), self.discount * (1.0 - reached)
        advantage = reward + goes_on * jnp.min(next_value, axis=1) - jnp.mean(now, axis=1)
        wanted = reward[:, None] + goes_on[:, None] * next_value
        share = jnp.where(advantage < 0, 1.0 - self.expectile, self.expectile)[:, None]

        def loss(encoder: Any) -> tuple[Array, None]:
            value = -distance(jax.vmap(encoder)(here), jax.vmap(encoder)(goal))
            return jnp.mean(jnp.sum(share * (wanted - value) ** 2, axis=1)), None

        encoder, error, _ = descend(state["encoder"], loss, optax.adam(self.learning_rate * self.encoder_rate))
        return encoder, error

    def products(self, state: dict[str, PyTree]) -> dict[str, Any]:
        """`policy` and `explorer` (a `Prompted` policy: `towards` a goal, `along` a skill, `rewarded`), and `encoder`, phi."""
        encoder: Encoder = state["encoder"].model
        first = replace(encoder, network=jax.tree.map(lambda leaf: leaf[0], encoder.network.members))
        skill = jnp.full(self.dimension, self.dimension**-0.5)
        policy = Prompted(state["policy"].model, first, state["goal"], skill, jnp.asarray(True), self.part, self.into)
        return {"policy": policy, "explorer": policy, "encoder": first}
