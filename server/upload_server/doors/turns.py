"""Decides how many calls of one principal go on at once while others call, too; the rest wait for their turns.

Must not know what calls do. Calls of one principal share the event loop, Python's lock and the writer with those of all
others: without turns a cancel would wait for all that another principal has under way, and with them for a few.
"""

from __future__ import annotations

import asyncio
from collections import Counter, deque
from enum import Enum
from types import TracebackType
from typing import Final, Self

from transcoder.timers import Limit, Timers
from upload_server.domain.errors import Overloaded

# A turn rests before the next call has it, while a call of another principal has one: so many times as long as the call
# took, within bounds; one that waits for a commit that others share, the least. A cancel goes from thread to thread and
# back, and waits for Python's lock and the writer at each step while somebody else has them.
_RESTS: Final = 3
_REST_SECONDS, _LONGEST_REST_SECONDS = 0.005, 0.25
# Whose call came within so many seconds is calling.
_SHARED_SECONDS: Final = 10.0
# A call that has waited for so long, or behind so many, is refused.
_WAIT_SECONDS: Final = 10.0
_MOST_WAITING: Final = 1000


class Kind(Enum):
    """Calls that take turns with one another: a cancel waits for no announcement of its own principal's, and so on."""

    CANCEL = "cancels"
    # They wait for the disk.
    WHOLE = "whole files"
    OPENING = "uploads that begin"
    OTHER = "calls"

    @property
    def most(self) -> int:
        """How many have a turn at once, while other principals call: two where both wait for one commit."""
        return 2 if self in (Kind.CANCEL, Kind.WHOLE) else 1

    # There is one object of each; an Enum's own hash takes its time.
    __hash__ = object.__hash__


class _Line:
    """Calls of one kind of one principal: how many have a turn, and those that wait, first come, first served."""

    __slots__ = ("kind", "principal", "running", "waiting")

    def __init__(self, principal: str, kind: Kind) -> None:
        self.principal = principal
        self.kind = kind
        self.running = 0
        self.waiting: deque[asyncio.Future[None]] = deque()


class Turns:
    """The turns of all principals on one event loop."""

    def __init__(self) -> None:
        # Those that have calls; where one waits, others of its line have turns, and the next to end wakes it.
        self._lines: dict[tuple[str, Kind], _Line] = {}
        # Turns that are had, of all principals, and of each.
        self._running = 0
        self._of: Counter[str] = Counter()
        # Who called last, and until when its calls take turns: somebody else has called before.
        self._latest = ""
        self._shared_until = 0.0
        self._timers = Timers(1.0)

    def turn(self, principal: str, kind: Kind) -> Turn:
        """Return a block that begins when a call of this kind has its turn."""
        return Turn(self, principal, kind)

    async def take(self, principal: str, kind: Kind) -> _Line:
        """Wait for a turn; raises ``Overloaded`` when none comes for long."""
        if principal != self._latest:
            self._latest, self._shared_until = principal, asyncio.get_running_loop().time() + _SHARED_SECONDS
        line = self._lines.get((principal, kind))
        if line is None:
            line = self._lines[principal, kind] = _Line(principal, kind)
        if not line.waiting and self._has_turn(line):
            self._begin(line)
        else:
            await self._wait(line)
        return line

    async def _wait(self, line: _Line) -> None:
        turn = asyncio.get_running_loop().create_future()
        if len(line.waiting) >= _MOST_WAITING:
            raise _too_many(line)
        line.waiting.append(turn)
        try:
            with Limit(self._timers, _WAIT_SECONDS):
                await turn
        except BaseException as error:
            if turn.done() and not turn.cancelled():
                self.give(line, 0)
            elif turn in line.waiting:
                line.waiting.remove(turn)
            if isinstance(error, TimeoutError):
                raise _too_many(line) from None
            raise

    def give(self, line: _Line, seconds: float) -> None:
        """Give a turn back that was had for so long; the next of its line has it at once, or after a rest."""
        # A turn that rests is had by nobody: two that rest for each other would leave the node idle.
        self._running -= 1
        self._of[line.principal] -= 1
        if line.waiting and self._running > self._of[line.principal]:
            rest = 0 if line.kind.most > 1 else min(_RESTS * seconds, _LONGEST_REST_SECONDS)
            asyncio.get_running_loop().call_later(max(_REST_SECONDS, rest), self._end, line)
        else:
            self._end(line)
        if not self._of[line.principal]:
            del self._of[line.principal]

    def _end(self, line: _Line) -> None:
        """Let the next ones of its line begin: where one waits, others of its line have turns, or rest."""
        line.running -= 1
        while line.waiting and self._has_turn(line):
            turn = line.waiting.popleft()
            if not turn.done():
                self._begin(line)
                turn.set_result(None)
        if not (line.running or line.waiting):
            del self._lines[line.principal, line.kind]

    def _begin(self, line: _Line) -> None:
        line.running += 1
        self._running += 1
        self._of[line.principal] += 1

    def _has_turn(self, line: _Line) -> bool:
        return line.running < line.kind.most or asyncio.get_running_loop().time() >= self._shared_until


def _too_many(line: _Line) -> Overloaded:
    return Overloaded(f"Too many of your {line.kind.value} wait for one another", 1.0)


class Turn:
    """A block of a call: ``async with`` it; it may be given back before its end."""

    __slots__ = ("_began", "_kind", "_line", "_principal", "_turns")

    def __init__(self, turns: Turns, principal: str, kind: Kind) -> None:
        self._turns = turns
        self._principal = principal
        self._kind = kind
        self._line: _Line | None = None
        self._began = 0.0

    async def __aenter__(self) -> Self:
        if self._principal:
            self._line = await self._turns.take(self._principal, self._kind)
            self._began = asyncio.get_running_loop().time()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.give()

    def give(self) -> None:
        """Give the turn back, if that was not done: what follows may take for ever."""
        if self._line is not None:
            self._turns.give(self._line, asyncio.get_running_loop().time() - self._began)
            self._line = None
