"""Decides how many calls of each kind run at once, over all doors, and when they have to end.

Must not know what a call does, nor who may make it.
"""

from __future__ import annotations

import asyncio
import contextlib
import sys
from collections import Counter
from collections.abc import AsyncIterator, Callable, Mapping
from enum import Enum
from typing import Any, Protocol

from google.protobuf.message import Message

from upload_server.access.quotas import Quotas
from upload_server.domain.caller import Caller
from upload_server.domain.errors import CredentialLost, Overloaded, ShuttingDown, Stopped
from upload_server.doors.turns import Turns


class Answered(Protocol):
    """What is used of the context of a call that was answered."""

    def add_done_callback(self, callback: Callable[[Any], None]) -> None:
        """Have ``callback`` called once the caller has taken the answer, or is gone."""


class Gate(Enum):
    """Kinds of calls that are counted apart, so that none can take the place of another; cancels have their own."""

    READ = "read calls"
    LIST = "list calls"
    CHANGE = "change calls"
    CANCEL = "cancel calls"
    UPLOAD = "upload calls"
    DOWNLOAD = "download calls"
    WATCH = "watch calls"
    WEBSOCKET = "WebSockets"

    # There is one object of each; an Enum's own hash takes its time, several times a call.
    __hash__ = object.__hash__

    @property
    def retry_seconds(self) -> float:
        """How long a refused caller should wait: a socket is held for longer than a call."""
        return 5.0 if self is Gate.WEBSOCKET else 1.0

    @property
    def most_untaken_bytes(self) -> int:
        """Memory of answers that nobody takes, beyond which such a call is refused; cancels last, lists first."""
        return _MOST_UNTAKEN_BYTES.get(self, sys.maxsize)


# What quotas call the gates that are held for long.
_AT_ONCE: Mapping[Gate, str] = {Gate.UPLOAD: "uploads", Gate.WATCH: "watches", Gate.WEBSOCKET: "websockets"}
_MIB = 1024 * 1024
_MOST_UNTAKEN_BYTES: Mapping[Gate, int] = {
    Gate.LIST: 64 * _MIB,
    Gate.READ: 96 * _MIB,
    Gate.CHANGE: 96 * _MIB,
    Gate.CANCEL: 128 * _MIB,
}
# What an answer that waits for its caller takes: grpcio's call and task, and the answer as message, as bytes and as
# what gRPC's core sends.
_UNTAKEN_CALL_BYTES = 16 * 1024
_UNTAKEN_COPIES = 3
# Lists that are read and converted at once: those of more rows than this, and the others.
_LARGE_LIST_ROWS = 64
_LARGE_LISTS = 2
_SMALL_LISTS = 3


class Admission:
    """How many calls of each kind run at once on this node, over all doors. A call leaves it last, after its clean-up.

    So a drain is one wait: when nothing is admitted any more, nothing is left to end.
    """

    def __init__(self, limits: Mapping[Gate, int], quotas: Quotas | None = None) -> None:
        """``quotas`` are those of principals, where callers have names."""
        self._limits = limits
        self._quotas = quotas
        self._running = dict.fromkeys(Gate, 0)
        # Of callers with a name, by that too.
        self._of_principal: Counter[tuple[Gate, str]] = Counter()
        # Memory of answers that were given and are not taken yet, in bytes.
        self._untaken = 0
        self._large_lists = asyncio.Semaphore(_LARGE_LISTS)
        self._small_lists = asyncio.Semaphore(_SMALL_LISTS)
        self.turns = Turns()
        self._closed = False
        # Blocks that end when it closes, and blocks that end with their caller's credential.
        self._until_closed: set[asyncio.Timeout] = set()
        self._while_valid: dict[asyncio.Timeout, Caller] = {}
        # Rung by each call that leaves a closed admission.
        self._left = asyncio.Event()

    def check_open(self) -> None:
        """Raise ``ShuttingDown`` once it is closed."""
        if self._closed:
            raise ShuttingDown

    def enter(self, gate: Gate, principal: str = "") -> None:
        """Count a call in; raises ``ShuttingDown``, ``Overloaded`` or ``QuotaExceeded``."""
        self.check_open()
        free = self._limits[gate] - self._running[gate]
        if free <= 0:
            raise Overloaded(f"Too many {gate.value} at once", gate.retry_seconds)
        self._check_untaken(gate)
        if principal:
            self._enter_as(principal, gate, free)
        self._running[gate] += 1

    def _enter_as(self, principal: str, gate: Gate, free: int) -> None:
        """Count a call in for its principal, which has no more of a gate than it leaves free to others: half, alone."""
        own = self._of_principal[gate, principal]
        if own >= max(1, free):
            raise Overloaded(f"You have too many {gate.value} at once", gate.retry_seconds)
        if self._quotas is not None and gate in _AT_ONCE:
            self._quotas.enter(principal, _AT_ONCE[gate])
        self._of_principal[gate, principal] = own + 1

    def check_rate(self, principal: str, *, cancels: bool) -> None:
        """Count a call that begins; raises ``RateExceeded``."""
        if self._quotas is not None:
            self._quotas.call(principal, cancels=cancels)

    def leave(self, gate: Gate, principal: str = "") -> None:
        """Count a call out."""
        self._running[gate] -= 1
        if principal:
            self._of_principal[gate, principal] -= 1
            if not self._of_principal[gate, principal]:
                del self._of_principal[gate, principal]
            if self._quotas is not None and gate in _AT_ONCE:
                self._quotas.leave(principal, _AT_ONCE[gate])
        if self._closed:
            self._left.set()

    def hold_answer(self, answer: Message, context: Answered) -> None:
        """Count the memory of an answer until its caller has taken it or is gone: a caller need not read.

        A call leaves its gate before: who does not read takes nobody's place.
        """
        size = _UNTAKEN_CALL_BYTES + _UNTAKEN_COPIES * answer.ByteSize()
        self._untaken += size

        def release(_context: object) -> None:
            self._untaken -= size

        context.add_done_callback(release)

    @contextlib.asynccontextmanager
    async def list_turn(self, rows: int) -> AsyncIterator[None]:
        """Wait until a list of so many rows may be made; raises ``Overloaded``.

        Few at once, so that the memory of each is counted before the next one takes its own.
        """
        async with self._large_lists if rows > _LARGE_LIST_ROWS else self._small_lists:
            self._check_untaken(Gate.LIST)
            yield

    def _check_untaken(self, gate: Gate) -> None:
        if self._untaken > gate.most_untaken_bytes:
            raise Overloaded("Too many answers wait for callers who do not read them", gate.retry_seconds)

    def close(self) -> None:
        """Refuse every call from now on: the server drains."""
        self._closed = True
        for block in self._until_closed:
            block.reschedule(asyncio.get_running_loop().time())

    @contextlib.asynccontextmanager
    async def until_closed(self) -> AsyncIterator[None]:
        """End the block, without an error, when the server drains or as it does: for a call that only waits."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(0 if self._closed else None) as block:
                self._until_closed.add(block)
                try:
                    yield
                finally:
                    self._until_closed.discard(block)

    @contextlib.asynccontextmanager
    async def while_valid(self, caller: Caller) -> AsyncIterator[None]:
        """End the block with ``CredentialLost`` once ``end_where`` says that its caller may not go on."""
        if not caller.credential:
            yield
            return
        try:
            async with asyncio.timeout(None) as block:
                self._while_valid[block] = caller
                try:
                    yield
                finally:
                    self._while_valid.pop(block, None)
        except TimeoutError:
            if not block.expired():
                raise
            raise CredentialLost(caller.credential) from None

    def end_where(self, verdict: Callable[[Caller], Stopped | None]) -> None:
        """End those blocks whose callers may not go on, as ``verdict`` says."""
        for block, caller in list(self._while_valid.items()):
            if verdict(caller) is not None:
                # Once: a block that is ending already takes no other time, and its clean-up may last.
                del self._while_valid[block]
                block.reschedule(asyncio.get_running_loop().time())

    async def wait_idle(self) -> None:
        """Wait, once closed, until no call runs but watches: a watcher that does not read does not hear its end."""
        while any(running for gate, running in self._running.items() if gate is not Gate.WATCH):
            await self._wait_left()

    async def wait_empty(self) -> None:
        """Wait, once closed, until no call runs."""
        while any(self._running.values()):
            await self._wait_left()

    async def _wait_left(self) -> None:
        self._left.clear()
        await self._left.wait()
