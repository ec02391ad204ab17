"""The searches that ReST-MCTS*'s claim compares cost what it says."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np

from policylab.claims.reasoning import rest_mcts_star as study
from policylab.scorers.critic import StateValue


def test_no_search_costs_more_than_its_budget():
    key = jax.random.key(0)
    policy, value = study.FORM.build(study.WORLD.spec, key=key), StateValue(study.WORLD.spec, width=8, depth=1, key=key)
    searches = [
        study.tree_search(policy, value, study.STEPS), study.best_of_n(policy, value, study.STEPS),
        study.level_search(policy, value, 4, study.BRANCH),
    ]  # fmt: skip

    @jax.jit
    @jax.vmap
    def spent(key):
        state, seen = study.TEST.reset(key)
        return jnp.stack([search.search(seen, state, key=key).spent for search in searches])

    found = np.asarray(spent(jax.random.split(key, 16)))
    assert np.all(found <= study.STEPS)
    assert np.all(found[:, 1:] == study.STEPS)
