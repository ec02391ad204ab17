"""With error-free dynamics, truncated rollouts make the usual actor-critic fail, and RAVL not (Sims, Lu and Teh 2024, arXiv 2402.12527)."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PRNGKeyArray

from policylab.claim import Claim, Greater, Relation
from policylab.data.recording import recording_from_steps
from policylab.environment import Environment, Step, unroll
from policylab.experience import Spec
from policylab.learner import Learner
from policylab.learners.offline.edac import EDAC
from policylab.learners.online.sac import SAC
from policylab.policies.gaussian import Gaussian
from policylab.sources.dataset import Dataset
from policylab.sources.imagined import Imagined
from policylab.spaces import Box
from policylab.training import train

HARMONICS, STEP, LOGGED_WITHIN, SPREAD, HILL = 3, 0.2, 0.5, 0.4, (1.15, 0.0)  # radians
HORIZON, FAR, SHORT, LONG, TRIED = 60, 400, 5, 30, 100  # steps, and episodes per seed
LOGGED, UPDATES, BATCH, WIDTH, ROLLOUTS, EVERY = 4_000, 3_000, 128, 64, 250, 50
BEST = 56.6  # return of going straight to the hill and staying there: the mean over the starts


class Torus(Environment):
    """A point on a torus that moves by up to 0.2 radians along each of two angles in a step, and a hill of reward,
    exp(-d^2 / (2 0.4^2)) with d the distance of the place that a step leaves to (1.15, 0). Nothing ends. One sees cosine and sine of
    both angles and of their multiples up to the third. Episodes start within half a radian of 0 in both angles."""

    @property
    def spec(self) -> Spec:
        """12 observed numbers, 2 actions."""
        return Spec(Box((4 * HARMONICS,), -1.0, 1.0), Box((2,), -1.0, 1.0), environment="torus")

    def see(self, place: Float[Array, "2"]) -> Float[Array, "12"]:
        """What shows the place: cosines first, those of the angles themselves before those of their multiples."""
        angles = (jnp.arange(1, HARMONICS + 1)[:, None] * place).reshape(-1)
        return jnp.concatenate([jnp.cos(angles), jnp.sin(angles)])

    def reset(self, key: PRNGKeyArray) -> tuple[Float[Array, "2"], Float[Array, "12"]]:
        """A place in the square that was logged."""
        place = jax.random.uniform(key, (2,), minval=-LOGGED_WITHIN, maxval=LOGGED_WITHIN)
        return place, self.see(place)

    def step(self, state: Float[Array, "2"], action: Float[Array, "2"], key: PRNGKeyArray) -> tuple[Float[Array, "2"], Step]:
        """The key is not used."""
        after = (state + STEP * jnp.clip(action, -1.0, 1.0) + jnp.pi) % (2 * jnp.pi) - jnp.pi
        reward = jnp.exp(-0.5 * jnp.sum((state - jnp.array(HILL)) ** 2) / SPREAD**2)
        never = jnp.zeros((), bool)
        return after, Step(self.see(after), reward, never, never)

    def at(self, observation: Float[Array, "12"]) -> Float[Array, "2"]:
        """The angles."""
        return jnp.arctan2(observation[2 * HARMONICS : 2 * HARMONICS + 2], observation[:2])


@cache
def data() -> Dataset:
    """4 000 single steps of uniformly random actions from everywhere in the square: all within 0.7 radians, the hill is at 1.15."""
    torus, keys = Torus(), jax.random.split(jax.random.key(0), LOGGED)

    def one(key: PRNGKeyArray) -> tuple[Array, Array, Step]:
        start, push = jax.random.split(key)
        place, seen = torus.reset(start)
        action = jax.random.uniform(push, (2,), minval=-1.0, maxval=1.0)
        return seen, action, torus.step(place, action, push)[1]

    seen, action, step = jax.device_get(jax.jit(jax.vmap(one))(keys))
    never = np.zeros(LOGGED, bool)
    return Dataset.of(recording_from_steps(seen, action, step.reward, never, ~never, step.observation, spec=torus.spec))


def source(horizon: int) -> Imagined:
    """Rollouts of so many steps of the true dynamics from logged places, with as many imagined steps per update for any horizon."""
    rollouts = ROLLOUTS * SHORT // horizon
    return Imagined(
        data(), Torus(), horizon=horizon, real=0.05, rollouts=rollouts, every=EVERY, capacity=ROLLOUTS * SHORT * 40
    )  # fmt: skip


def scores(learner: Learner, horizon: int, seeds: Sequence[int]) -> dict[str, np.ndarray]:
    """Per seed: `return` in percent of the best; `beyond`, by how much the critics' minimum at edge-of-reach places is above what the
    policy earns from there (in units of reward, discounted); `contrast`, the critics' standard deviation there over that at logged places."""
    run = train(learner, source(horizon), steps=UPDATES, seeds=list(seeds))
    # Both arms have a discount, which the type of any learner does not say.
    discount = float(learner.discount)  # ty: ignore[missing-attribute]

    def play(products: dict[str, Any], seed: Array) -> dict[str, Array]:
        torus, policy, critic = Torus(), products["policy"].mode(), products["critic"]
        key = jax.random.fold_in(jax.random.key(5), seed)
        flown = unroll(policy, torus, episodes=TRIED, horizon=HORIZON, key=key)
        # In exactly 5 steps and not in 4: 4 to 5 steps beyond the logged square along one angle or both.
        ray = jax.random.uniform(key, (500, 2), minval=-1.0, maxval=1.0)
        edge = ray / jnp.max(jnp.abs(ray), axis=1, keepdims=True) * (LOGGED_WITHIN + STEP * (SHORT - 0.5))
        act = lambda seen: policy.act(seen, None, key=key)[0]
        values = jax.vmap(lambda seen: critic.values(seen, act(seen)))

        def earned(place: Array) -> Array:
            def forward(state: Array, _: Array) -> tuple[Array, Array]:
                state, step = torus.step(state, act(torus.see(state)), key)
                return state, step.reward

            return jnp.sum(jax.lax.scan(forward, place, jnp.arange(FAR))[1] * discount ** jnp.arange(FAR))

        there, inside = values(jax.vmap(torus.see)(edge)), values(flown.observation[:, 0])
        return {
            "return": 100.0 * flown.returns.mean() / BEST,
            "beyond": jnp.mean(jnp.min(there, axis=1) - jax.vmap(earned)(edge)),
            "contrast": jnp.mean(jnp.std(there, axis=1)) / jnp.mean(jnp.std(inside, axis=1)),
            "value": jnp.mean(jnp.min(inside, axis=1)),
        }

    products = {name: product for name, product in run.products().items() if name in ("policy", "critic")}
    return {name: np.asarray(v, np.float64) for name, v in jax.jit(jax.vmap(play))(products, jnp.asarray(seeds)).items()}


def policy() -> Gaussian:
    """The form of all arms, with RAVL's range of standard deviations."""
    return Gaussian(width=WIDTH, state_dependent_std=True, squash="sample", log_std_range=(-5.0, 2.0))


def base(learning_rate: float = 3e-4, target_rate: float = 0.005) -> SAC:
    """The usual procedure: two critics."""
    return SAC(
        learning_rate=learning_rate, target_rate=target_rate, batch_size=BATCH, width=WIDTH, depth=2, discount=0.99, policy=policy()
    )  # fmt: skip


def ravl(learning_rate: float = 1e-3, diversity: float = 0.01) -> EDAC:
    """RAVL's agent: ten critics, their minimum, their diversity."""
    return EDAC(
        learning_rate=learning_rate, diversity=diversity, members=10, batch_size=BATCH, width=WIDTH, depth=2, policy=policy()
    )  # fmt: skip


def measure(seeds: Sequence[int]) -> dict[str, np.ndarray]:
    """Scores of all arms."""
    arms = {"base": (base(), SHORT), "ravl": (ravl(), SHORT), "long": (base(), LONG)}
    return {f"{arm}/{name}": values for arm, pair in arms.items() for name, values in scores(*pair, seeds).items()}


TUNING = (
    "4 trials for each arm on seeds 1000 and 1001 by the mean return: SAC over Adam's rate 0.0003 and 0.001 and the targets' rate 0.005 and 0.02"
    " (0.0003: 11 and 9; 0.001: 9 and 10; with targets at 0.02 values rose to 150 and more where 100 is the most that can be earned), RAVL over"
    " the same rates of Adam and diversity 0.01 and 0.1 (0.0003: 42 and 13; 0.001: 90 and 42). `long` has SAC's settings (96). The hill's"
    " distance was chosen on seeds 1000 to 1003 so that SAC fails at short rollouts (at 1 radian half of its seeds did, at 0.9 it depended on"
    " the log that was drawn); RAVL's returns were seen then, a mean of 64 at 1.15"
)

CLAIM = Claim(
    system="ravl",
    says="Offline model-based learning with rollouts of a few steps fails even if the dynamics are the true ones, since it bootstraps from"
    " states that rollouts only reach at their end; many critics with their minimum and a diversity term mend it, as do long rollouts"
    " (Sims, Lu and Teh 2024, arXiv 2402.12527, sections 4 to 6).",
    task="A point on a torus, up to 0.2 radians per step and angle, seen as cosines and sines; 4 000 logged steps from within half a radian of"
    " 0, and a hill of reward 1.15 radians away. Rollouts of 5 steps of the true dynamics from logged places. `return`: percent of the best"
    " over 60 steps from logged places; `beyond`: the critics' minimum above what the policy earns at edge-of-reach places (reached in exactly"
    " 5 steps); `contrast`: how much more the critics differ there than at logged places; `value`: their minimum at the latter.",
    arms={
        "base": "SAC, two critics; MOPO is the same here, the uncertainty of true dynamics being 0",
        "ravl": "ten critics, their minimum, and the diversity of their action gradients",
        "long": "SAC with rollouts of 30 steps",
    },
    parts=(
        Greater("ravl", "base", 5.0, "return"),
        Greater("long", "base", 5.0, "return"),
        Relation("base/beyond", 0.0, "above"),
        Relation("ravl/contrast", 2.0, "above"),
    ),
    measure=measure,
    budget="equal updates (3 000), batches (128, of which 5% logged), networks (2 layers of 64), logged steps (4 000) and imagined steps per"
    " update (25); RAVL has ten critics instead of two",
    scale="analogue",
    deviation="A torus instead of D4RL and instead of the paper's plane: on a plane, where the value keeps rising up to the end of reach, all"
    " critics extrapolate its slope alike, and in trials with hills at the end of reach neither arm came back (returns of 5 of 60 for both);"
    " angles seen with multiples leave no slope to extrapolate. The true dynamics are given to `Imagined`; no world is fitted. Values do not"
    " grow without bound within 3 000 updates: what is claimed of the base is that it overestimates at the edge and that its return collapses.",
    minutes=10,
    tuning=TUNING,
)
