"""Named bugs that only several servers can have are caught, and two servers without a bug pass the same checks.

These are the ones that show within seconds; `make prove` plays all of them.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from robustness.prove.checkers import check
from robustness.prove.cluster_stage import CLUSTER_CATCHES, CLUSTER_SOUND, escapes_cluster, play_cluster
from robustness.prove.stage import Patience

pytestmark = pytest.mark.timeout(400)


# One of each kind: what a node must ask of others, hear from them, and give to callers who go on elsewhere.
_QUICK = ("answers_of_a_node", "holder_not_noted", "take_over_not_told", "tokens_of_a_node")
_THEIR_SCENARIOS = {CLUSTER_CATCHES[bug].scenario for bug in _QUICK}


@pytest.mark.parametrize("bug", _QUICK)
async def test_a_bug_is_caught(tmp_path: Path, bug: str) -> None:
    assert not await escapes_cluster(bug, tmp_path)


@pytest.mark.parametrize(("scenario", "on"), [each for each in CLUSTER_SOUND if each[0] in _THEIR_SCENARIOS])
async def test_without_a_bug_nobody_complains(tmp_path: Path, scenario: str, on: str) -> None:
    assert [str(found) for found in check(await play_cluster(scenario, on, tmp_path, Patience()))] == []
