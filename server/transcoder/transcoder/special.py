"""Decides how JSON values fill the well-known types that are no objects of their fields.

Must not know fields or registries; google.protobuf.Any, which needs one, is the parser's.
"""

from typing import Any

from . import wellknown
from .errors import FieldError
from .jsontext import Number
from .scalars import number_from_json


def _text(value: object) -> str:
    if type(value) is not str:
        raise FieldError("expected a string")
    return value


def parse_timestamp(message: Any, value: object) -> None:
    """A string of RFC 3339."""
    message.seconds, message.nanos = wellknown.timestamp_from_text(_text(value))


def parse_duration(message: Any, value: object) -> None:
    """A string such as `1.5s`."""
    message.seconds, message.nanos = wellknown.duration_from_text(_text(value))


def parse_mask(message: Any, value: object) -> None:
    """A string of paths."""
    message.paths.extend(wellknown.mask_from_json(_text(value)))


def parse_struct(message: Any, value: object) -> None:
    """Any JSON object."""
    if type(value) is not dict:
        raise FieldError("expected an object")
    fields = message.fields
    for key, item in value.items():
        parse_value(fields[key], item)


def parse_list_value(message: Any, value: object) -> None:
    """Any JSON array."""
    if type(value) is not list:
        raise FieldError("expected an array")
    values = message.values
    for item in value:
        parse_value(values.add(), item)


def parse_value(message: Any, value: object) -> None:
    """Any JSON value; null is one."""
    kind = type(value)
    if kind is str:
        message.string_value = value
    elif kind is bool:
        message.bool_value = value
    elif kind is int or kind is Number:
        message.number_value = number_from_json(value)
    elif value is None:
        message.null_value = 0
    elif kind is dict:
        message.struct_value.SetInParent()
        parse_struct(message.struct_value, value)
    else:
        message.list_value.SetInParent()
        parse_list_value(message.list_value, value)
