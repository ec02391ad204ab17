"""Composing denoisers: against Gaussians, whose scores are known, and the policies on their own."""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import policylab as lab
from policylab.planners.compose import Composed, best_weights, convex_weights
from policylab.policies.diffusion import Diffusion, DiffusionPolicy
from policylab.policies.flow import Flow, FlowPolicy

SPEC = lab.Spec(lab.Box((2,)), lab.Box((1,)))
KEY = jax.random.key(0)
SEEN = jnp.zeros(2)


class NormalDiffusion(DiffusionPolicy):
    """A denoiser that knows: actions are normal with these moments, whatever is seen."""

    def denoise(self, observation, noisy, level, memory=None):
        mean, variance = observation[..., 0], observation[..., 1]
        return (variance * noisy + level**2 * mean) / (variance + level**2)


class NormalFlow(FlowPolicy):
    """The same for noisy actions on straight lines."""

    def denoise(self, observation, noisy, level, memory=None):
        mean, variance = observation[..., 0], observation[..., 1]
        signal = 1.0 - level
        return mean + variance * signal / (signal**2 * variance + level**2) * (noisy - signal * mean)


def rebuilt(cls, policy):
    return cls(**{field.name: getattr(policy, field.name) for field in dataclasses.fields(policy)})


@pytest.fixture(scope="module")
def normals():
    form = Diffusion(width=4, depth=1, levels=60, sigma_range=(0.005, 20.0))
    return rebuilt(NormalDiffusion, form.build(SPEC, key=KEY)), rebuilt(NormalFlow, Flow(width=4, depth=1).build(SPEC, key=KEY))


def moments(composed, observation):
    noise = jax.random.normal(KEY, (4_000, 1))
    sample = jax.jit(jax.vmap(lambda n: composed.decode(observation, n)))(noise)
    return float(sample.mean()), float(sample.var())


A, B = (0.5, 0.04), (-0.3, 0.09)  # mean and variance
VIEW = {"a": jnp.array(A), "b": jnp.array(B)}


class Part(lab.Policy):
    """Sees the first part that it is given."""

    inner: lab.Policy

    def __getattr__(self, name):
        return getattr(self.inner, name)

    def denoise(self, observation, noisy, level, memory=None):
        return self.inner.denoise(next(iter(observation.values())), noisy, level)

    def act(self, observation, memory, *, key):
        return self.inner.act(next(iter(observation.values())), memory, key=key)


@pytest.mark.parametrize("mixed", [False, True])
def test_convex_scores_of_normals_are_those_of_the_geometric_mixture(normals, mixed):
    """At a low level: at higher ones the mixture of the noised densities is another than the noised mixture."""
    diffusion, flow = normals
    composed = Composed.of(
        Part(diffusion), Part(flow if mixed else diffusion), weights=(0.3, 0.7), parts=(("a",), ("b",)), levels=80
    )
    x, sigma = jnp.array([0.2]), jnp.asarray(0.005)
    precision = 0.3 / A[1] + 0.7 / B[1]
    mean = (0.3 * A[0] / A[1] + 0.7 * B[0] / B[1]) / precision
    np.testing.assert_allclose((composed.denoise(VIEW, x, sigma) - x) / sigma**2, precision * (mean - x), rtol=0.02)
    # Sampling follows d mean / d sigma and d std / d sigma of a linear ordinary differential equation, here solved by hand.
    centre, spread = 0.0, float(composed.sigma[0])
    fine = np.geomspace(float(composed.sigma[0]), 0.005, 20_000)
    for now, after in zip(fine[:-1], fine[1:], strict=True):
        pull = 0.3 * now / (A[1] + now**2), 0.7 * now / (B[1] + now**2)
        centre += (after - now) * (pull[0] * (centre - A[0]) + pull[1] * (centre - B[0]))
        spread += (after - now) * sum(pull) * spread
    found = moments(composed, VIEW)
    assert found[0] == pytest.approx(centre, abs=0.03)
    assert found[1] == pytest.approx(spread**2, rel=0.15)


def test_flow_and_diffusion_of_one_density_agree_at_every_level(normals):
    diffusion, flow = normals
    x, sigma = jnp.array([0.7]), jnp.asarray(1.3)
    alone = [Composed.of(policy).denoise(jnp.array(A), x, sigma) for policy in (diffusion, flow)]
    np.testing.assert_allclose(alone[0], alone[1], rtol=1e-5)
    mean, variance = moments(Composed.of(flow, levels=60), jnp.array(A))
    assert (mean, variance) == (pytest.approx(A[0], abs=0.02), pytest.approx(A[1], rel=0.15))


def test_the_product_is_sharper(normals):
    diffusion, _ = normals
    composed = Composed.of(diffusion, diffusion, operator="product", levels=80)
    # Scores of both noised densities are added, so that the end is narrower than either.
    assert moments(composed, jnp.array(A))[1] < 0.75 * A[1]
    at_the_end = composed.denoise(jnp.array(A), jnp.array([0.9]), jnp.asarray(0.01))
    score = 2 * (A[0] - 0.9) / (A[1] + 0.01**2)
    np.testing.assert_allclose(at_the_end, 0.9 + 0.01**2 * score, rtol=1e-5)


def test_all_weight_on_one_policy_is_that_policy():
    forms = Diffusion(width=8, depth=1, levels=4), Flow(width=8, depth=1)
    first, second = (form.build(SPEC, key=KEY) for form in forms)
    composed = Composed.of(first, second, weights=(1.0, 0.0))
    np.testing.assert_allclose(composed.decode(SEEN, jnp.ones(1)), first.decode(SEEN, jnp.ones(1)), rtol=1e-5)
    report = lab.check(composed, spec=SPEC)
    assert report.passed, str(report)


def test_the_search_finds_the_weights_and_lists_all(normals):
    weights = convex_weights(3, 4)
    assert len(weights) == 15
    np.testing.assert_allclose(weights.sum(1), 1.0)
    diffusion, _ = normals
    found, values = best_weights(Composed.of(diffusion, diffusion), lambda c: -jnp.abs(c.weights[0] - 0.32))
    np.testing.assert_allclose(found, [0.3, 0.7], atol=1e-6)
    assert values.shape == (11,)


def test_what_does_not_go_together_is_refused(normals):
    diffusion, _ = normals
    with pytest.raises(lab.BadInput, match="denoises no actions"):
        Composed.of(diffusion, lab.Gaussian(width=4, depth=1).build(SPEC, key=KEY))
    other = Diffusion(width=4, depth=1).build(lab.Spec(lab.Box((2,)), lab.Box((1,), -3.0, 3.0)), key=KEY)
    with pytest.raises(lab.BadInput, match="space or scale"):
        Composed.of(diffusion, other)
    with pytest.raises(lab.BadInput, match="1 of 2"):
        Composed.of(diffusion, diffusion, parts=((),))
