"""Policies that read what they have seen and done: a causal transformer over observations and actions (Chen et al. 2021, "Decision
Transformer", arXiv 2106.01345)."""

from __future__ import annotations

from dataclasses import dataclass, replace

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, PRNGKeyArray, PyTree

from policylab import spaces
from policylab.errors import BadInput
from policylab.experience import Spec, Window
from policylab.networks.frozen import Normaliser, Scaler, action_scaler, observation_normaliser
from policylab.networks.mlp import MLP
from policylab.networks.transformer import Transformer
from policylab.policies.categorical import Categorical
from policylab.policies.deterministic import Deterministic
from policylab.policies.windowed import Windowed
from policylab.policy import Form, Policy


class History(eqx.Module):
    """The last steps of an episode, the newest last: what was seen and done, flattened, and how many of them there are."""

    observation: Float[Array, "step observation"]
    action: Float[Array, "step action"]
    count: Int[Array, ""]


class SequencePolicy(Policy):
    """Tokens ..., s_{t-1}, a_{t-1}, s_t through a causal transformer; a policy of vectors (`head`) acts on what stands at s_t.

    Where the observation is a dictionary, each of its parts is a token (a return to go or a goal, then the observation). What is
    acted on are the last `context` steps, also where a window is longer than that.
    """

    parts: tuple[MLP, ...]
    done: MLP
    transformer: Transformer
    head: Policy
    normaliser: Normaliser
    scaler: Scaler
    observation_space: spaces.Space = eqx.field(static=True)
    action_space: spaces.Space = eqx.field(static=True)
    context: int = eqx.field(static=True)

    def initial_memory(self, *, key: PRNGKeyArray) -> tuple[History, PyTree]:
        """Nothing seen yet, and the memory of the head."""
        seen, made = spaces.size(self.observation_space), spaces.size(self.action_space)
        empty = History(jnp.zeros((self.context, seen)), jnp.zeros((self.context, made)), jnp.zeros((), jnp.int32))
        return empty, self.head.initial_memory(key=key)

    def _flat_observation(self, observation: PyTree) -> Float[Array, " observation"]:
        return self.normaliser(spaces.flatten(self.observation_space, observation))

    def _flat_action(self, action: PyTree) -> Float[Array, " action"]:
        flat = spaces.flatten(self.action_space, action)
        return self.scaler.to_unit(flat) if isinstance(self.action_space, spaces.Box) else flat

    def read(
        self, observation: Float[Array, "time observation"], action: Float[Array, "time action"], valid: Bool[Array, " time"]
    ) -> Float[Array, "time width"]:
        """What stands at every step's last observation token, from flat observations and actions. The action of a step is seen by the
        steps after it only."""
        space = self.observation_space
        sizes = [spaces.size(part) for _, part in space.parts] if isinstance(space, spaces.Composite) else [spaces.size(space)]
        ends = [sum(sizes[: i + 1]) for i in range(len(sizes) - 1)]
        columns = [*jnp.split(observation, ends, axis=-1), action]
        embed = (*self.parts, self.done)
        tokens = jnp.stack([jax.vmap(layer)(column) for layer, column in zip(embed, columns, strict=True)], axis=1)
        time, kinds, width = tokens.shape
        out = self.transformer(tokens.reshape(time * kinds, width), jnp.repeat(valid, kinds))
        return out.reshape(time, kinds, width)[:, -2]

    def act(
        self, observation: PyTree, memory: tuple[History, PyTree], *, key: PRNGKeyArray
    ) -> tuple[PyTree, tuple[History, PyTree]]:
        """The head's action, which the memory keeps."""
        history, features = self._seen(observation, memory[0])
        action, inner = self.head.act(features, memory[1], key=key)
        return action, (self._kept(history, action), inner)

    def sample(
        self, observation: PyTree, memory: tuple[History, PyTree], *, key: PRNGKeyArray
    ) -> tuple[PyTree, Float[Array, ""], tuple[History, PyTree]]:
        """The head's action and its log-probability."""
        history, features = self._seen(observation, memory[0])
        action, log_prob, inner = self.head.sample(features, memory[1], key=key)
        return action, log_prob, (self._kept(history, action), inner)

    def _seen(self, observation: PyTree, history: History) -> tuple[History, Float[Array, " width"]]:
        flat = self._flat_observation(observation)
        seen = jnp.concatenate([history.observation[1:], flat[None]])
        made = jnp.concatenate([history.action[1:], jnp.zeros_like(history.action[:1])])
        history = History(seen, made, jnp.minimum(history.count + 1, self.context))
        return history, self.read(seen, made, self._valid(history))[-1]

    def _kept(self, history: History, action: PyTree) -> History:
        return replace(history, action=history.action.at[-1].set(self._flat_action(action)))

    def _valid(self, history: History) -> Bool[Array, " step"]:
        return jnp.arange(self.context) >= self.context - history.count

    def _features(self, window: Window) -> Float[Array, "time width"]:
        observation = jax.vmap(self._flat_observation)(window.observation)
        action = jax.vmap(self._flat_action)(window.action)
        valid, time = window.valid, window.valid.shape[0]
        if window.memory is None and time <= self.context:
            return self.read(observation, action, valid)
        # Each step by its own last `context` steps, those of the memory before the window among them, exactly as when it acted.
        history = window.memory[0] if window.memory is not None else self.initial_memory(key=jax.random.key(0))[0]
        observation, action = jnp.concatenate([history.observation, observation]), jnp.concatenate([history.action, action])
        ended = jnp.concatenate([jnp.zeros(self.context, bool), window.terminal | window.truncated])
        valid = jnp.concatenate([self._valid(history), valid])
        episode = jnp.cumsum(ended) - ended  # rollouts go on into the next episode, which must not see the one before

        def one(t: Int[Array, ""]) -> Float[Array, " width"]:
            rows = t + 1 + jnp.arange(self.context)
            mine = valid[rows] & (episode[rows] == episode[rows[-1]])
            return self.read(observation[rows], action[rows], mine)[-1]

        return jax.vmap(one)(jnp.arange(time))

    def _of_features(self, window: Window) -> Window:
        return replace(window, observation=self._features(window), memory=None)

    def log_probs(self, window: Window) -> Float[Array, "time part"]:
        """The head's."""
        return self.head.log_probs(self._of_features(window))

    def logits(self, window: Window) -> Float[Array, "time choice"]:
        """The head's."""
        return self.head.logits(self._of_features(window))

    def imitation_loss(self, window: Window, *, key: PRNGKeyArray) -> Float[Array, " time"]:
        """The head's, at every step of the window."""
        return self.head.imitation_loss(self._of_features(window), key=key)

    def mode(self) -> Policy:
        """The same with the head's mode."""
        return replace(self, head=self.head.mode())


@dataclass(frozen=True)
class Sequence(Windowed):
    """A transformer of `layers` blocks over the last `context` steps, in which `head` says how actions follow from its vectors: a form
    without hidden layers, by default `Deterministic` for numbers (squared error, as the paper's) and `Categorical` for choices.

    The blocks are those of present language models (rotary positions, SwiGLU, RMSNorm), not the paper's GPT-2; time is the place in
    the window. Widths and depth are the paper's for locomotion: 128, 3 layers; one head there, four here.
    """

    context: int = 20
    width: int = 128
    layers: int = 3
    heads: int = 4
    head: Form | None = None
    normalise: bool = True

    @property
    def past(self) -> int:
        """All but the newest step."""
        return self.context - 1

    def build(self, spec: Spec, *, key: PRNGKeyArray) -> SequencePolicy:
        """Raises `BadInput` for a context below 1, or where the head cannot do the actions."""
        if self.context < 1:
            raise BadInput(f"Sequence.context is {self.context}: give at least 1 step")
        space, discrete = spec.observation, isinstance(spec.action, spaces.Discrete)
        parts = [part for _, part in space.parts] if isinstance(space, spaces.Composite) else [space]
        body_key, head_key, done_key, *keys = jax.random.split(key, 3 + len(parts))
        linear = lambda size, key: MLP(size, self.width, width=1, depth=0, key=key)
        form = self.head or (Categorical(depth=0) if discrete else Deterministic(depth=0))
        statistics = {name: value for name, value in spec.statistics.items() if name != "observation"}
        features = replace(spec, observation=spaces.Box((self.width,)), statistics=statistics)
        neutral = Scaler(jnp.zeros(1), jnp.ones(1))
        return SequencePolicy(
            tuple(linear(spaces.size(part), k) for part, k in zip(parts, keys, strict=True)),
            linear(spaces.size(spec.action), done_key),
            Transformer(self.width, layers=self.layers, heads=self.heads, key=body_key),
            form.build(features, key=head_key),
            observation_normaliser(spec, enabled=self.normalise),
            action_scaler(spec.action, spec.statistics.get("action")) if isinstance(spec.action, spaces.Box) else neutral,
            space, spec.action, self.context,
        )  # fmt: skip
