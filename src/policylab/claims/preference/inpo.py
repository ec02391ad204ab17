"""INPO reaches the Nash policy of preferences that are no order, and iterative DPO does not (Zhang et al. 2024, arXiv 2407.00617)."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from policylab import spaces
from policylab.claim import Claim, Greater, Relation
from policylab.experience import Spec
from policylab.hyperparameters import traced
from policylab.learner import Clock, Learner
from policylab.learners.preference.dpo import DPO
from policylab.learners.preference.inpo import INPO
from policylab.learners.preference.iterated import Iterated
from policylab.policies.tabular import TabularPolicy
from policylab.scorers.preference_table import PreferenceTable
from policylab.sources.comparisons import Comparisons

ANSWERS, TAU, ETA = 10, 0.05, 2.0
ITERATIONS, EVERY, BATCH, RATE = 300, 30, 512, 0.02
SPEC = Spec(spaces.Discrete(1), spaces.Discrete(ANSWERS))
BETAS = {"cyclic": 0.8, "ordered": 0.1}  # of DPO, each the best of five for its kind of game


def arms_for(kind: str) -> dict[str, Learner]:
    """The learners on games of this kind; INPO is the same on both."""
    dpo = DPO(beta=BETAS[kind], learning_rate=RATE, batch_size=BATCH)
    inpo = INPO(tau=TAU, eta=ETA, every=EVERY, learning_rate=RATE, batch_size=BATCH)
    return {"inpo": inpo, "dpo": Iterated(dpo, every=EVERY)}


def game(seed: int, kind: str) -> tuple[np.ndarray, np.ndarray]:
    """(P(i beats j), logits of the reference). "cyclic": the log-odds are 3 sin of the difference of two random angles, so that some answers
    beat one another in circles, and the difference of two small merits; "ordered": Bradley and Terry's, with normal merits."""
    random = np.random.default_rng([seed, len(kind)])
    angle, merit = random.uniform(0, 2 * np.pi, ANSWERS), random.standard_normal(ANSWERS)
    circle = 3.0 * np.sin(angle[None, :] - angle[:, None])
    odds = circle + 0.3 * (merit[:, None] - merit[None, :]) if kind == "cyclic" else merit[:, None] - merit[None, :]
    return 1.0 / (1.0 + np.exp(-odds)), random.standard_normal(ANSWERS)


def log_normalised(logits: np.ndarray) -> np.ndarray:
    """Log-probabilities."""
    return logits - np.logaddexp.reduce(logits, axis=-1, keepdims=True)


def duality_gap(wins: np.ndarray, reference: np.ndarray, policy: np.ndarray) -> float:
    """max_p J(p, pi) - min_p J(pi, p) of the game J(p, q) = P(p beats q) - tau KL(p || ref) + tau KL(q || ref), exactly: twice what the best
    response gains, tau log E_ref[exp(P(y beats pi) / tau)] + tau KL(pi || ref) - 1/2. Arguments but `wins` are log-probabilities."""
    against = wins @ np.exp(policy)
    best = TAU * np.logaddexp.reduce(reference + against / TAU)
    return float(2.0 * (best + TAU * np.exp(policy) @ (policy - reference) - 0.5))


def worst_case(wins: np.ndarray, policy: np.ndarray) -> float:
    """The policy's chance to win against the answer that it does worst against."""
    return float((np.exp(policy) @ wins).min())


@partial(jax.jit, static_argnames="updates")
def played(learner: Learner, wins: Array, reference: Array, seeds: Array, updates: int) -> Array:
    """The logits at the end of every run; labels are single votes."""

    def one(wins: Array, reference: Array, seed: Array) -> Array:
        key = jax.random.key(seed)
        source = Comparisons.of(np.zeros(1, np.int32), PreferenceTable(wins[None]), spec=SPEC, sampled=True).serve(
            learner.needs
        )

        def step(state: Any, number: Array) -> tuple[Any, None]:
            clock = Clock(number, jnp.asarray(updates))
            draw, learn = jax.random.split(jax.random.fold_in(key, number))
            batch = source.next(None, learner.products(state), clock=clock, key=draw)[1]
            return learner.update(state, batch, clock=clock, key=learn)[0], None

        state = learner.init(SPEC, key=key, given={"start": TabularPolicy(reference[None])})
        return learner.products(jax.lax.scan(step, state, jnp.arange(updates))[0])["policy"].table[0]

    return jax.vmap(one)(wins, reference, seeds)


def measure(seeds: Sequence[int]) -> dict[str, np.ndarray]:
    """Per kind of game and arm: minus the duality gap, and the worst-case chance to win, both in percent; of the reference as well."""
    found: dict[str, Any] = {}
    for kind in ("cyclic", "ordered"):
        games = [game(seed, kind) for seed in seeds]
        wins, logits = (np.stack([one[i] for one in games]) for i in range(2))
        ends = {"reference": logits}
        for arm, learner in arms_for(kind).items():
            given = (jnp.asarray(x, jnp.float32) for x in (wins, logits))
            ends[arm] = np.asarray(played(traced(learner), *given, jnp.asarray(seeds), ITERATIONS * EVERY), np.float64)
        for arm, tables in ends.items():
            rows = list(zip(wins, log_normalised(logits), log_normalised(tables), strict=True))
            found[f"{arm}/{kind}-gap"] = np.array([-100.0 * duality_gap(*row) for row in rows])
            found[f"{arm}/{kind}-worst"] = np.array([100.0 * worst_case(row[0], row[2]) for row in rows])
    return found


CLAIM = Claim(
    system="inpo",
    says="Mirror descent in self-play by regression on compared pairs converges to the Nash policy of a general preference, without estimates of"
    " win rates; iterative DPO, which assumes that preferences are an order, ends where it can be exploited (Zhang et al. 2024, arXiv"
    " 2407.00617).",
    task="Ten answers, one prompt, single votes on pairs of the policy's own answers. `cyclic`: answers on a circle beat those that follow them"
    " (log-odds 3 sin of the angle between), with small merits beside; `ordered`: Bradley and Terry's model with normal merits. `gap`: minus"
    " the exact duality gap of the game with tau 0.05 towards the reference; `worst`: chance to win against the worst opponent; in percent.",
    arms={
        "inpo": "INPO, its last iterate",
        "dpo": "iterative DPO with as many iterations and votes",
        "reference": "the policy that both start from",
    },
    parts=(
        Greater("inpo", "dpo", 5, "cyclic-gap"),
        Greater("inpo", "dpo", 5, "cyclic-worst"),
        Relation("inpo/cyclic-gap", -3, "above"),
        Relation("inpo/ordered-worst", 40, "above"),
        Relation("dpo/ordered-worst", 40, "above"),
    ),
    measure=measure,
    budget="300 iterations of 30 updates on 512 votes, Adam at 0.02, for both",
    scale="analogue",
    deviation="Tables over ten answers instead of a language model of 8 billion parameters and its preference model; independent pairs with one vote"
    " each, as in the paper's theory, instead of the best and worst of eight answers; step size fixed.",
    minutes=4,
    unit="random game",
    tuning="with seeds 1000 to 1002: DPO over beta 0.05, 0.1, 0.2, 0.4 and 0.8, the best for each kind of game (0.8 where it is cyclic, at which it"
    " hardly leaves the reference, 0.1 where it is ordered); INPO over eta 0.5, 1, 2 and 4, one for both (0.5 goes round in circles)",
)
