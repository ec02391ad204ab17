"""Tasks in words: problems with verifiable answers, as environments over the tokens of any tokenizer."""

from __future__ import annotations

import importlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, PRNGKeyArray

from policylab.environments.text.dialogues import Dialogue
from policylab.environments.text.environments import Dialogues, Questions
from policylab.environments.text.problems import SPLITS, Family, Problem, problems
from policylab.errors import BadInput
from policylab.experience import Trials
from policylab.policy import Policy
from policylab.scorers.verifier import Verifier
from policylab.task import Task
from policylab.tokenizer import Tokenizer, characters

# name of the task after text/ -> module below policylab.environments.text, class
FAMILIES = {
    "arithmetic": ("numbers", "Arithmetic"),
    "countdown": ("numbers", "Countdown"),
    "sorting": ("numbers", "Sorting"),
    "retrieval": ("places", "Retrieval"),
    "maze": ("places", "Maze"),
    "functions": ("functions", "Functions"),
    "twenty-questions": ("dialogues", "TwentyQuestions"),
    "tic-tac-toe": ("dialogues", "TicTacToeByText"),
}
_INSTANCES = ("test", "train", "validation")


@dataclass(frozen=True)
class TextTask(Task):
    """A family of problems at one difficulty. Its three instances are the splits, which share no problem: 0 is test, 1 train, 2
    validation. Which problem is drawn in `reset`: of at most `count` of them, eight times as many for training. `tokenizer` is the JSON
    of one ("": characters)."""

    family: Family
    tokenizer: str = ""
    count: int = 256
    seed: int = 0

    @property
    def words(self) -> Tokenizer:
        """The tokenizer."""
        return Tokenizer.of(self.tokenizer) if self.tokenizer else characters()

    def size(self, split: str) -> int:
        """How many problems a split has at most."""
        return 8 * self.count if split == "train" else self.count

    def environment(self, instance: int = 0) -> Questions | Dialogues:
        """The environment of a split, by its number."""
        if not 0 <= instance < len(_INSTANCES):
            raise BadInput(f"{self.name} has no instance {instance}: 0 is test, 1 train, 2 validation")
        split = _INSTANCES[instance]
        if isinstance(self.family, Dialogue):
            return Dialogues.of(self.family, self.words, split=split, count=self.size(split), seed=self.seed)
        return Questions.of(self.family, self.words, split=split, count=self.size(split), seed=self.seed)

    def instances(self, split: str = "test") -> Sequence[int]:
        """The number of a split."""
        if split not in SPLITS:
            raise BadInput(f"there is no split {split!r}: choose one of {', '.join(SPLITS)}")
        return (_INSTANCES.index(split),)

    def problems(self, split: str = "test") -> tuple[Problem, ...]:
        """Questions with a right answer to each, as strings."""
        return problems(self.family, split, self.size(split), self.seed)

    def trials(self, policy: Policy, *, split: str = "test", key: int = 0, name: str = "policy") -> Trials:
        """Every problem of a split, once: what `metric` takes. Policies that are tried with one key meet the same chance."""
        environment = self.environment(*self.instances(split))
        outcome, success, length = jax.device_get(_play(policy, environment, jax.random.key(key)))
        return Trials.of(name, outcome[None], seeds=np.zeros(1, np.int64), success=success[None], length=length[None])

    def verifier(self) -> Verifier:
        """The checker as a Scorer of one answer. Raises `BadInput` for dialogues, whose reward is the environment's."""
        if isinstance(self.family, Dialogue):
            raise BadInput(f"{self.name} takes several turns: its reward is that of its environment")
        return Verifier(self.family, self.words.json)

    @property
    def reference(self) -> Mapping[str, float]:
        """Nothing right, and all right."""
        return {"random": 0.0, "expert": 1.0}

    @property
    def scale(self) -> str:
        """What 0 and 100 are."""
        return "0 = nothing right, 100 = all right"


@eqx.filter_jit
def _play(policy: Policy, environment: Questions | Dialogues, key: PRNGKeyArray) -> tuple[Array, Array, Array]:
    """The return, the success and the length of every problem's one episode."""
    rows = jnp.arange(environment.count)
    keys = jax.vmap(lambda row: jax.random.fold_in(key, row))(rows)

    def move(carry: tuple, time: Array) -> tuple[tuple, tuple]:
        state, observation, memory, alive = carry
        act = lambda o, m, k: policy.act(o, m, key=jax.random.fold_in(k, time))
        action, memory = jax.vmap(act)(observation, memory, keys)
        state, step = jax.vmap(environment.step)(state, action, keys)
        told = jnp.where(alive, step.reward, 0.0), jnp.where(alive, step.info["success"], 0.0), alive
        return (state, step.observation, memory, alive & ~step.terminal), told

    state, observation = jax.vmap(environment.start)(rows, jax.random.randint(key, rows.shape, 0, 1 << 30))
    memory = jax.vmap(lambda k: policy.initial_memory(key=k))(keys)
    start = state, observation, memory, jnp.ones(rows.shape, bool)
    _, (reward, success, alive) = jax.lax.scan(move, start, jnp.arange(environment.spec.horizon))
    return reward.sum(0), success.max(0), alive.sum(0)


def text_task(
    name: str, *, difficulty: int = 1, tokenizer: Tokenizer | None = None, count: int = 256, seed: int = 0, title: str = ""
) -> TextTask:
    """The task of that name (with or without `text/`) at a difficulty of 1 to 10, in the tokens of `tokenizer` (None: characters).

    Raises `BadInput` for an unknown name or a difficulty out of range.
    """
    short = name.removeprefix("text/")
    if short not in FAMILIES:
        raise BadInput(f"there is no task in words {name!r}: choose one of {', '.join(FAMILIES)}")
    module, cls = FAMILIES[short]
    family = getattr(importlib.import_module(f"policylab.environments.text.{module}"), cls)(difficulty)
    json = "" if tokenizer is None else tokenizer.json
    return TextTask(f"text/{short}", title or f"{short}, difficulty {difficulty}", family, json, count, seed)


def load(name: str, title: str) -> TextTask:
    """The task at difficulty 1, character by character."""
    return text_task(name, title=title)
