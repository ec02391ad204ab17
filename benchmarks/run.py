"""All benchmarks, one after the other, and the page of the documentation that they fill.

    python benchmarks/run.py --peer-python peer/bin/python --markdown docs/benchmarks.md

`--peer-python` is the Python of an environment with the peers (`make peer`); without it ours alone is measured. Without
`--markdown` the page is printed.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import offline_updates
import online_updates
import score_statistics
import start_up
from tables import goal_table, versions_text

COMMAND = "python benchmarks/run.py --peer-python peer/bin/python --markdown docs/benchmarks.md"
SCRIPTS = {"updates": offline_updates, "start": start_up, "scores": score_statistics}


def page(documents: dict[str, dict[str, Any]], *, load: float, tiny: bool) -> str:
    """The page, in Markdown; every number and every verdict in it comes from `documents`."""
    updates, start, scores = (documents[name] for name in SCRIPTS)
    goals = [goal for name, script in SCRIPTS.items() for goal in script.goals(documents[name])]
    verdicts = [goal.verdict for goal in goals]
    met, known = verdicts.count("met"), len(goals) - verdicts.count("not measured")
    peak = max(row["peak"]["median"] for row in updates["rows"]) / 1e9
    warning = "\n**This is a trial with tiny sizes: its numbers say nothing.**\n" if tiny else ""
    seeds, rounds, transitions = updates["seeds"], updates["rounds"], f"{updates['transitions']:,}"
    return f"""# Benchmarks
{warning}
All of this page down to the last section, its verdicts included, was written by one command, which `make benchmark` runs:

```
{COMMAND}
```

The peers have an environment of their own, made by `make peer` from `benchmarks/peer.txt`; nothing of policylab depends on them.
The numbers are of one run on {os.cpu_count()} CPU cores that multiply float32 matrices at {peak:,.0f} GFLOP/s. Ratios carry over to other
machines better than times do. Before it began, {load:.1f} processes were busy in the mean of a minute; PyTorch suffers more than JAX where
others keep the cores busy, so that the ratios below are fair only where this is near 0.

## Goals

{met} of {known} goals that were measured were met. Where there are several rounds or processes, the median decides; the range
stands in brackets.

{goal_table(goals)}

## Updates per second

Batch 256, {transitions} transitions of HalfCheetah shape (17 observed numbers, 6 of action), networks of two layers of 256,
each library's own sampling included. {rounds} rounds; in each the matmul peak, one seed, {seeds} seeds and d3rlpy are measured one after
the other, and ratios are taken within the round: medians, and the range over rounds. The share of the peak counts the
multiplications and additions of the networks' matrices that the method needs, each once.

{offline_updates.table_of(updates)}

Versions: {versions_text(updates["versions"])}.
By itself: `python benchmarks/offline_updates.py --peer-python peer/bin/python`.

## Start-up and memory

{start["runs"]} new processes for each number. The first update is one of IQL on 2,000 transitions of the same shape. Memory is the largest
resident size of the whole process, its data included.

{start_up.table_of(start)}

Versions: {versions_text(start["versions"])}.
By itself: `python benchmarks/start_up.py --peer-python peer/bin/python`.

## Statistics of scores

5 methods x 10 seeds x 9 tasks, both sides the same scores, each side in a process of its own; the first call of each, nothing
warmed up, decides. The ends of intervals differ as two bootstraps with other random numbers do.

{score_statistics.table_of(scores)}

Versions: {versions_text(scores["versions"])}.
By itself: `python benchmarks/score_statistics.py --peer-python peer/bin/python`.
"""


def kept(page: Path | None) -> str:
    """The section of the old page that `online_updates.py` has written; it has a command of its own."""
    begin, end = online_updates.BEGIN, online_updates.END
    old = page.read_text() if page and page.exists() else ""
    inside = old.split(begin)[1].split(end)[0] if begin in old and end in old else "\n"
    return f"\n{begin}{inside}{end}\n"


def main() -> None:
    """Run every script in a process of its own and write the page."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--peer-python", help="the Python of an environment with torch, d3rlpy and rliable")
    parser.add_argument("--markdown", type=Path, help="write the page there")
    parser.add_argument("--json", action="store_true", help="print one JSON document instead of the page")
    parser.add_argument("--tiny", action="store_true", help="try everything with sizes that say nothing")
    options = parser.parse_args()
    given = ["--json", *(["--peer-python", options.peer_python] if options.peer_python else []), *["--tiny"] * options.tiny]
    load, documents = os.getloadavg()[0], {}
    for name, script in SCRIPTS.items():
        print(f"== {Path(str(script.__file__)).name}", file=sys.stderr, flush=True)
        done = subprocess.run([sys.executable, str(script.__file__), *given], stdout=subprocess.PIPE, text=True, check=True)
        documents[name] = json.loads(done.stdout.splitlines()[-1])
    text = page(documents, load=load, tiny=options.tiny)
    if options.markdown:
        options.markdown.write_text(text + kept(options.markdown))
    if options.json or not options.markdown:
        print(json.dumps(documents) if options.json else text)


if __name__ == "__main__":
    main()
