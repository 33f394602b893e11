"""Decides what names a host, and when two pages are of the same origin.

Must not know who asks: the settings and the guard at the door share these rules.
"""

from __future__ import annotations

import ipaddress
import re
from dataclasses import dataclass
from functools import lru_cache
from typing import Final

_DEFAULT_PORTS: Final = {"http": 80, "https": 443, "ws": 80, "wss": 443}
_SAME_AS: Final = {"http": "http", "https": "https", "ws": "http", "wss": "https"}
# Of pages these are never the origin: browsers say `null`, which any page can be made to say, and so is nobody's.
_NO_PAGES: Final = frozenset({"blob", "data", "file", "ftp", "ws", "wss"})
_SCHEME: Final = re.compile(r"[a-z][a-z0-9+.-]*")
_LAST_PORT: Final = 65535
# Host = uri-host [":" port]; what the name means is judged afterwards.
_HOST: Final = re.compile(r"(?P<name>\[[0-9A-Fa-f:.]*:[0-9A-Fa-f:.]*\]|[A-Za-z0-9._~-]+)(?P<port>:[0-9]{0,5})?")


@dataclass(frozen=True, slots=True)
class Origin:
    """Scheme, host and port of a page, normalised; two pages are same-origin when these are equal."""

    scheme: str
    host: str
    port: int

    @classmethod
    def parse(cls, text: str) -> Origin:
        """Read an Origin header or a setting; raises ValueError unless it is exactly ``scheme://host[:port]``.

        Pages of apps have schemes of their own, such as ``capacitor://localhost``, which know no default port.
        """
        scheme, _, host = text.partition("://")
        if scheme in {"http", "https"}:
            return cls.served(scheme, host)
        if not _SCHEME.fullmatch(scheme) or scheme in _NO_PAGES:
            raise ValueError(text)
        name, port = _split_host(host)
        return cls(scheme, name, port or 0)

    @classmethod
    def served(cls, scheme: str, host: str) -> Origin:
        """The origin that a request with this scheme and Host header was sent to; raises ValueError or KeyError."""
        name, port = _split_host(host)
        return cls(_SAME_AS[scheme], name, _DEFAULT_PORTS[scheme] if port is None else port)


def host_name(host: str) -> str:
    """Return the name in a Host header in lower case; raises ValueError when it is malformed."""
    return _split_host(host)[0]


def is_host_name(text: str) -> bool:
    """Whether ``text`` is a host as a Host header has it, without a port."""
    match = _HOST.fullmatch(text)
    return match is not None and match["port"] is None


# Asked for every request; a client's Host seldom changes.
@lru_cache(maxsize=256)
def is_loopback_name(host: str) -> bool:
    """Whether a host (no port; IPv6 in brackets) can only name this machine: nobody can make DNS say otherwise."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False


@lru_cache(maxsize=256)
def is_address(host: str) -> bool:
    """Whether a host (no port; IPv6 in brackets) is an IP address: no DNS can make it mean another machine."""
    try:
        ipaddress.ip_address(host.strip("[]"))
    except ValueError:
        return False
    return True


def _split_host(text: str) -> tuple[str, int | None]:
    match = _HOST.fullmatch(text)
    if match is None:
        raise ValueError(text)
    digits = (match["port"] or "")[1:]
    port = int(digits) if digits else None
    if port is not None and port > _LAST_PORT:
        raise ValueError(text)
    return match["name"].lower(), port
