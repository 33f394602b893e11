"""Decides which frames of a page are let in: what RFC 6455 allows, within bounds on messages, fragments and pace.

Pure: must not know how frames travel, nor what a message means. Heads only: a payload costs nothing here.
"""

from __future__ import annotations

from enum import IntEnum
from typing import Final, NamedTuple

from upload_server.domain.errors import FieldViolation, InvalidField, UnexpectedMessage, UploadError
from upload_server.doors.mailbox import MAX_DATA_BYTES, data_too_long

# Characters of a text message; a reason of 500 characters, every one of them escaped, takes 6,000.
MAX_TEXT: Final = 16 * 1024
# A character has at most four bytes.
_MAX_TEXT_BYTES: Final = 4 * MAX_TEXT
# Frames of one message: a MiB in pieces of 1 KiB.
MAX_FRAGMENTS: Final = 1024
# Frames below this size cost more than their bytes do.
_SMALL_BYTES: Final = 1024
# Small frames a second. A page that sends more is slowed, as TCP slows one that sends too many bytes.
SMALL_FRAMES: Final = 1_000
# Pings and pongs a second. No browser sends more than one now and then; a flood of them is refused.
CONTROL_FRAMES: Final = 100
_MAX_CONTROL_BYTES: Final = 125
_LEAST_HEAD: Final = 2
# A longer payload's length stands in so many bytes behind these.
_LENGTHS_BEHIND: Final = {126: 2, 127: 8}


class Opcode(IntEnum):
    """Kinds of frames."""

    CONTINUATION = 0
    TEXT = 1
    BINARY = 2
    CLOSE = 8
    PING = 9
    PONG = 10


_OPCODES: Final = frozenset(Opcode)


class TooManyFrames(InvalidField):
    """More frames than any page needs; the socket ends with 1008."""


class Head(NamedTuple):
    """A frame's head: ``size`` bytes before a payload of ``length``."""

    opcode: int
    fin: bool
    reserved: bool
    masked: bool
    length: int
    size: int

    @property
    def is_sound_control(self) -> bool:
        """Whether a ping, pong or close has the form that RFC 6455 asks for."""
        return self.masked and not self.reserved and self.fin and self.length <= _MAX_CONTROL_BYTES


def read_head(data: bytes | memoryview) -> Head | None:
    """Read the head that ``data`` begins with; None while it is not whole."""
    if len(data) < _LEAST_HEAD:
        return None
    first, second = data[0], data[1]
    length, size = second & 0x7F, _LEAST_HEAD
    if length in _LENGTHS_BEHIND:
        size += _LENGTHS_BEHIND[length]
        if len(data) < size:
            return None
        length = int.from_bytes(data[_LEAST_HEAD:size], "big")
    masked = bool(second & 0x80)
    size += 4 if masked else 0
    if len(data) < size:
        return None
    return Head(first & 0x0F, bool(first & 0x80), bool(first & 0x70), masked, length, size)


class Pace:
    """At most so many events a second, and as many at once after a rest."""

    def __init__(self, per_second: int) -> None:
        self._per_second = per_second
        self._left = float(per_second)
        self._at = 0.0

    def take(self, now: float) -> bool:
        """Take one event if it may happen now; ``now`` in seconds."""
        self._left = min(self._per_second, self._left + (now - self._at) * self._per_second)
        self._at = now
        if self._left < 1:
            return False
        self._left -= 1
        return True


class Frames:
    """The frames of one page, in order."""

    def __init__(self) -> None:
        self._small = Pace(SMALL_FRAMES)
        self._control = Pace(CONTROL_FRAMES)
        # Of the message under way: its kind, its bytes and its frames so far.
        self._kind: int | None = None
        self._bytes = 0
        self._fragments = 0

    def is_early(self, head: Head, now: float) -> bool:
        """Whether a frame comes too soon after those before it, and should wait."""
        return head.length < _SMALL_BYTES and not self._small.take(now)

    def refusal(self, head: Head, now: float) -> UploadError | None:
        """Take the next frame into account; returns why it is refused, if it is."""
        if head.reserved or not head.masked or head.opcode not in _OPCODES:
            return UnexpectedMessage("A frame must be masked, of a known kind and without extensions (RFC 6455)")
        if head.opcode >= Opcode.CLOSE:
            return self._refusal_of_control(head, now)
        return self._refusal_of_data(head)

    def _refusal_of_control(self, head: Head, now: float) -> UploadError | None:
        if not head.is_sound_control:
            return UnexpectedMessage(f"A ping, pong or close is one frame of at most {_MAX_CONTROL_BYTES} bytes")
        if head.opcode != Opcode.CLOSE and not self._control.take(now):
            return _too_many("ping", CONTROL_FRAMES, "must be at most {} a second, pongs included")
        return None

    def _refusal_of_data(self, head: Head) -> UploadError | None:
        if (head.opcode == Opcode.CONTINUATION) is (self._kind is None):
            return UnexpectedMessage("A message is one frame, or a first one and its continuations (RFC 6455)")
        if self._kind is None:
            self._kind, self._bytes, self._fragments = head.opcode, 0, 0
        self._bytes += head.length
        self._fragments += 1
        if self._kind == Opcode.TEXT and self._bytes > _MAX_TEXT_BYTES:
            return text_too_long()
        if self._bytes > MAX_DATA_BYTES:
            return data_too_long()
        if self._fragments > MAX_FRAGMENTS:
            return _too_many("data", MAX_FRAGMENTS, "must come in at most {} fragments a message")
        if head.fin:
            self._kind = None
        return None


def text_too_long() -> UploadError:
    """The refusal of a text message that is too long."""
    return UnexpectedMessage(f"A text message has at most {MAX_TEXT} characters", {"limit": str(MAX_TEXT)})


def _too_many(field: str, limit: int, rule: str) -> UploadError:
    return TooManyFrames([FieldViolation(field, rule.format(limit), limit)])
