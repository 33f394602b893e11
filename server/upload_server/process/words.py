"""Decides how people type a duration, a size, a switch, a list, a host, a header's name, an origin.

Must not know which setting it is for. Each parser raises ValueError, whose text is for whoever typed.
"""

from __future__ import annotations

import ipaddress
import math
import re
from collections.abc import Callable

from upload_server.process.hosts import Origin, is_host_name

MIB = 1024 * 1024
DAY = 24 * 3600
# From the largest, and `ms` before the `s` that it ends with.
UNITS = {"d": float(DAY), "h": 3600.0, "m": 60.0, "ms": 0.001, "s": 1.0}
SIZES = {"TiB": 1024 * 1024 * MIB, "GiB": 1024 * MIB, "MiB": MIB, "KiB": 1024}
_HEADER = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]+")


def _number(text: str, kind: Callable[[str], float], factor: float = 1) -> float:
    """Return ``factor`` times the number in ``text``; raises ValueError unless that is a finite number."""
    try:
        value = kind(text) * factor
        if math.isfinite(value):
            return value
    except OverflowError:
        pass
    raise ValueError(text)


def parse_seconds(text: str) -> float:
    """Return a duration in seconds: ``500ms``, ``10s``, ``5m``, ``24h``, ``7d`` or a bare number."""
    unit = next((unit for unit in UNITS if text.endswith(unit)), "")
    try:
        return _number(text.removesuffix(unit), float, UNITS.get(unit, 1))
    except ValueError:
        raise ValueError(f"{text!r} is not a duration such as 500ms, 10s, 5m, 24h or 7d") from None


def parse_bytes(text: str) -> int:
    """Return a size in bytes; ``64KiB``, ``8MiB``, ``1TiB`` or a bare number of bytes."""
    unit = next((unit for unit in SIZES if text.lower().endswith(unit.lower())), "")
    try:
        if not unit:
            return int(_number(text, int))
        return int(_number(text[: -len(unit)], float, SIZES[unit]))
    except ValueError:
        raise ValueError(f"{text!r} is not a size such as 64KiB, 8MiB or 1TiB") from None


def parse_bool(text: str) -> bool:
    """Return a switch: ``true``/``false``, ``1``/``0``, ``yes``/``no``, ``on``/``off``."""
    for value, words in ((True, ("true", "1", "yes", "on")), (False, ("false", "0", "no", "off"))):
        if text.lower() in words:
            return value
    raise ValueError(f"{text!r} is neither true nor false")


def parse_list(text: str) -> tuple[str, ...]:
    """Return the comma-separated words of ``text``."""
    return tuple(word.strip() for word in text.split(",") if word.strip())


def parse_host(text: str) -> str:
    """Return an address to bind; an IPv6 one in brackets, as it stands before a port."""
    try:
        return f"[{ipaddress.IPv6Address(text)}]"
    except ValueError:
        return text


def parse_hosts(text: str) -> tuple[str, ...]:
    """Return comma-separated Host names; one with a scheme or a port would never match."""
    hosts = parse_list(text)
    for host in hosts:
        if not is_host_name(host):
            raise ValueError(f"{host!r} is not a Host name without scheme and port, such as files.example.com")
    return hosts


def parse_headers(text: str) -> tuple[str, ...]:
    """Return comma-separated names of headers."""
    headers = parse_list(text)
    for header in headers:
        if not _HEADER.fullmatch(header):
            raise ValueError(f"{header!r} is not the name of a header, such as X-Api-Version")
    return headers


def parse_origins(text: str) -> tuple[Origin, ...]:
    """Return comma-separated origins of pages."""
    return tuple(_parse_origin(word) for word in parse_list(text))


def _parse_origin(text: str) -> Origin:
    try:
        return Origin.parse(text)
    except ValueError:
        raise ValueError(f"{text!r} is not an origin (scheme, host, port), such as https://app.example") from None


def parse_int(text: str) -> int:
    """Return a whole number."""
    try:
        return int(_number(text, int))
    except ValueError:
        raise ValueError(f"{text!r} is not a whole number") from None
