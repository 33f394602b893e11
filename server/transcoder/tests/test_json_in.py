"""ProtoJSON in: what is taken, and what is refused with 400."""

import json
import time
from urllib.parse import quote

import pytest
from google.protobuf import json_format

from toy import toy_edition_pb2, toy_legacy_pb2
from toy.asgi_client import request
from toy.toy_pb2 import Child, Everything
from toy.toy_service import Toy, make_toy


async def taken(toy: Toy, body: str) -> Everything:
    answer = await request(toy.app, "POST", "/v1/echo", body)
    assert answer.status == 200, answer.body
    message: Everything = toy.echoes.last
    return message


async def refused(toy: Toy, body: str | bytes) -> str:
    answer = await request(toy.app, "POST", "/v1/echo", body)
    assert answer.status == 400, answer.body
    status = answer.json()
    assert (status["code"], status["details"]) == (3, [])
    message: str = status["message"]
    return message


INTEGERS = ["int32_value", "int64_value", "uint32_value", "uint64_value", "sint32_value", "fixed64_value"]


@pytest.mark.parametrize("field", INTEGERS)
@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("0", 0),
        ("-0", 0),
        ("7", 7),
        ('"7"', 7),
        ('"\\u0037"', 7),
        ("1.0", 1),
        ('"1.0"', 1),
        ("1e2", 100),
        ('"1E+2"', 100),
        ("100e-2", 1),
        ("1.5e1", 15),
        ("0e999999999999", 0),
        ("0.000", 0),
        ("-0.0", 0),
        ("1e00000000000000000000002", 100),
        ("10000000000000000000000000000e-28", 1),
    ],
)
async def test_integers(toy: Toy, field: str, text: str, value: int) -> None:
    assert getattr(await taken(toy, f'{{"{field}": {text}}}'), field) == value


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("int32_value", -(2**31)),
        ("int32_value", 2**31 - 1),
        ("uint32_value", 2**32 - 1),
        ("int64_value", -(2**63)),
        ("int64_value", 2**63 - 1),
        ("uint64_value", 2**64 - 1),
    ],
)
async def test_integer_bounds(toy: Toy, field: str, value: int) -> None:
    """Exact at both ends, bare or quoted: no digit goes through a double."""
    for text in (str(value), f'"{value}"', f"{value}.0", f'"{value}e0"'):
        assert getattr(await taken(toy, f'{{"{field}": {text}}}'), field) == value
    beyond = value + (1 if value > 0 else -1)
    for text in (str(beyond), f'"{beyond}"', f"{beyond}.0"):
        assert "range" in await refused(toy, f'{{"{field}": {text}}}')


async def test_a_bare_int64_keeps_every_digit(toy: Toy) -> None:
    assert (await taken(toy, '{"int64_value": 9007199254740993}')).int64_value == 2**53 + 1
    assert (await taken(toy, '{"int64_value": 9.223372036854775807e18}')).int64_value == 2**63 - 1


@pytest.mark.parametrize("field", INTEGERS)
@pytest.mark.parametrize(
    "text",
    [
        "0.5",
        '"0.5"',
        "1e-1",
        "1.00000000000000000000000000000001",
        '""',
        '" 1"',
        '"1 "',
        '"+1"',
        '"01"',
        '"1."',
        '".5"',
        '"0x10"',
        '"1_000"',
        '"\u0661"',
        '"1e"',
        '"e1"',
        '"abc"',
        '"12,34"',
        '"NaN"',
        '"1\\u0000"',
        '"1\\n"',
        "true",
        "false",
        "[]",
        "[1]",
        "{}",
        '"1e536870000"',
        "1e400",
        '"-"',
    ],
)
async def test_no_integers(toy: Toy, field: str, text: str) -> None:
    assert field in await refused(toy, f'{{"{field}": {text}}}')


@pytest.mark.parametrize("text", ["-1", '"-1"', "-1.0"])
async def test_no_negative_unsigned(toy: Toy, text: str) -> None:
    await refused(toy, f'{{"uint32_value": {text}}}')
    await refused(toy, f'{{"uint64_value": {text}}}')


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("0", 0.0),
        ("1.5", 1.5),
        ('"1.5"', 1.5),
        ("1e2", 100.0),
        ('"-1E-2"', -0.01),
        ('"Infinity"', float("inf")),
        ('"-Infinity"', float("-inf")),
        ("1e-400", 0.0),
        ("123456789012345678901234567890", 123456789012345678901234567890.0),
        ("1.79769e+308", 1.79769e308),
        ("-2.22507e-308", -2.22507e-308),
    ],
)
async def test_doubles(toy: Toy, text: str, value: float) -> None:
    assert (await taken(toy, f'{{"double_value": {text}}}')).double_value == value


async def test_not_a_number_and_negative_zero(toy: Toy) -> None:
    message = await taken(toy, '{"double_value": "NaN"}')
    assert message.double_value != message.double_value
    for text in ("-0.0", "-0", '"-0"', "-0e1"):
        message = await taken(toy, f'{{"float_value": {text}, "value": -0, "int32_value": -0, "uint64_value": -0}}')
        assert str(message.float_value) == "-0.0"
        assert str(message.value.number_value) == "-0.0"
        assert (message.int32_value, message.uint64_value) == (0, 0)


@pytest.mark.parametrize(
    "text",
    [
        "NaN",
        "Infinity",
        "-Infinity",
        '"nan"',
        '"inf"',
        '"infinity"',
        '"+Infinity"',
        '""',
        '" 1"',
        '"1 "',
        '"0x1"',
        '"1_0"',
        '"1.5.2"',
        '"\u0661"',
        "true",
        "[]",
        "{}",
        "1e400",
        '"-1e400"',
        "1" + "0" * 400,
    ],
)
async def test_no_doubles(toy: Toy, text: str) -> None:
    await refused(toy, f'{{"double_value": {text}}}')


async def test_float_range(toy: Toy) -> None:
    assert (await taken(toy, '{"float_value": 3.4028234663852886e38}')).float_value == 3.4028234663852886e38
    assert (await taken(toy, '{"float_value": 1.175494e-38}')).float_value == pytest.approx(1.175494e-38)
    for text in ("3.502823e+38", "-3.502823e+38", '"3.5e38"', str(10**39)):
        assert "range" in await refused(toy, f'{{"float_value": {text}}}')


@pytest.mark.parametrize("text", ["0", "1", '"true"', '"false"', '""', "[]", "{}", '"True"'])
async def test_no_bools(toy: Toy, text: str) -> None:
    await refused(toy, f'{{"bool_value": {text}}}')


@pytest.mark.parametrize("text", ["1", "true", "[]", "{}", "1.5"])
async def test_no_strings(toy: Toy, text: str) -> None:
    await refused(toy, f'{{"string_value": {text}}}')


async def test_strings(toy: Toy) -> None:
    body = '{"string_value": "\\"\\\\\\/\\b\\f\\n\\r\\t\\u8C37\\u6b4c\\uD83D\\uDE01谷\\u0000\\\\ud800"}'
    assert (await taken(toy, body)).string_value == '"\\/\b\f\n\r\t谷歌😁谷\x00\\ud800'


@pytest.mark.parametrize(
    "text",
    [
        "\\ud800",
        "\\uDC00",
        "\\udbff\\u0041",
        "\\ude01\\ud83d",
        "\\ud83d \\ude01",
        "\\ud83d\\n\\ude01",
        "\\ud83d\\ud83d\\ude01",
        "\\ud83d\\ude01\\ude01",
        "\\ud83d\\\\ude01",
    ],
)
@pytest.mark.parametrize(
    "body", ['{"string_value": "%s"}', '{"struct": {"%s": 1}}', '{"unknown": ["%s"]}', '{"%s": 1}']
)
async def test_no_lone_surrogates(toy: Toy, body: str, text: str) -> None:
    assert "surrogate" in await refused(toy, body % text)


@pytest.mark.parametrize(
    "body",
    [
        b'{"string_value": "\xed\xa0\x80"}',
        b'{"string_value": "\xff"}',
        b'{"string_value": "\xc0\x80"}',
        b'{"string_value": "\xc3"}',
        b"\xef\xbb\xbf{}",
        '{"string_value": "a"}'.encode("utf-16"),
        '{"string_value": "a"}'.encode("utf-16-le"),
    ],
)
async def test_bodies_that_are_not_utf8(toy: Toy, body: bytes) -> None:
    await refused(toy, body)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("", b""),
        ("AQI=", b"\x01\x02"),
        ("AQI", b"\x01\x02"),
        ("-_", b"\xfb"),
        ("+/", b"\xfb"),
        ("-_8=", b"\xfb\xff"),
        ("+/8=", b"\xfb\xff"),
        ("AA==", b"\x00"),
        ("AA", b"\x00"),
        ("AAEC", b"\x00\x01\x02"),
    ],
)
async def test_bytes(toy: Toy, text: str, value: bytes) -> None:
    assert (await taken(toy, json.dumps({"bytes_value": text}))).bytes_value == value


@pytest.mark.parametrize(
    "text", ["A", "AAAAA", "AA=", "AAA==", "AAAA=", "=", "====", "A A=", "AQI=\n", "+_AA", "A*==", "AQI=AQI=", "é"]
)
async def test_no_bytes(toy: Toy, text: str) -> None:
    await refused(toy, json.dumps({"bytes_value": text}))


@pytest.mark.parametrize(
    ("text", "value"),
    [('"COLOR_RED"', 1), ("2", 2), ("0", 0), ("42", 42), ("-1", -1), ("1.0", 1), ("1e0", 1)],
)
async def test_enums(toy: Toy, text: str, value: int) -> None:
    assert (await taken(toy, f'{{"color": {text}}}')).color == value


@pytest.mark.parametrize(
    "text", ['"RED"', '"color_red"', '""', '"1"', "true", "[]", '["COLOR_RED"]', "{}", "1.5", "2147483648"]
)
async def test_no_enums(toy: Toy, text: str) -> None:
    await refused(toy, f'{{"color": {text}}}')


async def test_an_unknown_enum_name_is_told_those_that_are_known(toy: Toy) -> None:
    told = await refused(toy, '{"color": "RED"}')
    assert told == "invalid field 'color': unknown enum name; expected one of COLOR_UNSPECIFIED, COLOR_RED, COLOR_BLUE"


async def test_enum_aliases(toy: Toy) -> None:
    assert (await taken(toy, '{"alias": "ALIAS_SECOND"}')).alias == 1


@pytest.mark.parametrize(
    ("text", "seconds", "nanos"),
    [
        ("1970-01-01T00:00:00Z", 0, 0),
        ("0001-01-01T00:00:00Z", -62135596800, 0),
        ("9999-12-31T23:59:59.999999999Z", 253402300799, 999999999),
        ("1969-12-31T23:59:59.999999999Z", -1, 999999999),
        ("1970-01-01T08:00:01+08:00", 1, 0),
        ("1969-12-31T16:00:01-08:00", 1, 0),
        ("1970-01-01T00:00:00-11:30", 41400, 0),
        ("0001-01-01T00:00:00-00:01", -62135596740, 0),
        ("9999-12-31T23:59:59+00:01", 253402300739, 0),
        ("2000-02-29T00:00:00.5Z", 951782400, 500000000),
        ("1970-01-01T00:00:00.000000001-00:00", 0, 1),
    ],
)
async def test_timestamps(toy: Toy, text: str, seconds: int, nanos: int) -> None:
    stamp = (await taken(toy, json.dumps({"timestamp": text}))).timestamp
    assert (stamp.seconds, stamp.nanos) == (seconds, nanos)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "0000-01-01T00:00:00Z",
        "10000-01-01T00:00:00Z",
        "999-01-01T00:00:00Z",
        "00001-01-01T00:00:00Z",
        "0001-01-01T00:00:00",
        "0001-01-01 00:00:00Z",
        "0001-01-01t00:00:00Z",
        "0001-01-01T00:00:00z",
        "1970-01-01T08:00:01+0800",
        "1970-01-01T08:00:01+08",
        "1970-01-01T08:00Z",
        "1970-13-01T00:00:00Z",
        "1970-00-01T00:00:00Z",
        "1970-01-32T00:00:00Z",
        "1970-01-00T00:00:00Z",
        "1970-01-01T24:00:00Z",
        "1970-01-01T00:60:00Z",
        "1970-01-01T00:00:60Z",
        "1990-12-31T23:59:60Z",
        "1970-01-01T00:00:00+24:00",
        "1970-01-01T00:00:00+00:60",
        "0001-01-01T00:00:00+00:01",
        "9999-12-31T23:59:59-00:01",
        "1970-01-01T00:00:00.1234567890Z",
        "1970-01-01T00:00:00.Z",
        "1970-01-01T00:00:00,5Z",
        "1970-01-01T00:00:00.123aZ",
        "1970-1-01T00:00:00Z",
        "1970-01-1T00:00:00Z",
        "2001-02-29T00:00:00Z",
        " 1970-01-01T00:00:00Z",
        "1970-01-01T00:00:00Z\n",
        "\u0661970-01-01T00:00:00Z",
    ],
)
async def test_no_timestamps(toy: Toy, text: str) -> None:
    await refused(toy, json.dumps({"timestamp": text}))
    assert (await request(toy.app, "GET", f"/v1/echo?timestamp={quote(text)}")).status == 400


@pytest.mark.parametrize(
    ("text", "seconds", "nanos"),
    [
        ("0s", 0, 0),
        ("1s", 1, 0),
        ("-5s", -5, 0),
        ("1.5s", 1, 500000000),
        ("-0.5s", 0, -500000000),
        ("1.000000001s", 1, 1),
        ("315576000000.999999999s", 315576000000, 999999999),
        ("-315576000000.999999999s", -315576000000, -999999999),
    ],
)
async def test_durations(toy: Toy, text: str, seconds: int, nanos: int) -> None:
    duration = (await taken(toy, json.dumps({"duration": text}))).duration
    assert (duration.seconds, duration.nanos) == (seconds, nanos)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "1",
        "s",
        "-s",
        ".5s",
        "1.s",
        "+1s",
        "1 s",
        " 1s",
        "1S",
        "1m",
        "1ms",
        "--1s",
        "1e3s",
        "0.0000000001s",
        "315576000001s",
        "-315576000001s",
        "9" * 50 + "s",
        "1s\n",
        "\u0661s",
    ],
)
async def test_no_durations(toy: Toy, text: str) -> None:
    await refused(toy, json.dumps({"duration": text}))


@pytest.mark.parametrize(
    ("text", "paths"),
    [("", []), ("foo", ["foo"]), ("foo,barBaz", ["foo", "bar_baz"]), ("a.bC.dE9", ["a.b_c.d_e9"]), ("Foo", ["_foo"])],
)
async def test_masks(toy: Toy, text: str, paths: list[str]) -> None:
    message = await taken(toy, json.dumps({"mask": text}))
    assert list(message.mask.paths) == paths
    assert message.HasField("mask")


@pytest.mark.parametrize("text", ["foo_bar", ",", "foo,", "a..b", ".a", "a b", "a-b", "1a", "a, b", "é"])
async def test_no_masks(toy: Toy, text: str) -> None:
    await refused(toy, json.dumps({"mask": text}))


@pytest.mark.parametrize("field", ["timestamp", "duration", "mask"])
@pytest.mark.parametrize("text", ["1", "true", "{}", "[]"])
async def test_textual_types_are_strings(toy: Toy, field: str, text: str) -> None:
    await refused(toy, f'{{"{field}": {text}}}')


async def test_null_leaves_every_field_unset_but_values(toy: Toy) -> None:
    names = {field.name for field in Everything.DESCRIPTOR.fields} | {"other-name"}
    body = json.dumps(dict.fromkeys(sorted(names - {"value", "choice_null", "renamed"})))
    assert await taken(toy, body) == Everything()
    message = await taken(toy, '{"value": null, "choice_null": null}')
    assert message.value.HasField("null_value")
    assert message.WhichOneof("choice") == "choice_null"


@pytest.mark.parametrize(
    "body",
    [
        '{"integers": [1, null]}',
        '{"strings": [null]}',
        '{"children": [null]}',
        '{"colors": [null]}',
        '{"timestamps": [null]}',
        '{"wrapped_list": [null]}',
        '{"anys": [null]}',
        '{"string_to_int": {"a": null}}',
        '{"bool_to_child": {"true": null}}',
        '{"string_to_duration": {"a": null}}',
    ],
)
async def test_null_is_no_element(toy: Toy, body: str) -> None:
    await refused(toy, body)


async def test_null_is_an_element_where_it_is_a_value(toy: Toy) -> None:
    message = await taken(toy, '{"values": [null, 1], "nulls": [null, "NULL_VALUE"], "string_to_value": {"a": null}}')
    assert message.values[0].HasField("null_value")
    assert list(message.nulls) == [0, 0]
    assert message.string_to_value["a"].HasField("null_value")


@pytest.mark.parametrize(
    "body",
    [
        "[]",
        "null",
        "1",
        '"a"',
        "true",
        '{"child": []}',
        '{"child": 1}',
        '{"child": "x"}',
        '{"child": true}',
        '{"integers": 1}',
        '{"integers": {}}',
        '{"integers": "1"}',
        '{"children": {"number": 1}}',
        '{"children": [{"number": 1}, 2]}',
        '{"children": [[]]}',
        '{"string_to_int": []}',
        '{"string_to_int": [{"key": "a", "value": 1}]}',
        '{"struct": []}',
        '{"struct": 1}',
        '{"list_value": {}}',
        '{"empty": []}',
        '{"any": []}',
        '{"wrapped_int32": {"value": 1}}',
        '{"wrapped_bool": "true"}',
        '{"timestamps": "1970-01-01T00:00:00Z"}',
    ],
)
async def test_wrong_kinds(toy: Toy, body: str) -> None:
    await refused(toy, body)


@pytest.mark.parametrize(
    "body",
    [
        "{",
        "}",
        " ",
        "{}{}",
        "{} x",
        "{},",
        '{"int32_value":1,}',
        '{"int32_value" 1}',
        "{int32_value: 1}",
        "{'int32_value': 1}",
        '{"integers": [1,]}',
        '{"integers": [1 2]}',
        '{"int32_value": +1}',
        '{"int32_value": 01}',
        '{"int32_value": -01}',
        '{"int32_value": 1.}',
        '{"int32_value": .5}',
        '{"int32_value": 0x10}',
        '{"int32_value": 1e}',
        '{"int32_value": -}',
        '{"bool_value": True}',
        '{"bool_value": TRUE}',
        '{"string_value": "a\nb"}',
        '{"string_value": "a\tb"}',
        '{"string_value": "\x00"}',
        '{"string_value": "\\x41"}',
        '{"string_value": "\\U0041"}',
        '{"string_value": "\\u8C3"}',
        '{"string_value": "\\uXXXX"}',
        '{"string_value": "\\u 041"}',
        '{"string_value": "\\u+041"}',
        '{"string_value": "abc\\',
        '{"string_value": "abc',
        '{"color": COLOR_RED}',
        "// comment\n{}",
        "{/* comment */}",
        '{"string_to_int": {1: 2}}',
        '{"string_to_int": {null: 2}}',
        '{"unknown": NaN}',
        '{"unknown": [-Infinity]}',
        "\x0c{}",
        "\u00a0{}",
        "NaN",
        "undefined",
        "--1",
    ],
)
async def test_text_that_is_not_json(toy: Toy, body: str) -> None:
    await refused(toy, body)


@pytest.mark.parametrize(
    "body",
    [
        '{"int32_value": 1, "int32_value": 1}',
        '{"int32_value": 1, "int32Value": 1}',
        '{"int32Value": null, "int32_value": 1}',
        '{"child": {"a": 1, "a": 2}}',
        '{"unknown": {"a": 1, "a": 2}}',
        '{"struct": {"a": 1, "a": 2}}',
        '{"string_to_int": {"a": 1, "a": 2}}',
        '{"string_to_int": {"a": 1, "\\u0061": 2}}',
        '{"int_to_string": {"0": "a", "-0": "b"}}',
        '{"renamed": "a", "other-name": "b"}',
    ],
)
async def test_duplicates(toy: Toy, body: str) -> None:
    await refused(toy, body)


async def test_oneofs(toy: Toy) -> None:
    for body in ('{"choice_text": "a", "choice_number": 1}', '{"choice_child": {}, "choice_null": null}'):
        assert "choice" in await refused(toy, body)
    for body in ('{"choice_text": "a", "choice_number": null}', '{"choice_number": null, "choice_text": "a"}'):
        assert (await taken(toy, body)).WhichOneof("choice") == "choice_text"
    for body, field in (
        ('{"choice_text": ""}', "choice_text"),
        ('{"choice_number": 0}', "choice_number"),
        ('{"choice_child": {}}', "choice_child"),
        ('{"choiceNull": "NULL_VALUE"}', "choice_null"),
    ):
        assert (await taken(toy, body)).WhichOneof("choice") == field


async def test_presence(toy: Toy) -> None:
    message = await taken(
        toy, '{"optional_int32": 0, "optionalString": "", "child": {}, "timestamp": "1970-01-01T00:00:00Z"}'
    )
    assert all(message.HasField(name) for name in ("optional_int32", "optional_string", "child", "timestamp"))
    message = await taken(
        toy, '{"wrapped_int32": 0, "wrapped_string": "", "empty": {}, "struct": {}, "list_value": []}'
    )
    for name in ("wrapped_int32", "wrapped_string", "empty", "struct", "list_value"):
        assert message.HasField(name)


async def test_both_spellings_and_json_name(toy: Toy) -> None:
    message = await taken(toy, '{"int32Value": 1, "string_value": "a", "other-name": "b", "child": {"textValue": "c"}}')
    assert (message.int32_value, message.string_value, message.renamed, message.child.text_value) == (1, "a", "b", "c")
    assert (await taken(toy, '{"renamed": "b"}')).renamed == "b"
    assert (await taken(toy, '{"fieldn\\u0061me": 1, "int32\\u0056alue": 3}')).int32_value == 3


@pytest.mark.parametrize(
    ("body", "field", "value"),
    [
        ('{"string_to_int": {"": 1, "a.b": 2}}', "string_to_int", {"": 1, "a.b": 2}),
        ('{"int_to_string": {"-1": "a", "0": "b"}}', "int_to_string", {-1: "a", 0: "b"}),
        ('{"long_to_color": {"9223372036854775807": "COLOR_RED"}}', "long_to_color", {2**63 - 1: 1}),
        ('{"ulong_to_bytes": {"18446744073709551615": "AQ"}}', "ulong_to_bytes", {2**64 - 1: b"\x01"}),
    ],
)
async def test_maps(toy: Toy, body: str, field: str, value: object) -> None:
    assert dict(getattr(await taken(toy, body), field)) == value


@pytest.mark.parametrize(
    "body",
    [
        '{"int_to_string": {"a": "b"}}',
        '{"int_to_string": {"": "b"}}',
        '{"int_to_string": {"01": "b"}}',
        '{"int_to_string": {"1.0": "b"}}',
        '{"int_to_string": {"1e2": "b"}}',
        '{"int_to_string": {" 1": "b"}}',
        '{"int_to_string": {"2147483648": "b"}}',
        '{"ulong_to_bytes": {"-1": ""}}',
        '{"bool_to_child": {"True": {}}}',
        '{"bool_to_child": {"1": {}}}',
        '{"bool_to_child": {"": {}}}',
        '{"long_to_color": {"1": "NOPE"}}',
    ],
)
async def test_no_maps(toy: Toy, body: str) -> None:
    await refused(toy, body)


async def test_struct_and_values(toy: Toy) -> None:
    tree = {"a": [1, "x", None, True, {"b": []}], "c": 1.5, "": "", "@type": "x"}
    message = await taken(toy, json.dumps({"struct": tree, "value": tree, "list_value": [tree]}))
    assert json_format.MessageToDict(message.struct) == tree
    assert json_format.MessageToDict(message.value) == tree
    assert json.loads(json_format.MessageToJson(message.list_value)) == [tree]
    for body in ('{"value": NaN}', '{"value": 1e400}', '{"struct": {"a": [1e400]}}', '{"value": 1' + "0" * 400 + "}"):
        await refused(toy, body)


DEEP_OBJECT = '{"n":' * 60 + "1" + "}" * 60
TYPE = '"@type": "type.googleapis.com/'


@pytest.mark.parametrize(
    ("text", "name"),
    [
        (f'{{{TYPE}toy.v1.Child", "number": 1, "textValue": "a"}}', "toy.v1.Child"),
        (f'{{"number": 1, {TYPE}toy.v1.Child"}}', "toy.v1.Child"),
        (f'{{{TYPE}google.protobuf.Duration", "value": "1.5s"}}', "google.protobuf.Duration"),
        (f'{{{TYPE}google.protobuf.Struct", "value": {{"a": 1}}}}', "google.protobuf.Struct"),
        (f'{{{TYPE}google.protobuf.Value", "value": null}}', "google.protobuf.Value"),
        (f'{{{TYPE}google.protobuf.Int32Value", "value": 5}}', "google.protobuf.Int32Value"),
        (f'{{{TYPE}google.protobuf.Empty"}}', "google.protobuf.Empty"),
        (f'{{{TYPE}google.protobuf.Any", "value": {{{TYPE}toy.v1.Child", "number": 2}}}}', "google.protobuf.Any"),
        ('{"@type": "example.org/x/toy.v1.Child", "unknown": 1}', "toy.v1.Child"),
    ],
)
async def test_any(toy: Toy, text: str, name: str) -> None:
    assert (await taken(toy, f'{{"any": {text}}}')).any.TypeName() == name


async def test_an_empty_any(toy: Toy) -> None:
    message = await taken(toy, '{"any": {}}')
    assert message.HasField("any")
    assert not message.any.type_url


@pytest.mark.parametrize(
    "text",
    [
        '{"@type": ""}',
        '{"@type": 1}',
        '{"@type": null}',
        '{"value": "AA=="}',
        '{"number": 1}',
        '{"@type": "toy.v1.Child"}',
        '{"@type": "/toy.v1.Child"}',
        '{"@type": "not_a_url", "value": ""}',
        '{"@type": "type.googleapis.com/"}',
        f'{{{TYPE}no.such.Type"}}',
        f'{{{TYPE}toy.v1.Child", "number": "x"}}',
        f'{{{TYPE}google.protobuf.Duration"}}',
        f'{{{TYPE}google.protobuf.Duration", "value": 1}}',
        f'{{{TYPE}google.protobuf.Duration", "seconds": 1}}',
        f'{{{TYPE}toy.legacy.Old"}}',
        f'{{{TYPE}google.protobuf.Struct", "value": {DEEP_OBJECT}}}',
    ],
)
async def test_no_any(toy: Toy, text: str) -> None:
    await refused(toy, f'{{"any": {text}}}')


async def test_unknown_fields(toy: Toy) -> None:
    assert await taken(toy, '{"nope": {"a": [1]}, "child": {"nope": 1}, "[x.y]": 1}') == Everything(child=Child())
    strict = make_toy(reject_unknown=True)
    for body, path in (
        ('{"nope": null}', "nope"),
        ('{"child": {"child": {"nope": 1}}}', "child.child.nope"),
        ('{"children": [{}, {"nope": 1}]}', "children[1].nope"),
        ('{"bool_to_child": {"true": {"nope": 1}}}', 'bool_to_child["true"].nope'),
        (f'{{"any": {{{TYPE}toy.v1.Child", "nope": 1}}}}', "any.nope"),
        (f'{{"any": {{{TYPE}google.protobuf.Duration", "value": "1s", "nope": 1}}}}', "any"),
        ('{"INT32_VALUE": 1}', "INT32_VALUE"),
    ):
        assert path in await refused(strict, body)
    assert (await taken(strict, '{"struct": {"anything": 1}}')).struct["anything"] == 1


async def test_an_empty_body_is_an_empty_message(toy: Toy) -> None:
    assert await taken(toy, "") == Everything()


@pytest.mark.parametrize("depth", [99, 100])
async def test_depth_that_is_allowed(toy: Toy, depth: int) -> None:
    brackets = "[" * (depth - 1) + "]" * (depth - 1)
    await taken(toy, f'{{"value": {brackets}}}')
    await taken(toy, f'{{"value": {brackets}, "strings": ["[[[{{", "\\"]]"]}}')


@pytest.mark.parametrize(
    "body",
    [
        '{"value": ' + "[" * 100 + "]" * 100 + "}",
        '{"value": ' + '{"n":' * 100 + "1" + "}" * 101,
        '{"unknown": ' + "[" * 20_000 + "]" * 20_000 + "}",
        "[" * 20_000,
        '{"child":' * 20_000 + "1" + "}" * 20_000,
        '{"child":' * 200_000,
        "[" * 1_000_000,
        "[]" * 1_000_000,
        "[{" * 500_000,
        '"' + '\\"' * 1_000_000,
        '{"a":"' + "\\" * 1_000_001,
        '{"int32_value": ' + "1" * 100_000 + "}",
        '{"double_value": ' + "1" * 100_000 + "}",
        '{"double_value": 1.' + "1" * 100_000 + "}",
        '{"int64_value": "' + "1" * 100_000 + '"}',
        '{"int64_value": 1e' + "9" * 100_000 + "}",
        '{"double_value": "' + "1" * 100_000 + '"}',
        '{"value": ' + "1" * 100_000 + "}",
        '{"unknown": ' + "1" * 100_000 + "}",
        '{"unknown": 0.' + "1" * 100_000 + "}",
        '{"duration": "' + "1" * 100_000 + 's"}',
        '{"timestamp": "' + "1" * 100_000 + '"}',
        '{"bytes_value": "' + "=" * 100_000 + '"}',
        '{"mask": "' + "," * 100_000 + '"}',
        '{"mask": "' + "a." * 100_000 + '"}',
        '{"any": {"@type": "' + "/" * 100_000 + '"}}',
    ],
    ids=lambda body: body[:24],
)
async def test_hostile_bodies_are_refused_fast(toy: Toy, body: str) -> None:
    start = time.process_time()
    await refused(toy, body)
    assert time.process_time() - start < 1.0


async def test_proto2(toy: Toy) -> None:
    async def echo(body: str) -> object:
        answer = await request(toy.app, "POST", "/legacy/echo", body)
        return answer.json() if answer.status == 200 else answer.json()["message"]

    assert await echo('{"needed": ""}') == {"needed": "", "numbers": []}
    assert "required" in str(await echo("{}"))
    assert await echo('{"needed": "a", "closed": 2, "extra": {"text": "b"}}') == {
        "needed": "a",
        "closed": "CLOSED_TWO",
        "extra": {"text": "b"},
        "numbers": [],
    }
    assert "closed" in str(await echo('{"needed": "a", "closed": 3}'))
    extended = {
        "needed": "a",
        "[toy.legacy.number_ext]": 5,
        "[toy.legacy.strings_ext]": ["b"],
        "[toy.legacy.closed_ext]": "CLOSED_ONE",
        "[toy.legacy.Nested.nested_ext]": {"text": "c"},
    }
    assert await echo(json.dumps(extended)) == extended | {"numbers": []}
    assert await echo('{"needed": "a", "[toy.legacy.none]": 1, "[": 1, "[]": 1}') == {"needed": "a", "numbers": []}
    assert "number_ext" in str(await echo('{"needed": "a", "[toy.legacy.number_ext]": "x"}'))
    assert toy_legacy_pb2.Old.DESCRIPTOR.is_extendable


async def test_editions(toy: Toy) -> None:
    body = {"explicit_number": 0, "shut": "SHUT_ONE", "delimited": {"text": "a"}, "needed": 1}
    answer = await request(toy.app, "POST", "/edition/echo", body)
    assert answer.json() == body | {"implicit_number": 0}
    assert (await request(toy.app, "POST", "/edition/echo", {"needed": 1, "shut": 7})).status == 400
    assert (await request(toy.app, "POST", "/edition/echo", {})).status == 400
    assert toy_edition_pb2.Shut.DESCRIPTOR.is_closed
