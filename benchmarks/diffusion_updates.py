"""Diffusion Policy with its 65-million-parameter U-Net beside the same in PyTorch: training steps and plans per second, in one run.

    python benchmarks/diffusion_updates.py                                                                      ours alone
    python benchmarks/diffusion_updates.py --peer-python peer-language/bin/python --markdown docs/benchmarks.md

PushT's sizes: 2 observations of 5 numbers, plans of 16 actions of 2 numbers, batches of 64 windows, AdamW and averaged weights; a plan is
10 DDIM steps for one observation. Our training steps are those within one entry of the compiled loop, which a run of 100,000 steps enters
every 1,000; entering it costs once what the system takes to hand out its memory. In every round ours and the peer are measured one after
the other and ratios are taken within rounds.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import sys
import time
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

from peer import Peer
from tables import Goal, at_least, goal_table, spread, spread_text, table, versions_text, write_section

BEGIN, END = "<!-- diffusion: begin -->", "<!-- diffusion: end -->"
COMMAND = "python benchmarks/diffusion_updates.py --peer-python peer-language/bin/python --markdown docs/benchmarks.md"
BATCH, SEEN, OBSERVED, STEPS, CHANNELS, LEVELS = 64, 2, 5, 16, 2, 10
COUNTS = {"train": 4, "sample": 4}
GOALS = {"train": (1.3, "a training step: 1.3x"), "sample": (1.5, "a plan: 1.5x")}
WORDS = {"train": "training step, 64 windows", "sample": "plan, 10 DDIM steps, one observation"}


def ours() -> dict[str, Callable[[int], float]]:
    """Measure training steps and plans per second."""
    import jax
    import jax.numpy as jnp
    import numpy as np

    import policylab as lab
    from policylab.data.recording import Recording
    from policylab.hyperparameters import traced
    from policylab.program import advance, initialise
    from policylab.sources.dataset import Dataset

    episodes, length = 8, 64
    random, rows = np.random.default_rng(0), 8 * 64
    draw = lambda rows, width: random.uniform(-1, 1, (rows, width)).astype(np.float32)
    none = np.zeros(rows, bool)
    ends = none.copy()
    ends[length - 1 :: length] = True
    spec = lab.Spec(lab.Box((OBSERVED,)), lab.Box((CHANNELS,), -1.0, 1.0))
    data = Recording(draw(rows + episodes, OBSERVED), draw(rows, CHANNELS), None, none, ends, np.full(episodes, length), spec)
    form = lab.Receding(policy=lab.UNetDiffusion(levels=LEVELS), seen=SEEN, horizon=STEPS, played=8)
    learner, seeds = lab.DiffusionCloning(policy=form, batch_size=BATCH), (0,)
    source, (live, keys) = Dataset.of(data).serve(learner.needs), (traced(learner), jnp.asarray(seeds))
    runs = {"carry": initialise(live, source, {}, keys, jnp.asarray(0), ()), "step": 0}

    def seconds(steps: int) -> float:
        start, first = time.perf_counter(), runs["step"]
        runs["step"] += steps
        runs["carry"], _, _ = advance(live, source, runs["carry"], keys, seeds, first, runs["step"], 100_000, 0)
        jax.block_until_ready(runs["carry"])
        return time.perf_counter() - start

    def train(count: int) -> float:
        return count / (seconds(1 + count) - seconds(1))

    plan = jax.jit(lambda planner, seen, key: planner.act(seen, None, key=key)[0])
    seconds(1)
    planner = jax.tree.map(lambda leaf: jnp.copy(leaf[0]), learner.products(runs["carry"][0])["policy"]).planner

    def sample(count: int) -> float:
        start = time.perf_counter()
        for i in range(count):
            jax.block_until_ready(plan(planner, jnp.zeros((SEEN, OBSERVED)), jax.random.key(i)))
        return count / (time.perf_counter() - start)

    train(COUNTS["train"]), sample(1)  # all of it compiled, and memory taken
    return {"train": train, "sample": sample}


def measured(options: argparse.Namespace) -> dict[str, Any]:
    """Rates of every round."""
    mine, rounds, versions = ours(), {what: [] for what in COUNTS}, {}
    with contextlib.ExitStack() as stack:
        peer = None
        if options.peer_python:
            script = Path(__file__).with_name("diffusion_peer_rates.py")
            peer = stack.enter_context(Peer(options.peer_python, script=script))
            versions = peer.versions
        for _ in range(options.rounds):
            for what, count in COUNTS.items():
                found = {"ours": mine[what](count)}
                if peer is not None:
                    found["torch"] = peer.work(f"{what} {count}")["rate"]
                rounds[what].append(found)
                print(what, {key: f"{1000 / value:,.0f} ms" for key, value in found.items()}, file=sys.stderr, flush=True)
    own = {name: version(name) for name in ("policylab", "jax")}
    return {"rows": rounds, "rounds": options.rounds, "load": options.load, "versions": own | versions}


def ratio(rounds: list[dict[str, float]]) -> dict[str, float] | None:
    """The spread of ours over the peer's, within rounds."""
    return spread([one["ours"] / one["torch"] for one in rounds]) if "torch" in rounds[0] else None


def goals(document: dict[str, Any]) -> list[Goal]:
    """Speed beside PyTorch."""
    return [at_least(text, ratio(document["rows"][what]), least, "{:.2f}x") for what, (least, text) in GOALS.items()]


def section(document: dict[str, Any]) -> str:
    """The part of the page, in Markdown."""
    took = lambda rounds, name: f"{1000 / spread([one[name] for one in rounds])['median']:,.0f}" if name in rounds[0] else ""
    times = lambda rounds: spread_text(found, "{:.2f}x") if (found := ratio(rounds)) else ""
    lines = [
        (WORDS[what], took(rounds, "ours"), took(rounds, "torch"), times(rounds)) for what, rounds in document["rows"].items()
    ]
    return f"""## Diffusion Policy

Written by `{COMMAND}` on {len(os.sched_getaffinity(0))} CPU core(s),
{document["rounds"]} rounds; medians, and the range of the ratios over rounds. Before it began {document["load"]:.1f} processes were busy
in the mean of a minute. The U-Net has 65 million parameters on both sides. Our training steps are those within one entry of the compiled
loop, which a run of 100,000 steps enters every 1,000.

{goal_table(goals(document))}

{table(("", "policylab, ms", "PyTorch, ms", "policylab / PyTorch"), lines)}

Versions: {versions_text(document["versions"])}.
"""


def main() -> None:
    """Print the section, write it into the page, or print one JSON document."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--peer-python", help="the Python of an environment with torch")
    parser.add_argument("--rounds", type=int, default=3, help="how often everything is measured (default: 3)")
    parser.add_argument("--markdown", type=Path, help=f"write the section into this page, between {BEGIN} and {END}")
    parser.add_argument("--json", action="store_true", help="print one JSON document")
    options = parser.parse_args()
    options.load = os.getloadavg()[0]
    document = measured(options)
    if options.markdown:
        write_section(options.markdown, BEGIN, END, section(document))
    else:
        print(json.dumps(document) if options.json else section(document))


if __name__ == "__main__":
    main()
