"""The suite's own acceptance test: every named bug is caught, and the server without a bug passes the same checks."""

from __future__ import annotations

from pathlib import Path

import pytest

from robustness.faults.catches import CRASH_CATCHES
from robustness.prove.catches import CATCHES, NO_BUGS, SOUND, escapes, play
from robustness.prove.checkers import check
from robustness.prove.cluster_stage import CLUSTER_CATCHES
from robustness.prove.mutants import MUTANTS
from robustness.prove.object_stage import OBJECT_CATCHES
from robustness.prove.stage import Patience

pytestmark = pytest.mark.timeout(120)


@pytest.mark.parametrize("bug", CATCHES)
async def test_a_bug_is_caught(tmp_path: Path, bug: str) -> None:
    assert not await escapes(bug, tmp_path)


@pytest.mark.parametrize(("scenario", "on"), SOUND)
async def test_without_a_bug_nobody_complains(tmp_path: Path, scenario: str, on: str) -> None:
    assert [str(found) for found in check(await play(scenario, on, tmp_path, Patience()))] == []


def test_every_bug_has_somebody_to_catch_it() -> None:
    caught = CATCHES.keys() | CRASH_CATCHES.keys() | CLUSTER_CATCHES.keys() | OBJECT_CATCHES.keys()
    assert caught == MUTANTS.keys() - NO_BUGS
