"""Losses over listed choices, against rlax and plain NumPy."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import rlax
from scipy.special import log_softmax, logsumexp

import policylab as lab
from policylab.learner import Clock
from policylab.learners.offline.bcq_discrete import DiscreteBCQ, likely
from policylab.learners.offline.cql_discrete import DiscreteCQL
from policylab.learners.offline.dqn import DQN, huber
from policylab.learners.offline.policy_optimisation import doubly_robust_values
from policylab.learners.offline.qr_dqn import quantile_huber_loss
from policylab.scorers.choice import ChoiceValue
from tests.small import discrete_recording

CLOCK = Clock(jnp.asarray(1), jnp.asarray(10))
SMALL = {"width": 8, "depth": 1, "batch_size": 16}


@pytest.fixture(scope="module")
def dataset():
    return lab.Dataset.of(discrete_recording())


def batch_of(learner, dataset):
    return dataset.serve(learner.needs).next(None, {}, clock=CLOCK, key=jax.random.key(3))[1]


choice_values = jax.jit(lambda critic, observation: jax.vmap(critic.values)(observation))


def compiled(learner):
    """(state, batch, clock) -> the update."""
    return jax.jit(lambda state, batch, clock=CLOCK: learner.update(state, batch, clock=clock, key=jax.random.key(0)))


def states(learner, dataset):
    """A state whose target differs from its critic, so that the two cannot be confused."""
    state = learner.init(dataset.spec, key=jax.random.key(0))
    other = learner.init(dataset.spec, key=jax.random.key(1))
    return {**state, "target": other["critic"].model}


def test_huber_is_rlax_huber():
    error = jnp.linspace(-3, 3, 13)
    np.testing.assert_allclose(huber(error), rlax.huber_loss(error), rtol=1e-6)


def test_double_q_loss_is_that_of_rlax(dataset):
    learner = DQN(**SMALL)
    state, batch = states(learner, dataset), batch_of(learner, dataset)
    critic = state["critic"].model
    values, after = (choice_values(critic, x) for x in (batch.observation, batch.next_observation))
    target = choice_values(state["target"], batch.next_observation)
    error = jax.jit(jax.vmap(rlax.double_q_learning))(values, batch.action, batch.reward, 0.99 * batch.continues, target, after)
    _, metrics = compiled(learner)(state, batch)
    np.testing.assert_allclose(metrics["critic_loss"], jnp.mean(rlax.huber_loss(error)), rtol=1e-5)


def test_the_target_is_copied_at_the_end_of_a_period(dataset):
    learner = DQN(**SMALL, target_period=5)
    state, batch = states(learner, dataset), batch_of(learner, dataset)
    same = lambda a, b: jax.tree.all(jax.tree.map(lambda x, y: bool(jnp.array_equal(x, y)), a, b))
    update = compiled(learner)
    kept, copied = (update(state, batch, Clock(jnp.asarray(step), jnp.asarray(10)))[0] for step in (3, 4))
    assert same(kept["target"], state["target"])
    assert same(copied["target"], copied["critic"].model)


@pytest.mark.parametrize("quantiles", [1, 4])
def test_dueling_adds_advantages_without_their_mean_to_a_value(dataset, quantiles):
    critic = ChoiceValue(dataset.spec, dueling=True, quantiles=quantiles, width=8, depth=1, key=jax.random.key(0))
    seen = jnp.arange(4.0)
    raw = np.asarray(critic.network(critic.normaliser(seen))).reshape(4, quantiles)  # a value, then three advantages
    expected = raw[0] + raw[1:] - raw[1:].mean(axis=0)
    np.testing.assert_allclose(critic.quantiles(seen), expected, rtol=1e-5)
    np.testing.assert_allclose(critic.values(seen), expected.mean(axis=1), rtol=1e-5)
    critic = DQN(**SMALL, dueling=True).init(dataset.spec, key=jax.random.key(0))["target"]
    assert critic.dueling


def test_random_choices_become_rarer_and_stay_rare(dataset):
    learner = DQN(**SMALL, epsilon=0.1, exploring=0.5)
    state, batch, update, seen = states(learner, dataset), batch_of(learner, dataset), compiled(learner), []
    for step in range(10):
        seen.append(float(learner.products(state)["explorer"].epsilon))
        state, _ = update(state, batch, Clock(jnp.asarray(step), jnp.asarray(10)))
    np.testing.assert_allclose(seen, [1.0, 0.82, 0.64, 0.46, 0.28, 0.1, 0.1, 0.1, 0.1, 0.1], rtol=1e-5)
    again, _ = update(state, batch, Clock(jnp.asarray(0), jnp.asarray(10)))
    assert float(again["epsilon"]) == pytest.approx(0.1), "a run that goes on elsewhere does not begin anew"


def test_the_conservative_term_by_hand(dataset):
    learner = DiscreteCQL(**SMALL, weight=0.7)
    state, batch = states(learner, dataset), batch_of(learner, dataset)
    values = np.asarray(choice_values(state["critic"].model, batch.observation))
    by_hand = 0.7 * np.mean(logsumexp(values, axis=1) - values[np.arange(16), batch.action])
    np.testing.assert_allclose(learner.extra_loss(jnp.asarray(values), batch), by_hand, rtol=1e-5)


def test_quantile_loss_is_that_of_rlax():
    key = jax.random.key(0)
    quantiles, goals = jax.random.normal(key, (7,)), jax.random.normal(jax.random.key(1), (7,)) * 3
    tau = (jnp.arange(7) + 0.5) / 7
    theirs = lambda q: rlax.quantile_regression_loss(q, tau, goals, huber_param=1.0)
    ours, expected = (
        jax.jit(jax.value_and_grad(loss))(quantiles) for loss in (lambda q: quantile_huber_loss(q, goals), theirs)
    )
    for a, b in zip(ours, expected, strict=True):  # the loss and its gradient
        np.testing.assert_allclose(a, b, rtol=1e-5)


def test_constrained_targets_by_hand(dataset):
    learner = DiscreteBCQ(**SMALL, threshold=0.9)
    state, batch = states(learner, dataset), batch_of(learner, dataset)
    log_probabilities = log_softmax(
        np.asarray(jax.vmap(state["behaviour"].model.action_logits)(batch.next_observation)), axis=1
    )
    allowed = np.exp(log_probabilities - log_probabilities.max(1, keepdims=True)) > 0.9
    chooser = np.where(allowed, np.asarray(choice_values(state["critic"].model, batch.next_observation)), -np.inf)
    target = np.asarray(choice_values(state["target"], batch.next_observation))[np.arange(16), chooser.argmax(1)]
    by_hand = np.asarray(batch.reward) + 0.99 * (1 - np.asarray(batch.terminal)) * target
    np.testing.assert_allclose(learner.goal(state, batch), by_hand, rtol=1e-5)
    assert not allowed.all()


def test_a_low_threshold_allows_everything():
    assert likely(jnp.log(jnp.array([0.7, 0.2, 0.1])), 0.1).tolist() == [True, True, True]
    assert likely(jnp.log(jnp.array([0.7, 0.2, 0.1])), 0.3).tolist() == [True, False, False]


def test_doubly_robust_values_by_hand():
    model = jnp.array([[0.1, 0.2], [0.3, 0.4]])
    values = doubly_robust_values(model, jnp.array([1, 0]), jnp.array([1.0, 0.0]), jnp.array([0.5, 0.001]), 100.0)
    np.testing.assert_allclose(values, [[0.1, 0.2 + 2 * 0.8], [0.3 - 100 * 0.3, 0.4]], rtol=1e-5)


def test_importance_weighted_values_are_unbiased():
    """Averaged over the logging policy, every choice is worth its reward."""
    rewards, logging = np.array([1.0, 0.0, 0.5]), np.array([0.2, 0.3, 0.5])
    rows = [
        doubly_robust_values(jnp.zeros((1, 3)), jnp.array([a]), jnp.array([rewards[a]]), jnp.array([logging[a]]), 1e9)[0]
        for a in range(3)
    ]
    np.testing.assert_allclose(sum(p * row for p, row in zip(logging, rows, strict=True)), rewards, rtol=1e-5)


@pytest.mark.parametrize("name", ["dqn", "bcq", "cql-discrete", "qr-dqn", "bc", "reward-regression", "ipw", "doubly-robust"])
def test_learns_the_rewarded_choice(name):
    """In these data the rewarded choice can be read off the state; chance takes it in a third of the cases."""
    from dataclasses import replace

    from policylab.hyperparameters import describe
    from policylab.registry import learner_class

    recording = discrete_recording(episodes=400, length=1)
    recording = replace(recording, extra={"propensity": np.full(recording.steps, 1 / 3, np.float32)})
    names = {row["name"] for row in describe(learner_class(name))}
    small = {
        "learning_rate": 1e-2,
        "batch_size": 128,
        "width": 32,
        "depth": 1,
        "target_period": 10,
        "decay": 1e-4,
        "quantiles": 5,
        "weight": 0.3,  # the logged choices are random: all pessimism does here is to hold values back
    }
    learner = learner_class(name)(**{key: value for key, value in small.items() if key in names})
    policy = lab.train(learner, lab.Dataset.of(recording), steps=400).policy().mode()
    observation = jax.random.normal(jax.random.key(9), (300, 4))
    chosen = jax.jit(jax.vmap(lambda o: policy.act(o, None, key=jax.random.key(0))[0]))(observation)
    right = float(jnp.mean(chosen == jnp.argmax(observation[:, :3], axis=1)))
    assert right > 0.7 if name != "bc" else right < 0.6, right
