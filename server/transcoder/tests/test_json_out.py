"""ProtoJSON out: what is printed, in every style, and what cannot be."""

import asyncio
import json
from typing import Any

import pytest
from google.protobuf import descriptor_pool
from google.protobuf.empty_pb2 import Empty
from google.protobuf.struct_pb2 import Value

from toy import toy_legacy_pb2
from toy.asgi_client import request
from toy.toy_pb2 import Child, Everything
from toy.toy_service import Toy
from transcoder.printer import JsonPrinter, PrintStyle

POOL = descriptor_pool.Default()


def printed(message: Any, **style: bool) -> Any:
    return json.loads(JsonPrinter(POOL, PrintStyle(**style)).for_message(message.DESCRIPTOR)(message))


def brief(message: Any) -> Any:
    return printed(message, omit_defaults=True)


def test_defaults_are_written_unless_a_field_has_presence() -> None:
    text = printed(Everything())
    assert text["int32_value"] == 0
    assert text["int64_value"] == "0"
    assert text["color"] == "COLOR_UNSPECIFIED"
    assert text["strings"] == []
    assert text["string_to_int"] == {}
    assert text["bytes_value"] == ""
    assert text["null_value"] is None
    for name in ("child", "optional_int32", "choice_text", "timestamp", "wrapped_int32", "value", "any", "struct"):
        assert name not in text
    assert brief(Everything()) == {}


LONG = [
    Everything(strings=[str(i) for i in range(3000)], children=[Child(text_value=str(i)) for i in range(100)]),
    Everything(children=[Child()] * 33, integers=range(1025), value=Value(string_value="x"), string_to_int={"a": 1}),
    Everything(children=[Child()] * 32, integers=range(1024), choice_text=""),
    Everything(),
]


@pytest.mark.parametrize("omit_defaults", [False, True])
@pytest.mark.parametrize("message", LONG, ids=range(len(LONG)))
def test_the_pieces_of_a_long_message_are_its_text(message: Everything, omit_defaults: bool) -> None:
    printer = JsonPrinter(POOL, PrintStyle(omit_defaults=omit_defaults))
    pieces = printer.in_pieces(message.DESCRIPTOR)
    assert pieces is not None
    assert "".join(pieces(message)) == printer.for_message(message.DESCRIPTOR)(message)
    # Without a list there is nothing that can be long; what has a form of its own is printed whole.
    assert printer.in_pieces(Empty.DESCRIPTOR) is printer.in_pieces(Value.DESCRIPTOR) is None


def test_names() -> None:
    message = Everything(int32_value=1, renamed="x", child=Child(text_value="y"))
    assert brief(message) == {"int32_value": 1, "renamed": "x", "child": {"text_value": "y"}}
    camel = printed(message, omit_defaults=True, proto_names=False)
    assert camel == {"int32Value": 1, "other-name": "x", "child": {"textValue": "y"}}


def test_presence() -> None:
    assert brief(Everything(optional_int32=0, optional_string="")) == {"optional_int32": 0, "optional_string": ""}
    assert brief(Everything(choice_text="")) == {"choice_text": ""}
    assert brief(Everything(choice_null=0)) == {"choice_null": None}  # type: ignore[arg-type]
    assert brief(Everything(child=Child())) == {"child": {}}


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.0, "0.0"),
        (-0.0, "-0.0"),
        (0.1, "0.1"),
        (1e22, "1e+22"),
        (5e-324, "5e-324"),
        (1.7976931348623157e308, "1.7976931348623157e+308"),
        (float("nan"), '"NaN"'),
        (float("inf"), '"Infinity"'),
        (float("-inf"), '"-Infinity"'),
    ],
)
def test_doubles(value: float, text: str) -> None:
    assert f'"double_value":{text}' in JsonPrinter(POOL, PrintStyle()).for_message(Everything.DESCRIPTOR)(
        Everything(double_value=value)
    )


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.1, 0.1),
        (16777217.0, 16777216.0),
        (3.4028235e38, 3.4028235e38),
        (1e-45, 1.4013e-45),
        (1.1, 1.1),
        (0.3333333, 0.3333333),
    ],
)
def test_floats_have_as_few_digits_as_do(value: float, text: float) -> None:
    assert brief(Everything(float_value=value)) == {"float_value": text}


def test_a_negative_zero_is_no_default() -> None:
    assert str(brief(Everything(double_value=-0.0))["double_value"]) == "-0.0"
    assert str(brief(Everything(float_value=-0.0))["float_value"]) == "-0.0"
    assert str(brief(Everything(value=Value(number_value=-0.0)))["value"]) == "-0.0"


def test_sixty_four_bits_are_strings() -> None:
    message = Everything(
        int64_value=-(2**63), uint64_value=2**64 - 1, fixed64_value=1, sfixed64_value=-1, sint64_value=2
    )
    assert brief(message) == {
        "int64_value": "-9223372036854775808",
        "uint64_value": "18446744073709551615",
        "fixed64_value": "1",
        "sfixed64_value": "-1",
        "sint64_value": "2",
    }


def test_enums() -> None:
    message = Everything(color=1, colors=[0, 2, 9], alias=1)  # type: ignore[arg-type, list-item]
    assert brief(message) == {
        "color": "COLOR_RED",
        "colors": ["COLOR_UNSPECIFIED", "COLOR_BLUE", 9],
        "alias": "ALIAS_FIRST",
    }
    numbers = printed(message, omit_defaults=True, enums_as_numbers=True)
    assert numbers == {"color": 1, "colors": [0, 2, 9], "alias": 1}


def test_strings_and_bytes() -> None:
    message = Everything(string_value='"\\/\b\f\n\r\t\x00\x1f\x7f谷😁\u2028', bytes_value=b"\xfb\xff\x00")
    assert brief(message) == {"string_value": message.string_value, "bytes_value": "+/8A"}


def test_maps_are_sorted_by_key() -> None:
    message = Everything()
    for key in (10, 9, -1):
        message.int_to_string[key] = "x"
    message.bool_to_child[True].number = 1
    message.bool_to_child[False].number = 2
    text = JsonPrinter(POOL, PrintStyle(omit_defaults=True)).for_message(Everything.DESCRIPTOR)(message)
    assert (
        text
        == '{"int_to_string":{"-1":"x","9":"x","10":"x"},"bool_to_child":{"false":{"number":2},"true":{"number":1}}}'
    )


@pytest.mark.parametrize(
    ("seconds", "nanos", "text"),
    [
        (0, 0, "1970-01-01T00:00:00Z"),
        (0, 10_000_000, "1970-01-01T00:00:00.010Z"),
        (0, 10_000, "1970-01-01T00:00:00.000010Z"),
        (0, 10, "1970-01-01T00:00:00.000000010Z"),
        (-1, 999_999_999, "1969-12-31T23:59:59.999999999Z"),
        (-62135596800, 0, "0001-01-01T00:00:00Z"),
        (253402300799, 999999999, "9999-12-31T23:59:59.999999999Z"),
    ],
)
def test_timestamps(seconds: int, nanos: int, text: str) -> None:
    message = Everything()
    message.timestamp.seconds, message.timestamp.nanos = seconds, nanos
    assert brief(message) == {"timestamp": text}


@pytest.mark.parametrize(
    ("seconds", "nanos", "text"),
    [
        (0, 0, "0s"),
        (1, 10_000_000, "1.010s"),
        (1, 10_000, "1.000010s"),
        (1, 10, "1.000000010s"),
        (0, -500_000_000, "-0.500s"),
        (-5, -1, "-5.000000001s"),
        (315576000000, 999999999, "315576000000.999999999s"),
    ],
)
def test_durations(seconds: int, nanos: int, text: str) -> None:
    message = Everything()
    message.duration.SetInParent()
    message.duration.seconds, message.duration.nanos = seconds, nanos
    assert brief(message) == {"duration": text}


def test_masks() -> None:
    message = Everything()
    message.mask.paths.extend(["foo", "bar_baz.q_x", "_x"])
    assert brief(message) == {"mask": "foo,barBaz.qX,X"}


def test_wrappers_values_and_structs() -> None:
    message = Everything()
    message.wrapped_int64.value = 5
    message.wrapped_bool.value = False
    message.wrapped_bytes.value = b"\x01"
    message.value.list_value.values.add().null_value = 0  # type: ignore[assignment]
    message.value.list_value.values.add().number_value = 3
    message.struct["b"] = 0.5
    message.struct["a"] = "x"
    message.list_value.append(True)
    message.values.add()
    assert brief(message) == {
        "wrapped_int64": "5",
        "wrapped_bool": False,
        "wrapped_bytes": "AQ==",
        "value": [None, 3],
        "struct": {"a": "x", "b": 0.5},
        "list_value": [True],
        "values": [None],
    }


def test_any() -> None:
    message = Everything()
    message.any.Pack(Child(number=1))
    message.anys.add().Pack(Value(string_value="x"))
    message.anys.add()
    assert printed(message)["any"] == {
        "@type": "type.googleapis.com/toy.v1.Child",
        "number": 1,
        "text_value": "",
        "numbers": [],
    }
    assert printed(message)["anys"] == [{"@type": "type.googleapis.com/google.protobuf.Value", "value": "x"}, {}]


def test_groups_and_extensions() -> None:
    message = toy_legacy_pb2.Old(needed="a", closed=toy_legacy_pb2.CLOSED_ONE)
    message.extra.text = "b"
    message.Extensions[toy_legacy_pb2.number_ext] = 0
    assert brief(message) == {
        "needed": "a",
        "closed": "CLOSED_ONE",
        "extra": {"text": "b"},
        "[toy.legacy.number_ext]": 0,
    }


def unprintable() -> list[Everything]:
    messages = [Everything() for _ in range(14)]
    messages[0].timestamp.seconds = 253402300800
    messages[1].timestamp.seconds = -62135596801
    messages[2].timestamp.nanos = -1
    messages[3].timestamp.nanos = 10**9
    messages[4].duration.seconds = 315576000001
    messages[5].duration.seconds, messages[5].duration.nanos = 1, -1
    messages[6].duration.nanos = 10**9
    messages[7].mask.paths.append("fooBar")
    messages[8].mask.paths.append("foo__bar")
    messages[9].mask.paths.append("foo_3_bar")
    messages[10].value.number_value = float("nan")
    messages[11].struct["a"] = float("inf")
    messages[12].any.type_url = "type.googleapis.com/no.such.Type"
    messages[13].any.type_url, messages[13].any.value = "type.googleapis.com/toy.v1.Child", b"\xff"
    return messages


@pytest.mark.parametrize("message", unprintable(), ids=str)
def test_what_json_cannot_say_is_an_error(message: Everything) -> None:
    with pytest.raises(ValueError, match=r"."):
        printed(message)


@pytest.mark.parametrize("end", ["\u0085", "\u2028", "\u2029", "\u009b", "\u200e", "\u202e", "\u2066"])
async def test_no_text_ends_a_line(toy: Toy, end: str) -> None:
    """Readers that split as str.splitlines does would see a line of the caller's making."""
    answer = await request(
        toy.app, "POST", "/v1/echo", {"string_value": f"x{end}event: end", "string_to_int": {end: 1}}
    )
    assert len(answer.body.decode().splitlines()) == 1
    assert end not in answer.body.decode()
    assert answer.json()["string_value"] == f"x{end}event: end"
    error = await request(toy.app, "POST", "/v1/fail", {"code": 9, "message": f"x{end}y"})
    assert len(error.body.decode().splitlines()) == 1
    assert error.json()["message"] == f"x{end}y"


async def test_others_have_their_turns_while_a_long_list_is_printed(toy: Toy) -> None:
    asked = asyncio.create_task(request(toy.app, "POST", "/v1/echo", {"children": [{"number": 1}] * 3200}))
    turns = 0
    while not asked.done():
        await asyncio.sleep(0)
        turns += 1
    assert len(asked.result().json()["children"]) == 3200
    assert turns >= 100
