"""Any environment of Gymnasium or envpool as a task of its own: no datasets and no reference scores, so its scores are its returns."""

from __future__ import annotations

from dataclasses import dataclass, replace

from policylab.environment import Environment
from policylab.environments.envpool import PREFIX, EnvPool
from policylab.environments.hosted import Gymnasium
from policylab.errors import BadInput
from policylab.task import Task


@dataclass(frozen=True)
class InEnvironment(Task):
    """The registered environment of that id, time limit included, as envpool has it for `envpool:ID`; `horizon` (in steps) is for those
    that have none."""

    environment_id: str = ""
    horizon: int = 0

    def environment(self, instance: int = 0) -> Environment:
        """The environment itself; there is one instance."""
        if self.environment_id.startswith(PREFIX):
            return EnvPool(self.environment_id.removeprefix(PREFIX), horizon=self.horizon)
        return Gymnasium(self.environment_id, horizon=self.horizon)

    @staticmethod
    def of(environment_id: str, horizon: int = 0) -> InEnvironment:
        """The task of one environment. Raises `BadInput` for an unknown id, or where neither it nor you limit its time."""
        task = InEnvironment(environment_id, f"{environment_id}, returns as they are", environment_id)
        if task.spec.horizon:
            return task
        if not horizon:
            raise BadInput(
                f"{environment_id} has no time limit, so that an episode may never end: register it with one, or say how long with "
                "--horizon where a command takes it"
            )
        return replace(task, horizon=horizon)
