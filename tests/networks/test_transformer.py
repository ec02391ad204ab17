"""The transformer against the same sums in NumPy, place by place; and what has no influence on what."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import policylab as lab
from policylab.networks.transformer import Transformer, rotated

WIDTH, HEADS, GROUPS, TIME = 16, 4, 2, 6


@pytest.fixture(scope="module")
def model():
    drawn = Transformer(WIDTH, layers=2, heads=HEADS, groups=GROUPS, hidden=12, key=jax.random.key(0))
    return jax.tree.map(lambda leaf: 5.0 * leaf if leaf.ndim > 2 else leaf, drawn)  # so that attention is far from even


def by_hand(model, x, valid):
    """Complex rotations, loops over places and heads, softmax written out."""
    norm = lambda v, scale: v / np.sqrt((v**2).mean() + 1e-6) * scale
    blocks = jax.tree.map(np.asarray, model.blocks)
    size = WIDTH // HEADS

    def turned(v, position):
        turn = np.exp(1j * position * 10_000.0 ** (-np.arange(size // 2) / (size // 2)))
        out = (v[: size // 2] + 1j * v[size // 2 :]) * turn
        return np.concatenate([out.real, out.imag])

    for layer in range(2):
        b = jax.tree.map(lambda leaf: leaf[layer], blocks)  # noqa: B023  (used at once)
        normed = np.stack([norm(v, b.attention_norm.scale) for v in x])
        after = x.copy()
        for t in range(TIME):
            for head in range(HEADS):
                group = head // (HEADS // GROUPS)
                query = turned(normed[t] @ b.query[:, head], t)
                places = [u for u in range(t + 1) if valid[u] or u == t]
                scores = np.array([query @ turned(normed[u] @ b.key[:, group], u) / np.sqrt(size) for u in places])
                share = np.exp(scores - scores.max())
                share /= share.sum()
                mixed = sum(s * (normed[u] @ b.value[:, group]) for s, u in zip(share, places, strict=True))
                after[t] += mixed @ b.out[head]
        x = after
        for t in range(TIME):
            normed_t = norm(x[t], b.forward_norm.scale)
            gate = normed_t @ b.gate
            x[t] = x[t] + (gate / (1 + np.exp(-gate)) * (normed_t @ b.up)) @ b.down
    return np.stack([norm(v, np.asarray(model.norm.scale)) for v in x])


def test_equals_the_sums_written_out(model):
    x = np.random.default_rng(0).standard_normal((TIME, WIDTH)).astype(np.float32)
    valid = np.array([False, True, True, False, True, True])
    forward = jax.jit(lambda model, x: model(x, jnp.asarray(valid)))
    found = forward(model, jnp.asarray(x))
    np.testing.assert_allclose(found, by_hand(model, x.astype(np.float64), valid), atol=2e-4)
    # Neither what comes later nor what is not valid changes anything.
    other = x.copy()
    other[5] += 1.0
    other[3] -= 1.0
    again = forward(model, jnp.asarray(other))
    np.testing.assert_allclose(again[4], found[4], atol=1e-6)
    assert np.abs(again[3] - found[3]).max() > 1e-3


def test_rotary_products_depend_on_the_distance_alone():
    x, y = jax.random.normal(jax.random.key(1), (2, 1, 1, 8))
    at = lambda v, place: rotated(v, jnp.array([place]), 10_000.0).reshape(-1)
    assert float(at(x, 7) @ at(y, 4)) == pytest.approx(float(at(x, 103) @ at(y, 100)), rel=1e-4)


def test_shapes_that_cannot_be_are_named():
    with pytest.raises(lab.BadInput, match="width 10 with 4 heads"):
        Transformer(10, layers=1, heads=4, key=jax.random.key(0))
