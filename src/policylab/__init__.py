"""policylab: decision policies over one small set of nouns. `import policylab as lab`; every public name is listed here."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

# Name -> module. Nothing heavy is imported before it is needed, so that `policylab --help` answers at once.
_PUBLIC = {
    "BadInput": "errors",
    "Diverged": "errors",
    "Unsupported": "errors",
    "Box": "spaces",
    "Discrete": "spaces",
    "Composite": "spaces",
    "Spec": "experience",
    "Statistics": "experience",
    "Window": "experience",
    "Tokens": "experience",
    "Rated": "experience",
    "Preference": "experience",
    "Trials": "experience",
    "setting": "hyperparameters",
    "settings": "hyperparameters",
    "Policy": "policy",
    "Form": "policy",
    "Environment": "environment",
    "Step": "environment",
    "Episodes": "environment",
    "unroll": "environment",
    "World": "world",
    "Scorer": "scorer",
    "Source": "source",
    "Task": "task",
    "Learner": "learner",
    "Clock": "learner",
    "Goals": "learner",
    "Request": "learner",
    "Steps": "learner",
    "Windows": "learner",
    "WholeEpisodes": "learner",
    "Everything": "learner",
    "Pairs": "learner",
    "Sometimes": "learner",
    "Each": "learner",
    "Recording": "data.recording",
    "recording_from_steps": "data.recording",
    "load_data": "data.loading",
    "save_data": "data.loading",
    "convert_data": "data.loading",
    "Encoder": "data.encoding",
    "Deterministic": "policies.deterministic",
    "Gaussian": "policies.gaussian",
    "Categorical": "policies.categorical",
    "Mixture": "policies.mixture",
    "Diffusion": "policies.diffusion",
    "Energy": "policies.energy",
    "Flow": "policies.flow",
    "Tabular": "policies.tabular",
    "Product": "policies.product",
    "RandomShooting": "planners.shooting",
    "CrossEntropy": "planners.cross_entropy",
    "PathIntegral": "planners.path_integral",
    "MonteCarloTreeSearch": "planners.monte_carlo",
    "Rerank": "planners.rerank",
    "Dataset": "sources.dataset",
    "StreamedDataset": "sources.streamed",
    "Rollout": "sources.rollout",
    "Replay": "sources.replay",
    "BC": "learners.imitation.bc",
    "PercentBC": "learners.imitation.percent_bc",
    "TD3BC": "learners.offline.td3_bc",
    "AWAC": "learners.offline.awac",
    "IQL": "learners.offline.iql",
    "CQL": "learners.offline.cql",
    "RIQL": "learners.offline.riql",
    "PRDC": "learners.offline.prdc",
    "A2PR": "learners.offline.a2pr",
    "COCOA": "learners.offline.cocoa",
    "EnsembleDynamics": "learners.worldmodel.ensemble",
    "DynamicsEnsemble": "worlds.ensemble",
    "SINDy": "learners.worldmodel.sparse",
    "SparseDynamics": "worlds.sparse",
    "ReBRAC": "learners.offline.rebrac",
    "DQN": "learners.offline.dqn",
    "DiscreteBCQ": "learners.offline.bcq_discrete",
    "DiscreteCQL": "learners.offline.cql_discrete",
    "QRDQN": "learners.offline.qr_dqn",
    "RewardRegression": "learners.offline.reward_regression",
    "SoftmaxRegression": "learners.offline.reward_regression",
    "IPW": "learners.offline.policy_optimisation",
    "DoublyRobust": "learners.offline.policy_optimisation",
    "A2C": "learners.online.a2c",
    "PPO": "learners.online.ppo",
    "REINFORCE": "learners.online.reinforce",
    "SAC": "learners.online.sac",
    "TD3": "learners.online.td3",
    "ValueIteration": "learners.theory.value_iteration",
    "QLearning": "learners.theory.q_learning",
    "FiniteModel": "sources.finite_model",
    "compare": "comparing",
    "Comparison": "comparison",
    "Grid": "tuning",
    "FQE": "learners.offline.fqe",
    "reproduce": "evaluation.reproduction",
    "load_task": "tasks",
    "collect": "collecting",
    "rounds": "repeating",
    "UniformRandom": "policies.uniform",
    "diagnose": "evaluation.diagnosis",
    "solve": "solving",
    "check": "conformance.suite",
    "train": "training",
    "Stage": "training",
    "Run": "runs",
    "PerSeed": "runs",
    "load_run": "runs",
    "load_policy": "runs",
    "load_product": "runs",
}

if TYPE_CHECKING:
    from policylab.errors import BadInput as BadInput
    from policylab.training import train as train

__all__ = ["__version__", *_PUBLIC]


def __getattr__(name: str) -> Any:
    if name not in _PUBLIC:
        raise AttributeError(f"policylab has no {name!r}")
    value = getattr(importlib.import_module(f"policylab.{_PUBLIC[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
