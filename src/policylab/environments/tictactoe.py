"""Tic-tac-toe: the smallest two-player game, solved exactly by minimax in the tests of whoever plays it."""

from __future__ import annotations

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int, PRNGKeyArray, UInt8

from policylab.environment import Environment, Step
from policylab.environments.drawing import Canvas
from policylab.experience import Spec
from policylab.spaces import Box, Discrete

LINES = np.array([[0, 1, 2], [3, 4, 5], [6, 7, 8], [0, 3, 6], [1, 4, 7], [2, 5, 8], [0, 4, 8], [2, 4, 6]])


class Board(eqx.Module):
    """`cells` hold 0 (empty), 1 (cross) or 2 (nought); cross moves first, so the number of marks says whose turn it is."""

    cells: Int[Array, "9"]

    @property
    def mover(self) -> Int[Array, ""]:
        """0 for cross, 1 for nought."""
        return jnp.sum(self.cells > 0) % 2

    def wins(self, player: Int[Array, ""] | int) -> Bool[Array, ""]:
        """Whether that player has three in a row."""
        return jnp.any(jnp.all(self.cells[LINES] == player + 1, axis=1))


class TicTacToe(Environment):
    """Two players with one leading axis: observations [player, 27], actions and rewards [player].

    A player sees, cell by cell, whether it is empty, its own or the other's. Only the mover's action counts. Whoever completes
    three in a row gets 1 and the other -1; a full board ends the game at 0. `available` says which cells are free; marking a taken
    one loses the game at once.
    """

    @property
    def spec(self) -> Spec:
        """The spaces of one player, and the names of both."""
        return Spec(
            Box((27,), 0.0, 1.0),
            Discrete(9),
            reward_shape=(2,),
            roles=("cross", "nought"),
            horizon=9,
            environment="tic-tac-toe",
        )

    def reset(self, key: PRNGKeyArray) -> tuple[Board, Float[Array, "2 27"]]:
        """An empty board."""
        board = Board(jnp.zeros(9, jnp.int32))
        return board, _views(board)

    def step(self, state: Board, action: Int[Array, "2"], key: PRNGKeyArray) -> tuple[Board, Step]:
        """The mover marks a cell; the key is not used."""
        mover, cell = state.mover, action[state.mover]
        taken = state.cells[cell] > 0
        board = Board(state.cells.at[cell].set(jnp.where(taken, state.cells[cell], mover + 1)))
        won = board.wins(mover)
        outcome = jnp.where(taken, -1.0, jnp.where(won, 1.0, 0.0))
        reward = jnp.where(jnp.arange(2) == mover, outcome, -outcome)
        over = jnp.broadcast_to(taken | won | jnp.all(board.cells > 0), (2,))
        return board, Step(_views(board), reward, over, jnp.zeros(2, bool), available=self.available(board))

    def available(self, state: Board) -> Bool[Array, "9"]:
        """The free cells."""
        return state.cells == 0

    def turn(self, state: Board) -> Bool[Array, "2"]:
        """Whose move it is."""
        return jnp.arange(2) == state.mover

    def at(self, observation: Float[Array, "*player 27"]) -> Board:
        """The board that the player to move sees so (or that both see, [2, 27])."""
        view = observation.reshape(-1, 9, 3)[0]
        marks = jnp.argmax(view, axis=-1)
        mover = jnp.sum(marks > 0) % 2
        # Both views begin with cross's; a single view is that of the player to move.
        swapped = (mover == 1) & (observation.ndim == 1)
        return Board(jnp.where(swapped, (3 - marks) * (marks > 0), marks).astype(jnp.int32))

    def picture(self, observation: np.ndarray) -> UInt8[np.ndarray, "height width 3"]:
        """The board, crosses in blue and noughts in red."""
        canvas = Canvas(-0.2, -0.2, 3.2, 3.2)
        for i in (1.0, 2.0):
            canvas.line([(i, 0.0), (i, 3.0)], "#888888", 0.04)
            canvas.line([(0.0, i), (3.0, i)], "#888888", 0.04)
        for cell, mark in enumerate(np.asarray(jax.device_get(self.at(jnp.asarray(observation)).cells))):
            x, y = cell % 3 + 0.5, 2.5 - cell // 3
            if mark == 1:
                canvas.line([(x - 0.3, y - 0.3), (x + 0.3, y + 0.3)], "#3465a4", 0.1)
                canvas.line([(x - 0.3, y + 0.3), (x + 0.3, y - 0.3)], "#3465a4", 0.1)
            elif mark == 2:
                canvas.circle((x, y), 0.32, "#cc3333")
                canvas.circle((x, y), 0.22, "#ffffff")
        return canvas.pixels()


def _views(board: Board) -> Float[Array, "2 27"]:
    cross = jax.nn.one_hot(board.cells, 3)
    nought = cross[:, jnp.array([0, 2, 1])]
    return jnp.stack([cross.reshape(-1), nought.reshape(-1)])
