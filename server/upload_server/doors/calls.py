"""Decides what surrounds every call, through whichever door: caller, admission, time limit, errors, log, metrics.

Must not know what a call does, nor the words in which its door says an error.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import sys
import time
import uuid
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from enum import Enum
from types import TracebackType
from typing import Any, NoReturn, Protocol, Self, TypeVar

import grpc
import structlog
from google.protobuf.message import Message

from transcoder.timers import Limit, Timers
from upload_server.access.callers import Callers
from upload_server.access.identity import Presented
from upload_server.access.policy import NEEDS
from upload_server.access.quotas import Quotas
from upload_server.domain.caller import Caller, Permission
from upload_server.domain.errors import (
    CredentialLost,
    DatabaseFailure,
    InternalError,
    NotIdentified,
    OutcomeUnknown,
    Overloaded,
    PermissionDenied,
    QuotaExceeded,
    ShuttingDown,
    Stopped,
    UploadError,
)
from upload_server.domain.observer import Observer
from upload_server.domain.states import Source
from upload_server.domain.steps import STEPS, Steps
from upload_server.doors.errors import STATUS_CODES, challenge, code_of, to_status
from upload_server.doors.presented import of_scope, parent_of
from upload_server.doors.turns import Kind, Turn, Turns
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

    def hold_answer(self, answer: Message, context: Context) -> None:
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


class Context(Protocol):
    """What is used of a call's context: grpc.aio's, or the transcoder's, which behaves alike."""

    async def abort(self, code: grpc.StatusCode, details: str = "", trailing_metadata: Any = ()) -> NoReturn:
        """End the call with a status; raises."""

    def add_done_callback(self, callback: Callable[[Any], None]) -> None:
        """Have ``callback`` called once the caller has taken the answer, or is gone."""


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

    def turn(self, kind: Kind, caller: Caller) -> Turn:
        """Return a block that begins when it is the turn of its principal's calls of this kind; at once without one."""
        return self._calls.admission.turns.turn(caller.principal, kind)

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
        seconds = time.monotonic() - self._started
        trace: Mapping[str, str] | None = None
        if calls.traces is not None:
            about = {**self.about, "door": calls.door}
            if refusal is not None:
                about |= {**refusal.metadata, "reason": refusal.reason}
            steps = self._steps.taken if self._steps is not None else ()
            trace = calls.traces.call_finished(self._method, self.code, seconds, parent_of(self._context), about, steps)
        calls.observer.call_finished(self._method, calls.door, self.code, seconds, trace)
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

    async def read(self, is_late: Callable[[], None] | None = None) -> Any:
        """Return the message; raises an ``UploadError``. ``is_late`` is called when it does not come at once."""
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
    kind: Kind = Kind.OTHER,
) -> Callable[
    [Callable[[Servicer, Request, Caller], Awaitable[Response]]],
    Callable[[Servicer, Request | Unread, Context], Awaitable[Response]],
]:
    """Make a method of (request, caller) a unary handler of (request, context); ``kind`` takes turns."""

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
                call.turn(kind, await call.identify()) as turn,
            ):
                caller = await call.admit(gate)
                message: Request = await request.read(turn.give) if isinstance(request, Unread) else request
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
