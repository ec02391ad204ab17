"""Gymnasium environments whose simulator steps are finer than decisions need to be."""

from __future__ import annotations

from typing import Any

import gymnasium


class Held(gymnasium.Wrapper):
    """Holds every action for `steps` simulator steps, or until the episode ends; the reward is what these steps gave in sum."""

    def __init__(self, env: gymnasium.Env, steps: int) -> None:
        gymnasium.Wrapper.__init__(self, env)
        self.steps = steps

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        """The last observation, the summed reward, whether it ended, and the last info."""
        total = 0.0
        for _ in range(self.steps):
            observation, reward, terminal, truncated, info = self.env.step(action)
            total += float(reward)
            if terminal or truncated:
                break
        return observation, total, terminal, truncated, info


class Hurried(gymnasium.Wrapper):
    """A reward of -1 for every step that does not end the episode by itself, and 0 for the one that does."""

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        """As the environment inside, with the other reward."""
        observation, _, terminal, truncated, info = self.env.step(action)
        return observation, 0.0 if terminal else -1.0, terminal, truncated, info
