"""The seed of an episode from the key of its reset, also on the host, where it is needed only when an episode begins."""

from __future__ import annotations

import jax
import numpy as np
from jaxtyping import Array, PRNGKeyArray, UInt32

_ROTATIONS = ((13, 15, 26, 6), (17, 29, 16, 24))
_WORD = 0xFFFFFFFF


def key_words(key: PRNGKeyArray) -> UInt32[Array, " word"]:
    """What `seed_of` needs of a key: its two words where it is a threefry key, else the seed itself."""
    if str(jax.random.key_impl(key)) == "threefry2x32" and jax.config.values["jax_threefry_partitionable"]:
        return jax.random.key_data(key)
    return jax.random.bits(key)[None]


def seed_of(words: UInt32[np.ndarray, " word"]) -> int:
    """`jax.random.bits(key)` from the `key_words` of the key, without JAX: threefry-2x32 with 20 rounds (Salmon et al. 2011)."""
    if len(words) == 1:
        return int(words[0])
    first, second = (int(word) for word in words)
    keys = (first, second, first ^ second ^ 0x1BD11BDA)
    x, y = first, second  # the counter is 0
    for turn in range(5):
        for rotation in _ROTATIONS[turn % 2]:
            x = (x + y) & _WORD
            y = x ^ ((y << rotation | y >> (32 - rotation)) & _WORD)
        x = (x + keys[(turn + 1) % 3]) & _WORD
        y = (y + keys[(turn + 2) % 3] + turn + 1) & _WORD
    return x ^ y
