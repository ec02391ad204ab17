"""Times the statistics of a score table against rliable in one run, compares the numbers, and prints ratios.

    python benchmarks/score_statistics.py                               ours alone
    python benchmarks/score_statistics.py --peer-python peer/bin/python both; the peer's environment has rliable

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
from typing import Any

import numpy as np
from tables import Goal, table

THRESHOLDS = np.linspace(0, 1, 81)
JOBS = {
    "aggregates": "median, IQM, mean, optimality gap",
    "improvement": "probability of improvement, 10 pairs",
    "profile": "performance profile, 81 thresholds",
}
RATIOS = {"aggregates": 20.0, "improvement": 100.0}  # goals: times rliable


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


def beside(mine: dict, theirs: dict) -> dict[str, float]:
    """One job of the peer's, how much longer it took, and how far the numbers are apart."""
    a, b = np.asarray(mine["numbers"]), np.asarray(theirs["numbers"])
    width = np.maximum(b[:, 2] - b[:, 1], 1e-12)
    wide = width > 1e-9  # a profile has no width where no score or every score lies above
    return {
        "rliable_s": theirs["first"],
        "ratio": theirs["first"] / mine["first"],
        "largest_difference_of_values": float(np.abs(a[:, 0] - b[:, 0]).max()),
        "largest_difference_of_ends_in_widths": float((np.abs(a[:, 1:] - b[:, 1:]) / width[:, None])[wide].max()),
    }


def measured(options: argparse.Namespace) -> dict[str, Any]:
    """Ours, and the peer's where one is given."""
    ours = in_process_of(sys.executable, "ours", options)
    peer = in_process_of(options.peer_python, "peer", options) if options.peer_python else None
    rows = []
    for name, words in JOBS.items():
        mine = ours["jobs"][name]
        row = {"name": name, "job": words, "replicates": getattr(options, name)}
        row |= {"ours_first_s": mine["first"], "ours_median_s": mine["median"]}
        rows.append(row | (beside(mine, peer["jobs"][name]) if peer else {}))
    versions = dict(ours["versions"])
    if peer:  # each side has a NumPy of its own
        versions |= {
            name if name not in versions else f"the peer's {name}": number for name, number in peer["versions"].items()
        }
    return {"rows": rows, "versions": versions, "cores": os.cpu_count()}


def table_of(document: dict[str, Any]) -> str:
    """One row per job, in Markdown."""
    shown = lambda row, name, write: write.format(row[name]) if name in row else ""
    return table(
        (
            "job",
            "replicates",
            "policylab, first call",
            "median",
            "rliable",
            "rliable / policylab",
            "values differ by",
            "interval ends differ by (of width)",
        ),
        [
            (
                row["job"], f"{row['replicates']:,}", f"{row['ours_first_s']:.3f} s", f"{row['ours_median_s']:.3f} s",
                shown(row, "rliable_s", "{:.1f} s"), shown(row, "ratio", "{:.0f}x"),
                shown(row, "largest_difference_of_values", "{:.1e}"), shown(row, "largest_difference_of_ends_in_widths", "{:.1%}"),
            )
            for row in document["rows"]
        ],
    )  # fmt: skip


def goals(document: dict[str, Any]) -> list[Goal]:
    """Speed beside the peer."""
    rows = {row["name"]: row for row in document["rows"]}
    return [
        Goal(
            f"bootstrap of {rows[name]['job']}: {least:g}x rliable",
            f"{rows[name]['ratio']:.0f}x" if "ratio" in rows[name] else None,
            rows[name].get("ratio", 0.0) >= least,
        )
        for name, least in RATIOS.items()
    ]


def main() -> None:
    """Print the table, or one JSON document."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--peer-python", help="a Python that can import rliable")
    parser.add_argument("--aggregates", type=int, default=50_000, help="replicates of the four aggregates (default 50000)")
    parser.add_argument("--improvement", type=int, default=2_000, help="replicates of each pair (default 2000)")
    parser.add_argument("--profile", type=int, default=2_000, help="replicates of each profile (default 2000)")
    parser.add_argument("--repeats", type=int, default=5, help="how often our side runs each job (default 5)")
    parser.add_argument("--json", action="store_true", help="print one JSON document")
    parser.add_argument("--tiny", action="store_true", help="try the script with sizes that say nothing")
    parser.add_argument("--side", choices=("ours", "peer"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.tiny:
        options.aggregates, options.improvement, options.profile = 200, 50, 50
    if options.side:
        print(json.dumps(timed(options.side, {name: getattr(options, name) for name in JOBS}, options.repeats)))
        return
    document = measured(options)
    print(json.dumps(document) if options.json else table_of(document))


if __name__ == "__main__":
    main()
