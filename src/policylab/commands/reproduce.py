"""`policylab reproduce`: test the claim of a published system and record the verdict."""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from policylab import claims
from policylab.commands.arguments import Parser, whole
from policylab.commands.output import Result

STATUS = {"supported": 0, "refuted": 3, "inconclusive": 4}


def run(argv: Sequence[str]) -> tuple[argparse.Namespace, Result]:
    """Run one claim."""
    parser = Parser(
        "reproduce",
        "The claim says who said what, on which task, with which arms, margins and looks (5, 10, 20 seeds unless it says otherwise);\n"
        "all were fixed before its first run. Exit status: 0 supported, 3 refuted, 4 inconclusive.",
        "Examples:\n  policylab reproduce riql\n  policylab reproduce riql --seeds 10 --first-seed 100",
        words="NAME",
        out="the folder of results, NAME.jsonl, to which every run is appended (default: results)",
        seed="the same as --first-seed",
    )
    parser.add_argument("name", metavar="NAME", help="a system of `policylab systems` that has a claim")
    parser.add_argument(
        "--seeds", type=whole(2), metavar="N", help="a rerun with one look after N seeds (default: the claim's own looks)"
    )
    parser.add_argument(
        "--first-seed",
        type=whole(0),
        metavar="K",
        help="number of the first seed; another than 0 is a rerun, never a replacement",
    )
    options = parser.read(argv)
    claims.load(options.name)

    from policylab.evaluation.reproduction import reproduce, reproduce_json, reproduce_text

    first = options.seed if options.first_seed is None else options.first_seed
    verdict = reproduce(options.name, seeds=options.seeds, first_seed=first, folder=options.out or "results", progress=True)
    return options, Result(reproduce_json(verdict), reproduce_text(verdict), STATUS[verdict.verdict], written=True)
