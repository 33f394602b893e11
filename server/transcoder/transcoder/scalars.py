"""Decides which Python value a scalar field takes from a JSON value or from text, and its bounds.

Must not know messages; JSON values come from jsontext, text from a path or a query.
"""

import binascii
import re
from collections.abc import Callable
from textwrap import shorten
from typing import Final

from google.protobuf.descriptor import EnumDescriptor, FieldDescriptor

from .errors import FieldError
from .jsontext import MAX_NUMBER_CHARS, Number

Value = int | float | bool | str | bytes
FromJson = Callable[[object], Value]
FromText = Callable[[str], Value]

_JSON_NUMBER = re.compile(r"(-?)(0|[1-9][0-9]*)(?:\.([0-9]+))?(?:[eE]([+-]?[0-9]+))?")
# In a URL leading zeros are harmless, and both well-known engines take them.
_TEXT_NUMBER = re.compile(r"(-?)([0-9]+)(?:\.([0-9]+))?(?:[eE]([+-]?[0-9]+))?")
_BASE64 = re.compile(r"[A-Za-z0-9+/]*(={0,2})")
_BASE64_URL = re.compile(r"[A-Za-z0-9_-]*(={0,2})")
_URL_ALPHABET = str.maketrans("-_", "+/")
_SPECIAL: Final = {"NaN": float("nan"), "Infinity": float("inf"), "-Infinity": float("-inf")}
_MOST_DIGITS: Final = 20
"""Of any 64-bit integer."""
_MOST_EXPONENT_DIGITS: Final = 6
"""More is far outside any type, whatever the digits before it."""
_CHOICES_CHARS: Final = 500
"""An error lists the names of an enum up to so many."""
# Half a unit above the largest float32: from here on it would round to infinity.
_FLOAT32_LIMIT: Final = float.fromhex("0x1.ffffffp+127")

F = FieldDescriptor
_INT_RANGES: Final = {
    **dict.fromkeys((F.TYPE_INT32, F.TYPE_SINT32, F.TYPE_SFIXED32, F.TYPE_ENUM), (-(2**31), 2**31 - 1)),
    **dict.fromkeys((F.TYPE_UINT32, F.TYPE_FIXED32), (0, 2**32 - 1)),
    **dict.fromkeys((F.TYPE_INT64, F.TYPE_SINT64, F.TYPE_SFIXED64), (-(2**63), 2**63 - 1)),
    **dict.fromkeys((F.TYPE_UINT64, F.TYPE_FIXED64), (0, 2**64 - 1)),
}


def integer_from(text: str, pattern: re.Pattern[str] = _JSON_NUMBER) -> int:
    """An integer written as a number: `1.0` and `1e2` are integers, `1.5` is none. Exact at any size."""
    match = pattern.fullmatch(text) if len(text) <= MAX_NUMBER_CHARS else None
    if match is None:
        raise FieldError("expected an integer")
    sign, whole, fraction, exponent = match.groups("")
    digits = (whole + fraction).lstrip("0")
    if not digits:
        return 0
    if len(exponent.lstrip("+-0")) > _MOST_EXPONENT_DIGITS:
        raise FieldError("out of range" if exponent[0] != "-" else "expected an integer")
    shift = int(exponent or 0) - len(fraction)
    if shift < 0:
        digits, rest = digits[:shift], digits[shift:]
        if rest.strip("0"):
            raise FieldError("expected an integer")
    elif len(digits) + shift > _MOST_DIGITS:
        raise FieldError("out of range")
    else:
        digits += "0" * shift
    return int(sign + (digits or "0"))


def _float_from(text: str, pattern: re.Pattern[str]) -> float:
    if text in _SPECIAL:
        return _SPECIAL[text]
    if len(text) > MAX_NUMBER_CHARS or not pattern.fullmatch(text):
        raise FieldError("expected a number")
    return _finite(float(text))


def _finite(value: float) -> float:
    if value - value != 0:
        raise FieldError("out of range")
    return value


def number_from_json(value: object) -> float:
    """A JSON number as a double, for google.protobuf.Value."""
    if type(value) is int:
        return _double_of_int(value)
    return _finite(float(str(value)))


def _double_of_int(value: int) -> float:
    try:
        return float(value)
    except OverflowError:
        raise FieldError("out of range") from None


def _integers(low: int, high: int) -> tuple[FromJson, FromText]:
    def check(value: int) -> int:
        if not low <= value <= high:
            raise FieldError("out of range")
        return value

    def from_json(value: object) -> Value:
        if type(value) is int:
            return check(value)
        if isinstance(value, str):
            return check(integer_from(value))
        raise FieldError("expected an integer")

    return from_json, lambda text: check(integer_from(text, _TEXT_NUMBER))


def _floats(limit: float | None) -> tuple[FromJson, FromText]:
    def check(value: float) -> float:
        if limit is not None and limit <= abs(value) != float("inf"):
            raise FieldError("out of range")
        return value

    def from_json(value: object) -> Value:
        if type(value) is int:
            return check(_double_of_int(value))
        if isinstance(value, str):
            return check(_float_from(value, _JSON_NUMBER))
        raise FieldError("expected a number")

    return from_json, lambda text: check(_float_from(text, _TEXT_NUMBER))


def bool_from_json(value: object) -> Value:
    """Only true and false: a number or a quoted word is no bool."""
    if value is True or value is False:
        return value
    raise FieldError("expected true or false")


def bool_from_text(text: str) -> Value:
    """The same two words, as text."""
    if text in ("true", "false"):
        return text == "true"
    raise FieldError("expected true or false")


def string_from_json(value: object) -> Value:
    """A JSON string, and nothing that could be read as one."""
    if type(value) is str:
        return value
    raise FieldError("expected a string")


def bytes_from_text(text: str) -> Value:
    """Base64 in either alphabet, padded or not; nothing else between the letters."""
    match = _BASE64.fullmatch(text) or _BASE64_URL.fullmatch(text)
    if match is None:
        raise FieldError("expected base64")
    padding = len(match[1])
    letters = len(text) - padding
    if letters % 4 == 1 or (padding and (letters + padding) % 4):
        raise FieldError("expected base64")
    return binascii.a2b_base64(text[:letters].translate(_URL_ALPHABET) + "=" * (-letters % 4))


def bytes_from_json(value: object) -> Value:
    """A JSON string of base64."""
    if type(value) is str:
        return bytes_from_text(value)
    raise FieldError("expected a base64 string")


def _enums(enum: EnumDescriptor) -> tuple[FromJson, FromText]:
    numbers = {value.name: value.number for value in enum.values}
    choices = shorten(", ".join(numbers), _CHOICES_CHARS, placeholder=" …")
    known = frozenset(numbers.values())
    closed = enum.is_closed
    low, high = _INT_RANGES[F.TYPE_ENUM]

    def by_number(number: int) -> int:
        if not low <= number <= high or (closed and number not in known):
            raise FieldError(f"unknown enum number; expected one of {choices}")
        return number

    def by_name(name: str) -> int:
        if name not in numbers:
            raise FieldError(f"unknown enum name; expected one of {choices}")
        return numbers[name]

    def from_json(value: object) -> Value:
        if type(value) is str:
            return by_name(value)
        if type(value) is int:
            return by_number(value)
        if type(value) is Number:
            return by_number(integer_from(value))
        raise FieldError("expected an enum name or number")

    def from_text(text: str) -> Value:
        return by_number(integer_from(text, _TEXT_NUMBER)) if _TEXT_NUMBER.fullmatch(text) else by_name(text)

    return from_json, from_text


def converters(field: FieldDescriptor) -> tuple[FromJson, FromText]:
    """How a scalar or enum field reads a JSON value, and how it reads text from a URL."""
    kind = field.type
    if field.enum_type is not None:
        return _enums(field.enum_type)
    if kind in _INT_RANGES:
        return _integers(*_INT_RANGES[kind])
    if kind in (F.TYPE_FLOAT, F.TYPE_DOUBLE):
        return _floats(_FLOAT32_LIMIT if kind == F.TYPE_FLOAT else None)
    if kind == F.TYPE_BOOL:
        return bool_from_json, bool_from_text
    if kind == F.TYPE_BYTES:
        return bytes_from_json, bytes_from_text
    return string_from_json, str


def key_from_text(field: FieldDescriptor) -> FromText:
    """How a map key reads an object's key: strictly canonical, so that equal keys are equal text."""
    _, from_text = converters(field)
    if field.type not in _INT_RANGES:
        return from_text
    canonical = re.compile(r"-?(?:0|[1-9][0-9]*)")

    def integer_key(text: str) -> Value:
        if not canonical.fullmatch(text):
            raise FieldError("expected an integer as key")
        return from_text(text)

    return integer_key
