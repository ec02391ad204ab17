"""The sorting problem of the claims about verified answers, and the bandit of OREAL's, are as they say."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np

from policylab.claims.reasoning import Sorted, oreal, questions, solution, sorting_spec, tokenizer
from policylab.experience import Tokens


def test_solutions_are_sorted_and_nothing_else_is_right():
    prompts = questions(np.random.default_rng(0), (2, 4, 7), 9)
    asked, said = tokenizer().texts(prompts), tokenizer().texts(solution(prompts))
    assert [len(text) for text in asked] == [3, 5, 8] * 3
    assert said == ["".join(sorted(text[:-1])) for text in asked]
    answers = solution(prompts)
    assert answers.ids.shape[1] == sorting_spec().action.shape[0]
    wrong = (
        Tokens(answers.ids.at[:, 0].set(jnp.where(answers.ids[:, 0] == 4, 5, 4)), answers.kind),  # another digit
        Tokens(answers.ids, jnp.where(answers.ids == 1, 0, answers.kind)),  # no end
        Tokens(answers.ids.at[:, -1].set(4), answers.kind.at[:, -1].set(2)),  # more after it
    )
    score = jax.jit(jax.vmap(Sorted().score))
    assert np.asarray(score(prompts, answers)).tolist() == [1.0] * 9
    for other in wrong:
        changed = np.asarray((other.kind != answers.kind) | ((other.ids != answers.ids) & (other.kind > 0))).any(1)
        assert not np.asarray(score(prompts, other))[changed].any()
        assert changed.sum() >= 6
    signed = np.asarray(jax.jit(jax.vmap(oreal.Signed().score))(prompts, wrong[0]))
    assert signed.tolist() == [-1.0] * 9


def test_best_of_n_is_the_regularised_optimum_and_cloning_it_converges():
    difference, slope = oreal.bandit(3)
    assert difference < 1e-12
    assert -0.6 < slope < -0.4
    p, n = 0.3, oreal.BEST_OF  # by simulation: how often best-of-n is right
    right = (np.random.default_rng(0).uniform(size=(200_000, n)) < p).any(1).mean()
    assert abs(right - (1 - (1 - p) ** n)) < 0.005
