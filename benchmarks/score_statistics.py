"""Times the statistics of a score table against rliable in one run, compares the numbers, and prints ratios.

    python benchmarks/score_statistics.py [--peer-python ENVIRONMENT/bin/python] [--json]

Both sides get the same scores: 5 methods x 10 seeds x 9 tasks. Each side runs in a process of its own, one after the other. Our
first call is the one compared (nothing is warmed up before it); its median over `--repeats` calls stands beside it.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from importlib.metadata import version
from itertools import combinations

import numpy as np

THRESHOLDS = np.linspace(0, 1, 81)
JOBS = {
    "aggregates": "median, IQM, mean, optimality gap",
    "improvement": "probability of improvement, 10 pairs",
    "profile": "performance profile, 81 thresholds",
}


def made_scores() -> dict[str, np.ndarray]:
    generator = np.random.default_rng(0)
    return {f"method {i}": generator.random((10, 9)) for i in range(5)}


def our_jobs(replicates: dict[str, int]):
    from policylab.evaluation import aggregates

    scores = made_scores()

    def every_aggregate():
        table = aggregates.aggregate_intervals(scores, replicates=replicates["aggregates"])
        return [
            [row[name].value, *row[name].interval]
            for row in table.values()
            for name in ("median", "iqm", "mean", "optimality_gap")
        ]

    def every_pair():
        pairs = [
            aggregates.probability_of_improvement(scores[a], scores[b], replicates=replicates["improvement"])
            for a, b in combinations(scores, 2)
        ]
        return [[pair.value, *pair.interval] for pair in pairs]

    def every_profile():
        found = [
            aggregates.performance_profile(table, THRESHOLDS, replicates=replicates["profile"]) for table in scores.values()
        ]
        return np.concatenate([np.stack([p.value, p.low, p.high], axis=1) for p in found]).tolist()

    return {"aggregates": every_aggregate, "improvement": every_pair, "profile": every_profile}


def peer_jobs(replicates: dict[str, int]):
    from rliable import library, metrics

    scores = made_scores()
    measured = (metrics.aggregate_median, metrics.aggregate_iqm, metrics.aggregate_mean, metrics.aggregate_optimality_gap)

    def rows(values, intervals):
        return np.concatenate([np.vstack([np.atleast_1d(values[name]), intervals[name]]).T for name in values]).tolist()

    def every_aggregate():
        together = lambda table: np.array([one(table) for one in measured])
        return rows(*library.get_interval_estimates(scores, together, reps=replicates["aggregates"]))

    def every_pair():
        pairs = {f"{a},{b}": (scores[a], scores[b]) for a, b in combinations(scores, 2)}
        return rows(*library.get_interval_estimates(pairs, metrics.probability_of_improvement, reps=replicates["improvement"]))

    def every_profile():
        return rows(*library.create_performance_profile(scores, THRESHOLDS, reps=replicates["profile"]))

    return {"aggregates": every_aggregate, "improvement": every_pair, "profile": every_profile}


def timed(side: str, replicates: dict[str, int], repeats: int) -> dict:
    jobs = our_jobs(replicates) if side == "ours" else peer_jobs(replicates)
    result = {}
    for name, job in jobs.items():
        seconds = []
        for _ in range(repeats if side == "ours" else 1):
            start = time.perf_counter()
            numbers = job()
            seconds.append(time.perf_counter() - start)
        result[name] = {"first": seconds[0], "median": float(np.median(seconds)), "numbers": numbers}
    packages = ("policylab", "numpy") if side == "ours" else ("rliable", "arch", "numpy", "scipy")
    return {"jobs": result, "versions": {name: version(name) for name in packages}}


def in_process_of(python: str, side: str, arguments: argparse.Namespace) -> dict:
    command = [python, __file__, "--side", side, "--repeats", str(arguments.repeats)]
    for name in JOBS:
        command += [f"--{name}", str(getattr(arguments, name))]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    return json.loads(done.stdout.splitlines()[-1])


def compared(ours: dict, peer: dict, arguments: argparse.Namespace) -> list[dict]:
    rows = []
    for name, words in JOBS.items():
        mine, theirs = ours["jobs"][name], peer["jobs"][name]
        a, b = np.asarray(mine["numbers"]), np.asarray(theirs["numbers"])
        width = np.maximum(b[:, 2] - b[:, 1], 1e-12)
        wide = width > 1e-9  # a profile has no width where no score or every score lies above
        rows.append(
            {
                "job": words,
                "replicates": getattr(arguments, name),
                "ours_first_s": mine["first"],
                "ours_median_s": mine["median"],
                "rliable_s": theirs["first"],
                "ratio": theirs["first"] / mine["first"],
                "largest_difference_of_values": float(np.abs(a[:, 0] - b[:, 0]).max()),
                "largest_difference_of_ends_in_widths": float((np.abs(a[:, 1:] - b[:, 1:]) / width[:, None])[wide].max()),
            }
        )
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--peer-python", default=sys.executable, help="a Python that can import rliable (default: this one)")
    parser.add_argument("--aggregates", type=int, default=50_000, help="replicates of the four aggregates (default 50000)")
    parser.add_argument("--improvement", type=int, default=2_000, help="replicates of each pair (default 2000)")
    parser.add_argument("--profile", type=int, default=2_000, help="replicates of each profile (default 2000)")
    parser.add_argument("--repeats", type=int, default=5, help="how often our side runs each job (default 5)")
    parser.add_argument("--json", action="store_true", help="print one JSON document")
    parser.add_argument("--side", choices=("ours", "peer"), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.side:
        print(json.dumps(timed(arguments.side, {name: getattr(arguments, name) for name in JOBS}, arguments.repeats)))
        return
    ours = in_process_of(sys.executable, "ours", arguments)
    peer = in_process_of(arguments.peer_python, "peer", arguments)
    rows = compared(ours, peer, arguments)
    versions = {"ours": ours["versions"], "peer": peer["versions"], "cores": os.cpu_count()}
    if arguments.json:
        print(json.dumps({"rows": rows, "versions": versions}))
        return
    print(f"ours {ours['versions']}, peer {peer['versions']}, {os.cpu_count()} cores; 5 methods x 10 seeds x 9 tasks")
    print(
        "| job | replicates | ours, first call | ours, median | rliable | ratio | values differ by | ends differ by (of width) |"
    )
    print("|---|---|---|---|---|---|---|---|")
    for row in rows:
        print(
            f"| {row['job']} | {row['replicates']:,} | {row['ours_first_s']:.3f} s | {row['ours_median_s']:.3f} s "
            f"| {row['rliable_s']:.1f} s | {row['ratio']:.0f}x | {row['largest_difference_of_values']:.1e} "
            f"| {row['largest_difference_of_ends_in_widths']:.1%} |"
        )


if __name__ == "__main__":
    main()
