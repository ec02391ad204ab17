"""Updates per second of the offline learners, ours and d3rlpy's, interleaved in one run, with the share of the matmul peak.

    python benchmarks/offline_updates.py                              ours alone
    python benchmarks/offline_updates.py --peer-python peer/bin/python both; the peer's environment has torch and d3rlpy

Batch 256, transitions of HalfCheetah shape (17 observed, 6 actions), each library's own sampling included, 2 x 256 networks
(d3rlpy's defaults). The share counts only the multiplications and additions of the networks' matrices.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import subprocess
import sys
import time
from pathlib import Path

import numpy as np

OBSERVED, ACTED, BATCH, WIDTH = 17, 6, 256, 256
NAMES = ("bc", "td3-bc", "iql", "cql")
UPDATES = {"bc": 600, "td3-bc": 200, "iql": 200, "cql": 24}

PEER = """
import json, sys, time, logging, numpy as np, torch, d3rlpy, structlog
structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))
name, updates, rows = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
torch.set_num_threads(2)
random = np.random.default_rng(0)
ends = np.zeros(rows, np.float32); ends[999::1000] = 1
data = d3rlpy.dataset.MDPDataset(random.standard_normal((rows, 17), dtype=np.float32),
    np.tanh(random.standard_normal((rows, 6), dtype=np.float32)), random.standard_normal(rows).astype(np.float32), np.zeros(rows, np.float32), ends)
config = {"bc": "BCConfig", "td3-bc": "TD3PlusBCConfig", "iql": "IQLConfig", "cql": "CQLConfig"}[name]
learner = getattr(d3rlpy.algos, config)(batch_size=256).create(device="cpu")
learner.build_with_dataset(data)
draw = lambda: data.sample_transition_batch(256)
for _ in range(5): learner.update(draw())
rates = []
for _ in range(3):
    start = time.perf_counter()
    for _ in range(updates): learner.update(draw())
    rates.append(updates / (time.perf_counter() - start))
print(json.dumps({"rates": rates, "versions": {"d3rlpy": d3rlpy.__version__, "torch": torch.__version__}}))
"""


def forward(inputs: int, outputs: int = 1) -> int:
    """Floating-point operations of one row's forward pass through a network of two hidden layers."""
    sizes = [inputs, WIDTH, WIDTH, outputs]
    return 2 * sum(a * b for a, b in itertools.pairwise(sizes))


def gradient(inputs: int, outputs: int = 1) -> int:
    """Of the forward pass and the gradient of the weights, which needs none to the network's input."""
    return 3 * forward(inputs, outputs) - 2 * inputs * WIDTH


def operations(name: str) -> float:
    """Of one update's matrix products, each counted once, however often a program happens to compute it."""
    pair = OBSERVED + ACTED
    policy_gradient, value_gradient, critic_gradient = gradient(OBSERVED, ACTED), gradient(OBSERVED), gradient(pair)
    total = {
        "bc": policy_gradient,
        # the targets; both critics; every other time the policy through the first critic and back to its input
        "td3-bc": forward(OBSERVED, ACTED)
        + 2 * forward(pair)
        + 2 * critic_gradient
        + (policy_gradient + 2 * forward(pair)) / 2,
        # the target critics; V, and again after its step at s and s'; the policy; both critics
        "iql": 2 * forward(pair) + value_gradient + 2 * forward(OBSERVED) + policy_gradient + 2 * critic_gradient,
        # the policy through both critics and back to its action; the new policy at s and s'; the targets; both critics at 31 actions
        "cql": gradient(OBSERVED, 2 * ACTED)
        + 4 * forward(pair)
        + 2 * forward(OBSERVED, 2 * ACTED)
        + 2 * forward(pair)
        + 31 * 2 * critic_gradient,
    }
    return BATCH * total[name]


def ours(name: str, rows: int, seeds: int) -> list[float]:
    """Total updates per second of all seeds, three times, through the public `train`."""
    import dataclasses

    import policylab as lab
    from policylab.registry import learner_class

    random = np.random.default_rng(0)
    episodes = rows // 1000
    observation = random.standard_normal((rows + episodes, OBSERVED), dtype=np.float32)
    action = np.tanh(random.standard_normal((rows, ACTED), dtype=np.float32))
    flags = np.zeros(rows, bool)
    recording = lab.Recording(
        observation, action, random.standard_normal(rows).astype(np.float32), flags, flags, np.full(episodes, 1000),
        lab.Spec(lab.Box((OBSERVED,)), lab.Box((ACTED,), -1.0, 1.0)),
    )  # fmt: skip
    dataset, learner = lab.Dataset.of(recording), dataclasses.replace(learner_class(name)(), batch_size=BATCH)
    lab.train(learner, dataset, steps=4, seeds=seeds)
    rates, updates = [], max(8, UPDATES[name] // seeds)
    for _ in range(3):
        start = time.perf_counter()
        lab.train(learner, dataset, steps=updates, seeds=seeds)
        rates.append(updates * seeds / (time.perf_counter() - start))
    return rates


def peak() -> float:
    """Floating-point operations per second of a float32 product of 2048 x 2048 matrices, the best of five."""
    import jax
    import jax.numpy as jnp

    a = jnp.ones((2048, 2048))
    product = jax.jit(lambda x: x @ x)
    product(a).block_until_ready()
    best = 0.0
    for _ in range(5):
        start = time.perf_counter()
        product(a).block_until_ready()
        best = max(best, 2 * 2048**3 / (time.perf_counter() - start))
    return best


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--peer-python", help="the Python of an environment with torch and d3rlpy")
    parser.add_argument("--rows", type=int, default=1_000_000, help="transitions (default: 1,000,000)")
    parser.add_argument("--seeds", type=int, default=5, help="seeds of the several-seeds row (default: 5)")
    parser.add_argument("--json", action="store_true", help="print one JSON document")
    options = parser.parse_args()
    rows = []
    for name in NAMES:
        limit = peak()
        single, several = ours(name, options.rows, 1), ours(name, options.rows, options.seeds)
        row = {
            "learner": name, "updates_per_second": float(np.median(single)), "several_seeds": float(np.median(several)),
            "share_of_peak": float(np.median(single)) * operations(name) / limit,
        }  # fmt: skip
        if options.peer_python:
            answer = subprocess.run(
                [options.peer_python, "-c", PEER, name, str(UPDATES[name]), str(options.rows)],
                capture_output=True,
                text=True,
                check=True,
            )
            found = json.loads(answer.stdout.splitlines()[-1])
            row |= {"peer": float(np.median(found["rates"])), "peer_versions": found["versions"]}
            row["ratio"] = row["updates_per_second"] / row["peer"]
        rows.append(row)
        print({key: round(value, 3) if isinstance(value, float) else value for key, value in row.items()}, file=sys.stderr)
    if options.json:
        print(json.dumps({"rows": rows, "cores": os.cpu_count()}))
        return
    for row in rows:
        ratio = f"{row['ratio']:.2f}x d3rlpy" if "ratio" in row else "no peer given"
        gain = row["several_seeds"] / row["updates_per_second"]
        print(
            f"{row['learner']:<8} {row['share_of_peak']:>4.0%} of the matmul peak, {options.seeds} seeds {gain:.2f}x one seed in total, {ratio}"
        )


if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).parent))
    main()
