"""Three servers keep every promise while one after the other is killed, frozen and cut off, and their database goes.

A minute of it, with a fixed seed; `make prove ARGS="--cluster"` goes on for as long as you like.
"""

from __future__ import annotations

import shutil
import tempfile
from dataclasses import replace
from pathlib import Path

import pytest

from robustness.prove.checkers import check
from robustness.prove.checkers.nodes import sendings
from robustness.prove.cluster_world import CALM, record
from robustness.prove.history import FAILS_OVER

pytestmark = pytest.mark.timeout(300)


# Longer freezes, ended sessions and bells that ring for nobody are left to `make prove ARGS="--cluster"`.
DEEDS = ("kill", "freeze", "upgrade", "database restarts", FAILS_OVER, "cut off", "set back")


async def test_a_cluster_keeps_every_promise(tmp_path: Path) -> None:
    history, world = await record(tmp_path, DEEDS, replace(CALM, seed="1"))

    if violations := [str(found) for found in check(history)]:
        # pytest forgets old folders, and this will not come again.
        kept = Path(tempfile.mkdtemp(prefix="prove-")) / "history.jsonl"
        shutil.copyfile(tmp_path / "history.jsonl", kept)
        pytest.fail(f"{len(violations)} violations in {kept}: {violations[0]}")
    assert [fault.what for fault in history.faults] == list(DEEDS)
    assert world.slowest.keys() == set(DEEDS)
    answered = [op for op in history.ops if op.outcome == "ok"]
    assert {op.who.partition("@")[2] for op in answered} >= {"0", "1", "2"}
    assert list(sendings(history))
