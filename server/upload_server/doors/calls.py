"""Decides what surrounds every call, through whichever door: admission, caller, time limit, errors, metrics.

Must not know what a call does. This is the only place that aborts a call: ``abort`` raises an Exception, so code
inside that catches too much would go on after having refused.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import time
import uuid
from collections.abc import Awaitable, Callable, Iterator, Mapping
from enum import Enum
from types import TracebackType
from typing import Any, NoReturn, Protocol, TypeVar

import grpc
import structlog

from upload_server.domain.errors import (
    DatabaseFailure,
    InternalError,
    OutcomeUnknown,
    Overloaded,
    ShuttingDown,
    UnexpectedMessage,
    UploadError,
)
from upload_server.domain.observer import Observer
from upload_server.domain.states import Caller, Source
from upload_server.doors.errors import to_status
from upload_server.doors.refusals import log_refusal
from upload_server.doors.time_limit import TimeLimit

log = structlog.get_logger(__name__)

Request = TypeVar("Request")
Response = TypeVar("Response")

Pause = Callable[[], Awaitable[None]]

_RETRY_AFTER_SECONDS = 1.0
_STATUS_CODES: Mapping[int, grpc.StatusCode] = {code.value[0]: code for code in grpc.StatusCode}


class Gate(Enum):
    """Kinds of calls that are counted apart, so that none can take the place of another; cancels have their own."""

    READ = "read"
    CHANGE = "change"
    CANCEL = "cancel"
    UPLOAD = "upload"
    WATCH = "watch"


class Gates:
    """Admission: how many calls of each kind run at once on this node, over all doors."""

    def __init__(self, limits: Mapping[Gate, int]) -> None:
        self._limits = limits
        self._running = dict.fromkeys(Gate, 0)
        self._closed = False
        self._idle = asyncio.Event()

    def close(self) -> None:
        """Refuse everything from now on: the server drains."""
        self._closed = True
        self._note_idle()

    async def wait_idle(self) -> None:
        """Wait, once closed, until no call runs any more, but for watches: who does not read does not hear the end."""
        await self._idle.wait()

    def enter(self, gate: Gate) -> None:
        """Count a call in; raises ``ShuttingDown`` or ``Overloaded``."""
        if self._closed:
            raise ShuttingDown
        if self._running[gate] >= self._limits[gate]:
            raise Overloaded(f"Too many {gate.value} calls at once", _RETRY_AFTER_SECONDS)
        self._running[gate] += 1

    def leave(self, gate: Gate) -> None:
        """Count a call out."""
        self._running[gate] -= 1
        if self._closed:
            self._note_idle()

    def _note_idle(self) -> None:
        if not any(running for gate, running in self._running.items() if gate is not Gate.WATCH):
            self._idle.set()

    @contextlib.contextmanager
    def admit(self, kind: str) -> Iterator[None]:
        """Count a call in and, at the block's end, out; ``kind`` is the Gate's word. Raises as ``enter``."""
        gate = Gate(kind)
        self.enter(gate)
        try:
            yield
        finally:
            self.leave(gate)


class Context(Protocol):
    """What is used of a call's context: grpc.aio's, or the transcoder's, which behaves alike."""

    async def abort(self, code: grpc.StatusCode, details: str = "", trailing_metadata: Any = ()) -> NoReturn:
        """End the call with a status; raises."""


class StreamContext(Context, Protocol):
    """The context of a call that sends a stream."""

    async def read(self) -> Any:
        """Return the next message, or grpc.aio.EOF."""


class Calls:
    """What every call through one door shares."""

    def __init__(self, door: Source, gates: Gates, observer: Observer, *, timeout: float) -> None:
        self.time_limit = TimeLimit(timeout)
        self._door = door
        self._gates = gates
        self._observer = observer

    def call(self, method: str, gate: Gate, context: Context, before_refusal: Pause | None = None) -> Call:
        """Return what surrounds one call: ``async with`` it, and get its caller.

        ``before_refusal`` is awaited before a call is refused admission: a sender that is still writing would not hear
        the refusal.
        """
        return Call(method, gate, context, Caller(self._door), self._gates, self._observer, before_refusal)


class Call:
    """Admits one call and, whatever happens inside, ends it with a status that says so."""

    __slots__ = ("_before_refusal", "_caller", "_context", "_gate", "_gates", "_method", "_observer", "_started")

    def __init__(
        self,
        method: str,
        gate: Gate,
        context: Context,
        caller: Caller,
        gates: Gates,
        observer: Observer,
        before_refusal: Pause | None,
    ) -> None:
        self._method = method
        self._gate = gate
        self._context = context
        self._caller = caller
        self._gates = gates
        self._observer = observer
        self._before_refusal = before_refusal
        self._started = time.monotonic()

    async def __aenter__(self) -> Caller:
        try:
            self._gates.enter(self._gate)
        except UploadError as error:
            if self._before_refusal is not None:
                await self._before_refusal()
            await self._abort(error)
        return self._caller

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._gates.leave(self._gate)
        if error is None:
            self._finished("OK")
        elif isinstance(error, Exception):
            await self._abort(self._told(error))
        else:
            # The caller left or its deadline passed: there is nobody to tell. Never swallowed (a leak in grpcio).
            self._finished("CANCELLED")

    def _told(self, error: Exception) -> UploadError:
        """Return what the caller is told; what nobody foresaw is logged under the incident that the caller gets."""
        if isinstance(error, UploadError):
            return error
        if isinstance(error, TimeoutError):
            # The write goes on behind this call; a read has changed nothing.
            return DatabaseFailure() if self._gate is Gate.READ else OutcomeUnknown()
        incident = uuid.uuid4().hex
        log.error("call.failed", method=self._method, incident=incident, exc_info=error)
        return InternalError(incident)

    async def _abort(self, error: UploadError) -> NoReturn:
        status = to_status(error)
        code = _STATUS_CODES[status.code]
        self._finished(code.name)
        log_refusal(self._method, self._caller.source.value, error)
        details = (("grpc-status-details-bin", status.SerializeToString()),)
        await self._context.abort(code, status.message, details)

    def _finished(self, code: str) -> None:
        seconds = time.monotonic() - self._started
        self._observer.call_finished(self._method, self._caller.source.value, code, seconds)


class HasCalls(Protocol):
    """A servicer whose methods are wrapped here."""

    @property
    def calls(self) -> Calls:
        """What its calls share."""


Servicer = TypeVar("Servicer", bound=HasCalls)


def understood(request: Request | None) -> Request:
    """Return the request; raises ``UnexpectedMessage`` for None, which is what a door has of bytes that are none."""
    if request is None:
        raise UnexpectedMessage("The request is not a message of its type")
    return request


def unary(
    gate: Gate,
) -> Callable[
    [Callable[[Servicer, Request, Caller], Awaitable[Response]]],
    Callable[[Servicer, Request, Context], Awaitable[Response]],
]:
    """Make a method of (request, caller) a unary handler of (request, context)."""

    def wrap(
        method: Callable[[Servicer, Request, Caller], Awaitable[Response]],
    ) -> Callable[[Servicer, Request, Context], Awaitable[Response]]:
        @functools.wraps(method)
        async def handler(servicer: Servicer, request: Request, context: Context) -> Response:
            calls = servicer.calls
            async with calls.call(handler.__name__, gate, context) as caller:
                with calls.time_limit.watch():
                    return await method(servicer, understood(request), caller)

        return handler

    return wrap
