"""PMoE: soft actor-critic with a mixture of experts for a policy (Ren et al. 2021, arXiv 2104.09122)."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray, PyTree

from policylab.errors import BadInput
from policylab.experience import Spec, Window
from policylab.hyperparameters import setting, settings
from policylab.learners.online.sac import SAC
from policylab.policies.mixture import Mixture, MixturePolicy
from policylab.policy import Form, Policy
from policylab.scorers.critic import ActionValue


@settings
class PMoE(SAC):
    r"""SAC whose policy is pi(a | s) = sum_k w_k(s) pi_k(a | s); the choice of an expert is not differentiated but counted:

        a_k ~ pi_k(. | s) for every expert, reparameterised;   b = argmax_k min_j Q_j(s, a_k)
        gate (the frequency loss):  min E[ |w(s) - onehot(b)|^2 / K ]
        expert b:                   min E[ alpha log pi_b(a_b | s) - min_j Q_j(s, a_b) ]      (`everyone`: the mean over all experts)
        Q_i: min E[ ( r + gamma (1 - terminal) ( min_j Qbar_j(s', a') - alpha log pi_k(a' | s') ) - Q_i(s, a) )^2 ],  k ~ w(s'), a' ~ pi_k

    Densities are those of the expert that acts, not of the mixture, as in a co-author's code (the paper's release is not public), so the
    mixture's own entropy is higher than what is asked for. `gate` replaces this by what else is done with mixtures, with
    the mixture's own density throughout: "gumbel", an expert drawn by Gumbel noise whose gradient is that of
    y = softmax((log w + noise) / `relaxation`), u = sum_k y_k u_k (straight-through Gumbel-softmax, Jang et al. 2017); or "score", the
    score-function gradient of the gate, E[ grad log w_k (alpha log pi - Q) ] with the batch mean as baseline.
    """

    gate: Literal["frequency", "gumbel", "score"] = setting("frequency", "how the gate learns: frequency, gumbel or score")
    gate_weight: float = setting(1.0, "weight of the gate's loss", low=0.0)
    relaxation: float = setting(1.0, "temperature of the relaxed choice, where the gate is gumbel", above=0.0)
    everyone: bool = setting(False, "whether every expert climbs, and not the best one alone")
    policy: Form = setting(Mixture(experts=4, squash="sample", log_std_range=(-20.0, 2.0)), "the form of the policy: a Mixture")

    title: ClassVar[str] = "Probabilistic mixture of experts"

    def init(self, spec: Spec, *, key: PRNGKeyArray, given: Mapping[str, Any] = {}) -> dict[str, PyTree]:
        """Fresh networks. Raises `BadInput` unless the policy is a Mixture and the gate one of the three."""
        if not isinstance(self.policy, Mixture):
            raise BadInput(
                f"PMoE needs a Mixture, not {type(self.policy).__name__}: PMoE(policy=Mixture(experts=4, squash='sample'))"
            )
        if self.gate not in ("frequency", "gumbel", "score"):
            raise BadInput(f"PMoE.gate is {self.gate!r}: choose frequency, gumbel or score")
        return SAC.init(self, spec, key=key, given=given)

    def draw(self, policy: Policy, observation: PyTree, *, key: PRNGKeyArray) -> tuple[PyTree, Float[Array, " batch"]]:
        """An action per row; its log-density under the expert that made it, or where the gate is not "frequency" under the mixture."""
        if self.gate != "frequency":
            return SAC.draw(self, policy, observation, key=key)
        assert isinstance(policy, MixturePolicy)  # as `init` made it

        def one(observation: PyTree, key: PRNGKeyArray) -> tuple[PyTree, Float[Array, ""]]:
            choose, act = jax.random.split(key)
            expert = jax.random.categorical(choose, policy.distribution(observation)[0])
            actions, _, own = policy.proposals(observation, key=act)
            return jax.tree.map(lambda leaf: leaf[expert], actions), own[expert]

        return jax.vmap(one)(observation, jax.random.split(key, jax.tree.leaves(observation)[0].shape[0]))

    def policy_loss(
        self, policy: Policy, critic: ActionValue, temperature: Float[Array, ""], batch: Window, *, key: PRNGKeyArray
    ) -> tuple[Float[Array, ""], Float[Array, " batch"]]:
        """What gate and experts descend, and the log-densities of their actions."""
        assert isinstance(policy, MixturePolicy)

        def one(observation: PyTree, key: PRNGKeyArray) -> tuple[Array, Array, Array]:
            worth = lambda action: self.worth(critic.values(observation, action)[None])[0]
            return choose(_Seen(policy, observation, worth, temperature), key)

        choose = {"frequency": self._frequency, "gumbel": self._gumbel, "score": self._score}[self.gate]
        rows = jax.random.split(key, batch.reward.shape[0])
        cost, gate, log_probability = jax.vmap(one)(batch.observation, rows)
        if self.gate == "score":
            gate = gate * jax.lax.stop_gradient(cost - jnp.mean(cost))
        return jnp.mean(batch.weight * (cost + self.gate_weight * gate)), log_probability

    def _frequency(self, seen: _Seen, key: PRNGKeyArray) -> tuple[Array, Array, Array]:
        actions, _, own = seen.policy.proposals(seen.observation, key=key)
        q = jax.vmap(seen.worth)(actions)
        best, weight = jnp.argmax(q), jnp.exp(seen.log_weight)
        cost = seen.temperature * own - q
        error = jnp.mean((weight - jax.nn.one_hot(best, weight.shape[0])) ** 2)
        return jnp.mean(cost) if self.everyone else cost[best], error, own[best]

    def _gumbel(self, seen: _Seen, key: PRNGKeyArray) -> tuple[Array, Array, Array]:
        noise, act = jax.random.split(key)
        _, u, _ = seen.policy.proposals(seen.observation, key=act)
        logits = seen.log_weight + jax.random.gumbel(noise, seen.log_weight.shape)
        soft = jax.nn.softmax(logits / self.relaxation)
        # Straight through: the relaxed u is no draw of the mixture, and its entropy could be made as large as one likes.
        choice = jax.nn.one_hot(jnp.argmax(logits), soft.shape[0]) + soft - jax.lax.stop_gradient(soft)
        cost, log_probability = seen.cost(choice @ u)
        return cost, jnp.zeros(()), log_probability

    def _score(self, seen: _Seen, key: PRNGKeyArray) -> tuple[Array, Array, Array]:
        choose, act = jax.random.split(key)
        expert = jax.random.categorical(choose, seen.log_weight)
        _, u, _ = seen.policy.proposals(seen.observation, key=act)
        cost, log_probability = seen.cost(u[expert])
        return cost, seen.log_weight[expert], log_probability


@dataclass(frozen=True)
class _Seen:
    """One row of a batch, as the losses of the three gates look at it."""

    policy: MixturePolicy
    observation: PyTree
    worth: Callable[[PyTree], Array]
    temperature: Array

    @property
    def log_weight(self) -> Float[Array, " expert"]:
        """Of the experts."""
        return self.policy.distribution(self.observation)[0]

    def cost(self, u: Float[Array, " size"]) -> tuple[Float[Array, ""], Float[Array, ""]]:
        """alpha log pi - Q of the action that u gives, and log pi, both of the whole mixture."""
        log_probability = jax.scipy.special.logsumexp(self.log_weight + self.policy.expert_log_densities(self.observation, u))
        return self.temperature * log_probability - self.worth(self.policy.to_action(u)), log_probability
