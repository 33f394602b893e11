"""Which waiting writes go into the next transaction of a store's writer."""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass

import pytest

from upload_server.domain.errors import Overloaded, ShuttingDown
from upload_server.store.commands.write_queue import WriteQueue
from upload_server.store.options import StoreOptions


@dataclass(frozen=True)
class Waiting:
    name: str
    alone: bool = False
    urgent: bool = False


def filled(queue: WriteQueue[Waiting], *names: str) -> WriteQueue[Waiting]:
    """Queue writes; upper-case names are batch calls."""
    for name in names:
        queue.put(Waiting(name, alone=name.isupper()))
    return queue


def taken(queue: WriteQueue[Waiting]) -> str:
    return "".join(item.name for item in queue.take())


def test_what_queued_goes_into_one_group_of_bounded_size() -> None:
    queue = filled(WriteQueue(StoreOptions(group_writes=3, linger_seconds=0)), *"abcde")

    assert [taken(queue), taken(queue)] == ["abc", "de"]


def test_batch_calls_and_short_writes_take_turns() -> None:
    queue = filled(WriteQueue(StoreOptions(linger_seconds=0)), *"ABCab")

    assert taken(queue) == "ab"
    filled(queue, *"cd")
    # A short write waits for one batch call, however many are queued.
    assert [taken(queue), taken(queue), taken(queue), taken(queue)] == ["A", "cd", "B", "C"]


def test_bounds_and_the_reserve_for_cancels() -> None:
    queue = WriteQueue[Waiting](StoreOptions(queued_writes=2, queued_batch_calls=1, queued_cancels_reserve=1))
    filled(queue, *"abA")

    for refused in (Waiting("c"), Waiting("B", alone=True)):
        with pytest.raises(Overloaded) as overloaded:
            queue.put(refused)
        assert overloaded.value.retry_after_seconds == 1.0
    queue.put(Waiting("d", urgent=True))
    queue.put(Waiting("D", alone=True, urgent=True))
    for refused in (Waiting("e", urgent=True), Waiting("E", alone=True, urgent=True)):
        with pytest.raises(Overloaded):
            queue.put(refused)


def test_closing_hands_out_what_is_queued_and_then_nothing() -> None:
    queue = filled(WriteQueue(StoreOptions()), *"aB")

    queue.close()

    assert [taken(queue), taken(queue), taken(queue)] == ["a", "B", ""]
    with pytest.raises(ShuttingDown):
        queue.put(Waiting("c"))


def test_a_lonely_write_does_not_wait_and_company_is_waited_for() -> None:
    queue = WriteQueue[Waiting](StoreOptions(linger_seconds=60))
    filled(queue, "a")
    assert taken(queue) == "a"
    filled(queue, *"bc")
    # The last group was one write: nobody waits, though the linger is a minute.
    assert taken(queue) == "bc"

    groups: list[str] = []
    thread = threading.Thread(target=lambda: groups.append(taken(queue)))
    thread.start()
    filled(queue, "d")
    # The last group was two writes, so the second is waited for, and no longer than until it comes.
    filled(queue, "e")
    thread.join(30)
    assert groups == ["de"]


def test_the_linger_has_an_end() -> None:
    queue = filled(WriteQueue(StoreOptions(linger_seconds=0.05)), *"ab")
    assert taken(queue) == "ab"
    filled(queue, "c")

    began = time.monotonic()
    assert taken(queue) == "c"
    assert 0.04 < time.monotonic() - began < 5
