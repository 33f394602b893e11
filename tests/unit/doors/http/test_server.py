"""The embedded server: ports, bounds, drain and stop."""

from __future__ import annotations

import asyncio
import signal
import time

import httpx
import pytest

from unit.doors.conftest import Serve
from unit.doors.raw import RawPeer
from upload_server.doors.http import protocols
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
        async with asyncio.timeout(5):
            while not await _refused(server.port):  # noqa: ASYNC110 - another socket's state has no event
                await asyncio.sleep(0.01)
        go.set()
        answer = await running
        await stopping
    assert (answer.json(), answer.headers["connection"]) == ("late", "close")


async def _refused(port: int) -> bool:
    try:
        peer = await RawPeer.connect(port)
    except (ConnectionRefusedError, ConnectionResetError):
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
    assert time.monotonic() - began < 3
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
    while not peer.reader.at_eof() and not peer.writer.is_closing():
        peer.writer.write(b"x" * 16_384)
        try:
            async with asyncio.timeout(0.02):
                head = await peer.reader.readuntil(b"\r\n\r\n")
                break
        except TimeoutError:
            continue
    assert head.startswith(b"HTTP/1.1 431 ")
    peer.finish()


async def test_a_large_body_is_no_large_head(serve: Serve) -> None:
    async def swallow(_scope: Scope, receive: Receive, send: Send) -> None:
        size, more = 0, True
        while more:
            message = await receive()
            size, more = size + len(message["body"]), message["more_body"]
        await respond(send, 200, str(size).encode())

    server = await serve(swallow)
    async with httpx.AsyncClient() as client:
        for _ in range(2):
            answer = await client.post(f"http://127.0.0.1:{server.port}/", content=b"x" * 1_000_000)
            assert answer.json() == 1_000_000


@pytest.mark.parametrize("sent", [b"", b"GET / HTTP/1.1\r\nHost: local"])
async def test_a_connection_that_sends_no_head_is_closed_in_time(
    serve: Serve, monkeypatch: pytest.MonkeyPatch, sent: bytes
) -> None:
    monkeypatch.setattr(protocols, "HEAD_SECONDS", 0.2)
    server = await serve(hello)
    peer = await RawPeer.connect(server.port)
    peer.writer.write(sent)
    async with asyncio.timeout(5):
        assert await peer.reader.read() == b""
    peer.finish()


async def test_connections_beyond_the_bound_are_cut(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(protocols, "MAX_CONNECTIONS", 2)
    server = await serve(hello)
    peers = [await RawPeer.connect(server.port) for _ in range(2)]
    for peer in peers:
        assert (await peer.request("GET / HTTP/1.1\nHost: localhost\n\n"))[0] == 200
    third = await RawPeer.connect(server.port)
    async with asyncio.timeout(5):
        with pytest.raises((ConnectionResetError, asyncio.IncompleteReadError)):
            await third.request("GET / HTTP/1.1\nHost: localhost\n\n")
    for peer in (*peers, third):
        peer.finish()
