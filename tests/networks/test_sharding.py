"""Eight simulated devices compute what one computes: losses and gradient steps."""

from __future__ import annotations

import os
import subprocess
import sys

import jax
import pytest

import policylab as lab
from policylab.networks.sharding import device_mesh, shard_batch

PROGRAM = """
import jax, numpy as np, optax
import policylab as lab
from policylab.networks.optimisation import descend, trained
from policylab.networks.sharding import device_mesh, shard_batch, shard_parameters
assert jax.device_count() == 8
tokenizer = lab.characters("abc ")
spec = lab.text_spec(tokenizer, prompt=8, answer=8)
policy = lab.Language(width=32, layers=1, heads=4, groups=2, hidden=64, family="qwen2").build(spec, key=jax.random.key(0))
text = tokenizer.tokens(["abc abc", "cab", "bb a", "c"] * 2, kind=2)
optimiser = optax.sgd(0.1)

@jax.jit
def learn(state, text):
    def step(state, _):
        return descend(state, lambda p: (-p.log_probs(text).mean(), None), optimiser)[:2]
    return jax.lax.scan(step, state, length=3)

alone, losses = learn(trained(policy, optimiser), text)
mesh = device_mesh(model=2)
state, batch = shard_parameters(trained(policy, optimiser), mesh), shard_batch(text, mesh)
query = state.model.network.layers.query.weight
assert query.addressable_shards[0].data.shape == (1, 32, 16) and len(query.sharding.device_set) == 8
assert batch.ids.addressable_shards[0].data.shape == (2, 8)
together, divided = learn(state, batch)
np.testing.assert_allclose(divided, losses, rtol=1e-5)
jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-5), together.model.network, alone.model.network)
print("equal")
"""


def test_eight_devices_compute_what_one_computes():
    flags = "--xla_force_host_platform_device_count=8 --xla_backend_optimization_level=0 --xla_cpu_use_fusion_emitters=false"
    environment = os.environ | {"XLA_FLAGS": flags, "JAX_PLATFORMS": "cpu"}
    done = subprocess.run([sys.executable, "-c", PROGRAM], env=environment, capture_output=True, text=True, check=False)
    assert done.stdout == "equal\n", done.stderr[-3000:]


def test_what_cannot_be_divided_is_told():
    with pytest.raises(lab.BadInput, match="groups of 3"):
        device_mesh(model=3)
    mesh = device_mesh(devices=jax.devices()[:1])
    assert shard_batch(lab.characters().tokens(["a"]), mesh).ids.shape == (1, 8)
