"""Language policies are evaluated, compared and checked on tasks in words as others are on theirs."""

from __future__ import annotations

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import policylab as lab
from policylab.cli import main
from policylab.errors import BadInput
from policylab.evaluation.rollouts import check, evaluate
from policylab.experience import Tokens


class Knows(lab.Policy):
    """Answers by looking the question up."""

    prompts: Tokens
    answers: Tokens

    def act(self, observation, memory, *, key):
        row = jnp.argmax(jnp.all(self.prompts.ids == observation.ids, axis=-1))
        return jax.tree.map(lambda leaf: leaf[row], self.answers), memory


@pytest.fixture(scope="module")
def task():
    return lab.text_task("arithmetic", count=16)


@pytest.fixture(scope="module")
def model(task):
    return lab.Language(width=8, layers=1, heads=2, context=64).build(task.spec, key=jax.random.key(0))


def test_whole_episodes_in_words_are_played_by_every_policy_on_the_same_problems(task, model):
    environment = task.environment()
    prompts = jax.vmap(environment.reset)(jax.random.split(jax.random.key(0), 64))[1]
    solutions = jax.vmap(lambda key: jax.tree.map(lambda leaf: leaf[environment.reset(key)[0]], environment.solutions()))
    knows = Knows(prompts, solutions(jax.random.split(jax.random.key(0), 64)))
    stacked = jax.tree.map(lambda leaf: jnp.stack([leaf, leaf]), knows)
    trials = evaluate(stacked, environment, episodes=6, seeds=[0, 1], key=jax.random.key(1))
    assert trials.matrix("policy").shape == (2, 6)
    assert np.all(trials.matrix("policy") == 1.0)
    assert np.all(trials.matrix("policy", "success") == 1.0)
    own = jax.tree.map(lambda leaf: leaf[None], model.mode())
    again = [evaluate(own, environment, episodes=4, seeds=[0], key=jax.random.key(1)).matrix("policy") for _ in range(2)]
    np.testing.assert_array_equal(*again)


def test_what_does_not_fit_is_one_sentence(task, model):
    environment = task.environment()
    check(model, environment)
    longest = task.spec.action.shape[0]
    with pytest.raises(BadInput, match=rf"policy.sampled\(answer={longest}\)"):
        check(model.sampled(answer=longest + 1), environment)
    other = lab.text_task("arithmetic", count=4, tokenizer=lab.characters("0123456789+-*= \n"))
    with pytest.raises(BadInput, match="reads other tokens"):
        check(model, other.environment())


def test_environments_in_words_conform(task):
    found = lab.check(task.environment())
    assert found.passed, str(found)


def test_a_checkpoint_folder_is_evaluated_on_a_task_in_words(task, model, tmp_path, capsys):
    lab.save_language(model, tmp_path / "model")
    assert main(["evaluate", str(tmp_path / "model"), "--task", "text/arithmetic", "--episodes", "4", "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert document["success"]["episodes"] == 4
    assert document["return"]["mean"] == 0.0
    assert main(["evaluate", str(tmp_path / "model"), "--task", "pendulum"]) == 2
    assert "no task in words" in capsys.readouterr().err
