"""Updates per second of the offline learners, ours and d3rlpy's, interleaved in one run, with the share of the matmul peak.

    python benchmarks/offline_updates.py                              ours alone
    python benchmarks/offline_updates.py --peer-python peer/bin/python both; the peer's environment has torch and d3rlpy

Batch 256, transitions of HalfCheetah shape (17 observed, 6 actions), each library's own sampling included, 2 x 256 networks
(d3rlpy's defaults). In every round the matmul peak, one seed, several seeds and the peer are measured one after the other, so that
a machine that slows down slows all of them; ratios are taken within rounds. The share counts only the multiplications and
additions of the networks' matrices.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import itertools
import json
import os
import sys
import time
from collections.abc import Callable
from importlib.metadata import version
from typing import Any

import numpy as np
from peer import Peer
from tables import Goal, at_least, spread, spread_text, table

OBSERVED, ACTED, BATCH, WIDTH = 17, 6, 256, 256
# Updates in one round, of all seeds together: some seconds of work. `train` works in chunks of a hundredth of a run.
UPDATES = {"bc": 5_000, "td3-bc": 2_000, "iql": 2_000, "cql": 100}
PEER_UPDATES = {"bc": 1_500, "td3-bc": 400, "iql": 300, "cql": 30}
RATIOS = {"bc": 4.0, "td3-bc": 2.5, "iql": 3.0, "cql": 1.4}  # goals: times d3rlpy
SHARE = 0.55  # goal: of the matmul peak


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


def recording_of(rows: int) -> Any:
    """`rows` random transitions of HalfCheetah shape, in episodes of 1000 steps."""
    import policylab as lab

    random = np.random.default_rng(0)
    episodes = rows // 1000
    flags = np.zeros(rows, bool)
    return lab.Recording(
        random.standard_normal((rows + episodes, OBSERVED), dtype=np.float32),
        np.tanh(random.standard_normal((rows, ACTED), dtype=np.float32)),
        random.standard_normal(rows).astype(np.float32), flags, flags, np.full(episodes, 1000),
        lab.Spec(lab.Box((OBSERVED,)), lab.Box((ACTED,), -1.0, 1.0)),
    )  # fmt: skip


def ours(name: str, dataset: Any, seeds: int, updates: int) -> Callable[[], float]:
    """Measures the updates per second of all seeds together through the public `train`; compiled before it is returned."""
    import policylab as lab
    from policylab.registry import learner_class

    learner = dataclasses.replace(learner_class(name)(), batch_size=BATCH)
    steps = max(4, updates // seeds)
    lab.train(learner, dataset, steps=4, seeds=seeds)

    def rate() -> float:
        start = time.perf_counter()
        lab.train(learner, dataset, steps=steps, seeds=seeds)
        return steps * seeds / (time.perf_counter() - start)

    return rate


def matmul_peak() -> Callable[[], float]:
    """Measures floating-point operations per second of a float32 product of 2048 x 2048 matrices, the best of five."""
    import jax
    import jax.numpy as jnp

    a = jnp.ones((2048, 2048))
    product = jax.jit(lambda x: x @ x)
    product(a).block_until_ready()

    def peak() -> float:
        best = 0.0
        for _ in range(5):
            start = time.perf_counter()
            product(a).block_until_ready()
            best = max(best, 2 * 2048**3 / (time.perf_counter() - start))
        return best

    return peak


def summary(rounds: list[dict[str, float]], operations: float) -> dict[str, dict[str, float]]:
    """Median, least and most of every rate, and of the ratios within rounds."""
    found = {name: [one[name] for one in rounds] for name in rounds[0]}
    found["share_of_peak"] = [one["one_seed"] * operations / one["peak"] for one in rounds]
    found["gain_of_seeds"] = [one["several_seeds"] / one["one_seed"] for one in rounds]
    if "peer" in found:
        found["ratio"] = [one["one_seed"] / one["peer"] for one in rounds]
    return {name: spread(values) for name, values in found.items()}


def measured(options: argparse.Namespace) -> dict[str, Any]:
    """All learners: medians, least and most over the rounds."""
    import policylab as lab

    dataset, peak, rows, peer_versions = lab.Dataset.of(recording_of(options.rows)), matmul_peak(), [], {}
    for name in options.learners:
        updates = max(4 * options.seeds, int(UPDATES[name] * options.share_of_updates))
        single, several = (ours(name, dataset, seeds, updates) for seeds in (1, options.seeds))
        with contextlib.ExitStack() as stack:
            peer = stack.enter_context(Peer(options.peer_python, name, options.rows)) if options.peer_python else None
            rounds = []
            for _ in range(options.rounds):
                found = {"peak": peak(), "one_seed": single(), "several_seeds": several()}
                if peer:
                    found["peer"] = peer.work(max(4, int(PEER_UPDATES[name] * options.share_of_updates)))["rate"]
                    peer_versions = peer.versions
                rounds.append(found)
                print(name, {key: f"{value:.4g}" for key, value in found.items()}, file=sys.stderr, flush=True)
        rows.append({"learner": name, "operations": operations(name), **summary(rounds, operations(name))})
    versions = {name: version(name) for name in ("policylab", "jax", "equinox", "numpy")} | peer_versions
    return {
        "rows": rows,
        "seeds": options.seeds,
        "rounds": options.rounds,
        "transitions": options.rows,
        "cores": os.cpu_count(),
        "versions": versions,
    }


def table_of(document: dict[str, Any]) -> str:
    """One row per learner, in Markdown."""
    rates = lambda row, name: f"{row[name]['median']:,.0f}" if name in row else ""
    header = (
        "learner", "policylab, updates/s", f"{document['seeds']} seeds, updates/s in total", "d3rlpy, updates/s", "policylab / d3rlpy",
        "share of the matmul peak", f"{document['seeds']} seeds / one",
    )  # fmt: skip
    return table(
        header,
        [
            (
                row["learner"], rates(row, "one_seed"), rates(row, "several_seeds"), rates(row, "peer"),
                spread_text(row["ratio"], "{:.2f}x") if "ratio" in row else "",
                spread_text(row["share_of_peak"], "{:.0%}"), spread_text(row["gain_of_seeds"], "{:.2f}x"),
            )
            for row in document["rows"]
        ],
    )  # fmt: skip


def goals(document: dict[str, Any]) -> list[Goal]:
    """Speed beside the peer, near the hardware, and of several seeds."""
    rows, seeds = document["rows"], document["seeds"]
    return [
        *(
            at_least(
                f"{row['learner']}: {RATIOS[row['learner']]:g}x d3rlpy", row.get("ratio"), RATIOS[row["learner"]], "{:.2f}x"
            )
            for row in rows
        ),
        *(at_least(f"{row['learner']}: {SHARE:.0%} of the matmul peak", row["share_of_peak"], SHARE, "{:.0%}") for row in rows),
        *(
            at_least(f"{row['learner']}: {seeds} seeds together at least as fast as one", row["gain_of_seeds"], 1.0, "{:.2f}x")
            for row in rows
        ),
    ]


def main() -> None:
    """Print the table, or one JSON document."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--peer-python", help="the Python of an environment with torch and d3rlpy")
    parser.add_argument("--learners", nargs="+", default=list(UPDATES), choices=list(UPDATES), help="default: all")
    parser.add_argument("--rows", type=int, default=1_000_000, help="transitions, whole thousands (default: 1,000,000)")
    parser.add_argument("--seeds", type=int, default=5, help="seeds of the several-seeds column (default: 5)")
    parser.add_argument("--rounds", type=int, default=5, help="how often everything is measured (default: 5)")
    parser.add_argument("--json", action="store_true", help="print one JSON document")
    parser.add_argument("--tiny", action="store_true", help="try the script with sizes that say nothing")
    options = parser.parse_args()
    options.share_of_updates = 1.0
    if options.tiny:
        options.rows, options.rounds, options.share_of_updates = 2_000, 2, 0.01
    document = measured(options)
    print(json.dumps(document) if options.json else table_of(document))


if __name__ == "__main__":
    main()
