"""Decides how the well-known types that JSON writes as text are read and printed.

Must not know fields or containers: one value in, one value out.
"""

import re
from datetime import datetime
from functools import lru_cache
from typing import Final

from .errors import FieldError

TIMESTAMP: Final = "google.protobuf.Timestamp"
DURATION: Final = "google.protobuf.Duration"
FIELD_MASK: Final = "google.protobuf.FieldMask"

WRAPPERS: Final = frozenset(
    f"google.protobuf.{kind}Value"
    for kind in ("Double", "Float", "Int64", "UInt64", "Int32", "UInt32", "Bool", "String", "Bytes")
)
TEXTUAL: Final = frozenset({TIMESTAMP, DURATION, FIELD_MASK})
"""Those whose JSON form is a string of its own making."""
STRUCTURAL: Final = frozenset(f"google.protobuf.{name}" for name in ("Struct", "Value", "ListValue", "Any"))
SPECIAL: Final = WRAPPERS | TEXTUAL | STRUCTURAL
"""Every type with a JSON form that is not the object of its fields."""
NULL_VALUE: Final = "google.protobuf.NullValue"

_TIMESTAMP = re.compile(
    r"([0-9]{4})-([0-9]{2})-([0-9]{2})T([0-9]{2}):([0-9]{2}):([0-9]{2})(?:\.([0-9]{1,9}))?"
    r"(?:Z|([+-])([01][0-9]|2[0-3]):([0-5][0-9]))"
)
_DURATION = re.compile(r"(-?)([0-9]{1,12})(?:\.([0-9]{1,9}))?s")
_EPOCH_DAY: Final = datetime(1970, 1, 1).toordinal()  # noqa: DTZ001 - a calendar day, no moment
_FIRST_SECOND: Final = -62_135_596_800
_LAST_SECOND: Final = 253_402_300_799
_MOST_DURATION: Final = 315_576_000_000
_NANOS: Final = 1_000_000_000

_PATH_JSON = re.compile(r"[A-Za-z][A-Za-z0-9]*(?:\.[A-Za-z][A-Za-z0-9]*)*")
_PATH_EITHER = re.compile(r"[A-Za-z_][A-Za-z0-9_]*(?:\.[A-Za-z_][A-Za-z0-9_]*)*")
_UPPER = re.compile("[A-Z]")
_LOWER_AFTER_UNDERSCORE = re.compile("_([a-z])")


def timestamp_from_text(text: str) -> tuple[int, int]:
    """(seconds, nanos) of RFC 3339 in its strict form, years 1 to 9999, any offset."""
    match = _TIMESTAMP.fullmatch(text)
    if match is None:
        raise FieldError("expected an RFC 3339 timestamp")
    year, month, day, hour, minute, second = map(int, match.groups()[:6])
    try:
        moment = datetime(year, month, day, hour, minute, second)  # noqa: DTZ001 - the offset is ours to apply
    except ValueError:
        raise FieldError("no such date or time") from None
    seconds = (moment.toordinal() - _EPOCH_DAY) * 86_400 + hour * 3_600 + minute * 60 + second
    if match[8]:
        offset = int(match[9]) * 3_600 + int(match[10]) * 60
        seconds -= offset if match[8] == "+" else -offset
    if not _FIRST_SECOND <= seconds <= _LAST_SECOND:
        raise FieldError("timestamp out of range")
    return seconds, int((match[7] or "").ljust(9, "0"))


def timestamp_to_text(seconds: int, nanos: int) -> str:
    """RFC 3339 in UTC with 0, 3, 6 or 9 digits of fraction; ValueError when out of range."""
    if not 0 <= nanos < _NANOS:
        raise ValueError("timestamp out of range")
    return f"{_second(seconds)}{_fraction(nanos)}Z"


@lru_cache(maxsize=64)
def _second(seconds: int) -> str:
    """A second since the epoch, without its zone: the timestamps of a moment share it."""
    if not _FIRST_SECOND <= seconds <= _LAST_SECOND:
        raise ValueError("timestamp out of range")
    days, rest = divmod(seconds, 86_400)
    hour, rest = divmod(rest, 3_600)
    minute, second = divmod(rest, 60)
    date = datetime.fromordinal(days + _EPOCH_DAY)
    return f"{date.year:04d}-{date.month:02d}-{date.day:02d}T{hour:02d}:{minute:02d}:{second:02d}"


def duration_from_text(text: str) -> tuple[int, int]:
    """(seconds, nanos), of one sign, within ten thousand years."""
    match = _DURATION.fullmatch(text)
    if match is None:
        raise FieldError("expected a duration such as '1.5s'")
    seconds, nanos = int(match[2]), int((match[3] or "").ljust(9, "0"))
    if seconds > _MOST_DURATION:
        raise FieldError("duration out of range")
    return (-seconds, -nanos) if match[1] else (seconds, nanos)


def duration_to_text(seconds: int, nanos: int) -> str:
    """Seconds with 0, 3, 6 or 9 digits of fraction; ValueError when out of range or of two signs."""
    if abs(seconds) > _MOST_DURATION or abs(nanos) >= _NANOS or seconds * nanos < 0:
        raise ValueError("duration out of range")
    sign = "-" if seconds < 0 or nanos < 0 else ""
    return f"{sign}{abs(seconds)}{_fraction(abs(nanos))}s"


def _fraction(nanos: int) -> str:
    if nanos == 0:
        return ""
    if nanos % 1_000_000 == 0:
        return f".{nanos // 1_000_000:03d}"
    if nanos % 1_000 == 0:
        return f".{nanos // 1_000:06d}"
    return f".{nanos:09d}"


def mask_from_json(text: str) -> list[str]:
    """Paths of a FieldMask in its JSON form: camelCase, joined by commas."""
    return _mask(text, _PATH_JSON)


def mask_from_url(text: str) -> list[str]:
    """The same, but a URL may also spell fields as the proto does."""
    return _mask(text, _PATH_EITHER)


def _mask(text: str, pattern: re.Pattern[str]) -> list[str]:
    if not text:
        return []
    paths = text.split(",")
    if not all(pattern.fullmatch(path) for path in paths):
        raise FieldError("expected field paths in lowerCamelCase, joined by commas")
    return [_snake(path) for path in paths]


def _snake(path: str) -> str:
    return _UPPER.sub(lambda match: "_" + match[0].lower(), path)


def mask_to_text(paths: list[str]) -> str:
    """The JSON form; ValueError for a path that would not come back the same."""
    camels = [_LOWER_AFTER_UNDERSCORE.sub(lambda match: match[1].upper(), path) for path in paths]
    for path, camel in zip(paths, camels, strict=True):
        if not _PATH_JSON.fullmatch(camel) or _snake(camel) != path:
            raise ValueError("a path of the field mask cannot be written as JSON")
    return ",".join(camels)
