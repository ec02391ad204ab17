"""Sparse polynomial worlds: known equations come back, thresholded least squares is the published one."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import policylab as lab
from policylab.data.recording import recording_from_steps
from policylab.errors import BadInput
from policylab.learners.worldmodel.sparse import SINDy
from policylab.worlds.sparse import SparseDynamics, exponents

_SPEC = lab.Spec(lab.Box((2,)), lab.Box((1,), -1.0, 1.0))


def _known(rows: int = 3000, noise: float = 0.0) -> lab.Recording:
    """x' = x + 0.1 y;  y' = y - 0.2 x y + 0.05 u;  r = 0.5 - x^2."""
    random = np.random.default_rng(0)
    state, control = random.uniform(-1, 1, (rows, 2)), random.uniform(-1, 1, (rows, 1))
    change = np.stack([0.1 * state[:, 1], -0.2 * state[:, 0] * state[:, 1] + 0.05 * control[:, 0]], axis=1)
    after = state + change + noise * random.normal(size=change.shape)
    never = np.zeros(rows, bool)
    return recording_from_steps(
        state.astype(np.float32), control.astype(np.float32), (0.5 - state[:, 0] ** 2).astype(np.float32), never, ~never,
        after.astype(np.float32), spec=_SPEC, name="known",
    )  # fmt: skip


def test_terms_are_monomials_of_the_state_alone_and_times_each_control() -> None:
    powers = exponents(2, 1, 2)
    assert powers[:6] == ((0, 0, 0), (1, 0, 0), (0, 1, 0), (2, 0, 0), (1, 1, 0), (0, 2, 0))
    assert powers[6:] == tuple((*p[:2], 1) for p in powers[:6])
    world = SparseDynamics(degree=3).build(_SPEC, key=jax.random.key(0))
    x = np.array([-0.7, 0.0, 0.4], np.float32)
    by_hand = [np.prod(x ** np.array(p)) for p in world.powers]
    np.testing.assert_allclose(world.terms(jnp.asarray(x[:2]), jnp.asarray(x[2:])), by_hand, rtol=1e-5)


def test_known_equations_come_back_with_nothing_else() -> None:
    run = lab.train(SINDy(SparseDynamics(members=5)), _known(noise=0.005), steps=4, seeds=2)
    world = run.products(seed=1)["world"]
    lines = world.equations(("x", "y", "u"))
    assert [line.split("=")[0].strip() for line in lines] == ["d x", "d y", "reward"]
    found = [
        dict(zip(line.split("= ")[1].split()[1::2], map(float, line.split("= ")[1].split()[::2]), strict=False))
        for line in lines[:1]
    ]
    assert found[0].keys() == {"y"}
    median = np.median(np.asarray(world.coefficients.values), axis=0)
    term = {p: i for i, p in enumerate(world.powers)}
    expected = np.zeros_like(median)
    expected[term[0, 1, 0], 0] = 0.1
    expected[term[1, 1, 0], 1], expected[term[0, 0, 1], 1] = -0.2, 0.05
    expected[term[0, 0, 0], 2], expected[term[2, 0, 0], 2] = 0.5, -1.0
    np.testing.assert_allclose(median, expected, atol=3e-3)
    assert ((median != 0) == (expected != 0)).all()
    inside, far = (
        float(world.step(jnp.array(s), jnp.zeros(1), jax.random.key(0))[1].info["uncertainty"])
        for s in ([0.1, 0.1], [9.0, 9.0])
    )
    assert far > 3 * inside
    np.testing.assert_allclose(world.expected(jnp.array([0.5, -0.4]), jnp.array([1.0]))[0], [0.46, -0.31], atol=3e-3)


def test_an_update_is_thresholded_ridge_regression() -> None:
    recording = _known(200, noise=0.02)
    learner = SINDy(SparseDynamics(members=1), threshold=0.01, penalty=1e-3)
    world = lab.train(learner, recording, steps=3).products(seed=0)["world"]
    rows = slice(None, None, 2)  # every row is an episode of its own: its state and what followed
    state, after = np.asarray(recording.observation, np.float64)[rows], np.asarray(recording.observation, np.float64)[1::2]
    inputs = np.concatenate([state, np.asarray(recording.action, np.float64)], axis=1)
    theta = np.stack([np.prod(inputs ** np.array(p), axis=1) for p in world.powers], axis=1)
    target = np.concatenate([after - state, np.asarray(recording.reward, np.float64)[:, None]], axis=1)
    kept = np.ones((theta.shape[1], 3), bool)
    for _ in range(3):
        answer = np.zeros(kept.shape)
        for column in range(3):
            part = theta[:, kept[:, column]]
            matrix = part.T @ part / 200 + 1e-3 * np.eye(part.shape[1])
            answer[kept[:, column], column] = np.linalg.solve(matrix, part.T @ target[:, column] / 200)
        kept &= np.abs(answer) >= 0.01
    np.testing.assert_allclose(world.coefficients.values[0], np.where(kept, answer, 0.0), rtol=2e-3, atol=2e-5)


def test_pairs_stay_on_their_circle_and_what_is_no_number_is_refused() -> None:
    world = SparseDynamics(circles=((0, 1),)).build(_SPEC, key=jax.random.key(0))
    after, _ = world.expected(jnp.array([3.0, 4.0]), jnp.zeros(1))
    np.testing.assert_allclose(after, [0.6, 0.8], rtol=1e-6)
    with pytest.raises(BadInput, match="use an ensemble"):
        SparseDynamics().build(lab.Spec(lab.Discrete(3), lab.Box((1,))), key=jax.random.key(0))
    with pytest.raises(BadInput, match="2 names for 3"):
        world.equations(("x", "y"))
