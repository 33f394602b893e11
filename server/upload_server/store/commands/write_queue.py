"""Decides which waiting writes go into the next transaction.

Must not know what they write. Filled on the event loop, emptied on the writer's thread; one lock guards all of it.
"""

from __future__ import annotations

import threading
from collections import deque
from typing import Generic, TypeVar

from upload_server.domain.errors import Overloaded, ShuttingDown
from upload_server.store.options import StoreOptions

I = TypeVar("I")  # noqa: E741


class WriteQueue(Generic[I]):
    """Two bounded queues that take turns: short writes, by groups, and long ones, one at a time, cancels first.

    So a batch call delays other writes by its own length and no more, however many batch calls wait; and the cancel of
    a batch waits for the one that runs and for other cancels, not for all that were announced before it.
    """

    def __init__(self, options: StoreOptions) -> None:
        self._options = options
        self._ready = threading.Condition(threading.Lock())
        self._short: deque[I] = deque()
        self._long: deque[I] = deque()
        # How many of the long ones, at their front, are cancels.
        self._long_cancels = 0
        self._closed = False
        self._long_has_turn = False
        # Size of the last group of short writes: whether it is worth waiting for company, and for how much.
        self._last_group = 0
        # The writer sleeps until so many are queued; 0: it is not asleep.
        self._wake_at = 0

    def put(self, item: I, *, urgent: bool, alone: bool) -> None:
        """Queue a write; raises ``Overloaded`` or ``ShuttingDown``.

        ``urgent``: it may use the places kept for cancels. ``alone``: it is long, so it gets a group of its own.
        """
        queue, bound = self._short, self._options.queued_writes
        if alone:
            queue, bound = self._long, self._options.queued_batch_calls
        if urgent:
            bound += self._options.queued_cancels_reserve
        with self._ready:
            if self._closed:
                raise ShuttingDown
            if len(queue) >= bound:
                raise Overloaded("Too many changes are waiting to be written", self._options.retry_after_seconds)
            if alone and urgent:
                queue.insert(self._long_cancels, item)
                self._long_cancels += 1
            else:
                queue.append(item)
            if 0 < self._wake_at <= len(self._short) + len(self._long):
                self._ready.notify()

    def close(self) -> None:
        """Refuse what comes from now on; what is queued is still handed out."""
        with self._ready:
            self._closed = True
            self._ready.notify()

    def wait(self) -> bool:
        """Wait until there is a group worth taking; False means closed and drained."""
        with self._ready:
            self._sleep_until(1, None)
            if self._last_group > 1 and len(self._short) < self._last_group and not self._long:
                self._sleep_until(self._last_group, self._options.linger_seconds)
            return bool(self._short or self._long)

    def take(self) -> list[I]:
        """Take the next group; empty when nothing is queued."""
        with self._ready:
            if self._long and (self._long_has_turn or not self._short):
                self._long_has_turn = False
                self._long_cancels = max(0, self._long_cancels - 1)
                return [self._long.popleft()]
            self._long_has_turn = True
            size = self._last_group = min(len(self._short), self._options.group_writes)
            return [self._short.popleft() for _ in range(size)]

    def _sleep_until(self, queued: int, seconds: float | None) -> None:
        self._wake_at = queued
        self._ready.wait_for(lambda: self._closed or len(self._short) + len(self._long) >= queued, seconds)
        self._wake_at = 0
