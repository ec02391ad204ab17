"""Where everything that has a name lives: learners, forms and tasks by name, imported only when asked for."""

from __future__ import annotations

import dataclasses
import importlib
import importlib.util
import inspect
from pathlib import Path
from typing import Any

from policylab.errors import BadInput

LEARNERS = {
    # name: (module below policylab.learners, class)
    "bc": ("imitation.bc", "BC"),
    "sft": ("imitation.sft", "SFT"),
    "percent-bc": ("imitation.percent_bc", "PercentBC"),
    "diffusion-policy": ("imitation.diffusion_policy", "DiffusionCloning"),
    "goal-conditioned": ("imitation.goal_conditioned", "GoalConditioned"),
    "beso": ("imitation.beso", "BESO"),
    "sequencematch": ("imitation.sequencematch", "SequenceMatch"),
    "hilp": ("representation.hilp", "HILP"),
    "td3-bc": ("offline.td3_bc", "TD3BC"),
    "awac": ("offline.awac", "AWAC"),
    "decision-transformer": ("offline.decision_transformer", "DecisionTransformer"),
    "iql": ("offline.iql", "IQL"),
    "idql": ("offline.idql", "IDQL"),
    "cql": ("offline.cql", "CQL"),
    "riql": ("offline.riql", "RIQL"),
    "prdc": ("offline.prdc", "PRDC"),
    "a2pr": ("offline.a2pr", "A2PR"),
    "cocoa": ("offline.cocoa", "COCOA"),
    "doc": ("offline.doc", "DichotomyOfControl"),
    "return-conditioned": ("offline.return_conditioned", "ReturnConditioned"),
    "rebrac": ("offline.rebrac", "ReBRAC"),
    "dqn": ("offline.dqn", "DQN"),
    "bcq": ("offline.bcq_discrete", "DiscreteBCQ"),
    "cql-discrete": ("offline.cql_discrete", "DiscreteCQL"),
    "qr-dqn": ("offline.qr_dqn", "QRDQN"),
    "reward-regression": ("offline.reward_regression", "RewardRegression"),
    "softmax-regression": ("offline.reward_regression", "SoftmaxRegression"),
    "ipw": ("offline.policy_optimisation", "IPW"),
    "doubly-robust": ("offline.policy_optimisation", "DoublyRobust"),
    "ensemble-dynamics": ("worldmodel.ensemble", "EnsembleDynamics"),
    "sindy": ("worldmodel.sparse", "SINDy"),
    "pets": ("worldmodel.pets", "PETS"),
    "dyna": ("worldmodel.dyna", "Dyna"),
    "mbpo": ("worldmodel.mbpo", "MBPO"),
    "mopo": ("offline.mopo", "MOPO"),
    "vagram": ("worldmodel.vagram", "VaGraM"),
    "sindy-anew": ("worldmodel.sindy_rl", "SINDyAnew"),
    "sindy-rl": ("worldmodel.sindy_rl", "SINDyRL"),
    "edac": ("offline.edac", "EDAC"),
    "ravl": ("offline.ravl", "RAVL"),
    "a2c": ("online.a2c", "A2C"),
    "ppo": ("online.ppo", "PPO"),
    "reinforce": ("online.reinforce", "REINFORCE"),
    "sac": ("online.sac", "SAC"),
    "rlpd": ("online.rlpd", "RLPD"),
    "rlif": ("online.rlif", "RLIF"),
    "pmoe": ("online.pmoe", "PMoE"),
    "props": ("online.props", "PROPS"),
    "td3": ("online.td3", "TD3"),
    "ddpg": ("online.ddpg", "DDPG"),
    "novelty-search": ("evolution.novelty_search", "NoveltySearch"),
    "map-elites": ("evolution.map_elites", "MapElites"),
    "serene": ("evolution.serene", "SERENE"),
    "clam": ("multiagent.clam", "CLAM"),
    "history-ppo": ("multiagent.history_ppo", "HistoryPPO"),
    "reconstructing": ("multiagent.reconstructing", "Reconstructing"),
    "independent": ("multiagent.independent", "Independent"),
    "members": ("nested.members", "Members"),
    "alternate": ("nested.alternate", "Alternate"),
    "value-iteration": ("theory.value_iteration", "ValueIteration"),
    "q-learning": ("theory.q_learning", "QLearning"),
    "ucbvi": ("theory.ucbvi", "UCBVI"),
    "stepmix": ("theory.stepmix", "StepMix"),
    "eps-mix": ("theory.eps_mix", "EpsMix"),
    "fit": ("imitation.fit", "Fit"),
    "dpo": ("preference.dpo", "DPO"),
    "kto": ("preference.kto", "KTO"),
    "copg": ("preference.copg", "CoPG"),
    "implicit-prm": ("preference.implicit_prm", "ImplicitPRM"),
    "inpo": ("preference.inpo", "INPO"),
    "gpo": ("preference.gpo", "GPO"),
    "iterated": ("preference.iterated", "Iterated"),
    "oreal": ("reasoning.oreal", "OREAL"),
    "token-ppo": ("reasoning.token_ppo", "TokenPPO"),
    "rest-mcts-star": ("reasoning.rest_mcts_star", "RestMCTSStar"),
    "group-policy-gradient": ("reasoning.policy_gradient", "GroupPolicyGradient"),
}

FORMS = {
    # class: module below policylab.policies
    "Deterministic": "deterministic",
    "Gaussian": "gaussian",
    "Categorical": "categorical",
    "Mixture": "mixture",
    "Diffusion": "diffusion",
    "Flow": "flow",
    "Energy": "energy",
    "Chunk": "chunk",
    "Sequence": "sequence",
    "Receding": "receding",
    "UNetDiffusion": "denoisers",
    "TransformerDiffusion": "denoisers",
    "Tabular": "tabular",
    "Product": "product",
    "LogLinear": "log_linear",
}

TEXT_FORMS = {
    # the same, of forms for texts alone
    "Language": "language",
    "LoRA": "lora",
    "Backtracking": "backtracking",
}

WORLDS = {
    # class of a world's shape: module below policylab.worlds
    "DynamicsEnsemble": "ensemble",
    "SparseDynamics": "sparse",
    "EndingEnsemble": "ending",
    "EndingSparse": "ending",
}

SCORERS = {
    # class of a fitted scorer's shape: module below policylab.scorers
    "BradleyTerry": "bradley_terry",
    "GeneralPreference": "general_preference",
    "Pairwise": "pairwise",
    "TextRewards": "text_reward",
    "ProcessRewards": "process_reward",
}

DESCRIPTORS = {
    # class of what is kept of a policy's episodes: module below policylab.learners.evolution
    "LastPlace": "descriptors",
    "Autoencoded": "descriptors",
}


def learner_class(name: str) -> type:
    """The learner class of that name, or of the user's own `file.py:Class`."""
    if ":" in name:
        return _class_in_file(*name.rsplit(":", 1))
    if name not in LEARNERS:
        raise BadInput(f"there is no learner {name!r}: choose one of {', '.join(LEARNERS)}, or name your own as mine.py:Mine")
    module, cls = LEARNERS[name]
    return getattr(importlib.import_module(f"policylab.learners.{module}"), cls)


def _class_in_file(file: str, cls: str) -> type:
    path = Path(file)
    if not path.is_file():
        raise BadInput(f"there is no file {file}: name a learner as path/to/file.py:Class")
    specification = importlib.util.spec_from_file_location(path.stem, path)
    assert specification is not None
    assert specification.loader is not None
    module = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(module)
    if not inspect.isclass(getattr(module, cls, None)):
        raise BadInput(
            f"{file} has no class {cls!r}: it has {', '.join(n for n, v in vars(module).items() if inspect.isclass(v))}"
        )
    return getattr(module, cls)


def form_class(name: str) -> type:
    """The form class of that name, of a policy, of a world, of a scorer or of a descriptor."""
    if name in DESCRIPTORS:
        return getattr(importlib.import_module(f"policylab.learners.evolution.{DESCRIPTORS[name]}"), name)
    if name in WORLDS:
        return getattr(importlib.import_module(f"policylab.worlds.{WORLDS[name]}"), name)
    if name in SCORERS:
        return getattr(importlib.import_module(f"policylab.scorers.{SCORERS[name]}"), name)
    forms = {**FORMS, **TEXT_FORMS}
    if name not in forms:
        raise BadInput(f"there is no policy form {name!r}: choose one of {', '.join(forms)}")
    return getattr(importlib.import_module(f"policylab.policies.{forms[name]}"), name)


def name_of(learner: Any) -> str:
    """The registered name of a learner, or its class name."""
    for name, (_, cls) in LEARNERS.items():
        if cls == type(learner).__name__:
            return name
    return type(learner).__name__


def to_json(value: Any) -> Any:
    """A learner or form as JSON: its name and its fields; tuples become lists."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        fields = {f.name: to_json(getattr(value, f.name)) for f in dataclasses.fields(value)}
        kind = "form" if type(value).__name__ in {**FORMS, **TEXT_FORMS, **WORLDS, **SCORERS, **DESCRIPTORS} else "learner"
        return {kind: type(value).__name__ if kind == "form" else name_of(value), "fields": fields}
    if isinstance(value, tuple | list):
        return [to_json(item) for item in value]
    if isinstance(value, dict):
        return {key: to_json(item) for key, item in value.items()}
    if value is None or isinstance(value, bool | int | float | str):
        return value
    return float(value)


def from_json(document: Any, *, learner: Any = None) -> Any:
    """The learner or form that `to_json` described; looks classes up in the registries and nowhere else."""
    if isinstance(document, list):
        return tuple(from_json(item) for item in document)
    if isinstance(document, dict) and "form" in document:
        return form_class(document["form"])(**{k: from_json(v) for k, v in document["fields"].items()})
    if isinstance(document, dict) and "learner" in document:
        if document["learner"] not in LEARNERS:
            raise BadInput(f"{document['learner']} is a learner of your own: give it, as in load_run(path, learner=Mine())")
        return learner_class(document["learner"])(**{k: from_json(v) for k, v in document["fields"].items()})
    if isinstance(document, dict):
        return {key: from_json(item) for key, item in document.items()}
    return document
