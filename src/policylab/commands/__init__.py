"""The commands: one small file each, imported when it is called. Nothing here is heavier than the standard library."""

from __future__ import annotations

import difflib
from collections.abc import Iterable

COMMANDS = {
    "solve": "from data (and perhaps a simulator) to the best policy they can give, with the evidence",
    "train": "one learner on logged experience, several seeds at once",
    "evaluate": "how good a trained run or a saved policy is, with its interval",
    "compare": "several learners on equal terms: paired differences with corrected intervals",
    "diagnose": "the card of a dataset: what it holds, what is wrong with it, what it advises",
    "chat": "talk with a language model of a checkpoint folder, in the terminal",
    "collect": "run a policy in an environment and write what it experiences as a dataset",
    "reproduce": "test the claim of a published system and record the verdict",
    "systems": "the published systems, which of them work here and what became of their claims",
    "serve": "a language model or a control policy behind HTTP",
    "tasks": "the tasks and their datasets",
    "learners": "the learners and all their settings",
}


def overview() -> str:
    """What `policylab --help` prints."""
    width = max(map(len, COMMANDS))
    lines = [f"  {name:<{width}}  {what}" for name, what in COMMANDS.items()]
    return "\n".join(
        [
            "policylab: learn decision policies from data, and know how far to believe them.",
            "",
            "usage: policylab COMMAND [options]      (policylab COMMAND --help explains its options)",
            "",
            *lines,
            "",
            "Every command takes --seed, --out and --json (one JSON document on standard output, all else on standard error).",
            "Exit status: 0 done, 1 training diverged or memory ran out, 2 bad input, 3 claim refuted, 4 claim inconclusive.",
            "",
            "Start with: policylab solve --task pointmaze/umaze --dataset mixed",
        ]
    )


def nearest(wrong: str, known: Iterable[str], otherwise: str) -> str:
    """The end of a sentence about an unknown name: `did you mean ...?`, or `otherwise`."""
    close = difflib.get_close_matches(wrong, list(known), n=1)
    return f"did you mean {close[0]}?" if close else otherwise
