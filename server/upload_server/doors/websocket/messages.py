"""Decides what pages and server say to each other on a socket, and with which code a socket is closed.

Pure: must not know how messages travel.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final
from urllib.parse import parse_qs

from google.rpc.code_pb2 import Code

from upload.v1 import upload_pb2 as pb
from upload_server.domain.errors import (
    FieldViolation,
    InvalidField,
    NotFound,
    NotIdentified,
    Overloaded,
    PermissionDenied,
    QuotaExceeded,
    RateExceeded,
    ShuttingDown,
    UnexpectedMessage,
    UploadError,
    timestamp_text,
)
from upload_server.domain.fields import Rules
from upload_server.domain.states import File
from upload_server.doors.errors import to_status
from upload_server.doors.http.asgi import to_json
from upload_server.doors.mailbox import End
from upload_server.doors.websocket.frames import MAX_TEXT, TooManyFrames, text_too_long

MAX_QUERY_BYTES: Final = 4 * 1024
_MAX_OFFSET_DIGITS: Final = 19
_UNITS: Final = {"": 1.0, "ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0}
_DURATION: Final = re.compile(r"([0-9]{1,9}(?:\.[0-9]{1,6})?)(ms|s|m|h|)")

# Close codes of ours.
DONE: Final = 1000
TOO_MANY: Final = 1008
RESTARTING: Final = 1012
BUSY: Final = 1013
REFUSED: Final = 4400
NOT_IDENTIFIED: Final = 4401
NOT_ALLOWED: Final = 4403
OVER_QUOTA: Final = 4429
UNKNOWN_FILE: Final = 4404
CANCELLED: Final = 4409


@dataclass(frozen=True, slots=True)
class Cancel:
    """The page cancels the upload."""

    reason: str


@dataclass(frozen=True, slots=True)
class Commit:
    """The page says that every byte was sent; ``sha256`` is what it has computed, or empty."""

    sha256: str


@dataclass(frozen=True, slots=True)
class Refused(End):
    """The page's frames broke a rule; the socket ends with ``error``."""

    error: UploadError


@dataclass(frozen=True, slots=True)
class Opening:
    """What the page asks for in the query of the handshake."""

    offset: int
    # A closed or lost socket leaves the upload as it is.
    keep: bool
    # Seconds that a lost socket's upload waits for its page.
    grace: float


@dataclass(frozen=True, slots=True)
class Goodbye:
    """The last message to a page and the code of our close. ``outcome`` is the gRPC code's name, for the metrics."""

    message: dict[str, Any]
    code: int
    outcome: str


def parse_opening(query: bytes, *, grace: float, max_grace: float) -> Opening:
    """Read ``?offset=``, ``?on_disconnect=`` and ``?grace=``; others are ignored. Raises ``InvalidField``.

    ``grace`` is that of a page that asks for none, ``max_grace`` what a page may ask for; in seconds.
    """
    rules = Rules()
    if len(query) > MAX_QUERY_BYTES:
        rules.refuse("query", f"must be at most {MAX_QUERY_BYTES} bytes")
        rules.check()
    fields = parse_qs(query.decode("latin-1"), keep_blank_values=True)
    offsets, disconnects = fields.get("offset", ["0"]), fields.get("on_disconnect", ["cancel"])
    digits = offsets[0]
    if len(offsets) > 1 or not (digits.isascii() and digits.isdigit() and len(digits) <= _MAX_OFFSET_DIGITS):
        rules.refuse("offset", "must be given once, as a decimal number of bytes")
    if disconnects not in (["cancel"], ["keep"]):
        rules.refuse("on_disconnect", "must be cancel or keep")
    asked = _seconds(fields["grace"]) if "grace" in fields else grace
    if asked is None:
        rules.refuse("grace", "must be given once, as a duration such as 500ms, 90s, 5m or 1h")
    rules.check()
    if asked is None or asked > max_grace:
        error = InvalidField([FieldViolation("grace", f"must be at most {max_grace:g} s")])
        error.metadata["limit"] = f"{max_grace:g}"
        raise error
    return Opening(int(digits), disconnects == ["keep"], asked)


def _seconds(values: list[str]) -> float | None:
    """Read a duration that is given once; None when it is none. A number without a unit is seconds."""
    found = _DURATION.fullmatch(values[0])
    return float(found[1]) * _UNITS[found[2]] if found is not None and len(values) == 1 else None


def parse_text(text: str) -> Cancel | Commit:
    """Read a text message of the page; raises ``UnexpectedMessage`` or ``InvalidField``.

    A cancel is taken whatever else it holds. A commit with an unknown member is refused: a mistyped ``sha256`` must not
    be lost silently.
    """
    if len(text) > MAX_TEXT:
        raise text_too_long()
    try:
        message = json.loads(text)
    except (ValueError, RecursionError):
        raise UnexpectedMessage("A text message must be JSON") from None
    kind = message.get("type") if isinstance(message, dict) else None
    if kind == "cancel":
        return Cancel(_text_member(message, "reason"))
    if kind == "commit" and message.keys() <= {"type", "sha256"}:
        return _commit(_text_member(message, "sha256"))
    raise UnexpectedMessage('A text message must be {"type":"cancel","reason":…} or {"type":"commit","sha256":…}')


def _commit(sha256: str) -> Commit:
    rules = Rules()
    rules.sha256("sha256", sha256)
    rules.check()
    return Commit(sha256)


def _text_member(message: dict[str, Any], name: str) -> str:
    value = message.get(name)
    if value is None:
        return ""
    # A lone surrogate can be escaped in JSON, but neither stored nor sent.
    if not isinstance(value, str) or any("\ud800" <= character <= "\udfff" for character in value):
        raise InvalidField([FieldViolation(name, "must be text")])
    return value


def progress(durable: int) -> dict[str, Any]:
    """So many bytes are durable."""
    return {"type": "progress", "bytes_received": durable}


def success(file: pb.File) -> Goodbye:
    """The file is completed."""
    return Goodbye({"type": "success", "file": to_json(file)}, DONE, "OK")


def cancelled(at: datetime | None, by: str, reason: str, code: int) -> Goodbye:
    """The file is cancelled; ``code`` tells whether this page asked for it."""
    message = {
        "type": "cancelled",
        "cancelled_at": timestamp_text(at) if at is not None else None,
        "cancelled_by": by,
        "reason": reason,
    }
    return Goodbye(message, code, "ABORTED")


def cancelled_by_other(file: File) -> Goodbye:
    """Somebody else than this page has cancelled the file."""
    return cancelled(file.cancelled_at, file.cancelled_by, file.cancel_reason, CANCELLED)


def refused(error: UploadError) -> Goodbye:
    """The socket ends with an error."""
    status = to_status(error)
    return Goodbye({"type": "error", "error": to_json(status)}, _close_code(error), Code.Name(status.code))


def _close_code(error: UploadError) -> int:
    match error:
        case NotIdentified():
            return NOT_IDENTIFIED
        case PermissionDenied():
            return NOT_ALLOWED
        case NotFound():
            return UNKNOWN_FILE
        case ShuttingDown():
            return RESTARTING
        case TooManyFrames():
            return TOO_MANY
        case QuotaExceeded() | RateExceeded():
            return OVER_QUOTA
        case Overloaded():
            return BUSY
        case _:
            return REFUSED
