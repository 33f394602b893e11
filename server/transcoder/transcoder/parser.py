"""Decides how JSON values become messages: ProtoJSON, compiled once per message type.

Must not know HTTP. JSON values come from jsontext, which has bounded their depth.
"""

from collections.abc import Callable, Container, Iterator
from dataclasses import dataclass
from typing import Any

from google.protobuf.descriptor import Descriptor, EnumDescriptor, FieldDescriptor
from google.protobuf.descriptor_pool import DescriptorPool
from google.protobuf.message import DecodeError, Message
from google.protobuf.message_factory import GetMessageClass

from . import special, wellknown
from .errors import FieldError
from .jsonreader import JsonReader
from .jsontext import JsonError, TooLongError
from .scalars import FromJson, converters, key_from_text

ParseMessage = Callable[[Message, object], None]
"""Reads a JSON value into an empty message."""
SetField = Callable[[Message, object], None]
"""Reads a JSON value into one field of a message."""


@dataclass(frozen=True, slots=True)
class FieldEntry:
    """One field under one of its spellings."""

    set: SetField
    other_name: str
    """The other spelling, which must not stand in the same object; empty when there is none."""
    oneof: str
    takes_null: bool
    """Null is a value of this field, not its absence."""


class JsonParser:
    """Parsers for every message type of a pool, each compiled when it is first asked for."""

    def __init__(self, pool: DescriptorPool, *, reject_unknown: bool) -> None:
        self._pool = pool
        self._reject_unknown = reject_unknown
        self._parsers: dict[str, ParseMessage] = {}

    def for_message(self, descriptor: Descriptor) -> ParseMessage:
        """The parser of a message type, well-known ones in their own form."""
        name = descriptor.full_name
        known = self._parsers.get(name)
        if known is not None:
            return known
        own = self._special(descriptor)
        if own is not None:
            self._parsers[name] = own
            return own
        parser = ObjectParser(descriptor, self._pool, self, reject_unknown=self._reject_unknown)
        self._parsers[name] = parser  # before its fields: types may hold themselves
        parser.compile()
        return parser

    def for_field(self, field: FieldDescriptor) -> SetField:
        """The setter of a field as a whole: list, map, message or scalar."""
        if (entry := map_entry(field)) is not None:
            return self._map(field, entry)
        if field.is_repeated:
            return self._list(field)
        if field.message_type is not None:
            return self._message(field, field.message_type)
        return _scalar_setter(_key(field), converters(field)[0], nullable=is_null_value(field.enum_type))

    def _message(self, field: FieldDescriptor, descriptor: Descriptor) -> SetField:
        parse, name, extension = self.for_message(descriptor), field.name, field.is_extension
        # By its class: a field may have a method's name, and hides it.
        mark_set = GetMessageClass(descriptor).SetInParent

        def set_message(message: Message, value: object) -> None:
            child: Message = _extensions(message)[field] if extension else getattr(message, name)
            mark_set(child)
            parse(child, value)

        return set_message

    def _list(self, field: FieldDescriptor) -> SetField:
        return ListSetter(field, self._append(field))

    def _append(self, field: FieldDescriptor) -> Callable[[Any, object], None]:
        if (descriptor := field.message_type) is not None:
            parse = self.for_message(descriptor)
            return lambda target, item: parse(target.add(), _not_null(descriptor, item))
        convert = _nullable(converters(field)[0]) if is_null_value(field.enum_type) else converters(field)[0]
        return lambda target, item: target.append(convert(item))

    def _map(self, field: FieldDescriptor, entry: Descriptor) -> SetField:
        name = field.name
        key_field, value_field = entry.fields_by_name["key"], entry.fields_by_name["value"]
        read_key = key_from_text(key_field)
        put = self._put(value_field)

        def set_map(message: Message, value: object) -> None:
            if type(value) is not dict:
                raise FieldError("expected an object")
            target = getattr(message, name)
            for text, item in value.items():
                try:
                    key = read_key(text)
                    if key in target:
                        raise FieldError("duplicate key")
                    put(target, key, item)
                except FieldError as error:
                    raise error.under(f'["{text[:64]}"]') from None

        return set_map

    def _put(self, field: FieldDescriptor) -> Callable[[Any, object, object], None]:
        if (descriptor := field.message_type) is not None:
            parse = self.for_message(descriptor)
            return lambda target, key, item: parse(target[key], _not_null(descriptor, item))
        convert = _nullable(converters(field)[0]) if is_null_value(field.enum_type) else converters(field)[0]

        def put(target: Any, key: object, item: object) -> None:
            target[key] = convert(item)

        return put

    def _special(self, descriptor: Descriptor) -> ParseMessage | None:
        name = descriptor.full_name
        if name in wellknown.WRAPPERS:
            return _scalar_setter("value", converters(descriptor.fields_by_name["value"])[0], nullable=False)
        simple: dict[str, ParseMessage] = {
            wellknown.TIMESTAMP: special.parse_timestamp,
            wellknown.DURATION: special.parse_duration,
            wellknown.FIELD_MASK: special.parse_mask,
            "google.protobuf.Struct": special.parse_struct,
            "google.protobuf.Value": special.parse_value,
            "google.protobuf.ListValue": special.parse_list_value,
            "google.protobuf.Any": self._parse_any,
        }
        return simple.get(name)

    def _parse_any(self, message: Any, value: object) -> None:
        if type(value) is not dict:
            raise FieldError("expected an object")
        if not value:
            return
        url = value.get("@type")
        if type(url) is not str:
            raise FieldError('expected the type as "@type"')
        descriptor = self._resolve(url)
        kind = GetMessageClass(descriptor)
        inner = kind()
        parse = self.for_message(descriptor)
        if descriptor.full_name in wellknown.SPECIAL:
            self._parse_special_any(parse, inner, value)
        else:
            parse(inner, {key: item for key, item in value.items() if key != "@type"})
        if not kind.IsInitialized(inner):
            raise FieldError("a required field is missing")
        value_bytes = kind.SerializeToString(inner, deterministic=True)
        try:
            kind.FromString(value_bytes)
        except DecodeError:  # the wire nests less deep than JSON may
            raise FieldError("nested too deep") from None
        message.type_url = url
        message.value = value_bytes

    def _parse_special_any(self, parse: ParseMessage, inner: Message, value: dict[str, object]) -> None:
        if "value" not in value:
            raise FieldError('expected its JSON form as "value"')
        if self._reject_unknown and len(value) > len(("@type", "value")):
            raise FieldError("unknown field")
        try:
            parse(inner, value["value"])
        except FieldError as error:
            raise error.under("value") from None

    def _resolve(self, url: str) -> Descriptor:
        prefix, slash, name = url.rpartition("/")
        try:
            if slash and prefix and name:
                return self._pool.FindMessageTypeByName(name)
        except KeyError:
            pass
        raise FieldError("unknown type").under("@type")


class Count:
    """How many elements a message may still get."""

    def __init__(self, most: int) -> None:
        self._most = self._left = most

    def take(self) -> None:
        """Counts one; FieldError beyond the most."""
        self._left -= 1
        if self._left < 0:
            raise FieldError(f"must have at most {self._most} elements", limit=self._most)


class ListSetter:
    """Reads a list into a repeated field."""

    def __init__(self, field: FieldDescriptor, append: Callable[[Any, object], None]) -> None:
        self._name = field.name
        self._extension = field if field.is_extension else None
        self._append = append

    def __call__(self, message: Message, value: object) -> None:
        """Reads a whole list."""
        if type(value) is not list:
            raise FieldError("expected an array")
        self.extend(message, value)

    def extend(self, message: Message, items: list[object], first: int = 0) -> None:
        """Reads more elements; `first` is the index of the first of them."""
        field, append = self._extension, self._append
        target = getattr(message, self._name) if field is None else _extensions(message)[field]
        index = first
        try:
            for index, item in enumerate(items, first):  # noqa: B007 - the handler names it
                append(target, item)
        except FieldError as error:
            raise error.under(f"[{index}]") from None

    def read(self, message: Message, text: JsonReader, elements: Count) -> Iterator[None]:
        """Reads a list piece by piece; yields whenever others should have their turn."""
        text.take("[")
        first = 0
        items: list[object] = []
        more = text.peek() != "]"
        while more:
            elements.take()
            items.append(text.value(around=2))
            more = text.peek() == ","
            if more:
                text.take(",")
            if text.is_due():
                self.extend(message, items, first)
                first += len(items)
                items = []
                yield
        self.extend(message, items, first)
        text.take("]")


def _taken_key(text: JsonReader, known: Container[str]) -> str:
    """Takes a key and its colon."""
    name = text.value()
    if type(name) is not str:
        raise JsonError("a key is no string")
    if name in known:
        raise JsonError("an object has a duplicate key")
    text.take(":")
    return name


class ObjectParser:
    """A message whose JSON form is the object of its fields."""

    def __init__(
        self, descriptor: Descriptor, pool: DescriptorPool, parsers: JsonParser, *, reject_unknown: bool
    ) -> None:
        self._descriptor = descriptor
        self._pool = pool
        self._parsers = parsers
        self._reject_unknown = reject_unknown
        self._fields: dict[str, FieldEntry] = {}

    def compile(self) -> None:
        """Compiles the fields."""
        for field in self._descriptor.fields:
            setter = self._parsers.for_field(field)
            names = {field.name, field.json_name}
            for name in names:
                self._fields[name] = _entry(field, setter, next(iter(names - {name}), ""))

    def __call__(self, message: Message, value: object) -> None:
        """Reads an object that was parsed whole."""
        if type(value) is not dict:
            raise FieldError("expected an object")
        oneofs: set[str] = set()
        name = ""
        try:
            for name, item in value.items():
                self._set(message, name, item, value, oneofs)
        except FieldError as error:
            raise error.under(name[:64]) from None

    def read(self, message: Message, text: JsonReader, max_elements: int) -> Iterator[None]:
        """Reads an object piece by piece; yields whenever others should have their turn."""
        names: set[str] = set()
        oneofs: set[str] = set()
        elements = Count(max_elements)
        yield from text.skip()
        text.take("{")
        more = text.peek() != "}"
        while more:
            if len(names) >= max_elements:
                raise JsonError(f"an object has more than {max_elements} keys", max_elements)
            name = _taken_key(text, names)
            try:
                entry = self._fields.get(name) or self._extension(name)
                if text.peek() == "[" and entry is not None and isinstance(entry.set, ListSetter):
                    self._set(message, name, [], names, oneofs)
                    for _ in entry.set.read(message, text, elements):
                        yield
                else:
                    self._set(message, name, text.value(around=1), names, oneofs)
            except TooLongError as error:
                raise FieldError(str(error), name[:64], error.limit) from None
            except FieldError as error:
                raise error.under(name[:64]) from None
            names.add(name)
            yield from text.skip()
            if text.is_due():
                yield
            more = text.peek() == ","
            if more:
                text.take(",")
        text.take("}")
        yield from text.skip()
        text.end()

    def _set(self, message: Message, name: str, item: object, given: Container[str], oneofs: set[str]) -> None:
        """Sets the field of this name; `given` holds the other names, `oneofs` those of which a field is set."""
        entry = self._fields.get(name) or self._extension(name)
        if entry is None:
            return
        if entry.other_name and entry.other_name in given:
            raise FieldError("given twice, under both of its names")
        if item is None and not entry.takes_null:
            return
        if entry.oneof:
            if entry.oneof in oneofs:
                raise FieldError(f"another field of oneof {entry.oneof!r} is given too")
            oneofs.add(entry.oneof)
        entry.set(message, item)

    def _extension(self, name: str) -> FieldEntry | None:
        if self._descriptor.is_extendable and name.startswith("[") and name.endswith("]"):
            try:
                field = self._pool.FindExtensionByName(name[1:-1])
            except KeyError:
                field = None
            holder = field.containing_type if field is not None else None
            if field is not None and holder is not None and holder.full_name == self._descriptor.full_name:
                entry = self._fields[name] = _entry(field, self._parsers.for_field(field), "")
                return entry
        if self._reject_unknown:
            raise FieldError("unknown field")
        return None


def is_null_value(enum: EnumDescriptor | None) -> bool:
    """Whether an enum is google.protobuf.NullValue, which JSON writes as null."""
    return enum is not None and enum.full_name == wellknown.NULL_VALUE


def map_entry(field: FieldDescriptor) -> Descriptor | None:
    """The entry type of a map field; None for any other field."""
    entry = field.message_type
    return entry if entry is not None and entry.GetOptions().map_entry else None


def _key(field: FieldDescriptor) -> str | FieldDescriptor:
    return field if field.is_extension else field.name


def _extensions(message: Message) -> Any:
    return type(message).Extensions.__get__(message)


def _entry(field: FieldDescriptor, setter: SetField, other_name: str) -> FieldEntry:
    # An optional proto3 field sits in a oneof of its own, which cannot be given twice.
    oneof = field.containing_oneof
    takes_null = not field.is_repeated and (is_null_value(field.enum_type) or _is_value(field.message_type))
    shared = oneof.name if oneof is not None and len(oneof.fields) > 1 else ""
    return FieldEntry(setter, other_name, shared, takes_null)


def _is_value(descriptor: Descriptor | None) -> bool:
    return descriptor is not None and descriptor.full_name == "google.protobuf.Value"


def _not_null(descriptor: Descriptor | None, item: object) -> object:
    if item is None and not _is_value(descriptor):
        raise FieldError("null is no element")
    return item


def _nullable(convert: FromJson) -> FromJson:
    return lambda value: 0 if value is None else convert(value)


def _scalar_setter(key: str | FieldDescriptor, convert: FromJson, *, nullable: bool) -> SetField:
    read = _nullable(convert) if nullable else convert
    if not isinstance(key, str):

        def set_extension(message: Message, value: object) -> None:
            _extensions(message)[key] = read(value)

        return set_extension

    def set_scalar(message: Message, value: object) -> None:
        setattr(message, key, read(value))

    return set_scalar
