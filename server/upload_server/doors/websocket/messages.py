"""Decides what pages and server say to each other on a socket, and with which code a socket is closed.

Pure: must not know how messages travel.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final
from urllib.parse import parse_qs

from google.rpc.code_pb2 import Code

from upload_server.domain.errors import (
    FieldViolation,
    InvalidField,
    NotFound,
    Overloaded,
    ShuttingDown,
    UnexpectedMessage,
    UploadError,
    timestamp_text,
)
from upload_server.domain.fields import Rules
from upload_server.domain.states import File
from upload_server.doors.convert import file_to_proto
from upload_server.doors.errors import to_status
from upload_server.doors.http.asgi import to_json
from upload_server.doors.mailbox import End
from upload_server.doors.websocket.frames import MAX_TEXT, TooManyFrames, text_too_long

MAX_QUERY_BYTES: Final = 4 * 1024
_MAX_OFFSET_DIGITS: Final = 19

# Close codes of ours.
DONE: Final = 1000
TOO_MANY: Final = 1008
RESTARTING: Final = 1012
BUSY: Final = 1013
REFUSED: Final = 4400
UNKNOWN_FILE: Final = 4404
CANCELLED: Final = 4409

# What stands for a close code when no close frame came.
NO_CLOSE_FRAME: Final = 1006

# Close codes of the page that mean "cancel": done, tab closed, no code, and an application's own.
CANCELLING_CODES: Final = frozenset({1000, 1001, 1005, 4000})


@dataclass(frozen=True, slots=True)
class Cancel:
    """The page cancels the upload."""

    reason: str


@dataclass(frozen=True, slots=True)
class Commit:
    """The page says that every byte was sent; ``sha256`` is what it has computed, or empty."""

    sha256: str


@dataclass(frozen=True, slots=True)
class Gone(End):
    """The page has left. ``code`` is that of its close frame (1005: a frame without one), or 1006 when none came."""

    code: int = NO_CLOSE_FRAME
    reason: str = ""
    # Our own shutdown closed the socket; the page had no say.
    by_server: bool = False

    @property
    def cancels(self) -> bool:
        """Whether the page meant to cancel, rather than having been lost."""
        return self.code in CANCELLING_CODES and not self.by_server


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


@dataclass(frozen=True, slots=True)
class Goodbye:
    """The last message to a page and the code of our close. ``outcome`` is the gRPC code's name, for the metrics."""

    message: dict[str, Any]
    code: int
    outcome: str


def parse_opening(query: bytes) -> Opening:
    """Read ``?offset=`` and ``?on_disconnect=``; others are ignored. Raises ``InvalidField``."""
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
    rules.check()
    return Opening(int(digits), disconnects == ["keep"])


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


def success(file: File) -> Goodbye:
    """The file is completed."""
    return Goodbye({"type": "success", "file": to_json(file_to_proto(file))}, DONE, "OK")


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
    status = to_json(to_status(error))
    return Goodbye({"type": "error", "error": status}, _close_code(error), _code_name(error))


def _close_code(error: UploadError) -> int:
    match error:
        case NotFound():
            return UNKNOWN_FILE
        case ShuttingDown():
            return RESTARTING
        case TooManyFrames():
            return TOO_MANY
        case Overloaded():
            return BUSY
        case _:
            return REFUSED


def _code_name(error: UploadError) -> str:
    return Code.Name(to_status(error).code)
