"""Decides which requests are served, and how the others are refused.

Must not know any service, nor the course of a call.
"""

import logging
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any

from google.protobuf import descriptor_pool

from .asgi import (
    BodyTimes,
    DisconnectedError,
    Receive,
    Scope,
    Send,
    Sender,
    UnaskedBody,
    announces_body,
    answer,
    answer_empty,
    answer_unread,
    raw_path,
)
from .budget import BodyBudget
from .calls import UNEXPECTED
from .errors import ErrorDetails, Fault, FaultError, FaultKind, no_details
from .metadata import Metadatum
from .options import Options, RequestLimits
from .printer import JsonPrinter, PrintStyle
from .router import MalformedPathError, Match
from .rules import Services, build_router
from .serving import JSON_HEADERS, ServedRequest, Shared
from .status import StatusWriter

_log = logging.getLogger(__name__)


def build_app(
    services: Services,
    *,
    reject_unknown: bool = False,
    proto_names: bool = True,
    omit_defaults: bool = False,
    enums_as_numbers: bool = False,
    request_limits: RequestLimits | None = None,
    method_limits: Mapping[str, RequestLimits] | None = None,
    body_budget: BodyBudget | None = None,
    max_path_bytes: int = 8 * 1024,
    max_query_bytes: int = 64 * 1024,
    max_json_depth: int = 100,
    body_timeout: float = 60.0,
    body_idle_timeout: float = 5.0,
    default_timeout: float | None = None,
    sse_id_field: str | None = None,
    sse_resume_field: str | None = None,
    sse_heartbeat: float = 15.0,
    error_details: ErrorDetails = no_details,
    http_statuses: Mapping[str, int] | None = None,
    extra_metadata: Sequence[tuple[str, str | bytes]] = (),
    www_authenticate: str = "Bearer",
    before_body: Callable[[Any], Awaitable[Any]] | None = None,
) -> "Transcoder":
    """An ASGI app that serves `services` by their google.api.http rules.

    Raises TranscodingConfigError, naming method and rule, where a declaration is wrong.

    reject_unknown: unknown JSON fields and query parameters are 400; by default they are ignored.
    proto_names: response fields as the proto spells them, else in lowerCamelCase; requests may use both.
    omit_defaults: leaves out response fields without presence that have their default.
    enums_as_numbers: prints enum values as numbers.
    request_limits: how much a request may hold; a larger body is 413, more elements or longer values are 400.
    method_limits: the same of single methods, by their names.
    body_budget: how many bytes of bodies over 64 KiB may be in memory at once; a body that has no room is 429.
    max_path_bytes, max_query_bytes: a longer path or query is 414.
    max_json_depth: a body nested deeper is 400.
    body_timeout, body_idle_timeout: seconds for a whole body and between its parts; later is 408.
    default_timeout: seconds for a unary call that sends no Grpc-Timeout.
    sse_id_field: the response field, where a message has it, that becomes an event's id.
    sse_resume_field: the request field, where a message has it, that Last-Event-ID is given to.
    sse_heartbeat: seconds of silence before a comment is sent.
    error_details: gives the details of errors that the transcoder makes itself.
    http_statuses: HTTP statuses, by the reason in an error's ErrorInfo, that are not those of the gRPC code.
    extra_metadata: added to every call's invocation metadata.
    www_authenticate: the challenge that goes with 401, unless the servicer's metadata holds one; one of a 403 does too.
    before_body: called with the call's context before a body is read, which it need not be when this aborts the call;
    what it returns the servicer finds as `known` of the context.
    """
    options = Options(
        reject_unknown=reject_unknown,
        style=PrintStyle(proto_names, omit_defaults, enums_as_numbers),
        request_limits=request_limits or RequestLimits(),
        method_limits=method_limits or {},
        body_budget=body_budget or BodyBudget(),
        max_path_bytes=max_path_bytes,
        max_query_bytes=max_query_bytes,
        max_json_depth=max_json_depth,
        body_timeout=body_timeout,
        body_idle_timeout=body_idle_timeout,
        default_timeout=default_timeout,
        sse_id_field=sse_id_field,
        sse_resume_field=sse_resume_field,
        sse_heartbeat=sse_heartbeat,
        error_details=error_details,
        http_statuses=dict(http_statuses or {}),
        extra_metadata=extra_metadata,
        www_authenticate=www_authenticate,
        before_body=before_body,
    )
    return Transcoder(services, options)


class Transcoder:
    """The ASGI app. One instance serves one event loop."""

    def __init__(self, services: Services, options: Options) -> None:
        self._router = build_router(services, options)
        pools = {id(pool): pool for pool in (descriptor_pool.Default(), *(s.file.pool for s, _ in services))}
        printers = [JsonPrinter(pool, options.style) for pool in pools.values()]
        self._shared = Shared(
            options,
            StatusWriter(printers, options.error_details),
            BodyTimes(options.body_timeout, options.body_idle_timeout),
            tuple(Metadatum(key.lower(), value) for key, value in options.extra_metadata),
        )

    @property
    def writer(self) -> StatusWriter:
        """Prints outcomes: for an app around this one that answers errors in the same form."""
        return self._shared.writer

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serves one ASGI scope."""
        if scope["type"] != "http":
            await _serve_other(scope["type"], receive, send)
            return
        head = scope["method"] == "HEAD"
        sender = Sender(send)
        try:
            path = self._path(scope)
            found = self._router.find(scope["method"], path)
            if not (isinstance(found, Match) and found.target.read_body is not None) and announces_body(scope):
                unasked = UnaskedBody(receive, send, self._shared.options.body_budget)
                receive, sender = unasked.receive, Sender(unasked.send)
            if isinstance(found, Match):
                await ServedRequest(self._shared, found, path, scope, receive, sender).serve()
            else:
                await self._refuse(scope, found, sender)
        except DisconnectedError:
            return
        except FaultError as error:
            if error.unread:
                await self._answer_unread(error.fault, receive, sender)
            else:
                await self._answer_fault(error.fault, sender, head=head)
        except MalformedPathError as error:
            fault = Fault(FaultKind.MALFORMED_PATH, f"malformed path: {error}")
            await self._answer_fault(fault, sender, head=head)
        except Exception:
            if sender.started:
                raise
            _log.exception("%s: unexpected exception outside of the servicer", scope.get("path"))
            await self._answer_fault(UNEXPECTED, sender, head=head)

    def _path(self, scope: Scope) -> str:
        path = raw_path(scope)
        if len(path) > self._shared.options.max_path_bytes:
            raise FaultError(FaultKind.URL_TOO_LONG, "the path is too long")
        if len(scope.get("query_string", b"")) > self._shared.options.max_query_bytes:
            raise FaultError(FaultKind.URL_TOO_LONG, "the query is too long")
        if not path.startswith("/"):
            raise MalformedPathError("it does not begin with '/'")
        return path

    async def _refuse(self, scope: Scope, allowed: frozenset[str], send: Send) -> None:
        """Answers a path that takes other methods, or none."""
        method = scope["method"]
        if not allowed:
            await self._answer_fault(Fault(FaultKind.NOT_FOUND, "Not Found"), send, head=method == "HEAD")
            return
        implied = {"OPTIONS"} | ({"HEAD"} if "GET" in allowed else set())
        allow = [(b"allow", ", ".join(sorted(allowed | implied)).encode())]
        if method == "OPTIONS":
            await answer_empty(send, 204, allow)
            return
        outcome = self._shared.writer.outcome(Fault(FaultKind.METHOD_NOT_ALLOWED, "Method Not Allowed"))
        body = self._shared.writer.body(outcome)
        await answer(send, outcome.status, body, [*JSON_HEADERS, *allow], head=method == "HEAD")

    async def _answer_fault(self, fault: Fault, send: Send, *, head: bool) -> None:
        await self._shared.send_outcome(self._shared.writer.outcome(fault), send, head=head)

    async def _answer_unread(self, fault: Fault, receive: Receive, send: Send) -> None:
        shared = self._shared
        outcome = shared.writer.outcome(fault)
        body, headers = shared.writer.body(outcome), shared.headers(outcome)
        await answer_unread(send, receive, outcome.status, body, headers, shared.options.body_budget)


async def _serve_other(kind: str, receive: Receive, send: Send) -> None:
    """Serves a scope that is no request: a lifespan, or a WebSocket, which is refused."""
    if kind == "websocket":
        await receive()
        await send({"type": "websocket.close", "code": 1008, "reason": "no WebSocket here"})
        return
    if kind != "lifespan":
        raise ValueError(f"unknown ASGI scope type {kind!r}")
    while True:
        message = await receive()
        if message["type"] == "lifespan.startup":
            await send({"type": "lifespan.startup.complete"})
        elif message["type"] == "lifespan.shutdown":
            await send({"type": "lifespan.shutdown.complete"})
            return
