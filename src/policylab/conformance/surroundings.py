"""What an Environment, a Source and a Scorer have to keep: constant shapes, pure, deterministic given the key."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import PyTree

from policylab import spaces
from policylab.conformance.requirements import Test, arrays_only, same, shapes
from policylab.environment import Environment
from policylab.errors import BadInput
from policylab.evaluation.rollouts import blanks
from policylab.examples import example_text
from policylab.experience import Spec
from policylab.learner import Clock, Pairs, Steps, Windows
from policylab.policies.answering import Answers
from policylab.policies.uniform import UniformRandom
from policylab.scorer import Scorer
from policylab.source import Source


def environment_tests(environment: Environment) -> Iterator[Test]:
    """The tests of an environment: random actions from a few starts."""
    key = jax.random.key(0)
    spec = environment.spec

    def cycle() -> None:
        state, observation = environment.reset(key)
        wanted = shapes(blanks(spec)[0])
        assert shapes(observation) == wanted, f"reset observes {shapes(observation)}, its spec says {wanted}"
        after, step = environment.step(state, _any_action(spec, key), key)
        assert shapes(after) == shapes(state), "step changes the shapes or dtypes of the state: it must keep them"
        assert shapes(step.observation) == wanted, f"step observes {shapes(step.observation)}, its spec says {wanted}"
        for name in ("terminal", "truncated"):
            assert jnp.asarray(getattr(step, name)).dtype == bool, f"Step.{name} must be a boolean"
        if not environment.hosted:
            arrays_only(state, "the state")

    def scanned() -> None:
        def move(state: PyTree, k: Any) -> tuple[PyTree, Any]:
            state, step = environment.step(state, _any_action(spec, k), k)
            return state, step.reward

        roll = lambda k: jax.lax.scan(move, environment.reset(k)[0], jax.random.split(k, 4))[1]
        rewards = jax.jit(jax.vmap(roll))(jax.random.split(key, 3))
        assert np.all(np.isfinite(rewards)), "rewards of random actions are not finite"
        if not environment.hosted:
            same(
                rewards,
                jax.jit(jax.vmap(roll))(jax.random.split(key, 3)),
                "the same keys give other rewards: draw only from `key`",
            )

    yield "reset and step agree with the spec and keep the state's shapes", cycle
    yield "works under jit, vmap and scan, and is deterministic", scanned


def _any_action(spec: Spec, key: Any) -> PyTree:
    return example_text(spaces.sample(spec.action, key=key), spec, kind=2)


def source_tests(source: Source) -> Iterator[Test]:
    """The tests of a source, asked for the first of transitions, windows, pairs and answers that it makes; who acts, acts at random."""
    products = {"policy": UniformRandom(source.spec.action)}
    requests = {"transitions": Steps(4), "windows": Windows(4, future=2), "pairs": Pairs(4), "answers": Answers(4)}

    def answering() -> Source:
        for name, request in requests.items():
            try:
                return source.serve({name: request})
            except BadInput:
                continue
        raise AssertionError(f"serve refuses {', '.join(requests)}: answer at least one of these requests")

    def draws() -> None:
        served = answering()
        clock, key = Clock(jnp.asarray(0), jnp.asarray(1)), jax.random.key(0)
        if served.hosted:
            batch = served.host_batches(range(2), (0, 1))
            assert batch.reward.shape[:3] == (2, 2, 4), "host_batches must return [step, seed, batch] arrays"
            same(batch, served.host_batches(range(2), (0, 1)), "host_batches must be a function of step and seed alone")
            return
        draw = jax.jit(lambda s, k: s.next(s.init(products, key=k), products, clock=clock, key=k)[1])
        assert jax.tree.leaves(draw(served, key))[-1].shape[0] == 4, "next must give as many transitions as were asked for"
        same(draw(served, key), draw(served, key), "next gives another batch for the same key")

    yield "answers a request for transitions, purely", draws


def scorer_tests(scorer: Scorer, spec: Spec) -> Iterator[Test]:
    """The tests of a scorer on one observation and action of these spaces."""
    key = jax.random.key(0)

    def scores() -> None:
        observation, action = spaces.sample(spec.observation, key=key), spaces.sample(spec.action, key=key)
        parts = scorer.scores(observation, action)
        assert parts.ndim == 1, "scores must give one number per part of the action: shape [part]"
        assert np.allclose(scorer.score(observation, action), parts.sum()), "score must be the sum of scores"

    yield "scores are one number per part, score their sum", scores
