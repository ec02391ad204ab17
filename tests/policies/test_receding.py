"""Plans of several steps: what is played when, what is fitted, and the networks that denoise sequences."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import policylab as lab
from policylab.data.recording import Recording
from policylab.errors import BadInput
from policylab.experience import Spec, Window
from policylab.policies.denoisers import DenoisingTransformer, sequence
from policylab.policies.receding import RecedingPolicy
from policylab.policy import Policy

KEY = jax.random.key(0)
SPEC = Spec(lab.Box((2,)), lab.Box((1,), -5.0, 5.0))


class Counting(Policy):
    """Plans the sum of all that it sees, then one more at every step; its loss is the mean of the actions it is shown."""

    horizon: int = 4

    def act(self, observation, memory, *, key):
        return jnp.sum(observation) + jnp.arange(self.horizon, dtype=jnp.float32)[:, None], memory

    def imitation_loss(self, window, *, key):
        return jnp.sum(window.observation, (1, 2)) + 100.0 * jnp.mean(window.action, (1, 2))


def test_a_plan_is_played_for_some_steps_and_made_anew_from_the_last_observations():
    policy = RecedingPolicy(Counting(), SPEC.observation, SPEC.action, seen=2, horizon=4, played=3)
    memory, played, act = policy.initial_memory(key=KEY), [], jax.jit(lambda o, m: policy.act(o, m, key=KEY))
    for t in range(7):
        action, memory = act(jnp.asarray([float(t + 1), 0.0]), memory)
        played.append(float(action[0]))
    # At the start the first observation counts twice: 1 + 1; after three steps 3 + 4, after six 6 + 7.
    assert played == [2.0, 3.0, 4.0, 7.0, 8.0, 9.0, 13.0]


def _window(valid):
    time = len(valid)
    flag = jnp.zeros(time, bool)
    observation = jnp.stack([jnp.arange(1.0, time + 1), jnp.zeros(time)], axis=1)
    action = jnp.arange(10.0, 10.0 + time)[:, None]
    return Window(observation, action, jnp.zeros(time), observation, flag, flag, jnp.asarray(valid), jnp.ones(time, jnp.int32))


@pytest.mark.parametrize(
    ("valid", "seen", "planned"),
    [
        ([True] * 5, 1 + 2, [11, 12, 13, 14]),
        ([False, True, True, True, True], 2 + 2, [11, 12, 13, 14]),  # the episode begins now: its first observation stands in
        ([True, True, True, False, False], 1 + 2, [11, 12, 12, 12]),  # it ends: its last action is repeated
    ],
)
def test_ends_of_episodes_are_padded_as_published(valid, seen, planned):
    policy = RecedingPolicy(Counting(), SPEC.observation, SPEC.action, seen=2, horizon=4, played=2)
    loss = policy.imitation_loss(_window(valid), key=KEY)
    np.testing.assert_allclose(loss, (seen + 100.0 * np.mean(planned)) * np.asarray(valid))
    with pytest.raises(BadInput, match="past=1, future=4"):
        policy.imitation_loss(_window(valid[:-1]), key=KEY)


def _two_ways(episodes=64, length=12):
    """Experts go up all the time or down all the time, and the observation says only where they are."""
    random = np.random.default_rng(0)
    way = np.where(random.uniform(size=episodes) < 0.5, 1.0, -1.0)
    action = np.repeat(way, length)[:, None].astype(np.float32)
    place = 0.1 * np.concatenate([way[:, None] * np.arange(length + 1)], axis=0).reshape(-1, 1)
    flag = np.zeros(episodes * length, bool)
    ends = flag.copy()
    ends[length - 1 :: length] = True
    return Recording(
        place.astype(np.float32),
        action,
        None,
        flag,
        ends,
        np.full(episodes, length),
        Spec(lab.Box((1,)), lab.Box((1,), -2.0, 2.0)),
    )


def test_plans_keep_to_one_of_two_ways():
    """What a mean of the experts cannot: from the start both ways are right, and standing still is not."""
    small = lab.UNetDiffusion(widths=(16,), kernel=3, groups=4, embedding=8, levels=6, training="edm")
    form = lab.Receding(policy=small, seen=1, horizon=4, played=4)
    learner = lab.DiffusionCloning(policy=form, learning_rate=1e-2, warmup=10.0, batch_size=32)
    policy = lab.train(learner, _two_ways(), steps=120).policy()
    plan = jax.jit(jax.vmap(lambda k: policy.planner.act(jnp.zeros((1, 1)), None, key=k)[0]))
    plans = np.asarray(plan(jax.random.split(KEY, 64)))[..., 0]
    kept = np.abs(np.abs(plans) - 1.0).max(axis=1) < 0.5
    assert kept.mean() > 0.8
    assert 0.15 < (plans[kept].mean(axis=1) > 0).mean() < 0.85


def test_the_shipped_policy_is_the_published_mean_over_training():
    learner = lab.DiffusionCloning(policy=lab.Receding(policy=lab.Diffusion(width=4, depth=1), seen=1, horizon=2, played=1))
    clock = lambda step: lab.Clock(jnp.asarray(step), jnp.asarray(2_500))
    np.testing.assert_allclose(learner.share(clock(0)), 1 / 500)
    np.testing.assert_allclose(learner.share(clock(499)), 1.0)
    np.testing.assert_allclose(learner.share(clock(1_500)), 0.5, atol=1e-6)
    data = lab.Dataset.of(_two_ways(8)).serve(learner.needs)
    state, seen = learner.init(_two_ways(8).spec, key=KEY), []
    update = jax.jit(lambda state, batch, step, key: learner.update(state, batch, clock=clock(step), key=key)[0])
    mean = jax.tree.leaves(state["mean"])[0]
    for step in range(3):
        _, batch = data.next(None, {}, clock=clock(step), key=jax.random.key(step))
        state = update(state, batch, step, KEY)
        decay = min(0.9999, 1.0 - (1.0 + step) ** -0.75)
        mean = decay * mean + (1.0 - decay) * jax.tree.leaves(state["policy"].model)[0]
        seen.append(np.abs(jax.tree.leaves(state["mean"])[0] - mean).max())
    assert max(seen) < 1e-6


def test_an_action_that_is_no_sequence_is_named():
    with pytest.raises(BadInput, match=r"Receding\(policy=UNetDiffusion\(\)\)"):
        sequence(SPEC, "UNetDiffusion")
    with pytest.raises(BadInput, match="play between 1 and all"):
        lab.Receding(horizon=4, played=5).build(SPEC, key=KEY)


def test_the_transformer_hears_the_past_and_not_the_future_of_a_plan():
    net = DenoisingTransformer(2, 3, 4, 1, 5, width=8, layers=1, heads=2, key=KEY)
    run, x = jax.jit(lambda x: net(x)), np.random.default_rng(0).normal(size=15).astype(np.float32)
    moved = [np.abs(np.asarray(run(jnp.asarray(x + (np.arange(15) == i)))) - run(jnp.asarray(x))) > 1e-6 for i in (0, 8, 14)]
    assert moved[0].all(), "every step hears the observations"
    assert list(moved[1]) == [False, False, True, True], "the third action is heard from itself on"
    assert moved[2].all(), "and the level everywhere"


@pytest.mark.parametrize(("actions", "bounded"), [(lab.Box((4, 1), -5.0, 5.0), True), (lab.Box((4, 1)), False)])
def test_estimates_of_a_plan_stay_within_the_bounds_of_actions_and_are_free_without(actions, bounded):
    spec = Spec(lab.Box((2, 2)), actions)
    policy = lab.TransformerDiffusion(width=4, layers=1, heads=1).build(spec, key=KEY)
    noisy, level = 150.0 * jnp.asarray([1.0, -1.0, 2.0, 0.0]), jnp.asarray(150.0)
    free = policy._clean(policy._condition(jnp.ones((2, 2))), noisy, level)
    assert float(jnp.max(jnp.abs(free))) > 1.0
    found = policy.denoise(jnp.ones((2, 2)), noisy, level)
    np.testing.assert_allclose(found, np.clip(free, -1, 1) if bounded else free, rtol=1e-5)
