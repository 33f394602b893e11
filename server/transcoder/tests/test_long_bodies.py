"""A long JSON body, or one of many values, is read piece by piece: as a short one, at a cost that its limits bound."""

import asyncio
import json
import time
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from test_fuzz import MESSAGE, STRICT, TOY
from toy.asgi_client import Answer, Exchange, request
from toy.toy_pb2 import Everything
from toy.toy_service import Toy, make_toy
from transcoder import BodyBudget, RequestLimits
from transcoder.asgi import Body, BodyTimes
from transcoder.errors import FaultError, FieldError
from transcoder.jsonreader import JsonReader
from transcoder.jsontext import JsonError
from transcoder.metadata import Headers
from transcoder.timers import Timers

# White space that makes any body a long one.
SPACE = " " * 16_400
KIB = 1024
PUT = ["", ",", ":", '"', "\\", "[", "]", "{", "}", "-", "0", "-0", "1e", "tru", "\\ud83d", "\x01"]
NO_OBJECTS = [b"[1]", b'"x"', b"null", b"7", b"", b'{"int32_value":1}x', b'{"int32_value":1,}', b"{1:1}"]


def asked(toy: Toy, body: bytes, path: str = "/v1/echo") -> Answer:
    return asyncio.run(request(toy.app, "POST", path, body))


@settings(max_examples=300, deadline=None)
@given(MESSAGE, st.sampled_from([None, 1]), st.booleans())
def test_a_long_body_is_taken_and_refused_as_a_short_one(tree: Any, indent: int | None, reject_unknown: bool) -> None:
    toy = STRICT if reject_unknown else TOY
    text = json.dumps(tree, indent=indent)
    short, long = asked(toy, text.encode()), asked(toy, (SPACE + text).encode())
    assert (short.status, short.status == 200 and short.json()) == (long.status, long.status == 200 and long.json())


@settings(max_examples=300, deadline=None)
@given(MESSAGE.map(json.dumps), st.data())
def test_what_is_no_json_is_none_in_a_long_body_either(text: str, data: st.DataObject) -> None:
    at = data.draw(st.integers(0, len(text)))
    put = data.draw(st.sampled_from(PUT))
    broken = text[:at] + put + text[at + data.draw(st.integers(0, 2)) :]
    # No body at all is an empty request.
    assert asked(TOY, broken.encode() or b" ").status == asked(TOY, (SPACE + broken).encode()).status


@pytest.mark.parametrize("body", NO_OBJECTS)
def test_what_is_no_object_is_refused(body: bytes) -> None:
    assert asked(make_toy(), SPACE.encode() + body).status == 400


@pytest.mark.parametrize("number", ["-12.5e+30", "1E-7", "0.25"])
def test_a_number_may_be_cut_anywhere(number: str) -> None:
    for shift in range(1, len(number) + 1):
        reader = JsonReader(b" " * (16 * KIB - shift) + number.encode(), max_depth=100, max_value=64 * KIB)
        assert str(reader.value()) == number
        reader.end()


@settings(max_examples=300, deadline=None)
@given(
    st.recursive(
        st.none()
        | st.booleans()
        | st.integers()
        | st.floats(allow_nan=False, allow_infinity=False)
        | st.text(max_size=9),
        lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=4), inner, max_size=4),
        max_leaves=20,
    ),
    st.booleans(),
    st.integers(0, 40),
)
def test_a_value_comes_out_whole_wherever_the_pieces_are_cut(value: Any, ascii_only: bool, shift: int) -> None:
    """Pieces are of 16 KiB: what is before it puts the cut anywhere in it, in a character too."""
    text = json.dumps(value, ensure_ascii=ascii_only)
    reader = JsonReader(b" " * (16 * KIB - shift) + text.encode(), max_depth=100, max_value=64 * KIB)
    found = reader.value()
    reader.end()
    assert json.loads(json.dumps(found), parse_float=str, parse_int=str) == json.loads(
        text, parse_float=str, parse_int=str
    )


def test_ten_thousand_elements_are_read_in_many_turns() -> None:
    toy = make_toy(request_limits=RequestLimits(max_elements=10_000))
    body = json.dumps({"children": [{"number": i} for i in range(10_000)]}).encode()

    async def main() -> int:
        turns, answered = 0, asyncio.ensure_future(request(toy.app, "POST", "/v1/echo", body))
        while toy.echoes.last is None:
            turns += 1
            await asyncio.sleep(0)
        assert (await answered).status == 200
        return turns

    assert asyncio.run(main()) > 10_000 // 64
    echoed: Everything = toy.echoes.last
    assert [child.number for child in echoed.children] == list(range(10_000))


LIMITS = RequestLimits(max_bytes=8 * KIB * KIB, max_elements=1000, max_value_bytes=32 * KIB)
MANY = 600_000


@pytest.mark.parametrize(
    ("body", "limit"),
    [
        (b'{"children":[' + b"{}," * 1000 + b"{}]}", 1000),
        (b'{"children":[' + b"{}," * MANY + b"{}]}", 1000),
        (b'{"children":[' + b"{}," * 600 + b'{}],"integers":[' + b"1," * 400 + b"1]}", 1000),
        (b'{"children":[{"number":1' + b" " * 40_000 + b"}]}", 32 * KIB),
        (b'{"string_value":"' + b"a" * 40_000 + b'"}', 32 * KIB),
        (b'{"string_value":"' + b"\\u0041" * MANY + b'"}', 32 * KIB),
        (b'{"string_value":' + b"{" + b",".join(b'"%d":1' % i for i in range(MANY)) + b"}}", 32 * KIB),
        (b"{" + b",".join(b'"%d":1' % i for i in range(MANY)) + b"}", 1000),
        (b" " * (4 * KIB * KIB), None),
        (b'{"children":[' + b" " * (4 * KIB * KIB) + b"]}", 64 * KIB),
        (b'{"children":' + b"[" * (4 * KIB * KIB), None),
        (b'{"int32_value":' + b"1" * (4 * KIB * KIB) + b"}", None),
        (b'{"value":' + b'{"a":' * 5000 + b"1" + b"}" * 5000 + b"}", None),
        (b"{" + b'"int32_value":1,' * (MANY // 2) + b'"int32_value":1}', None),
    ],
)
def test_no_body_costs_more_than_its_limits(body: bytes, limit: int | None) -> None:
    seen: list[Any] = []

    def note(fault: Any) -> list[Any]:
        seen.append(fault)
        return []

    toy = make_toy(request_limits=LIMITS, error_details=note)
    before = time.process_time()
    answer = asked(toy, body)
    assert answer.status == 400
    assert seen[0].limit == limit
    # Without its limits the cheapest takes seconds.
    assert time.process_time() - before < 1.0


def test_white_space_around_an_object_and_its_values_may_be_long_and_holds_up_nobody() -> None:
    toy = make_toy(request_limits=LIMITS)
    space = b" \t\r\n" * (512 * KIB)
    body = space + b'{"int32_value":7' + space + b',"string_value":"a"' + space + b"}" + space

    async def main() -> int:
        turns, answered = 0, asyncio.ensure_future(request(toy.app, "POST", "/v1/echo", body[: LIMITS.max_bytes]))
        while not answered.done():
            turns += 1
            await asyncio.sleep(0)
        assert (await answered).status == 200
        return turns

    assert asyncio.run(main()) > 4 * KIB * KIB // (16 * KIB)
    assert (toy.echoes.last.int32_value, toy.echoes.last.string_value) == (7, "a")


def test_a_value_that_is_too_long_is_told_by_its_name() -> None:
    toy = make_toy(request_limits=LIMITS)
    for body, name in ((b'{"string_value":"%s"}', "string_value"), (b'{"children":[{"name":"%s"}]}', "children")):
        message = asked(toy, body % (b"a" * 40_000)).json()["message"]
        assert message == f"invalid field '{name}': a value is longer than 32768 characters"


def test_an_index_in_a_long_list_is_told_right() -> None:
    body = b'{"children":[' + b"{}," * 700 + b'{"number":"x"}]}'
    assert "'children[700].number'" in asked(make_toy(), body).json()["message"]


@pytest.mark.parametrize("query", ["&" * 60_000, "&".join(["integers=1"] * 2000), "x&" * 30_000])
def test_a_query_of_many_parameters_is_refused(query: str) -> None:
    toy = make_toy(request_limits=LIMITS)
    answer = asyncio.run(request(toy.app, "GET", f"/v1/echo?{query}"))
    assert (answer.status, "at most 1064 parameters" in answer.json()["message"]) == (400, True)


async def test_long_bodies_have_a_budget_and_short_ones_need_none() -> None:
    budget = BodyBudget(200 * KIB)
    toy = make_toy(body_budget=budget)
    first, second, third = (
        Exchange(toy.app, "POST", "/v1/echo", [("content-length", str(100 * KIB))]) for _ in range(3)
    )
    waiting = [asyncio.create_task(each.run()) for each in (first, second)]
    await asyncio.sleep(0)
    # No byte of it has come, nor does any have to.
    third.disconnect()
    refused = await asyncio.wait_for(third.run(), 20)
    assert (refused.status, refused.header("connection")) == (429, "close")
    assert (await request(toy.app, "POST", "/v1/echo", b"{}")).status == 200
    # Of a body in chunks nobody knows the length: beyond 64 KiB it takes the most that it can be.
    chunked = Exchange(toy.app, "POST", "/v1/echo")
    chunked.feed(b" " * 60 * KIB, more=True)
    chunked.feed(b" " * 5 * KIB, more=True)
    chunked.disconnect()
    assert (await chunked.run()).status == 429
    # Whoever leaves or is answered gives its place back.
    first.disconnect()
    second.feed(b" " * (100 * KIB - 2) + b"{}")
    await asyncio.gather(*waiting)
    assert budget.take(200 * KIB)


async def test_of_long_bodies_a_few_are_read_on_in_each_turn() -> None:
    budget = BodyBudget()
    reads: list[int] = []
    turn = 0

    async def read_on() -> None:
        for _ in range(10):
            await budget.turn()
            reads.append(turn)

    waiting = [asyncio.create_task(read_on()) for _ in range(40)]
    while not all(each.done() for each in waiting):
        await asyncio.sleep(0)
        turn += 1
    assert len(reads) == 400
    assert max(map(reads.count, reads)) <= 4


def test_methods_have_limits_of_their_own() -> None:
    toy = make_toy(request_limits=RequestLimits(max_bytes=10), method_limits={"Echo": RequestLimits(max_bytes=50)})
    assert asked(toy, b" " * 48 + b"{}").status == 200
    assert asked(toy, b" " * 49 + b"{}").status == 413
    assert asked(toy, b" " * 48 + b"{}", "/v1/fail").status == 413


def test_errors_keep_their_limit() -> None:
    assert JsonError("x", 7).limit == 7
    assert FieldError("x", limit=7).under("a").limit == 7


@pytest.mark.parametrize(("count", "status"), [(10, 200), (11, 400), (250, 400), (1000, 400)])
def test_a_short_body_has_no_more_elements_either(count: int, status: int) -> None:
    toy = make_toy(request_limits=RequestLimits(max_elements=10))
    body = json.dumps({"children": [{"number": i} for i in range(count)]}).encode()
    assert asked(toy, body).status == status


@pytest.mark.parametrize("ends", ["too long", "silent"])
def test_what_came_of_a_refused_body_is_let_go_before_the_rest_is_read_off(ends: str) -> None:
    """Its place in the budget is given back: a thousand of them would be a thousand times the bound."""

    async def receive() -> Any:
        if ends == "silent" and receive_count.pop() == 0:
            await asyncio.Event().wait()
        return {"type": "http.request", "body": b" " * 64 * KIB, "more_body": True}

    async def read() -> Any:
        with Body(receive, Headers([]), 200 * KIB, BodyBudget()) as body, pytest.raises(FaultError) as refused:
            await body.read(BodyTimes(5, 0.05), None, Timers(0.01))
        return refused

    receive_count = [0, 1, 2]
    kept = [entry.frame.f_locals["data"] for entry in asyncio.run(read()).traceback if "data" in entry.frame.f_locals]
    assert kept == [bytearray()]
