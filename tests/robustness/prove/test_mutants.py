"""The suite's own acceptance test: named bugs are caught, and the server without a bug passes the same checks.

Here one bug for each checker is played, and all are planted; `make prove` plays all.
"""

from __future__ import annotations

import subprocess
import sys
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

_ONE_A_CHECKER = {catch.checker: bug for bug, catch in CATCHES.items()}.values()
_THEIR_SCENARIOS = {(CATCHES[bug].scenario, CATCHES[bug].on) for bug in _ONE_A_CHECKER}
# In a process each, as none can be taken out again. A bug whose text is gone from the server leaves with an error.
_PLANT_ALL = """
import os
from robustness.prove.mutants import MUTANTS, apply
import upload_server.app
for name in MUTANTS:
    if not (child := os.fork()):
        apply(name)
        os._exit(0)
    if os.waitpid(child, 0)[1]:
        raise SystemExit(f"{name} was not planted")
"""


@pytest.mark.parametrize("bug", _ONE_A_CHECKER)
async def test_a_bug_is_caught(tmp_path: Path, bug: str) -> None:
    assert not await escapes(bug, tmp_path)


def test_every_bug_can_be_planted(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", _PLANT_ALL, "--data-dir", str(tmp_path)],
        cwd=Path(__file__).parents[2],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(("scenario", "on"), [each for each in SOUND if each in _THEIR_SCENARIOS])
async def test_without_a_bug_nobody_complains(tmp_path: Path, scenario: str, on: str) -> None:
    assert [str(found) for found in check(await play(scenario, on, tmp_path, Patience()))] == []


def test_every_bug_has_somebody_to_catch_it() -> None:
    caught = CATCHES.keys() | CRASH_CATCHES.keys() | CLUSTER_CATCHES.keys() | OBJECT_CATCHES.keys()
    assert caught == MUTANTS.keys() - NO_BUGS
