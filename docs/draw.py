"""Draw the pictures of the pages on forms and planners, into docs/pictures: `python docs/draw.py`, a minute."""

from __future__ import annotations

from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

import policylab as lab
from policylab.environments.pointmass import PointMass
from policylab.environments.tictactoe import TicTacToe
from policylab.reporting import drawings

FOLDER = Path(__file__).parent / "pictures"
KEY = jax.random.key(0)


def two_ways(episodes: int = 4_000) -> lab.Recording:
    """Whoever stands at x has to go around: by (1, x) or by (-1, x), each with half of the chance."""
    random = np.random.default_rng(0)
    here = random.uniform(-1, 1, (2 * episodes, 1)).astype(np.float32)
    side = random.choice([-0.7, 0.7], episodes)
    action = np.stack([side, here[::2, 0]], axis=1) + 0.05 * random.standard_normal((episodes, 2))
    none = np.zeros(episodes, bool)
    spec = lab.Spec(lab.Box((1,), -1.0, 1.0), lab.Box((2,), -1.0, 1.0), horizon=1)
    return lab.Recording(here, action.astype(np.float32), None, none, ~none, np.ones(episodes, np.int64), spec)


def main() -> None:
    """All three."""
    form = lab.Diffusion(width=128, levels=10)
    policy = lab.train(lab.BC(policy=form, learning_rate=1e-3), two_ways(), steps=6_000).policy()
    (FOLDER / "denoising.png").write_bytes(drawings.denoising(policy, jnp.array([0.5]), key=KEY))
    world = PointMass(goal=(0.8, 0.0), obstacle=(-0.4, 0.0, 0.15), shaped=True)
    planner = lab.CrossEntropy(world, horizon=20, population=200, spread=0.7)
    seen, memory = jnp.array([-0.8, 0.05]), planner.initial_memory(key=KEY)
    for time in range(3):  # so that there is a plan to start from
        action, memory = planner.act(seen, memory, key=jax.random.fold_in(KEY, time))
        seen = world.step(seen, action, KEY)[1].observation
    (FOLDER / "plans.png").write_bytes(drawings.plans(planner, seen, memory, key=KEY))
    game = TicTacToe()
    search = lab.MonteCarloTreeSearch(game, rollouts=20, simulations=150)
    _, seen = game.reset(KEY)
    found = jax.jit(lambda planner, o: planner.search(o, key=KEY))(search, seen[0])
    (FOLDER / "tree.png").write_bytes(drawings.tree(found))


if __name__ == "__main__":
    main()
