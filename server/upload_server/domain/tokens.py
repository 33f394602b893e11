"""Decides how cursors look to callers: opaque text that says of itself whether it is whole.

Must not know what the cursor points into.
"""

from __future__ import annotations

import base64
import binascii
import struct
import zlib
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import NamedTuple
from uuid import UUID

from upload_server.domain.errors import FieldViolation, InvalidField

_RESUME = struct.Struct(">16sQ")
_PAGE = struct.Struct(">IQQ")
_CHECK = struct.Struct(">I")
# Row ids and change numbers have 63 bits; a database refuses more as an error of its own.
_LAST_ROW = 2**63 - 1
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_LAST_MICROSECOND = (datetime.max.replace(tzinfo=UTC) - _EPOCH) // timedelta(microseconds=1)


def _seal(kind: bytes, body: bytes) -> str:
    return base64.urlsafe_b64encode(body + _CHECK.pack(zlib.crc32(kind + body))).rstrip(b"=").decode()


def _unseal(field: str, kind: bytes, text: str, size: int) -> bytes:
    """Return the body of a token, or raise ``InvalidField``: an accident, not an attack, is what the sum finds."""
    try:
        raw = base64.b64decode(text.encode("ascii") + b"=" * (-len(text) % 4), altchars=b"-_", validate=True)
    except (UnicodeEncodeError, binascii.Error):
        raw = b""
    body = raw[: -_CHECK.size]
    if len(body) != size or _seal(kind, body) != text:
        raise InvalidField([FieldViolation(field, "is not a token of this service")])
    return body


@dataclass(frozen=True, slots=True)
class ResumeToken:
    """Where a watch goes on: after change ``no`` of the store whose history is ``incarnation``, a UUID."""

    incarnation: str
    no: int

    def encode(self) -> str:
        """Return the token's text."""
        return _seal(b"resume", _RESUME.pack(UUID(self.incarnation).bytes, self.no))

    @classmethod
    def decode(cls, text: str) -> ResumeToken:
        """Read a token; raises ``InvalidField`` for ``resume_token``."""
        store, no = _RESUME.unpack(_unseal("resume_token", b"resume", text, _RESUME.size))
        return cls(str(UUID(bytes=store)), no)


class Cursor(NamedTuple):
    """The last row of a page: its number and, where time comes first in the order, its microseconds since 1970."""

    row: int
    microseconds: int = 0

    @classmethod
    def at(cls, moment: datetime, row: int) -> Cursor:
        """Return the cursor of a row in the order of time."""
        return cls(row, (moment - _EPOCH) // timedelta(microseconds=1))

    @property
    def moment(self) -> datetime:
        """The row's time."""
        return _EPOCH + timedelta(microseconds=self.microseconds)


def encode_page_token(cursor: Cursor | None, query: str) -> str:
    """Return the token of the page after ``cursor`` of ``query``, or the empty text when there is none."""
    return _seal(b"page", _PAGE.pack(zlib.crc32(query.encode()), *cursor)) if cursor else ""


def decode_page_token(text: str, query: str) -> Cursor | None:
    """Return the cursor of a page token (None for an empty one); it belongs to one query. Raises ``InvalidField``."""
    if not text:
        return None
    made_for, *numbers = _PAGE.unpack(_unseal("page_token", b"page", text, _PAGE.size))
    cursor = Cursor(*numbers)
    if cursor.row > _LAST_ROW or cursor.microseconds > _LAST_MICROSECOND:
        raise InvalidField([FieldViolation("page_token", "is not a token of this service")])
    if made_for != zlib.crc32(query.encode()):
        raise InvalidField([FieldViolation("page_token", "belongs to a query with other filters or another order")])
    return cursor
