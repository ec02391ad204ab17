"""Hopper, HalfCheetah and Walker2d: Gymnasium's v5 environments on today's MuJoCo, with data by SAC or the user's own.

The reference returns are those that D4RL published for its own environments (Fu et al. 2020, appendix; `infos.py` of its
code). Gymnasium's v5 moves differently, so a score on this scale is comparable between methods here and is not a D4RL score.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from policylab.environments.hosted import Gymnasium
from policylab.tasks.trained import Trained

# name -> id, D4RL's reference returns of a random policy and of its expert.
_TASKS = {
    "hopper": ("Hopper-v5", -20.272305, 3234.3),
    "halfcheetah": ("HalfCheetah-v5", -280.178953, 12135.0),
    "walker2d": ("Walker2d-v5", 1.629008, 4592.3),
}


@dataclass(frozen=True)
class Locomotion(Trained):
    """One robot, 1,000 steps; scores on D4RL's scale from other dynamics."""

    environment_id: str = ""
    low: float = 0.0
    high: float = 1.0

    def environment(self, instance: int = 0) -> Gymnasium:
        """MuJoCo, hosted."""
        return Gymnasium(self.environment_id)

    @property
    def reference(self) -> Mapping[str, float]:
        """D4RL's reference returns, measured by its authors on other dynamics."""
        return {"random": self.low, "expert": self.high}

    @property
    def scale(self) -> str:
        """Whose 0 and 100 these are, and what they are not."""
        return "D4RL's scale, other dynamics"

    @property
    def caution(self) -> str:
        """What reports say beside the scores."""
        return (
            "Scores are on D4RL's scale (0: its random policy, 100: its expert), but from other dynamics: compare them with each "
            "other; they are no D4RL scores."
        )


def load(name: str, title: str) -> Locomotion:
    """The task of that name."""
    environment_id, low, high = _TASKS[name]
    return Locomotion(name, title, environment_id=environment_id, low=low, high=high)
