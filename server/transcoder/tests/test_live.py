"""The same app under a real uvicorn, with both of its HTTP parsers, seen from a socket."""

import asyncio
import json
import time
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from toy.live_server import Connection, connect, serve
from toy.toy_service import Toy, make_toy

PARSERS = ["httptools", "h11"]


@pytest_asyncio.fixture(params=PARSERS)
async def live(request: pytest.FixtureRequest, toy: Toy) -> AsyncIterator[int]:
    async with serve(toy.app, request.param) as port:
        yield port


@pytest_asyncio.fixture
async def connection(live: int) -> AsyncIterator[Connection]:
    async with connect(live) as opened:
        yield opened


async def test_calls_on_one_connection(connection: Connection) -> None:
    await connection.send("GET /v1/books/a%2Fb%20c?pageCount=3 HTTP/1.1")
    status, headers, body = await connection.answer()
    assert (status, headers["content-type"]) == (200, "application/json")
    assert (json.loads(body)["id"], json.loads(body)["page_count"]) == ("a/b c", 3)
    await connection.send("GET /nowhere HTTP/1.1")
    assert (await connection.answer())[0] == 404
    await connection.send("GET /v1/books/%zz HTTP/1.1")
    assert (await connection.answer())[0] == 400
    await connection.send("HEAD /v1/books/1 HTTP/1.1")
    status, headers = await connection.head()
    assert (status, int(headers["content-length"]) > 2) == (200, True)
    await connection.send("OPTIONS /v1/books/1 HTTP/1.1")
    status, headers = await connection.head()
    assert (status, "GET" in headers["allow"].upper()) == (204, True)
    await connection.send("GET /v1/fail?code=1 HTTP/1.1")
    assert (await connection.answer())[0] == 499
    await connection.send("POST /v1/echo HTTP/1.1", "Content-Length: 2", body=b"{}")
    assert (await connection.answer())[0] == 200


async def test_a_body_that_no_rule_reads_leaves_the_connection_usable(connection: Connection) -> None:
    await connection.send("GET /v1/books/1 HTTP/1.1", "Content-Length: 5", body=b"x" * 5)
    assert (await connection.answer())[0] == 200
    await connection.send("GET /v1/books/2 HTTP/1.1")
    assert (await connection.answer())[0] == 200


async def test_a_chunked_body(connection: Connection) -> None:
    body = b'9\r\n{"int32_v\r\n9\r\nalue": 7}\r\n0\r\n\r\n'
    await connection.send("POST /v1/echo HTTP/1.1", "Transfer-Encoding: chunked", body=body)
    status, _, answer = await connection.answer()
    assert (status, json.loads(answer)["int32_value"]) == (200, 7)


async def test_every_message_is_flushed_at_once(connection: Connection, toy: Toy) -> None:
    await connection.send("GET /v1/count?up_to=2&how=wait HTTP/1.1")
    status, headers = await connection.head()
    assert (status, headers["transfer-encoding"]) == (200, "chunked")
    assert json.loads(await connection.chunk())["result"]["number"] == 1
    assert json.loads(await connection.chunk())["result"]["number"] == 2
    assert not toy.streams.ended.is_set()
    toy.streams.go_on.set()
    assert await connection.chunk() == b""
    await connection.send("GET /v1/count HTTP/1.1", "Accept: text/event-stream")
    assert (await connection.head())[0] == 204
    await connection.send("GET /v1/books/1 HTTP/1.1")
    assert (await connection.answer())[0] == 200


async def test_closing_ends_a_waiting_stream(live: int, toy: Toy) -> None:
    async with connect(live) as connection:
        await connection.send("GET /v1/count?up_to=1&how=hang HTTP/1.1")
        await connection.head()
        await connection.chunk()
    await toy.streams.ended.wait()
    assert toy.streams.outcome == "cancelled"


async def test_closing_ends_a_busy_stream(live: int, toy: Toy) -> None:
    async with connect(live) as connection:
        await connection.send("GET /v1/count?up_to=1000000000 HTTP/1.1")
        await connection.head()
        await connection.chunk()
    await toy.streams.ended.wait()
    assert toy.streams.outcome in ("closed", "cancelled")


async def test_closing_ends_a_unary_call(live: int, toy: Toy) -> None:
    async with connect(live) as connection:
        await connection.send("POST /v1/fail HTTP/1.1", "Content-Length: 15", body=b'{"how": "hang"}')
        await toy.echoes.entered.wait()
    await toy.echoes.ended.wait()
    assert toy.echoes.outcome == "cancelled"


async def test_a_reader_that_does_not_read_stops_the_generator(live: int, toy: Toy) -> None:
    async with connect(live, small=True) as connection:
        await connection.send("GET /v1/count?up_to=1000000000 HTTP/1.1")
        await toy.streams.entered.wait()
        quiet = seen = 0
        while quiet < 2000:  # turns of the loop without a message
            await asyncio.sleep(0)
            quiet, seen = (quiet + 1, seen) if toy.streams.sent == seen else (0, toy.streams.sent)
        assert 0 < seen < 100_000
        await connection.head()
        for number in range(1, seen + 1):  # and reading it all sets it going again
            assert json.loads(await connection.chunk())["result"]["number"] == number
        await connection.chunk()
        assert toy.streams.sent > seen
    await toy.streams.ended.wait()


async def test_a_stream_of_bytes_that_fails_is_broken_off(connection: Connection) -> None:
    await connection.send("GET /v1/download?up_to=3&fail_at=2 HTTP/1.1")
    await connection.head()
    assert await connection.chunk() == b"1\n"
    with pytest.raises(asyncio.IncompleteReadError):
        await connection.chunk()


@pytest.mark.parametrize("framing", ["Content-Length: 9000000", "Transfer-Encoding: chunked"])
async def test_a_body_over_the_limit_gets_its_answer(connection: Connection, framing: str) -> None:
    """The client sends all of it before it looks: it must find the answer, not a reset."""
    part = b"x" * 100_000
    chunk = part if "Length" in framing else b"%x\r\n%b\r\n" % (len(part), part)
    start = time.perf_counter()
    await connection.send("POST /v1/echo HTTP/1.1", framing)
    for _ in range(90):
        connection.writer.write(chunk)
        await connection.writer.drain()
    status, headers, body = await connection.answer()
    assert (status, headers["connection"], json.loads(body)["code"]) == (413, "close", 8)
    assert time.perf_counter() - start < 20


@pytest.mark.parametrize("line", ["GET /v1/books/1", "POST /v1/nowhere", "POST /v1/books/1", "HEAD /v1/books/1"])
async def test_a_body_that_nobody_reads_gets_its_answer(connection: Connection, line: str) -> None:
    """A client that sends all of it before it looks, and asks for the connection to be closed, as urllib does."""
    await connection.send(f"{line} HTTP/1.1", "Content-Length: 9000000", "Connection: close")
    for _ in range(90):
        connection.writer.write(b"x" * 100_000)
        await connection.writer.drain()
    status, _ = await connection.head()
    assert status == {"/v1/nowhere": 404}.get(line.split()[1], 405 if line.startswith("POST") else 200)


async def test_a_chunked_body_that_never_ends_is_cut_off(connection: Connection) -> None:
    async def pour() -> None:
        while True:
            connection.writer.write(b"10000\r\n" + b"x" * 65536 + b"\r\n")
            await connection.writer.drain()

    await connection.send("POST /v1/echo HTTP/1.1", "Transfer-Encoding: chunked")
    pouring = asyncio.create_task(pour())
    status, _, _ = await connection.answer()
    assert status == 413
    with pytest.raises(ConnectionError):
        await pouring


@pytest.mark.parametrize("http", PARSERS)
async def test_a_body_that_stalls_is_cut_off(http: str) -> None:
    toy = make_toy(body_idle_timeout=0.1)
    async with serve(toy.app, http) as port, connect(port) as connection:
        await connection.send("POST /v1/echo HTTP/1.1", "Transfer-Encoding: chunked", body=b"1\r\n{\r\n")
        status, headers, _ = await connection.answer()
        assert (status, headers["connection"]) == (408, "close")


@pytest.mark.parametrize("http", PARSERS)
async def test_a_root_path(http: str, toy: Toy) -> None:
    async with serve(toy.app, http, root_path="/api") as port, connect(port) as connection:
        await connection.send("GET /v1/books/a%2Fb HTTP/1.1")
        assert json.loads((await connection.answer())[2])["id"] == "a/b"


async def test_http_1_0(connection: Connection) -> None:
    await connection.send("GET /v1/count?up_to=2 HTTP/1.0")
    status, _ = await connection.head()
    assert (status, len((await connection.reader.read()).splitlines()) >= 2) == (200, True)


async def test_an_absolute_request_target(connection: Connection) -> None:
    await connection.send("GET http://toy/v1/books/1 HTTP/1.1")
    assert (await connection.answer())[0] == 200


async def test_a_servicer_that_drains_ends_its_streams(connection: Connection, toy: Toy) -> None:
    await connection.send("GET /v1/count?up_to=1&how=drain HTTP/1.1", "Accept: text/event-stream")
    await connection.head()
    await connection.chunk()
    toy.streams.go_on.set()
    assert b'"code":14' in await connection.chunk()
    assert await connection.chunk() == b""
