"""Best-of-n cloning is the regularised optimum, and OREAL learns more from outcomes than cloning alone (Lyu et al. 2025, arXiv 2502.06781).

What came out: the theory holds to rounding, and on this task cloning the right answers is all that is needed: with wrong answers pushed down,
shaped or not, and with RLOO and plain REINFORCE one gets as far. Token weights hold the policy back, mostly by what the token reward has to
learn first (the card expects little of them in short chains); it does put more than an even share of the weight on a planted mistake, but
not so surely that five seeds show it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import lru_cache

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from policylab.claim import Claim, Exact, Greater, Relation
from policylab.claims.reasoning import Sorted, questions, reinforced, right, solution, sorting_spec, taught
from policylab.experience import Tokens
from policylab.hyperparameters import traced
from policylab.learner import Learner
from policylab.learners.reasoning.oreal import OREAL
from policylab.learners.reasoning.policy_gradient import GroupPolicyGradient
from policylab.scorers.token_reward import TokenReward, likely_wrong
from policylab.sources.responses import Responses

ARMED, CORRECT, BEST_OF = 50, 10, 16  # the bandit
DIGITS, LESSONS, UPDATES, PROMPTS, GROUP = (5,), 80, 60, 16, 8
FIRST_DIGIT, LAST_DIGIT = 4, 13  # their ids

FULL = OREAL(
    learning_rate=3e-4,
    reward_rate=3e-4,
    reward_of_all=True,
    reward_passes=4,
    warm_up=20,
    weight_decay=0.0,
    batch_size=PROMPTS,
    group=GROUP,
)
ALL = GroupPolicyGradient.named("rloo", anchor="none", learning_rate=3e-4, batch_size=PROMPTS, group=GROUP)
ARMS: dict[str, Learner] = {
    "oreal": FULL,
    "unweighted": replace(FULL, token_weights=False),
    "unshaped": replace(FULL, token_weights=False, reshaped=False),
    "cloning": replace(FULL, token_weights=False, reshaped=False, negative=0.0),
    "rloo": ALL,
    "reinforce": replace(ALL, baseline="none"),
}


class Signed(Sorted):
    """1 for a right answer, -1 for a wrong one."""

    def scores(self, observation: Tokens, action: Tokens) -> Float[Array, " part"]:
        """On the last token of the answer."""
        last = jnp.arange(action.ids.shape[-1]) == jnp.maximum(jnp.sum(action.kind == 2) - 1, 0)
        passed = Sorted().score(observation, action)
        return jnp.where(last, 2.0 * passed - 1.0, 0.0)


def bandit(seed: int) -> tuple[float, float]:
    """(largest difference between the distribution of best-of-n and the optimum of E[r] - beta KL, slope of log total variation between a
    policy cloned from m correct samples and that of infinitely many, over log m)."""
    random = np.random.default_rng(seed)
    base = np.exp(random.standard_normal(ARMED))
    base /= base.sum()
    good = np.zeros(ARMED, bool)
    good[random.choice(ARMED, CORRECT, replace=False)] = True
    p, none = base[good].sum(), (1.0 - base[good].sum()) ** BEST_OF
    best = np.where(good, (1.0 - none) * base / p, none * base / (1.0 - p))
    tilted = base * np.exp(good * np.log((1.0 - none) / none * (1.0 - p) / p))
    limit = np.where(good, base / p, 0.0)
    counts = 2 ** np.arange(6, 15)
    distance = [np.mean([0.5 * np.abs(random.multinomial(m, limit) / m - limit).sum() for _ in range(100)]) for m in counts]
    return float(np.abs(best - tilted / tilted.sum()).max()), float(np.polyfit(np.log(counts), np.log(distance), 1)[0])


@lru_cache(maxsize=1)
def problems() -> tuple[Tokens, Tokens]:
    """Questions to learn from, and others to be tried on."""
    return questions(np.random.default_rng(1), DIGITS, 4096), questions(np.random.default_rng(2), DIGITS, 400)


@jax.jit
def localised(reward: TokenReward, prompts: Tokens) -> Float[Array, " seed"]:
    """The share of the weight of a spoilt solution that falls on the one digit that was replaced, in units of an even share; of token rewards
    with leaves [seed, ...]."""
    answer = solution(prompts)
    place_key, digit_key = jax.random.split(jax.random.key(11))
    count = jnp.sum(answer.kind == 2, axis=-1) - 1  # the end stays
    place = jax.random.randint(place_key, count.shape, 0, count)[:, None]
    spoilt = jnp.arange(answer.ids.shape[-1]) == place
    shift = jax.random.randint(digit_key, place.shape, 1, 10)  # another digit
    other = FIRST_DIGIT + (answer.ids - FIRST_DIGIT + shift) % (LAST_DIGIT - FIRST_DIGIT + 1)
    planted = Tokens(jnp.where(spoilt, other, answer.ids), answer.kind)

    def one(reward: TokenReward) -> Array:
        weight = jnp.where(planted.kind == 2, likely_wrong(reward.weights(prompts, planted)), 0.0)
        total = jnp.sum(weight, axis=-1)
        share = jnp.sum(jnp.where(spoilt, weight, 0.0), axis=-1) / jnp.maximum(total, 1e-9)
        return jnp.sum(share * (count + 1) * (total > 0)) / jnp.maximum(jnp.sum(total > 0), 1)

    return jax.lax.map(one, reward)


def measure(seeds: Sequence[int]) -> dict[str, np.ndarray]:
    """Of every arm, percent of held-out questions that one answer gets right (`pass1`) and that one of eight does (`pass8`); of the bandit
    the difference to the optimum (`identity`) and the slope (`slope`); how much more of the weight is on a planted mistake than there would
    be by chance (`localised`); by how many points OREAL is behind RLOO (`behind`)."""
    asked, held = problems()
    start = taught(questions(np.random.default_rng(3), DIGITS, 4096), jnp.asarray(seeds), LESSONS)
    prompts = jax.tree.map(np.asarray, asked)
    found = {
        name: np.array(values)
        for name, values in zip(("identity", "slope"), zip(*map(bandit, seeds), strict=True), strict=True)
    }
    passed = {"start": np.asarray(right(start, held, 8))}
    for arm, learner in ARMS.items():
        scorer = Signed() if arm == "reinforce" else Sorted()
        source = Responses.of(prompts, scorer, spec=sorting_spec()).serve(learner.needs)
        state = reinforced(traced(learner), source, start, jnp.asarray(seeds), UPDATES)[0]
        passed[arm] = np.asarray(right(state["policy"].model, held, 8))
        if arm == "oreal":
            found["localised"] = np.asarray(localised(state["reward"].model, held), np.float64)
    for arm, ones in passed.items():
        found[f"{arm}/pass1"] = 100.0 * ones.astype(np.float64).mean((1, 2))
        found[f"{arm}/pass8"] = 100.0 * ones.max(2).astype(np.float64).mean(1)
    found["behind"] = found["rloo/pass1"] - found["oreal/pass1"]
    return found


CLAIM = Claim(
    system="oreal",
    says="With right and wrong as the only reward, best-of-n sampling is the optimum of the reward less a divergence, so that cloning its right"
    " answers learns it; with wrong answers weighted accordingly and a token reward that says where, OREAL learns as much as RLOO or more, and"
    " more than cloning alone (Lyu et al. 2025, arXiv 2502.06781).",
    task="(a) A bandit of 50 choices of which 10 are right. (b) Sorting 5 digits, character by character, by a decoder of 2 layers and width 64 that"
    " was taught until a third to a half of its answers are right, then reinforced for 60 updates of 16 questions with 8 answers each: percent of 400"
    " held-out questions that one answer gets right (`pass1`).",
    arms={
        "oreal": "as published",
        "unweighted": "OREAL where all tokens count alike",
        "unshaped": "the same, right answers counting 1 and wrong ones -1",
        "cloning": "right answers alone, all alike (rejection-sampling fine-tuning, online)",
        "rloo": "leave-one-out policy gradient on all answers",
        "reinforce": "policy gradient with rewards 1 and -1 on all answers",
        "start": "before reinforcement",
        "identity": "largest difference between the distribution of best-of-16 and the regularised optimum",
        "slope": "of log total variation over log samples, of a policy cloned from right samples",
        "localised": "share of a spoilt answer's weight that is on the spoilt digit, in units of an even share",
        "behind": "points of pass1 by which OREAL is behind RLOO",
    },
    parts=(
        Exact("identity", 0, 1e-12),
        Relation("slope", -0.55),
        Relation("slope", -0.45, "below"),
        Greater("oreal", "cloning", 3, "pass1"),
        Greater("rloo", "cloning", 3, "pass1"),
        Relation("behind", 3, "below"),
        Relation("localised", 1),
    ),
    measure=measure,
    budget="the same start, updates and sampled answers; OREAL and cloning learn from one right and one wrong answer to a question, the others"
    " from all",
    scale="analogue",
    deviation="Sorting digits instead of chains of additions or mathematics; 0.1 million parameters instead of 7 billion; 8 answers instead of 16;"
    " rates that do not fall and no weight decay; the token reward learns from all answers in four passes,"
    " for 20 of the 60 updates alone; the cloned policy of (a) is the exact fit to its samples, their frequencies.",
    minutes=8,
    looks=(5, 10),
    tuning="3e-4 for all arms, from 1e-4, 3e-4 and 1e-3 with seeds 1000 and 1001, which began at 46 percent: cloning came to 61 and 65 (1e-3 lost"
    " in an earlier, smaller setting), RLOO to 66 at 3e-4 and 50 at 1e-3, OREAL to 55 and 52. Its token reward learned hardly anything from the"
    " chosen answers in so few updates, at 1e-3, 3e-3 and 5e-3: half of what it said of answers was wrong. It was therefore given all answers, four"
    " passes over each batch (by which it is right of 79 percent of held-out answers, after 60 batches) and 20 updates alone; OREAL then came to"
    " 57, without token weights to 65",
)
