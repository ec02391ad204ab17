"""The list of slow tests names tests that exist."""

from __future__ import annotations

import ast
from pathlib import Path

from tests.slow import SLOW

HERE = Path(__file__).parent


def test_every_name_is_that_of_a_test():
    for name in SLOW:
        file, function = name.split("::")
        tree = ast.parse((HERE / file).read_text())
        assert function.partition("[")[0] in {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}, name
