"""Decides which call of one principal goes on while others call, too; the rest wait for their turns.

Must not know what calls do. Calls of one principal share the event loop, Python's lock and the writer with those of all
others: without turns a cancel would wait for all that another principal has under way, and with them for one or two.
"""

from __future__ import annotations

import asyncio
from collections import Counter, deque
from types import TracebackType
from typing import Final, Self

from transcoder.timers import Limit, Timers
from upload_server.domain.errors import Overloaded

# A turn rests before the next call has it, while a call of another principal has one: so many times as long as the call
# took, within bounds. A cancel goes from thread to thread and back, and waits for Python's lock and the writer at each
# step while somebody else has them.
_RESTS: Final = 3
_REST_SECONDS, _LONGEST_REST_SECONDS = 0.005, 0.25
# Whose call came within so many seconds is calling.
_SHARED_SECONDS: Final = 10.0
# A call that has waited for so long, or behind so many, is refused.
_WAIT_SECONDS: Final = 10.0
_MOST_WAITING: Final = 1000


class _Line:
    """A principal's cancels, or its other calls: how many have a turn, and those that wait, first come, first served.

    So its cancels wait for one another, and for no announcement of its own.
    """

    __slots__ = ("cancels", "principal", "running", "waiting")

    def __init__(self, principal: str, *, cancels: bool) -> None:
        self.principal = principal
        self.cancels = cancels
        self.running = 0
        self.waiting: deque[asyncio.Future[None]] = deque()


class Turns:
    """The turns of all principals on one event loop."""

    def __init__(self) -> None:
        # Those that have calls; where one waits, another one has the turn or it rests, and the end of that wakes it.
        self._lines: dict[tuple[str, bool], _Line] = {}
        # Turns that are had, of each principal that has one.
        self._had: Counter[str] = Counter()
        # Who called last, and until when its calls take turns: somebody else has called before.
        self._latest = ""
        self._shared_until = 0.0
        self._timers = Timers(1.0)

    def turn(self, principal: str, *, cancels: bool = False) -> Turn:
        """Return a block that begins when it is the turn of a call among its principal's cancels, or its others."""
        return Turn(self, principal, cancels=cancels)

    async def take(self, principal: str, *, cancels: bool) -> _Line:
        """Wait for a turn; raises ``Overloaded`` when none comes for long."""
        if principal != self._latest:
            self._latest, self._shared_until = principal, asyncio.get_running_loop().time() + _SHARED_SECONDS
        line = self._lines.get((principal, cancels))
        if line is None:
            line = self._lines[principal, cancels] = _Line(principal, cancels=cancels)
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
        self._had[line.principal] -= 1
        if not self._had[line.principal]:
            del self._had[line.principal]
        if line.waiting and len(self._had) > (line.principal in self._had):
            rest = min(max(_REST_SECONDS, _RESTS * seconds), _LONGEST_REST_SECONDS)
            asyncio.get_running_loop().call_later(rest, self._end, line)
        else:
            self._end(line)

    def _end(self, line: _Line) -> None:
        """Let the next one of its line begin, or all that wait where nobody else calls any more."""
        line.running -= 1
        while line.waiting and self._has_turn(line):
            turn = line.waiting.popleft()
            if not turn.done():
                self._begin(line)
                turn.set_result(None)
        if not (line.running or line.waiting):
            del self._lines[line.principal, line.cancels]

    def _begin(self, line: _Line) -> None:
        line.running += 1
        self._had[line.principal] += 1

    def _has_turn(self, line: _Line) -> bool:
        return not line.running or asyncio.get_running_loop().time() >= self._shared_until


def _too_many(line: _Line) -> Overloaded:
    return Overloaded(f"Too many of your {'cancels' if line.cancels else 'calls'} wait for one another", 1.0)


class Turn:
    """A block of a call: ``async with`` it; it may be given back before its end, and taken again."""

    __slots__ = ("_began", "_cancels", "_line", "_principal", "_turns")

    def __init__(self, turns: Turns, principal: str, *, cancels: bool) -> None:
        self._turns = turns
        self._principal = principal
        self._cancels = cancels
        self._line: _Line | None = None
        self._began = 0.0

    async def __aenter__(self) -> Self:
        await self.take()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.give()

    async def take(self) -> None:
        """Wait for the turn, which was given back or not had yet; raises ``Overloaded`` when it does not come."""
        if self._principal:
            self._line = await self._turns.take(self._principal, cancels=self._cancels)
            self._began = asyncio.get_running_loop().time()

    def give(self) -> None:
        """Give the turn back, if that was not done: what follows may take for ever."""
        if self._line is not None:
            self._turns.give(self._line, asyncio.get_running_loop().time() - self._began)
            self._line = None
