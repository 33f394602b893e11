"""Decides when the one message of a call must have come, and how many may still be coming.

Must not know what the calls do. grpcio reads the message of a unary call before it asks anybody, waits for it for ever,
and ends a call without one by never answering. So every method is a stream to grpcio, of which one message is read.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any, Final

import grpc

from transcoder import BodyBudget
from transcoder.timers import Timer, Timers
from upload_server.domain.errors import Overloaded, UnexpectedMessage, UploadError
from upload_server.doors.calls import StreamContext, Unread, abort

# Makes the message of its bytes.
Decode = Callable[[bytes], Awaitable[Any]]

# Most messages come together with their call.
_PROMPT_SECONDS: Final = 0.1
_TICK_SECONDS: Final = 0.05
# Messages that are still coming after that, each up to the largest one in memory.
_LATE_MESSAGES: Final = 8


class Arrivals:
    """The messages that are late: at most so many, the newest; the oldest is given up for another one."""

    def __init__(self, seconds: float, bodies: BodyBudget) -> None:
        """A message that has not come after ``seconds`` is given up too; long ones that have come need a place."""
        self.seconds = seconds
        self.bodies = bodies
        self.timers = Timers(_TICK_SECONDS)
        # From the oldest on.
        self.late: dict[Incoming, None] = {}

    def wait(self, message: Incoming) -> None:
        """Count a message that is late."""
        if len(self.late) >= _LATE_MESSAGES:
            oldest = next(iter(self.late))
            del self.late[oldest]
            oldest.give_up(Overloaded("Too many messages are still coming", 1.0))
        self.late[message] = None


class Incoming(Timer, Unread):
    """The message of one call, still unread; a timer while it is waited for."""

    def __init__(self, context: StreamContext, decode: Decode, arrivals: Arrivals) -> None:
        # No callback: bound to this object, it would leave every call to the collector of cycles.
        self._timers = arrivals.timers
        self._handle = None
        self._context = context
        self._decode = decode
        self._arrivals = arrivals
        # Why it is not waited for any longer, and the task that says so.
        self._given_up: UploadError | None = None
        self._telling: asyncio.Task[None] | None = None
        # Bytes that it takes of the budget, from when it has come until the call leaves it.
        self._taken = 0

    async def read(self) -> Any:
        """Return the message; raises an ``UploadError`` when none comes, or one that cannot be taken."""
        self.start(_PROMPT_SECONDS)
        try:
            raw = await self._context.read()
        except grpc.aio.AbortError:
            raw = grpc.aio.EOF
        finally:
            self.cancel()
            self._arrivals.late.pop(self, None)
        if self._given_up is not None:
            raise self._given_up
        if raw is grpc.aio.EOF:
            # A caller that has left looks the same; then this task is cancelled in this turn.
            await asyncio.sleep(0)
            raise UnexpectedMessage("The call ended without its message")
        if not self._arrivals.bodies.take(len(raw)):
            raise Overloaded("Too many long requests at once", 1.0)
        self._taken = len(raw)
        try:
            return await self._decode(raw)
        except BaseException:
            self.leave()
            raise

    def leave(self) -> None:
        """Give its place back: the call is over, or has no further use for it."""
        self._arrivals.bodies.give_back(self._taken)
        self._taken = 0

    async def tell(self, error: UploadError) -> None:
        """End the call with ``error``; raises what grpcio's abort raises."""
        if self._telling is not None:
            await self._telling
        await abort(self._context, error)

    def give_up(self, error: UploadError) -> None:
        """End the call, whose message is not read yet, with ``error``.

        By a task: a read that is interrupted leaks in grpcio, one whose call has ended ends by itself.
        """
        if self._given_up is None:
            self.cancel()
            self._given_up = error
            self._telling = asyncio.create_task(abort(self._context, error))
            # Marks it as seen: when the caller has left, nobody asks for it.
            self._telling.add_done_callback(lambda telling: telling.cancelled() or telling.exception())

    def ring(self) -> None:
        """The message is late; or, at the second time, too late."""
        self._handle = None
        seconds = self._arrivals.seconds
        if self not in self._arrivals.late:
            self._arrivals.wait(self)
            self.start(seconds - _PROMPT_SECONDS)
        else:
            self.give_up(UnexpectedMessage(f"The call's message did not come within {seconds:g} s"))
