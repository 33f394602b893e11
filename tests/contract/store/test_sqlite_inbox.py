"""Which waiting writes go into the next transaction of the SQLite store's writer."""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass

import pytest

from upload_server.domain.errors import Overloaded, ShuttingDown
from upload_server.store.options import StoreOptions
from upload_server.store.sqlite.inbox import Inbox


@dataclass(frozen=True)
class Waiting:
    name: str
    alone: bool = False
    urgent: bool = False


def filled(inbox: Inbox[Waiting], *names: str) -> Inbox[Waiting]:
    """Queue writes; upper-case names are batch calls."""
    for name in names:
        inbox.put(Waiting(name, alone=name.isupper()))
    return inbox


def taken(inbox: Inbox[Waiting]) -> str:
    return "".join(item.name for item in inbox.take())


def test_what_queued_goes_into_one_group_of_bounded_size() -> None:
    inbox = filled(Inbox(StoreOptions(group_writes=3, linger_seconds=0)), *"abcde")

    assert [taken(inbox), taken(inbox)] == ["abc", "de"]


def test_batch_calls_and_short_writes_take_turns() -> None:
    inbox = filled(Inbox(StoreOptions(linger_seconds=0)), *"ABCab")

    assert taken(inbox) == "ab"
    filled(inbox, *"cd")
    # A short write waits for one batch call, however many are queued.
    assert [taken(inbox), taken(inbox), taken(inbox), taken(inbox)] == ["A", "cd", "B", "C"]


def test_bounds_and_the_reserve_for_cancels() -> None:
    inbox = Inbox[Waiting](StoreOptions(queued_writes=2, queued_batch_calls=1, queued_cancels_reserve=1))
    filled(inbox, *"abA")

    for refused in (Waiting("c"), Waiting("B", alone=True)):
        with pytest.raises(Overloaded) as overloaded:
            inbox.put(refused)
        assert overloaded.value.retry_after_seconds == 1.0
    inbox.put(Waiting("d", urgent=True))
    inbox.put(Waiting("D", alone=True, urgent=True))
    for refused in (Waiting("e", urgent=True), Waiting("E", alone=True, urgent=True)):
        with pytest.raises(Overloaded):
            inbox.put(refused)


def test_closing_hands_out_what_is_queued_and_then_nothing() -> None:
    inbox = filled(Inbox(StoreOptions()), *"aB")

    inbox.close()

    assert [taken(inbox), taken(inbox), taken(inbox)] == ["a", "B", ""]
    with pytest.raises(ShuttingDown):
        inbox.put(Waiting("c"))


def test_a_lonely_write_does_not_wait_and_company_is_waited_for() -> None:
    inbox = Inbox[Waiting](StoreOptions(linger_seconds=60))
    filled(inbox, "a")
    assert taken(inbox) == "a"
    filled(inbox, *"bc")
    # The last group was one write: nobody waits, though the linger is a minute.
    assert taken(inbox) == "bc"

    groups: list[str] = []
    thread = threading.Thread(target=lambda: groups.append(taken(inbox)))
    thread.start()
    filled(inbox, "d")
    # The last group was two writes, so the second is waited for, and no longer than until it comes.
    filled(inbox, "e")
    thread.join(30)
    assert groups == ["de"]


def test_the_linger_has_an_end() -> None:
    inbox = filled(Inbox(StoreOptions(linger_seconds=0.05)), *"ab")
    assert taken(inbox) == "ab"
    filled(inbox, "c")

    began = time.monotonic()
    assert taken(inbox) == "c"
    assert 0.04 < time.monotonic() - began < 5
