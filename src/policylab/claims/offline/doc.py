"""Dichotomy of Control does not mistake luck for skill, where conditioning on returns does (Yang et al. 2022, arXiv 2210.13435)."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, PRNGKeyArray, PyTree

from policylab.claim import Claim, Greater, Relation
from policylab.collecting import collect
from policylab.environment import Environment, unroll
from policylab.environments.tabular import Tabular
from policylab.environments.time_limit import TimeLimit
from policylab.learner import Learner, Windows
from policylab.learners.imitation.bc import BC
from policylab.learners.offline.doc import DichotomyOfControl, Steps
from policylab.learners.offline.return_conditioned import ReturnConditioned
from policylab.policies.categorical import Categorical
from policylab.policy import Policy
from policylab.runs import Run
from policylab.sources.dataset import Dataset
from policylab.training import train

TRIES, SHARE, WINS = 5_000, 0.03, (0.9, 0.1)  # of the bandit: logged steps, how often the good arm is taken, chances to win


def bandit() -> Environment:
    """One choice: arm 0 wins with 0.9, arm 1 with 0.1."""
    transition, reward = np.zeros((3, 2, 3)), np.zeros((3, 2, 3))
    for arm, chance in enumerate(WINS):
        transition[0, arm] = 0.0, 1.0 - chance, chance
    transition[1, :, 1] = transition[2, :, 2] = 1.0
    reward[0, :, 2] = 1.0
    ends = np.array([False, True, True])
    return TimeLimit(Tabular.of(transition, reward, np.eye(3)[0], discount=0.9, terminal=ends, name="bandit"), 1)


class Habit(Policy):
    """Takes the good arm with probability `share`."""

    share: Float[Array, ""]

    def act(self, observation: PyTree, memory: PyTree, *, key: PRNGKeyArray) -> tuple[Int[Array, ""], PyTree]:
        """An arm."""
        return (jax.random.uniform(key) >= self.share).astype(jnp.int32), memory


@cache
def logged() -> Dataset:
    """The log."""
    return Dataset.of(collect(Habit(jnp.asarray(SHARE)), bandit(), episodes=TRIES, seed=1))


UPDATES, PLAYED = 2_000, 2_000  # updates of every arm, tries per policy
SHARED: dict[str, Any] = {"width": 16, "depth": 1, "learning_rate": 3e-3}
LATENT: dict[str, Any] = {**SHARED, "energy_rate": 1e-2, "negatives": 32, "energy_steps": 1}


ARMS: dict[str, Learner] = {
    "doc": DichotomyOfControl(**LATENT),
    "vae": DichotomyOfControl(**LATENT, energy_weight=0.0),
    "dt": ReturnConditioned(**SHARED),
    "bc": BC(policy=Categorical(width=16, depth=1), learning_rate=3e-3, batch_size=64),
}


def achieved(run: Run) -> np.ndarray:
    """100 times the mean return of 2 000 tries of every seed's policy; all arms meet the same chances."""

    def play(policy: Policy, seed: Array) -> Array:
        key = jax.random.fold_in(jax.random.key(3), seed)
        return unroll(policy, bandit(), episodes=PLAYED, horizon=1, key=key).returns.mean()

    returns = jax.jit(jax.vmap(play))(run.products()["policy"], jnp.asarray(run.seeds))
    return 100.0 * np.asarray(returns, np.float64)


def luck(run: Run) -> np.ndarray:
    """Per seed I(r; z | a) in nats, from the posterior of every logged try: what the latent knows of the luck, no energy asked."""
    source = logged()
    batch = source.window(source.row_of[: int(source.count)], Windows(1, future=1))
    arm, won = np.asarray(batch.action[:, 0]), np.asarray(batch.reward[:, 0])

    def posterior(state: PyTree) -> Array:
        lasting = state["lasting"]
        return state["model"].model.posterior(Steps.of(batch, lasting.spec, lasting.normaliser), batch.weight)

    shares = np.exp(np.asarray(jax.jit(jax.vmap(posterior))(run.state), np.float64))
    found = np.zeros(len(shares))
    for a in (0, 1):
        together = np.stack([shares[:, (arm == a) & (won == r)].sum(1) for r in (0, 1)], axis=1) / len(arm)
        apart = together.sum(1, keepdims=True) * together.sum(2, keepdims=True) / together.sum((1, 2), keepdims=True)
        found += np.sum(together * np.log(np.maximum(together, 1e-12) / np.maximum(apart, 1e-12)), axis=(1, 2))
    return found


def measure(seeds: Sequence[int]) -> dict[str, np.ndarray]:
    """Returns of every arm (x 100); of the latent ones also minus the gap between promise and return, and what z knows of luck."""
    found: dict[str, np.ndarray] = {}
    for arm, learner in ARMS.items():
        run = train(learner, logged(), steps=UPDATES, seeds=list(seeds))
        found[f"{arm}/return"] = achieved(run)
        if isinstance(learner, DichotomyOfControl):
            promised = jax.vmap(lambda policy: policy.promised(jnp.asarray(0)))(run.products()["policy"])
            found[f"{arm}/honesty"] = -np.abs(100.0 * np.asarray(promised, np.float64) - found[f"{arm}/return"])
            found[f"luck/{arm}"] = luck(run)
    return found


CLAIM = Claim(
    system="doc",
    says="Dichotomy of Control conditions on what actions control and not on luck: on data in which most good outcomes were luck it acts"
    " near-optimally and gets what its value promises, where conditioning on returns or on an unconstrained latent future follows the"
    " lucky (Yang et al. 2022, arXiv 2210.13435).",
    task="A bandit whose good arm wins with 0.9 and bad arm with 0.1; 5 000 logged tries, 3% of them of the good arm, so that most wins"
    " were luck with the bad arm. `return`: 100 times the chance to win; the best is 90, the behaviour's 12.4. `honesty`: minus the gap"
    " between the value that was promised and the return, x 100. `luck`: I(r; z | a) in nats over the log, counted from the posterior.",
    arms={
        "doc": "Dichotomy of Control, min-max, weight 10",
        "vae": "the same without the constraint: a latent of the future as in a variational autoencoder",
        "dt": "cloning conditioned on the return (what a Decision Transformer learns of one step), asked for a win",
        "bc": "behaviour cloning",
        "luck": "what the latent knows of the reward beyond the action (0.32 nats are there to know)",
    },
    parts=(
        Greater("doc", "dt", 20.0, "return"),
        Greater("doc", "vae", 20.0, "return"),
        Greater("doc", "bc", 20.0, "return"),
        Greater("doc", "vae", 20.0, "honesty"),
        Relation("luck/doc", 0.03, "below"),
    ),
    measure=measure,
    budget="equal updates (2 000), batches (64 windows), networks (1 layer of 16), learning rate (0.003) and data",
    scale="analogue",
    deviation="The bandit with our numbers; FrozenLake and MuJoCo are left out. Latents are summed over instead of sampled; the energy is"
    " trained against the encoder (the paper's constraint), not together with it as in the released code; its weight is 10 (released 1)."
    " On a process of two ways and up to 5 steps the same settings did not help (2 seeds, return 33 like the behaviour): latents of"
    " several steps need more than we found in the time there was.",
    minutes=5,
    tuning="none beyond the learning rate that all arms share, which was chosen among 0.001 and 0.003 by the latent arm on a log of its own"
    " (1 000 tries, 10% of the good arm)",
)
