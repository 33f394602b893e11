"""Decides which requests may come in at all, by their Origin, Host and Sec-Fetch headers; runs before anything else.

Must not know what is behind a path. Whoever calls is identified later; these checks keep a web page that the user
happens to visit from acting with what the browser, or the machine, lends it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Final

from google.rpc.code_pb2 import Code

from upload_server.access.identity import PeerCertificate
from upload_server.domain.observer import Observer
from upload_server.doors.http.asgi import (
    FOREIGN,
    Application,
    Headers,
    Message,
    Receive,
    Scope,
    Send,
    headers_of,
    refuse_handshake,
    respond,
    respond_empty,
    status_body,
    status_of,
)
from upload_server.doors.http.tls import CERTIFICATE
from upload_server.process.hosts import Origin, host_name, is_address, is_loopback_name

_SAFE_METHODS: Final = frozenset({"GET", "HEAD", "OPTIONS"})
_ALLOW_METHODS: Final = b"GET, HEAD, POST, PATCH, DELETE, OPTIONS"
_ALLOW_HEADERS: Final = (
    b"Accept, Authorization, Content-Type, Last-Event-ID, Grpc-Timeout, "
    b"Tus-Resumable, Upload-Length, Upload-Metadata, Upload-Offset, Upload-Concat, Upload-Defer-Length, "
    b"Upload-Checksum, X-HTTP-Method-Override, X-Request-ID, X-Requested-With, X-CSRF-Token, Cache-Control, "
    b"Traceparent, Tracestate, Baggage, Sentry-Trace, "
    b"Range, If-Match, If-None-Match, If-Range"
)
_EXPOSE_HEADERS: Final = (
    b"Allow, Location, Retry-After, Tus-Resumable, Tus-Version, Tus-Extension, Tus-Max-Size, "
    b"Tus-Checksum-Algorithm, Upload-Offset, Upload-Length, Upload-Metadata, Upload-Expires, "
    b"WWW-Authenticate, ETag, Content-Range, Content-Disposition"
)
_API: Final = "/api/"
# What a page can load into itself by a navigation: no person asks for that.
_FRAMES: Final = (b"iframe", b"frame", b"fencedframe", b"object", b"embed")
# By whether it is a WebSocket, and whether it is secure.
_SCHEMES: Final = (("http", "https"), ("ws", "wss"))
# Seconds a browser may remember a preflight's answer.
_MAX_AGE: Final = b"600"


# Asked for every request; a client's Host seldom changes.
@lru_cache(maxsize=256)
def _host_name(host: bytes) -> str:
    """The name in a Host header; empty when it is malformed."""
    try:
        return host_name(host.decode("ascii"))
    except ValueError:
        return ""


class Guard:
    """ASGI middleware: refuses foreign pages and, on a loopback bind, foreign Host names; CORS for allowed origins."""

    def __init__(
        self,
        app: Application,
        *,
        allowed_origins: Sequence[Origin] = (),
        allowed_hosts: Sequence[str] = (),
        allowed_headers: Sequence[str] = (),
        on_loopback: bool = True,
        observer: Observer | None = None,
        trusts: Callable[[PeerCertificate | None], bool] | None = None,
        refuse_cross_site: bool = False,
    ) -> None:
        """``allowed_headers``: which a page of an allowed origin may send besides the usual ones.

        ``trusts``: whether who shows a certificate may say how a browser has come to it.

        ``refuse_cross_site``: pages of other sites may not even read the API, unless they are of an allowed origin.
        """
        self._refuse_cross_site = refuse_cross_site
        self._trusts = trusts
        self._app = app
        self._allowed = frozenset(allowed_origins)
        self._allow_headers = b", ".join([_ALLOW_HEADERS, *(header.encode() for header in allowed_headers)])
        self._hosts = frozenset(host.lower() for host in allowed_hosts)
        self._on_loopback = on_loopback
        self._observer = observer or Observer()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Let the request through, or answer it here."""
        hosts, origins = _hosts_and_origins(scope)
        if self._trusts is not None and self._trusts(scope.get("state", {}).get(CERTIFICATE)):
            hosts = _as_forwarded(scope, hosts)
        if not self._host_fits(hosts):
            await self._refuse(scope, receive, send, _HOST_REFUSED, "HOST_NOT_ALLOWED")
            return
        allowed = bool(origins) and self._is_allowed(origins)
        if self._refuse_cross_site and not allowed and _is_cross_site_call(scope):
            await self._refuse(scope, receive, send, _ORIGIN_REFUSED, "ORIGIN_NOT_ALLOWED")
            return
        if not origins:
            await self._app(scope, receive, _with_headers(send, [_VARY]) if self._allowed else send)
            return
        if allowed:
            await self._serve_allowed(scope, receive, send, origins[0])
        elif (same_origin := _is_same_origin(scope, hosts, origins)) or _is_safe(scope):
            scope[FOREIGN] = not same_origin
            await self._app(scope, receive, _with_headers(send, [_VARY]) if self._allowed else send)
        else:
            await self._refuse(scope, receive, send, _ORIGIN_REFUSED, "ORIGIN_NOT_ALLOWED")

    def _host_fits(self, hosts: list[bytes]) -> bool:
        """Refuse a name of somebody else's: DNS was made to point here (rebinding), for a page to be same-origin.

        Beyond loopback that is known only once names are given; an address is nobody's name, and probes use it.
        """
        if len(hosts) > 1:
            return False
        if not self._on_loopback and not self._hosts:
            return True
        name = _host_name(hosts[0]) if hosts else ""
        return is_loopback_name(name) or name in self._hosts or (not self._on_loopback and is_address(name))

    def _is_allowed(self, origins: list[bytes]) -> bool:
        if not self._allowed:
            return False
        origin = _parse_single(origins)
        return origin is not None and origin in self._allowed

    async def _serve_allowed(self, scope: Scope, receive: Receive, send: Send, origin: bytes) -> None:
        """CORS: the page may read the answer; its preflights are answered here."""
        cors = [
            (b"access-control-allow-origin", origin),
            _CREDENTIALS,
            (b"access-control-expose-headers", _EXPOSE_HEADERS),
        ]
        if scope["type"] == "http" and scope["method"] == "OPTIONS" and _is_preflight(scope):
            await _answer_preflight(send, origin, self._allow_headers)
            return
        await self._app(scope, receive, _with_headers(send, [*cors, _VARY]))

    async def _refuse(self, scope: Scope, receive: Receive, send: Send, body: bytes, reason: str) -> None:
        self._observer.request_refused(reason)
        if scope["type"] == "websocket":
            await receive()  # websocket.connect
            await refuse_handshake(send, 403, body)
        else:
            await respond(send, 403, body)


def _refusal(reason: str, message: str) -> bytes:
    return status_body(status_of(Code.PERMISSION_DENIED, reason, message))


_VARY: Final = (b"vary", b"Origin")
# Beacons always carry credentials: without this a page that is left cannot cancel by one that is JSON.
_CREDENTIALS: Final = (b"access-control-allow-credentials", b"true")
_ORIGIN_REFUSED: Final = _refusal(
    "ORIGIN_NOT_ALLOWED",
    "Pages of this origin may not do this; the server's --allowed-origins names those that may",
)
_HOST_REFUSED: Final = _refusal(
    "HOST_NOT_ALLOWED",
    "The Host header must name this machine (localhost, 127.0.0.1, [::1]) or a name that --allowed-hosts gives",
)


def _hosts_and_origins(scope: Scope) -> tuple[list[bytes], list[bytes]]:
    hosts: list[bytes] = []
    origins: list[bytes] = []
    for key, value in scope["headers"]:
        if key == b"host":
            hosts.append(value)
        elif key == b"origin":
            origins.append(value)
    return hosts, origins


def _as_forwarded(scope: Scope, hosts: list[bytes]) -> list[bytes]:
    """Take the scheme that a browser used from a proxy, and return the host that it named."""
    schemes = headers_of(scope, b"x-forwarded-proto")
    if schemes in ([b"http"], [b"https"]):
        secure = schemes == [b"https"]
        scope["scheme"] = _SCHEMES[scope["type"] == "websocket"][secure]
    return headers_of(scope, b"x-forwarded-host") or hosts


def _is_cross_site_call(scope: Scope) -> bool:
    """Whether a page of another site calls the API, as its browser says, and no person follows a link to it.

    Pictures and forms of such a page come without an Origin; programs say nothing of sites.
    """
    if not scope["path"].startswith(_API) or headers_of(scope, b"sec-fetch-site") != [b"cross-site"]:
        return False
    followed = headers_of(scope, b"sec-fetch-mode") == [b"navigate"] and _is_safe(scope)
    return not followed or any(place in _FRAMES for place in headers_of(scope, b"sec-fetch-dest"))


def _parse_single(origins: list[bytes]) -> Origin | None:
    try:
        (text,) = origins
        return Origin.parse(text.decode("ascii"))
    except ValueError:
        return None


def _is_safe(scope: Scope) -> bool:
    """Whether the request changes nothing; a WebSocket handshake is not safe: browsers let any page open one."""
    return scope["type"] == "http" and scope["method"] in _SAFE_METHODS


def _is_same_origin(scope: Scope, hosts: list[bytes], origins: list[bytes]) -> bool:
    origin = _parse_single(origins)
    if origin is None or not hosts:
        return False
    try:
        return origin == Origin.served(scope["scheme"], hosts[0].decode("ascii"))
    except (KeyError, ValueError):
        return False


def _is_preflight(scope: Scope) -> bool:
    return bool(headers_of(scope, b"access-control-request-method"))


async def _answer_preflight(send: Send, origin: bytes, allow_headers: bytes) -> None:
    headers: Headers = [
        (b"access-control-allow-origin", origin),
        _CREDENTIALS,
        (b"access-control-allow-methods", _ALLOW_METHODS),
        (b"access-control-allow-headers", allow_headers),
        (b"access-control-max-age", _MAX_AGE),
        _VARY,
    ]
    await respond_empty(send, headers)


def _with_headers(send: Send, extra: Headers) -> Send:
    async def send_with_headers(message: Message) -> None:
        if message["type"] in {"http.response.start", "websocket.http.response.start"}:
            message = {**message, "headers": [*message.get("headers", ()), *extra]}
        await send(message)

    return send_with_headers
