"""The embedded server: ports, bounds, drain and stop."""

from __future__ import annotations

import asyncio
import signal
import time
from collections.abc import Iterator

import httpx
import pytest

from unit.doors.conftest import Serve
from unit.doors.raw import RawPeer
from upload_server.doors.http import protocol
from upload_server.doors.http.asgi import Receive, Scope, Send, respond
from upload_server.doors.http.server import HttpServer, bind


async def hello(_scope: Scope, _receive: Receive, send: Send) -> None:
    await respond(send, 200, b'"hello"')


async def test_it_serves_on_ipv6_loopback(serve: Serve) -> None:
    server = await serve(hello, host="::1")
    async with httpx.AsyncClient() as client:
        assert (await client.get(f"http://[::1]:{server.port}/")).json() == "hello"


async def test_answers_do_not_name_the_software(serve: Serve) -> None:
    server = await serve(hello)
    async with httpx.AsyncClient() as client:
        answer = await client.get(f"http://127.0.0.1:{server.port}/")
    assert "server" not in answer.headers


async def test_signals_stay_with_the_process(serve: Serve) -> None:
    before = [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)]
    await serve(hello)
    assert [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)] == before


async def test_stop_waits_for_a_running_answer_and_refuses_new_connections(serve: Serve) -> None:
    entered, go = asyncio.Event(), asyncio.Event()

    async def slow(_scope: Scope, _receive: Receive, send: Send) -> None:
        entered.set()
        await go.wait()
        await respond(send, 200, b'"late"')

    server = await serve(slow)
    async with httpx.AsyncClient() as client:
        running = asyncio.create_task(client.get(f"http://127.0.0.1:{server.port}/"))
        await entered.wait()
        stopping = asyncio.create_task(server.stop())
        async with asyncio.timeout(30):
            while not await _refused(server.port):  # noqa: ASYNC110 - another socket's state has no event
                await asyncio.sleep(0.01)
        go.set()
        answer = await running
        await stopping
    assert (answer.json(), answer.headers["connection"]) == ("late", "close")


async def _refused(port: int) -> bool:
    try:
        peer = await RawPeer.connect(port)
    except ConnectionError:
        # Reset: it had been queued when the listening socket was closed.
        return True
    peer.finish()
    return False


async def test_stop_cuts_a_stream_that_never_ends(serve: Serve) -> None:
    cut = asyncio.Event()

    async def endless(_scope: Scope, _receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        try:
            while True:
                await send({"type": "http.response.body", "body": b"x", "more_body": True})
                await asyncio.sleep(0.05)
        finally:
            cut.set()

    server = await serve(endless, stop_seconds=1)
    peer = await RawPeer.connect(server.port)
    peer.writer.write(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n")
    await peer.reader.readuntil(b"\r\n\r\n")
    began = time.monotonic()
    await server.stop()
    assert time.monotonic() - began < 20
    assert cut.is_set()
    peer.finish()


async def test_drain_closes_idle_connections_and_still_serves_new_ones(serve: Serve) -> None:
    server = await serve(hello)
    idle = await RawPeer.connect(server.port)
    assert (await idle.request("GET / HTTP/1.1\nHost: localhost\n\n"))[0] == 200
    server.drain()
    assert await idle.reader.read() == b""
    fresh = await RawPeer.connect(server.port)
    assert (await fresh.request("GET / HTTP/1.1\nHost: localhost\n\n"))[0] == 200
    for peer in (idle, fresh):
        peer.finish()


async def test_stop_before_start_gives_the_port_back() -> None:
    sock = bind("127.0.0.1", 0)
    port = sock.getsockname()[1]
    await HttpServer(hello, sock).stop()
    bind("127.0.0.1", port).close()


async def test_a_head_that_never_ends_is_431(serve: Serve) -> None:
    server = await serve(hello)
    peer = await RawPeer.connect(server.port)
    peer.writer.write(b"GET / HTTP/1.1\r\nHost: localhost\r\nX-Long: ")
    reading = asyncio.create_task(peer.reader.readuntil(b"\r\n\r\n"))
    while not reading.done():
        peer.writer.write(b"x" * 16_384)
        await asyncio.sleep(0.01)
    assert (await reading).startswith(b"HTTP/1.1 431 ")
    peer.finish()


async def test_a_large_body_is_no_large_head(serve: Serve) -> None:
    server = await serve(swallow)
    async with httpx.AsyncClient() as client:
        for _ in range(2):
            answer = await client.post(f"http://127.0.0.1:{server.port}/", content=b"x" * 1_000_000)
            assert answer.json() == 1_000_000


@pytest.mark.parametrize("sent", [b"", b"GET / HTTP/1.1\r\nHost: local"])
async def test_a_connection_that_sends_no_head_is_closed_in_time(
    serve: Serve, monkeypatch: pytest.MonkeyPatch, sent: bytes
) -> None:
    monkeypatch.setattr(protocol, "HEAD_SECONDS", 0.2)
    server = await serve(hello)
    peer = await RawPeer.connect(server.port)
    peer.writer.write(sent)
    async with asyncio.timeout(30):
        assert await peer.reader.read() == b""
    peer.finish()


async def test_of_connections_beyond_the_bound_one_that_is_idle_makes_way(
    serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(protocol, "HEAD_SECONDS", 3600.0)
    running, release = asyncio.Semaphore(0), asyncio.Event()

    async def slow(_scope: Scope, _receive: Receive, send: Send) -> None:
        running.release()
        await release.wait()
        await respond(send, 200, b"late")

    request = "GET / HTTP/1.1\nHost: localhost\n\n"
    server = await serve(slow, max_connections=3)
    busy = [await RawPeer.connect(server.port) for _ in range(2)]
    answers = [asyncio.create_task(peer.request(request)) for peer in busy]
    for _ in busy:
        await running.acquire()
    older = await RawPeer.connect(server.port)
    newer = await RawPeer.connect(server.port)
    async with asyncio.timeout(30):
        # The one that has asked for nothing goes, those with a request stay.
        assert await older.reader.read() == b""
        answers.append(asyncio.create_task(newer.request(request)))
        await running.acquire()
        # None is idle now: the new one has no place.
        last = await RawPeer.connect(server.port)
        with pytest.raises((ConnectionError, asyncio.IncompleteReadError)):
            await last.request(request)
        release.set()
        assert [(await answer)[0] for answer in answers] == [200, 200, 200]
    for peer in (*busy, older, newer, last):
        peer.finish()


async def swallow(_scope: Scope, receive: Receive, send: Send) -> None:
    """Answer with the size of the body."""
    size, more = 0, True
    while more:
        message = await receive()
        if message["type"] == "http.disconnect":
            return
        size, more = size + len(message["body"]), message["more_body"]
    await respond(send, 200, str(size).encode())


async def test_trailers_are_no_headers(serve: Serve) -> None:
    """What a proxy in front has judged by the headers must not change behind it."""
    seen: list[tuple[bytes, bytes]] = []

    async def show(scope: Scope, receive: Receive, send: Send) -> None:
        await swallow(scope, receive, send)
        seen.extend(scope["headers"])

    server = await serve(show)
    peer = await RawPeer.connect(server.port)
    chunked = "POST / HTTP/1.1\nHost: localhost\nTransfer-Encoding: chunked\n\n1\nx\n0\n"
    status, _, body = await peer.request(f"{chunked}Origin: http://evil.example\nX-HTTP-Method-Override: DELETE\n\n")
    assert (status, body) == (200, b"1")
    assert {name for name, _ in seen} == {b"host", b"transfer-encoding"}
    peer.finish()


async def test_trailers_are_bounded(serve: Serve) -> None:
    server = await serve(swallow)
    peer = await RawPeer.connect(server.port)
    peer.writer.write(b"POST / HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n")
    peer.writer.write(b"a1: b\r\n" * 10_000)
    async with asyncio.timeout(30):
        await closed(peer)
    peer.finish()


async def closed(peer: RawPeer) -> bytes:
    """Read until the server has closed the connection."""
    try:
        return await peer.reader.read()
    except ConnectionError:
        return b"reset"


async def test_tiny_chunks_share_the_loop(serve: Serve) -> None:
    """A read of 256 KiB holds 43,000 chunks of one byte; parsed in one turn, nobody else is answered meanwhile."""
    server = await serve(swallow)
    peer = await RawPeer.connect(server.port)
    count = 200_000
    peer.writer.write(b"POST / HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n")
    peer.writer.write(b"1\r\nx\r\n" * count + b"0\r\n\r\n")
    turns = count_turns()
    status, _, body = await peer.answer()
    assert (status, body) == (200, str(count).encode())
    # 1.2 MB, at most 16 KiB a turn.
    assert next(turns) >= 1_200_000 // (16 * 1024)
    peer.finish()


def count_turns() -> Iterator[int]:
    """Count the turns that the loop makes from now on, until the first is asked for."""
    loop, turns = asyncio.get_running_loop(), 0

    def turn() -> None:
        nonlocal turns
        turns += 1
        handle[0] = loop.call_soon(turn)

    handle = [loop.call_soon(turn)]

    def total() -> Iterator[int]:
        handle[0].cancel()
        yield turns

    return total()


async def test_pipelined_requests_are_answered_in_order(serve: Serve) -> None:
    server = await serve(swallow)
    peer = await RawPeer.connect(server.port)
    count = 2_000
    peer.writer.write(
        b"".join(b"POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1\r\n\r\nx" for _ in range(count))
    )
    for _ in range(count):
        assert (await peer.answer())[::2] == (200, b"1")
    large = b"y" * 100_000
    peer.writer.write(b"POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 100000\r\n\r\n" + large)
    assert (await peer.answer())[2] == b"100000"
    peer.finish()


@pytest.mark.parametrize("body", [b"Content-Length: 100000", b"Transfer-Encoding: chunked"])
async def test_a_body_that_drips_behind_its_answer_is_cut(
    serve: Serve, monkeypatch: pytest.MonkeyPatch, body: bytes
) -> None:
    monkeypatch.setattr(protocol, "REST_SECONDS", 0.3)
    server = await serve(hello)
    peer = await RawPeer.connect(server.port)
    peer.writer.write(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n" + body + b"\r\n\r\n1\r\nx\r\n")
    assert (await peer.answer())[0] == 200

    async def drip() -> None:
        while not peer.writer.is_closing():
            peer.writer.write(b"1\r\nx\r\n")
            await asyncio.sleep(0.05)

    dripping = asyncio.create_task(drip())
    async with asyncio.timeout(30):
        await closed(peer)
    dripping.cancel()
    peer.finish()


async def test_a_pipelined_body_may_take_longer_than_the_rest_of_an_answered_request(
    serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(protocol, "REST_SECONDS", 0.2)
    go = asyncio.Event()

    async def first_waits(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["method"] == "GET":
            await go.wait()
            await respond(send, 200, b'"hello"')
        else:
            await swallow(scope, receive, send)

    server = await serve(first_waits)
    peer = await RawPeer.connect(server.port)
    peer.writer.write(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n")
    peer.writer.write(b"POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 6\r\n\r\nabc")
    await peer.writer.drain()
    go.set()
    assert (await peer.answer())[0] == 200
    # Nothing comes: neither an answer nor the end of the connection.
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.6):
            await peer.reader.read(1)
    peer.writer.write(b"def")
    assert (await peer.answer())[::2] == (200, b"6")
    peer.finish()


async def test_much_of_a_body_behind_its_answer_is_cut(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(protocol, "REST_SECONDS", 3600.0)
    server = await serve(hello)
    peer = await RawPeer.connect(server.port)
    peer.writer.write(b"GET / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1000000\r\n\r\n")
    assert (await peer.answer())[0] == 200
    peer.writer.write(b"x" * 900_000)
    async with asyncio.timeout(30):
        await closed(peer)
    peer.finish()


async def test_a_body_that_comes_whole_behind_its_answer_keeps_the_connection(serve: Serve) -> None:
    server = await serve(hello)
    peer = await RawPeer.connect(server.port)
    peer.writer.write(b"GET / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 100000\r\n\r\n")
    assert (await peer.answer())[0] == 200
    peer.writer.write(b"x" * 100_000)
    assert (await peer.request("GET / HTTP/1.1\nHost: localhost\n\n"))[0] == 200
    peer.finish()


@pytest.mark.parametrize(
    ("head", "status"),
    [
        ("GET / HTTP/2.0\nHost: localhost", 400),
        ("GET / HTTP/1.1", 400),
        ("GET http://evil.example/ HTTP/1.1\nHost: localhost", 400),
        ("GET ftp://localhost/ HTTP/1.1\nHost: localhost", 400),
        ("POST / HTTP/1.1\nHost: localhost\nTransfer-Encoding: identity, chunked", 400),
        ("POST / HTTP/1.1\nHost: localhost\nTransfer-Encoding: identity\nTransfer-Encoding: chunked", 400),
        ("POST / HTTP/1.1\nHost: localhost\nTransfer-Encoding: gzip, chunked", 501),
    ],
)
async def test_heads_that_a_proxy_may_read_otherwise_are_refused(serve: Serve, head: str, status: int) -> None:
    server = await serve(hello)
    peer = await RawPeer.connect(server.port)
    found, headers, body = await peer.request(f"{head}\n\n0\n\n")
    assert (found, headers["connection"]) == (status, "close")
    assert b'"reason"' in body
    peer.finish()


async def test_http_1_0_is_answered_without_chunks(serve: Serve) -> None:
    async def stream(_scope: Scope, _receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"text/plain")]})
        for word in (b"one ", b"two"):
            await send({"type": "http.response.body", "body": word, "more_body": True})
        await send({"type": "http.response.body", "body": b""})

    server = await serve(stream)
    peer = await RawPeer.connect(server.port)
    peer.writer.write(b"GET / HTTP/1.0\r\nHost: localhost\r\n\r\n")
    head, _, body = (await peer.reader.read()).partition(b"\r\n\r\n")
    assert b"transfer-encoding" not in head.lower()
    assert body == b"one two"
    peer.finish()
