"""Decides how a long JSON text is read value by value, so that nothing of it costs more than its bound.

Must not know protobuf. A few bytes of a text make objects of a hundred each, and a text of megabytes would hold up the
event loop for as long as it takes to parse: whoever reads gives the others a turn whenever one is due.
"""

import codecs
import re
from collections.abc import Iterator
from json import JSONDecodeError
from typing import Final

from .jsontext import JsonError, TooLongError, check_piece, scanner_for

_CHUNK: Final = 16 * 1024
"""Bytes that are decoded at once, and characters that are read in one turn."""
_VALUE_COST: Final = 256
"""Characters that a value counts for, besides its own."""
_MOST_SPACE: Final = 64 * 1024
"""Characters of white space within a list, or around a key."""
_SPACE: Final = re.compile(r"[ \t\n\r]*")
_CUT_NUMBER: Final = re.compile(r"(\.|[eE][-+]?)?")
"""What may follow a number that goes on in the next chunk."""


class JsonReader:
    """A JSON text in UTF-8: characters of its outermost levels, and whole values within."""

    def __init__(self, body: bytes | bytearray, *, max_depth: int, max_value: int) -> None:
        """A value is at most `max_value` characters."""
        self._body = body
        self._max_depth = max_depth
        self._max_value = max_value
        self._decode = codecs.getincrementaldecoder("utf-8")().decode
        self._decoded = 0
        # What is decoded; what was read of it; characters before it.
        self._text = ""
        self._at = 0
        self._before = 0
        self._scan = scanner_for("")
        self._left = _CHUNK

    def is_due(self) -> bool:
        """Whether so much was read since the last time that others should have their turn."""
        if self._left > 0:
            return False
        self._left = _CHUNK
        return True

    def skip(self) -> Iterator[None]:
        """Passes over white space, however long; yields whenever others should have their turn."""
        while self._pass_space():
            if self.is_due():
                yield

    def peek(self) -> str:
        """The next character that is no white space; empty at the end."""
        start = self._before + self._at
        while self._pass_space():
            if self._before + self._at - start > _MOST_SPACE:
                raise JsonError("there is too much white space", _MOST_SPACE)
        return self._text[self._at : self._at + 1]

    def _pass_space(self) -> bool:
        """Passes over the white space of what is decoded; whether there is more text behind nothing else."""
        found = _SPACE.match(self._text, self._at)
        if found:
            self._left -= found.end() - self._at
            self._at = found.end()
        return self._at >= len(self._text) and self._read_on(_CHUNK)

    def take(self, wanted: str) -> None:
        """Takes this character."""
        if self.peek() != wanted:
            raise self._error(f"Expecting {wanted!r}", self._at)
        self._at += 1

    def value(self, around: int = 0) -> object:
        """Takes a whole value, which lies `around` levels deep."""
        self.peek()
        while True:
            try:
                value, end = self._scan(self._text, self._at)
            except (JSONDecodeError, StopIteration) as error:
                if self._read_on(len(self._text) - self._at):
                    continue  # it may only have been cut short
                if isinstance(error, JSONDecodeError):
                    raise self._error(error.msg, error.pos) from None
                raise self._error("Expecting value", self._at) from None
            if not _CUT_NUMBER.fullmatch(self._text, end) or not self._read_on(_CHUNK):
                break
        if end - self._at > self._max_value:
            raise self._too_long()
        check_piece(self._text[self._at : end], self._max_depth - around)
        self._left -= end - self._at + _VALUE_COST
        self._at = end
        return value

    def end(self) -> None:
        """Takes the end of the text."""
        if self.peek():
            raise self._error("Extra data", self._at)

    def _read_on(self, count: int) -> bool:
        """Decodes so many more bytes; False at the end. JsonError where what is not taken grows too long."""
        if self._decoded >= len(self._body):
            return False
        rest = self._text[self._at :]
        if len(rest) > self._max_value:
            raise self._too_long()
        start, self._decoded = self._decoded, self._decoded + max(_CHUNK, count)
        try:
            more = self._decode(self._body[start : self._decoded], self._decoded >= len(self._body))
        except UnicodeDecodeError:
            raise JsonError("the body is not UTF-8") from None
        self._before += self._at
        self._text, self._at = rest + more, 0
        self._scan = scanner_for(self._text)
        return True

    def _too_long(self) -> TooLongError:
        return TooLongError(f"a value is longer than {self._max_value} characters", self._max_value)

    def _error(self, what: str, at: int) -> JsonError:
        return JsonError(f"{what} at character {self._before + at}")
