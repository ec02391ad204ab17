"""Steps per second of preference training and of group policy gradients on language models, beside TRL, in one run.

    python benchmarks/language_training.py                                                                     ours alone
    python benchmarks/language_training.py --peer-python peer-language/bin/python --markdown docs/benchmarks.md

GPT-2 shapes of 0.8 and 10.8 million random weights, prompts and answers of 64 characters. A DPO step is 16 pairs and the reference's
pass over them; a GRPO step writes 8 answers to each of 2 prompts and learns from them once, without a reference, as is TRL's default. Ours
is the public `train`, compiled before; of both sides steps are counted, not what comes before the first one. In every round ours and the
peers are measured one after the other and ratios are taken within rounds.
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

from language_peer_rates import ANSWER, BATCH, GROUP, PROMPT, SHAPES
from peer import Peer
from tables import Goal, at_least, goal_table, spread, spread_text, table, versions_text, write_section

BEGIN, END = "<!-- language training: begin -->", "<!-- language training: end -->"
COMMAND = "python benchmarks/language_training.py --peer-python peer-language/bin/python --markdown docs/benchmarks.md"
VOCABULARY = 99
STEPS = {("dpo", "0.8M"): 10, ("dpo", "10.8M"): 3, ("grpo", "0.8M"): 10, ("grpo", "10.8M"): 3}
GOALS = {("dpo", "0.8M"): 1.3, ("dpo", "10.8M"): 1.15, ("grpo", "0.8M"): 2.5, ("grpo", "10.8M"): 1.3}
PRECISIONS = {"float32": "TRL, float32", "default": "TRL, its default (bfloat16)"}


def ours(method: str, shape: str) -> Callable[[int], float]:
    """Measures steps per second."""
    import jax
    import jax.numpy as jnp

    import policylab as lab
    from policylab.experience import Tokens
    from policylab.networks.decoder import Architecture, Decoder
    from policylab.policies.language import language_policy, text_spec
    from policylab.scorer import Scorer
    from policylab.tokenizer import characters

    layers, width, heads = SHAPES[shape]
    words = characters("".join(chr(code) for code in range(32, 127)))
    network = Decoder(
        Architecture(
            vocabulary=VOCABULARY, width=width, layers=layers, heads=heads, groups=heads, size=width // heads, hidden=4 * width,
            context=256, positions="learned", norm="layer", forward="gelu", bias=True, epsilon=1e-5,
        ),
        key=jax.random.key(0),
    )  # fmt: skip
    spec = text_spec(words, prompt=PROMPT, answer=ANSWER)
    start = language_policy(network, words, answer=ANSWER)
    keys = jax.random.split(jax.random.key(1), 3)
    rows = 16 * BATCH
    drawn = lambda key, length: jax.random.randint(key, (rows, length), 4, VOCABULARY)
    prompt = Tokens(drawn(keys[0], PROMPT), jnp.ones((rows, PROMPT), jnp.int32))

    class Letters(Scorer):
        """How many tokens of an answer are the letter a."""

        def scores(self, observation: Any, action: Any) -> Any:
            return jnp.sum((action.ids == 69) & (action.kind == 2), dtype=jnp.float32)[None]

    if method == "dpo":
        answer = lambda key: Tokens(drawn(key, ANSWER), jnp.full((rows, ANSWER), 2, jnp.int32))
        source: Any = lab.Preferences.of(prompt, answer(keys[1]), answer(keys[2]), spec=spec)
        learner: Any = lab.DPO(batch_size=BATCH)
    else:
        source = lab.Responses.of(prompt, Letters(), spec=spec)
        learner = lab.GroupPolicyGradient(anchor="none", batch_size=BATCH // GROUP, group=GROUP)

    def seconds(steps: int) -> float:
        begin = time.perf_counter()
        lab.train(learner, source, steps=steps, given={"start": start})
        return time.perf_counter() - begin

    def rate(steps: int) -> float:
        return steps / (seconds(2 + steps) - seconds(2))

    rate(1)
    return rate


def measured(options: argparse.Namespace) -> dict[str, Any]:
    """All cases: rates of every round."""
    versions, rows = {}, []
    for method, shape in STEPS:
        if shape not in options.shapes or method not in options.methods:
            continue
        steps, mine, rounds = 2 if options.tiny else STEPS[method, shape], ours(method, shape), []
        with contextlib.ExitStack() as stack:
            peers = {}
            for precision in PRECISIONS if options.peer_python else ():
                script = Path(__file__).with_name("language_peer_rates.py")
                peers[precision] = stack.enter_context(Peer(options.peer_python, method, shape, precision, script=script))
                versions |= peers[precision].versions
            for _ in range(options.rounds):
                found = {"ours": mine(steps)}
                for precision, peer in peers.items():
                    found[precision] = peer.work(steps)["rate"]
                rounds.append(found)
                print(
                    method, shape, {key: f"{1000 / value:,.0f} ms" for key, value in found.items()}, file=sys.stderr, flush=True
                )
        rows.append({"method": method, "shape": shape, "rounds": rounds})
    own = {name: version(name) for name in ("policylab", "jax")}
    return {"rows": rows, "rounds": options.rounds, "load": options.load, "versions": own | versions}


def ratio(row: dict[str, Any], peer: str) -> dict[str, float] | None:
    """The spread of ours over a peer's, within rounds."""
    return spread([one["ours"] / one[peer] for one in row["rounds"]]) if peer in row["rounds"][0] else None


def goals(document: dict[str, Any]) -> list[Goal]:
    """Speed beside TRL in float32."""
    name = lambda row: f"{row['method'].upper()}, {row['shape']}: {GOALS[row['method'], row['shape']]:g}x TRL in float32"
    return [
        at_least(name(row), ratio(row, "float32"), GOALS[row["method"], row["shape"]], "{:.2f}x") for row in document["rows"]
    ]


def section(document: dict[str, Any]) -> str:
    """The part of the page, in Markdown."""
    took = lambda row, name: (
        f"{1000 / spread([one[name] for one in row['rounds']])['median']:,.0f}" if name in row["rounds"][0] else ""
    )
    times = lambda row, name: spread_text(found, "{:.2f}x") if (found := ratio(row, name)) else ""
    header = (
        "",
        "policylab, ms",
        *(f"{name}, ms" for name in PRECISIONS.values()),
        *(f"x {name}" for name in PRECISIONS.values()),
    )
    lines = [
        (
            f"{row['method'].upper()}, {row['shape']}", took(row, "ours"), *(took(row, name) for name in PRECISIONS),
            *(times(row, name) for name in PRECISIONS),
        )
        for row in document["rows"]
    ]  # fmt: skip
    return f"""## Training language models

Written by `{COMMAND}` on {len(os.sched_getaffinity(0))} CPU core(s),
{document["rounds"]} rounds; medians, and the range of the ratios over rounds. Before it began {document["load"]:.1f} processes were busy
in the mean of a minute. GPT-2 shapes with random weights; ours is float32. A DPO step is 16 pairs of 128 tokens and the reference's pass; a
GRPO step writes 16 answers of 64 tokens and learns from them.

{goal_table(goals(document))}

{table(header, lines)}

Versions: {versions_text(document["versions"])}.
"""


def main() -> None:
    """Print the section, write it into the page, or print one JSON document."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--peer-python", help="the Python of an environment with trl, transformers, datasets and torch")
    parser.add_argument("--methods", nargs="+", default=["dpo", "grpo"], choices=["dpo", "grpo"], help="default: both")
    parser.add_argument("--shapes", nargs="+", default=list(SHAPES), choices=list(SHAPES), help="default: both")
    parser.add_argument("--rounds", type=int, default=3, help="how often everything is measured (default: 3)")
    parser.add_argument("--markdown", type=Path, help=f"write the section into this page, between {BEGIN} and {END}")
    parser.add_argument("--json", action="store_true", help="print one JSON document")
    parser.add_argument("--tiny", action="store_true", help="two steps each: tries the script, says nothing")
    options = parser.parse_args()
    options.load = os.getloadavg()[0]
    document = measured(options)
    if options.markdown:
        write_section(options.markdown, BEGIN, END, section(document))
    else:
        print(json.dumps(document) if options.json else section(document))


if __name__ == "__main__":
    main()
