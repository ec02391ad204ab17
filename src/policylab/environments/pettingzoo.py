"""Games of PettingZoo's parallel API, played inside the compiled loop as joint processes."""

from __future__ import annotations

import functools
from collections import OrderedDict
from collections.abc import Callable
from typing import Any

import gymnasium
import numpy as np

from policylab.environments.hosted import Gymnasium
from policylab.environments.joint import GAINED, PLAYING
from policylab.errors import BadInput

_LARGEST = np.finfo(np.float32).max


class PettingZoo(Gymnasium):
    """A game of PettingZoo's parallel API, made by a function without arguments, as one process of all its players, just as `Joint` makes one
    of our own games: observations and actions are dicts by agent, with the parts `playing` and `gained` beside them, and the reward is the
    sum of the agents'. It is hosted like a `Gymnasium` environment, whose words on keys, `horizon` and `control_rate` hold here, too.

    An agent that has left (its termination, or its truncation while others go on) keeps its last observation, gets no reward, and its
    actions go nowhere. Agents may differ in their spaces; learners that want alike ones say so.

    Raises `BadInput` where the function makes something else, for fewer than two agents, and where agents come in later.
    """

    def __init__(self, make: Callable[[], Any], *, horizon: int = 0, control_rate: float = 0.0) -> None:
        Gymnasium.__init__(self, _together(make), horizon=horizon, control_rate=control_rate)


@functools.cache
def _together(make: Callable[[], Any]) -> Callable[[], gymnasium.Env]:
    """One function for each maker, so that games that are made the same way share one host."""

    def build(**extra: Any) -> gymnasium.Env:
        return Seats(make())

    build.__name__ = getattr(make, "__name__", "game")
    return build


class Seats(gymnasium.Env):
    """A parallel game as a Gymnasium environment over dicts by agent."""

    def __init__(self, game: Any) -> None:
        try:
            from pettingzoo import ParallelEnv
        except ImportError as error:
            raise BadInput("games of PettingZoo need it installed: pip install pettingzoo") from error
        if not isinstance(game, ParallelEnv):
            raise BadInput(
                f"PettingZoo plays its parallel API and this is a {type(game).__name__}: give a function that makes a ParallelEnv"
                " (an AEC game becomes one by pettingzoo.utils.aec_to_parallel)"
            )
        self.game = game
        self.agents = tuple(str(agent) for agent in game.possible_agents)
        if len(self.agents) < 2 or {PLAYING, GAINED} & set(self.agents):
            raise BadInput(f"the game has the agents {', '.join(self.agents) or 'none'}: it takes two or more, of other names")
        seats = {
            PLAYING: gymnasium.spaces.Box(0.0, 1.0, (len(self.agents),), np.float32),
            GAINED: gymnasium.spaces.Box(-_LARGEST, _LARGEST, (len(self.agents),), np.float32),
        }
        seen = OrderedDict((agent, game.observation_space(agent)) for agent in self.agents)
        self.observation_space = gymnasium.spaces.Dict(OrderedDict(seen | seats))
        self.action_space = gymnasium.spaces.Dict(OrderedDict((agent, game.action_space(agent)) for agent in self.agents))
        self.render_mode = getattr(game, "render_mode", None)

    def _shown(self, gained: dict[str, float]) -> dict[str, Any]:
        rewards = np.array([gained.get(agent, 0.0) for agent in self.agents], np.float32)
        return {**self.last, PLAYING: self.playing.astype(np.float32), GAINED: rewards}

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[dict[str, Any], dict]:
        """Everybody plays."""
        observations, _ = self.game.reset(seed=seed, options=options)
        absent = [agent for agent in self.agents if agent not in observations]
        if absent:
            raise BadInput(
                f"the agent {absent[0]!r} does not play from the beginning: only games whose agents all do can be played"
            )
        self.last = {agent: observations[agent] for agent in self.agents}
        self.playing = np.ones(len(self.agents), bool)
        return self._shown({}), {}

    def step(self, action: dict[str, Any]) -> tuple[dict[str, Any], float, bool, bool, dict]:
        """All who play move at once."""
        before = self.playing
        acting = [agent for agent, plays in zip(self.agents, before, strict=True) if plays]
        observations, rewards, ended, late, _ = self.game.step({agent: action[agent] for agent in acting})
        self.last = {**self.last, **{agent: observations[agent] for agent in acting if agent in observations}}
        gone = np.array([bool(ended.get(agent, False)) for agent in self.agents])
        timed = np.array([bool(late.get(agent, False)) for agent in self.agents]) & ~gone
        stays = before & ~gone & ~timed
        by_clock = not stays.any() and bool((timed == before).all())
        self.playing = before if by_clock else stays
        gained = {agent: float(rewards.get(agent, 0.0)) for agent in acting}
        return self._shown(gained), sum(gained.values()), not stays.any() and not by_clock, by_clock, {}

    def render(self) -> Any:
        """As the game draws itself."""
        return self.game.render()

    def close(self) -> None:
        """Close the game."""
        self.game.close()
