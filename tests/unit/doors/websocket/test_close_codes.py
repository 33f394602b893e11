"""What an application hears of each way a socket can end: one test per row of what uvicorn gets wrong or right."""

from __future__ import annotations

import asyncio
import contextlib
from typing import Any

import pytest
import websockets

from unit.doors.conftest import Serve
from unit.doors.raw import RawPeer
from upload_server.doors.http.asgi import Receive, Scope, Send
from upload_server.doors.http.server import HttpServer

WAIT = 10.0


class Listener:
    """An application that accepts a socket and notes everything it hears of it."""

    def __init__(self) -> None:
        self.heard: list[dict[str, Any]] = []
        self.accepted = asyncio.Event()
        self.ended = asyncio.Event()
        self.reading = asyncio.Event()
        self.reading.set()

    async def __call__(self, _scope: Scope, receive: Receive, send: Send) -> None:
        await receive()
        await send({"type": "websocket.accept"})
        self.accepted.set()
        while True:
            await self.reading.wait()
            message = dict(await receive())
            self.heard.append(message)
            if message["type"] == "websocket.disconnect":
                self.ended.set()
                return

    async def last(self) -> dict[str, Any]:
        async with asyncio.timeout(WAIT):
            await self.ended.wait()
        return self.heard[-1]


@pytest.fixture
def listener() -> Listener:
    return Listener()


async def open_raw(server: HttpServer) -> RawPeer:
    peer = await RawPeer.connect(server.port)
    status, _, _ = await peer.handshake("/", server.port)
    assert status == 101
    return peer


@pytest.mark.parametrize(
    ("sent", "heard"),
    [
        (1000, 1000),  # close(1000)
        (1001, 1001),  # the tab was closed
        (None, 1005),  # close() without a code
        (4000, 4000),
        (3000, 3000),
        (1012, 1012),  # nobody but a server should say so; told apart from our own by its reason
    ],
)
async def test_a_close_frame_gives_its_own_code(serve: Serve, listener: Listener, sent: int | None, heard: int) -> None:
    peer = await open_raw(await serve(listener))
    peer.close_frame(sent)
    last = await listener.last()
    assert last["code"] == heard
    assert "reason" in last
    peer.finish()


async def test_a_close_frame_followed_by_rst_is_still_a_close_frame(serve: Serve, listener: Listener) -> None:
    peer = await open_raw(await serve(listener))
    peer.close_frame(1001)
    await peer.writer.drain()
    peer.reset()
    assert (await listener.last())["code"] == 1001


async def test_the_reason_of_a_close_frame_is_heard(serve: Serve, listener: Listener) -> None:
    peer = await open_raw(await serve(listener))
    peer.close_frame(1000, b"user pressed stop")
    assert (await listener.last())["reason"] == "user pressed stop"
    peer.finish()


@pytest.mark.parametrize("how", ["fin", "rst"])
async def test_a_connection_that_ends_without_a_close_frame_is_1006(serve: Serve, listener: Listener, how: str) -> None:
    peer = await open_raw(await serve(listener))
    if how == "fin":
        peer.finish()
    else:
        peer.reset()
    last = await listener.last()
    assert last["code"] == 1006
    assert "reason" not in last


async def test_a_page_that_answers_no_ping_is_1006(serve: Serve, listener: Listener) -> None:
    peer = await open_raw(await serve(listener, ping_interval_seconds=0.1, ping_timeout_seconds=0.1))
    assert (await listener.last())["code"] == 1006
    peer.finish()


async def test_a_page_that_reads_nothing_and_answers_no_ping_is_1006(serve: Serve) -> None:
    """Its socket's buffers are full: closing would wait for it for ever."""
    ended = asyncio.Event()
    codes: list[int] = []

    async def flood(_scope: Scope, receive: Receive, send: Send) -> None:
        await receive()
        await send({"type": "websocket.accept"})
        sender = asyncio.create_task(pour(send))
        message = await receive()
        codes.append(message["code"])
        await asyncio.wait({sender})
        ended.set()

    async def pour(send: Send) -> None:
        with contextlib.suppress(OSError):
            while True:
                await send({"type": "websocket.send", "bytes": b"x" * 1_000_000})

    server = await serve(flood, ping_interval_seconds=0.2, ping_timeout_seconds=0.2)
    peer = await open_raw(server)
    peer.writer.transport.pause_reading()  # type: ignore[attr-defined]  # the stream's transport is a read transport too
    async with asyncio.timeout(WAIT):
        await ended.wait()
    assert codes == [1006]
    peer.reset()


async def test_a_page_that_sends_but_whose_pong_is_late_lives(serve: Serve, listener: Listener) -> None:
    """Its pong waits behind the bytes it has queued."""
    peer = await open_raw(await serve(listener, ping_interval_seconds=0.1, ping_timeout_seconds=0.1))
    for _ in range(40):
        peer.frame(2, b"x")
        await asyncio.sleep(0.02)
    assert not listener.ended.is_set()
    peer.close_frame(1000)
    assert (await listener.last())["code"] == 1000
    peer.finish()


async def test_a_page_that_our_own_back_pressure_silences_lives(serve: Serve, listener: Listener) -> None:
    peer = await open_raw(await serve(listener, ping_interval_seconds=0.1, ping_timeout_seconds=0.1))
    listener.reading.clear()
    peer.frame(2, b"one")
    peer.frame(2, b"two")
    peer.frame(2, b"three")
    await asyncio.sleep(1.0)  # several ping timeouts: what is tested is that nothing happens
    peer.close_frame(1000)
    listener.reading.set()
    assert (await listener.last())["code"] == 1000
    peer.finish()


async def test_our_own_shutdown_is_1012_without_a_reason(serve: Serve, listener: Listener) -> None:
    server = await serve(listener)
    async with websockets.connect(f"ws://127.0.0.1:{server.port}/") as page:
        await listener.accepted.wait()
        await server.stop()
        last = await listener.last()
        with pytest.raises(websockets.ConnectionClosed) as closed:
            await page.recv()
    assert (last["code"], "reason" in last) == (1012, False)
    assert closed.value.rcvd is not None
    assert closed.value.rcvd.code == 1012


async def test_bad_utf8_is_1007(serve: Serve, listener: Listener) -> None:
    peer = await open_raw(await serve(listener))
    peer.frame(1, b"\xff\xfe")
    assert (await listener.last())["code"] == 1007
    peer.finish()


async def test_an_unmasked_frame_is_1002(serve: Serve, listener: Listener) -> None:
    peer = await open_raw(await serve(listener))
    peer.frame(2, b"abc", masked=False)
    assert (await listener.last())["code"] == 1002
    peer.finish()


async def test_a_message_over_the_bound_is_1009_and_never_held(serve: Serve, listener: Listener) -> None:
    server = await serve(listener)
    async with websockets.connect(f"ws://127.0.0.1:{server.port}/", max_size=None) as page:
        with contextlib.suppress(websockets.ConnectionClosed):
            await page.send(b"x" * (1024 * 1024 + 64 * 1024 + 1))
        assert (await listener.last())["code"] == 1009
    assert [message["type"] for message in listener.heard] == ["websocket.disconnect"]


async def test_a_fragmented_message_over_the_bound_is_1009(serve: Serve, listener: Listener) -> None:
    server = await serve(listener)
    async with websockets.connect(f"ws://127.0.0.1:{server.port}/") as page:
        with contextlib.suppress(websockets.ConnectionClosed):
            await page.send([b"x" * 700_000, b"y" * 700_000])
        assert (await listener.last())["code"] == 1009


async def test_compression_is_not_negotiated(serve: Serve, listener: Listener) -> None:
    server = await serve(listener)
    async with websockets.connect(f"ws://127.0.0.1:{server.port}/", compression="deflate") as page:
        assert page.protocol.extensions == []


async def test_all_that_was_queued_before_a_close_is_read_first(serve: Serve, listener: Listener) -> None:
    server = await serve(listener)
    async with websockets.connect(f"ws://127.0.0.1:{server.port}/") as page:
        for _ in range(20):
            await page.send(b"x" * 500_000)
    assert (await listener.last())["code"] == 1000
    assert sum(len(m["bytes"]) for m in listener.heard[:-1]) == 20 * 500_000
