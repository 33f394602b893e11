"""Decides which bytes are JSON, and bounds what they may cost.

Must not know protobuf: what leaves here is dicts, lists, str, bool, None, int and Number.
"""

import json
import re
from json.encoder import encode_basestring
from typing import Final

MAX_NUMBER_CHARS: Final = 1_000
"""No double needs more digits than 767; longer ones only cost time."""

# Possessive, and content with a string that never ends: linear in the worst text too.
_STRINGS = re.compile(r'"[^"\\]*+(?:\\.[^"\\]*+)*+\\?"?', re.DOTALL)
_NOT_BRACKETS = re.compile(r"[^\[\]{}]+")
_HIGH_SURROGATES: Final = range(0xD800, 0xDC00)
_LOW_SURROGATES: Final = range(0xDC00, 0xE000)
_ESCAPES = re.compile(r"\\(?:u([0-9a-fA-F]{4})|.)", re.DOTALL)


# JSON allows these three as they are, but many readers of lines end a line at them (str.splitlines, httpx): a caller's
# text could then break a stream of lines or forge an event.
_LINE_ENDS = re.compile("[\u0085\u2028\u2029]")


def quoted(text: str) -> str:
    """A JSON string that is one line to every reader."""
    plain = encode_basestring(text)
    return plain if plain.isascii() else _LINE_ENDS.sub(lambda end: f"\\u{ord(end[0]):04x}", plain)


class JsonError(ValueError):
    """The text is not JSON, or goes past a limit."""


class Number(str):
    """A JSON number that no int holds, as it was written: no digit and no sign of a zero is lost yet."""

    __slots__ = ()


def parse_json(body: bytes, max_depth: int) -> object:
    """The value of a JSON text in UTF-8: no duplicate keys, NaN, lone surrogates or deep nesting."""
    try:
        text = body.decode()
    except UnicodeDecodeError:
        raise JsonError("the body is not UTF-8") from None
    if text.count("{") + text.count("[") > max_depth:
        _check_depth(text, max_depth)
    if "\\ud" in text or "\\uD" in text:
        _check_surrogates(text)
    try:
        return (_decode_signed if "-0" in text else _decode)(text)
    except json.JSONDecodeError as error:
        raise JsonError(f"{error.msg} at character {error.pos}") from None
    except ValueError as error:
        # Ours, or int() on more digits than the interpreter converts.
        raise JsonError(str(error) if isinstance(error, JsonError) else "a number is too long") from None
    except RecursionError:
        raise JsonError("nested too deep") from None


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
    high_end = -1
    for escape in _ESCAPES.finditer(text):
        digits = escape[1]
        unit = int(digits, 16) if digits else 0
        low = unit in _LOW_SURROGATES
        if low != (high_end >= 0) or (low and escape.start() != high_end):
            raise JsonError("a string has a lone surrogate")
        high_end = escape.end() if unit in _HIGH_SURROGATES else -1
    if high_end >= 0:
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


_decode = json.JSONDecoder(object_pairs_hook=_pairs, parse_float=_number, parse_constant=_constant).decode
# Slower, for texts that may hold the one integer that no int can hold: a double's -0.
_decode_signed = json.JSONDecoder(
    object_pairs_hook=_pairs, parse_float=_number, parse_int=_integer, parse_constant=_constant
).decode
