"""ReST-MCTS*: self-training by a tree search that inferred step values guide (Zhang et al. 2024, arXiv 2406.03816)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Bool, Float, Int, PRNGKeyArray

from policylab import spaces
from policylab.errors import BadInput
from policylab.experience import Spec, Window
from policylab.hyperparameters import setting, settings
from policylab.learner import Clock, Learner, Request, Steps
from policylab.networks.optimisation import descend, trained
from policylab.planners.mining import below
from policylab.planners.tree import Tree
from policylab.policies.categorical import Categorical
from policylab.policies.gaussian import Gaussian
from policylab.policies.language import LanguagePolicy, is_text
from policylab.policy import Form, imitation_loss
from policylab.scorers.critic import StateValue
from policylab.scorers.text_value import text_value


def backtraced(tree: Tree, right: Bool[Array, " node"]) -> tuple[Int[Array, " node"], Bool[Array, " node"]]:
    """m, the steps that are missing to a right end, and r, whether a step is wrong: no right end was found below it.

    A right end is at m = 0, a node above it at the least m of its children and 1; a wrong node has the m of the deepest correct node above
    it. Where no right end was found at all, every node is wrong, and m is 0.
    """
    size = tree.parent.shape[0]
    far = jnp.asarray(size, jnp.int32)
    parent = jnp.where(tree.parent < 0, size, tree.parent)

    def back(found: Array, node: Array) -> tuple[Array, None]:
        return found.at[parent[node]].min(found[node] + 1, mode="drop"), None

    found = jax.lax.scan(back, jnp.where(right, 0, far), jnp.arange(size), reverse=True)[0]
    wrong = (found >= far) | ~tree.used
    return inherited(tree, found, wrong), wrong


def inherited(tree: Tree, missing: Int[Array, " node"], wrong: Bool[Array, " node"]) -> Int[Array, " node"]:
    """`missing` with that of the deepest correct node above in the place of a wrong one's."""

    def one(missing: Array, node: Array) -> tuple[Array, None]:
        above = jnp.where(tree.parent[node] < 0, 0, missing[tree.parent[node]])
        return missing.at[node].set(jnp.where(wrong[node], above, missing[node])), None

    return jax.lax.scan(one, missing, jnp.arange(missing.shape[0]))[0].astype(jnp.int32)


def step_values(tree: Tree, missing: Int[Array, " node"], wrong: Bool[Array, " node"]) -> Float[Array, " node"]:
    r"""v_k = max(v_{k-1} + w_k, 0),   w_k = (1 - v_{k-1}) / (m_k + 1) (1 - 2 r_k),   v_0 = 0 at the root   (equations 1 and 2)

    A right answer comes to 1 exactly, whatever the way to it; a wrong step lowers the value by what a correct one would have added.
    """

    def one(value: Array, node: Array) -> tuple[Array, None]:
        before = value[jnp.maximum(tree.parent[node], 0)]
        gain = (1.0 - before) / (missing[node] + 1.0) * jnp.where(wrong[node], -1.0, 1.0)
        return value.at[node].set(jnp.maximum(before + gain, 0.0)), None

    return jax.lax.scan(one, jnp.zeros(tree.parent.shape), jnp.arange(1, tree.parent.shape[0]))[0]


def inferred_values(tree: Tree, right: Bool[Array, " node"]) -> tuple[Float[Array, " node"], Float[Array, " node"]]:
    """The values of all steps from right ends alone, and 1 where they are known: below which an end was found, in a tree with a right one.

    Of a search that found nothing right the number of missing steps is not known. This is the `values` of a `SearchTraces`.
    """
    value = step_values(tree, *backtraced(tree, right))
    known = (below(tree, tree.finished.astype(jnp.float32)) > 0) & jnp.any(right)
    return value, known.astype(jnp.float32).at[0].set(0.0)


@settings
class RestMCTSStar(Learner):
    r"""min E[ -log pi(step | before) ] over the steps to right answers,   min E[ (V(what a step led to) - v_k)^2 ] over all steps

    with v_k inferred from whole trees by `inferred_values`. Its source is `SearchTraces(search, environment, values=inferred_values)`,
    whose search runs `policy` and `value` as they are by now; every round is one of self-training. From the trees of `best_of_n` the
    policy's half is ReST-EM (Singh et al. 2023, arXiv 2312.06585).

    `start` is the policy that is trained (of texts a language model, which has to be given), `value` goes on from a value of
    observations; by default it is a perceptron, or of texts a second copy of `start` with a head. The authors train a Mistral-7B with rates
    of 1e-6 and below; the defaults are for small policies.
    """

    learning_rate: float = setting(3e-4, "of Adam, for the policy; 0 leaves it as it is", low=0.0)
    value_learning_rate: float = setting(1e-3, "of Adam, for the value", low=0.0)
    batch_size: int = setting(64, "steps per update for the policy, and as many for the value", low=1)
    width: int = setting(256, "hidden units of the value's perceptron", low=1)
    depth: int = setting(2, "hidden layers of the value's perceptron", low=1)
    policy: Form | None = setting(None, "the form of the policy without a start; None chooses by the action space")

    title: ClassVar[str] = "Self-training by tree search with inferred step values"
    takes: ClassVar[tuple[str, ...]] = ("start", "value")

    @property
    def needs(self) -> Mapping[str, Request]:
        """Steps to imitate, and steps with their worth."""
        return {"paths": Steps(self.batch_size), "values": Steps(self.batch_size, fields=("return_to_go",))}

    def init(self, spec: Spec, *, key: PRNGKeyArray, given: Mapping[str, Any] = {}) -> dict[str, Any]:
        """The policy and the value. Raises `BadInput` for texts without a `start`."""
        policy_key, value_key = jax.random.split(key)
        own = Categorical() if isinstance(spec.action, spaces.Discrete) else Gaussian()
        if is_text(spec) and not ({"start"} <= set(given) or self.policy):
            raise BadInput("steps of texts are written by a language model: give one as start, or a form such as Language()")
        policy = given["start"] if "start" in given else (self.policy or own).build(spec, key=policy_key)
        if "value" in given:
            value = given["value"]
        elif isinstance(policy, LanguagePolicy):
            value = text_value(policy)
        else:
            value = StateValue(spec, width=self.width, depth=self.depth, key=value_key)
        return {
            "policy": trained(policy, optax.adam(self.learning_rate)),
            "value": trained(value, optax.adam(self.value_learning_rate)),
        }

    def update(
        self, state: dict[str, Any], batch: dict[str, Window], *, clock: Clock, key: PRNGKeyArray
    ) -> tuple[dict[str, Any], dict[str, Array]]:
        """One step for each."""
        paths, steps = batch["paths"], batch["values"]
        mean = lambda each, weight: jnp.sum(weight * each) / jnp.maximum(jnp.sum(weight), 1.0)

        def clone(policy: Any) -> tuple[Array, None]:
            return mean(imitation_loss(policy, paths, key=key), paths.weight), None

        def regress(value: Any) -> tuple[Array, None]:
            error = jax.vmap(value)(steps.next_observation) - steps.extra["return_to_go"]
            return mean(error**2, steps.weight), None

        policy, imitation, _ = descend(state["policy"], clone, optax.adam(self.learning_rate))
        value, error, _ = descend(state["value"], regress, optax.adam(self.value_learning_rate))
        return {"policy": policy, "value": value}, {"imitation_loss": imitation, "value_loss": error}

    def products(self, state: dict[str, Any]) -> dict[str, Any]:
        """`policy`, `explorer` (the policy sampling) and `value`, from an observation to a number."""
        policy = state["policy"].model
        return {"policy": policy, "explorer": policy, "value": state["value"].model}
