"""What a Learner has to keep: pure, of constant shapes, for several seeds at once, and what it learned survives saving."""

from __future__ import annotations

import dataclasses
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp

from policylab import spaces
from policylab.conformance.requirements import Test, arrays_only, inside, same, shapes
from policylab.examples import example_preferences, example_ratings, example_recording, example_text
from policylab.experience import Spec, Tokens
from policylab.hyperparameters import check as check_settings
from policylab.hyperparameters import traced
from policylab.learner import Clock, Each, Learner, Pairs, Request, Steps, WholeEpisodes, Windows
from policylab.policies.answering import Answers
from policylab.policies.language import is_text
from policylab.policies.population import Population
from policylab.runs import Run, load_product
from policylab.source import Source
from policylab.sources.dataset import Dataset
from policylab.sources.demonstrations import Demonstrations
from policylab.world import Branched

_LEARNED = {"policy", "critic", "world", "encoder", "reward"}


def _from_data(request: Request) -> Request:
    """What a dataset gives in its place: whole episodes look like windows of their length, padded, imagined steps like logged ones."""
    if isinstance(request, WholeEpisodes):
        return Windows(request.count, request.fields, request.goals, future=8)
    if isinstance(request, Branched):
        return Steps(request.count, request.fields, request.goals)
    return request


def _source_of(learner: Learner, spec: Spec) -> Source:
    """Random experience of the kind that the learner needs: steps, pairs of answers, or rated answers."""
    needs = dict(learner.needs)
    for request in needs.values():
        if isinstance(request, Pairs):
            return example_preferences(spec).serve(needs)
        if isinstance(request, Answers):
            return example_ratings(spec, group=request.group).serve(needs)
    if is_text(spec):
        rows = example_recording(spec)
        first = lambda tree: jax.tree.map(lambda leaf: leaf[: rows.steps], tree)
        prompt, answer = (
            example_text(first(part), spec, kind=kind) for part, kind in ((rows.observation, 1), (rows.action, 2))
        )
        return Demonstrations.of(prompt, answer, spec=spec).serve(needs)
    return Dataset.of(example_recording(spec)).serve({name: _from_data(request) for name, request in needs.items()})


def learner_tests(learner: Learner, spec: Spec) -> Iterator[Test]:
    """The tests of a learner on a small recording of these spaces."""
    key = jax.random.key(0)
    source = _source_of(learner, spec)
    clock = Clock(jnp.asarray(3), jnp.asarray(10))
    init = jax.jit(lambda live, key: live.init(source.spec, key=key))
    update = jax.jit(lambda live, state, batch, key: live.update(state, batch, clock=clock, key=key))
    made: dict[str, Any] = {}

    def settings() -> None:
        check_settings(learner)
        assert dataclasses.is_dataclass(learner), "make the class a @lab.settings dataclass"
        hash(jax.tree.structure(learner))

    def start() -> None:
        made["state"] = init(traced(learner), key)
        made["batch"] = source.next(None, {}, clock=clock, key=key)[1]
        explorer = traced(learner).products(made["state"]).get("explorer")
        if isinstance(explorer, Population):  # every member is tried
            made["batch"] = jax.tree.map(lambda leaf: jnp.broadcast_to(leaf, (explorer.size, *leaf.shape)), made["batch"])
        arrays_only(made["state"], "the state")
        same(made["state"], init(traced(learner), key), "init gives another state for the same key: draw only from `key`")

    def step() -> None:
        state, metrics = update(traced(learner), made["state"], made["batch"], key)
        assert shapes(state) == shapes(made["state"]), "update changes the shapes or dtypes of the state: it must keep them"
        scalars = {name: value for name, value in metrics.items() if not isinstance(value, Each)}
        assert all(jnp.ndim(leaf) == 0 for leaf in jax.tree.leaves(scalars)), "every metric must be a scalar, or Each"
        same(
            state,
            update(traced(learner), made["state"], made["batch"], key)[0],
            "update is not a function of its arguments alone",
        )

    def seeds() -> None:
        states = jax.tree.map(lambda leaf: jnp.stack([leaf, leaf]), made["state"])
        one = lambda state: traced(learner).update(state, made["batch"], clock=clock, key=key)[0]
        after = jax.eval_shape(jax.vmap(one), states)
        kept = jax.tree.map(lambda a, b: a.shape == b.shape and a.dtype == b.dtype, after, states)
        assert jax.tree.all(kept), "update does not work for several seeds at once"

    def products() -> None:
        products = traced(learner).products(made["state"])
        assert set(products) & _LEARNED or learner.takes, (
            f"products must hold what was learned: a policy (what one would ship), or else one of {', '.join(sorted(_LEARNED))}"
        )
        if "policy" in products:
            observation = example_text(spaces.sample(spec.observation, key=key), spec, kind=1)
            act = jax.jit(lambda policy, observation: policy.act(observation, policy.initial_memory(key=key), key=key)[0])
            action = act(products["policy"], observation)
            inside(spec.action, action.ids if isinstance(action, Tokens) else action)

    def saved() -> None:
        run = Run(learner, source.spec, (0,), jax.tree.map(lambda leaf: leaf[None], made["state"]))
        products = run.products(seed=0)
        for name in set(products) & {"policy", "critic", "world"}:
            with tempfile.TemporaryDirectory() as folder:
                path = run.save_policy(Path(folder) / "product.safetensors", product=name)
                same(
                    load_product(path, learner=learner)[0],
                    products[name],
                    f"the {name} that is loaded is not the one that was saved",
                )

    yield "settings are a frozen dataclass within their ranges", settings
    yield "init is pure and its state holds only arrays", start
    yield "update is pure, keeps shapes and gives scalar metrics", step
    yield "update works for several seeds in one program", seeds
    yield "products hold what was learned, and a policy acts in the action space", products
    yield "products survive saving and loading", saved
