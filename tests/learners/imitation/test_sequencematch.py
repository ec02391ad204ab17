"""SequenceMatch: its objective against NumPy and on tables, mistakes in texts, and backspaces in one pass against text by text."""

from __future__ import annotations

import itertools
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import policylab as lab
from policylab.experience import Window
from policylab.learner import Clock
from policylab.learners.imitation.sequencematch import SequenceMatch, Traces, matching
from policylab.policies.backtracking import Backtracking
from policylab.policies.language import text_spec
from policylab.policies.mistakes import with_mistakes
from policylab.tokenizer import characters

TOKENIZER = characters("0123")
SPEC = text_spec(TOKENIZER, prompt=4, answer=4)
FORM = Backtracking(lab.Language(width=8, layers=2, heads=2), trace=9)
FIRST, BACK = 3, 8  # ids: padding, end, beginning, the four digits from 3 on, unknown, backspace


@pytest.fixture(scope="module")
def policy():
    return FORM.build(SPEC, key=jax.random.key(0))


@jax.jit
def _written(policy, prompt, keys):
    written = policy.write(prompt, keys, slip=0.3)
    return written, policy.trace_logits(prompt, written.trace), policy.trace_log_probs(prompt, written.trace)


def test_every_action_sees_the_text_as_it_stands_and_generation_agrees(policy):
    prompt = TOKENIZER.tokens(["0123", "12"] * 8, length=4)
    written, (before, after), log_probs = _written(policy, prompt, jax.random.split(jax.random.key(1), 16))
    erased, alone, seen = 0, [], []
    before, after = np.asarray(before), np.asarray(after)
    for row in range(16):
        given = [int(i) for i, kind in zip(prompt.ids[row], prompt.kind[row], strict=True) if kind]
        answer, texts, following = [], [], []
        for action, kind in zip(np.asarray(written.trace.ids[row]), np.asarray(written.trace.kind[row]), strict=True):
            if not kind:
                break
            texts.append(given + answer)
            erased += action == BACK and len(answer) > 0
            answer = answer[:-1] if action == BACK else [*answer, int(action)]
            following.append(given + answer)
        standing = [int(i) for i, kind in zip(written.answer.ids[row], written.answer.kind[row], strict=True) if kind]
        assert standing == answer
        for half, rows in enumerate((texts, following)):
            for t, text in enumerate(rows):
                alone.append(text)
                seen.append((before, after)[half][row, t])
    ids, lengths = np.zeros((len(alone), 9), np.int32), np.array([len(text) for text in alone])
    for i, text in enumerate(alone):
        ids[i, : len(text)] = text
    found = jax.jit(lambda network, *texts: network(*texts))(policy.network, ids, np.arange(9) < lengths[:, None])
    np.testing.assert_allclose(np.stack(seen), np.asarray(found)[np.arange(len(alone)), lengths - 1], atol=1e-5)
    assert erased > 3
    slipped = np.asarray(written.slipped)
    assert slipped.any()
    agreed = np.where(slipped, 0.0, log_probs)
    np.testing.assert_allclose(written.log_probs, agreed, atol=1e-5)


def test_mistakes_are_corrected_and_not_learned():
    answer = TOKENIZER.tokens(["012", "31"] * 40, length=4, kind=2, ended=True)
    put = partial(with_mistakes, most=2, ordinary=jnp.arange(FIRST, FIRST + 4), backspace=BACK, pad=0)
    made = jax.jit(put)(answer, chance=0.4, key=jax.random.key(0))
    ids, kind, learned = np.asarray(made.trace.ids), np.asarray(made.trace.kind), np.asarray(made.learned)
    assert ids.shape == (80, 8)
    for row in range(80):
        text, mistakes = [], 0
        for t in np.flatnonzero(kind[row]):
            if ids[row, t] == BACK:
                assert learned[row, t]
                assert not learned[row, t - 1]
                assert text.pop() != ids[row, t + 1], "a mistake is another token than the one that follows"
                mistakes += 1
            else:
                text.append(ids[row, t])
        whole = np.asarray(answer.ids[row])
        assert text == list(whole[np.asarray(answer.kind[row]) == 2])
        assert mistakes <= 2
        assert (kind[row] == 2).sum() - learned[row].sum() == mistakes
    assert 0.3 < (~learned & (kind == 2)).sum() / 160 < 0.9


def test_the_objective_equals_numpy_by_hand():
    random = np.random.default_rng(0)
    drawn = lambda: random.normal(size=(3, 5)).astype(np.float32)
    ended = np.zeros((3, 5), bool)
    ended[[0, 1], [2, 4]] = True
    learned = np.arange(5) <= np.array([2, 4, 3])[:, None]
    learned[1, 1] = False
    data, own = (Traces(*map(jnp.asarray, (drawn(), drawn(), drawn(), learned, ended))) for _ in range(2))
    alpha, g = 0.7, 0.9

    def by_hand(traces, linear, square, loops):
        total, traces = np.zeros(3), jax.tree.map(np.asarray, traces)
        for row, t in itertools.product(range(3), range(5)):
            if not learned[row, t]:
                continue
            after = 0.0 if ended[row, t] and not loops else traces.after[row, t]
            r, gap = traces.taken[row, t] - g * after, traces.here[row, t] - g * after
            total[row] += g**t * (linear * r - 0.5 * gap - square * r**2)
            if ended[row, t] and loops:
                for k in range(t + 1, 400):  # the end for ever, term by term
                    r = (1 - g) * traces.after[row, t]
                    total[row] += g**k * (linear * r - 0.5 * r - square * r**2)
        return total

    squares = {"chi-square-mixture": (0.125, 0.125), "chi-square": (0.25, 0.0), "none": (0.0, 0.0)}
    kinds = list(itertools.product(squares, ("loop", "zero")))
    of = lambda data, own: [matching(data, own, alpha=alpha, discount=g, divergence=d, absorbing=a) for d, a in kinds]
    for (divergence, absorbing), found in zip(kinds, jax.jit(of)(data, own), strict=True):
        of_data, of_own = (square / alpha for square in squares[divergence])
        np.testing.assert_allclose(found[0], by_hand(data, 1.0, of_data, absorbing == "loop"), rtol=2e-4, atol=1e-5)
        np.testing.assert_allclose(found[1], by_hand(own, 0.0, of_own, absorbing == "loop"), rtol=2e-4, atol=1e-5)


def test_without_squares_the_objective_is_the_discounted_likelihood():
    """The values of one trace telescope, so that J = E sum_t g^t log pi(a_t|s_t), whoever the own trace is of."""
    random = np.random.default_rng(1)
    taken, totals = random.normal(size=(1, 4)), random.normal(size=(1, 5))
    ended = np.arange(4)[None] == 3
    parts = (taken, totals[:, :-1], totals[:, 1:], ended >= 0, ended)
    other = (taken + 1, totals[:, :-1], np.concatenate([totals[:, 1:-1] - 0.0, totals[:, -1:] + 2], axis=1), ended >= 0, ended)
    data, own = (Traces(*(jnp.asarray(part) for part in some)) for some in (parts, other))
    found = jax.jit(partial(matching, alpha=1.0, discount=0.9, divergence="none"))(data, own)
    likelihood = np.sum(0.9 ** np.arange(4) * (taken - totals[:, :-1]))
    assert float(found[0][0] + found[1][0]) == pytest.approx(likelihood, abs=1e-4)


def test_the_best_table_recovers_the_distribution_of_the_data():
    """Texts of a, b and the end, of at most 3 letters: the occupancies of the optimum satisfy r = 4a (data - own) / (data + own), and the
    distribution of its texts is that of the data up to an error that falls like 1 / alpha."""
    g = 0.9
    texts = [letters for n in range(4) for letters in itertools.product((0, 1), repeat=n)]
    numbers = {letters: i for i, letters in enumerate(texts)}
    closed = len(texts)  # the state after the end of each text comes after the open ones
    taken, states, following, learned = (np.zeros((len(texts), 4), int) for _ in range(4))
    for i, letters in enumerate(texts):
        for t, action in enumerate((*letters, 2)):
            states[i, t], taken[i, t], learned[i, t] = numbers[letters[:t]], action, 1
            following[i, t] = closed + i if action == 2 else numbers[letters[: t + 1]]
    ended = (taken == 2) & (learned == 1)
    full = np.array([len(letters) == 3 for letters in texts])  # where only the end is left
    data = np.random.default_rng(3).dirichlet(np.ones(len(texts)) * 2)

    def traces(table, after_end):
        logits = jnp.where(full[:, None] & (np.arange(3) < 2), -1e9, table)
        total = jnp.concatenate([jax.nn.logsumexp(logits, axis=-1), after_end])
        return Traces(logits[states, taken], total[states], total[following], jnp.asarray(learned == 1), jnp.asarray(ended))

    def of_own(found):
        return jnp.exp(jnp.sum((found.taken - found.here) * learned, axis=-1))

    def fitted(alpha):
        def objective(parameters):
            found = traces(*parameters)
            own = jax.lax.stop_gradient(of_own(found))
            terms = matching(found, found, alpha=alpha, discount=g)
            return -(data @ terms[0] + own @ terms[1])

        optimiser = optax.adam(optax.cosine_decay_schedule(0.05, 4_000))

        def step(carry, _):
            parameters, moments = carry
            updates, moments = optimiser.update(jax.grad(objective)(parameters), moments)
            return (optax.apply_updates(parameters, updates), moments), None

        start = (jnp.zeros((len(texts), 3)), jnp.zeros(len(texts)))
        parameters = jax.lax.scan(step, (start, optimiser.init(start)), None, length=4_000)[0][0]
        found = traces(*parameters)
        return of_own(found), found.taken - g * found.after, parameters[1]

    alphas = jnp.array([2.0, 20.0, 200.0])
    own, reward, after_end = (np.asarray(part, np.float64) for part in jax.jit(jax.vmap(fitted))(alphas))
    apart = 0.5 * np.abs(own - data).sum(axis=1)
    assert apart[2] < 0.01
    assert apart[0] > 3 * apart[1] > 9 * apart[2]
    for i, alpha in enumerate(alphas[:2]):
        occupancy = {}  # of (state, action) under data and own
        for row, t in zip(*np.nonzero(learned), strict=True):
            key = (states[row, t], taken[row, t])
            old = occupancy.get(key, (0.0, 0.0, 0.0))
            occupancy[key] = (old[0] + g**t * data[row], old[1] + g**t * own[i, row], reward[i, row, t])
        for row in range(len(texts)):  # staying at the end for ever
            t = learned[row].sum()
            mass = g**t / (1 - g)
            occupancy[closed + row] = (mass * data[row], mass * own[i, row], (1 - g) * after_end[i, row])
        for of_data, of_model, r in occupancy.values():
            assert r == pytest.approx(4 * float(alpha) * (of_data - of_model) / (of_data + of_model), abs=0.02)


def test_matching_comes_in_half_way_and_lowers_the_loss_too():
    learner = SequenceMatch(
        policy=FORM, batch_size=16, learning_rate=3e-3, refresh=2, replay=24, discount=0.999, divergence="none"
    )
    answer = TOKENIZER.tokens(["0", "1"] * 8, length=4, kind=2, ended=True)
    prompt = TOKENIZER.tokens(["0", "1"] * 8, length=4)
    zeros = jnp.zeros(16)
    flags = zeros > 0
    batch = Window(prompt, answer, zeros, prompt, ~flags, flags, ~flags, zeros.astype(jnp.int32) + 1)

    @jax.jit
    def run(learner, key):
        def step(state, number):
            at = jax.random.fold_in(key, number)
            return learner.update(state, batch, clock=Clock(number, jnp.asarray(60)), key=at)

        return jax.lax.scan(step, learner.init(SPEC, key=key), jnp.arange(60))

    state, metrics = run(learner, jax.random.key(0))
    losses = np.asarray(metrics["imitation_loss"])
    assert losses[-1] < 0.6 * losses[0]
    counted = np.asarray(metrics["matching"].present)
    assert not counted[:31].any()
    assert counted[31:].all()
    assert int(state["own"].count) == 16 * 16
    assert set(np.unique(state["own"].trace.kind)) <= {0, 2}
    assert np.array_equal(state["own"].answer.ids[:, 0], state["own"].prompt.ids[:, 0]), (
        "data and own traces share their prompts"
    )


def test_a_policy_without_a_backspace_is_refused():
    with pytest.raises(lab.BadInput, match="Backtracking"):
        SequenceMatch(policy=lab.Language(width=8, layers=1, heads=1)).init(SPEC, key=jax.random.key(0))
    with pytest.raises(lab.BadInput, match="shorter than an answer"):
        Backtracking(lab.Language(width=8, layers=1, heads=1), trace=2).build(SPEC, key=jax.random.key(0))
