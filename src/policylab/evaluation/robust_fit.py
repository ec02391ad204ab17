"""A quick regression that corrupted rows cannot pull away: ridge on random features with re-descending weights."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

FEATURES = 200
FITTED = 20_000  # rows that a fit sees
_ROUNDS = 8
_PIECE = 20_000


@dataclass(frozen=True)
class Fit:
    """Predictions are linear in (1, x, cos(x directions + phases)), x being the inputs clipped to [-8, 8].

    `scale` is a standard deviation of the residuals per output that up to half of the rows cannot spoil. `explained` is the share
    of the outputs' variance that the prediction explains on rows left out of the fit (each in its robust weight).
    """

    directions: Float[np.ndarray, "input feature"]
    phases: Float[np.ndarray, " feature"]
    coefficients: Float[np.ndarray, "term output"]
    scale: Float[np.ndarray, " output"]
    explained: Float[np.ndarray, " output"]

    def __call__(self, inputs: Float[np.ndarray, "row input"]) -> Float[np.ndarray, "row output"]:
        """Predictions for these inputs, in pieces."""
        pieces = [self.terms(inputs[i : i + _PIECE]) @ self.coefficients for i in range(0, len(inputs), _PIECE)]
        return np.concatenate(pieces) if pieces else np.zeros((0, self.coefficients.shape[1]))

    def terms(self, inputs: Float[np.ndarray, "row input"]) -> Float[np.ndarray, "row term"]:
        """The features of these rows."""
        return _terms(inputs, self.directions, self.phases)


def fit(
    inputs: Float[np.ndarray, "row input"],
    outputs: Float[np.ndarray, "row output"],
    *,
    seed: int,
    robust: bool = True,
    features: int = FEATURES,
) -> Fit:
    """Fit outputs to inputs, both in standard deviations, on half of the rows (at most 20,000); the other half tests it.

    With `robust`, rows whose residual is many scales wide lose their weight (Cauchy weights, Holland & Welsch 1977); the scale is
    the 20% quantile of the absolute residuals over that of a normal distribution, so that almost half of the rows may be wrong.
    """
    random = np.random.default_rng(seed)
    order = random.permutation(len(inputs))[: 2 * FITTED]
    learn, test = order[: (len(order) + 1) // 2], order[(len(order) + 1) // 2 :]
    learn, test = (learn, test) if len(test) >= 2 else (order, order)
    features = min(features, len(learn) // 10)
    directions = random.standard_normal((inputs.shape[1], features)) / np.sqrt(max(1, inputs.shape[1]))
    phases = random.uniform(0, 2 * np.pi, features)
    terms = _terms(inputs[learn], directions, phases)
    wanted = outputs[learn]
    weight = _weights(wanted - np.median(wanted, axis=0)) if robust else np.ones(len(learn))
    for _ in range(_ROUNDS if robust else 1):
        coefficients = _ridge(terms, wanted, weight)
        residual = wanted - terms @ coefficients
        weight = _weights(residual) if robust else weight
    held = outputs[test]
    residual = held - _terms(inputs[test], directions, phases) @ coefficients
    weight = _weights(residual) if robust else np.ones(len(test))
    center = np.average(held, axis=0, weights=weight)
    spread = np.average((held - center) ** 2, axis=0, weights=weight)
    left = np.average(residual**2, axis=0, weights=weight)
    explained = 1 - np.divide(left, spread, out=np.ones_like(left), where=spread > 1e-12)
    return Fit(directions, phases, coefficients, robust_scale(residual), explained)


def robust_scale(residual: Float[np.ndarray, "row output"]) -> Float[np.ndarray, " output"]:
    """The standard deviation of a normal distribution with this 20% quantile of absolute values, at least 1e-5."""
    return np.maximum(np.quantile(np.abs(residual), 0.2, axis=0) / 0.2533471, 1e-5)


def _weights(residual: Float[np.ndarray, "row output"]) -> Float[np.ndarray, " row"]:
    wide = np.max(np.abs(residual) / robust_scale(residual), axis=1, initial=0.0)
    return 1 / (1 + (wide / 6) ** 4)


def _terms(inputs: np.ndarray, directions: np.ndarray, phases: np.ndarray) -> np.ndarray:
    inputs = np.clip(inputs, -8, 8)
    return np.concatenate([np.ones((len(inputs), 1)), inputs, np.cos(inputs @ directions + phases)], axis=1)


def _ridge(terms: np.ndarray, wanted: np.ndarray, weight: np.ndarray) -> np.ndarray:
    weighted = terms * weight[:, None]
    square = terms.T @ weighted
    square[np.diag_indices_from(square)] += 1e-6 * max(1.0, weight.sum())
    return np.linalg.solve(square, weighted.T @ wanted)
