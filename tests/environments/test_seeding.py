import jax
import numpy as np
import pytest

from policylab.environments.seeding import key_words, seed_of


@pytest.mark.parametrize("kind", ["threefry2x32", "rbg"])
def test_seeds_on_the_host_are_the_bits_of_the_key(kind):
    keys = jax.random.split(jax.random.key(7, impl=kind), 20)
    words = np.asarray(jax.vmap(key_words)(keys))
    np.testing.assert_array_equal([seed_of(one) for one in words], jax.vmap(jax.random.bits)(keys))
