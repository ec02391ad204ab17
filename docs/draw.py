"""Draw the pictures of the pages, into docs/pictures: `python docs/draw.py`, some minutes; a name as in `... archive` draws one."""

from __future__ import annotations

import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from drawn import agents, exploring, goals, imagining, online, preferences, takeovers, verified

import policylab as lab
from policylab.environments.countdown import CountdownSteps
from policylab.environments.pointmass import PointMass
from policylab.environments.tictactoe import TicTacToe
from policylab.environments.time_limit import TimeLimit
from policylab.evaluation.pictures import card_figure
from policylab.planners.backup import BestEnd, Weighted
from policylab.planners.expansion import Listed, Valued
from policylab.planners.selection import UCT
from policylab.reporting import drawings
from policylab.reporting.searched import searched as draw_searched

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


def arcs(episodes: int = 4_000) -> lab.Recording:
    """Plans of 16 steps that bend to one side or the other, as far as x says."""
    random = np.random.default_rng(1)
    here = random.uniform(0.5, 1, (2 * episodes, 1)).astype(np.float32)
    side = random.choice([-1.0, 1.0], (episodes, 1))
    plan = side * here[::2] * np.sin(np.linspace(0, np.pi, 16)) + 0.03 * random.standard_normal((episodes, 16))
    none = np.zeros(episodes, bool)
    spec = lab.Spec(lab.Box((1,), 0.0, 1.0), lab.Box((16, 1), -1.2, 1.2), horizon=1)
    return lab.Recording(here, plan[..., None].astype(np.float32), None, none, ~none, np.ones(episodes, np.int64), spec)


def denoising() -> bytes:
    """Two heaps of actions."""
    form = lab.Diffusion(width=128, levels=10)
    policy = lab.train(lab.BC(policy=form, learning_rate=1e-3), two_ways(), steps=6_000).policy()
    return drawings.denoising(policy, jnp.array([0.5]), key=KEY)


def denoising_plans() -> bytes:
    """Two bundles of plans."""
    form = lab.Diffusion(width=128, levels=10)
    policy = lab.train(lab.BC(policy=form, learning_rate=1e-3), arcs(), steps=6_000).policy()
    return drawings.denoising(policy, jnp.array([0.8]), samples=60, key=KEY)


def plans() -> bytes:
    """What the cross-entropy method tries in front of an obstacle."""
    world = PointMass(goal=(0.8, 0.0), obstacle=(-0.4, 0.0, 0.15), shaped=True)
    planner = lab.CrossEntropy(world, horizon=20, population=200, spread=0.7)
    seen, memory = jnp.array([-0.8, 0.05]), planner.initial_memory(key=KEY)
    for time in range(3):  # so that there is a plan to start from
        action, memory = planner.act(seen, memory, key=jax.random.fold_in(KEY, time))
        seen = world.step(seen, action, KEY)[1].observation
    return drawings.plans(planner, seen, memory, key=KEY)


def tree() -> bytes:
    """A search from the empty board."""
    game = TicTacToe()
    search = lab.MonteCarloTreeSearch(game, rollouts=20, simulations=150)
    _, seen = game.reset(KEY)
    return drawings.tree(jax.jit(lambda planner, o: planner.search(o, key=KEY))(search, seen[0]))


def searched() -> bytes:
    """A search of ReST-MCTS*, after some rounds of self-training, for numbers that make a target."""
    world = CountdownSteps(3)
    learner = lab.RestMCTSStar(policy=lab.Categorical(width=64), width=64, learning_rate=1e-3)
    products = learner.products(learner.init(world.spec, key=KEY))
    expand = Listed(products["policy"], choices=4)
    search = lab.TreeSearch(world, expand, Valued(products["value"]), UCT(), Weighted(), BestEnd(), rounds=6)
    source = lab.SearchTraces(search, world, problems=256, every=500, values=lab.inferred_values)
    planner = search.using(lab.train(learner, source, steps=4_000).products(seed=0))
    state, seen = world.reset(jax.random.key(3))
    tree = jax.jit(lambda p: p.search(seen, state, key=KEY))(planner)
    whole = lambda tree: f"{' '.join(str(n) for n in state.numbers)} -> {state.target}"
    step = lambda tree, node: world.written(tree.state.numbers[tree.parent[node]], int(tree.action[node]))
    return draw_searched(tree, lambda tree, node: step(tree, node) if node else whole(tree))


def archive() -> bytes:
    """Where MAP-Elites' policies got to behind an obstacle, and what they earned."""
    place = TimeLimit(PointMass(goal=(0.8, 0.0), obstacle=(-0.4, 0.0, 0.15), shaped=True), 30)
    run = lab.train(lab.MapElites(population=50), lab.Rollout(place), steps=60)
    grid = jax.device_get(run.products(seed=0)["archive"])
    there = grid["occupied"].reshape(-1)
    rows = jax.tree.map(lambda leaf: leaf.reshape(len(there), *leaf.shape[grid["occupied"].ndim :])[there], grid["elites"])
    return drawings.archive(rows.view, rows.fitness, names=("0: x at the end", "1: y at the end"))


def card() -> bytes:
    """The data in which no episode goes from start to goal."""
    recording = lab.load_task("pointmaze/umaze").dataset("mixed")
    return card_figure(lab.diagnose(recording), recording)


PICTURES = {
    "denoising": denoising, "denoising-plans": denoising_plans, "plans": plans, "tree": tree, "searched": searched, "archive": archive,
    "card": card,
    **online.PICTURES, **takeovers.PICTURES, **goals.PICTURES, **imagining.PICTURES, **preferences.PICTURES, **agents.PICTURES,
    **exploring.PICTURES, **verified.PICTURES,
}  # fmt: skip


def main() -> None:
    """Those that are named, or all."""
    for name in sys.argv[1:] or PICTURES:
        (FOLDER / f"{name}.png").write_bytes(PICTURES[name]())


if __name__ == "__main__":
    main()
