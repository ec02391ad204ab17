"""From the start of a process to the first update, cold and warm; peak memory beside d3rlpy's; the time of `policylab --help`.

    python benchmarks/start_up.py [--peer-python peer/bin/python] [--json]

Every number is the median over new processes. Cold means an empty folder of compiled programs, warm the folder that the cold
process has just filled. Memory is the largest resident size of the whole process (`ru_maxrss`), data included.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from importlib.metadata import version
from pathlib import Path
from typing import Any

from peer import Peer
from tables import Goal, at_most, spread, spread_text, table

COLD, WARM, HELP = 15.0, 6.0, 0.5  # goals, seconds
WIDE_UPDATES = 200  # on the large data set, enough for memory to have reached its peak

# All that a user would write: data of HalfCheetah shape, and training.
PROGRAM = """
import json, resource, sys
import numpy as np
import policylab as lab
rows, updates = int(sys.argv[1]), int(sys.argv[2])
random, flags = np.random.default_rng(0), np.zeros(rows, bool)
recording = lab.Recording(
    random.standard_normal((rows + rows // 1000, 17), dtype=np.float32), np.tanh(random.standard_normal((rows, 6), dtype=np.float32)),
    random.standard_normal(rows).astype(np.float32), flags, flags, np.full(rows // 1000, 1000),
    lab.Spec(lab.Box((17,)), lab.Box((6,), -1.0, 1.0)),
)
lab.train(lab.IQL(), recording, steps=updates)
print(json.dumps({"peak_memory": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss}), flush=True)
"""


def trained(folder: str, rows: int, updates: int) -> dict[str, float]:
    """Seconds from the start of a process to its last update, and its peak memory in MiB."""
    environment = {
        name: value for name, value in os.environ.items() if name not in ("POLICYLAB_CACHE", "JAX_COMPILATION_CACHE_DIR")
    }
    start = time.perf_counter()
    with subprocess.Popen(
        [sys.executable, "-c", PROGRAM, str(rows), str(updates)],
        stdout=subprocess.PIPE,
        text=True,
        env=environment | {"XDG_CACHE_HOME": folder},
    ) as process:
        assert process.stdout is not None
        line = process.stdout.readline()
        seconds = time.perf_counter() - start
    if process.returncode:
        raise SystemExit("the process that trains has failed; its message stands above")
    return {"seconds": seconds, "mebibytes": mebibytes(json.loads(line)["peak_memory"])}


def mebibytes(size: float) -> float:
    """Of `ru_maxrss`, which counts KiB, on macOS bytes."""
    return size / (1024**2 if sys.platform == "darwin" else 1024)


def help_seconds() -> float:
    """Wall-clock time of `policylab --help`."""
    program = Path(sys.executable).with_name("policylab")
    start = time.perf_counter()
    subprocess.run([program, "--help"], stdout=subprocess.DEVNULL, check=True)
    return time.perf_counter() - start


def measured(options: argparse.Namespace) -> dict[str, Any]:
    """Median, least and most of everything over new processes."""
    updates, versions = 4 if options.tiny else WIDE_UPDATES, {name: version(name) for name in ("policylab", "jax", "numpy")}
    found: dict[str, list[dict[str, float]]] = {name: [] for name in ("cold", "warm", "large", "peer")}
    helps = []
    for number in range(options.runs):
        with tempfile.TemporaryDirectory() as folder:
            found["cold"].append(trained(folder, 2_000, 1))
            found["warm"].append(trained(folder, 2_000, 1))
            found["large"].append(trained(folder, options.rows, updates))
        helps.append(help_seconds())
        if options.peer_python:
            with Peer(options.peer_python, "iql", options.rows) as peer:
                found["peer"].append({"mebibytes": mebibytes(peer.work(updates)["peak_memory"])})
                versions |= peer.versions
        last = {name: rows[-1] for name, rows in found.items() if rows}
        print(f"run {number}", last, f"help {helps[-1]:.3f} s", file=sys.stderr, flush=True)
    over = lambda name, value: spread([row[value] for row in found[name]]) if found[name] else None
    return {
        "cold": over("cold", "seconds"), "warm": over("warm", "seconds"), "help": spread(helps),
        "first_update_memory": over("warm", "mebibytes"), "memory": over("large", "mebibytes"), "peer_memory": over("peer", "mebibytes"),
        "runs": options.runs, "transitions": options.rows, "versions": versions, "cores": os.cpu_count(),
    }  # fmt: skip


def table_of(document: dict[str, Any]) -> str:
    """Times and sizes, in Markdown."""
    seconds = lambda name: spread_text(document[name], "{:.1f} s")
    size = lambda name: spread_text(document[name], "{:,.0f} MiB") if document[name] else ""
    large = f"IQL on {document['transitions']:,} transitions"
    return table(
        ("", "median (least to most)"),
        [
            ("process start to first update of IQL, nothing compiled yet", seconds("cold")),
            ("the same with the compiled programs of an earlier process", seconds("warm")),
            ("`policylab --help`", spread_text(document["help"], "{:.2f} s")),
            ("peak memory until the first update", size("first_update_memory")),
            (f"peak memory of {large}", size("memory")),
            (f"d3rlpy's peak memory of {large}", size("peer_memory")),
        ],
    )


def goals(document: dict[str, Any]) -> list[Goal]:
    """How soon one can begin."""
    return [
        at_most(f"first update within {COLD:g} s, cold", document["cold"], COLD, "{:.1f} s"),
        at_most(f"first update within {WARM:g} s, warm", document["warm"], WARM, "{:.1f} s"),
        at_most(f"`policylab --help` within {HELP:g} s", document["help"], HELP, "{:.2f} s"),
    ]


def main() -> None:
    """Print the table, or one JSON document."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--peer-python", help="the Python of an environment with torch and d3rlpy")
    parser.add_argument("--rows", type=int, default=1_000_000, help="transitions where memory is compared (default: 1,000,000)")
    parser.add_argument("--runs", type=int, default=5, help="new processes per number (default: 5)")
    parser.add_argument("--json", action="store_true", help="print one JSON document")
    parser.add_argument("--tiny", action="store_true", help="try the script with sizes that say nothing")
    options = parser.parse_args()
    if options.tiny:
        options.rows, options.runs = 2_000, 1
    document = measured(options)
    print(json.dumps(document) if options.json else table_of(document))


if __name__ == "__main__":
    main()
