"""PPO that learns from the reward alone what of its history to keep: the baseline of methods that model other agents."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any, ClassVar

import jax
from jaxtyping import Array, Float, PRNGKeyArray, PyTree

from policylab import spaces
from policylab.experience import Spec, Window
from policylab.hyperparameters import setting, settings
from policylab.learner import Clock
from policylab.learners.online.a2c import A2C
from policylab.learners.online.ppo import PPO
from policylab.networks.histories import HistoryEncoder
from policylab.networks.optimisation import Trained, trained
from policylab.policies.recognising import Recognising, embedded, history, now_and_length


@settings
class HistoryPPO(PPO):
    """PPO on (o_t, z_t), z_t = f(o_0 ... o_t), where f is an encoder of histories that learns with the policy and the value, from the same
    loss: what PPO with a recurrent network is, with attention over the steps so far in the place of the recurrence. Observations come
    from `Remembered`: parts `observation`, `past`, `seen`; any others count as histories of one step.
    """

    normalise: bool = setting(False, "whether what policy and value see is normalised by what was seen")
    size: int = setting(16, "numbers of the embedding", low=1)
    encoder_width: int = setting(32, "units of the encoder", low=1)

    title: ClassVar[str] = "PPO with a history learned end to end"

    def init(self, spec: Spec, *, key: PRNGKeyArray, given: Mapping[str, Any] = {}) -> dict[str, PyTree]:
        """A fresh encoder, policy and value under one optimiser."""
        first, second = jax.random.split(key)
        now, length = now_and_length(spec.observation)
        inside = replace(spec, observation=embedded(now, self.size), statistics={})
        state = A2C.init(self, inside, key=second, given=given)
        encoder = HistoryEncoder(spaces.size(now), self.size, length=length, width=self.encoder_width, key=first)
        model = {**state["model"].model, "encoder": encoder}
        return {**state, "model": trained(model, self.optimiser()), "spec": replace(spec, statistics={})}

    def update(
        self, state: dict[str, PyTree], batch: Window, *, clock: Clock, key: PRNGKeyArray
    ) -> tuple[dict[str, PyTree], dict[str, Any]]:
        """All epochs on one batch, whose histories are laid out first."""
        laid = jax.vmap(jax.vmap(_reader(state["spec"].observation)))
        shown = replace(batch, observation=laid(batch.observation), next_observation=laid(batch.next_observation))
        return PPO.update(self, state, shown, clock=clock, key=key)

    def learned(self, state: dict[str, PyTree], model: Trained, batch: Window) -> dict[str, PyTree]:
        """The state after an update."""
        return {**state, **A2C.learned(self, state, model, _embedded(model.model["encoder"], batch, 2))}

    def judged(
        self, model: Mapping[str, Any], batch: Window
    ) -> tuple[Float[Array, "environment time"], Float[Array, "environment time"]]:
        """Advantages and returns, of values that see the embeddings."""
        return A2C.judged(self, model, _embedded(model["encoder"], batch, 2))

    def _loss(
        self,
        model: Mapping[str, Any],
        batch: Window,
        advantage: Float[Array, " row"],
        goal: Float[Array, " row"],
        key: PRNGKeyArray,
    ) -> tuple[Float[Array, ""], dict[str, Array]]:
        return PPO._loss(self, model, _embedded(model["encoder"], batch, 1), advantage, goal, key)

    def products(self, state: dict[str, PyTree]) -> dict[str, Any]:
        """`policy` and `explorer`, which embed their histories themselves; `encoder`."""
        model, space = state["model"].model, state["spec"].observation
        policy = Recognising(model["policy"], model["encoder"], space)
        return {"policy": policy, "explorer": policy, "encoder": model["encoder"]}


def _reader(space: spaces.Space) -> Callable[[PyTree], dict[str, PyTree]]:
    """An observation as {"now", "past", "seen"}."""
    return lambda observation: dict(zip(("now", "past", "seen"), history(space, observation), strict=True))


def _embedded(encoder: HistoryEncoder, batch: Window, axes: int) -> Window:
    """The batch with embeddings beside its observations."""
    one = lambda laid: {"observation": laid["now"], "embedding": encoder(laid["past"], laid["seen"])}
    for _ in range(axes):
        one = jax.vmap(one)
    return replace(batch, observation=one(batch.observation), next_observation=one(batch.next_observation))
