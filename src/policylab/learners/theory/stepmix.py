"""StepMix: exploration in which every episode is worth enough (Li, Yang and Liang 2023, "Near-optimal Conservative Exploration in
Reinforcement Learning under Episode-wise Constraints", ICML; arXiv 2306.06265)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, PyTree

from policylab.errors import BadInput
from policylab.experience import Spec, Window
from policylab.hyperparameters import setting, settings
from policylab.learner import Clock
from policylab.learners.theory.ucbvi import UCBVI, Values
from policylab.policies.timed import Timed
from policylab.policy import Policy
from policylab.scorers.table import table_shape

Policies = Float[Array, "part time state choice"]


@settings
class StepMix(UCBVI):
    r"""UCBVI's optimist, as far as the counts prove that an episode is worth at least `threshold`. The candidate pi^h0 follows the
    safe `baseline` for h0 steps and the optimist from there on: pi^0 is the optimist, pi^H the baseline. With V_low the value that is
    backed up with the bonus taken away,

        V_low(pi^0) >= threshold:  play the optimist;      V_low(pi^H) < threshold:  play the baseline;
        else  with the smallest h0 such that V_low(pi^h0) >= threshold, play pi^h0 in a share rho of the episodes and pi^(h0 - 1) in
        the others,   rho = (threshold - V_low(pi^(h0-1))) / (V_low(pi^h0) - V_low(pi^(h0-1)))

    so that the lower value of the mixture, which is drawn once per episode, is the threshold. `given["baseline"]` is a policy that
    lists its choices (`Timed`, or any with `logits` in numbered states); without one the uniform policy is the baseline. That it is
    worth more than the threshold is for the user to know: until the counts prove anything, it is played.
    """

    threshold: float = setting(0.0, "gamma: what every episode's policy has to be worth, in units of return", low=0.0)

    takes: ClassVar[tuple[str, ...]] = ("baseline",)
    title: ClassVar[str] = "Conservative exploration, step by step"

    def lasting(self, spec: Spec, horizon: int, given: Mapping[str, Any]) -> dict[str, PyTree]:
        """The baseline's probabilities at every step."""
        states, choices = table_shape(spec, type(self).__name__)
        if "baseline" not in given:
            return {"baseline": jnp.full((horizon, states, choices), 1.0 / choices)}
        return {"baseline": listed(given["baseline"], states, choices, horizon)}

    def candidates(self, optimist: Float[Array, "time state choice"], baseline: Float[Array, "time state choice"]) -> Policies:
        """pi^0 ... pi^H, from the boldest to the safest."""
        time = jnp.arange(len(optimist))
        follows = time[None, :] < jnp.arange(len(optimist) + 1)[:, None]
        return jnp.where(follows[..., None, None], baseline, optimist)

    def plan(
        self, counted: dict[str, Array], lasting: dict[str, PyTree], horizon: int, clock: Clock
    ) -> tuple[Timed, dict[str, Any]]:
        """The mixture. Metrics: the optimistic value, the lower value of the mixture and of the baseline, the baseline's share of steps."""
        optimist, optimistic = self.optimist(counted, horizon, clock)
        policies = self.candidates(optimist, lasting["baseline"])
        lower = jax.vmap(lambda policy: self.lower_value(counted, policy, clock))(policies)
        weights = mixture(lower, jnp.asarray(self.threshold))
        steps = jnp.linspace(0.0, 1.0, len(policies))
        # Two neighbours carry all the weight: the plan holds only these.
        safe = jnp.clip(jnp.argmax(weights > 0) + 1, 1, len(policies) - 1)
        chosen = jnp.stack([safe - 1, safe])
        plan = Timed(policies[chosen], weights[chosen])
        return plan, {
            "optimistic": optimistic,
            "lower": weights @ lower,
            "lower_baseline": lower[-1],
            "baseline_share": weights @ steps,
        }

    def lower_value(
        self, counted: dict[str, Array], policy: Float[Array, "time state choice"], clock: Clock
    ) -> Float[Array, ""]:
        """V_low: what the policy is worth at least, by what was counted."""
        horizon = len(policy)

        def back(value: Values, now: tuple[Array, Array]) -> tuple[Values, None]:
            left, choices = now
            return jnp.sum(choices * self.backup(counted, value, left, horizon, clock, -1.0), axis=-1), None

        start = jnp.zeros(counted["starts"].shape)
        value, _ = jax.lax.scan(back, start, (horizon - jnp.arange(horizon), policy), reverse=True)
        return self.at_start(counted, value, horizon, clock, -1.0)


def mixture(lower: Float[Array, " part"], threshold: Float[Array, ""]) -> Float[Array, " part"]:
    """Shares of candidates with these lower values, from the boldest to the safest: all on the first where it is enough, all on the
    last where that is not, else on two neighbours whose mean is the threshold."""
    enough: Bool[Array, " part"] = lower >= threshold
    safe = jnp.where(enough[0] | enough[-1], jnp.argmax(enough), len(lower) - 1)
    bold = jnp.maximum(safe - 1, 0)
    gap = lower[safe] - lower[bold]
    crossing = enough[-1] & (gap > 0)
    rho = jnp.where(crossing, (threshold - lower[bold]) / jnp.where(crossing, gap, 1.0), 1.0)
    return jnp.zeros(len(lower)).at[bold].add(1.0 - rho).at[safe].add(rho)


def listed(policy: Policy, states: int, choices: int, horizon: int) -> Float[Array, "time state choice"]:
    """A policy in numbered states as probabilities at every step. Raises `BadInput` for a mixture, or tables of another size."""
    if isinstance(policy, Timed):
        if policy.parts.shape != (1, horizon, states, choices):
            raise BadInput(
                f"the baseline has tables {policy.parts.shape}: give one policy of {horizon} steps, {states} states and {choices} choices"
            )
        return policy.parts[0]
    every = jnp.arange(states)
    nothing, no = jnp.zeros(states), jnp.zeros(states, bool)
    window = Window(every, jnp.zeros(states, jnp.int32), nothing, every, no, no, ~no, jnp.ones(states, jnp.int32))
    return jnp.broadcast_to(jax.nn.softmax(policy.logits(window)), (horizon, states, choices))
