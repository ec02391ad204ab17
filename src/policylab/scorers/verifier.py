"""Verifier: the reward of an answer that can be checked, as a Scorer; it reads the question from the prompt itself."""

from __future__ import annotations

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from policylab.environments.text import wording
from policylab.environments.text.problems import Family
from policylab.experience import Tokens
from policylab.scorer import Scorer
from policylab.tokenizer import Tokenizer


class Verifier(Scorer):
    """1 for a right answer and 0 for a wrong one (or between, where the family gives parts), on the answer's last written token.

    Prompts may come from anywhere (a data set, an environment): the question is found in the words of the prompt. Checked on the host, a
    whole batch in one call. Raises `BadInput` (when it runs) for a prompt that holds no question of the family.
    """

    family: Family = eqx.field(static=True)
    tokenizer: str = eqx.field(static=True)

    def scores(self, observation: Tokens, action: Tokens) -> Float[Array, " part"]:
        """One number per token of the answer: the reward stands on the last that was written, on the first if none was."""
        reward = jax.pure_callback(
            self._checked, jax.ShapeDtypeStruct((), jnp.float32), observation.ids, observation.kind, action.ids, action.kind,
            vmap_method="broadcast_all",
        )  # fmt: skip
        last = jnp.maximum(jnp.max(jnp.where(action.kind == 2, jnp.arange(action.kind.shape[0]), 0)), 0)
        return jnp.where(jnp.arange(action.ids.shape[0]) == last, reward, 0.0)

    def _checked(self, ids: Any, kind: Any, answer: Any, written: Any) -> np.ndarray:
        tokenizer, lead = Tokenizer.of(self.tokenizer), np.shape(ids)[:-1]
        flat = [np.asarray(leaf).reshape(-1, np.shape(leaf)[-1]) for leaf in (ids, kind, answer, written)]
        questions = [wording.read(tokenizer, i, k, of=1) for i, k in zip(*flat[:2], strict=True)]
        answers = [wording.read(tokenizer, i, k) for i, k in zip(*flat[2:], strict=True)]
        return np.asarray(self.family.verify_all(questions, answers), np.float32).reshape(lead)
