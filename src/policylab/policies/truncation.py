"""Which answers were cut off: their room was full before they had come to an end."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Int

from policylab.errors import BadInput
from policylab.experience import Tokens
from policylab.policies.language import LanguagePolicy
from policylab.policies.lora import LoRAPolicy
from policylab.policies.stops import Stops
from policylab.policies.writing import whole
from policylab.policy import Policy


def cut_off(policy: Policy, answer: Tokens) -> Bool[Array, "*batch"]:
    """Whether an answer's last place is written and is neither an end token nor the end of a stop string of the policy that wrote it.
    Raises `BadInput` for a policy that is no language model."""
    if not isinstance(policy, LanguagePolicy | LoRAPolicy):
        raise BadInput(f"{type(policy).__name__} writes no texts: give a language policy")
    writer = whole(policy)
    ended = jnp.isin(answer.ids[..., -1], jnp.asarray(writer.end, jnp.int32))
    if writer.stops is not None:
        ended = ended | (_state(writer.stops, answer) == writer.stops.table.shape[0] - 1)
    return (answer.kind[..., -1] == 2) & ~ended


def _state(stops: Stops, answer: Tokens) -> Int[Array, "*batch"]:
    """The automaton's state after the last token."""
    step = lambda state, token: (jnp.where(token[1] == 2, stops.table[state, token[0]], state), None)
    along = jax.tree.map(lambda leaf: jnp.moveaxis(leaf, -1, 0), (answer.ids, answer.kind))
    return jax.lax.scan(step, jnp.zeros(answer.ids.shape[:-1], jnp.int32), along)[0]
