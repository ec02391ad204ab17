"""Held to its own base, a LoRA policy is trained without a second copy of it."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import policylab as lab
from policylab.experience import Preference
from policylab.learner import Clock
from policylab.policies.anchoring import as_kept, kept
from policylab.policies.answering import pair_log_prob
from policylab.policies.language import text_spec
from policylab.policies.lora import adapt
from policylab.tokenizer import characters

SPEC = text_spec(characters("ab?"), prompt=4, answer=4)
CLOCK = Clock(jnp.asarray(0), jnp.asarray(1))


def size(tree):
    return sum(leaf.size for leaf in jax.tree.leaves(tree))


@pytest.fixture(scope="module")
def base():
    return lab.Language(width=8, layers=1, heads=2).build(SPEC, key=jax.random.key(0))


def test_the_reference_of_an_adapted_policy_is_its_base_itself_and_stays_as_it_is(base):
    start = adapt(base, rank=2, key=jax.random.key(1))
    learner = lab.DPO(beta=0.5, learning_rate=1e-2)
    state = learner.init(SPEC, key=jax.random.key(0), given={"start": start})
    assert size(state) == size(base) + 3 * size(start.adapters) + 1  # one base, adapters with two moments, a count of steps
    reference = learner.products(state)["reference"]
    assert all(a is b for a, b in zip(jax.tree.leaves(reference.network), jax.tree.leaves(base.network), strict=True))

    words = characters("ab?")
    prompt = words.tokens(["a?", "b?"], length=4)
    a, b = (words.tokens(texts, length=4, kind=2, ended=True) for texts in (["a", "b"], ["b", "a"]))
    batch = Preference(prompt, a, b, jnp.ones(2), jnp.ones(2))
    after, metrics = jax.jit(lambda s: learner.update(s, batch, clock=CLOCK, key=jax.random.key(0)))(state)
    assert float(metrics["loss"]) == pytest.approx(np.log(2.0), rel=1e-5)  # adapters start at zero: no difference yet
    now = learner.products(after)
    for old, new in zip(jax.tree.leaves(base.network), jax.tree.leaves(now["policy"].base.policy.network), strict=True):
        assert np.array_equal(old, new)
    first, second = (pair_log_prob(policy, prompt, a, b) for policy in (now["policy"], now["reference"]))
    assert np.sum(first[0] - first[1]) > np.sum(second[0] - second[1])


def test_what_is_kept_of_an_iterate_is_what_was_trained(base):
    start = adapt(base, rank=2, key=jax.random.key(1))
    state = lab.INPO().init(SPEC, key=jax.random.key(0), given={"start": start})
    assert size(state["iterate"]) == size(start.adapters)
    assert state["reference"] is None
    moved = jax.tree.map(lambda leaf: leaf + 1, start)
    back = as_kept(kept(start), moved)
    assert back.adapters["query"].down is start.adapters["query"].down
    assert back.base.policy.network.embedding is moved.base.policy.network.embedding
    whole = lab.INPO().init(SPEC, key=jax.random.key(0), given={"start": base})
    assert whole["reference"] is base
