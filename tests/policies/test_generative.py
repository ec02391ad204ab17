"""Diffusion, flow and energy policies: their losses by hand, their samplers on known densities, and two ways round."""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import policylab as lab
from policylab.data.recording import recording_from_steps
from policylab.errors import BadInput
from policylab.examples import example_recording, example_spec
from policylab.experience import Window
from policylab.policies.diffusion import Diffusion, DiffusionPolicy, schedule
from policylab.policies.energy import Energy
from policylab.policies.flow import Flow
from policylab.policy import Form

_SPEC = lab.Spec(lab.Box((2,)), lab.Box((1,), -1.0, 1.0))
_SMALL = {"width": 16, "depth": 1}


def _window(rows: int = 3) -> Window:
    random = np.random.default_rng(0)
    flag = jnp.zeros(rows, bool)
    return Window(
        jnp.asarray(random.normal(size=(rows, 2)), jnp.float32), jnp.asarray(random.uniform(-0.9, 0.9, (rows, 1)), jnp.float32),
        jnp.zeros(rows), jnp.zeros((rows, 2)), flag, flag, jnp.asarray([True] * (rows - 1) + [False]), jnp.ones(rows, jnp.int32),
    )  # fmt: skip


def test_levels_go_down_evenly_in_the_chosen_measure_and_end_at_zero() -> None:
    even = schedule("exponential", 4, 0.01, 10.0)
    np.testing.assert_allclose(even, [10.0, 1.0, 0.1, 0.01, 0.0], rtol=1e-5)
    karras = schedule("karras", 5, 0.002, 80.0)
    by_hand = [(80 ** (1 / 7) + i / 4 * (0.002 ** (1 / 7) - 80 ** (1 / 7))) ** 7 for i in range(5)]
    np.testing.assert_allclose(karras, [*by_hand, 0.0], rtol=1e-4)


def test_the_loss_is_the_weighted_error_of_the_denoiser() -> None:
    policy = Diffusion(**_SMALL).build(_SPEC, key=jax.random.key(0))
    window, key = _window(), jax.random.key(3)
    losses = policy.imitation_loss(window, key=key)
    for row, row_key in enumerate(jax.random.split(key, 3)):
        level_key, noise_key, _ = jax.random.split(row_key, 3)
        sigma = float(policy._training_level(level_key))
        assert 0.005 <= sigma <= 1.0
        clean = np.asarray(window.action[row])
        noisy = clean + sigma * np.asarray(jax.random.normal(noise_key, (1,)))
        error = np.asarray(policy.denoise(window.observation[row], jnp.asarray(noisy), jnp.asarray(sigma))) - clean
        weight = (sigma**2 + 0.5**2) / (sigma * 0.5) ** 2  # Karras et al., table 1
        expected = weight * (error**2).mean() if row < 2 else 0.0  # the last row is padding
        np.testing.assert_allclose(losses[row], expected, rtol=2e-3, atol=1e-6)


def test_ddim_in_this_variable_is_the_published_update() -> None:
    policy = Diffusion(**_SMALL, training="ddpm", levels=5).build(_SPEC, key=jax.random.key(0))
    observation, noise = jnp.array([0.3, -0.2]), jnp.array([0.7])
    sigma = np.asarray(policy.levels.sigma, np.float64)
    kept = 1.0 / (1.0 + sigma**2)  # alpha_bar
    x = np.sqrt(kept[0]) * sigma[0] * np.asarray(noise, np.float64)
    for now, after in zip(range(5), range(1, 6), strict=True):
        wide = jnp.asarray(x / np.sqrt(kept[now]), jnp.float32)
        clean = np.asarray(policy.denoise(observation, wide, jnp.asarray(sigma[now], jnp.float32)), np.float64)
        predicted = (x - np.sqrt(kept[now]) * clean) / np.sqrt(1 - kept[now])
        x = np.sqrt(kept[after]) * clean + np.sqrt(1 - kept[after]) * predicted  # Song, Meng and Ermon 2021, equation 12
    np.testing.assert_allclose(policy.decode(observation, noise), np.clip(x, -1, 1), rtol=1e-3, atol=1e-4)


class _Known(DiffusionPolicy):
    """The exact denoiser of actions that are N(0.2, 0.1^2)."""

    def denoise(self, observation, noisy, level, memory=None):
        return (0.1**2 * noisy + level**2 * 0.2) / (0.1**2 + level**2)


@pytest.mark.parametrize(("sampler", "levels"), [("euler", 80), ("heun", 20), ("ancestral", 80)])
def test_every_sampler_recovers_a_known_density(sampler: str, levels: int) -> None:
    built = Diffusion(**_SMALL, sampler=sampler, levels=levels, sigma_range=(0.002, 10.0)).build(_SPEC, key=jax.random.key(0))
    policy = _Known(**{field.name: getattr(built, field.name) for field in dataclasses.fields(built)})
    drawn = jax.jit(jax.vmap(lambda k: policy.act(jnp.zeros(2), None, key=k)[0]))(jax.random.split(jax.random.key(1), 4000))
    np.testing.assert_allclose([drawn.mean(), drawn.std()], [0.2, 0.1], atol=0.008)


def test_guidance_goes_from_without_the_part_to_beyond_it() -> None:
    parts = lab.Composite((("goal", lab.Box((2,))), ("place", lab.Box((2,)))))
    spec = dataclasses.replace(_SPEC, observation=parts)
    seen = {"goal": jnp.array([1.0, -2.0]), "place": jnp.array([0.3, 0.1])}
    hidden = {**seen, "goal": jnp.zeros(2)}
    at = lambda guidance, observation: (
        Diffusion(**_SMALL, masked="goal", guidance=guidance)
        .build(spec, key=jax.random.key(0))
        .denoise(observation, jnp.array([0.4]), jnp.asarray(0.3))
    )
    without, with_goal = at(0.0, seen), at(1.0, seen)
    np.testing.assert_allclose(without, at(1.0, hidden), rtol=1e-5)
    assert abs(float(without[0] - with_goal[0])) > 1e-4
    np.testing.assert_allclose(at(2.5, seen), without + 2.5 * (with_goal - without), rtol=1e-4)
    with pytest.raises(BadInput, match="masks the part 'aim'"):
        Diffusion(masked="aim").build(spec, key=jax.random.key(0))
    for name, words in (("sampler", "ddim, euler, heun"), ("spacing", "exponential"), ("training", "edm, ddpm")):
        form = Diffusion()
        object.__setattr__(form, name, "edn")  # past the tests' type checker, which users do not have
        with pytest.raises(BadInput, match=rf"Diffusion.{name} is 'edn': choose one of {words}"):
            form.build(spec, key=jax.random.key(0))


def test_the_flow_loss_and_its_steps_by_hand() -> None:
    policy = Flow(**_SMALL, levels=3).build(_SPEC, key=jax.random.key(0))
    window, key = _window(), jax.random.key(3)
    losses = policy.imitation_loss(window, key=key)
    for row, row_key in enumerate(jax.random.split(key, 3)[:2]):
        time_key, noise_key = jax.random.split(row_key)
        time, noise = float(jax.random.uniform(time_key)), np.asarray(jax.random.normal(noise_key, (1,)))
        clean = np.asarray(window.action[row])
        between = jnp.asarray((1 - time) * noise + time * clean)
        velocity = np.asarray(policy.velocity(window.observation[row], between, jnp.asarray(time)))
        np.testing.assert_allclose(losses[row], ((velocity - (clean - noise)) ** 2).mean(), rtol=1e-4)
    x = noise = jnp.array([0.4])
    for i in range(3):
        x = x + policy.velocity(window.observation[0], x, jnp.asarray(i / 3)) / 3
    np.testing.assert_allclose(policy.decode(window.observation[0], noise), jnp.clip(x, -1, 1), rtol=1e-4)


def test_the_energy_loss_is_the_cross_entropy_of_the_logged_action() -> None:
    policy = Energy(**_SMALL, negatives=5).build(_SPEC, key=jax.random.key(0))
    window, key = _window(), jax.random.key(3)
    row_key = jax.random.split(key, 3)[0]
    others = jax.random.uniform(row_key, (5, 1), minval=-1.0, maxval=1.0)
    energy = np.array([float(policy.energy(window.observation[0], u)) for u in [window.action[0], *others]])
    share = np.exp(-energy[0]) / np.exp(-energy).sum()
    np.testing.assert_allclose(policy.imitation_loss(window, key=key)[0], -np.log(share), rtol=1e-4)
    with pytest.raises(BadInput, match="use Flow"):
        Energy().build(dataclasses.replace(_SPEC, action=lab.Box((1,))), key=jax.random.key(0))


def _two_ways(rows: int = 2000) -> lab.Recording:
    """At every place the action is 0.6 or -0.6, give or take 0.03: a mean would be wrong always."""
    random = np.random.default_rng(0)
    place = random.normal(size=(rows, 2)).astype(np.float32)
    action = (0.6 * random.choice([-1, 1], rows) + 0.03 * random.normal(size=rows)).astype(np.float32)[:, None]
    never = np.zeros(rows, bool)
    return recording_from_steps(place, action, np.zeros(rows, np.float32), never, ~never, place, spec=_SPEC, name="two ways")


@pytest.mark.parametrize(
    ("form", "steps"),
    [
        (Diffusion(width=64, depth=2), 1500),
        (Diffusion(width=64, depth=2, training="ddpm", levels=20), 4000),
        (Flow(width=64, depth=2, levels=20), 1500),
        (Energy(width=32, depth=2, negatives=16, candidates=128), 1500),
    ],
    ids=["diffusion", "ddpm", "flow", "energy"],
)
def test_a_clone_keeps_both_ways_and_nothing_in_between(form: Form, steps: int) -> None:
    run = lab.train(lab.BC(policy=form, learning_rate=1e-3, batch_size=128), _two_ways(), steps=steps, seeds=1)
    policy = run.policy(seed=0)
    drawn = jax.jit(jax.vmap(lambda k: policy.act(jnp.array([0.2, -0.5]), None, key=k)[0]))(
        jax.random.split(jax.random.key(0), 500)
    )
    drawn = np.asarray(drawn)[:, 0]
    assert 0.1 < (drawn > 0).mean() < 0.9
    assert (np.abs(np.abs(drawn) - 0.6) < 0.2).mean() > 0.7  # a uniform draw has 0.4, a clone of the mean 0


def test_an_offline_learner_takes_such_a_form() -> None:
    learner = lab.IQL(width=8, depth=1, batch_size=16, policy=Diffusion(width=8, depth=1, levels=3))
    run = lab.train(learner, example_recording(example_spec()), steps=5, seeds=2)
    assert np.isfinite(run.metrics[-1]["metrics"]["policy_loss"]).all()
    assert run.policy(seed=1).act(jnp.zeros(3), None, key=jax.random.key(0))[0].shape == (2,)
