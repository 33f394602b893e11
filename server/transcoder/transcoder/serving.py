"""Decides the course of one matched request: its limits, its call, and the answer.

Must not know routing, nor any service.
"""

import asyncio
import math
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Final
from urllib.parse import unquote_plus

import grpc

from .asgi import (
    JSON,
    Body,
    BodyTimes,
    DisconnectedError,
    HeaderList,
    Receive,
    Scope,
    Send,
    UnaskedBody,
    answer,
    answer_empty,
)
from .binding import Binding, ResponseForm
from .calls import StreamCall, UnprintableError, call_unary, outcome_of_error
from .context import HttpContext, HttpRequest
from .errors import Fault, FaultError, FaultKind, FieldError
from .guard import Cause, EndedError, Guard
from .metadata import CHALLENGE, Headers, Metadatum, invocation_metadata, response_headers, timeout_seconds
from .options import Options
from .router import Match
from .status import Outcome, StatusWriter
from .streams import Events, Framer, content_type_of, framer_for, http_body
from .timers import Timers

_WATCH_UNARY_AFTER: Final = 0.1
"""Seconds before a unary call's client is watched: most are answered by then, also under load."""
_AT_ONCE_BYTES: Final = 4096
"""A response of so many bytes is printed at once."""
_BETWEEN_PIECES: Final = 0.001
"""Seconds that others have between two pieces of a long response: a call needs several turns of the loop."""
_RESUMING: Final = ("lastEventId=", "Last-Event-ID=")
_SINGLE_PARAMETERS: Final = 64
"""Parameters of a query besides the elements of repeated fields."""
_CHALLENGED: Final = frozenset({grpc.StatusCode.UNAUTHENTICATED, grpc.StatusCode.PERMISSION_DENIED})
JSON_HEADERS: Final = ((b"content-type", JSON),)


@dataclass(slots=True)
class Shared:
    """What all requests of an app have in common."""

    options: Options
    writer: StatusWriter
    body_times: BodyTimes
    extra_metadata: tuple[Metadatum, ...]
    timers: Timers = field(default_factory=Timers)
    printing: asyncio.Lock = field(default_factory=asyncio.Lock)

    async def send_outcome(self, outcome: Outcome, send: Send, *, head: bool, trailers: bool = False) -> None:
        """Answers with a Status."""
        headers = self.headers(outcome, trailers=trailers)
        status = self.options.http_statuses.get(outcome.reason, outcome.status)
        await answer(send, status, self.writer.body(outcome), headers, head=head)

    def headers(self, outcome: Outcome, *, trailers: bool = False) -> HeaderList:
        """The headers of an answer with a Status."""
        headers: HeaderList = [*JSON_HEADERS, *_metadata_headers(outcome.metadata, outcome.trailing, trailers=trailers)]
        seconds = outcome.retry_after_seconds
        if seconds is not None:
            headers.append((b"retry-after", b"%d" % math.ceil(seconds)))
        if outcome.code in _CHALLENGED and (challenge := self._challenge(outcome)):
            headers.append((b"www-authenticate", challenge))
        return headers

    def _challenge(self, outcome: Outcome) -> bytes:
        for key, value in (*outcome.metadata, *outcome.trailing):
            if key == CHALLENGE and isinstance(value, str) and value.isascii() and value.isprintable():
                return value.encode()
        return self.options.www_authenticate.encode() if outcome.code is grpc.StatusCode.UNAUTHENTICATED else b""


class ServedRequest:
    """One matched request on its way through."""

    def __init__(
        self, shared: Shared, match: Match[Binding], path: str, scope: Scope, receive: Receive, send: Send
    ) -> None:
        self._shared = shared
        self._path = path
        self._binding = match.target
        self._values = match.values
        self._scope = scope
        self._receive = receive
        self._send = send
        self._headers = Headers(scope["headers"])
        self._head = scope["method"] == "HEAD"
        # As a query parameter: what stands in for EventSource in old browsers cannot set headers.
        self._last_event_id = ""

    async def serve(self) -> None:
        """Runs the call and answers; FaultError where it cannot be run."""
        binding, method = self._binding, self._binding.method
        timeout = self._headers.get(b"grpc-timeout")
        seconds = None if method.streams else self._shared.options.default_timeout
        if timeout is not None:
            seconds = timeout_seconds(timeout)
        deadline = None if seconds is None else time.monotonic() + seconds
        context = HttpContext(self._http, self._metadata, deadline, method.name)
        if self._headers.have_metadata:
            context.invocation_metadata()  # now, while a value that is no base64 can still be refused
        if binding.read_body is None:
            await self._call(method.request_class(), context, deadline)
            return
        if self._shared.options.before_body is not None and not await self._is_let_in(context):
            return
        content_type = (self._headers.get(b"content-type") or b"").decode("latin-1")
        with self._body() as body:
            message = method.request_class()
            data = await body.read(self._shared.body_times, deadline, self._shared.timers)
            for _ in binding.read_body(message, data, content_type):
                await asyncio.sleep(0)
            del data
            await self._call(message, context, deadline)

    async def _is_let_in(self, context: HttpContext) -> bool:
        """Asks whether the body shall be read; answers the request where not, and reads the body off behind that."""
        assert self._shared.options.before_body is not None  # noqa: S101 - for the type checker
        try:
            context.known = await self._shared.options.before_body(context)
        except Exception as error:  # noqa: BLE001 - told apart and logged there
            self._send = UnaskedBody(self._receive, self._send, self._shared.options.body_budget).send
            await self._fail(outcome_of_error(self._binding.method, context, error))
            return False
        return True

    async def _call(self, request: Any, context: HttpContext, deadline: float | None) -> None:
        query = self._query() if self._scope.get("query_string") else ""
        self._binding.complete(request, self._values, query)
        if deadline is not None and time.monotonic() >= deadline:
            raise FaultError(FaultKind.DEADLINE_EXCEEDED, "deadline exceeded")
        try:
            if self._binding.method.streams:
                await self._stream(request, context, deadline)
            else:
                await self._unary(request, context, deadline)
        finally:
            context.finish()

    def _http(self) -> HttpRequest:
        scope = self._scope
        client = scope.get("client")
        address = (str(client[0]), int(client[1] or 0)) if client else None
        state = scope.get("state") or {}
        return HttpRequest(scope["method"], self._path, self._binding.template.text, self._headers.raw, address, state)

    def _metadata(self, http: HttpRequest) -> tuple[Metadatum, ...]:
        host = http.client[0] if http.client else ""
        return (*invocation_metadata(self._headers, host), *self._shared.extra_metadata)

    def _body(self) -> Body:
        if not self._binding.raw_body:
            encoding = self._headers.get(b"content-encoding")
            if encoding is not None and encoding.strip().lower() not in (b"", b"identity"):
                raise FaultError(FaultKind.UNSUPPORTED_ENCODING, "content-encoding is not supported", unread=True)
        most = self._binding.method.limits.max_bytes
        return Body(self._receive, self._headers, most, self._shared.options.body_budget)

    def _query(self) -> str:
        try:
            query = str(self._scope["query_string"].decode())
        except UnicodeDecodeError:
            raise FaultError.of_field(FieldError("malformed: not UTF-8", "query")) from None
        most = self._binding.method.limits.max_elements + _SINGLE_PARAMETERS
        if query.count("&") >= most:
            raise FaultError.of_field(FieldError(f"must have at most {most} parameters", "query", most))
        if self._binding.method.sse_resume is None:
            return query
        parts = query.split("&")
        self._last_event_id = next((part for part in parts if part.startswith(_RESUMING)), "").partition("=")[2]
        return "&".join(part for part in parts if not part.startswith(_RESUMING))

    async def _unary(self, request: Any, context: HttpContext, deadline: float | None) -> None:
        method = self._binding.method

        async def tell(cause: Cause) -> None:
            fault = _ended(cause, context)
            if fault is not None:
                await self._fail(fault)

        guard = Guard(self._shared.timers, self._receive, tell, deadline, _WATCH_UNARY_AFTER)
        try:
            response = await guard.run(call_unary(method, request, context))
        except EndedError:
            return
        except Exception as error:  # noqa: BLE001 - told apart and logged there
            await self._fail(outcome_of_error(method, context, error))
            return
        if isinstance(response, Outcome):
            await self._fail(response)
        else:
            await self._succeed(response, context)

    async def _succeed(self, response: Any, context: HttpContext) -> None:
        form = self._binding.response
        try:
            if form.to_body is not None:
                holder = http_body(self._binding, response)
                body, content_type = bytes(holder.data), content_type_of(holder)
            else:
                body, content_type = (await self._text(form, response)).encode(), JSON
        except Exception as error:  # noqa: BLE001 - logged there
            cause = UnprintableError()
            cause.__cause__ = error
            await self._fail(outcome_of_error(self._binding.method, context, cause))
            return
        headers = [(b"content-type", content_type)]
        if context.initial or context.trailing:
            headers += _metadata_headers(context.initial, context.trailing, trailers=self._takes_trailers())
        await answer(self._send, 200, body, headers, head=self._head)

    async def _text(self, form: ResponseForm, response: Any) -> str:
        """The response as JSON; of a long list a piece a turn of the loop, and of one such response at a time."""
        if form.to_pieces is None or response.ByteSize() <= _AT_ONCE_BYTES:
            return form.to_text(response)
        pieces: list[str] = []
        async with self._shared.printing:
            for piece in form.to_pieces(response):
                pieces.append(piece)
                await asyncio.sleep(_BETWEEN_PIECES)
        return "".join(pieces)

    async def _stream(self, request: Any, context: HttpContext, deadline: float | None) -> None:
        framer = framer_for(self._binding, self._shared.writer, self._headers)
        if isinstance(framer, Events):
            self._resume(request)
        call = StreamCall(self._binding.method, self._send, framer, context, head=self._head)

        async def tell(cause: Cause) -> None:
            fault = _ended(cause, context)
            if fault is not None:
                await self._end_stream(call, framer, fault)

        guard = Guard(self._shared.timers, self._receive, tell, deadline, 0.0)
        try:
            result: Outcome | Fault | None = await call.run(guard, request, self._shared.options.sse_heartbeat)
        except EndedError:
            return
        except DisconnectedError:
            context.cancel()
            raise
        except Exception as error:  # noqa: BLE001 - told apart and logged there
            result = outcome_of_error(self._binding.method, context, error)
        await self._end_stream(call, framer, result)

    async def _end_stream(self, call: StreamCall, framer: Framer, result: Outcome | Fault | None) -> None:
        outcome = self._shared.writer.outcome(result) if isinstance(result, Fault) else result
        unavailable = outcome is not None and outcome.code is grpc.StatusCode.UNAVAILABLE
        if call.started or (unavailable and framer.tells_unavailable and not self._head):
            await call.finish(outcome)
        elif result is not None:
            await self._fail(result)
        elif self._head and call.has_message:
            await answer_empty(self._send, 200, call.headers())
        elif framer.status_when_empty == 204:  # noqa: PLR2004 - a status
            await answer_empty(self._send, 204, call.headers()[len(framer.headers()) :])
        else:
            await answer(self._send, framer.status_when_empty, b"", call.headers(), head=self._head)

    def _resume(self, request: Any) -> None:
        """Gives Last-Event-ID to the request: a reconnecting client's URL still has the older token."""
        field = self._binding.method.sse_resume
        value = self._headers.get(b"last-event-id") or unquote_plus(self._last_event_id).encode()
        if field is None or not value:
            return
        if any(bound.names == field.names for bound in self._binding.path_fields):
            return
        try:
            field.set(request, value.decode())
        except (UnicodeDecodeError, FieldError):
            raise FaultError(FaultKind.INVALID_HEADER, "malformed Last-Event-ID header") from None

    async def _fail(self, result: Outcome | Fault) -> None:
        outcome = self._shared.writer.outcome(result) if isinstance(result, Fault) else result
        await self._shared.send_outcome(outcome, self._send, head=self._head, trailers=self._takes_trailers())

    def _takes_trailers(self) -> bool:
        return b"trailers" in (self._headers.get(b"te") or b"")


def _ended(cause: Cause, context: HttpContext) -> Fault | None:
    """The fault that ends a call from outside; None when the client has left."""
    context.cancel()
    if cause is Cause.DEADLINE:
        return Fault(FaultKind.DEADLINE_EXCEEDED, "deadline exceeded")
    return None


def _metadata_headers(
    initial: Sequence[tuple[str, str | bytes]], trailing: Sequence[tuple[str, str | bytes]], *, trailers: bool
) -> HeaderList:
    """Both kinds go back as headers: a complete answer has nothing after its body to hold the later one."""
    headers = response_headers((*initial, *trailing)) if initial or trailing else []
    if trailers and trailing:
        headers += response_headers(trailing, b"grpc-trailer-")
    return headers
