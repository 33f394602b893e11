"""Decides what of a call is taken for a credential, at each door: heads of requests, never URLs, bodies or trailers.

Must not know what a credential says. Metadata that the transcoder made of ``Grpc-Metadata-…`` is a claim of the caller
about itself, and no head.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Final
from urllib.parse import unquote

from upload_server.access.identity import Presented
from upload_server.doors.http.asgi import Scope

_AUTHORIZATION: Final = "authorization"
_FORWARDED: Final = "x-forwarded-client-cert"


def of_grpc(context: Any) -> Presented:
    """Return what a call over gRPC shows."""
    shown: dict[str, list[str]] = {}
    for key, value in context.invocation_metadata():
        if key in (_AUTHORIZATION, _FORWARDED):
            shown.setdefault(key, []).append(value)
    peer = address(context.peer())
    return (
        Presented(shown.get(_AUTHORIZATION, ()), None, shown.get(_FORWARDED, ()), peer)
        if shown
        else Presented(peer=peer)
    )


def of_transcoded(context: Any) -> Presented:
    """Return what a call shows that came as HTTP: the headers as they came, not the metadata that they became."""
    http = context.http
    return _of_headers(http.headers, http.client)


def of_scope(scope: Scope) -> Presented:
    """Return what a request or a handshake shows."""
    return _of_headers(scope["headers"], scope.get("client"))


def _of_headers(headers: Iterable[tuple[bytes, bytes]], client: tuple[str, int] | None) -> Presented:
    authorization: list[str] = []
    forwarded: list[str] = []
    for key, value in headers:
        name = key.lower()
        if name == b"authorization":
            authorization.append(value.decode("latin-1"))
        elif name == b"x-forwarded-client-cert":
            forwarded.append(value.decode("latin-1"))
    return Presented(authorization, None, forwarded, client[0] if client else "")


def address(peer: str) -> str:
    """Return the address in what gRPC calls a peer: ``ipv4:127.0.0.1:4711``, ``ipv6:%5B::1%5D:4711``."""
    kind, _, rest = peer.partition(":")
    if kind not in ("ipv4", "ipv6"):
        return ""
    return unquote(rest).rpartition(":")[0].strip("[]")
