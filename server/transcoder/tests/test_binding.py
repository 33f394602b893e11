"""What path, query and body set in the request, and who wins."""

import time
from typing import Any
from urllib.parse import quote

import pytest
from google.protobuf import json_format

from toy.asgi_client import request
from toy.toy_pb2 import Book, Everything
from toy.toy_service import Toy, make_toy


async def bound(toy: Toy, query: str) -> dict[str, Any]:
    answer = await request(toy.app, "GET", f"/v1/echo?{query}")
    assert answer.status == 200, answer.body
    return json_format.MessageToDict(toy.echoes.last, preserving_proto_field_name=True)


async def refused(toy: Toy, target: str, method: str = "GET", body: Any = b"") -> str:
    answer = await request(toy.app, method, target, body)
    assert answer.status == 400, answer.body
    assert answer.json()["code"] == 3
    message: str = answer.json()["message"]
    return message


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ("int32_value=5", {"int32_value": 5}),
        ("int32Value=5", {"int32_value": 5}),
        ("%69nt32_value=%35", {"int32_value": 5}),
        ("int32_value=-5", {"int32_value": -5}),
        ("int32_value=007", {"int32_value": 7}),
        ("int64_value=9223372036854775807", {"int64_value": "9223372036854775807"}),
        ("uint64_value=18446744073709551615", {"uint64_value": "18446744073709551615"}),
        ("double_value=1.5e3", {"double_value": 1500.0}),
        ("double_value=NaN", {"double_value": "NaN"}),
        ("float_value=-Infinity", {"float_value": "-Infinity"}),
        ("bool_value=true", {"bool_value": True}),
        ("wrapped_bool=false", {"wrapped_bool": False}),
        ("string_value=a+b%2Bc%20d%26%3D", {"string_value": "a b+c d&="}),
        ("string_value=a=b=c", {"string_value": "a=b=c"}),
        ("string_value=%C3%A9", {"string_value": "é"}),
        ("string_value=\xc3\xa9", {"string_value": "é"}),
        ("optional_string=", {"optional_string": ""}),
        ("optional_string", {"optional_string": ""}),
        ("optional_int32=0", {"optional_int32": 0}),
        ("bytes_value=AQI=", {"bytes_value": "AQI="}),
        ("bytes_value=AQI", {"bytes_value": "AQI="}),
        ("bytes_value=%2B%2F8%3D", {"bytes_value": "+/8="}),
        ("bytes_value=+/8", {"bytes_value": "+/8="}),
        ("bytes_value=-_8", {"bytes_value": "+/8="}),
        ("wrapped_bytes=+/8", {"wrapped_bytes": "+/8="}),
        ("blobs=AA&blobs=+/8", {"blobs": ["AA==", "+/8="]}),
        ("color=COLOR_RED", {"color": "COLOR_RED"}),
        ("color=2", {"color": "COLOR_BLUE"}),
        ("color=42", {"color": 42}),
        ("colors=1&colors=COLOR_BLUE", {"colors": ["COLOR_RED", "COLOR_BLUE"]}),
        ("null_value=NULL_VALUE", {}),
        ("integers=1&strings=a&integers=2&strings=b", {"integers": [1, 2], "strings": ["a", "b"]}),
        ("child.number=1&child.textValue=a", {"child": {"number": 1, "text_value": "a"}}),
        ("child.text_value=", {"child": {}}),
        ("child.child.child.number=1", {"child": {"child": {"child": {"number": 1}}}}),
        ("child.numbers=1&child.numbers=2", {"child": {"numbers": [1, 2]}}),
        ("other-name=a", {"renamed": "a"}),
        ("renamed=a", {"renamed": "a"}),
        ("choice_number=0", {"choice_number": "0"}),
        ("choice_child.number=1&choice_child.text_value=a", {"choice_child": {"number": 1, "text_value": "a"}}),
        ("timestamp=2024-01-01T12:00:00Z", {"timestamp": "2024-01-01T12:00:00Z"}),
        ("timestamp=2024-01-01T12:00:00.5%2B01:00", {"timestamp": "2024-01-01T11:00:00.500Z"}),
        ("duration=-1.5s", {"duration": "-1.500s"}),
        ("mask=a,bC.d", {"mask": "a,bC.d"}),
        ("mask=a_b,c", {"mask": "aB,c"}),
        ("mask=", {"mask": ""}),
        ("wrapped_int64=5", {"wrapped_int64": "5"}),
        ("wrapped_string=", {"wrapped_string": ""}),
        ("timestamps=1970-01-01T00:00:00Z", {"timestamps": ["1970-01-01T00:00:00Z"]}),
        ("wrapped_int64.value=5", {"wrapped_int64": "5"}),
        ("timestamp.seconds=5&timestamp.nanos=1000", {"timestamp": "1970-01-01T00:00:05.000001Z"}),
        ("duration.nanos=-5&duration.seconds=-1", {"duration": "-1.000000005s"}),
        ("mask.paths=a_b&mask.paths=c", {"mask": "aB,c"}),
        ("", {}),
        ("&&", {}),
        ("=x", {}),
        ("nope=1&child.nope=2&nope.nope=3&$alt=json&nope", {}),
    ],
)
async def test_query(toy: Toy, query: str, expected: dict[str, Any]) -> None:
    assert await bound(toy, query) == expected


@pytest.mark.parametrize(
    "query",
    [
        "int32_value=",
        "int32_value=x",
        "int32_value=1.5",
        "int32_value=2147483648",
        "int32_value=+1",
        "int32_value=%201",
        "int32_value=1_0",
        "int32_value=0x1",
        "int32_value=%D9%A1",
        "int32_value=" + "1" * 5000,
        "uint32_value=-1",
        "double_value=nan",
        "double_value=1e999",
        "float_value=1e39",
        "bool_value=1",
        "bool_value=True",
        "bool_value=",
        "bytes_value=A",
        "bytes_value=A%20A=",
        "color=RED",
        "color=",
        "color=1.5",
        "timestamp=now",
        "timestamp=2024-01-01T12:00:00+01:00",
        "duration=5",
        "duration=1m",
        "mask=a,",
        "wrapped_int64=x",
        "int32_value=1&int32_value=1",
        "int32_value=1&int32Value=1",
        "optional_string=a&optional_string=b",
        "child.number=1&child.number=2",
        "timestamp=2024-01-01T12:00:00Z&timestamp=2024-01-01T12:00:00Z",
        "mask=a&mask=b",
        "timestamp=2024-01-01T12:00:00Z&timestamp.nanos=5",
        "wrapped_int64.value=1&wrapped_int64=2",
        "mask=a&mask.paths=b",
        "choice_text=a&choice_number=1",
        "choice_text=a&choice_child.number=1",
        "child=x",
        "child=",
        "children=x",
        "children.number=1",
        "string_to_int=x",
        "string_to_int.a=1",
        "struct=x",
        "struct.a=1",
        "value=1",
        "list_value=1",
        "any=x",
        "string_value.x=1",
        "timestamp.seconds=253402300800",
        "timestamp.nanos=-1",
        "duration.seconds=1&duration.nanos=-1",
        "mask.paths=fooBar",
        "wrapped_int64.value=x",
        "wrapped_int64.value.x=1",
        "value.number_value=1",
        "any.type_url=x",
        "string_value=%",
        "string_value=%zz",
        "string_value=%ff",
        "string_value=\xff",
        "nope=%",
        "%zz=1",
        "string_value=%ED%A0%80",
        ".".join(["child"] * 3000) + ".number=1",
        ".".join(["x"] * 3000) + "=1",
        "." * 60_000,
    ],
    ids=lambda query: query[:40],
)
async def test_refused_queries(toy: Toy, query: str) -> None:
    start = time.process_time()
    await refused(toy, f"/v1/echo?{query}")
    assert time.process_time() - start < 1.0


async def test_an_error_names_the_field(toy: Toy) -> None:
    wrong = "invalid field '%s': expected an integer"
    assert await refused(toy, "/v1/echo?child.child.number=x") == wrong % "child.child.number"
    assert await refused(toy, "/v1/echo/x") == wrong % "int32_value"
    message = await refused(toy, "/v1/echo", "POST", {"children": [{}, {"child": {"numbers": [1, "x"]}}]})
    assert message == wrong % "children[1].child.numbers[1]"


async def test_unknown_queries_can_be_rejected() -> None:
    strict = make_toy(reject_unknown=True)
    for query in ("nope=1", "child.nope=1", "nope.x=1", "nope", "=1"):
        assert "unknown" in await refused(strict, f"/v1/echo?{query}")
    assert "unknown" in await refused(strict, "/v1/echo?int32_value=1", "POST", {})
    assert (await request(strict.app, "GET", "/v1/echo/7?int32_value=8&int32Value=9")).json()["int32_value"] == 7


@pytest.mark.parametrize("query", ["id=evil", "id=evil&id=worse", "i%64=evil"])
async def test_the_path_wins_over_the_query(toy: Toy, query: str) -> None:
    assert (await request(toy.app, "GET", f"/v1/books/real?{query}")).json()["id"] == "real"


async def test_the_path_wins_under_every_alias(toy: Toy) -> None:
    for query in ("int32_value=8", "int32Value=8", "int32_value=x"):
        assert (await request(toy.app, "GET", f"/v1/echo/7?{query}")).json()["int32_value"] == 7
    for body in ({"int32_value": 8}, {"int32Value": 8}):
        assert (await request(toy.app, "POST", "/v1/books/real:cancel", body | {"id": "evil"})).json()["id"] == "real"
    nested = {"book": {"id": "evil", "displayName": "x"}}
    answer = (await request(toy.app, "PUT", "/v1/books/real", nested)).json()
    assert (answer["id"], answer["display_name"]) == ("real", "x")
    assert (await request(toy.app, "PATCH", "/v1/books/real", {"id": "evil"})).json()["id"] == "real"
    assert (await request(toy.app, "PATCH", "/v1/books/real?book.id=evil", {})).json()["id"] == "real"


async def test_the_path_replaces_a_message_that_the_body_filled(toy: Toy) -> None:
    answer = await request(toy.app, "POST", "/v1/types/mask/a,b", {"mask": "c,d", "int32_value": 1})
    assert (answer.json()["mask"], answer.json()["int32_value"]) == ("a,b", 1)


async def test_a_path_and_another_member_of_its_oneof(toy: Toy) -> None:
    assert "choice" in await refused(toy, "/v1/types/choice/a?choice_number=1")
    assert (await request(toy.app, "GET", "/v1/types/choice/a?choice_text=b")).json()["choice_text"] == "a"


@pytest.mark.parametrize(
    ("path", "field", "value"),
    [
        ("/v1/echo/-7", "int32_value", -7),
        ("/v1/types/bool/true", "bool_value", True),
        ("/v1/types/bytes/-_8%3D", "bytes_value", "+/8="),
        ("/v1/types/bytes/%2B%2F8", "bytes_value", "+/8="),
        ("/v1/types/enum/COLOR_RED", "color", "COLOR_RED"),
        ("/v1/types/enum/2", "color", "COLOR_BLUE"),
        ("/v1/types/time/2024-01-01T12:00:00%2B01:00", "timestamp", "2024-01-01T11:00:00Z"),
        ("/v1/types/wrapped/5", "wrapped_int64", "5"),
    ],
)
async def test_path_variables_of_every_kind(toy: Toy, path: str, field: str, value: object) -> None:
    assert (await request(toy.app, "GET", path)).json()[field] == value


@pytest.mark.parametrize(
    "path",
    [
        "/v1/echo/x",
        "/v1/echo/2147483648",
        "/v1/types/bool/1",
        "/v1/types/bytes/A",
        "/v1/types/enum/RED",
        "/v1/types/time/x",
    ],
)
async def test_path_variables_that_do_not_fit(toy: Toy, path: str) -> None:
    await refused(toy, path)


async def test_no_query_beside_a_whole_body(toy: Toy) -> None:
    answer = await request(toy.app, "POST", "/v1/shelves/1/books?page_count=5&nope=1", {"id": "2"})
    assert (answer.json()["page_count"], answer.json()["shelf"], answer.json()["id"]) == (0, "1", "2")


async def test_a_body_of_one_field_leaves_the_rest_to_the_query(toy: Toy) -> None:
    query = "update_mask=display_name,pageCount&allow_missing=true&book.display_name=evil&book.pageCount=9"
    answer = (await request(toy.app, "PATCH", f"/v1/books/1?{query}", {"displayName": "x"})).json()
    assert answer["tag_list"] == ["display_name", "page_count"]
    assert (answer["shelf"], answer["display_name"], answer["page_count"]) == ("missing", "x", 0)
    strict = make_toy(reject_unknown=True)
    assert (await request(strict.app, "PATCH", "/v1/books/1?book.display_name=x", {})).status == 200


async def test_no_body_without_a_rule(toy: Toy) -> None:
    for body in (b'{"int32_value": 7}', b"{", b"\xff", b"x" * 100_000):
        answer = await request(toy.app, "GET", "/v1/echo", body, [("content-length", str(len(body)))])
        assert (answer.status, answer.json()["int32_value"]) == (200, 0)


async def test_empty_bodies(toy: Toy) -> None:
    assert (await request(toy.app, "POST", "/v1/shelves/1/books")).json()["shelf"] == "1"
    assert (await request(toy.app, "PATCH", "/v1/books/1")).json()["id"] == "1"
    for path in ("/v1/list", "/v1/map", "/v1/scalar", "/v1/value", "/v1/child", "/v1/stamp"):
        assert (await request(toy.app, "POST", path)).status == 200
        assert toy.echoes.last == Everything()


@pytest.mark.parametrize(
    ("path", "body", "answer"),
    [
        ("/v1/list", '["a", "b"]', ["a", "b"]),
        ("/v1/list", "[]", []),
        ("/v1/list", "null", []),
        ("/v1/map", '{"a": 1}', {"a": 1}),
        ("/v1/scalar", "5", "5"),
        ("/v1/scalar", '"5"', "5"),
        ("/v1/value", "null", None),
        ("/v1/value", '{"a": [1]}', {"a": [1]}),
        ("/v1/child", '{"number": 1}', {"number": 1, "text_value": "", "numbers": []}),
        ("/v1/child", "null", {"number": 0, "text_value": "", "numbers": []}),
        ("/v1/stamp", '"2024-01-01T00:00:00Z"', "2024-01-01T00:00:00Z"),
        ("/v1/stamp", "", None),
    ],
)
async def test_bodies_and_responses_of_one_field(toy: Toy, path: str, body: str, answer: object) -> None:
    got = await request(toy.app, "POST", path, body)
    assert (got.status, got.json()) == (200, answer)


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/v1/list", "{}"),
        ("/v1/list", '"a"'),
        ("/v1/list", "[null]"),
        ("/v1/list", "[1]"),
        ("/v1/map", "[]"),
        ("/v1/scalar", "{}"),
        ("/v1/scalar", "true"),
        ("/v1/child", "[]"),
        ("/v1/stamp", "1"),
        ("/v1/shelves/1/books", "[]"),
        ("/v1/shelves/1/books", "null"),
    ],
)
async def test_bodies_of_the_wrong_kind(toy: Toy, path: str, body: str) -> None:
    await refused(toy, path, "POST", body)


@pytest.mark.parametrize(
    "content_type",
    ["application/json", "application/json; charset=utf-8", "text/plain", "application/x-www-form-urlencoded", ""],
)
async def test_the_content_type_is_not_asked(toy: Toy, content_type: str) -> None:
    answer = await request(toy.app, "POST", "/v1/echo", {"int32_value": 1}, [("content-type", content_type)])
    assert answer.json()["int32_value"] == 1


async def test_an_encoded_body_is_refused(toy: Toy) -> None:
    answer = await request(toy.app, "POST", "/v1/echo", b"\x1f\x8b", [("content-encoding", "gzip")])
    assert (answer.status, answer.json()["code"]) == (415, 3)
    assert (await request(toy.app, "POST", "/v1/echo", {}, [("content-encoding", "identity")])).status == 200


async def test_http_body_in_and_out(toy: Toy) -> None:
    data = bytes(range(256))
    answer = await request(toy.app, "POST", "/v1/files/a%2Fb?note=x", data, [("content-type", "image/x-toy; q=1")])
    assert (answer.status, answer.body) == (200, data)
    assert answer.header("content-type") == "image/x-toy; q=1"
    assert (toy.echoes.last.name, toy.echoes.last.note) == ("a/b", "x")
    answer = await request(toy.app, "POST", "/v1/blob", data, [("content-type", "text/x")])
    assert (answer.body, answer.header("content-type")) == (data, "text/x")
    answer = await request(toy.app, "POST", "/v1/blob", b"")
    assert (answer.body, answer.header("content-type")) == (b"", "application/octet-stream")


async def test_a_name_bound_below_a_variable(toy: Toy) -> None:
    answer = await request(toy.app, "GET", "/v1/shelves/1/books/2%2F3/4:byName?shelf=s")
    assert answer.json() == json_format.MessageToDict(
        Book(name="shelves/1/books/2%2F3/4", shelf="s"),
        preserving_proto_field_name=True,
        always_print_fields_with_no_presence=True,
    )


@pytest.mark.parametrize("value", ["", " ", "a/b", "é😁", "%", "a&b=c#d?e", "\x00\x1f", ":cancel", "..", "+"])
async def test_any_text_reaches_the_field(toy: Toy, value: str) -> None:
    written = quote(value, safe="")
    assert (await request(toy.app, "GET", f"/v1/echo?string_value={written}")).json()["string_value"] == value
    if value:
        assert (await request(toy.app, "GET", f"/v1/books/{written}")).json()["id"] == value
