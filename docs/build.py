"""Regenerate what is generated: the table of systems in README.md. Run by `make docs`."""

from __future__ import annotations

import re
from collections import Counter
from pathlib import Path

from policylab.catalogue import systems

ROOT = Path(__file__).parent.parent


def table() -> str:
    """Systems by family and status, then those with a verdict."""
    rows = systems()
    status = Counter((row["family"], row["status"]) for row in rows)
    lines = ["| family | works | partial | absent |", "|---|---|---|---|"]
    for family in sorted({row["family"] for row in rows}):
        lines.append(f"| {family} | " + " | ".join(str(status[family, name]) for name in ("works", "partial", "absent")) + " |")
    judged = [row for row in rows if row["verdict"]]
    if judged:
        lines += ["", "| system | verdict | scale |", "|---|---|---|"]
        lines += [f"| {row['id']}: {row['title']} | {row['verdict']} | {row['scale']} |" for row in judged]
    return "\n".join(lines)


def main() -> None:
    """Replace the part between the markers."""
    page = ROOT / "README.md"
    text = re.sub(
        r"(<!-- systems: [^>]*-->\n).*?(<!-- /systems -->)",
        lambda m: m[1] + table() + "\n" + m[2],
        page.read_text(),
        flags=re.S,
    )
    page.write_text(text)


if __name__ == "__main__":
    main()
