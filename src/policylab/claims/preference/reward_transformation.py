"""Log-sigmoid rewards above a reference level align better than raw ones, and add up as AND (Wang et al. 2024, arXiv 2402.00742).

When the stand-in was changed on tuning seeds, the metric `honest` became one of utility instead of quantiles, with a margin of 0.1
instead of 1, before the run on record. By quantiles the transformation was slightly worse there."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from policylab import spaces
from policylab.claim import Claim, Greater
from policylab.claims.preference import learned
from policylab.experience import Spec
from policylab.hyperparameters import traced
from policylab.learners.imitation.fit import Fit
from policylab.scorers.bradley_terry import BradleyTerry
from policylab.scorers.transformed import log_sigmoid_above
from policylab.sources.preferences import Preferences

PROMPTS, ANSWERS, PROPERTIES = 100, 200, 2
ASKED, SAID = 4, 12  # numbers that state a prompt, and an answer
PAIRS, UPDATES, BATCH = 3_000, 1_500, 64
LEVEL = 0.5  # quantile of a prompt's scores: of what counts as acceptable, and of the truth that counts as good
RIVALRY = -0.5  # correlation of the two utilities, as of being helpful and harmless
BUDGETS = (0.5, 1.0, 2.0, 3.0)  # KL(policy || reference) in nats, at each of which the arms are compared
SPEC = Spec(spaces.Box((ASKED,)), spaces.Box((SAID,)))
LEARNER = Fit(BradleyTerry(width=64), learning_rate=1e-3, batch_size=BATCH)
ARMS = ("transformed", "raw", "clipped", "standardised")


def world(seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(prompts, answers to each, true utility of each by property): random perceptrons of prompt and answer, of a standard
    deviation of 2, at which the better of two answers wins some 84% of votes; the second is mixed with the first to be its rival."""
    random = np.random.default_rng(seed)
    prompts, answers = random.standard_normal((PROMPTS, ASKED)), random.standard_normal((PROMPTS, ANSWERS, SAID))
    both = np.concatenate([np.broadcast_to(prompts[:, None], (PROMPTS, ANSWERS, ASKED)), answers], axis=-1)
    inner, outer = random.standard_normal((PROPERTIES, ASKED + SAID, 16)), random.standard_normal((PROPERTIES, 16))
    hidden = np.tanh(np.einsum("pak,jkh->jpah", both, inner) / 3.0)
    utility = np.einsum("jpah,jh->jpa", hidden, outer)
    first, second = utility / utility.std(axis=(1, 2), keepdims=True)
    return prompts, answers, 2.0 * np.stack([first, RIVALRY * first + np.sqrt(1.0 - RIVALRY**2) * second])


def votes(seed: int, number: int, prompts: np.ndarray, answers: np.ndarray, utility: np.ndarray) -> Preferences:
    """PAIRS single votes on one property, on answers drawn from the reference policy, which is uniform."""
    random = np.random.default_rng([seed, number])
    prompt = random.integers(0, PROMPTS, PAIRS)
    first, second = random.integers(0, ANSWERS, (2, PAIRS))
    chance = 1.0 / (1.0 + np.exp(utility[prompt, second] - utility[prompt, first]))
    label = (random.uniform(size=PAIRS) < chance).astype(np.float32)
    return Preferences.of(prompts[prompt], answers[prompt, first], answers[prompt, second], label, spec=SPEC)


@partial(jax.jit, static_argnames="updates")
def scored(
    learner: Fit, sources: Preferences, prompts: Array, answers: Array, seeds: Array, updates: int
) -> Float[Array, "run prompt answer"]:
    """The scores of all answers by the reward model fitted to each source."""

    def one(source: Preferences, prompts: Array, answers: Array, seed: Array) -> Array:
        state = learned(learner, source, updates=updates, key=jax.random.key(seed))[1]
        return jax.vmap(state.model.table)(prompts, answers)

    return jax.vmap(one)(sources, prompts, answers, seeds)


def rewards(scores: np.ndarray) -> dict[str, np.ndarray]:
    """Every arm's reward [prompt, answer] from the scores [property, prompt, answer]. Clipping is at the same level as the transformation."""
    level = np.quantile(scores, LEVEL, axis=2, keepdims=True)
    each = {
        "transformed": np.asarray(log_sigmoid_above(jnp.asarray(scores), jnp.asarray(level)), np.float64),
        "raw": scores - level,
        "clipped": np.minimum(scores - level, 0.0),
        "standardised": (scores - scores.mean(axis=2, keepdims=True)) / scores.std(axis=2, keepdims=True),
    }
    return {arm: reward.sum(axis=0) for arm, reward in each.items()}


def best_policy(reward: np.ndarray, budget: float) -> np.ndarray:
    """softmax(reward / beta) [prompt, answer], the optimum of E[R] - beta KL to the uniform reference, at the beta (found by bisection) at
    which the mean of KL over prompts is the budget, or as near below as it gets."""
    low, high = 1e-4, 1e4

    def at(beta: float) -> tuple[np.ndarray, float]:
        log = reward / beta
        log = log - np.logaddexp.reduce(log, axis=1, keepdims=True)
        return np.exp(log), float((np.exp(log) * (log + np.log(reward.shape[1]))).sum(1).mean())

    for _ in range(60):
        middle = np.sqrt(low * high)
        low, high = (low, middle) if at(middle)[1] < budget else (middle, high)
    return at(high)[0]


def measure(seeds: Sequence[int]) -> dict[str, np.ndarray]:
    """Of every arm, as means over the budgets of KL: percent of answers that are truly good in both properties (`both`), the truth of the
    worse of the two in quantiles of the reference (`worse`), and minus by how much the model overrates the answers (`honest`), in units of
    utility (of standard deviation 2), utilities and scores being centred at every prompt.
    """
    worlds = [world(seed) for seed in seeds]
    needs = LEARNER.needs
    sources, prompts, answers, keys = [], [], [], []
    for seed, (asked, said, utility) in zip(seeds, worlds, strict=True):
        for number in range(PROPERTIES):
            sources.append(votes(seed, number, asked, said, utility[number]).serve(needs))
            prompts.append(asked)
            answers.append(said)
            keys.append(2 * seed + number)
    stack = jax.tree.map(lambda *leaves: jnp.stack(leaves), *sources)
    given = (jnp.asarray(np.stack(x), jnp.float32) for x in (prompts, answers))
    scores = np.asarray(scored(traced(LEARNER), stack, *given, jnp.asarray(keys), UPDATES), np.float64)
    scores = scores.reshape(len(seeds), PROPERTIES, PROMPTS, ANSWERS)
    rank = lambda x: (np.argsort(np.argsort(x, axis=2), axis=2) + 0.5) / ANSWERS  # quantile among a prompt's answers
    centred = lambda x: x - x.mean(axis=2, keepdims=True)
    found: dict[str, list[float]] = {f"{arm}/{metric}": [] for arm in ARMS for metric in ("both", "worse", "honest")}
    for (_, _, utility), score in zip(worlds, scores, strict=True):
        true, excess = rank(utility), centred(score) - centred(utility)
        good = (true > LEVEL).all(axis=0)
        for arm, reward in rewards(score).items():
            policies = [best_policy(reward, budget) for budget in BUDGETS]
            mean = lambda value, policies=policies: 100.0 * float(np.mean([(p * value).sum(1).mean() for p in policies]))
            found[f"{arm}/both"].append(mean(good))
            found[f"{arm}/worse"].append(mean(true.min(axis=0)))
            found[f"{arm}/honest"].append(-mean(excess.mean(axis=0)) / 100.0)
    return {name: np.array(values) for name, values in found.items()}


CLAIM = Claim(
    system="reward-transformation",
    says="Aligning to log sigma(reward - level of an acceptable answer) instead of to the reward gives more answers that are good in all"
    " properties at the same distance to the reference, because it spends nothing on answers that are good already (Wang et al. 2024, arXiv"
    " 2402.00742).",
    task="100 prompts with 200 answers each, two true utilities (random perceptrons, of correlation -0.5), a reward model"
    " for each from 3 000 votes on random pairs."
    " The policy is the exact optimum of E[R] - beta KL(policy || uniform), with beta such that KL is 0.5, 1, 2 or 3 nats, over which values"
    " are averaged: percent of answers whose true utilities are both above the prompt's median (`both`), quantile of the worse of the two"
    " (`worse`), minus by how much the reward model overrates the answers, in units of utility (`honest`).",
    arms={
        "transformed": "the sum of log sigma(score - its median at the prompt)",
        "raw": "the sum of scores",
        "clipped": "the sum of scores clipped at their median",
        "standardised": "the sum of scores standardised at every prompt",
    },
    parts=(
        Greater("transformed", "raw", 3, "both"),
        Greater("transformed", "standardised", 3, "both"),
        Greater("transformed", "clipped", 1, "both"),
        Greater("transformed", "raw", 1, "worse"),
        Greater("transformed", "raw", 0.1, "honest"),
    ),
    measure=measure,
    budget="the same reward models, reference and divergence from it",
    scale="analogue",
    deviation="Vectors and perceptrons instead of texts and T5; the optimum in closed form instead of PPO; true utilities instead of a larger"
    " model as judge; the same level, a quantile, for both properties.",
    minutes=2,
    unit="random world",
    tuning="the same reward models for all arms. Looked at with seeds 1000 to 1002: levels 0.5, 0.7 and 0.85 (which is also what counts as good),"
    " correlations 0 and -0.5. By `both` the transformation was 5 to 10 points ahead of the raw sum at level 0.5, 3 to 4 at 0.7 and not at"
    " all at 0.85, where hardly any answer is good in both; level 0.5 says that an answer as good as the usual one will do. By `worse` it was"
    " ahead everywhere",
)
