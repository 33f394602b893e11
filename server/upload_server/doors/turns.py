"""Decides which call of one principal goes on while others call, too; the rest wait for their turns.

Must not know what calls do. Calls of one principal share the event loop, Python's lock and the writer with those of all
others: without turns a cancel would wait for all that another principal has under way, and with them for one or two.
"""

from __future__ import annotations

import asyncio
from collections import deque
from types import TracebackType
from typing import Final, Self

from transcoder.timers import Limit, Timer, Timers
from upload_server.domain.errors import Overloaded

# A call has its turn for so long at most: what is next, a cancel of the same principal perhaps, does not wait for a
# slow database or a late message, too. What mostly waits for a disk or an object store has it for less.
_LONGEST_SECONDS, _LONGEST_OF_DISK_SECONDS = 0.08, 0.01
_TICK_SECONDS: Final = 0.04
# A turn rests before the next call has it, while a call of another principal has one: so many times as long as it was
# had, and no less than this. A cancel goes from thread to thread and back, and waits for Python's lock and the writer
# at each step while somebody else has them.
_RESTS: Final = 3
_REST_SECONDS: Final = 0.005
# So many cancels go before another call of their principal that waits.
_CANCELS_IN_A_ROW: Final = 7
# Whose call came within so many seconds is calling.
_SHARED_SECONDS: Final = 10.0
# A call that has waited for so long, or behind so many, is refused.
_WAIT_SECONDS: Final = 10.0
_MOST_WAITING: Final = 1000


class _Line:
    """The calls of one principal: how many have a turn, how many turns rest, and those that wait, first come, first
    served.

    Cancels go first, yet many of them do not keep the others out.
    """

    __slots__ = ("_cancels", "_in_a_row", "_others", "had", "principal", "running")

    def __init__(self, principal: str) -> None:
        self.principal = principal
        # Turns that are had, and those with the ones that rest.
        self.had = self.running = 0
        self._cancels: deque[asyncio.Future[None]] = deque()
        self._others: deque[asyncio.Future[None]] = deque()
        # Cancels that had their turn since another call had.
        self._in_a_row = 0

    @property
    def waits(self) -> bool:
        """Whether a call waits."""
        return bool(self._cancels or self._others)

    def queue(self, *, cancels: bool) -> deque[asyncio.Future[None]]:
        """Return the calls that wait, from the first on: cancels or others."""
        return self._cancels if cancels else self._others

    def next(self) -> asyncio.Future[None]:
        """Return the call whose turn it is; it waits no longer."""
        if self._cancels and (self._in_a_row < _CANCELS_IN_A_ROW or not self._others):
            self._in_a_row += 1
            return self._cancels.popleft()
        self._in_a_row = 0
        return self._others.popleft()


class Turns:
    """The turns of all principals on one event loop."""

    def __init__(self) -> None:
        # Of those that have calls; where one waits, another one has the turn or it rests, and the end of that wakes it.
        self._lines: dict[str, _Line] = {}
        # Principals that have a turn.
        self._had = 0
        # Who called last, and until when its calls take turns: somebody else has called before.
        self._latest = ""
        self._shared_until = 0.0
        self._timers = Timers(1.0)
        # Of turns that are had.
        self.ends = Timers(_TICK_SECONDS)

    def turn(self, principal: str, *, cancels: bool = False, waits_for_disk: bool = False) -> Turn:
        """Return a block that begins when it is the turn of a call, among its principal's cancels or other calls."""
        return Turn(
            self, principal, cancels=cancels, longest=_LONGEST_OF_DISK_SECONDS if waits_for_disk else _LONGEST_SECONDS
        )

    async def take(self, principal: str, *, cancels: bool) -> _Line:
        """Wait for a turn; raises ``Overloaded`` when none comes for long."""
        if principal != self._latest:
            self._latest, self._shared_until = principal, asyncio.get_running_loop().time() + _SHARED_SECONDS
        line = self._lines.get(principal)
        if line is None:
            line = self._lines[principal] = _Line(principal)
        if not line.waits and self._has_turn(line):
            self._begin(line)
        else:
            await self._wait(line, line.queue(cancels=cancels))
        return line

    async def _wait(self, line: _Line, queue: deque[asyncio.Future[None]]) -> None:
        turn = asyncio.get_running_loop().create_future()
        if len(queue) >= _MOST_WAITING:
            raise _too_many()
        queue.append(turn)
        try:
            with Limit(self._timers, _WAIT_SECONDS):
                await turn
        except BaseException as error:
            if turn.done() and not turn.cancelled():
                self.give(line, 0)
            elif turn in queue:
                queue.remove(turn)
            if isinstance(error, TimeoutError):
                raise _too_many() from None
            raise

    def give(self, line: _Line, seconds: float) -> None:
        """Give a turn back that was had for so long; the next of its line has it at once, or after a rest."""
        # A turn that rests is had by nobody: two that rest for each other would leave the node idle.
        line.had -= 1
        self._had -= not line.had
        if line.waits and self._had > bool(line.had):
            rest = max(_REST_SECONDS, _RESTS * seconds)
            asyncio.get_running_loop().call_later(rest, self._end, line)
        else:
            self._end(line)

    def _end(self, line: _Line) -> None:
        """Let the next one of its line begin, or all that wait where nobody else calls any more."""
        line.running -= 1
        while line.waits and self._has_turn(line):
            turn = line.next()
            if not turn.done():
                self._begin(line)
                turn.set_result(None)
        if not (line.running or line.waits):
            del self._lines[line.principal]

    def _begin(self, line: _Line) -> None:
        self._had += not line.had
        line.had += 1
        line.running += 1

    def _has_turn(self, line: _Line) -> bool:
        return not line.running or asyncio.get_running_loop().time() >= self._shared_until


def _too_many() -> Overloaded:
    return Overloaded("Too many of your calls wait for one another", 1.0)


class Turn(Timer):
    """A block of a call: ``async with`` it; the turn may end before the block."""

    __slots__ = ("_began", "_cancels", "_line", "_longest", "_principal", "_turns")

    def __init__(self, turns: Turns, principal: str, *, cancels: bool, longest: float) -> None:
        # No callback: bound to this object, it would leave every turn to the collector of cycles.
        self._timers = turns.ends
        self._handle = None
        self._turns = turns
        self._principal = principal
        self._cancels = cancels
        self._longest = longest
        self._line: _Line | None = None
        self._began = 0.0

    async def __aenter__(self) -> Self:
        if self._principal:
            self._line = await self._turns.take(self._principal, cancels=self._cancels)
            self._began = asyncio.get_running_loop().time()
            self.start(self._longest)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.give()

    def give(self) -> None:
        """Give the turn back, if that was not done: what follows may take for ever."""
        if self._line is not None:
            self.cancel()
            had = asyncio.get_running_loop().time() - self._began
            self._turns.give(self._line, min(had, self._longest))
            self._line = None

    def ring(self) -> None:
        """The turn is over, though its call is not."""
        self._handle = None
        self.give()
