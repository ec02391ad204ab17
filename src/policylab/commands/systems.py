"""`policylab systems`: the catalogue of published systems with status and verdict."""

from __future__ import annotations

import argparse
import shutil
from collections.abc import Sequence

from policylab import catalogue
from policylab.commands.arguments import Parser
from policylab.commands.output import Result

STATUSES = ("works", "partial", "absent")


def run(argv: Sequence[str]) -> tuple[argparse.Namespace, Result]:
    """List the systems."""
    parser = Parser(
        "systems",
        "Status: works (its claim has a verdict), partial (an implementation is there), absent. A verdict with * is older than the code.",
    )
    parser.add_argument("--status", choices=STATUSES, help="only these")
    parser.add_argument("--family", metavar="NAME", help="only this family, such as offline")
    parser.add_argument("--results", metavar="FOLDER", default="results", help="where verdicts of your own runs are")
    options = parser.read(argv)
    document = catalogue.systems_json(options.results)
    families = sorted({row["family"] for row in document["systems"]})
    if options.family is not None and options.family not in families:
        parser.error(f"there is no family {options.family!r}: choose one of {', '.join(families)}")
    rows = [
        row
        for row in document["systems"]
        if options.status in (None, row["status"]) and options.family in (None, row["family"])
    ]
    width = shutil.get_terminal_size((110, 24)).columns
    text = "\n".join([catalogue.systems_table(rows, width), "", *catalogue.footer(document["summary"])])
    return options, Result({**document, "systems": rows}, text)
