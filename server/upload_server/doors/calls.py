"""Decides what surrounds every call, through whichever door: caller, admission, time limit, errors, log, metrics.

Must not know what a call does, nor the words in which its door says an error.
"""

from __future__ import annotations

import asyncio
import functools
import time
import uuid
from collections.abc import Awaitable, Callable, Mapping
from types import TracebackType
from typing import Any, NoReturn, Protocol, Self, TypeVar

import grpc
import structlog
from google.protobuf.message import Message

from transcoder.timers import Limit, Timers
from upload_server.access.callers import Callers
from upload_server.access.identity import Presented
from upload_server.access.policy import NEEDS
from upload_server.domain.caller import Caller, Permission
from upload_server.domain.errors import (
    DatabaseFailure,
    InternalError,
    NotIdentified,
    OutcomeUnknown,
    Overloaded,
    PermissionDenied,
    QuotaExceeded,
    Stopped,
    UploadError,
)
from upload_server.domain.observer import Observer
from upload_server.domain.states import Source
from upload_server.domain.steps import STEPS, Steps
from upload_server.doors.admission import Admission, Answered, Gate
from upload_server.doors.errors import STATUS_CODES, challenge, code_of, to_status
from upload_server.doors.presented import of_scope, parent_of
from upload_server.doors.turns import Turn
from upload_server.process.tracing import Traces

log = structlog.get_logger(__name__)

Request = TypeVar("Request")
Response = TypeVar("Response", bound=Message)

# Says, in a door's words, with which error a call ends.
Tell = Callable[[UploadError], Awaitable[None]]

_NOTHING: Mapping[str, str] = {}
# Of the timers that most calls end before: seconds, and the part of the time limit that it is at most.
_TICK_SECONDS = 1.0
_TICKS_PER_LIMIT = 8


class Context(Answered, Protocol):
    """What is used of a call's context: grpc.aio's, or the transcoder's, which behaves alike."""

    async def abort(self, code: grpc.StatusCode, details: str = "", trailing_metadata: Any = ()) -> NoReturn:
        """End the call with a status; raises."""


class StreamContext(Context, Protocol):
    """The context of a call that sends a stream."""

    async def read(self) -> Any:
        """Return the next message, or grpc.aio.EOF."""


class Calls:
    """What every call through one door shares."""

    def __init__(
        self,
        door: Source,
        admission: Admission,
        observer: Observer,
        *,
        timeout: float,
        callers: Callers | None = None,
        see: Callable[[Any], Presented] = of_scope,
        traces: Traces | None = None,
    ) -> None:
        """``timeout``: seconds that a call with a time limit may take. ``traces`` hears of each call.

        ``callers`` knows who calls, of what ``see`` sees of a call's context; without them nobody has to say.
        """
        self.admission = admission
        self.observer = observer
        self.traces = traces
        self.door = door.value
        # Whoever calls, where nobody has to say who.
        self.anybody = None if callers is not None else Caller(door)
        self._source = door
        self._callers = callers
        self._see = see
        self._timeout = timeout
        self._timers = Timers(min(_TICK_SECONDS, timeout / _TICKS_PER_LIMIT))

    async def identify(self, method: str, context: Any) -> Caller:
        """Return who calls ``method``, of the call's context; raises ``NotIdentified`` or ``PermissionDenied``."""
        if self.anybody is not None:
            return self.anybody
        assert self._callers is not None  # noqa: S101 - for the type checker
        return await self._callers.caller(self._see(context), method, self._source)

    async def identify_early(self, context: Any) -> Caller:
        """Return who makes a call over HTTP before its body is read; ends the call of one who may not make it now."""
        method: str = context.rpc_method.rpartition("/")[2]
        try:
            self.admission.check_open()
            caller = await self.identify(method, context)
            self.admission.check_rate(caller.principal, cancels=NEEDS[method] is Permission.CANCEL)
        except UploadError:
            async with Call(self, method, functools.partial(abort, context), context):
                raise
        return caller

    def limit(self) -> Limit:
        """Return a block of a call that ends with an error when it takes too long."""
        return Limit(self._timers, self._timeout)


class Call:
    """One call, whatever its door: ``async with`` it, and it is counted, logged and ended with an error that says why.

    ``tell`` says an error of the block, which then goes no further, unless ``tell`` itself raises, as ``abort`` does.
    """

    __slots__ = (
        "_caller",
        "_calls",
        "_context",
        "_gate",
        "_is_counted",
        "_method",
        "_started",
        "_steps",
        "_tell",
        "about",
        "code",
    )

    def __init__(self, calls: Calls, method: str, tell: Tell, context: Any) -> None:
        """``method`` is the RPC that the call is; ``context`` what its door sees of it: headers, peer."""
        self._calls = calls
        self._method = method
        self._tell = tell
        self._context = context
        self._caller = calls.anybody
        self._gate: Gate | None = None
        # Whether its principal's rate has it, since before its body was read.
        self._is_counted = False
        self._started = time.monotonic()
        # How the call ended, for the metrics: a door sets it where no error says so.
        self.code = "OK"
        # What the call was about and waited for, for a trace.
        self.about: Mapping[str, str] = _NOTHING
        self._steps: Steps | None = None

    async def identify(self) -> Caller:
        """Return who calls; raises ``ShuttingDown``, ``NotIdentified`` or ``PermissionDenied``."""
        if self._caller is None:
            self._calls.admission.check_open()
            known: Caller | None = getattr(self._context, "known", None)
            self._is_counted = known is not None
            self._caller = known or await self._calls.identify(self._method, self._context)
        return self._caller

    async def admit(self, gate: Gate) -> Caller:
        """Let the call in, or on from the gate it was at; raises as ``identify``, ``Overloaded`` or ``QuotaExceeded``.

        In this order: whether anybody is let in, who it is, what that one may, how often, whether there is room.
        """
        caller = self._caller or await self.identify()
        if gate is not self._gate:
            if self._gate is None and caller.principal and not self._is_counted:
                self._calls.admission.check_rate(caller.principal, cancels=gate is Gate.CANCEL)
            self._calls.admission.enter(gate, caller.principal)
            if self._gate is not None:
                self._calls.admission.leave(self._gate, caller.principal)
            self._gate = gate
        return caller

    def turn(self, caller: Caller, *, cancels: bool = False, waits_for_disk: bool = False) -> Turn:
        """Return a block that begins when it is the call's turn among its principal's; at once without one."""
        return self._calls.admission.turns.turn(caller.principal, cancels=cancels, waits_for_disk=waits_for_disk)

    def refuse(self, error: UploadError) -> None:
        """Note that the call ends with ``error``. The audit trail has no refusals: they change nothing."""
        self.code = STATUS_CODES[code_of(error)].name
        if isinstance(error, InternalError | NotIdentified | PermissionDenied):
            return  # it has its line, the first with its incident
        # At DEBUG what comes in masses and says nothing of the call: a stream that had to stop, a server that is full.
        write = log.debug if isinstance(error, Stopped | Overloaded | QuotaExceeded) else log.info
        write("call.refused", method=self._method, door=self._calls.door, error=error.reason, **error.metadata)

    async def __aenter__(self) -> Self:
        if self._calls.traces is not None:
            self._steps = Steps()
            STEPS.set(self._steps)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> bool:
        calls = self._calls
        refusal: UploadError | None = None
        left = _means_that_the_caller_left(error)
        if isinstance(error, Exception) and not left:
            refusal = self._meaning(error)
            self.refuse(refusal)
        elif error is not None:
            # The caller left or its deadline passed: nobody is left to tell. Never swallowed (a leak in grpcio).
            self.code = "CANCELLED"
        ended = time.monotonic()
        trace: Mapping[str, str] | None = None
        if calls.traces is not None:
            about = {**self.about, "door": calls.door}
            if refusal is not None:
                about |= {**refusal.metadata, "reason": refusal.reason}
            steps = self._steps.taken if self._steps is not None else ()
            trace = calls.traces.call_finished(
                self._method, self.code, self._started, ended, parent_of(self._context), about, steps
            )
        calls.observer.call_finished(self._method, calls.door, self.code, ended - self._started, trace)
        try:
            if refusal is not None:
                await self._tell(refusal)
        except grpc.aio.InternalError as failed:
            left, error = True, failed
        finally:
            if self._gate is not None:
                calls.admission.leave(self._gate, self._caller.principal if self._caller is not None else "")
        if left:
            log.debug("call.left", method=self._method, door=calls.door)
            # grpcio would log its own error as one of the server's.
            raise asyncio.CancelledError from error
        return refusal is not None

    def _meaning(self, error: Exception) -> UploadError:
        """Return the error that the caller gets."""
        if isinstance(error, UploadError):
            return error
        if isinstance(error, TimeoutError):
            # The write goes on behind this call; a read has changed nothing.
            return DatabaseFailure() if self._gate in {Gate.READ, Gate.LIST} else OutcomeUnknown()
        return unforeseen("call.failed", error, method=self._method, door=self._calls.door)


def _means_that_the_caller_left(error: BaseException | None) -> bool:
    """Whether grpcio could not write because nobody listens any more: the stream was reset, or the server stopped."""
    return isinstance(error, grpc.aio.BaseError) and not isinstance(error, grpc.aio.UsageError)


def unforeseen(event: str, error: Exception, **about: str) -> InternalError:
    """Log an error that nobody foresaw; returns what the caller gets, with the incident that stands in the log."""
    incident = uuid.uuid4().hex
    log.error(event, incident=incident, exc_info=error, **about)
    return InternalError(incident)


async def abort(context: Context, error: UploadError) -> NoReturn:
    """Tell an error over gRPC or the transcoder. The only place that aborts: ``abort`` raises an Exception.

    Code inside a call that catches too much would go on after having refused.
    """
    status = to_status(error)
    details: list[tuple[str, str | bytes]] = [("grpc-status-details-bin", status.SerializeToString())]
    if asked := challenge(error):
        details.append(("www-authenticate", asked))
    await context.abort(STATUS_CODES[status.code], status.message, tuple(details))


def _ids_in(*messages: Any) -> Mapping[str, str]:
    """Return the ids of the file and the batch that messages name."""
    return {
        name: found
        for name in ("file_id", "batch_id")
        for found in [next(filter(None, (getattr(message, name, "") for message in messages)), "")]
        if found
    }


class Unread:
    """A call's message that has not come yet: it is read once the call is counted."""

    __slots__ = ()

    async def read(self) -> Any:
        """Return the message; raises an ``UploadError``."""
        raise NotImplementedError

    async def tell(self, error: UploadError) -> None:
        """End the call with ``error``; raises, as ``abort`` does."""
        raise NotImplementedError


class HasCalls(Protocol):
    """A servicer whose methods are wrapped here."""

    @property
    def calls(self) -> Calls:
        """What its calls share."""


Servicer = TypeVar("Servicer", bound=HasCalls)


def unary(
    gate: Gate,
    *,
    waits_for_disk: bool = False,
) -> Callable[
    [Callable[[Servicer, Request, Caller], Awaitable[Response]]],
    Callable[[Servicer, Request | Unread, Context], Awaitable[Response]],
]:
    """Make a method of (request, caller) a unary handler of (request, context)."""

    def wrap(
        method: Callable[[Servicer, Request, Caller], Awaitable[Response]],
    ) -> Callable[[Servicer, Request | Unread, Context], Awaitable[Response]]:
        @functools.wraps(method)
        async def handler(servicer: Servicer, request: Request | Unread, context: Context) -> Response:
            calls = servicer.calls
            tell = request.tell if isinstance(request, Unread) else functools.partial(abort, context)
            async with (
                Call(calls, method.__name__, tell, context) as call,
                # Before anything is done for the call but to know whose it is: what is refused takes its turn, too.
                call.turn(await call.identify(), cancels=gate is Gate.CANCEL, waits_for_disk=waits_for_disk),
            ):
                caller = await call.admit(gate)
                message: Request = await request.read() if isinstance(request, Unread) else request
                with calls.limit():
                    response = await method(servicer, message, caller)
                calls.admission.hold_answer(response, context)
                if calls.traces is not None:
                    call.about = _ids_in(message, response, getattr(response, "file", None))
                return response
            raise AssertionError("abort raises")

        return handler

    return wrap


class Paged(Protocol):
    """A request for a page of a list."""

    page_size: int


PagedRequest = TypeVar("PagedRequest", bound=Paged)


def listing(
    method: Callable[[Servicer, PagedRequest, Caller], Awaitable[Response]],
) -> Callable[[Servicer, PagedRequest | Unread, Context], Awaitable[Response]]:
    """Make a method of (request, caller) a unary handler that makes a page of a list when it has its turn."""

    @functools.wraps(method)
    async def in_turn(servicer: Servicer, request: PagedRequest, caller: Caller) -> Response:
        async with servicer.calls.admission.list_turn(request.page_size):
            return await method(servicer, request, caller)

    return unary(Gate.LIST)(in_turn)
