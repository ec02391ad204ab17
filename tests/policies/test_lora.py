"""LoRA: starts as its base, trains nothing else, merges into an ordinary policy, and several share one base."""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import policylab as lab
from policylab.networks.optimisation import descend, trained
from policylab.policies.language import Language, text_spec
from policylab.policies.lora import LoRAPolicy, adapt

TOKENIZER = lab.characters("abc \n")
SPEC = text_spec(TOKENIZER, prompt=8, answer=8)
TEXT = TOKENIZER.tokens(["cab cab", "abc abc"], kind=2)
OPTIMISER = optax.adamw(3e-2)


@pytest.fixture(scope="module")
def start():
    base = Language(width=16, layers=2, heads=2, dtype="float32").build(SPEC, key=jax.random.key(0))
    return adapt(base, rank=4, lines=("query", "value", "down"), key=jax.random.key(1))


@jax.jit
def learn(state):
    step = lambda state, _: descend(state, lambda p: (-p.log_probs(TEXT).sum(), None), OPTIMISER)[:2]
    return jax.lax.scan(step, state, length=30)


@pytest.fixture(scope="module")
def learned(start):
    return learn(trained(start, OPTIMISER))


def test_it_starts_as_its_base(start):
    np.testing.assert_array_equal(start.log_probs(TEXT), start.reference.log_probs(TEXT))


def test_only_adapters_are_trained_and_have_moments(start, learned):
    state, losses = learned
    assert losses[-1] < losses[0] - 3
    assert jax.tree.all(jax.tree.map(np.array_equal, state.model.base, start.base))
    size = sum(leaf.size for leaf in jax.tree.leaves(start.adapters))
    assert sum(leaf.size for leaf in jax.tree.leaves(state.moments)) == 2 * size + 1
    np.testing.assert_array_equal(state.model.reference.log_probs(TEXT), start.log_probs(TEXT))


def test_merged_it_computes_the_same(learned, tmp_path):
    policy = learned[0].model
    merged = policy.merged()
    np.testing.assert_allclose(merged.log_probs(TEXT), policy.log_probs(TEXT), atol=1e-4)
    again = lab.load_language(lab.save_language(merged, tmp_path / "m"))
    np.testing.assert_array_equal(again.network.layers.query.weight, merged.network.layers.query.weight)
    with pytest.raises(lab.BadInput, match="merge the adapter"):
        lab.save_language(policy.whole, tmp_path / "n")


def test_several_adapters_share_one_base(start):
    adapters = [
        adapt(start.reference, rank=4, lines=("query", "value", "down"), key=jax.random.key(i)).adapters for i in (1, 2)
    ]
    adapters = jax.tree.map(lambda leaf: leaf + 0.1, adapters)
    both = dataclasses.replace(start, adapters=jax.tree.map(lambda *leaves: jnp.stack(leaves), *adapters))
    together = jax.vmap(lambda policy: policy.log_probs(TEXT), in_axes=(start.axes(0),))(both)
    for i in range(2):
        np.testing.assert_allclose(together[i], LoRAPolicy(start.base, adapters[i]).log_probs(TEXT), atol=1e-5)


def test_it_writes_as_what_it_merges_to(learned):
    policy = learned[0].model.mode()
    prompt = jax.tree.map(lambda leaf: leaf[0], TOKENIZER.tokens(["ca"]))
    ours = policy.act(prompt, None, key=jax.random.key(0))[0]
    np.testing.assert_array_equal(ours.ids, policy.merged().mode().act(prompt, None, key=jax.random.key(0))[0].ids)


def test_lines_that_are_not_there_are_told(start):
    with pytest.raises(lab.BadInput, match="at embedding"):
        adapt(start.reference, lines=("embedding",), key=jax.random.key(0))
