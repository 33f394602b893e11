"""Decides which bytes are JSON, and bounds what they may cost.

Must not know protobuf: what leaves here is dicts, lists, str, bool, None, int and Number.
"""

import json
import re
from collections.abc import Callable
from json.encoder import encode_basestring
from typing import Any, Final

MAX_NUMBER_CHARS: Final = 1_000
"""No double needs more digits than 767; longer ones only cost time."""
Scan = Callable[[str, int], tuple[object, int]]

# Possessive, and content with a string that never ends: linear in the worst text too.
_STRINGS = re.compile(r'"[^"\\]*+(?:\\.[^"\\]*+)*+\\?"?', re.DOTALL)
_NOT_BRACKETS = re.compile(r"[^\[\]{}]+")
_SURROGATE = re.compile(r"\\u[dD][89a-fA-F]")
_SURROGATE_PAIR = re.compile(r"\\u[dD][89abAB][0-9a-fA-F]{2}\\u[dD][c-fC-F][0-9a-fA-F]{2}")


# JSON allows these as they are. But many readers of lines end a line at U+0085, U+2028 and U+2029 (str.splitlines,
# httpx): a caller's text could then break a stream of lines or forge an event. Terminals obey the other controls, and
# turn what stands around marks of direction.
_UNSAFE = re.compile("[\u0080-\u009f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069]")


def quoted(text: str) -> str:
    """A JSON string that is one line to every reader, and leaves what stands around it as it is."""
    plain = encode_basestring(text)
    return plain if plain.isascii() else _UNSAFE.sub(lambda unsafe: f"\\u{ord(unsafe[0]):04x}", plain)


class JsonError(ValueError):
    """The text is not JSON, or goes past a limit."""

    def __init__(self, message: str, limit: int | None = None) -> None:
        super().__init__(message)
        self.limit = limit


class TooLongError(JsonError):
    """A value is longer than one may be."""


class Number(str):
    """A JSON number that no int holds, as it was written: no digit and no sign of a zero is lost yet."""

    __slots__ = ()


def parse_json(body: bytes | bytearray, max_depth: int) -> object:
    """The value of a JSON text in UTF-8: no duplicate keys, NaN, lone surrogates or deep nesting."""
    try:
        text = body.decode()
    except UnicodeDecodeError:
        raise JsonError("the body is not UTF-8") from None
    check_piece(text, max_depth)
    try:
        return (_signed if "-0" in text else _plain).decode(text)
    except json.JSONDecodeError as error:
        raise JsonError(f"{error.msg} at character {error.pos}") from None
    except (ValueError, RecursionError) as error:
        raise _refusal(error) from None


def check_piece(text: str, max_depth: int) -> None:
    """Refuses deep nesting and lone surrogates in a whole value or text."""
    if text.count("{") + text.count("[") > max_depth:
        _check_depth(text, max_depth)
    if "\\ud" in text or "\\uD" in text:
        _check_surrogates(text)


def scanner_for(text: str) -> Scan:
    """Reads the value that begins at a place of `text`, and returns where it ends.

    JSONDecodeError or StopIteration where there is none, JsonError where it goes past a limit.
    """
    decoder: Any = _signed if "-0" in text else _plain
    scan: Scan = decoder.scan_once

    def scan_within_limits(text: str, at: int) -> tuple[object, int]:
        try:
            return scan(text, at)
        except json.JSONDecodeError:
            raise
        except (ValueError, RecursionError) as error:
            raise _refusal(error) from None

    return scan_within_limits


def _refusal(error: Exception) -> JsonError:
    """What is told of an error of the parser that is none of syntax."""
    if isinstance(error, JsonError):
        return error
    if isinstance(error, RecursionError):
        return JsonError("nested too deep")
    return JsonError("a number is too long")  # int() on more digits than the interpreter converts


def _check_depth(text: str, max_depth: int) -> None:
    """Removes innermost pairs pass by pass, at the speed of str.replace: as many passes as levels."""
    brackets = _NOT_BRACKETS.sub("", _STRINGS.sub("", text)).replace("{", "[").replace("}", "]")
    for _ in range(max_depth):
        fewer = brackets.replace("[]", "")
        if len(fewer) == len(brackets):
            break
        brackets = fewer
    # What is left is deeper than allowed or does not pair; a little of the latter may be refused below.
    if "[]" in brackets or brackets.count("[") > max_depth:
        raise JsonError("nested too deep")


def _check_surrogates(text: str) -> None:
    # An escaped backslash leaves something behind, or it would join two halves.
    rest = _SURROGATE_PAIR.sub("", text.replace("\\\\", "-"))
    if _SURROGATE.search(rest):
        raise JsonError("a string has a lone surrogate")


def _pairs(pairs: list[tuple[str, object]]) -> dict[str, object]:
    result = dict(pairs)
    if len(result) != len(pairs):
        raise JsonError("an object has a duplicate key")
    return result


def _number(text: str) -> Number:
    if len(text) > MAX_NUMBER_CHARS:
        raise JsonError("a number is too long")
    return Number(text)


def _integer(text: str) -> object:
    return Number(text) if text == "-0" else int(text)


def _constant(text: str) -> object:
    raise JsonError(f"{text} is not JSON")


_plain = json.JSONDecoder(object_pairs_hook=_pairs, parse_float=_number, parse_constant=_constant)
# Slower, for texts that may hold the one integer that no int can hold: a double's -0.
_signed = json.JSONDecoder(object_pairs_hook=_pairs, parse_float=_number, parse_int=_integer, parse_constant=_constant)
