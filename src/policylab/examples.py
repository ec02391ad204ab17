"""Small specs, and random experience in them, to try implementations on."""

from __future__ import annotations

import dataclasses
import math

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import PyTree

from policylab import spaces
from policylab.data.recording import Recording
from policylab.experience import Spec, Statistics, Tokens
from policylab.sources.preferences import Preferences
from policylab.sources.ratings import Ratings


def example_spec(*, discrete: bool = False) -> Spec:
    """A small spec with statistics: 3 observed numbers; 2 bounded actions, or 3 choices."""
    action = spaces.Discrete(3) if discrete else spaces.Box((2,), -2.0, 2.0)
    width = spaces.size(action)
    statistics = {
        "observation": Statistics(jnp.zeros(3), jnp.ones(3), -jnp.ones(3), jnp.ones(3)),
        "action": Statistics(jnp.zeros(width), jnp.ones(width), -2 * jnp.ones(width), 2 * jnp.ones(width)),
    }
    return Spec(spaces.Box((3,)), action, statistics, horizon=8)


def example_specs() -> tuple[Spec, ...]:
    """Specs with torques, choices, choices in numbered states, actions with named parts, choices whose features are observed, two
    players together, and several steps as one."""
    torques, choices = example_spec(), example_spec(discrete=True)
    numbered = dataclasses.replace(choices, observation=spaces.Discrete(5), statistics={})
    named = spaces.Composite((("push", torques.action), ("gear", choices.action)))
    listed = dataclasses.replace(choices, observation=spaces.Box((3, 2)), statistics={})
    seats = (("playing", spaces.Box((2,), 0.0, 1.0)), ("gained", spaces.Box((2,))))
    seen = spaces.Composite((("first", choices.observation), ("second", choices.observation), *seats))
    both = spaces.Composite((("first", choices.action), ("second", choices.action)))
    joint = dataclasses.replace(choices, observation=seen, action=both, statistics={})
    plans = dataclasses.replace(torques, observation=spaces.Box((2, 3)), action=spaces.Box((4, 2), -2.0, 2.0), statistics={})
    return torques, choices, numbered, dataclasses.replace(torques, action=named, statistics={}), listed, joint, plans


def example_text_spec() -> Spec:
    """Prompts and answers of at most 8 characters of a small alphabet."""
    from policylab.policies.language import text_spec
    from policylab.tokenizer import characters

    return text_spec(characters("abc "), prompt=8, answer=8)


def example_recording(spec: Spec, *, episodes: int = 8, length: int = 8) -> Recording:
    """Random experience in the spaces of `spec`, with rewards and propensities."""
    steps = episodes * length
    random = np.random.default_rng(0)

    def draw(space: spaces.Space, rows: int) -> PyTree:
        return jax.tree.map(
            np.asarray, jax.vmap(lambda key: spaces.sample(space, key=key))(jax.random.split(jax.random.key(rows), rows))
        )

    terminal = np.zeros(steps, bool)
    terminal[length - 1 :: length] = True
    return Recording(
        draw(spec.observation, steps + episodes), draw(spec.action, steps), random.uniform(size=steps).astype(np.float32),
        terminal, np.zeros(steps, bool), np.full(episodes, length), spec,
        extra={
            "propensity": np.full(steps, 0.5, np.float32), "log_prob": np.full(steps, np.log(0.5), np.float32),
            "before_takeover": random.uniform(size=steps) < 0.2,
        },
    )  # fmt: skip


def example_preferences(spec: Spec) -> Preferences:
    """Random pairs of answers in the spaces of `spec`, a third of them with a label in doubt."""
    recording = example_recording(spec)
    rows = recording.steps // 2
    take = lambda tree, start: jax.tree.map(lambda leaf: leaf[start : start + rows], tree)
    p = np.resize([1.0, 0.0, 0.7], rows)
    return Preferences.of(take(recording.observation, 0), take(recording.action, 0), take(recording.action, rows), p, spec=spec)


def example_ratings(spec: Spec, *, group: int = 1) -> Ratings:
    """Random answers in the spaces of `spec`, with rewards of 0 and 1, one by one or in groups to one prompt."""
    recording = example_recording(spec)
    rows = recording.steps // group
    shape = (rows,) if group == 1 else (rows, group)
    take = lambda tree, shape: jax.tree.map(lambda leaf: leaf[: math.prod(shape)].reshape(*shape, *leaf.shape[1:]), tree)
    reward = np.resize([1.0, 0.0, 0.0], shape)
    prompt, answer = take(recording.observation, (rows,)), take(recording.action, shape)
    return Ratings.of(example_text(prompt, spec, kind=1), example_text(answer, spec, kind=2), reward, spec=spec)


def example_text(ids: PyTree, spec: Spec, *, kind: int) -> PyTree:
    """Ids as text of a kind where the spec is one of texts; else what was given."""
    from policylab.policies.language import is_text

    return Tokens(jnp.asarray(ids), jnp.full(ids.shape, kind)) if is_text(spec) else ids
