"""COCOA: compositional conservatism, a wrapper of any offline learner (Song, Lee and Kim 2024, arXiv 2404.04682)."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any, ClassVar, Literal, TypeVar

import equinox as eqx
import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, PRNGKeyArray, PyTree

from policylab import spaces
from policylab.errors import BadInput
from policylab.experience import Spec, Statistics, Window
from policylab.hyperparameters import setting, settings
from policylab.learner import Clock, Learner, Request, Sometimes, Steps
from policylab.learners.offline.iql import IQL
from policylab.learners.worldmodel.ensemble import EnsembleDynamics
from policylab.networks.bilinear import anchored
from policylab.networks.optimisation import Trained, descend, trained
from policylab.policies.deterministic import Deterministic
from policylab.policy import Policy, imitation_loss
from policylab.scorer import Scorer
from policylab.worlds.ensemble import EnsembleWorld

T = TypeVar("T")


class Anchors(eqx.Module):
    """From an observation to (anchor, delta): where the seeker leads from it within `horizon` steps of the learned world, and the rest.

    With `random`, the anchor is any observation of `bank` instead: the ablation. No gradient flows into seeker and world.
    """

    seeker: Policy
    world: EnsembleWorld
    bank: Float[Array, "bank size"]
    horizon: int = eqx.field(static=True)
    random: bool = eqx.field(static=True)

    def __call__(self, observation: PyTree, *, key: PRNGKeyArray) -> dict[str, Float[Array, " size"]]:
        """One sample; the key matters only where anchors are random."""
        flat = spaces.flatten(self.world.spec.observation, observation)
        if self.random:
            anchor = self.bank[jax.random.randint(key, (), 0, self.bank.shape[0])]
        else:
            place = observation
            for _ in range(self.horizon):
                action, _ = self.seeker.act(place, None, key=key)
                place, _ = self.world.expected(place, action)
            anchor = spaces.flatten(self.world.spec.observation, place)
        return jax.lax.stop_gradient({"anchor": anchor, "delta": flat - anchor})

    def of_window(self, window: Window, *, key: PRNGKeyArray) -> Window:
        """Observations and next observations of a batch or a window, taken apart."""
        rows = window.reward.shape[0]
        here, after = jax.random.split(key)
        apart = lambda observation, k: jax.vmap(lambda o, k: self(o, key=k))(observation, jax.random.split(k, rows))
        return eqx.tree_at(
            lambda w: (w.observation, w.next_observation), window,
            (apart(window.observation, here), apart(window.next_observation, after)),
        )  # fmt: skip


class AnchoredPolicy(Policy):
    """A policy of (anchor, delta) as a policy of the observation itself."""

    policy: Policy
    anchors: Anchors

    def initial_memory(self, *, key: PRNGKeyArray) -> PyTree[Array]:
        """The inner policy's."""
        return self.policy.initial_memory(key=key)

    def act(self, observation: PyTree, memory: PyTree, *, key: PRNGKeyArray) -> tuple[PyTree, PyTree]:
        """The inner policy's action."""
        anchor_key, act_key = jax.random.split(key)
        return self.policy.act(self.anchors(observation, key=anchor_key), memory, key=act_key)

    def mode(self) -> Policy:
        """The inner policy's mode."""
        return AnchoredPolicy(self.policy.mode(), self.anchors)

    def sample(self, observation: PyTree, memory: PyTree, *, key: PRNGKeyArray) -> tuple[PyTree, Float[Array, ""], PyTree]:
        """The inner policy's."""
        anchor_key, sample_key = jax.random.split(key)
        return self.policy.sample(self.anchors(observation, key=anchor_key), memory, key=sample_key)

    def log_probs(self, window: Window) -> Float[Array, "time part"]:
        """The inner policy's; random anchors are drawn with a fixed key."""
        return self.policy.log_probs(self.anchors.of_window(window, key=jax.random.key(0)))

    def imitation_loss(self, window: Window, *, key: PRNGKeyArray) -> Float[Array, " time"]:
        """The inner policy's."""
        anchor_key, loss_key = jax.random.split(key)
        return self.policy.imitation_loss(self.anchors.of_window(window, key=anchor_key), key=loss_key)

    def entropy(self, observation: PyTree) -> Float[Array, ""]:
        """The inner policy's; random anchors are drawn with a fixed key."""
        return self.policy.entropy(self.anchors(observation, key=jax.random.key(0)))

    def features(self, observation: PyTree) -> Float[Array, " feature"]:
        """The inner policy's; random anchors are drawn with a fixed key."""
        return self.policy.features(self.anchors(observation, key=jax.random.key(0)))


class AnchoredCritic(Scorer):
    """A critic of (anchor, delta) as a critic of the observation itself; random anchors are drawn with a fixed key."""

    critic: Any
    anchors: Anchors

    def values(self, observation: PyTree, action: PyTree) -> Float[Array, " members"]:
        """The inner critic's Q(s, a) of every member."""
        return self.critic.values(self.anchors(observation, key=jax.random.key(0)), action)

    def scores(self, observation: PyTree, action: PyTree) -> Float[Array, " part"]:
        """The inner critic's."""
        return self.critic.scores(self.anchors(observation, key=jax.random.key(0)), action)


@settings
class COCOA(Learner):
    r"""Any offline learner on states taken apart: s = anchor + delta, with the anchor near the data and delta seen before.

    A run has three phases. First the world s, a -> s' and the reversed world s', a -> s are fitted to the data. Then the seeker:
    from s' of the data, the reversed world walks `walk` steps back along one direction u, a = clip(scale * u + noise), u an action
    of the data, and the seeker clones the actions of these walks, which lead from where the data are not to where they are:

        min E[ |seeker(s_back) - a|^2 ]

    Then anchor(s) is where the seeker leads from s within `horizon` steps of the world, and `learner` learns as ever, with networks

        feature_t = <f_t(delta, a), g_t(anchor, a)>

    in its policy and critics. The walks are drawn afresh at every update, where the authors clone a fixed set of them with early
    stopping; anchors follow the elites' mean, theirs one elite drawn at random.
    """

    learner: Learner = setting(IQL(), "the learner that is wrapped; it must learn from single transitions")
    dynamics: EnsembleDynamics = setting(EnsembleDynamics(), "how both worlds are learned; its batch size is not used")
    world_share: float = setting(0.2, "share of the updates that fit the worlds", above=0.0, below=0.5)
    seeker_share: float = setting(0.1, "share of the updates that fit the seeker", above=0.0, below=0.5)
    horizon: int = setting(1, "steps of the seeker from a state to its anchor", low=1)
    walk: int = setting(5, "steps of a walk backwards", low=1)
    scale: float = setting(0.8, "of the direction of a walk", above=0.0)
    noise: float = setting(0.1, "standard deviation of a walk's actions around its direction, in half action ranges", low=0.0)
    seeker_rate: float = setting(1e-3, "learning rate of Adam for the seeker", above=0.0)
    rank: int = setting(32, "length of the vectors whose inner product is one feature", low=1)
    anchors: Literal["sought", "random"] = setting("sought", "random: any observation of the data is the anchor (ablation)")
    seeker: Deterministic = setting(Deterministic(width=100, depth=2, layer_norm=True), "the form of the seeker")

    title: ClassVar[str] = "Compositional conservatism with anchor seeking"
    actions: ClassVar[str] = "continuous"
    uses: ClassVar[tuple[str, ...]] = ("reward",)

    @property
    def needs(self) -> Mapping[str, Request]:
        """What the wrapped learner needs, and the numbers of the rows."""
        wanted = list(self.learner.needs.values())
        if len(wanted) != 1 or not isinstance(wanted[0], Steps) or wanted[0].n != 1:
            raise BadInput(
                f"COCOA wraps learners of single transitions, which {type(self.learner).__name__} is not: choose IQL or CQL"
            )
        return {"transitions": replace(wanted[0], fields=tuple(dict.fromkeys((*wanted[0].fields, "row"))))}

    def init(self, spec: Spec, *, key: PRNGKeyArray, given: Mapping[str, Any] = {}) -> dict[str, PyTree]:
        """Two fresh worlds, a seeker, and the wrapped learner's state for observations taken apart."""
        world_key, reverse_key, seeker_key, learner_key = jax.random.split(key, 4)
        apart = replace(spec, observation=anchored(spec.observation, rank=self.rank), statistics=_apart(spec))
        (request,) = self.needs.values()
        return {
            "world": self.dynamics.init(spec, key=world_key),
            "reverse": self.dynamics.init(spec, key=reverse_key),
            "seeker": trained(self.seeker.build(spec, key=seeker_key), optax.adam(self.seeker_rate)),
            "bank": jnp.zeros((request.count, spaces.size(spec.observation))),
            "learner": self.learner.init(apart, key=learner_key, given=given),
        }

    def update(
        self, state: dict[str, PyTree], batch: Window, *, clock: Clock, key: PRNGKeyArray
    ) -> tuple[dict[str, PyTree], dict[str, Any]]:
        """The update of the phase that the clock is in."""
        seeking = jnp.ceil(self.world_share * clock.total).astype(jnp.int32)
        learning = seeking + jnp.ceil(self.seeker_share * clock.total).astype(jnp.int32)
        own, learner_key = jax.random.split(key)
        anchors, reverse = self._anchors(state), state["reverse"]["world"].model

        def fit_worlds(worlds: tuple) -> tuple[tuple, tuple[Array, Array]]:
            back = replace(batch, observation=batch.next_observation, next_observation=batch.observation)
            world, forward = self.dynamics.update(worlds[0], batch, clock=clock, key=own)
            reverse, backward = self.dynamics.update(worlds[1], back, clock=clock, key=own)
            return (world, reverse), (forward["validation_error"], backward["validation_error"])

        def fit_seeker(seeker: Trained) -> tuple[Trained, tuple[Array]]:
            walks = self.walks(reverse, batch, key=own)
            loss = lambda seeker: (jnp.mean(imitation_loss(seeker, walks, key=own)), None)
            seeker, error, _ = descend(seeker, loss, optax.adam(self.seeker_rate))
            return seeker, (error,)

        def learn(learner: PyTree) -> tuple[PyTree, dict[str, tuple[Array, Array]]]:
            inner = Clock(clock.step - learning, clock.total - learning)
            apart = anchors.of_window(batch, key=own)
            learner, metrics = self.learner.update(learner, apart, clock=inner, key=learner_key)
            return learner, _listed(metrics)

        phase = (clock.step >= seeking).astype(jnp.int32) + (clock.step >= learning)
        worlds, errors = _only(phase == 0, fit_worlds, (state["world"], state["reverse"]))
        seeker, (error,) = _only(phase == 1, fit_seeker, state["seeker"])
        learner, metrics = _only(phase == 2, learn, state["learner"])
        flat = jax.vmap(lambda o: spaces.flatten(anchors.world.spec.observation, o))(batch.observation)
        return {"world": worlds[0], "reverse": worlds[1], "seeker": seeker, "bank": flat, "learner": learner}, {
            "world_error": Sometimes(errors[0], phase == 0), "reverse_error": Sometimes(errors[1], phase == 0),
            "seeker_loss": Sometimes(error, phase == 1),
        } | {name: Sometimes(value, present & (phase == 2)) for name, (value, present) in metrics.items()}  # fmt: skip

    def walks(self, reverse: EnsembleWorld, batch: Window, *, key: PRNGKeyArray) -> Window:
        """`walk` steps back from every next observation of the batch, leaves [walk * batch, ...]: where one stood, and what one did."""
        space, scaler = reverse.spec.action, reverse.scaler
        direction = jnp.roll(jax.vmap(lambda a: scaler.to_unit(spaces.flatten(space, a)))(batch.action), 1, axis=0)

        def back(place: PyTree, key: PRNGKeyArray) -> tuple[PyTree, tuple[PyTree, PyTree]]:
            noise_key, step_key = jax.random.split(key)
            unit = self.scale * direction + self.noise * jax.random.normal(noise_key, direction.shape)
            action = jax.vmap(lambda u: spaces.unflatten(space, scaler.to_environment(jnp.clip(u, -1.0, 1.0))))(unit)
            keys = jax.random.split(step_key, direction.shape[0])
            place = jax.vmap(lambda s, a, k: reverse.step(s, a, k)[0])(place, action, keys)
            return place, (place, action)

        _, (places, actions) = jax.lax.scan(back, batch.next_observation, jax.random.split(key, self.walk))
        join = lambda tree: jax.tree.map(lambda leaf: leaf.reshape(-1, *leaf.shape[2:]), tree)
        rows = self.walk * batch.reward.shape[0]
        flag, ones = jnp.zeros(rows, bool), jnp.ones(rows, jnp.int32)
        return Window(join(places), join(actions), jnp.zeros(rows), join(places), flag, flag, ~flag, ones)

    def _world(self, state: dict[str, PyTree]) -> EnsembleWorld:
        return state["world"]["world"].model

    def _anchors(self, state: dict[str, PyTree]) -> Anchors:
        return Anchors(state["seeker"].model, self._world(state), state["bank"], self.horizon, self.anchors == "random")

    def products(self, state: dict[str, PyTree]) -> dict[str, Any]:
        """What the wrapped learner offers, for whole observations, and `world`, `reverse_world`, `seeker`, `anchors`."""
        anchors, inner = self._anchors(state), self.learner.products(state["learner"])
        policies = {name: AnchoredPolicy(product, anchors) for name, product in inner.items() if isinstance(product, Policy)}
        critics = {name: AnchoredCritic(product, anchors) for name, product in inner.items() if isinstance(product, Scorer)}
        return {
            **policies, **critics,
            "world": anchors.world, "reverse_world": state["reverse"]["world"].model, "seeker": anchors.seeker, "anchors": anchors,
        }  # fmt: skip


def _apart(spec: Spec) -> dict[str, Statistics]:
    """Statistics of (anchor, delta): the observation's, and those of a difference in the same units."""
    known = spec.statistics.get("observation")
    if known is None:
        return dict(spec.statistics)
    join = lambda a, b: jnp.concatenate([a, b])
    spread = known.high - known.low
    both = Statistics(
        join(known.mean, jnp.zeros_like(known.mean)),
        join(known.std, known.std),
        join(known.low, -spread),
        join(known.high, spread),
    )
    return {**spec.statistics, "observation": both}


def _only(due: Array, work: Callable[[T], tuple[T, PyTree]], part: T) -> tuple[T, PyTree]:
    """`work(part)` where it is due; else the part as it is, and zeros. Each part has a branch of its own: nothing else is copied."""
    zeros = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), jax.eval_shape(work, part)[1])
    return jax.lax.cond(due, work, lambda part: (part, zeros), part)


def _listed(metrics: Mapping[str, Any]) -> dict[str, tuple[Array, Array]]:
    always = jnp.ones((), bool)
    return {
        name: (m.value, m.present) if isinstance(m, Sometimes) else (jnp.asarray(m, jnp.float32), always)
        for name, m in metrics.items()
    }
