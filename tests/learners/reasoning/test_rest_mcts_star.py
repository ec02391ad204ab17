"""ReST-MCTS*'s inferred values against numbers worked out by hand."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import policylab as lab
from policylab.learners.reasoning.rest_mcts_star import RestMCTSStar, backtraced, inferred_values
from policylab.planners.mining import mean_outcome
from policylab.planners.tree import Tree


def tree(parent, terminal, room=12):
    """A tree of these parents; all else is 0."""
    size = len(parent)
    fill = lambda values, rest, dtype: jnp.asarray([*values, *[rest] * (room - size)], dtype)
    zero = jnp.zeros(room)
    return Tree(
        fill(parent, -1, jnp.int32), jnp.zeros(room, jnp.int32), jnp.zeros(room, jnp.int32), zero, zero, zero, zero, zero,
        fill(terminal, False, bool), zero > 1, zero, zero, jnp.asarray(size, jnp.int32), jnp.zeros(()),
    )  # fmt: skip


#            0
#      1           2
#    3   4       5   6*        6 is right, two steps from the root
#    7x  8*      9x            8 is right, three steps; 7 and 9 are wrong, 10 (below 4) is no end
PARENT = [-1, 0, 0, 1, 1, 2, 2, 3, 4, 5, 4]
ENDS = [6, 7, 8, 9]
TREE = tree(PARENT, [i in ENDS for i in range(len(PARENT))])
RIGHT = jnp.asarray([i in (6, 8) for i in range(12)])


def test_missing_steps_and_wrong_steps_are_traced_back_from_the_answers():
    missing, wrong = jax.jit(backtraced)(TREE, RIGHT)
    #                                        0  1  2  3  4  5  6  7  8  9  10: wrong ones have the m of the deepest correct one above
    np.testing.assert_array_equal(missing[:11], [2, 2, 1, 2, 1, 1, 0, 2, 0, 1, 1])
    np.testing.assert_array_equal(wrong[:11], [0, 0, 0, 1, 0, 1, 0, 1, 0, 1, 1])


def test_values_are_those_worked_out_by_hand():
    value, known = jax.jit(inferred_values)(TREE, RIGHT)
    expected = {
        1: 1 / 3,  # 0 + (1 - 0) / (2 + 1)
        2: 1 / 2,  # 0 + 1 / (1 + 1)
        3: 1 / 3 - (2 / 3) / 3,  # a wrong step after 1, m = 2
        4: 1 / 3 + (2 / 3) / 2,
        5: 1 / 2 - (1 / 2) / 2,
        6: 1.0,
        7: 0.0,  # 1/9 - (8/9)/3 < 0
        8: 1.0,
        9: 0.0,  # 1/4 - (3/4)/2 < 0
        10: 2 / 3 - (1 / 3) / 2,
    }
    for node, number in expected.items():
        assert float(value[node]) == pytest.approx(number, abs=1e-6), node
    np.testing.assert_array_equal(known[:12], [0, 1, 1, 1, 1, 1, 1, 1, 1, 1, 0, 0])
    share, _ = jax.jit(mean_outcome)(TREE, RIGHT)
    np.testing.assert_allclose(share[:7], [0.5, 0.5, 0.5, 0.0, 1.0, 0.0, 1.0])


def test_of_a_search_that_found_nothing_no_value_is_known():
    value, known = jax.jit(inferred_values)(TREE, jnp.zeros(12, bool))
    assert not np.any(known)
    assert np.all(value == 0.0)


def test_texts_need_a_language_model_to_start_from():
    spec = lab.text_spec(lab.characters("ab"), prompt=8, answer=4)
    with pytest.raises(lab.BadInput, match="language model"):
        RestMCTSStar().init(spec, key=jax.random.key(0))
