"""Histories of many clients on few ids keep every promise: without trouble, and through kills, stops and freezes.

Here under what hits most at once; `make prove` takes turns with all profiles.
"""

from __future__ import annotations

import shutil
import tempfile
from dataclasses import replace
from pathlib import Path

import pytest

from robustness.prove.checkers import check
from robustness.prove.profiles import PROFILES, record

pytestmark = pytest.mark.timeout(180)

# Of traffic, for each profile; what comes before and after it takes as long again.
_SECONDS = 8


@pytest.mark.parametrize("profile", ["all at once", "expiry", "little room", "one file", "power cuts"])
async def test_a_history_keeps_every_promise(tmp_path: Path, profile: str) -> None:
    options, server, mutants = PROFILES[profile]
    history = await record(replace(options, seed="1", seconds=_SECONDS), tmp_path, server, mutants)
    violations = [str(found) for found in check(history)]
    if violations:
        # pytest forgets old folders, and this will not come again.
        kept = Path(tempfile.mkdtemp(prefix="prove-")) / "history.jsonl"
        shutil.copyfile(tmp_path / "history.jsonl", kept)
        pytest.fail(f"{len(violations)} violations in {kept}: {violations[0]}")
    assert sum(op.outcome == "ok" for op in history.ops) > 20
