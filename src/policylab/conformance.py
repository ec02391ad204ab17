"""The conformance suite: `lab.check(Mine())` runs any implementation of a noun through what the rest of the house relies on."""

from __future__ import annotations

import dataclasses
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import PyTree

from policylab import spaces
from policylab.environment import Environment
from policylab.errors import BadInput, Unsupported
from policylab.examples import example_recording, example_spec, example_specs
from policylab.experience import Spec, Window
from policylab.hyperparameters import check as check_settings
from policylab.hyperparameters import traced
from policylab.learner import Clock, Learner
from policylab.policy import Form, Policy, log_prob
from policylab.runs import Run, load_product
from policylab.scorer import Scorer
from policylab.source import Source
from policylab.sources.dataset import Dataset

Test = tuple[str, Callable[[], None]]


@dataclass(frozen=True)
class Conformance:
    """What was checked: (name, None if it holds, else the sentence that says how to mend it)."""

    subject: str
    rows: tuple[tuple[str, str | None], ...]

    @property
    def passed(self) -> bool:
        """Whether everything holds."""
        return all(problem is None for _, problem in self.rows)

    def __str__(self) -> str:
        lines = [
            f"{'ok  ' if problem is None else 'FAIL'} {name}" + (f": {problem}" if problem else "")
            for name, problem in self.rows
        ]
        return "\n".join([f"{self.subject}: {'conforms' if self.passed else 'does not conform'}", *lines])


def check(subject: Any, *, spec: Spec | None = None) -> Conformance:
    """Run the suite that belongs to the noun of `subject`: a Learner, Form, Policy, Environment, Scorer or Source.

    `spec` gives the spaces to try it on; by default small continuous or discrete ones, as the subject says it can do.
    """
    if isinstance(subject, Learner):
        tests = _learner_tests(subject, spec or _example_for(subject))
    elif isinstance(subject, Form):
        tests = _form_tests(subject, spec)
    elif isinstance(subject, Policy):
        if spec is None:
            raise BadInput("check needs the spec of a policy to try it on: check(policy, spec=environment.spec)")
        tests = _policy_tests(subject, spec)
    elif isinstance(subject, Environment):
        tests = _environment_tests(subject)
    elif isinstance(subject, Source):
        tests = _source_tests(subject)
    elif isinstance(subject, Scorer):
        tests = _scorer_tests(subject, spec or example_spec())
    else:
        raise BadInput(
            f"check knows learners, forms, policies, environments, sources and scorers, not {type(subject).__name__}"
        )
    rows = []
    for name, test in tests:
        try:
            test()
            rows.append((name, None))
        except AssertionError as problem:
            rows.append((name, str(problem)))
        except Exception as problem:
            rows.append((name, f"{type(problem).__name__}: {str(problem).splitlines()[0] if str(problem) else ''}"))
    return Conformance(type(subject).__name__, tuple(rows))


def _example_for(learner: Learner) -> Spec:
    """The first small spec with the learner's kind of action that its `init` accepts."""
    discrete = learner.actions == "discrete"
    for spec in example_specs():
        if isinstance(spec.action, spaces.Discrete) == discrete:
            try:
                jax.eval_shape(lambda key, spec=spec: learner.init(spec, key=key), jax.random.key(0))
            except BadInput:
                continue
            except Exception:
                pass  # the suite says what is wrong with it
            return spec
    return example_spec(discrete=discrete)


def _arrays_only(tree: PyTree, what: str) -> None:
    for path, leaf in jax.tree_util.tree_leaves_with_path(tree):
        assert isinstance(leaf, jax.Array | np.ndarray), (
            f"{what}{jax.tree_util.keystr(path)} is a {type(leaf).__name__}: every leaf must be an array; mark the rest static"
        )


def _same(a: PyTree, b: PyTree, sentence: str) -> None:
    equal = jax.tree.structure(a) == jax.tree.structure(b) and jax.tree.all(
        jax.tree.map(
            lambda x, y: np.array_equal(
                np.asarray(x), np.asarray(y), equal_nan=np.issubdtype(np.asarray(x).dtype, np.floating)
            ),
            a,
            b,
        )
    )
    assert equal, sentence


def _shapes(tree: PyTree) -> PyTree:
    return jax.tree.map(lambda leaf: (jnp.shape(leaf), jnp.asarray(leaf).dtype), tree)


def _inside(space: spaces.Space, value: PyTree) -> None:
    given = jax.tree.map(lambda leaf: np.shape(leaf), value)
    wanted = jax.tree.map(lambda leaf: np.shape(leaf), spaces.zeros(space))
    assert given == wanted, f"an action has shapes {given}, not {wanted} of {spaces.describe(space)}"
    if isinstance(space, spaces.Composite):
        for name, part in space.parts:
            _inside(part, value[name])
    if isinstance(space, spaces.Discrete):
        assert 0 <= int(value) < space.n, f"the action {value} is not one of {space.n} choices"
    if isinstance(space, spaces.Box) and space.bounded:
        low, high = space.bounds()
        assert np.all((value >= low - 1e-4) & (value <= high + 1e-4)), f"the action {value} leaves the bounds of its space"


def _learner_tests(learner: Learner, spec: Spec) -> Iterator[Test]:
    key = jax.random.key(0)
    source = Dataset.of(example_recording(spec)).serve(learner.needs)
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
        _arrays_only(made["state"], "the state")
        _same(made["state"], init(traced(learner), key), "init gives another state for the same key: draw only from `key`")

    def step() -> None:
        state, metrics = update(traced(learner), made["state"], made["batch"], key)
        assert _shapes(state) == _shapes(made["state"]), "update changes the shapes or dtypes of the state: it must keep them"
        assert all(jnp.ndim(leaf) == 0 for leaf in jax.tree.leaves(metrics)), "every metric must be a scalar"
        _same(
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
        assert "policy" in products or learner.takes, "products must hold a policy (what one would ship)"
        if "policy" in products:
            observation = spaces.sample(spec.observation, key=key)
            _inside(spec.action, products["policy"].act(observation, products["policy"].initial_memory(key=key), key=key)[0])

    def saved() -> None:
        run = Run(learner, source.spec, (0,), jax.tree.map(lambda leaf: leaf[None], made["state"]))
        products = run.products(seed=0)
        for name in set(products) & {"policy", "critic"}:
            with tempfile.TemporaryDirectory() as folder:
                path = run.save_policy(Path(folder) / "product.safetensors", product=name)
                _same(
                    load_product(path, learner=learner)[0],
                    products[name],
                    f"the {name} that is loaded is not the one that was saved",
                )

    yield "settings are a frozen dataclass within their ranges", settings
    yield "init is pure and its state holds only arrays", start
    yield "update is pure, keeps shapes and gives scalar metrics", step
    yield "update works for several seeds in one program", seeds
    yield "products hold a policy that acts in the action space", products
    yield "products survive saving and loading", saved


def _builds(form: Form, spec: Spec) -> bool:
    try:
        form.build(spec, key=jax.random.key(0))
    except BadInput:
        return False
    return True


def _form_tests(form: Form, spec: Spec | None) -> Iterator[Test]:
    chosen = spec or next((one for one in example_specs() if _builds(form, one)), example_spec())

    def hashable() -> None:
        assert hash(form) == hash(dataclasses.replace(form)), "a form must be a frozen dataclass of hashable fields"

    def pure() -> None:
        key = jax.random.key(1)
        _same(form.build(chosen, key=key), form.build(chosen, key=key), "build gives another policy for the same key")

    yield "the form is hashable", hashable
    yield "build is a function of spec and key", pure
    yield from _policy_tests(form.build(chosen, key=jax.random.key(0)), chosen)


def _policy_tests(policy: Policy, spec: Spec) -> Iterator[Test]:
    key = jax.random.key(0)
    keys = jax.random.split(key, 5)
    observations = jax.vmap(lambda k: spaces.sample(spec.observation, key=k))(keys)
    one = jax.tree.map(lambda leaf: leaf[0], observations)
    act = jax.jit(lambda p, o, m, k: p.act(o, m, key=k))

    def arrays() -> None:
        _arrays_only(policy, "the policy")

    def acts() -> None:
        memory = policy.initial_memory(key=key)
        action, after = act(policy, one, memory, key)
        _inside(spec.action, action)
        assert _shapes(after) == _shapes(memory), "act changes the shapes of the memory: it must keep them"
        _same(action, act(policy, one, memory, key)[0], "act gives another action for the same key")
        mode = policy.mode()
        _same(mode.act(one, memory, key=key)[0], mode.act(one, memory, key=keys[1])[0], "the mode depends on the key")

    def batched() -> None:
        actions = jax.jit(jax.vmap(lambda o, k: policy.act(o, policy.initial_memory(key=k), key=k)[0]))(observations, keys)
        assert jax.tree.leaves(actions)[0].shape[0] == 5, "act does not work under vmap"

    def densities() -> None:
        try:
            action, log_probability, _ = policy.sample(one, policy.initial_memory(key=key), key=key)
        except Unsupported:
            return
        batch = jax.tree.map(lambda leaf: leaf[None], (one, action))
        flag, number = jnp.zeros(1, bool), jnp.zeros(1)
        window = Window(batch[0], batch[1], number, batch[0], flag, flag, ~flag, jnp.ones(1, jnp.int32))
        again = log_prob(policy, window)[0]
        assert np.allclose(again, log_probability, atol=1e-2, rtol=1e-3), (
            f"sample says log-probability {float(log_probability):.4f} but log_prob says {float(again):.4f} of the same action"
        )

    yield "every leaf is an array", arrays
    yield "act is deterministic given its key and stays in the action space", acts
    yield "act works under jit and vmap", batched
    yield "sample and log_prob agree", densities


def _environment_tests(environment: Environment) -> Iterator[Test]:
    key = jax.random.key(0)
    spec = environment.spec

    def cycle() -> None:
        state, observation = environment.reset(key)
        wanted = _shapes(spaces.zeros(spec.observation))
        assert _shapes(observation) == wanted, f"reset observes {_shapes(observation)}, its spec says {wanted}"
        after, step = environment.step(state, spaces.sample(spec.action, key=key), key)
        assert _shapes(after) == _shapes(state), "step changes the shapes or dtypes of the state: it must keep them"
        assert _shapes(step.observation) == wanted, f"step observes {_shapes(step.observation)}, its spec says {wanted}"
        for name in ("terminal", "truncated"):
            assert jnp.asarray(getattr(step, name)).dtype == bool, f"Step.{name} must be a boolean"
        if not environment.hosted:
            _arrays_only(state, "the state")

    def scanned() -> None:
        def move(state: PyTree, k: Any) -> tuple[PyTree, Any]:
            state, step = environment.step(state, spaces.sample(spec.action, key=k), k)
            return state, step.reward

        roll = lambda k: jax.lax.scan(move, environment.reset(k)[0], jax.random.split(k, 4))[1]
        rewards = jax.jit(jax.vmap(roll))(jax.random.split(key, 3))
        assert np.all(np.isfinite(rewards)), "rewards of random actions are not finite"
        if not environment.hosted:
            _same(
                rewards,
                jax.jit(jax.vmap(roll))(jax.random.split(key, 3)),
                "the same keys give other rewards: draw only from `key`",
            )

    yield "reset and step agree with the spec and keep the state's shapes", cycle
    yield "works under jit, vmap and scan, and is deterministic", scanned


def _source_tests(source: Source) -> Iterator[Test]:
    from policylab.learner import Steps

    def draws() -> None:
        served = source.serve({"transitions": Steps(4)})
        clock, key = Clock(jnp.asarray(0), jnp.asarray(1)), jax.random.key(0)
        if served.hosted:
            batch = served.host_batches(range(2), (0, 1))
            assert batch.reward.shape[:3] == (2, 2, 4), "host_batches must return [step, seed, batch] arrays"
            _same(batch, served.host_batches(range(2), (0, 1)), "host_batches must be a function of step and seed alone")
            return
        draw = jax.jit(lambda s, k: s.next(s.init({}, key=k), {}, clock=clock, key=k)[1])
        assert draw(served, key).reward.shape[0] == 4, "next must give as many transitions as were asked for"
        _same(draw(served, key), draw(served, key), "next gives another batch for the same key")

    yield "answers a request for transitions, purely", draws


def _scorer_tests(scorer: Scorer, spec: Spec) -> Iterator[Test]:
    key = jax.random.key(0)

    def scores() -> None:
        observation, action = spaces.sample(spec.observation, key=key), spaces.sample(spec.action, key=key)
        parts = scorer.scores(observation, action)
        assert parts.ndim == 1, "scores must give one number per part of the action: shape [part]"
        assert np.allclose(scorer.score(observation, action), parts.sum()), "score must be the sum of scores"

    yield "scores are one number per part, score their sum", scores
