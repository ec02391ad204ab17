"""What the sandbox refuses, on any machine: nothing ever runs without its walls."""

from __future__ import annotations

import pytest

from policylab.environments import sandbox as room
from policylab.environments.sandbox import Sandbox
from policylab.errors import BadInput


def test_what_cannot_be_isolated_is_refused(monkeypatch, tmp_path):
    with pytest.raises(BadInput, match="no plain file name"):
        Sandbox(files=1 << 20).run("", files={"../escaped": ""})
    with pytest.raises(BadInput, match="32 MiB to each process"):
        Sandbox(memory=64 << 20, processes=8)
    assert "larger than" in Sandbox(files=1 << 20).run("#" * (2 << 20)).errors
    # A machine that allows no namespaces: the same warden with the call refused.
    weak = tmp_path / "warden.py"
    weak.write_text(room._WARDEN.read_text().replace("LIBC.unshare(", "(lambda *_: -1)("))
    monkeypatch.setattr(room, "_WARDEN", weak)
    with pytest.raises(BadInput, match="cannot be locked in here: making"):
        Sandbox(files=1 << 20).run("print('ran')")
    broken = tmp_path / "broken.py"
    broken.write_text("raise SystemExit(3)")
    monkeypatch.setattr(room, "_WARDEN", broken)
    with pytest.raises(BadInput, match="without a word"):
        Sandbox(files=1 << 20).run("print('ran')")
