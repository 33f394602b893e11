"""Decides how a server is named, and what the client trusts and shows over TLS."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

import grpc

from upload.channel import Option, is_loopback
from upload.tokens import Token, source_of
from upload.transport import Endpoint

_SECURE = frozenset({"https", "grpcs"})
_PORTS = {"https": 443, "grpcs": 443, "http": 50051, "grpc": 50051}
# What else gRPC finds a server by, each with rules of its own.
_OF_GRPC = re.compile(r"(dns|unix|unix-abstract|ipv4|ipv6|vsock|xds|google-c2p|passthrough):.+")
_BARE = re.compile(r"(\[[0-9A-Fa-f:.]+(?:%[^\]\s]+)?\]|[^\s:/@\[\]]+)(?::([0-9]{1,5}))?/?", re.ASCII)
_MOST_PORT = 65_535

File = str | os.PathLike[str]


@dataclass(frozen=True, slots=True)
class Tls:
    """Files of PEM: ``ca`` signs the server's certificate (default: who is widely trusted), ``cert`` and ``key`` are
    the client's own.

    Example::

        with Client("https://files.example:50051", tls=Tls(ca="authority.pem")) as client:
            ...
    """

    ca: File = ""
    cert: File = ""
    key: File = ""

    def credentials(self) -> grpc.ChannelCredentials:
        """Read the files; raises OSError, and ``ValueError`` for a certificate without its key."""
        if bool(self.cert) != bool(self.key):
            raise ValueError("a certificate and its key go together: give both")
        ca, key, cert = (Path(file).read_bytes() if file else None for file in (self.ca, self.key, self.cert))
        return grpc.ssl_channel_credentials(ca, key, cert)


def endpoint_of(
    server: str,
    credentials: grpc.ChannelCredentials | None,
    tls: Tls | None,
    metadata: Sequence[tuple[str, str]],
    options: Sequence[Option],
    token: Token | None = None,
) -> Endpoint:
    """Return where a server is and how to speak to it; raises ``ValueError`` for what names none, and OSError."""
    target, secure = address_of(server)
    if tls is not None and not (secure or credentials):
        raise ValueError(f"files for TLS go with https://{target}: {server} is spoken to in plain text")
    if credentials is None and secure:
        credentials = (tls or Tls()).credentials()
    if token and credentials is None and not is_loopback(target):
        raise ValueError(f"a token would travel to {target} in plain text: name the server as https://{target}")
    return Endpoint(target, credentials, metadata, options, source_of(token))


def address_of(server: str) -> tuple[str, bool]:
    """Return host and port of a server, and whether it is to be spoken to over TLS.

    ``https://`` and ``grpcs://`` say TLS, ``http://``, ``grpc://`` and nothing plain text; anything else is a name that
    gRPC knows (``dns:…``, ``unix:…``), or host and port, 50051 where none is said. Raises ``ValueError``.
    """
    if _OF_GRPC.fullmatch(server):
        return server, False
    try:
        parts = urlsplit(server)
        if "://" not in server or parts.scheme not in _PORTS:
            return _bare(server), False
        if not parts.hostname or parts.path not in ("", "/") or parts.query or parts.fragment or parts.username:
            raise ValueError
        port = _port(_PORTS[parts.scheme] if parts.port is None else parts.port)
    except ValueError:
        raise ValueError(
            f"{server!r} is no server: give host and port alone, such as localhost:50051, [::1]:50051 or, for TLS,"
            " https://files.example:443"
        ) from None
    host = f"[{parts.hostname}]" if ":" in parts.hostname else parts.hostname
    return f"{host}:{port}", parts.scheme in _SECURE


def _bare(server: str) -> str:
    found = _BARE.fullmatch(server)
    if found is None:
        raise ValueError
    return f"{found[1]}:{_port(int(found[2] or _PORTS['grpc']))}"


def _port(number: int) -> int:
    if not 0 < number <= _MOST_PORT:
        raise ValueError
    return number
