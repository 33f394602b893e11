"""Decides how one HTTP request becomes one call of a servicer, and the call an HTTP answer.

Must not know any service: rules say what to call, forms say how to print.
"""

import asyncio
import logging
import time
from collections.abc import Sequence
from typing import Any, Final

import grpc
from google.protobuf import descriptor_pool

from .asgi import (
    JSON,
    BodyLimits,
    DisconnectedError,
    HeaderList,
    Receive,
    Scope,
    Send,
    answer,
    answer_empty,
    answer_unread,
    raw_path,
    read_body,
)
from .calls import StreamCall, UnprintableError, call_unary, outcome_of_error
from .context import HttpContext, HttpRequest
from .errors import ErrorDetails, Fault, FaultError, FaultKind, FieldError, no_details
from .guard import Cause, Guard
from .metadata import Headers, Metadatum, header, invocation_metadata, response_headers, timeout_seconds
from .options import Options
from .printer import JsonPrinter, PrintStyle
from .router import MalformedPathError, Match
from .rules import Binding, Services, build_router
from .status import Outcome, StatusWriter
from .streams import Events, Framer, content_type_of, framer_for, http_body

_log = logging.getLogger(__name__)

_WATCH_UNARY_AFTER: Final = 0.02
"""Seconds before a unary call's client is watched: most are answered by then."""
_UNREAD: Final = frozenset({FaultKind.BODY_TOO_LARGE, FaultKind.BODY_TIMEOUT, FaultKind.UNSUPPORTED_ENCODING})
_JSON_HEADERS: Final = ((b"content-type", JSON),)


def build_app(
    services: Services,
    *,
    reject_unknown: bool = False,
    proto_names: bool = True,
    omit_defaults: bool = False,
    enums_as_numbers: bool = False,
    max_body_bytes: int = 8 * 1024 * 1024,
    max_url_bytes: int = 64 * 1024,
    max_json_depth: int = 100,
    body_timeout: float = 60.0,
    body_idle_timeout: float = 5.0,
    default_timeout: float | None = None,
    sse_id_field: str | None = None,
    sse_resume_field: str | None = None,
    sse_heartbeat: float = 15.0,
    error_details: ErrorDetails = no_details,
    extra_metadata: Sequence[tuple[str, str | bytes]] = (),
    www_authenticate: str = "Bearer",
) -> "Transcoder":
    """An ASGI app that serves `services` by their google.api.http rules.

    Raises TranscodingConfigError, naming method and rule, where a declaration is wrong.

    reject_unknown: unknown JSON fields and query parameters are 400; by default they are ignored.
    proto_names: response fields as the proto spells them, else in lowerCamelCase; requests may use both.
    omit_defaults: leaves out response fields without presence that have their default.
    enums_as_numbers: prints enum values as numbers.
    max_body_bytes: a larger body is 413.
    max_url_bytes: a longer path and query is 414.
    max_json_depth: a body nested deeper is 400.
    body_timeout, body_idle_timeout: seconds for a whole body and between its parts; later is 408.
    default_timeout: seconds for a unary call that sends no Grpc-Timeout.
    sse_id_field: the response field, where a message has it, that becomes an event's id.
    sse_resume_field: the request field, where a message has it, that Last-Event-ID is given to.
    sse_heartbeat: seconds of silence before a comment is sent.
    error_details: gives the details of errors that the transcoder makes itself.
    extra_metadata: added to every call's invocation metadata.
    www_authenticate: the challenge that goes with 401, unless the servicer's metadata holds one.
    """
    options = Options(
        reject_unknown=reject_unknown,
        style=PrintStyle(proto_names, omit_defaults, enums_as_numbers),
        max_body_bytes=max_body_bytes,
        max_url_bytes=max_url_bytes,
        max_json_depth=max_json_depth,
        body_timeout=body_timeout,
        body_idle_timeout=body_idle_timeout,
        default_timeout=default_timeout,
        sse_id_field=sse_id_field,
        sse_resume_field=sse_resume_field,
        sse_heartbeat=sse_heartbeat,
        error_details=error_details,
        extra_metadata=extra_metadata,
        www_authenticate=www_authenticate,
    )
    return Transcoder(services, options)


class Transcoder:
    """The ASGI app. One instance serves one event loop."""

    def __init__(self, services: Services, options: Options) -> None:
        self._options = options
        self._router = build_router(services, options)
        pools = {id(pool): pool for pool in (descriptor_pool.Default(), *(s.file.pool for s, _ in services))}
        printers = [JsonPrinter(pool, options.style) for pool in pools.values()]
        self._writer = StatusWriter(printers, options.error_details)
        self._limits = BodyLimits(options.max_body_bytes, options.body_timeout, options.body_idle_timeout)
        self._extra = tuple(Metadatum(key.lower(), value) for key, value in options.extra_metadata)
        self._streams: set[Guard[Outcome | None]] = set()
        self._draining = False

    def end_streams(self) -> None:
        """Ends every open stream with UNAVAILABLE and refuses new ones: for a drain. Unary calls go on."""
        self._draining = True
        for guard in tuple(self._streams):
            guard.end(Cause.SHUTDOWN)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serves one ASGI scope."""
        kind = scope["type"]
        if kind == "http":
            await self._http(scope, receive, send)
        elif kind == "lifespan":
            await _lifespan(receive, send)
        elif kind == "websocket":
            await receive()
            await send({"type": "websocket.close", "code": 1008, "reason": "no WebSocket here"})
        else:
            raise ValueError(f"unknown ASGI scope type {kind!r}")

    async def _http(self, scope: Scope, receive: Receive, send: Send) -> None:
        head = scope["method"] == "HEAD"
        try:
            found = self._route(scope)
            if isinstance(found, Match):
                await _Call(self, found, scope, receive, send).serve()
            else:
                await self._refuse(scope, found, send)
        except DisconnectedError:
            return
        except FaultError as error:
            fault = error.fault
            await self._answer_fault(fault, receive, send, head=head)
        except MalformedPathError as error:
            fault = Fault(FaultKind.MALFORMED_PATH, f"malformed path: {error}")
            await self._answer_fault(fault, receive, send, head=head)

    def _route(self, scope: Scope) -> Match[Binding] | frozenset[str]:
        path = raw_path(scope)
        if len(path) + len(scope.get("query_string", b"")) > self._options.max_url_bytes:
            raise FaultError(FaultKind.URL_TOO_LONG, f"the URL is longer than {self._options.max_url_bytes} bytes")
        if not path.startswith("/"):
            raise MalformedPathError("it does not begin with '/'")
        return self._router.find(scope["method"], path)

    async def _refuse(self, scope: Scope, allowed: frozenset[str], send: Send) -> None:
        """Answers a path that takes other methods, or none."""
        method = scope["method"]
        if not allowed:
            fault = Fault(FaultKind.NOT_FOUND, "Not Found")
            await self.send_outcome(self._writer.outcome(fault), send, head=method == "HEAD")
            return
        implied = {"OPTIONS"} | ({"HEAD"} if "GET" in allowed else set())
        allow = [(b"allow", ", ".join(sorted(allowed | implied)).encode())]
        if method == "OPTIONS":
            await answer_empty(send, 204, allow)
            return
        outcome = self._writer.outcome(Fault(FaultKind.METHOD_NOT_ALLOWED, "Method Not Allowed"))
        body = self._writer.body(outcome)
        await answer(send, outcome.status, body, [*_JSON_HEADERS, *allow], head=method == "HEAD")

    async def _answer_fault(self, fault: Fault, receive: Receive, send: Send, *, head: bool) -> None:
        outcome = self._writer.outcome(fault)
        if fault.kind in _UNREAD:
            await answer_unread(send, receive, outcome.status, self._writer.body(outcome), _JSON_HEADERS)
        else:
            await self.send_outcome(outcome, send, head=head)

    async def send_outcome(self, outcome: Outcome, send: Send, *, head: bool, trailers: bool = False) -> None:
        """Answers with a Status."""
        headers: HeaderList = [*_JSON_HEADERS, *_metadata_headers(outcome.metadata, outcome.trailing, trailers)]
        if outcome.code is grpc.StatusCode.UNAUTHENTICATED:
            headers.append((b"www-authenticate", self._challenge(outcome)))
        await answer(send, outcome.status, self._writer.body(outcome), headers, head=head)

    def _challenge(self, outcome: Outcome) -> bytes:
        for key, value in (*outcome.metadata, *outcome.trailing):
            if key == "www-authenticate" and isinstance(value, str) and value.isascii() and value.isprintable():
                return value.encode()
        return self._options.www_authenticate.encode()

    # What a call needs of the app.

    @property
    def options(self) -> Options:
        """The options it was built with."""
        return self._options

    @property
    def writer(self) -> StatusWriter:
        """Prints outcomes."""
        return self._writer

    async def body(self, receive: Receive, headers: Headers, deadline: float | None) -> bytes:
        """The request's body within the limits."""
        return await read_body(receive, headers, self._limits, deadline)

    def metadata(self, headers: Headers, client: tuple[str, int] | None) -> tuple[Metadatum, ...]:
        """The invocation metadata of a call."""
        return (*invocation_metadata(headers, client[0] if client else ""), *self._extra)

    def enter(self, guard: Guard[Outcome | None]) -> None:
        """Notes an open stream; FaultError while draining."""
        if self._draining:
            raise FaultError(FaultKind.SHUTTING_DOWN, "the server is shutting down")
        self._streams.add(guard)

    def leave(self, guard: Guard[Outcome | None]) -> None:
        """Forgets a stream."""
        self._streams.discard(guard)


class _Call:
    """One matched request on its way through."""

    def __init__(self, app: Transcoder, match: Match[Binding], scope: Scope, receive: Receive, send: Send) -> None:
        self._app = app
        self._binding = match.target
        self._values = match.values
        self._scope = scope
        self._receive = receive
        self._send = send
        self._headers: Headers = scope["headers"]
        self._head = scope["method"] == "HEAD"
        self._trailers = b"trailers" in (header(self._headers, b"te") or b"")

    async def serve(self) -> None:
        binding, method = self._binding, self._binding.method
        seconds = timeout_seconds(self._headers)
        if seconds is None and not method.streams:
            seconds = self._app.options.default_timeout
        deadline = None if seconds is None else time.monotonic() + seconds
        context = self._context(deadline)
        body, content_type = b"", ""
        if binding.read_body is not None:
            body, content_type = await self._body(deadline)
        request = binding.request(self._values, self._query(), body, content_type)
        try:
            if method.streams:
                await self._stream(request, context, deadline)
            else:
                await self._unary(request, context, deadline)
        finally:
            context.finish()

    def _context(self, deadline: float | None) -> HttpContext:
        scope = self._scope
        client = scope.get("client")
        address = (str(client[0]), int(client[1] or 0)) if client else None
        http = HttpRequest(scope["method"], raw_path(scope), self._binding.template.text, self._headers, address)
        metadata = self._app.metadata(self._headers, address)
        return HttpContext(http, metadata, deadline, self._binding.method.name)

    async def _body(self, deadline: float | None) -> tuple[bytes, str]:
        if not self._binding.raw_body:
            encoding = header(self._headers, b"content-encoding")
            if encoding is not None and encoding.strip().lower() not in (b"", b"identity"):
                raise FaultError(FaultKind.UNSUPPORTED_ENCODING, "content-encoding is not supported")
        body = await self._app.body(self._receive, self._headers, deadline)
        content_type = header(self._headers, b"content-type") or b""
        return body, content_type.decode("latin-1")

    def _query(self) -> str:
        try:
            return str(self._scope.get("query_string", b"").decode())
        except UnicodeDecodeError:
            raise FaultError(FaultKind.INVALID_FIELD, "malformed query: not UTF-8") from None

    async def _unary(self, request: Any, context: HttpContext, deadline: float | None) -> None:
        method = self._binding.method
        guard: Guard[Any] = Guard(self._receive, deadline, _WATCH_UNARY_AFTER)
        task = await guard.run(call_unary(method, request, context))
        ended = self._ended(guard.cause, context)
        if ended is not None or guard.cause is not None:
            if ended is not None:
                await self._fail(ended)
            await guard.join()
            return
        try:
            response = task.result()
        except (Exception, asyncio.CancelledError) as error:  # noqa: BLE001 - told apart and logged there
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
                body, content_type = form.to_text(response).encode(), JSON
        except Exception as error:  # noqa: BLE001 - logged there
            cause = UnprintableError()
            cause.__cause__ = error
            await self._fail(outcome_of_error(self._binding.method, context, cause))
            return
        headers = [
            (b"content-type", content_type),
            *_metadata_headers(context.initial, context.trailing, self._trailers),
        ]
        await answer(self._send, 200, body, headers, head=self._head)

    async def _stream(self, request: Any, context: HttpContext, deadline: float | None) -> None:
        framer = framer_for(self._binding, self._app.writer, self._headers)
        if isinstance(framer, Events):
            self._resume(request)
        call = StreamCall(self._binding.method, self._send, framer, context, head=self._head)
        guard: Guard[Outcome | None] = Guard(self._receive, deadline, 0.0)
        self._app.enter(guard)
        try:
            task = await call.run(guard, request, self._app.options.sse_heartbeat)
        finally:
            self._app.leave(guard)
        try:
            if guard.cause is not None:
                ended = self._ended(guard.cause, context)
                if ended is not None:
                    await self._end_stream(call, framer, ended)
            else:
                await self._end_stream(call, framer, self._result(task, context))
        finally:
            await guard.join()

    def _result(self, task: "asyncio.Task[Outcome | None]", context: HttpContext) -> Outcome | Fault | None:
        try:
            return task.result()
        except (Exception, asyncio.CancelledError) as error:  # noqa: BLE001 - told apart and logged there
            return outcome_of_error(self._binding.method, context, error)

    async def _end_stream(self, call: StreamCall, framer: Framer, result: Outcome | Fault | None) -> None:
        if call.started:
            await call.finish(self._app.writer.outcome(result) if isinstance(result, Fault) else result)
        elif result is not None:
            await self._fail(result)
        elif self._head:
            await answer_empty(self._send, 200, call.headers())
        elif framer.status_when_empty == 204:  # noqa: PLR2004 - a status
            await answer_empty(self._send, 204, call.headers()[len(framer.headers()) :])
        else:
            await answer(self._send, framer.status_when_empty, b"", call.headers())

    def _resume(self, request: Any) -> None:
        """Gives Last-Event-ID to the request: a reconnecting client's URL still has the older token."""
        field, value = self._binding.method.sse_resume, header(self._headers, b"last-event-id")
        if field is None or not value:
            return
        if any(bound.names == field.names for bound in self._binding.path_fields):
            return
        try:
            field.set(request, value.decode())
        except (UnicodeDecodeError, FieldError):
            raise FaultError(FaultKind.INVALID_HEADER, "malformed Last-Event-ID header") from None

    def _ended(self, cause: Cause | None, context: HttpContext) -> Fault | None:
        """What the client is told of a call that was ended from outside, if it is still there."""
        if cause is None:
            return None
        context.cancel()
        if cause is Cause.DEADLINE:
            return Fault(FaultKind.DEADLINE_EXCEEDED, "deadline exceeded")
        if cause is Cause.SHUTDOWN:
            return Fault(FaultKind.SHUTTING_DOWN, "the server is shutting down")
        return None

    async def _fail(self, result: Outcome | Fault) -> None:
        outcome = self._app.writer.outcome(result) if isinstance(result, Fault) else result
        await self._app.send_outcome(outcome, self._send, head=self._head, trailers=self._trailers)


def _metadata_headers(
    initial: Sequence[tuple[str, str | bytes]], trailing: Sequence[tuple[str, str | bytes]], trailers: bool
) -> HeaderList:
    """Both kinds go back as headers: a complete answer has nothing after its body to hold the later one."""
    headers = response_headers((*initial, *trailing)) if initial or trailing else []
    if trailers and trailing:
        headers += response_headers(trailing, b"grpc-trailer-")
    return headers


async def _lifespan(receive: Receive, send: Send) -> None:
    while True:
        message = await receive()
        if message["type"] == "lifespan.startup":
            await send({"type": "lifespan.startup.complete"})
        elif message["type"] == "lifespan.shutdown":
            await send({"type": "lifespan.shutdown.complete"})
            return
