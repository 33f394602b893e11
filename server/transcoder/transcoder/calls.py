"""Decides how a servicer's method is run, and what its return, abort or exception means.

Must not know HTTP answers: a message or an Outcome leaves.
"""

import asyncio
import logging
from typing import Any, Final

from .asgi import UNCACHED, HeaderList, Send
from .binding import Method
from .context import HttpContext
from .errors import Fault, FaultKind
from .guard import Guard, SelfCancelledError
from .metadata import response_headers
from .status import Outcome
from .streams import Framer

_log = logging.getLogger(__name__)

UNEXPECTED: Final = Fault(FaultKind.UNEXPECTED, "an unexpected error occurred")
UNPRINTABLE: Final = Fault(FaultKind.UNPRINTABLE, "the response cannot be written as JSON")


class UnprintableError(Exception):
    """A response that ProtoJSON cannot express."""


async def call_unary(method: Method, request: Any, context: HttpContext) -> Any:
    """The response, or the Outcome that the servicer set; whatever it raises is raised."""
    response = method.handler(request, context)
    if hasattr(response, "__await__"):
        response = await response
    if context.status_code is not None and (outcome := context.outcome()) is not None:
        return outcome
    if not isinstance(response, method.response_class):
        raise _wrong_type(method, response)
    return response


def _wrong_type(method: Method, response: object) -> TypeError:
    return TypeError(f"{method.name} returned {type(response).__name__}, not {method.response.full_name}")


def outcome_of_error(method: Method, context: HttpContext, error: Exception) -> Outcome | Fault:
    """What an exception of the servicer means, as in grpc.aio; its text goes to the log only."""
    aborted = context.outcome()
    if context.aborted and aborted is not None:
        return aborted
    if isinstance(error, UnprintableError):
        _log.error("%s: the response cannot be written as JSON", method.name, exc_info=error.__cause__)
        return UNPRINTABLE
    if isinstance(error, SelfCancelledError):
        return Fault(FaultKind.CANCELLED, "the call was cancelled")
    _log.error("%s: unexpected exception", method.name, exc_info=error)
    return aborted or UNEXPECTED


class StreamCall:
    """One streamed response: pulls messages from the servicer only as fast as the client takes them."""

    def __init__(self, method: Method, send: Send, framer: Framer, context: HttpContext, *, head: bool) -> None:
        self.started = False
        self.has_message = False
        self._method = method
        self._send = send
        self._framer = framer
        self._context = context
        self._head = head
        self._lock = asyncio.Lock()
        self._last_sent = 0.0

    async def run(self, guard: Guard, request: Any, heartbeat: float) -> Outcome | None:
        """Sends the stream; returns the error that the servicer set, raises what it raises."""
        beat = asyncio.create_task(self._beat(heartbeat)) if self._framer.heartbeat and not self._head else None
        try:
            return await guard.run(self._pump(request))
        finally:
            if beat is not None:
                beat.cancel()
                await asyncio.gather(beat, return_exceptions=True)

    async def finish(self, outcome: Outcome | None) -> None:
        """Writes the end of a stream; begins it if nothing did."""
        tail = self._framer.end(outcome)
        if tail is not None and not self.started:
            await self._write(b"")
        if tail is not None:
            async with self._lock:
                await self._send({"type": "http.response.body", "body": tail, "more_body": False})

    def headers(self) -> HeaderList:
        """The headers of the stream as far as they are known."""
        return [*self._framer.headers(), *response_headers(self._context.initial)]

    async def _pump(self, request: Any) -> Outcome | None:
        produced = self._method.handler(request, self._context)
        if hasattr(produced, "__await__"):
            self._context.write_message = self._emit
            produced = await produced
        if not hasattr(produced, "__aiter__"):  # it has written its messages
            outcome = self._context.outcome()
            if produced is not None and outcome is None:
                raise TypeError(f"{self._method.name} returned {type(produced).__name__}, no asynchronous iterator")
            return outcome
        try:
            async for message in produced:
                if self._context.aborted:
                    break
                await self._emit(message)
                if self._head:
                    return None
        finally:
            close = getattr(produced, "aclose", None)
            if close is not None:
                await close()
        return self._context.outcome()

    async def _emit(self, message: Any) -> None:
        # Lets the guard see a disconnect before each message: a send after one says nothing.
        await asyncio.sleep(0)
        if not isinstance(message, self._method.response_class):
            raise _wrong_type(self._method, message)
        try:
            frame = self._framer.frame(message)
        except Exception as error:
            raise UnprintableError from error
        self.has_message = True
        if not self._head:
            await self._write(frame)

    async def _write(self, frame: bytes) -> None:
        async with self._lock:
            if not self.started:
                await self._send(
                    {"type": "http.response.start", "status": 200, "headers": [*self.headers(), *UNCACHED]}
                )
                self.started = True
            await self._send({"type": "http.response.body", "body": frame, "more_body": True})
            self._last_sent = asyncio.get_running_loop().time()

    async def _beat(self, interval: float) -> None:
        loop = asyncio.get_running_loop()
        self._last_sent = loop.time()
        while True:
            silence = loop.time() - self._last_sent
            if silence < interval:
                await asyncio.sleep(interval - silence)
            elif self._lock.locked():  # a message is on its way to a slow reader
                await asyncio.sleep(interval)
            else:
                await self._write(self._framer.heartbeat)
