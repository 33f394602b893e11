"""Every named bug that only several servers can have is caught, and two servers without a bug pass the same checks."""

from __future__ import annotations

from pathlib import Path

import pytest

from robustness.prove.checkers import check
from robustness.prove.cluster_stage import CLUSTER_CATCHES, CLUSTER_SOUND, escapes_cluster, play_cluster
from robustness.prove.stage import Patience

pytestmark = pytest.mark.timeout(400)


@pytest.mark.parametrize("bug", CLUSTER_CATCHES)
async def test_a_bug_is_caught(tmp_path: Path, bug: str) -> None:
    assert not await escapes_cluster(bug, tmp_path)


@pytest.mark.parametrize(("scenario", "on"), CLUSTER_SOUND)
async def test_without_a_bug_nobody_complains(tmp_path: Path, scenario: str, on: str) -> None:
    assert [str(found) for found in check(await play_cluster(scenario, on, tmp_path, Patience()))] == []
