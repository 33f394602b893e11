"""Decides how messages become JSON text: ProtoJSON, compiled once per message type.

Must not know HTTP. What cannot be printed raises ValueError; the caller decides what that means.
"""

import binascii
import operator
import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Final

from google.protobuf.descriptor import Descriptor, EnumDescriptor, FieldDescriptor
from google.protobuf.descriptor_pool import DescriptorPool
from google.protobuf.message import DecodeError
from google.protobuf.message_factory import GetMessageClass

from . import wellknown
from .jsontext import quoted
from .parser import map_entry

ToText = Callable[[Any], str]
ToPieces = Callable[[Any], Iterator[str]]
_Field = tuple[Callable[[Any], bool] | None, str, ToText, Callable[[Any], Any], tuple[ToText, int] | None]
"""One field of a message: whether it is printed (None: always), `"name":`, its value's printer, the value, and for a
list the printer of one element and how many make a piece."""

F = FieldDescriptor
_INT64: Final = frozenset({F.TYPE_INT64, F.TYPE_SINT64, F.TYPE_SFIXED64, F.TYPE_UINT64, F.TYPE_FIXED64})
_FLOAT_DIGITS: Final = (6, 7, 8)
_MESSAGES: Final = 32
"""Elements of a list in one piece of text: messages of twenty fields take half a millisecond."""
_SCALARS: Final = 1024
"""The same of scalars."""


@dataclass(frozen=True, slots=True)
class PrintStyle:
    """The choices that ProtoJSON leaves to an implementation."""

    proto_names: bool = True
    """Field names as the proto spells them, else lowerCamelCase."""
    omit_defaults: bool = False
    """Leave out fields without presence that have their default."""
    enums_as_numbers: bool = False


class JsonPrinter:
    """Printers for every message type of a pool, each compiled when it is first asked for."""

    def __init__(self, pool: DescriptorPool, style: PrintStyle) -> None:
        self._pool = pool
        self._style = style
        self._printers: dict[str, ToText] = {}
        self._objects: dict[str, _ObjectPrinter] = {}

    def for_message(self, descriptor: Descriptor) -> ToText:
        """The printer of a message type, well-known ones in their own form."""
        name = descriptor.full_name
        known = self._printers.get(name)
        if known is not None:
            return known
        special = self._special(descriptor)
        if special is not None:
            self._printers[name] = special
            return special
        printer = self._objects[name] = _ObjectPrinter(self)
        self._printers[name] = printer.to_text  # before its fields: types may hold themselves
        printer.fields = [self._field(descriptor, field) for field in descriptor.fields]
        printer.extendable = descriptor.is_extendable
        return printer.to_text

    def in_pieces(self, descriptor: Descriptor) -> ToPieces | None:
        """The printer of a message type that holds lists, which may be long: its text in pieces."""
        self.for_message(descriptor)
        printer = self._objects.get(descriptor.full_name)
        if printer is None or all(pieces is None for *_, pieces in printer.fields):
            return None
        return printer.to_pieces

    def for_field(self, field: FieldDescriptor) -> ToText:
        """The printer of a field's whole value: list, map, message or scalar."""
        if (entry := map_entry(field)) is not None:
            return self._map(entry)
        one = self._one(field)
        if field.is_repeated:
            return lambda values: f"[{','.join(map(one, values))}]"
        return one

    def _one(self, field: FieldDescriptor) -> ToText:
        if field.message_type is not None:
            return self.for_message(field.message_type)
        if field.enum_type is not None:
            return self._enum(field.enum_type)
        return scalar_printer(field)

    def _enum(self, enum: EnumDescriptor) -> ToText:
        if enum.full_name == wellknown.NULL_VALUE:
            return lambda _number: "null"
        if self._style.enums_as_numbers:
            return str
        names: dict[int, str] = {}
        for value in enum.values:  # the first name of a number is the one to print
            names.setdefault(value.number, f'"{value.name}"')
        return lambda number: names.get(number) or str(number)

    def _map(self, entry: Descriptor) -> ToText:
        key_field, value_field = entry.fields_by_name["key"], entry.fields_by_name["value"]
        value_text = self._one(value_field)
        key_text: ToText = quoted
        if key_field.type == F.TYPE_BOOL:
            key_text = lambda key: '"true"' if key else '"false"'  # noqa: E731 - one of three
        elif key_field.type != F.TYPE_STRING:
            key_text = lambda key: f'"{key}"'  # noqa: E731 - one of three

        def print_map(entries: Any) -> str:
            # Sorted: equal messages are printed equal, whatever order the map is kept in.
            return "{" + ",".join(f"{key_text(key)}:{value_text(entries[key])}" for key in sorted(entries)) + "}"

        return print_map

    def _field(self, descriptor: Descriptor, field: FieldDescriptor) -> _Field:
        name = field.name
        label = quoted(name if self._style.proto_names else field.json_name) + ":"
        value_of = operator.attrgetter(name)
        given: Callable[[Any], bool] | None = None
        if field.has_presence:
            given = has_field(descriptor, name)
        elif self._style.omit_defaults:
            given = lambda message: _is_filled(value_of(message))  # noqa: E731 - one of three
        pieces = None
        if field.is_repeated and map_entry(field) is None:
            pieces = self._one(field), _SCALARS if field.message_type is None else _MESSAGES
        return given, label, self.for_field(field), value_of, pieces

    def _special(self, descriptor: Descriptor) -> ToText | None:
        name = descriptor.full_name
        if name in wellknown.WRAPPERS:
            text = scalar_printer(descriptor.fields_by_name["value"])
            return lambda message: text(message.value)
        simple: dict[str, ToText] = {
            wellknown.TIMESTAMP: lambda m: f'"{wellknown.timestamp_to_text(m.seconds, m.nanos)}"',
            wellknown.DURATION: lambda m: f'"{wellknown.duration_to_text(m.seconds, m.nanos)}"',
            wellknown.FIELD_MASK: lambda m: f'"{wellknown.mask_to_text(list(m.paths))}"',
            "google.protobuf.Struct": _print_struct,
            "google.protobuf.Value": _print_value,
            "google.protobuf.ListValue": _print_list_value,
            "google.protobuf.Any": self.print_any,
        }
        return simple.get(name)

    def print_any(self, message: Any) -> str:
        """An Any as the JSON of what it holds; ValueError where that is not known."""
        url, value = message.type_url, message.value
        if not url and not value:
            return "{}"
        _, slash, name = url.rpartition("/")
        try:
            descriptor = self._pool.FindMessageTypeByName(name if slash else "")
            inner = GetMessageClass(descriptor).FromString(value)
        except (KeyError, DecodeError):
            raise ValueError("an Any holds a type that is not known here, or bytes that are not of its type") from None
        text = self.for_message(descriptor)(inner)
        label = f'{{"@type":{quoted(url)}'
        if name in wellknown.SPECIAL:
            return f'{label},"value":{text}}}'
        return label + ("}" if text == "{}" else "," + text[1:])


class _ObjectPrinter:
    """A message whose JSON form is the object of its fields."""

    def __init__(self, printers: JsonPrinter) -> None:
        self.fields: list[_Field] = []
        self.extendable = False
        self._printers = printers

    def to_text(self, message: Any) -> str:
        parts: list[str] = []
        for given, label, text, value_of, _ in self.fields:
            if given is None or given(message):
                parts.append(label + text(value_of(message)))
        if self.extendable:
            for field, value in type(message).ListFields(message):
                if field.is_extension:
                    parts.append(f'"[{field.full_name}]":{self._printers.for_field(field)(value)}')
        return "{" + ",".join(parts) + "}"

    def to_pieces(self, message: Any) -> Iterator[str]:
        """The same text; between two of its pieces the caller may do something else."""
        if self.extendable:
            yield self.to_text(message)
            return
        before = "{"
        for given, label, text, value_of, pieces in self.fields:
            if given is not None and not given(message):
                continue
            value = value_of(message)
            if pieces is None or len(value) <= pieces[1]:
                yield before + label + text(value)
            else:
                (one, size), between = pieces, f"{before}{label}["
                for start in range(0, len(value), size):
                    yield between + ",".join(map(one, value[start : start + size]))
                    between = ","
                yield "]"
            before = ","
        yield "{}" if before == "{" else "}"


def has_field(descriptor: Descriptor, name: str) -> Callable[[Any], bool]:
    """Whether a message has a field; asked of its class, since a field may have a method's name, and hides it."""
    has = GetMessageClass(descriptor).HasField
    return lambda message: has(message, name)


def _is_filled(value: object) -> bool:
    # A negative zero is no default, though it equals it.
    return bool(value) or (type(value) is float and str(value) == "-0.0")


def scalar_printer(field: FieldDescriptor) -> ToText:
    """How a scalar is written: 64-bit integers as strings, special floats too."""
    kind = field.type
    if kind == F.TYPE_STRING:
        return quoted
    if kind == F.TYPE_BYTES:
        return print_bytes
    if kind == F.TYPE_BOOL:
        return lambda value: "true" if value else "false"
    if kind in _INT64:
        return lambda value: f'"{value}"'
    if kind == F.TYPE_DOUBLE:
        return _print_double
    return _print_float if kind == F.TYPE_FLOAT else str


def print_bytes(value: bytes) -> str:
    """Standard base64 with padding, quoted."""
    return f'"{binascii.b2a_base64(value, newline=False).decode()}"'


def _print_double(value: float) -> str:
    if value - value == 0:
        return repr(value)
    return '"NaN"' if value != value else ('"Infinity"' if value > 0 else '"-Infinity"')  # noqa: PLR0124


def _print_float(value: float) -> str:
    """The shortest text that reads back as the same 32-bit float."""
    if value - value != 0:
        return _print_double(value)
    for digits in _FLOAT_DIGITS:
        short = float(f"{value:.{digits}g}")
        try:
            if struct.unpack("f", struct.pack("f", short))[0] == value:
                return repr(short)
        except OverflowError:  # rounded up past the largest float
            continue
    return repr(float(f"{value:.9g}"))


def _print_struct(message: Any) -> str:
    fields = message.fields
    return "{" + ",".join(f"{quoted(key)}:{_print_value(fields[key])}" for key in sorted(fields)) + "}"


def _print_list_value(message: Any) -> str:
    return f"[{','.join(map(_print_value, message.values))}]"


def _print_value(message: Any) -> str:
    kind = message.WhichOneof("kind")
    if kind == "string_value":
        return quoted(message.string_value)
    if kind == "number_value":
        number = message.number_value
        if number - number != 0:
            raise ValueError("a google.protobuf.Value holds a number that JSON cannot write")
        text = repr(number)
        return text[:-2] if text.endswith(".0") and text != "-0.0" else text
    if kind == "bool_value":
        return "true" if message.bool_value else "false"
    if kind == "struct_value":
        return _print_struct(message.struct_value)
    if kind == "list_value":
        return _print_list_value(message.list_value)
    return "null"
