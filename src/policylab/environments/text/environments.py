"""Problems and dialogues as environments over `Tokens`: one action is one answer (the grain "response")."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, PRNGKeyArray

from policylab.environment import Environment, Step
from policylab.environments.text import wording
from policylab.environments.text.dialogues import Dialogue
from policylab.environments.text.problems import Family, Problem, problems
from policylab.errors import BadInput
from policylab.experience import Spec, Tokens
from policylab.policies.generation import joined
from policylab.policies.language import text_spec
from policylab.tokenizer import Tokenizer, bucket

_SEEDS = 1 << 30


@dataclass(frozen=True)
class Pool:
    """What the host needs to check answers: which problems, and how their tokens are read. Hashable, so that programs are reused."""

    family: Family
    split: str
    count: int
    seed: int
    tokenizer: str

    @property
    def problems(self) -> tuple[Problem, ...]:
        """The problems, made once."""
        return problems(self.family, self.split, self.count, self.seed)

    @property
    def words(self) -> Tokenizer:
        """The tokenizer."""
        return Tokenizer.of(self.tokenizer)

    @property
    def name(self) -> str:
        """Family, difficulty and split."""
        return f"{type(self.family).__name__.lower()} {self.family.difficulty} {self.split}"

    def checked(self, row: Any, ids: Any, kind: Any) -> np.ndarray:
        """The rewards of answers to the problems of these numbers, any batch shape."""
        rows, ids, kind = np.asarray(row), np.asarray(ids), np.asarray(kind)
        flat = zip(ids.reshape(-1, ids.shape[-1]), kind.reshape(-1, kind.shape[-1]), strict=True)
        answers = [wording.read(self.words, i, k) for i, k in flat]
        questions = [self.problems[r].question for r in rows.reshape(-1)]
        return np.asarray(self.family.verify_all(questions, answers), np.float32).reshape(rows.shape)


@dataclass(frozen=True)
class Talk(Pool):
    """The same for dialogues; `heard` is how many tokens a reply has at most."""

    family: Dialogue
    heard: int

    def started(self, row: Any, seed: Any) -> np.ndarray:
        """What the other side remembers at the start."""
        rows, seeds = np.asarray(row), np.asarray(seed)
        pairs = zip(rows.reshape(-1), seeds.reshape(-1), strict=True)
        found = [self.family.start(self.problems[r].question, int(s)).state for r, s in pairs]
        return np.asarray(found, np.int32).reshape(*rows.shape, -1)

    def replied(self, row: Any, memory: Any, ids: Any, kind: Any) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """What it remembers then, its reply as (ids, kind), and (reward, over)."""
        rows, tokenizer = np.asarray(row), self.words
        flat = [np.asarray(leaf).reshape(rows.size, np.shape(leaf)[-1]) for leaf in (memory, ids, kind)]
        memories, outcomes = np.zeros_like(flat[0]), np.zeros((rows.size, 2), np.float32)
        replies = np.zeros((rows.size, 2, self.heard), np.int32)
        replies[:, 0] = tokenizer.pad
        for i, (r, m, words, kinds) in enumerate(zip(rows.reshape(-1), *flat, strict=True)):
            reply = self.family.reply(self.problems[r].question, m.tolist(), wording.read(tokenizer, words, kinds))
            tail = wording.answered(tokenizer, words[kinds == 2], reply.text)[: self.heard]
            replies[i, 0, : len(tail)], replies[i, 1, : len(tail)] = tail, 1
            memories[i], outcomes[i] = reply.state, (reply.reward, reply.over)
        lead = rows.shape
        return memories.reshape(*lead, -1), replies.reshape(*lead, 2, -1), outcomes.reshape(*lead, 2)


class Questions(Environment):
    """One question, one answer, one reward, from a pool of problems of one split; which one is drawn in `reset`.

    The answer is read and checked on the host, a whole batch in one call, also under `vmap`. Make it with `Questions.of`.
    """

    prompts: Tokens
    pool: Pool = eqx.field(static=True)
    answer: int = eqx.field(static=True)

    @staticmethod
    def of(
        family: Family, tokenizer: Tokenizer, *, split: str = "train", count: int = 1024, seed: int = 0, answer: int = 0
    ) -> Questions:
        """At most `count` problems; `answer` is the most tokens of an answer (0: enough for any solution and its end token).

        Raises `BadInput` for a dialogue, an unknown split, or a tokenizer that lacks a character.
        """
        if isinstance(family, Dialogue):
            raise BadInput(f"{type(family).__name__} takes several turns: make it with Dialogues.of")
        pool = Pool(family, split, count, seed, tokenizer.json)
        texts = [wording.asked(tokenizer, problem.question, family.instruction) for problem in pool.problems]
        longest = wording.room(tokenizer, [problem.solution for problem in pool.problems])
        answer = answer or bucket(max(longest, family.longest_answer) + 1)
        return Questions(tokenizer.tokens(texts, length=bucket(wording.room(tokenizer, texts))), pool, answer)

    @property
    def count(self) -> int:
        """How many problems the pool has."""
        return self.prompts.ids.shape[0]

    @property
    def spec(self) -> Spec:
        """Prompts and answers of this many tokens."""
        length = self.prompts.ids.shape[1]
        return text_spec(self.pool.words, prompt=length, answer=self.answer, horizon=1, environment=self.pool.name)

    def reset(self, key: PRNGKeyArray) -> tuple[Int[Array, ""], Tokens]:
        """The number of a problem, and its prompt."""
        return self.start(jax.random.randint(key, (), 0, self.count))

    def start(self, row: Int[Array, ""], seed: Int[Array, ""] | int = 0) -> tuple[Int[Array, ""], Tokens]:
        """The problem of that number. There is no chance in it, and the seed is not used."""
        return row, self._prompt(row)

    def step(self, state: Int[Array, ""], action: Tokens, key: PRNGKeyArray) -> tuple[Int[Array, ""], Step]:
        """The reward of the answer; the episode is over. The key is not used."""
        reward = self.rewards(state, action)
        info = {"success": (reward >= 1.0).astype(jnp.float32)}
        return state, Step(self._prompt(state), reward, jnp.asarray(True), jnp.asarray(False), info=info)

    def rewards(self, row: Int[Array, "*batch"], answer: Tokens) -> Float[Array, "*batch"]:
        """The rewards of answers to the problems of these numbers."""
        shape = jax.ShapeDtypeStruct(jnp.shape(row), jnp.float32)
        return jax.pure_callback(self.pool.checked, shape, row, answer.ids, answer.kind, vmap_method="broadcast_all")

    def _prompt(self, row: Array) -> Tokens:
        return jax.tree.map(lambda leaf: leaf[row], self.prompts)

    def solutions(self) -> Tokens:
        """A right answer to every problem of the pool, ended, [count, answer]: with `prompts` what one learns from."""
        solutions = [problem.solution for problem in self.pool.problems]
        return self.pool.words.tokens(solutions, length=self.answer, kind=2, ended=True)


class Turn(eqx.Module):
    """The state of a dialogue: which problem, what the other side remembers, how many turns were taken, and all that was said."""

    row: Int[Array, "*batch"]
    memory: Int[Array, "*batch number"]
    taken: Int[Array, "*batch"]
    said: Tokens


class Dialogues(Environment):
    """A dialogue with one answer per step: the observation is all that was said so far, what the policy wrote with kind 2.

    Make it with `Dialogues.of`. The observation has room for the longest dialogue.
    """

    prompts: Tokens
    memories: Int[Array, "row number"]
    pool: Talk = eqx.field(static=True)
    answer: int = eqx.field(static=True)

    @staticmethod
    def of(
        family: Family, tokenizer: Tokenizer, *, split: str = "train", count: int = 256, seed: int = 0, answer: int = 0
    ) -> Dialogues:
        """As `Questions.of`, for a family of several turns; `answer` is the most tokens of one of them."""
        if not isinstance(family, Dialogue):
            raise BadInput(f"{type(family).__name__} is answered in one turn: make it with Questions.of")
        heard = bucket(len(wording.answered(tokenizer, np.zeros(0, np.int32), "x" * family.longest_reply)))
        pool = Talk(family, split, count, seed, tokenizer.json, heard)
        starts = [family.start(problem.question, 0) for problem in pool.problems]
        texts = [wording.asked(tokenizer, start.text, family.instruction) for start in starts]
        longest = wording.room(tokenizer, [problem.solution for problem in pool.problems])
        answer = answer or bucket(max(longest, family.longest_answer) + 1)
        length = bucket(wording.room(tokenizer, texts) + (family.turns - 1) * (answer + heard))
        memories = jnp.asarray([start.state for start in starts], jnp.int32)
        return Dialogues(tokenizer.tokens(texts, length=length), memories, pool, answer)

    @property
    def count(self) -> int:
        """How many problems the pool has."""
        return self.prompts.ids.shape[0]

    @property
    def spec(self) -> Spec:
        """All that was said, and one answer."""
        length, turns = self.prompts.ids.shape[1], self.pool.family.turns
        return text_spec(self.pool.words, prompt=length, answer=self.answer, horizon=turns, environment=self.pool.name)

    def reset(self, key: PRNGKeyArray) -> tuple[Turn, Tokens]:
        """A problem and its opening; the seed of the other side is drawn here."""
        row_key, seed_key = jax.random.split(key)
        return self.start(jax.random.randint(row_key, (), 0, self.count), jax.random.randint(seed_key, (), 0, _SEEDS))

    def start(self, row: Int[Array, ""], seed: Int[Array, ""] | int = 0) -> tuple[Turn, Tokens]:
        """The problem of that number; `seed` is all chance that the other side has."""
        memory = jax.pure_callback(
            self.pool.started, jax.ShapeDtypeStruct(self.memories.shape[1:], jnp.int32), row, seed, vmap_method="broadcast_all"
        )
        said = jax.tree.map(lambda leaf: leaf[row], self.prompts)
        return Turn(row, memory, jnp.zeros((), jnp.int32), said), said

    def step(self, state: Turn, action: Tokens, key: PRNGKeyArray) -> tuple[Turn, Step]:
        """The other side's reply. The key is not used: its chance was drawn in `reset`."""
        shapes = (
            jax.ShapeDtypeStruct(state.memory.shape, jnp.int32), jax.ShapeDtypeStruct((2, self.pool.heard), jnp.int32),
            jax.ShapeDtypeStruct((2,), jnp.float32),
        )  # fmt: skip
        memory, reply, outcome = jax.pure_callback(
            self.pool.replied, shapes, state.row, state.memory, action.ids, action.kind, vmap_method="broadcast_all"
        )
        length = self.prompts.ids.shape[1]
        more = joined(joined(state.said, action), Tokens(reply[0], reply[1]))
        said = jax.tree.map(lambda leaf: leaf[..., :length], more)
        taken = state.taken + 1
        over = (outcome[1] > 0) | (taken >= self.pool.family.turns)
        info = {"success": (outcome[0] >= 1.0).astype(jnp.float32)}
        return Turn(state.row, memory, taken, said), Step(said, outcome[0], over, jnp.asarray(False), info=info)
