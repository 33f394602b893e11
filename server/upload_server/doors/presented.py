"""Decides what of a call is taken for a credential, at each door: heads of requests, never URLs, bodies or trailers.

Must not know what a credential says. Metadata that the transcoder made of ``Grpc-Metadata-…`` is a claim of the caller
about itself, and no head.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any, Final
from urllib.parse import unquote

from upload_server.access.certificates import peer_certificate_of_pem
from upload_server.access.identity import PeerCertificate, Presented
from upload_server.doors.http.asgi import Scope, headers_of
from upload_server.doors.http.tls import CERTIFICATE
from upload_server.process.hosts import host_name, is_loopback_name
from upload_server.process.tracing import PARENT

_AUTHORIZATION: Final = "authorization"
_FORWARDED: Final = "x-forwarded-client-cert"
_FORWARDED_FOR: Final = "x-forwarded-for"
_READ: Final = frozenset({_AUTHORIZATION, _FORWARDED, _FORWARDED_FOR})
_COOKIE: Final = "cookie"
_READ_OF_HTTP: Final = {name.encode(): name for name in (*_READ, _COOKIE)}
# Of a page that has signed in: over TLS, and in plain text on this machine.
COOKIES: Final = ("__Host-upload_session", "upload_session")
# Of a page that can send no header: what a ticket follows among the subprotocols that a handshake offers.
_TICKET: Final = "upload.ticket."


def of_grpc(context: Any) -> Presented:
    """Return what a call over gRPC shows."""
    shown: dict[str, list[str]] = {}
    for key, value in context.invocation_metadata():
        if key in _READ:
            shown.setdefault(key, []).append(value)
    return _presented(shown, address(context.peer()))


def of_grpc_with_certificate(context: Any) -> Presented:
    """Return what a call over gRPC shows where callers may show certificates: to ask for one takes some 25 µs."""
    presented = of_grpc(context)
    pem = context.auth_context().get("x509_pem_cert")
    return replace(presented, certificate=peer_certificate_of_pem(pem[0])) if pem else presented


def _presented(shown: Mapping[str, Sequence[str]], peer: str, certificate: PeerCertificate | None = None) -> Presented:
    return Presented(
        shown.get(_AUTHORIZATION, ()),
        certificate,
        shown.get(_FORWARDED, ()),
        peer,
        forwarded_for=shown.get(_FORWARDED_FOR, ()),
    )


def of_transcoded(context: Any) -> Presented:
    """Return what a call shows that came as HTTP: the headers as they came, not the metadata that they became."""
    http = context.http
    return _of_headers(http.headers, http.client, http.state)


def of_scope(scope: Scope) -> Presented:
    """Return what a request or a handshake shows."""
    return _of_headers(scope["headers"], scope.get("client"), scope.get("state") or {})


def of_socket(asked: tuple[str, Scope]) -> Presented:
    """Return what the handshake of a socket shows, which asks for the file with this id."""
    file_id, scope = asked
    tickets = [name.removeprefix(_TICKET) for name in scope["subprotocols"] if name.startswith(_TICKET)]
    return replace(of_scope(scope), tickets=tickets, file_id=file_id, origin=origin_of(scope))


def parent_of(context: Any) -> Mapping[str, str]:
    """Return the headers of a call, whatever its door, that name the span which it belongs to."""
    if isinstance(context, tuple):
        _, context = context
    scope = context.get("headers") if isinstance(context, Mapping) else None
    if scope is None and (http := getattr(context, "http", None)) is not None:
        scope = http.headers
    if scope is None:
        return {key: value for key, value in context.invocation_metadata() or () if key in PARENT}
    return {name: value.decode("latin-1") for key, value in scope if (name := key.decode("latin-1").lower()) in PARENT}


def origin_of(scope: Scope) -> str:
    """Return the origin of the page that asks, as its browser says; empty where no page does."""
    return b", ".join(headers_of(scope, b"origin")).decode("latin-1")


def _of_headers(
    headers: Sequence[tuple[bytes, bytes]], client: tuple[str, int] | None, state: Mapping[str, Any]
) -> Presented:
    shown: dict[str, list[str]] = {}
    for key, value in headers:
        if (name := _READ_OF_HTTP.get(key.lower())) is not None:
            shown.setdefault(name, []).append(value.decode("latin-1"))
    cookies = shown.pop(_COOKIE, [])
    if cookies and _AUTHORIZATION not in shown and (tokens := _signed_in(cookies, headers)) and is_own_page(headers):
        shown[_AUTHORIZATION] = [f"Bearer {token}" for token in tokens]
    return _presented(shown, client[0] if client else "", state.get(CERTIFICATE))


def _signed_in(cookies: Iterable[str], headers: Sequence[tuple[bytes, bytes]]) -> list[str]:
    """Return the tokens of our cookies: of several none is believed, as of several headers.

    The name that is not safe counts on this machine alone: elsewhere a neighbour's domain could have set it.
    """
    names = COOKIES if is_for_this_machine(headers) else COOKIES[:1]
    pairs = [cookie.strip().partition("=") for line in cookies for cookie in line.split(";")]
    return [token for name, _, token in pairs if name in names and token]


def is_for_this_machine(headers: Iterable[tuple[bytes, bytes]]) -> bool:
    """Whether the one ``Host`` header is a loopback name."""
    hosts = [value for key, value in headers if key.lower() == b"host"]
    try:
        return len(hosts) == 1 and is_loopback_name(host_name(hosts[0].decode("ascii")))
    except ValueError:
        return False


def is_own_page(headers: Iterable[tuple[bytes, bytes]]) -> bool:
    """Whether a page that this server has served makes the request, as its browser says, which no page can change.

    A request that says neither is none: browsers that say nothing are too old to be trusted with a cookie.
    """
    found: dict[bytes, list[bytes]] = {}
    for key, value in headers:
        found.setdefault(key.lower(), []).append(value)
    if sites := found.get(b"sec-fetch-site"):
        return sites == [b"same-origin"]
    origins, hosts = found.get(b"origin", []), found.get(b"host", [])
    if len(origins) != 1 or len(hosts) != 1:
        return False
    return origins[0].lower() in (b"http://" + hosts[0].lower(), b"https://" + hosts[0].lower())


def address(peer: str) -> str:
    """Return the address in what gRPC calls a peer: ``ipv4:127.0.0.1:4711``, ``ipv6:%5B::1%5D:4711``."""
    kind, _, rest = peer.partition(":")
    if kind not in ("ipv4", "ipv6"):
        return ""
    return unquote(rest).rpartition(":")[0].strip("[]")
