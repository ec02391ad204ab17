"""Any Gymnasium environment as a task of its own: no datasets and no reference scores, so its scores are its returns."""

from __future__ import annotations

from dataclasses import dataclass

from policylab.environments.hosted import Gymnasium
from policylab.errors import BadInput
from policylab.task import Task


@dataclass(frozen=True)
class InEnvironment(Task):
    """The registered environment of that id, time limit included."""

    environment_id: str = ""

    def environment(self, instance: int = 0) -> Gymnasium:
        """The environment itself; there is one instance."""
        return Gymnasium(self.environment_id)

    @staticmethod
    def of(environment_id: str) -> InEnvironment:
        """The task of one environment. Raises `BadInput` for an id that is unknown or an environment without time limit."""
        task = InEnvironment(environment_id, f"{environment_id}, returns as they are", environment_id)
        if not task.spec.horizon:
            raise BadInput(f"{environment_id} has no time limit, so that an episode may never end: register it with one")
        return task
