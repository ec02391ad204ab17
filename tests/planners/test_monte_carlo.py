"""Tree search against exact minimax and exact values."""

from __future__ import annotations

from functools import cache

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from policylab.environments import exact
from policylab.environments.cartpole import CartPole
from policylab.environments.finite import gridworld
from policylab.environments.pendulum import Pendulum
from policylab.environments.tictactoe import LINES, Board, TicTacToe, _views
from policylab.errors import BadInput
from policylab.planners.monte_carlo import MonteCarloTreeSearch

KEY = jax.random.key(0)
GAME = TicTacToe()


def won(cells: tuple[int, ...], player: int) -> bool:
    return any(all(cells[i] == player for i in line) for line in LINES)


@cache
def minimax(cells: tuple[int, ...]) -> int:
    """What the player to move gets with best play on both sides."""
    mover = sum(c > 0 for c in cells) % 2 + 1
    if won(cells, 3 - mover):
        return -1
    free = [i for i, c in enumerate(cells) if c == 0]
    return max((-minimax((*cells[:i], mover, *cells[i + 1 :])) for i in free), default=0)


def positions(least: int, most: int) -> list[tuple[int, ...]]:
    """All positions with this many marks that play reaches and that are not over."""
    found, layer = [], {(0,) * 9}
    for marks in range(most + 1):
        open_ = sorted(c for c in layer if not won(c, 1) and not won(c, 2) and 0 in c)
        found += open_ if marks >= least else []
        mover = marks % 2 + 1
        layer = {(*c[:i], mover, *c[i + 1 :]) for c in open_ for i in range(9) if c[i] == 0}
    return found


def seen(cells: np.ndarray) -> jax.Array:
    """What the players to move see, [position, 27]."""
    return jax.vmap(lambda c: _views(Board(c))[Board(c).mover])(jnp.asarray(cells))


def test_the_game_follows_its_rules():
    assert minimax((0,) * 9) == 0  # known: a draw
    assert len(positions(0, 8)) == 4520  # known: 5478 positions, 958 of them over
    known = positions(4, 8)[::7]
    boards, cells = jax.vmap(Board)(jnp.asarray(known)), jnp.arange(9)
    every = jax.vmap(lambda board: jax.vmap(lambda cell: GAME.step(board, jnp.full(2, cell), KEY)[1])(cells))
    reward, terminal = jax.jit(lambda boards: (every(boards).reward, every(boards).terminal))(boards)
    reward, terminal = np.asarray(reward), np.asarray(terminal)
    for i, before in enumerate(known):
        mover, other = sum(c > 0 for c in before) % 2, 1 - sum(c > 0 for c in before) % 2
        for cell in range(9):
            after = (*before[:cell], mover + 1, *before[cell + 1 :])
            outcome = -1 if before[cell] else int(won(after, mover + 1))
            assert (reward[i, cell, mover], reward[i, cell, other]) == (outcome, -outcome)
            assert terminal[i, cell].all() == terminal[i, cell].any() == (outcome != 0 or 0 not in after)
    views = jax.vmap(_views)(boards)
    np.testing.assert_array_equal(jax.vmap(lambda v, b: GAME.at(v[b.mover]).cells)(views, boards), known)
    np.testing.assert_array_equal(jax.vmap(GAME.at)(views).cells, known)


def test_with_enough_simulations_late_positions_are_played_and_valued_as_minimax_does():
    cells = np.array(positions(5, 8)[::53])
    planner = MonteCarloTreeSearch(GAME, simulations=250, first_constant=2.0)
    found = jax.jit(jax.vmap(lambda o, k: (planner.act(o, None, key=k)[0], planner.search(o, key=k).value)))(
        seen(cells), jax.random.split(KEY, len(cells))
    )
    wrong = 0
    for position, action in zip(map(tuple, cells.tolist()), np.asarray(found[0]), strict=True):
        mover = sum(c > 0 for c in position) % 2 + 1
        assert position[action] == 0, "a taken cell was chosen"
        wrong += -minimax((*position[:action], mover, *position[action + 1 :])) != minimax(position)
    assert wrong == 0, f"{wrong} of {len(cells)} moves give something away"
    values = np.array([minimax(tuple(c)) for c in cells.tolist()])
    assert np.corrcoef(values, found[1])[0, 1] > 0.95


def test_random_games_guide_the_opening_and_a_search_alone_equals_one_in_a_batch():
    cells = np.array(positions(3, 4))[::90]
    planner = MonteCarloTreeSearch(GAME, simulations=100, rollouts=2, depth=6)
    keys = jax.random.split(KEY, len(cells))
    act = lambda o, k: planner.act(o, None, key=k)[0]
    moves = np.asarray(jax.jit(jax.vmap(act))(seen(cells), keys))
    given_away = 0
    for position, action in zip(map(tuple, cells.tolist()), moves, strict=True):
        mover = sum(c > 0 for c in position) % 2 + 1
        given_away += -minimax((*position[:action], mover, *position[action + 1 :])) < minimax(position)
    assert given_away <= len(cells) // 10  # uniformly random moves give something away in about half of them
    assert int(jax.jit(act)(seen(cells)[0], keys[0])) == moves[0]


def test_one_player_finds_the_optimal_policy_of_a_gridworld():
    world = gridworld(("S..", ".#.", "..G"), slip=0.0, step_reward=-1.0, goal_reward=-1.0)
    table = exact.optimal_values(world)
    values = np.where(world.terminal, 0.0, table.max(axis=1))
    planner = MonteCarloTreeSearch(
        world, discount=world.discount, simulations=200, value=lambda s: jnp.asarray(values, jnp.float32)[s]
    )
    states = np.flatnonzero(~np.asarray(world.terminal))
    search = jax.jit(jax.vmap(lambda s, k: planner.search(s, key=k)))(
        jnp.asarray(states, jnp.int32), jax.random.split(KEY, len(states))
    )
    for row, state in enumerate(states):
        best = np.isclose(table[state], table[state].max(), atol=1e-4)
        assert best[np.argmax(search.visits[row])]
        assert values[state] - 1.0 < search.value[row] < values[state] + 1e-3  # a mean over the tree, exploration included


def test_root_noise_and_temperature_spread_the_choices():
    empty = seen(np.zeros((1, 9), int))[0]
    play = lambda planner: np.bincount(
        jax.jit(jax.vmap(lambda k: planner.act(empty, None, key=k)[0]))(jax.random.split(KEY, 64)), minlength=9
    )
    assert (play(MonteCarloTreeSearch(GAME, simulations=30, temperature=1.0)) > 0).sum() >= 8
    assert (play(MonteCarloTreeSearch(GAME, simulations=30, temperature=1.0, exploration=0.5).mode()) > 0).sum() == 1


def test_what_cannot_be_searched_is_said():
    with pytest.raises(BadInput, match="listed choices"):
        MonteCarloTreeSearch(Pendulum())
    with pytest.raises(BadInput, match="at least one simulation"):
        MonteCarloTreeSearch(CartPole(), simulations=0)
