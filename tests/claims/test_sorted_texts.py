"""What the claims about texts that are sorted step by step rest on: their problems, and the area under the curve."""

from __future__ import annotations

import jax.numpy as jnp
import numpy as np
import pytest

from policylab.claims.imitation.sequencematch import CLAIM, problems
from policylab.claims.preference.implicit_prm import CLAIM as STEPS
from policylab.claims.preference.implicit_prm import area


def test_problems_are_sorted_and_what_is_tried_is_never_shown():
    shown, said = problems(2_000, 0, tried=False)
    fresh, _ = problems(300, 1, tried=True)
    assert np.array_equal(np.sort(shown.ids, axis=1), said.ids[:, :-1])
    assert not {tuple(row) for row in np.asarray(shown.ids)} & {tuple(row) for row in np.asarray(fresh.ids)}


def test_the_area_counts_pairs_with_ties_half():
    random = np.random.default_rng(0)
    score = random.integers(0, 6, 40).astype(np.float32)
    kind = random.integers(0, 3, 40)  # 2: neither
    pairs = [(a > b) + 0.5 * (a == b) for a in score[kind == 0] for b in score[kind == 1]]
    assert float(area(jnp.asarray(score), jnp.asarray(kind == 0), jnp.asarray(kind == 1))) == pytest.approx(
        np.mean(pairs), abs=1e-5
    )


def test_the_claims_name_what_they_measure():
    for claim in (CLAIM, STEPS):
        assert {key.split("/")[0] for part in claim.parts for key in part.keys} <= set(claim.arms)
