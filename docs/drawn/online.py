"""The pictures of docs/online.md: learning curves of four learners, and what a critic makes of the pendulum's states."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np

import policylab as lab
from policylab.environments.pendulum import Pendulum
from policylab.environments.time_limit import TimeLimit
from policylab.reporting.figures import COLOURS, as_png, learning_curves, plotting

PLACE, SEEDS, WARMUP = TimeLimit(Pendulum(), 200), 5, 400
SMALL = {"width": 64, "batch_size": 128, "learning_rate": 1e-3}
STEPS = 5_000  # of the learners with a replay, one update each


def squashed() -> lab.Gaussian:
    """The policy of SAC and RLPD."""
    return lab.Gaussian(width=64, state_dependent_std=True, squash="sample", log_std_range=(-20.0, 2.0))


def learning() -> bytes:
    """The score over steps in the environment: PPO uses every step for a while, the others keep them."""
    task = lab.load_task("pendulum")
    log = lab.Dataset.of(task.dataset("mixed", steps=2_000))
    replay = lambda: lab.Replay(PLACE, capacity=10_000, warmup=WARMUP)
    ppo = lab.PPO(environments=16, steps=64, batch_size=256, epochs=10, discount=0.95, learning_rate=1e-3, width=64)
    arms = {  # learner, source, updates, updates between evaluations, steps before the first update, steps per update
        "PPO": (ppo, lab.Rollout(PLACE), 100, 5, 0, 16 * 64),
        "TD3": (lab.TD3(**SMALL), replay(), STEPS, 250, WARMUP, 1),
        "SAC": (lab.SAC(**SMALL, policy=squashed()), replay(), STEPS, 250, WARMUP, 1),
        "RLPD": (
            lab.RLPD(**SMALL, members=4, policy_period=1, policy=squashed()),
            lab.Blend((log, replay())),
            STEPS,
            250,
            WARMUP,
            1,
        ),
    }
    curves = {}
    for name, (learner, source, updates, every, before, each) in arms.items():
        run = lab.train(learner, source, steps=updates, seeds=SEEDS, evaluate=task, every=every, episodes=10)
        rows = run.evaluations
        curves[name] = {
            "steps": [before + each * row["step"] for row in rows],
            "values": [row["evaluation"]["score"] for row in rows],
        }
        print(name, [round(float(np.mean(row)), 1) for row in curves[name]["values"]], run.metrics[-1]["seconds"])
    return learning_curves(curves, "score (0 random, 100 the pilot)", across="steps in the environment", logarithmic=True)


def values() -> bytes:
    """What SAC's critic says of every state, and the ways of its policy from hanging down."""
    run = lab.train(lab.SAC(**SMALL, policy=squashed()), lab.Replay(PLACE, capacity=10_000, warmup=WARMUP), steps=STEPS)
    policy, critic = run.policy(seed=0).mode(), run.critic(seed=0)
    angle, speed = np.meshgrid(np.linspace(-np.pi / 2, 5 * np.pi / 2, 271), np.linspace(-8, 8, 121))

    def value(angle: jax.Array, speed: jax.Array) -> jax.Array:
        seen = jnp.stack([jnp.cos(angle), jnp.sin(angle), speed])
        return critic.score(seen, policy.act(seen, None, key=jax.random.key(0))[0])

    field = jax.jit(jax.vmap(value))(jnp.asarray(angle.ravel(), jnp.float32), jnp.asarray(speed.ravel(), jnp.float32))

    def step(state: jax.Array, _: None) -> tuple[jax.Array, jax.Array]:
        seen = jnp.stack([jnp.cos(state[0]), jnp.sin(state[0]), state[1]])
        action = policy.act(seen, None, key=jax.random.key(0))[0]
        return Pendulum().step(state, action, jax.random.key(0))[0], state

    starts = jnp.array([[np.pi - 0.05, 0.0], [np.pi / 2, -1.0], [5 * np.pi / 3, -2.0]])
    ways = np.asarray(jax.jit(jax.vmap(lambda start: jax.lax.scan(step, start, None, length=120)[1]))(starts))
    plt = plotting()
    figure, axes = plt.subplots(figsize=(7.6, 4.3))
    drawn = axes.contourf(np.degrees(angle), speed, np.asarray(field).reshape(angle.shape), levels=20, cmap="cividis")
    figure.colorbar(drawn, ax=axes, label="value: discounted return to come")
    for number, way in enumerate(ways):
        turned = np.degrees(way[:, 0])
        axes.plot(turned, way[:, 1], color=COLOURS[1], linewidth=2, label=None if number else "ways of the policy, 6 s")
        axes.plot(turned[0], way[0, 1], "o", color="#ffffff", markeredgecolor=COLOURS[1], label=None if number else "starts")
    axes.plot(
        [0, 360],
        [0, 0],
        "*",
        color="#ffffff",
        markeredgecolor="#222222",
        markersize=15,
        linestyle="none",
        label="upright, at rest",
    )
    axes.set(
        xlabel="angle from upright (degrees; 180 hangs down)",
        ylabel="speed (rad/s)",
        xticks=(-90, 0, 90, 180, 270, 360, 450),
        xlim=(-90, 450),
    )
    axes.grid(False)
    figure.legend(*axes.get_legend_handles_labels(), loc="lower center", ncols=3, bbox_to_anchor=(0.5, 1.0), frameon=False)
    figure.tight_layout()
    return as_png(figure)


PICTURES = {"learning": learning, "values": values}
