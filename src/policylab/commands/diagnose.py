"""`policylab diagnose`: the card of a dataset."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from policylab.commands import inputs
from policylab.commands.arguments import Parser
from policylab.commands.output import Result, claim_place, write_document
from policylab.errors import BadInput


def run(argv: Sequence[str]) -> tuple[argparse.Namespace, Result]:
    """Describe the data and say what they advise."""
    parser = Parser(
        "diagnose",
        "Episodes, returns, coverage, quality, near-duplicates, suspected corruption; what it advises and why.",
        "Examples:\n  policylab diagnose my.hdf5 --environment Hopper-v5\n"
        '  policylab diagnose log.csv --columns "observation=x_*,action=item,reward=click,propensity=p"',
        words="[DATA]",
        out="a new folder for card.json and card.png (default: print the card only)",
        seed="of the subsamples that stand for large data",
    )
    parser.add_argument("subject", nargs="?", metavar="DATA", help="the data, in place of --data")
    inputs.data_options(parser)
    parser.add_argument(
        "--reference", metavar="PATH", help="data of an online run on the same task, to which coverage is compared (SACo)"
    )
    options = parser.read(argv)
    if options.subject is not None and options.data is not None:
        raise BadInput(f"{options.subject} and --data both name data: give one of them")
    options.data = options.data if options.subject is None else options.subject
    place = None if options.out is None else Path(options.out)
    if place is not None:
        claim_place(place, folder=True)
    given = inputs.read_inputs(options)

    from policylab.evaluation.diagnosis import diagnose

    reference = None
    if options.reference is not None:
        from policylab.data.loading import load

        reference = load(options.reference, environment=given.recording.spec)
    scale = given.task.reference or None if given.task is not None else None
    card = diagnose(given.recording, reference=scale, reference_data=reference, seed=options.seed)
    document = {"data": inputs.describe_recording(given.recording, given.name), **card.to_json()}
    text = str(card)
    if place is not None:
        from policylab.checkpoints import write_atomically
        from policylab.evaluation.pictures import card_figure

        write_atomically(place / "card.png", card_figure(card, given.recording))
        write_document(place / "card.json", document)
        text += f"\n{place} holds card.json and card.png"
    return options, Result(document, text, written=True)
