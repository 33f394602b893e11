"""Named bugs that only an object store can show are caught, and without a bug nobody complains, on every store here."""

from __future__ import annotations

import pytest

from robustness.prove.object_stage import OBJECT_CATCHES, OBJECT_SCENARIOS, play_objects
from support import object_store


@pytest.mark.parametrize("on", object_store.STORES)
@pytest.mark.parametrize("bug", OBJECT_CATCHES)
async def test_a_bug_is_caught(bug: str, on: str) -> None:
    assert await play_objects(OBJECT_CATCHES[bug], on, bug)


@pytest.mark.parametrize("on", object_store.STORES)
@pytest.mark.parametrize("scenario", OBJECT_SCENARIOS)
async def test_without_a_bug_nobody_complains(scenario: str, on: str) -> None:
    assert await play_objects(scenario, on) == []
