"""How many groups of episodes the returns fall into: Silverman's bootstrap test of multi-modality."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float, Int

from policylab.evaluation.rows import sample

LARGEST = 5  # groups that are told apart
_GRID = 512
_REPLICATES = 100


def count_modes(values: Float[np.ndarray, " value"], *, seed: int, level: float = 0.05) -> int:
    """The smallest number of modes that the data don't reject, at most 5 (Silverman 1981, "Using kernel density estimates to
    investigate multimodality").

    The critical bandwidth of k modes is the smallest at which a Gaussian kernel estimate has k; k is rejected when fewer than
    `level` of 100 samples from that estimate (scaled to the variance of the data) need a wider one. Where values repeat (at most
    20 different ones) it is the number of local maxima of the frequencies that hold at least 5% of the episodes (of at most three
    different values: those that hold 5%). Of 40 values and more the outer 2% at each end are left out, since every outlier would be
    a mode of its own; beyond 2,000 a random 2,000 are used.
    """
    different, counts = np.unique(values, return_counts=True)
    if len(different) <= 20:
        return _repeated(counts) if len(different) else 0
    values = values[sample(len(values), 2_000, seed)].astype(np.float64)
    if len(values) >= 40:
        low, high = np.quantile(values, (0.02, 0.98))
        values = values[(values >= low) & (values <= high)]
    spread = max(values.std(), 1e-30)
    values = (values - values.mean()) / spread
    random = np.random.default_rng(seed)
    for modes in range(1, LARGEST):
        bandwidth = _critical(values, modes)
        shrink = 1 / np.sqrt(1 + bandwidth**2)
        more = 0
        for _ in range(_REPLICATES):
            drawn = random.choice(values, len(values)) + bandwidth * random.standard_normal(len(values))
            more += _peaks(drawn * shrink, bandwidth) > modes
        if more / _REPLICATES >= level:
            return modes
    return LARGEST


def _repeated(counts: Int[np.ndarray, " value"]) -> int:
    if len(counts) <= 3:
        return int(max(1, np.sum(counts >= 0.05 * counts.sum())))
    padded = np.concatenate([[0], counts, [0]])
    peak = (padded[1:-1] >= padded[:-2]) & (padded[1:-1] > padded[2:]) & (counts >= 0.05 * counts.sum())
    return int(max(1, peak.sum()))


def _peaks(values: Float[np.ndarray, " value"], bandwidth: float) -> int:
    """Local maxima of the kernel estimate on a grid, by a product of Fourier transforms."""
    low, high = values.min() - 4 * bandwidth, values.max() + 4 * bandwidth
    counts, _ = np.histogram(values, _GRID, (low, high))
    frequency = np.fft.rfftfreq(2 * _GRID, (high - low) / _GRID)
    smooth = np.fft.irfft(np.fft.rfft(counts, 2 * _GRID) * np.exp(-2 * (np.pi * frequency * bandwidth) ** 2))[:_GRID]
    smooth = np.where(smooth > 1e-9 * smooth.max(), smooth, 0.0)
    return int(np.sum((smooth[1:-1] > smooth[:-2]) & (smooth[1:-1] >= smooth[2:])))


def _critical(values: Float[np.ndarray, " value"], modes: int) -> float:
    low, high = 1e-3, 4.0
    for _ in range(24):
        middle = np.sqrt(low * high)
        low, high = (middle, high) if _peaks(values, middle) > modes else (low, middle)
    return float(high)
