"""Which waiting writes go into the next transaction of a store's writer."""

from __future__ import annotations

import threading
import time

import pytest

from upload_server.domain.errors import Overloaded, ShuttingDown
from upload_server.store.commands.write_queue import WriteQueue
from upload_server.store.options import StoreOptions


def put(queue: WriteQueue[str], name: str, *, urgent: bool = False) -> None:
    """Queue a write; upper-case names are batch calls."""
    queue.put(name, urgent=urgent, alone=name.isupper())


def filled(queue: WriteQueue[str], *names: str) -> WriteQueue[str]:
    for name in names:
        put(queue, name)
    return queue


def taken(queue: WriteQueue[str]) -> str:
    queue.wait()
    return "".join(queue.take())


def test_what_queued_goes_into_one_group_of_bounded_size() -> None:
    queue = filled(WriteQueue(StoreOptions(group_writes=3, linger_seconds=0)), *"abcde")

    assert [taken(queue), taken(queue)] == ["abc", "de"]


def test_batch_calls_and_short_writes_take_turns() -> None:
    queue = filled(WriteQueue(StoreOptions(linger_seconds=0)), *"ABCab")

    assert taken(queue) == "ab"
    filled(queue, *"cd")
    # A short write waits for one batch call, however many are queued.
    assert [taken(queue), taken(queue), taken(queue), taken(queue)] == ["A", "cd", "B", "C"]


def test_a_batch_cancel_waits_for_no_announced_batch() -> None:
    queue = filled(WriteQueue(StoreOptions(linger_seconds=0)), *"AB")
    put(queue, "X", urgent=True)
    put(queue, "Y", urgent=True)
    filled(queue, *"Ca")

    assert [taken(queue), taken(queue)] == ["a", "X"]
    put(queue, "Z", urgent=True)
    filled(queue, *"bc")
    assert [taken(queue) for _ in range(6)] == ["bc", "Y", "Z", "A", "B", "C"]


def test_bounds_and_the_reserve_for_cancels() -> None:
    queue = WriteQueue[str](StoreOptions(queued_writes=2, queued_batch_calls=1, queued_cancels_reserve=1))
    filled(queue, *"abA")

    for refused in "cB":
        with pytest.raises(Overloaded) as overloaded:
            put(queue, refused)
        assert overloaded.value.retry_after_seconds == 1.0
    put(queue, "d", urgent=True)
    put(queue, "D", urgent=True)
    for refused in "eE":
        with pytest.raises(Overloaded):
            put(queue, refused, urgent=True)


def test_closing_hands_out_what_is_queued_and_then_nothing() -> None:
    queue = filled(WriteQueue(StoreOptions()), *"aB")

    queue.close()

    assert [taken(queue), taken(queue)] == ["a", "B"]
    assert not queue.wait()
    with pytest.raises(ShuttingDown):
        put(queue, "c")


def test_a_lonely_write_does_not_wait_and_company_is_waited_for() -> None:
    queue = WriteQueue[str](StoreOptions(linger_seconds=60))
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
    assert 0.04 < time.monotonic() - began < 20
