"""The code in the documentation runs, its links lead somewhere, and what it says of the command line is so."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest

from policylab.commands import COMMANDS

ROOT = Path(__file__).parent.parent
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]
BLOCKS = [
    (page.name, i, code) for page in PAGES for i, code in enumerate(re.findall(r"```python\n(.*?)```", page.read_text(), re.S))
]


@pytest.fixture
def log(tmp_path, monkeypatch):
    """A folder with the small log that the examples read."""
    random = np.random.default_rng(0)
    rows = [f"{random.normal():.4f},{random.normal():.4f},{random.integers(3)},{random.integers(2)},0.3333" for _ in range(200)]
    (tmp_path / "log.csv").write_text("x_0,x_1,item,click,p\n" + "\n".join(rows) + "\n")
    monkeypatch.chdir(tmp_path)


@pytest.mark.parametrize(("page", "number", "code"), BLOCKS, ids=[f"{page}-{number}" for page, number, _ in BLOCKS])
def test_code_in_the_documentation_runs(log, page, number, code):
    exec(compile(code, f"{page}, block {number}", "exec"), {"__name__": "__main__"})


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page):
    for target in re.findall(r"\]\(([^)#]+)\)", page.read_text()):
        assert target.startswith("http") or (page.parent / target).exists(), f"{page.name} links to {target}"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_commands_that_are_shown_exist(page):
    for block in re.findall(r"```\n(.*?)```", page.read_text(), re.S):
        for command in re.findall(r"^policylab (\w+)", block, re.M):
            assert command in COMMANDS
