"""Accepted answers: what a verifier lets pass of a policy's own answers, as demonstrations: the sampling half of expert iteration."""

from __future__ import annotations

import equinox as eqx
import jax
import numpy as np
from jaxtyping import Array, PyTree

from policylab.errors import BadInput
from policylab.policies.language import LanguagePolicy
from policylab.policies.lora import LoRAPolicy
from policylab.policy import Policy
from policylab.scorer import Scorer
from policylab.sources.demonstrations import Demonstrations
from policylab.sources.judged import taken
from policylab.sources.responses import Responses


def accepted(
    responses: Responses,
    policy: Policy,
    *,
    n: int = 8,
    threshold: float = 0.5,
    at_most: int = 0,
    batch: int = 64,
    seed: int = 0,
) -> Demonstrations:
    """`n` answers of `policy` to every prompt of `responses`, and of those with a reward above `threshold` the different ones, at most
    `at_most` to a prompt (0: all), as demonstrations in the order of the prompts.

    With `lab.SFT(...)` from the first policy on each round's answers this is ReST-EM (Singh et al. 2023, arXiv 2312.06585, algorithm 1, which
    keeps at most 10), from the last one expert iteration. `batch` prompts are answered at once. Equal seeds give equal answers. Raises
    `BadInput` where no answer is accepted, and for a number that is out of range.
    """
    if n < 1 or batch < 1 or at_most < 0:
        raise BadInput(f"n is {n}, batch {batch} and at_most {at_most}: give at least 1, 1 and 0")
    rows, found = int(responses.count), []
    for start in range(0, rows, batch):
        index = np.arange(start, start + batch) % rows  # the last batch goes round, so that all have one shape
        key = jax.random.fold_in(jax.random.key(seed), start)
        answers, rewards = jax.device_get(_answered(policy, responses.scorer, taken(responses.prompt, index), key, n))
        for place, row in enumerate(index[: rows - start]):
            found += [(row, answer) for answer in _kept(taken(answers, place), rewards[place] > threshold, at_most)]
    if not found:
        raise BadInput(
            f"none of {rows * n} answers has a reward above {threshold:g}: raise n, start from a better policy, or ask easier prompts"
        )
    numbers, answers = zip(*found, strict=True)
    stacked = jax.tree.map(lambda *leaves: np.stack(leaves), *answers)
    return Demonstrations.of(taken(jax.device_get(responses.prompt), np.array(numbers)), stacked, spec=responses.spec)


@eqx.filter_jit
def _answered(policy: Policy, scorer: Scorer, prompt: PyTree, key: Array, n: int) -> tuple[PyTree, Array]:
    """Answers and their rewards, [prompt, n, ...]."""
    keys = jax.random.split(key, jax.tree.leaves(prompt)[0].shape[0])
    if isinstance(policy, LanguagePolicy | LoRAPolicy):  # reads every prompt once
        answers = jax.vmap(lambda o, k: policy.act_many(o, n, key=k).tokens)(prompt, keys)
    else:
        one = lambda o, k: policy.act(o, policy.initial_memory(key=k), key=k)[0]
        answers = jax.vmap(lambda o, k: jax.vmap(lambda each: one(o, each))(jax.random.split(k, n)))(prompt, keys)
    return answers, jax.vmap(lambda o, group: jax.vmap(lambda a: scorer.score(o, a))(group))(prompt, answers)


def _kept(answers: PyTree, good: np.ndarray, at_most: int) -> list[PyTree]:
    """The different answers to one prompt that are good, in the order in which they were drawn."""
    kept: dict[bytes, PyTree] = {}
    for i in np.flatnonzero(good):
        answer = taken(answers, i)
        kept.setdefault(b"".join(np.asarray(leaf).tobytes() for leaf in jax.tree.leaves(answer)), answer)
    return list(kept.values())[: at_most or None]
