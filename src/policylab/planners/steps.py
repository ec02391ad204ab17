"""Reasoning by search: planners over the steps of a language policy, all of them `TreeSearch` in a `Draft` with other operators."""

from __future__ import annotations

import zlib
from typing import Any, Literal

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Int, PRNGKeyArray

from policylab.environments.text import wording
from policylab.environments.text.draft import Draft
from policylab.environments.text.problems import final
from policylab.errors import BadInput
from policylab.experience import Spec
from policylab.planners.backup import BestEnd, Kept, Largest, Mean, Weighted
from policylab.planners.expansion import Answered, Nothing, Sampled, Simulated, Valued
from policylab.planners.selection import PUCT, UCT, Frontier
from policylab.planners.tree import Evaluate, Extract, Tree, TreeSearch
from policylab.policies.language import LanguagePolicy
from policylab.scorer import Scorer
from policylab.tokenizer import Tokenizer


class Vote(Extract):
    """An end whose answer is the most common one, each counted once, or by its value with `weighted`; of equal answers the earliest.

    Two answers are the same if they come to the same (`problems.final`: what stands between the last <answer> tags, or the last line, and
    behind an equals sign the right side alone). Where no end was found, the best leaf.
    """

    tokenizer: str = eqx.field(static=True)
    weighted: bool = eqx.field(static=True, default=False)

    def __call__(self, tree: Tree, *, key: PRNGKeyArray) -> Int[Array, ""]:
        """The node."""
        written = tree.state.written
        shape = jax.ShapeDtypeStruct(tree.parent.shape, jnp.int32)
        said = jax.pure_callback(self._read, shape, written.ids, written.kind, vmap_method="broadcast_all")
        weight = tree.finished * (tree.value if self.weighted else 1.0)
        votes = jnp.where(said[:, None] == said, weight, 0.0).sum(axis=1)
        winner = jnp.argmax(jnp.where(tree.finished, votes, -jnp.inf))
        return jnp.where(jnp.any(tree.finished), winner, BestEnd()(tree, key=key)).astype(jnp.int32)

    def _read(self, ids: Any, kind: Any) -> np.ndarray:
        tokenizer, lead = Tokenizer.of(self.tokenizer), np.shape(ids)[:-1]
        flat = (np.asarray(leaf).reshape(-1, np.shape(leaf)[-1]) for leaf in (ids, kind))
        texts = [final(wording.read(tokenizer, i, k)).rpartition("=")[2].strip() for i, k in zip(*flat, strict=True)]
        return np.asarray([zlib.crc32(text.encode()) for text in texts], np.uint32).view(np.int32).reshape(lead)


def _judge(value: Scorer | Evaluate | Any, *, unfinished: bool) -> Evaluate:
    """An operator of a Scorer of answers, a function of texts, or an operator as it is."""
    if isinstance(value, Evaluate):
        return value
    return Answered(value, unfinished) if isinstance(value, Scorer) else Valued(value)


def _writer(policy: LanguagePolicy, longest: int, stop: tuple[str, ...]) -> LanguagePolicy:
    if longest < 1:
        raise BadInput(f"steps of at most {longest} tokens cannot be written: give at least 1")
    return policy.sampled(answer=longest, stop=stop)


def best_of_n(policy: LanguagePolicy, spec: Spec, scorer: Scorer | Evaluate | Any, *, n: int = 16, **more: Any) -> TreeSearch:
    """`n` independent answers, of which the scorer (a verifier, a reward model, a judge) likes one best.

    `spec` is that of the environment whose answers they are. More settings are those of `chains`.
    """
    return chains(policy, spec, n=n, evaluate=_judge(scorer, unfinished=False), extract=BestEnd(), **more)


def majority_vote(
    policy: LanguagePolicy, spec: Spec, *, n: int = 16, value: Scorer | Evaluate | Any = None, **more: Any
) -> TreeSearch:
    """`n` independent answers, of which the most common counts (self-consistency: Wang et al. 2022, arXiv 2203.11171); with a `value` each
    counts by it (weighted vote). More settings are those of `chains`."""
    judge = Nothing() if value is None else _judge(value, unfinished=False)
    return chains(policy, spec, n=n, evaluate=judge, extract=Vote(spec.tokenizer, value is not None), **more)


def chains(
    policy: LanguagePolicy,
    spec: Spec,
    *,
    n: int,
    evaluate: Evaluate,
    extract: Extract,
    longest: int = 0,
    rounds: int = 1,
    stop: tuple[str, ...] = ("\n",),
    whole: bool = True,
) -> TreeSearch:
    """`n` independent answers: in one piece (`longest` 0), or in at most `rounds` steps of at most `longest` tokens that end with `stop`, so
    that every step is a node. `whole` answers are the actions, else the first step of the chosen one."""
    if not longest:
        draft = Draft.of(spec, longest=_answer(spec))
        writer = policy.sampled(answer=draft.answer_length)
    else:
        draft, writer = Draft.of(spec, longest=longest), _writer(policy, longest, stop)
    expand = Sampled(writer, samples=1, distinct=False)
    return TreeSearch(draft, expand, evaluate, Frontier(), Kept(), extract, rounds=rounds, leaves=n, whole=whole)


def _answer(spec: Spec) -> int:
    return Draft.of(spec, longest=1).answer_length


def beam(
    policy: LanguagePolicy,
    spec: Spec,
    value: Scorer | Evaluate | Any,
    *,
    beams: int = 4,
    samples: int = 4,
    longest: int = 32,
    rounds: int = 8,
    stop: tuple[str, ...] = ("\n",),
    whole: bool = True,
) -> TreeSearch:
    """Step-level beam search: of `samples` next steps of each of `beams` texts the best `beams` by `value` go on; finished answers keep
    their places (Chen et al. 2024, arXiv 2405.03553). In the first round `beams` times `samples` steps are drawn."""
    expand = Sampled(_writer(policy, longest, stop), samples=samples)
    return TreeSearch(
        Draft.of(spec, longest=longest), expand, _judge(value, unfinished=True), Frontier(), Kept(), BestEnd(),
        rounds=rounds, leaves=beams, whole=whole,
    )  # fmt: skip


def text_tree_search(
    policy: LanguagePolicy,
    spec: Spec,
    value: Scorer | Evaluate | Any,
    *,
    rule: Literal["uct", "puct", "rest-mcts-star"] = "puct",
    exploration: float = 1.0,
    samples: int = 3,
    longest: int = 32,
    rounds: int = 16,
    leaves: int = 1,
    rollout: int = 0,
    threshold: float = np.inf,
    budget: float = np.inf,
    best: bool = False,
    stop: tuple[str, ...] = ("\n",),
    whole: bool = True,
) -> TreeSearch:
    """Monte-Carlo tree search over steps: `leaves` texts at once get `samples` different next steps each, `rounds` times, judged by
    `value`: a Scorer of the text so far, or of finished answers (an `Answered` of a verifier), or a function of texts.

    `rule` "uct" and "puct" back up means (with `best`, maxima), "rest-mcts-star" is UCT with the weighted means of Zhang et al. 2024, for
    which exploration is 0.7, `rollout` 3 (greedy steps from the best child) and `threshold` 0.9 in the authors' code. `budget` counts tokens.
    """
    if rule not in ("uct", "puct", "rest-mcts-star"):
        raise BadInput(f"there is no rule {rule!r} of tree search: choose uct, puct or rest-mcts-star")
    writer = _writer(policy, longest, stop)
    judge = _judge(value, unfinished=True)
    judge = Simulated(judge, writer, steps=rollout) if rollout else judge
    select = PUCT(exploration) if rule == "puct" else UCT(exploration)
    backup = Largest() if best else Weighted() if rule == "rest-mcts-star" else Mean()
    return TreeSearch(
        Draft.of(spec, longest=longest), Sampled(writer, samples=samples), judge, select, backup, BestEnd(), budget, threshold,
        rounds=rounds, leaves=leaves, whole=whole,
    )  # fmt: skip


def outline(tree: Tree, tokenizer: str) -> str:
    """A searched tree of texts as indented lines: visits, value, and the step; an end is marked with a star. On the host, one tree."""
    tree = jax.device_get(tree)
    words, lines = Tokenizer.of(tokenizer), []

    def walk(node: int) -> None:
        if node:
            step = wording.read(words, tree.action.ids[node], tree.action.kind[node]).strip()
            mark = "*" if tree.terminal[node] else " "
            lines.append(f"{'  ' * (int(tree.depth[node]) - 1)}{mark} {tree.visits[node]:3.0f} {tree.value[node]:6.2f}  {step}")
        for child in np.flatnonzero((tree.parent == node) & (np.arange(tree.parent.shape[0]) < tree.count)):
            walk(int(child))

    walk(0)
    return "\n".join(lines)
