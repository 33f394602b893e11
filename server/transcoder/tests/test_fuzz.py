"""Anything at all in path, query, headers and body: an answer that is well formed, and never a 5xx."""

import asyncio
import json
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from toy.asgi_client import Answer, request
from toy.toy_pb2 import Everything
from toy.toy_service import make_toy

TOY, STRICT = make_toy(), make_toy(reject_unknown=True)

NAMES = sorted(
    {field.name for field in Everything.DESCRIPTOR.fields} | {field.json_name for field in Everything.DESCRIPTOR.fields}
)
LATIN = st.text(st.characters(max_codepoint=255, exclude_characters="?#"), max_size=12)
PIECES = st.sampled_from(
    [
        "v1",
        "books",
        "shelves",
        "echo",
        "types",
        "time",
        "deep",
        "%2F",
        "%",
        "%zz",
        "%ff",
        ":",
        ":cancel",
        ":byName",
        ".",
        "",
        "*",
    ]
)
SEGMENT = st.lists(PIECES | LATIN, min_size=1, max_size=3).map("".join)
PATH = st.lists(SEGMENT, max_size=6).map(lambda parts: "/" + "/".join(parts))
VALUE = LATIN | st.sampled_from(
    [
        "0",
        "-1",
        "1e5",
        "1e99999",
        "NaN",
        "true",
        "null",
        "1s",
        "2024-01-01T00:00:00Z",
        "AA==",
        "a_b,cD",
        "COLOR_RED",
        "%00",
        "%F0%9F%98%81",
    ]
)
KEY = st.lists(
    st.sampled_from([*NAMES, "number", "value", "seconds", "nanos", "paths", "x"]) | LATIN, min_size=1, max_size=4
).map(".".join)
QUERY = st.lists(st.tuples(KEY, VALUE).map("=".join), max_size=4).map("&".join)
SCALAR = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=5)
    | st.sampled_from(
        ["1s", "NaN", "AA", "2024-01-01T00:00:00Z", "a.b", "COLOR_BLUE", "type.googleapis.com/toy.v1.Child"]
    )
)
TREE = st.recursive(
    SCALAR,
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from([*NAMES, "@type", "value", "number", "child"]) | st.text(max_size=3), inner, max_size=4
        )
    ),
    max_leaves=12,
)
MESSAGE = st.dictionaries(st.sampled_from(NAMES), TREE, max_size=4)
METHOD = st.sampled_from(["GET", "POST", "PUT", "PATCH", "DELETE", "HEAD", "OPTIONS", "FETCH", "get", ""])
HEADER = st.tuples(
    st.sampled_from(
        ["grpc-timeout", "grpc-metadata-x", "grpc-metadata-x-bin", "accept", "content-length", "last-event-id", "te"]
    ),
    LATIN | st.sampled_from(["1S", "9H", "text/event-stream", "AA==", "99999999999999999999"]),
)


def answered(toy: Any, method: str, target: str, body: bytes = b"", headers: Any = ()) -> Answer:
    answer = asyncio.run(request(toy.app, method, target, body, headers))
    assert 200 <= answer.status < 500, (answer.status, answer.body)
    assert answer.complete
    if answer.status >= 400 and method != "HEAD":
        status = answer.json()
        assert status.keys() == {"code", "message", "details"}
        assert status["details"] == []
    return answer


@settings(max_examples=400, deadline=None)
@given(METHOD, PATH, QUERY)
def test_any_url(method: str, path: str, query: str) -> None:
    answered(TOY, method, f"{path}?{query}")


@settings(max_examples=400, deadline=None)
@given(QUERY | LATIN)
def test_any_query(query: str) -> None:
    for toy in (TOY, STRICT):
        answer = answered(toy, "GET", f"/v1/echo?{query}")
        if answer.status == 200:
            assert isinstance(answer.json(), dict)


@settings(max_examples=300, deadline=None)
@given(MESSAGE)
def test_any_json(tree: Any) -> None:
    body = json.dumps(tree).encode()
    for toy in (TOY, STRICT):
        first = answered(toy, "POST", "/v1/echo", body)
        if first.status == 200:  # what was taken and printed is taken again, and printed the same
            again = answered(toy, "POST", "/v1/echo", first.body)
            assert (again.status, again.body) == (200, first.body)


@settings(max_examples=300, deadline=None)
@given(
    st.sampled_from(["echo", "list", "map", "scalar", "value", "child", "stamp", "blob"]),
    st.binary(max_size=30) | LATIN.map(str.encode),
)
def test_any_bytes(path: str, body: bytes) -> None:
    answered(TOY, "POST", f"/v1/{path}", body)


@settings(max_examples=200, deadline=None)
@given(st.lists(HEADER, max_size=3))
def test_any_headers(headers: Any) -> None:
    answered(TOY, "GET", "/v1/count?up_to=2", headers=headers)
    answered(TOY, "POST", "/v1/echo", b"{}", headers)
