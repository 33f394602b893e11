"""What the history keeps for the watchers of `all`."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from upload_server.domain.states import Batch, BatchStatus
from upload_server.store.values import Change
from upload_server.watch import Changed
from upload_server.watch.history import AllWatcher, History
from upload_server.watch.turns import Turns


def changed(number: int) -> Changed:
    at = datetime.now(UTC)
    batch = Batch("b", BatchStatus.PENDING, "", 1, 0, 0, 0, at, at, None, "", "", number, number)
    return Changed(Change(number, batch), "", "b", final=False)


@pytest.mark.parametrize("limit", [1, 5, 1000])
def test_little_more_is_kept_than_was_asked_for(limit: int) -> None:
    history = History(limit)
    # It never takes anything: else nothing would be kept.
    AllWatcher(history, Turns(), wants_progress=False)
    most = 0
    for number in range(limit * 3):
        history.publish(changed(number))
        most = max(most, history.end - history.start)
    assert limit <= most < min(limit * 2 + 1, limit + 300)


def test_of_files_without_end_little_progress_is_kept_for_a_watcher_that_never_reads() -> None:
    history = History(5)
    watcher = AllWatcher(history, Turns(), wants_progress=True)
    watcher.begin_to_catch_up()
    for number in range(100):
        watcher.offer_progress(f"file {number}", 1)
        history.publish(changed(number))
    assert 5 <= len(watcher.progress) <= 10
