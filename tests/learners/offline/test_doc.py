"""Dichotomy of Control and return-conditioned cloning on a bandit of luck and skill, against Bayes' rule and information counted by hand."""

from __future__ import annotations

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import policylab as lab
from policylab.claims.offline.doc import bandit
from policylab.data.recording import Recording
from policylab.learners.offline.doc import Energy, Steps
from policylab.networks.mlp import MLP
from policylab.policies.conditioned import Conditioned, conditioned_spec, told
from policylab.policies.latent import LatentFuture

SMALL = {"width": 16, "depth": 1, "learning_rate": 3e-3}


def logged() -> Recording:
    """1 000 tries, 100 of the good arm (90 of them won), 900 of the bad one (90 won)."""
    good = np.arange(1_000) < 100
    won = np.where(good, np.arange(1_000) < 90, np.arange(1_000) < 190)
    observation = np.zeros(2_000, np.int32)
    observation[1::2] = np.where(won, 2, 1)
    ended = np.ones(1_000, bool)
    return Recording(
        observation, np.where(good, 0, 1), won.astype(np.float32), ended, ~ended, np.ones(1_000, int), bandit().spec
    )


@pytest.fixture(scope="module")
def judged():
    learner = lab.DichotomyOfControl(**SMALL, energy_rate=1e-2, negatives=32, energy_steps=1)
    return learner, lab.train(learner, logged(), steps=1_500)


def chosen(policy: lab.Policy) -> float:
    """How often the good arm is chosen."""
    play = lambda key: policy.act(jnp.asarray(0), policy.initial_memory(key=key), key=key)[0]
    return float(jnp.mean(jax.jit(jax.vmap(play))(jax.random.split(jax.random.key(0), 1_000)) == 0))


def test_it_chooses_what_brings_luck_and_promises_what_it_can_keep(judged):
    policy = judged[1].policy()
    assert chosen(policy) > 0.85
    assert float(policy.promised(jnp.asarray(0))) == pytest.approx(0.9, abs=0.12)
    assert chosen(policy.mode()) == 1.0


def test_the_latent_knows_the_action_and_nothing_of_the_luck(judged):
    model = judged[1].state["model"].model
    model = jax.tree.map(lambda leaf: leaf[0], model)
    batch = lab.Dataset.of(logged()).serve(judged[0].needs).window(jnp.arange(0, 2_000, 2), lab.Windows(1, future=1))
    lasting = jax.tree.map(lambda leaf: leaf[0], judged[1].state["lasting"])
    posterior = np.exp(model.posterior(Steps.of(batch, lasting.spec, lasting.normaliser), batch.weight), dtype=np.float64)
    arm, won = np.asarray(batch.action[:, 0]), np.asarray(batch.reward[:, 0])
    luck = 0.0
    for a in (0, 1):
        together = np.stack([posterior[(arm == a) & (won == r)].sum(0) for r in (0, 1)]) / 1_000
        apart = together.sum(0) * together.sum(1, keepdims=True) / together.sum()
        luck += np.sum(together * np.log(np.maximum(together, 1e-12) / np.maximum(apart, 1e-12)))
    assert luck < 0.03  # nats of I(r; z | a), of 0.33 that there are
    mean = [posterior[arm == a].mean(0) for a in (0, 1)]
    assert np.abs(mean[0] - mean[1]).sum() > 1.5  # the arms have latents of their own


def test_conditioning_on_returns_follows_bayes_rule():
    run = lab.train(lab.ReturnConditioned(**SMALL), logged(), steps=800)
    assert chosen(run.policy()) == pytest.approx(0.5, abs=0.08)  # 90 of the 180 winners took the good arm, which wins 0.9
    assert run.metrics[-1]["metrics"]["largest"] == [1.0]


def test_the_bound_is_the_contrast_of_the_equation():
    energy = Energy(
        MLP(3, 2 * 4, width=4, depth=1, key=jax.random.key(0)), MLP(2, 4, width=4, depth=1, key=jax.random.key(1)), 2
    )
    draw = lambda number, *shape: jax.random.normal(jax.random.key(number), shape)
    steps = Steps(draw(2, 3, 2, 2), draw(3, 3, 2, 1), draw(4, 3, 2, 2))
    others, counts = draw(5, 5, 2), jnp.array([1.0, 1.0, 0.0, 1.0, 1.0])
    excess = energy.excess(steps, others, counts)
    for b, t, z in np.ndindex(3, 2, 2):
        context = energy.context(jnp.concatenate([steps.observation[b, t], steps.action[b, t]]))[4 * z : 4 * z + 4]
        phi = lambda outcome, context=context: float(context @ energy.outcome(outcome)) / 2.0
        mean = np.mean([np.exp(phi(o)) for o in (steps.outcome[b, t], *others[counts > 0])])
        assert float(excess[b, t, z]) == pytest.approx(phi(steps.outcome[b, t]) - np.log(mean), rel=1e-4, abs=1e-5)


def test_a_likely_latent_with_the_highest_value_is_chosen_and_may_be_held():
    spec = lab.Spec(lab.Discrete(2), lab.Discrete(3))
    inner = _Told()
    prior, value = table([[0.0, 0.0, -20.0], [0.0, 0.0, 0.0]]), table([[1.0, 2.0, 3.0], [3.0, 1.0, 2.0]])
    normaliser = lab.DichotomyOfControl(**SMALL).init(spec, key=jax.random.key(0))["lasting"].normaliser
    for held, wanted in ((False, [1, 0]), (True, [1, 1])):
        policy = LatentFuture(inner, prior, value, normaliser, spec.observation, held)
        for actor in (policy, policy.mode()):
            memory, played = actor.initial_memory(key=jax.random.key(0)), []
            for state in (0, 1):
                action, memory = actor.act(jnp.asarray(state), memory, key=jax.random.key(state))
                played.append(int(action))
            assert played == wanted
        assert float(policy.promised(jnp.asarray(0))) == 2.0


def table(rows: list[list[float]]) -> MLP:
    """A network that looks up a row per state."""
    linear = MLP(2, 3, width=1, depth=0, key=jax.random.key(0))
    return eqx.tree_at(lambda m: (m.layers[0].weight, m.layers[0].bias), linear, (jnp.asarray(rows), jnp.zeros(3)))


class _Told(lab.Policy):
    def act(self, observation, memory, *, key):
        return observation["condition"], memory


def test_what_is_told_stands_beside_the_observation():
    spec = lab.Dataset.of(logged()).spec
    both = conditioned_spec(spec, lab.Box((1,)))
    policy = Conditioned(lab.Categorical(width=8).build(both, key=jax.random.key(0)), jnp.ones(1))
    window = lab.Dataset.of(logged()).window(jnp.arange(2), lab.Windows(1, future=2))
    one = jax.tree.map(lambda leaf: leaf[0], window)
    np.testing.assert_array_equal(policy.logits(one), policy.policy.logits(told(one, jnp.ones(1))))
    with pytest.raises(lab.BadInput, match="use Product"):
        lab.DichotomyOfControl(policy=lab.Categorical()).init(
            lab.Spec(lab.Discrete(2), lab.Composite((("a", lab.Discrete(2)),))), key=jax.random.key(0)
        )
