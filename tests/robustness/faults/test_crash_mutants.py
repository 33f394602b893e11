"""The crash suite can fail: bugs that need a crash to show are seen after a few of them.

Here those that show soonest, of rows and of watches; `make prove` plays all.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from robustness.faults.catches import crash_escapes

pytestmark = pytest.mark.timeout(400)


@pytest.mark.parametrize("bug", ["answers_in_memory", "tokens_of_a_process"])
async def test_a_bug_is_caught_by_crashes(tmp_path: Path, bug: str) -> None:
    assert not await crash_escapes(bug, tmp_path)
