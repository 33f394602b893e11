"""Random messages: printed and parsed as protobuf's own json_format does, and back the same."""

import json
import math
from typing import Any

from google.protobuf import descriptor_pool, json_format
from google.protobuf.descriptor import Descriptor, FieldDescriptor
from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass
from hypothesis import given, settings
from hypothesis import strategies as st

from toy import toy_edition_pb2, toy_legacy_pb2
from toy.toy_pb2 import Everything
from transcoder.jsontext import parse_json
from transcoder.parser import JsonParser, map_entry
from transcoder.printer import JsonPrinter, PrintStyle

POOL = descriptor_pool.Default()
PRINTER = JsonPrinter(POOL, PrintStyle())
BRIEF = JsonPrinter(POOL, PrintStyle(proto_names=False, omit_defaults=True))
PARSER = JsonParser(POOL, reject_unknown=True)

F = FieldDescriptor
TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=5)
SCALARS: dict[int, st.SearchStrategy[Any]] = {
    **dict.fromkeys((F.TYPE_INT32, F.TYPE_SINT32, F.TYPE_SFIXED32), st.integers(-(2**31), 2**31 - 1)),
    **dict.fromkeys((F.TYPE_UINT32, F.TYPE_FIXED32), st.integers(0, 2**32 - 1)),
    **dict.fromkeys((F.TYPE_INT64, F.TYPE_SINT64, F.TYPE_SFIXED64), st.integers(-(2**63), 2**63 - 1)),
    **dict.fromkeys((F.TYPE_UINT64, F.TYPE_FIXED64), st.integers(0, 2**64 - 1)),
    F.TYPE_FLOAT: st.floats(width=32).map(lambda value: math.nan if math.isnan(value) else value),
    F.TYPE_DOUBLE: st.floats().map(lambda value: math.nan if math.isnan(value) else value),
    F.TYPE_BOOL: st.booleans(),
    F.TYPE_STRING: TEXT,
    F.TYPE_BYTES: st.binary(max_size=5),
}
JSON_TREES = st.recursive(
    st.none() | st.booleans() | st.floats(allow_nan=False, allow_infinity=False) | TEXT,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT, inner, max_size=3),
    max_leaves=6,
)
PATH = st.from_regex(r"[a-z]+(_[a-z]+)?(\.[a-z]+)?", fullmatch=True)
SPECIAL_JSON = {
    "google.protobuf.Timestamp": st.datetimes().map(lambda moment: moment.isoformat() + "Z"),
    "google.protobuf.Duration": st.integers(-(10**17), 10**17).map(lambda n: f"{n // 10**9}.{abs(n) % 10**9:09d}s"),
    "google.protobuf.Struct": st.dictionaries(TEXT, JSON_TREES, max_size=3),
    "google.protobuf.ListValue": st.lists(JSON_TREES, max_size=3),
    "google.protobuf.Value": JSON_TREES,
}


def fill(message: Any, draw: Any, depth: int) -> None:
    """Sets a random choice of fields."""
    name = message.DESCRIPTOR.full_name
    if name in SPECIAL_JSON:
        json_format.ParseDict(draw(SPECIAL_JSON[name]), message)
    elif name == "google.protobuf.FieldMask":
        message.paths.extend(draw(st.lists(PATH, max_size=2)))
    elif name == "google.protobuf.Any":
        if depth and draw(st.booleans()):
            message.Pack(draw(messages(draw(st.sampled_from(PACKABLE)), depth - 1)), deterministic=True)
    else:
        fields = list(message.DESCRIPTOR.fields)
        chosen = draw(st.lists(st.sampled_from(fields), max_size=6)) if fields else []
        needed = [field for field in fields if field.is_required]
        for field in {field.name: field for field in [*needed, *chosen]}.values():
            set_field(message, field, draw, depth)


def set_field(message: Any, field: FieldDescriptor, draw: Any, depth: int) -> None:
    entry = map_entry(field)
    if entry is not None:
        value_field = entry.fields_by_name["value"]
        for key in draw(st.sets(SCALARS[entry.fields_by_name["key"].type], max_size=2)):
            if value_field.message_type is not None:
                fill(getattr(message, field.name)[key], draw, depth - 1)
            else:
                getattr(message, field.name)[key] = draw(scalar(value_field))
    elif field.message_type is not None:
        if depth <= 0:
            return
        child = getattr(message, field.name).add() if field.is_repeated else getattr(message, field.name)
        if not field.is_repeated:
            child.SetInParent()
        fill(child, draw, depth - 1)
    elif field.is_repeated:
        getattr(message, field.name).extend(draw(st.lists(scalar(field), max_size=3)))
    else:
        setattr(message, field.name, draw(scalar(field)))


def scalar(field: FieldDescriptor) -> st.SearchStrategy[Any]:
    if field.enum_type is not None:
        return st.sampled_from([value.number for value in field.enum_type.values])
    return SCALARS[field.type]


@st.composite
def messages(draw: Any, descriptor: Descriptor, depth: int = 3) -> Message:
    message = GetMessageClass(descriptor)()
    fill(message, draw, depth)
    return message


PACKABLE = [
    Everything.DESCRIPTOR,
    *(POOL.FindMessageTypeByName(f"google.protobuf.{name}") for name in ("Duration", "Struct", "Value", "Int64Value")),
    POOL.FindMessageTypeByName("google.protobuf.Empty"),
]
ANY_TYPE = st.sampled_from(
    [Everything.DESCRIPTOR] * 3 + [toy_legacy_pb2.Old.DESCRIPTOR, toy_edition_pb2.New.DESCRIPTOR]
)


def same_json(one: Any, other: Any) -> bool:
    """Equal values, whatever their numbers' spelling; a NaN is the string here."""
    if isinstance(one, dict) and isinstance(other, dict):
        return one.keys() == other.keys() and all(same_json(one[key], other[key]) for key in one)
    if isinstance(one, list) and isinstance(other, list):
        return len(one) == len(other) and all(map(same_json, one, other))
    if isinstance(one, float) and isinstance(other, float):
        return math.copysign(1, one) == math.copysign(1, other) and one == other
    return bool(one == other)


def descriptor_of(message: Any) -> Descriptor:
    descriptor: Descriptor = message.DESCRIPTOR
    return descriptor


@settings(max_examples=150, deadline=None)
@given(ANY_TYPE.flatmap(messages))
def test_printed_as_json_format_does(message: Message) -> None:
    text = PRINTER.for_message(descriptor_of(message))(message)
    expected = json_format.MessageToJson(
        message, preserving_proto_field_name=True, always_print_fields_with_no_presence=True
    )
    assert same_json(json.loads(text), json.loads(expected))
    brief = BRIEF.for_message(descriptor_of(message))(message)
    assert same_json(json.loads(brief), json.loads(json_format.MessageToJson(message)))


@settings(max_examples=150, deadline=None)
@given(ANY_TYPE.flatmap(messages))
def test_parsed_back_the_same(message: Message) -> None:
    for text in (
        PRINTER.for_message(descriptor_of(message))(message),
        BRIEF.for_message(descriptor_of(message))(message),
        json_format.MessageToJson(message),
    ):
        again = type(message)()
        PARSER.for_message(descriptor_of(message))(again, parse_json(text.encode(), 100))
        assert again.SerializeToString(deterministic=True) == message.SerializeToString(deterministic=True)
