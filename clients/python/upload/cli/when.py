"""Decides how times and lengths of time are written on the command line."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta

_SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86_400, "w": 604_800}
_LENGTH = re.compile(r"(\d+(?:\.\d+)?)([smhdw])")


def length(text: str) -> timedelta:
    """Return a length such as ``90s``, ``15m``, ``2h``, ``3d`` or ``1w``; raises ``ValueError``."""
    found = _LENGTH.fullmatch(text)
    if found is None:
        raise ValueError(f"{text!r} is no length of time: write 90s, 15m, 2h, 3d or 1w")
    try:
        return timedelta(seconds=float(found[1]) * _SECONDS[found[2]])
    except OverflowError:
        raise ValueError(f"{text!r} is too long a time") from None


def moment(text: str) -> datetime:
    """Return a time: so long ago (``2h``), or as RFC 3339, a date alone included; without a zone local time.

    Raises ``ValueError``.
    """
    try:
        if _LENGTH.fullmatch(text):
            return datetime.now(UTC) - length(text)
        return datetime.fromisoformat(text).astimezone(UTC)
    except (ValueError, OverflowError):
        raise ValueError(f"{text!r} is no time: write 2h for two hours ago, or 2024-01-31T12:00:00Z") from None
