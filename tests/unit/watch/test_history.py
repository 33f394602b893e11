"""What the history keeps for the watchers of `all`."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from upload_server.domain.states import Batch, BatchStatus
from upload_server.store.values import Change
from upload_server.watch import Changed
from upload_server.watch.history import AllWatcher, Histories
from upload_server.watch.turns import LoopTurns


def changed(number: int) -> Changed:
    at = datetime.now(UTC)
    batch = Batch("b", BatchStatus.PENDING, "", 1, 0, 0, 0, at, at, None, "", "", number, number)
    return Changed(Change(number, batch), "", "b", final=False)


@pytest.mark.parametrize("limit", [1, 5, 1000])
def test_little_more_is_kept_than_was_asked_for(limit: int) -> None:
    histories = Histories(limit)
    # It never takes anything: else nothing would be kept.
    AllWatcher(histories, None, LoopTurns(), wants_progress=False)
    history = histories.join(None)
    most = 0
    for number in range(limit * 3):
        histories.publish("", changed(number))
        most = max(most, history.end - history.start)
    assert limit <= most < min(limit * 2 + 1, limit + 300)


def test_of_files_without_end_little_progress_is_kept_for_a_watcher_that_never_reads() -> None:
    histories = Histories(5)
    watcher = AllWatcher(histories, None, LoopTurns(), wants_progress=True)
    watcher.begin_to_catch_up()
    for number in range(100):
        watcher.offer_progress(f"file {number}", 1)
        histories.publish("", changed(number))
    assert 5 <= len(watcher.progress) <= 10


def test_a_change_is_in_the_history_of_its_owner_and_of_those_who_see_all_and_costs_no_other() -> None:
    histories, turns = Histories(1000), LoopTurns()
    watchers = [AllWatcher(histories, name, turns, wants_progress=False) for name in ("ann", "bob", None, "ann")]
    ends = []
    for owner in ("ann", "eve", ""):
        histories.publish(owner, changed(1))
        ends.append([histories.join(name).end for name in ("ann", "bob", None)])

    assert ends == [[1, 0, 1], [1, 0, 2], [1, 0, 3]]
    for watcher in watchers:
        watcher.leave()
    assert histories.join("ann").end == 0


def test_many_histories_together_keep_what_one_would() -> None:
    histories, turns = Histories(1000), LoopTurns()
    names = [f"user{number}" for number in range(50)]
    for name in names:
        AllWatcher(histories, name, turns, wants_progress=False)
    for number in range(500):
        for name in names:
            histories.publish(name, changed(number))
    kept = [histories.join(name).end - histories.join(name).start for name in names]

    assert min(kept) >= 16
    assert sum(kept) <= 2 * 1000
