"""Decides how the bytes of one request become its message at a cost that its limits bound.

Must not know the calls. A few bytes of a text make objects of a hundred each, so its fields are counted before it is
decoded, and a long text is decoded over several turns of the event loop.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Any, Final

from google.protobuf.message import DecodeError

from transcoder import RequestLimits
from upload_server.domain.errors import FieldViolation, InvalidField, UnexpectedMessage

# Decoded in one turn: bytes, and fields of the outermost level.
_PIECE_BYTES: Final = 64 * 1024
_PIECE_FIELDS: Final = 512
# Fields besides the elements of repeated ones: of one value each, some given again, some that nobody knows.
_SINGLE_FIELDS: Final = 64
_VARINT, _FIXED64, _LENGTH, _FIXED32 = 0, 1, 2, 5
_FIXED_BYTES: Final = {_FIXED64: 8, _FIXED32: 4}
_VARINT_BYTES: Final = 10


class Decoder:
    """Decodes the requests of one method."""

    def __init__(self, kind: type[Any], limits: RequestLimits) -> None:
        self._kind = kind
        self._limits = limits
        # Names by their numbers: of all fields, and of the repeated ones.
        self._names = {field.number: field.name for field in kind.DESCRIPTOR.fields}
        self._repeated = {field.number: field.name for field in kind.DESCRIPTOR.fields if field.is_repeated}

    async def decode(self, raw: bytes) -> Any:
        """Return the message; raises ``InvalidField`` beyond a limit, ``UnexpectedMessage`` where it is none."""
        most = self._limits.max_bytes
        if len(raw) > most:
            raise _refusal("request", f"must be at most {most} bytes, not {len(raw)}", most)
        try:
            if self._repeated or len(raw) > _PIECE_BYTES:
                return await self._in_pieces(raw)
            return self._kind.FromString(raw)
        except (DecodeError, IndexError):
            raise UnexpectedMessage("The request is not a message of its type") from None

    async def _in_pieces(self, raw: bytes) -> Any:
        message = self._kind()
        start = 0
        for end in _ends(raw, self._limits, self._names, self._repeated):
            # Two texts in a row are one message, with the fields of both.
            message.MergeFromString(raw[start:end])
            start = end
            if end < len(raw):
                await asyncio.sleep(0)
        for name in self._repeated.values():
            # Numbers come many to a field.
            _check_elements(name, len(getattr(message, name)), self._limits)
        return message


def _ends(raw: bytes, limits: RequestLimits, names: dict[int, str], repeated: dict[int, str]) -> Iterator[int]:
    """Give where the pieces of ``raw`` end; raises ``InvalidField``, or IndexError where it ends too early."""
    at = start = elements = singles = 0
    while at < len(raw):
        tag, at = _varint(raw, at)
        name = repeated.get(tag >> 3)
        if name is not None:
            elements += 1
            _check_elements(name, elements, limits)
        else:
            singles += 1
            if singles > _SINGLE_FIELDS:
                raise _refusal("request", f"must have at most {_SINGLE_FIELDS} single fields", _SINGLE_FIELDS)
        at = _skip(raw, at, tag & 7, names.get(tag >> 3, "request"), limits)
        if at - start >= _PIECE_BYTES or (elements + singles) % _PIECE_FIELDS == 0:
            yield at
            start = at
    if at > start:
        yield at


def _skip(raw: bytes, at: int, kind: int, name: str, limits: RequestLimits) -> int:
    """Return where the value that begins at ``at`` ends."""
    if kind == _VARINT:
        return _varint(raw, at)[1]
    if kind == _LENGTH:
        length, at = _varint(raw, at)
        if length > limits.max_value_bytes:
            raise _refusal(name, f"must be at most {limits.max_value_bytes} bytes", limits.max_value_bytes)
        return at + length
    if kind not in _FIXED_BYTES:
        # Groups, which no proto3 has.
        raise IndexError
    return at + _FIXED_BYTES[kind]


def _varint(raw: bytes, at: int) -> tuple[int, int]:
    """Return a number and where it ends."""
    byte = raw[at]
    if byte < 0x80:  # noqa: PLR2004 - the bit that says that more follows
        return byte, at + 1
    value = 0
    for place in range(_VARINT_BYTES):
        byte = raw[at + place]
        value |= (byte & 0x7F) << 7 * place
        if byte < 0x80:  # noqa: PLR2004 - as above
            return value, at + place + 1
    raise IndexError


def _check_elements(name: str, count: int, limits: RequestLimits) -> None:
    if count > limits.max_elements:
        raise _refusal(name, f"must have at most {limits.max_elements} elements", limits.max_elements)


def _refusal(field: str, description: str, limit: int) -> InvalidField:
    return InvalidField([FieldViolation(field, description, limit)])
