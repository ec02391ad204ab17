"""A trained policy and the frozen ones that it is held to or that it was: where they come from, and how none of them is kept twice."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import equinox as eqx
import optax
from jaxtyping import Array, PRNGKeyArray

from policylab import spaces
from policylab.experience import Spec
from policylab.networks.frozen import trainable
from policylab.networks.optimisation import trained
from policylab.policies.categorical import Categorical
from policylab.policies.gaussian import Gaussian
from policylab.policy import Form, Policy


def starting_policy(form: Form | None, spec: Spec, *, key: PRNGKeyArray, given: Mapping[str, Any]) -> Policy:
    """The `start` that is given; else a fresh policy of the form, or of the usual one for the action space."""
    if "start" in given:
        return given["start"]
    return (form or (Categorical() if isinstance(spec.action, spaces.Discrete) else Gaussian())).build(spec, key=key)


def reference_of(state: Mapping[str, Any]) -> Policy:
    """The frozen policy of a state: the one that is stored there, or else the one that the trained policy carries inside."""
    stored = state["reference"]
    return state["policy"].model.own_reference if stored is None else stored


def anchored(
    form: Form | None, learning_rate: float | Array, spec: Spec, *, key: PRNGKeyArray, given: Mapping[str, Any]
) -> dict[str, Any]:
    """A state with a trained `policy`, by Adam, and a `reference`: the one that is given, or the start as it was.

    A policy that carries what it is a change of (`own_reference`; LoRA its base) is held to that. The reference is None then, and the state has
    no second copy of it. To hold it to adapters that are trained already, merge them first: `adapt(start.merged(), ...)`.
    """
    start = starting_policy(form, spec, key=key, given=given)
    reference = given.get("reference", start if start.own_reference is None else None)
    return {"policy": trained(start, optax.adam(learning_rate)), "reference": reference}


def kept(policy: Policy) -> Policy:
    """What has to be kept of a policy to have it back later: all that is trained. What is frozen is None."""
    return eqx.filter(policy, trainable(policy))


def as_kept(earlier: Policy, now: Policy) -> Policy:
    """The policy of which `kept` gave `earlier`, with what is frozen from the policy that it has become: shared, no copy."""
    return eqx.combine(earlier, eqx.filter(now, trainable(now), inverse=True))
