"""Streamed responses in memory: framing, errors, pace, and how they end."""

import asyncio
import json
from typing import Any

import pytest

from toy.asgi_client import Answer, Exchange, request
from toy.toy_pb2 import CountResponse
from toy.toy_service import Toy, make_toy

SSE = [("accept", "text/event-stream")]


def events(answer: Answer) -> list[dict[str, str]]:
    """The event stream, parsed; comments are kept under the empty name."""
    found = []
    for block in answer.body.decode().split("\n\n")[:-1]:
        event: dict[str, str] = {}
        for line in block.split("\n"):
            name, _, value = line.partition(":")
            event[name] = value.removeprefix(" ")
        found.append(event)
    return found


def start(toy: Toy, target: str, headers: Any = (), method: str = "GET") -> tuple[Exchange, "asyncio.Task[Answer]"]:
    exchange = Exchange(toy.app, method, target, headers)
    exchange.feed()
    return exchange, asyncio.create_task(exchange.run())


def message(number: int) -> dict[str, Any]:
    return {"number": number, "token": f"t{number}", "labels": ["a", "b"]}


async def test_lines(toy: Toy) -> None:
    answer = await request(toy.app, "GET", "/v1/count?up_to=2")
    assert (answer.status, answer.header("content-type")) == (200, "application/x-ndjson")
    assert (answer.header("x-accel-buffering"), answer.header("cache-control")) == ("no", "no-store")
    assert answer.header("content-length") is None
    assert answer.lines() == [{"result": message(1)}, {"result": message(2)}]
    assert len(answer.chunks) == 2  # each flushed at once
    assert (await request(toy.app, "POST", "/v1/count", {"upTo": 1})).lines() == [{"result": message(1)}]


@pytest.mark.parametrize(
    "kind", ["application/x-ndjson", "application/ndjson", "application/jsonl", "application/json"]
)
async def test_lines_by_the_name_they_are_asked_for(toy: Toy, kind: str) -> None:
    answer = await request(toy.app, "GET", "/v1/count?up_to=1", headers=[("accept", kind)])
    assert answer.header("content-type") == kind


async def test_response_body_of_a_stream(toy: Toy) -> None:
    assert (await request(toy.app, "GET", "/v1/count/numbers?up_to=2")).lines() == [{"result": 1}, {"result": 2}]
    answer = await request(toy.app, "GET", "/v1/count/labels?up_to=1")
    assert answer.lines() == [{"result": ["a", "b"]}]
    first = events(await request(toy.app, "GET", "/v1/count/numbers?up_to=1", headers=SSE))[0]
    assert (first["id"], first["data"]) == ("t1", "1")


async def test_an_empty_stream(toy: Toy) -> None:
    for headers in ((), SSE):
        answer = await request(toy.app, "GET", "/v1/count", headers=headers)
        assert (answer.status, answer.body, answer.complete) == (204, b"", True)
        assert answer.header("content-type") is None
        assert (await request(toy.app, "HEAD", "/v1/count", headers=headers)).status == 204


@pytest.mark.parametrize("headers", [(), SSE])
async def test_an_error_before_the_first_message_sets_the_status(toy: Toy, headers: Any) -> None:
    answer = await request(toy.app, "GET", "/v1/count?up_to=5&fail_at=1", headers=headers)
    assert (answer.status, answer.header("content-type")) == (400, "application/json")
    assert answer.json() == {"code": 9, "message": "stopped", "details": []}
    assert answer.header("grpc-metadata-x-last") == "2"
    answer = await request(toy.app, "GET", "/v1/count?up_to=5&fail_at=1&how=unauthenticated", headers=headers)
    assert (answer.status, answer.header("www-authenticate")) == (401, "Bearer")
    answer = await request(toy.app, "GET", "/v1/count?up_to=5&fail_at=1&how=raise", headers=headers)
    assert (answer.status, answer.json()["code"]) == (500, 2)
    answer = await request(toy.app, "GET", "/v1/count?how=set_code", headers=headers)
    assert (answer.status, answer.json()["code"]) == (500, 15)


@pytest.mark.parametrize(
    ("query", "code"),
    [("up_to=3&fail_at=2", 9), ("up_to=3&fail_at=2&how=raise", 2), ("up_to=1&how=set_code", 15)],
)
async def test_an_error_in_mid_stream_comes_last(toy: Toy, query: str, code: int) -> None:
    answer = await request(toy.app, "GET", f"/v1/count?{query}")
    assert (answer.status, answer.complete) == (200, True)
    first, last = answer.lines()
    assert first == {"result": message(1)}
    assert (last["error"]["code"], last["error"]["details"]) == (code, [])
    answer = await request(toy.app, "GET", f"/v1/count?{query}", headers=SSE)
    first, last = events(answer)
    assert last["event"] == "end"
    assert json.loads(last["data"])["code"] == code
    assert answer.complete


async def test_events(toy: Toy) -> None:
    answer = await request(toy.app, "GET", "/v1/count?up_to=2", headers=SSE)
    assert (answer.status, answer.header("content-type")) == (200, "text/event-stream")
    assert (answer.header("cache-control"), answer.header("x-content-type-options")) == ("no-store", "nosniff")
    first, second, end = events(answer)
    assert 2_000 <= int(first["retry"]) <= 5_000
    assert (first["id"], json.loads(first["data"])) == ("t1", message(1))
    assert second["id"] == "t2"
    assert end == {"event": "end", "data": '{"code":0,"message":"","details":[]}'}


@pytest.mark.parametrize(
    ("accept", "kind"),
    [
        ("text/event-stream", "text/event-stream"),
        ("TEXT/Event-Stream; charset=utf-8", "text/event-stream"),
        ("text/html, text/event-stream;q=0.5, */*;q=0.1", "text/event-stream"),
        ("application/json;q=0.5, text/event-stream", "text/event-stream"),
        ("application/json, text/event-stream;q=0.5", "application/json"),
        ("application/x-ndjson, application/json", "application/json"),
        ("text/event-stream;q=0", "application/x-ndjson"),
        ("*/*", "application/x-ndjson"),
        ("", "application/x-ndjson"),
        ("text/event-stream;q=x", "application/x-ndjson"),
    ],
)
async def test_accept_chooses_the_framing(toy: Toy, accept: str, kind: str) -> None:
    answer = await request(toy.app, "GET", "/v1/count?up_to=1", headers=[("accept", accept)])
    assert answer.header("content-type") == kind


async def test_last_event_id_is_handed_to_the_request(toy: Toy) -> None:
    await request(toy.app, "GET", "/v1/count?resume_token=old", headers=[*SSE, ("last-event-id", "t7")])
    assert toy.streams.last.resume_token == "t7"  # noqa: S105 - no secret
    await request(toy.app, "GET", "/v1/count?resume_token=old", headers=[*SSE, ("last-event-id", "")])
    assert toy.streams.last.resume_token == "old"  # noqa: S105 - no secret
    await request(toy.app, "GET", "/v1/count?resume_token=old", headers=[("last-event-id", "t7")])
    assert toy.streams.last.resume_token == "old"  # noqa: S105 - no secret
    answer = await request(toy.app, "GET", "/v1/count", headers=[*SSE, ("last-event-id", "\xff")])
    assert (answer.status, answer.json()["code"]) == (400, 3)


async def test_no_id_where_none_fits() -> None:
    async def odd(_request: Any, _context: Any) -> Any:
        for token in ("", "a\nb", "a\rb", "a\0b", "é"):
            yield CountResponse(token=token)

    found = events(await request(make_toy_with(odd).app, "GET", "/v1/count", headers=SSE))
    assert [event.get("id") for event in found] == [None, None, None, None, "é", None]
    found = events(await request(make_toy_with(odd, sse_id_field="number").app, "GET", "/v1/count", headers=SSE))
    assert found[0]["id"] == "0"
    found = events(await request(make_toy_with(odd, sse_id_field=None).app, "GET", "/v1/count", headers=SSE))
    assert "id" not in found[4]


def make_toy_with(count: Any, **options: Any) -> Toy:
    from toy import toy_service  # noqa: PLC0415

    original = toy_service.Streams.Count
    toy_service.Streams.Count = staticmethod(count)  # type: ignore[method-assign]
    try:
        return make_toy(**options)
    finally:
        toy_service.Streams.Count = original  # type: ignore[method-assign]


async def test_raw_streams(toy: Toy) -> None:
    answer = await request(toy.app, "GET", "/v1/download?up_to=3", headers=SSE)
    assert (answer.status, answer.body) == (200, b"1\n2\n3\n")
    assert answer.header("content-type") == "text/x-toy"
    answer = await request(toy.app, "GET", "/v1/download?up_to=3&fail_at=1")
    assert (answer.status, answer.json()["code"]) == (400, 9)
    answer = await request(toy.app, "GET", "/v1/download")
    assert (answer.status, answer.body) == (200, b"")
    assert answer.header("content-type") == "application/octet-stream"


async def test_a_raw_stream_that_fails_is_broken_off(toy: Toy) -> None:
    answer = await request(toy.app, "GET", "/v1/download?up_to=3&fail_at=2")
    assert (answer.status, answer.body, answer.complete) == (200, b"1\n", False)


async def test_head_of_a_stream_reads_one_message(toy: Toy) -> None:
    answer = await request(toy.app, "HEAD", "/v1/count?up_to=1000000")
    assert (answer.status, answer.body, answer.complete) == (200, b"", True)
    assert toy.streams.outcome == "closed"
    assert toy.streams.sent == 1
    assert (await request(toy.app, "HEAD", "/v1/count?up_to=2&fail_at=1")).status == 400


async def test_an_event_stream_is_told_of_a_drain_in_the_stream(toy: Toy) -> None:
    """Browsers give up on a 503 for good."""
    target = "/v1/count?up_to=1&fail_at=1&how=unavailable"
    answer = await request(toy.app, "GET", target, headers=SSE)
    assert (answer.status, answer.header("content-type")) == (200, "text/event-stream")
    (end,) = events(answer)
    assert (end["event"], json.loads(end["data"])["code"]) == ("end", 14)
    assert int(end["retry"]) >= 2_000
    lines = await request(toy.app, "GET", target)
    assert (lines.status, lines.header("retry-after")) == (503, "2")


@pytest.mark.parametrize("name", ["lastEventId", "Last-Event-ID"])
async def test_the_last_event_id_as_a_parameter_counts_as_the_header(toy: Toy, name: str) -> None:
    await request(toy.app, "GET", f"/v1/count?resume_token=old&{name}=t%2B7&up_to=1", headers=SSE)
    assert (toy.streams.last.resume_token, toy.streams.last.up_to) == ("t+7", 1)
    headers = [*SSE, ("last-event-id", "t8")]
    await request(toy.app, "GET", f"/v1/count?{name}=t7", headers=headers)
    assert toy.streams.last.resume_token == "t8"  # noqa: S105 - no password


async def test_a_client_that_leaves_ends_a_waiting_stream(toy: Toy) -> None:
    exchange, task = start(toy, "/v1/count?up_to=1&how=hang")
    await exchange.chunks(1)
    exchange.disconnect()
    answer = await task
    assert toy.streams.outcome == "cancelled"
    assert not answer.complete
    assert len(answer.chunks) == 1


async def test_a_client_that_leaves_ends_a_busy_stream(toy: Toy) -> None:
    """The generator never waits for anything: the disconnect must still be seen before the next message."""
    exchange, task = start(toy, "/v1/count?up_to=1000000000")
    await exchange.chunks(3)
    exchange.disconnect()
    await task
    assert toy.streams.outcome == "closed"
    assert toy.streams.sent <= 10


async def test_a_client_that_left_before_the_call_began(toy: Toy) -> None:
    exchange = Exchange(toy.app, "GET", "/v1/count?up_to=1000000000")
    exchange.feed()
    exchange.disconnect()
    await exchange.run()
    assert toy.streams.sent <= 2


async def test_a_reader_that_does_not_read_stops_the_generator(toy: Toy) -> None:
    exchange, task = start(toy, "/v1/count?up_to=1000000000")
    await exchange.chunks(3)
    exchange.may_send.clear()
    for _ in range(100):
        await asyncio.sleep(0)
    assert toy.streams.sent <= len(exchange.answer.chunks) + 2
    exchange.disconnect()
    await task
    assert toy.streams.outcome == "closed"


async def test_a_deadline_ends_a_stream(toy: Toy) -> None:
    timeout = ("grpc-timeout", "50m")
    answer = await request(toy.app, "GET", "/v1/count?up_to=1&how=hang", headers=[timeout])
    assert toy.streams.outcome == "cancelled"
    assert answer.lines()[-1]["error"]["code"] == 4
    answer = await request(toy.app, "GET", "/v1/count?up_to=0&how=hang", headers=[timeout])
    assert (answer.status, answer.json()["code"]) == (504, 4)
    answer = await request(toy.app, "GET", "/v1/count?up_to=1&how=hang", headers=[timeout, *SSE])
    assert json.loads(events(answer)[-1]["data"])["code"] == 4


async def test_a_busy_stream_ends_at_its_deadline(toy: Toy) -> None:
    answer = await request(toy.app, "GET", "/v1/count?up_to=1000000000", headers=[("grpc-timeout", "50m")])
    assert toy.streams.outcome == "closed"
    assert answer.lines()[-1]["error"]["code"] == 4


async def test_heartbeats_fill_the_silence() -> None:
    toy = make_toy(sse_heartbeat=0.01)
    exchange, task = start(toy, "/v1/count?up_to=1&how=wait", SSE)
    await exchange.chunks(4)
    toy.streams.go_on.set()
    answer = await task
    assert answer.chunks[1] == answer.chunks[2] == b": heartbeat\n\n"
    assert events(answer)[-1]["event"] == "end"
    assert answer.complete


async def test_heartbeats_open_a_stream_that_has_no_message_yet() -> None:
    toy = make_toy(sse_heartbeat=0.01)
    exchange, task = start(toy, "/v1/count?how=wait", SSE)
    await exchange.chunks(1)
    toy.streams.go_on.set()
    answer = await task
    assert (answer.status, events(answer)[-1]["event"]) == (200, "end")


async def test_a_servicer_that_drains_ends_its_streams(toy: Toy) -> None:
    lines, lines_task = start(toy, "/v1/count?up_to=1&how=drain")
    sse, sse_task = start(toy, "/v1/count?up_to=1&how=drain", SSE)
    _silent, silent_task = start(toy, "/v1/count?how=drain")
    await lines.chunks(1)
    await sse.chunks(1)
    toy.streams.go_on.set()
    assert (await lines_task).lines()[-1]["error"]["code"] == 14
    assert json.loads(events(await sse_task)[-1]["data"])["code"] == 14
    assert (await silent_task).status == 503
    answer = await request(toy.app, "GET", "/v1/count?how=drain")
    assert (answer.status, answer.json()["code"]) == (503, 14)
    assert (await request(toy.app, "GET", "/v1/books/1")).status == 200


async def test_a_handler_that_writes_instead_of_yielding() -> None:
    async def writing(request_message: Any, context: Any) -> None:
        for number in range(request_message.up_to):
            await context.write(CountResponse(number=number))

    toy = make_toy_with(writing)
    answer = await request(toy.app, "GET", "/v1/count/numbers?up_to=3")
    assert answer.lines() == [{"result": 0}, {"result": 1}, {"result": 2}]


async def test_what_is_no_stream_of_messages_is_an_error() -> None:
    """Messages that nobody will ask for must not be an empty success."""

    def plain_generator(_request: Any, _context: Any) -> Any:
        yield CountResponse(number=1)

    async def single(_request: Any, _context: Any) -> Any:
        return CountResponse(number=1)

    for handler in (plain_generator, single):
        answer = await request(make_toy_with(handler).app, "GET", "/v1/count")
        assert (answer.status, answer.json()["code"]) == (500, 2)


async def test_initial_metadata_of_a_stream() -> None:
    async def generous(_request: Any, context: Any) -> Any:
        await context.send_initial_metadata((("x-first", "1"),))
        yield CountResponse()

    answer = await request(make_toy_with(generous).app, "GET", "/v1/count")
    assert answer.header("grpc-metadata-x-first") == "1"


async def test_an_abort_that_the_generator_swallows_still_ends_the_stream() -> None:
    async def careless(_request: Any, context: Any) -> Any:
        yield CountResponse(number=1)
        try:
            await context.abort(5, "gone")
        except Exception:  # noqa: BLE001 - what a careless handler does
            yield CountResponse(number=2)

    answer = await request(make_toy_with(careless).app, "GET", "/v1/count/numbers")
    assert answer.lines() == [{"result": 1}, {"error": {"code": 5, "message": "gone", "details": []}}]


async def test_a_message_that_json_cannot_say_ends_the_stream() -> None:
    async def wrong(_request: Any, _context: Any) -> Any:
        yield CountResponse(number=1)
        yield "text"

    answer = await request(make_toy_with(wrong).app, "GET", "/v1/count/numbers")
    assert [list(line) for line in answer.lines()] == [["result"], ["error"]]
    assert answer.lines()[1]["error"]["code"] == 2


async def test_a_coroutine_that_returns_an_iterator() -> None:
    async def numbers() -> Any:
        yield CountResponse(number=1)

    async def wrapped(_request: Any, _context: Any) -> Any:
        return numbers()

    answer = await request(make_toy_with(wrapped).app, "GET", "/v1/count/numbers")
    assert answer.lines() == [{"result": 1}]


async def test_the_generated_base_class_is_unimplemented() -> None:
    def unimplemented(_request: Any, context: Any) -> Any:
        context.set_code(12)
        context.set_details("Method not implemented!")
        raise NotImplementedError

    answer = await request(make_toy_with(unimplemented).app, "GET", "/v1/count")
    assert (answer.status, answer.json()["message"]) == (501, "Method not implemented!")
