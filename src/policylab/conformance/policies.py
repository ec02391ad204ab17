"""What a Policy and a Form have to keep: arrays only, deterministic given the key, inside the action space, one density."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import PRNGKeyArray, PyTree

from policylab import spaces
from policylab.conformance.requirements import Test, arrays_only, inside, same, shapes
from policylab.errors import BadInput, Unsupported
from policylab.examples import example_spec, example_specs, example_text_spec
from policylab.experience import Spec, Tokens, Window
from policylab.policies.language import is_text
from policylab.policy import Form, Policy, log_prob


def _builds(form: Form, spec: Spec) -> bool:
    try:
        form.build(spec, key=jax.random.key(0))
    except BadInput:
        return False
    return True


def _text_or_torques(form: Form) -> Spec:
    texts = example_text_spec()
    return texts if _builds(form, texts) else example_spec()


def _seen(spec: Spec, key: PRNGKeyArray) -> PyTree:
    """An observation: a prompt of random length where these are texts."""
    drawn = spaces.sample(spec.observation, key=key)
    if not is_text(spec):
        return drawn
    length = jax.random.randint(key, (), 1, drawn.shape[0] + 1)
    return Tokens(drawn.astype(jnp.int32), (jnp.arange(drawn.shape[0]) < length).astype(jnp.int32))


def form_tests(form: Form, spec: Spec | None) -> Iterator[Test]:
    """The tests of a form, and of a policy that it builds."""
    chosen = spec or next((one for one in example_specs() if _builds(form, one)), None) or _text_or_torques(form)

    def hashable() -> None:
        assert hash(form) == hash(dataclasses.replace(form)), "a form must be a frozen dataclass of hashable fields"

    def pure() -> None:
        key = jax.random.key(1)
        same(form.build(chosen, key=key), form.build(chosen, key=key), "build gives another policy for the same key")

    yield "the form is hashable", hashable
    yield "build is a function of spec and key", pure
    yield from policy_tests(form.build(chosen, key=jax.random.key(0)), chosen)


def policy_tests(policy: Policy, spec: Spec) -> Iterator[Test]:
    """The tests of a policy on observations of these spaces."""
    key = jax.random.key(0)
    keys = jax.random.split(key, 5)
    observations = jax.vmap(lambda k: _seen(spec, k))(keys)
    one = jax.tree.map(lambda leaf: leaf[0], observations)
    act = jax.jit(lambda p, o, m, k: p.act(o, m, key=k))

    def arrays() -> None:
        arrays_only(policy, "the policy")

    def acts() -> None:
        memory = policy.initial_memory(key=key)
        action, after = act(policy, one, memory, key)
        inside(spec.action, action)
        assert shapes(after) == shapes(memory), "act changes the shapes of the memory: it must keep them"
        same(action, act(policy, one, memory, key)[0], "act gives another action for the same key")
        mode = policy.mode()
        same(mode.act(one, memory, key=key)[0], mode.act(one, memory, key=keys[1])[0], "the mode depends on the key")

    def batched() -> None:
        actions = jax.jit(jax.vmap(lambda o, k: policy.act(o, policy.initial_memory(key=k), key=k)[0]))(observations, keys)
        assert jax.tree.leaves(actions)[0].shape[0] == 5, "act does not work under vmap"

    def densities() -> None:
        try:
            action, log_probability, _ = policy.sample(one, policy.initial_memory(key=key), key=key)
        except Unsupported:
            return
        batch = jax.tree.map(lambda leaf: leaf[None], (one, action))
        flag, number = jnp.zeros(1, bool), jnp.zeros(1)
        window = Window(batch[0], batch[1], number, batch[0], flag, flag, ~flag, jnp.ones(1, jnp.int32))
        again = log_prob(policy, window)[0]
        assert np.allclose(again, log_probability, atol=1e-2, rtol=1e-3), (
            f"sample says log-probability {float(log_probability):.4f} but log_prob says {float(again):.4f} of the same action"
        )

    yield "every leaf is an array", arrays
    yield "act is deterministic given its key and stays in the action space", acts
    yield "act works under jit and vmap", batched
    yield "sample and log_prob agree", densities
