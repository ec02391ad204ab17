"""PRDC: policy regularisation with dataset constraint (Ran et al. 2023, arXiv 2306.06569)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Bool, Float, Int, PRNGKeyArray, PyTree

from policylab import spaces
from policylab.experience import Spec, Window
from policylab.hyperparameters import setting, settings
from policylab.learner import Clock, Everything, Learner, Request, Sometimes, Steps
from policylab.networks.optimisation import descend, follow, trained
from policylab.policies.deterministic import Deterministic, smoothed_actions
from policylab.policy import Form, actions
from policylab.scorers.critic import ActionValue


def nearest_rows(
    points: Float[Array, "point size"], rows: Float[Array, "row size"], valid: Bool[Array, " row"], *, block: int = 4096
) -> Int[Array, " point"]:
    """For every point the number of the nearest valid row, by Euclidean distance.

    Exact up to float32: |row|^2 - 2 point . row over all rows, `block` of them at a time, so that memory stays point x block. For the
    few dimensions and some 10^5 rows of control data this beats fetching neighbours of a tree from the host.
    """
    size = min(block, rows.shape[0])
    missing = -rows.shape[0] % size
    blocks = jnp.pad(rows, ((0, missing), (0, 0))).reshape(-1, size, rows.shape[1])
    masks = jnp.pad(valid, (0, missing)).reshape(-1, size)

    def look(best: tuple[Array, Array], piece: tuple[Array, Array, Array]) -> tuple[tuple[Array, Array], None]:
        number, part, mask = piece
        squares = jnp.where(mask, jnp.sum(part**2, axis=-1), jnp.inf)
        distance = squares - 2.0 * jnp.matmul(points, part.T, precision=jax.lax.Precision.HIGHEST)
        least, index = jnp.min(distance, axis=-1), jnp.argmin(distance, axis=-1)
        closer = least < best[0]
        return (jnp.where(closer, least, best[0]), jnp.where(closer, number * size + index, best[1])), None

    start = (jnp.full(points.shape[0], jnp.inf), jnp.zeros(points.shape[0], jnp.int32))
    (_, found), _ = jax.lax.scan(look, start, (jnp.arange(len(blocks)), blocks, masks))
    return found


@settings
class PRDC(Learner):
    r"""TD3 whose actor is pulled towards the action of the nearest state and action in all of the data, not in this state alone.

    Q_i:    min E[ ( r + gamma (1 - terminal) min_j Qbar_j(s', clip(pibar(s') + noise)) - Q_i(s, a) )^2 ]
    policy: max E[ lambda Q_1(s, pi(s)) - |pi(s) - a'|^2 ],  lambda = alpha / mean |Q_1(s, pi(s))|,
            a' the action of the row (s_i, a_i) nearest to the point [beta s, pi(s)] among [beta s_i, a_i]     (equations 3 to 6)

    Large `beta` comes close to TD3+BC, which copies the action of this very state; at 0 any action of the data will do anywhere.
    Distances are between normalised observations and actions in units of half their range. The policy and all targets move every
    `policy_period` updates. Defaults are those of hopper and walker2d; halfcheetah uses alpha 40, AntMaze alpha 7.5 and beta 7.5.
    """

    alpha: float = setting(2.5, "weight of the normalised value against the constraint", low=0.0)
    beta: float = setting(2.0, "weight of the state in the distance; actions have weight 1", low=0.0)
    discount: float = setting(0.99, "gamma per step", low=0.0, high=1.0)
    noise: float = setting(0.2, "standard deviation of the target action's noise, in half action ranges", low=0.0)
    noise_clip: float = setting(0.5, "the noise is clipped here, in half action ranges", low=0.0)
    target_rate: float = setting(0.005, "share by which targets follow, per policy update", above=0.0, high=1.0)
    learning_rate: float = setting(3e-4, "of Adam, for policy and critics", above=0.0)
    policy_period: int = setting(2, "updates of the critics per update of the policy", low=1)
    batch_size: int = setting(256, "transitions per update", low=1)
    width: int = setting(256, "hidden units of the critics", low=1)
    depth: int = setting(2, "hidden layers of the critics", low=1)
    policy: Form = setting(Deterministic(), "the form of the policy")

    title: ClassVar[str] = "Policy regularisation with dataset constraint"
    actions: ClassVar[str] = "continuous"
    uses: ClassVar[tuple[str, ...]] = ("reward",)

    @property
    def needs(self) -> Mapping[str, Request]:
        """Transitions, and all of the data to find neighbours in."""
        return {"transitions": Steps(self.batch_size), "data": Everything()}

    def init(self, spec: Spec, *, key: PRNGKeyArray, given: Mapping[str, Any] = {}) -> dict[str, PyTree]:
        """Fresh networks; targets equal them."""
        policy_key, critic_key = jax.random.split(key)
        policy = self.policy.build(spec, key=policy_key)
        critic = ActionValue(spec, width=self.width, depth=self.depth, key=critic_key)
        optimiser = optax.adam(self.learning_rate)
        return {
            "policy": trained(policy, optimiser), "critic": trained(critic, optimiser),
            "target_policy": policy, "target_critic": critic,
        }  # fmt: skip

    def update(
        self, state: dict[str, PyTree], batch: Mapping[str, Window], *, clock: Clock, key: PRNGKeyArray
    ) -> tuple[dict, dict[str, Any]]:
        """The critics; at every `policy_period`-th step also the policy and the targets."""
        steps, data = batch["transitions"], batch["data"]
        noise_key, policy_key = jax.random.split(key)
        next_action = smoothed_actions(
            state["target_policy"], steps.next_observation, noise=self.noise, clip=self.noise_clip, key=noise_key
        )
        next_value = jnp.min(jax.vmap(state["target_critic"].values)(steps.next_observation, next_action), axis=-1)
        goal = steps.reward + self.discount**steps.duration * steps.continues * next_value

        def critic_loss(critic: ActionValue) -> tuple[Array, Array]:
            values = jax.vmap(critic.values)(steps.observation, steps.action)
            return jnp.mean(jnp.sum((values - goal[:, None]) ** 2, axis=-1)), values

        critic, critic_error, values = descend(state["critic"], critic_loss, optax.adam(self.learning_rate))
        state = {**state, "critic": critic}

        def policy_loss(policy: Any) -> tuple[Array, Array]:
            own = actions(policy, steps.observation, key=policy_key)
            q = jax.vmap(critic.model.first_value)(steps.observation, own)
            scale = self.alpha / jax.lax.stop_gradient(jnp.mean(jnp.abs(q)))
            units, anchors = unit_actions(critic.model, own), self.anchors(critic.model, steps.observation, own, data)
            gap = jnp.mean((units - anchors) ** 2)
            return gap - scale * jnp.mean(q), gap

        def improve(state: dict[str, PyTree]) -> tuple[dict[str, PyTree], Array, Array]:
            policy, error, gap = descend(state["policy"], policy_loss, optax.adam(self.learning_rate))
            return {
                **state, "policy": policy,
                "target_policy": follow(state["target_policy"], policy.model, self.target_rate),
                "target_critic": follow(state["target_critic"], critic.model, self.target_rate),
            }, error, gap  # fmt: skip

        due = clock.step % self.policy_period == 0
        state, error, gap = jax.lax.cond(due, improve, lambda state: (state, jnp.zeros(()), jnp.zeros(())), state)
        metrics = {"critic_loss": critic_error, "q": jnp.mean(values)}
        return state, metrics | {"policy_loss": Sometimes(error, due), "gap": Sometimes(gap, due)}

    def anchors(self, critic: ActionValue, observation: PyTree, action: PyTree, data: Window) -> Float[Array, "batch size"]:
        """The actions of the rows nearest to [beta s, a], in units of half the action range; no gradient goes through the search."""

        def point(observation: PyTree, unit: Float[Array, " size"]) -> Float[Array, " point"]:
            flat = spaces.flatten(critic.observation_space, observation)
            return jnp.concatenate([self.beta * critic.normaliser(flat), unit])

        logged = unit_actions(critic, data.action)
        rows, points = jax.vmap(point)(data.observation, logged), jax.vmap(point)(observation, unit_actions(critic, action))
        return logged[nearest_rows(jax.lax.stop_gradient(points), rows, data.valid)]

    def products(self, state: dict[str, PyTree]) -> dict[str, Any]:
        """`policy`, `explorer`, `critic`."""
        policy = state["policy"].model
        return {"policy": policy, "explorer": policy, "critic": state["critic"].model}


def unit_actions(critic: ActionValue, action: PyTree) -> Float[Array, "batch size"]:
    """Flat actions of a batch in units of half their range."""
    return jax.vmap(lambda a: critic.scaler.to_unit(spaces.flatten(critic.action_space, a)))(action)
