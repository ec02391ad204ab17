"""Every exported implementation goes through the conformance suite, and the suite finds what is broken."""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp
import pytest

import policylab as lab
from policylab import registry
from policylab.examples import example_recording, example_spec
from policylab.hyperparameters import describe
from tests.small import continuous_dataset

_NESTING = (
    "cocoa",
    "ensemble",
    "dyna",
    "mbpo",
    "pets",
    "mopo",
    "ravl",
    "vagram",
    "sindy_rl",
    "decision_transformer",
    "clam",
    "reconstructing",
    "independent",
    "members",
    "alternate",
    "lora",
    "iterated",
    "receding",
    "diffusion_policy",
)  # learners with others inside, which have to be small, too


def _tiny(cls):
    """The class with small networks, so that the whole catalogue compiles quickly."""
    names = {row["name"] for row in describe(cls)}
    small = {
        "width": 8,
        "depth": 1,
        "batch_size": 8,
        "members": 2,
        "elites": 1,
        "quantiles": 4,
        "components": 2,
        "steps": 8,
        "epochs": 2,
        "population": 12,
        "capacity": 64,
        "rewards": 64,
        "cells": 4,
        "contrasted": 8,
        "widths": (8, 8),
        "embedding": 8,
    }
    if cls is lab.OREAL:
        return cls(batch_size=4, group=2, reward_of_all=True, reward_passes=2, policy=lab.Language(width=8, layers=1, heads=2))
    if cls is lab.SequenceMatch:
        return cls(batch_size=4, replay=4, policy=lab.Backtracking(lab.Language(width=8, layers=1, heads=2), trace=8))
    if cls is lab.TokenPPO:
        return cls(batch_size=8, epochs=2, policy=lab.Language(width=8, layers=1, heads=2))
    nested = {
        row["name"]: _tiny(type(row["default"]))
        for row in describe(cls)
        if dataclasses.is_dataclass(row["default"]) and cls.__module__.rpartition(".")[2] in _NESTING
    }
    return cls(**nested, **{name: value for name, value in small.items() if name in names})


@pytest.mark.parametrize("name", registry.LEARNERS)
def test_every_learner_conforms(name):
    report = lab.check(_tiny(registry.learner_class(name)))
    assert report.passed, str(report)


@pytest.mark.parametrize("name", registry.FORMS)
def test_every_form_conforms(name):
    report = lab.check(_tiny(registry.form_class(name)))
    assert report.passed, str(report)


def test_a_dataset_conforms():
    report = lab.check(continuous_dataset())
    assert report.passed, str(report)


def test_the_suite_finds_an_impure_update_and_a_growing_state():
    @lab.settings
    class Impure(lab.Learner):
        @property
        def needs(self):
            return {"transitions": lab.Steps(4)}

        def init(self, spec, *, key, given={}):
            return {"a": jnp.zeros(2), "name": "text"}

        def update(self, state, batch, *, clock, key):
            return {"a": jnp.zeros(3)}, {"m": jnp.zeros(2)}

        def products(self, state):
            return {}

    report = lab.check(Impure())
    assert not report.passed
    assert "every leaf must be an array" in str(report) or "TypeError" in str(report)


def test_the_suite_finds_an_action_outside_its_space():
    class TooFar(lab.Policy):
        def act(self, observation, memory, *, key):
            return jnp.full(2, 9.0), memory

    report = lab.check(TooFar(), spec=example_spec())
    assert "leaves the bounds" in str(report)


def test_the_suite_finds_a_density_that_disagrees_with_the_samples():
    class Wrong(lab.Policy):
        def act(self, observation, memory, *, key):
            return jax.random.normal(key, (2,)), memory

        def sample(self, observation, memory, *, key):
            return self.act(observation, memory, key=key)[0], jnp.asarray(5.0), memory

        def log_probs(self, window):
            return jnp.zeros((window.reward.shape[0], 2))

    assert "log_prob says" in str(lab.check(Wrong(), spec=example_spec()))


def test_the_example_recording_is_valid():
    recording = example_recording(example_spec(discrete=True))
    assert recording.steps == 64
    with pytest.raises(lab.BadInput, match="check knows"):
        lab.check("a string")
