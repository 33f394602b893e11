"""What an application hears of each way a socket can end: one test per row of what uvicorn gets wrong or right."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from typing import Any

import pytest
import websockets

from unit.doors.conftest import Serve
from unit.doors.raw import RawPeer
from upload_server.domain.errors import UploadError
from upload_server.doors.http.asgi import Receive, Scope, Send
from upload_server.doors.http.server import HttpServer
from upload_server.doors.websocket import protocol
from upload_server.doors.websocket.frames import Head, read_head
from upload_server.doors.websocket.protocol import HonestWebSocketProtocol

WAIT = 30.0


class Listener:
    """An application that accepts a socket and notes everything it hears of it."""

    def __init__(self) -> None:
        self.heard: list[dict[str, Any]] = []
        self.accepted = asyncio.Event()
        self.ended = asyncio.Event()
        self.reading = asyncio.Event()
        self.reading.set()
        # Said to a page whose frames were refused.
        self.last_words: dict[str, Any] | None = None

    async def __call__(self, _scope: Scope, receive: Receive, send: Send) -> None:
        await receive()
        await send({"type": "websocket.accept"})
        self.accepted.set()
        while True:
            await self.reading.wait()
            message = dict(await receive())
            self.heard.append(message)
            if message["type"] == "websocket.refused" and self.last_words is not None:
                await send(self.last_words)
            if message["type"] in {"websocket.disconnect", "websocket.refused"}:
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


async def test_a_drain_right_after_a_close_was_answered_breaks_nothing(
    serve: Serve, listener: Listener, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The socket is among uvicorn's connections until its end is known: an error there would end the whole drain."""
    real, said = HonestWebSocketProtocol._answer_close, list[BaseException | None]()

    def answer_then_drain(page: HonestWebSocketProtocol) -> None:
        real(page)
        if page.transport.is_closing() and not said:
            said.append(None)
            try:
                page.shutdown()
            except Exception as error:
                said[0] = error
                raise

    monkeypatch.setattr(HonestWebSocketProtocol, "_answer_close", answer_then_drain)
    peer = await open_raw(await serve(listener))
    peer.close_frame(1000)
    await peer.writer.drain()
    async with asyncio.timeout(WAIT):
        assert (await peer.reader.read())[:1] == b"\x88"
    assert said == [None]
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
    peer = await open_raw(await serve(listener, ping_interval_seconds=0.1, ping_timeout_seconds=1.5))
    for _ in range(110):
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


def garbage(peer: RawPeer) -> None:
    peer.writer.write(b"GET / HTTP/1.1\r\n\r\n" * 10)


def fragments(peer: RawPeer, opcode: int, *payloads: bytes) -> None:
    """The frames of one message that does not end."""
    for number, payload in enumerate(payloads):
        peer.frame(0 if number else opcode, payload, fin=False)


def many(peer: RawPeer, opcode: int) -> None:
    for _ in range(200):
        peer.frame(opcode)


def one_in_another(peer: RawPeer) -> None:
    peer.frame(2, b"a", fin=False)
    peer.frame(2, b"b")


def pings_in_a_message(peer: RawPeer) -> None:
    peer.frame(2, b"a", fin=False)
    many(peer, 9)


BROKEN: dict[str, Callable[[RawPeer], None]] = {
    "a text that is no utf-8": lambda peer: peer.frame(1, b"\xff\xfe"),
    "an unmasked frame": lambda peer: peer.frame(2, b"abc", masked=False),
    "an unknown kind": lambda peer: peer.frame(3, b"abc"),
    "a compressed frame": lambda peer: peer.frame(0x42, b"abc"),
    "a continuation of nothing": lambda peer: peer.frame(0, b"abc"),
    "a message inside another": one_in_another,
    "a long ping": lambda peer: peer.frame(9, bytes(126)),
    "a ping in fragments": lambda peer: peer.frame(9, b"a", fin=False),
    "garbage": garbage,
    "a long message": lambda peer: peer.writer.write(b"\x82\xff" + (1 << 20 | 1).to_bytes(8, "big") + b"mask"),
    "a message of 2^63 bytes": lambda peer: peer.writer.write(b"\x82\xff\xff" + bytes(7) + b"mask"),
    "a long text": lambda peer: peer.writer.write(b"\x81\xff" + (1 << 16 | 1).to_bytes(8, "big") + b"mask"),
    "long fragments": lambda peer: fragments(peer, 2, *[bytes(60_000)] * 18),
    "many fragments": lambda peer: fragments(peer, 2, *[b""] * 1025),
    "many pings": lambda peer: many(peer, 9),
    "many pongs": lambda peer: many(peer, 10),
    "many pings in a message": pings_in_a_message,
}


@pytest.mark.parametrize("how", BROKEN)
async def test_frames_that_break_a_rule_are_refused_and_the_page_can_still_be_told(
    serve: Serve, listener: Listener, how: str
) -> None:
    """uvicorn closes at once; and its application cannot tell that from a close frame of the page."""
    listener.last_words = {"type": "websocket.close", "code": 4400}
    peer = await open_raw(await serve(listener))
    peer.frame(2, b"before")
    BROKEN[how](peer)
    async with asyncio.timeout(WAIT):
        while (answer := await peer.reader.readexactly(2))[0] == 0x8A:
            await peer.reader.readexactly(answer[1])
        assert (answer, await peer.reader.readexactly(2)) == (b"\x88\x02", (4400).to_bytes(2, "big"))
    types = [message["type"] for message in listener.heard]
    assert types == ["websocket.receive", "websocket.refused"]
    assert isinstance(listener.heard[-1]["error"], UploadError)
    peer.finish()


async def test_a_page_that_was_refused_and_answers_the_close_is_let_go_at_once(
    serve: Serve, listener: Listener, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(protocol, "LINGER_SECONDS", 2 * WAIT)
    listener.last_words = {"type": "websocket.close", "code": 4400}
    peer = await open_raw(await serve(listener))
    peer.writer.write(b"\x82\xff" + (5_000_000).to_bytes(8, "big") + b"mask" + bytes(5_000_000))
    async with asyncio.timeout(WAIT):
        await peer.reader.readexactly(4)
        peer.close_frame(4400)
        assert await peer.reader.read() == b""
    peer.finish()


@pytest.mark.parametrize("payload", [b"\x03", b"\x03\xe7", b"\x03\xed", b"\x03\xe8\xff"], ids=repr)
async def test_a_close_frame_that_is_none_is_answered_1002_which_is_our_own_close(
    serve: Serve, listener: Listener, payload: bytes
) -> None:
    peer = await open_raw(await serve(listener))
    peer.frame(8, payload)
    last = await listener.last()
    assert last["code"] in {1002, 1007}
    assert "reason" not in last
    peer.finish()


@pytest.mark.parametrize("code", [1000, 1001, None])
async def test_a_close_frame_inside_a_fragmented_message_is_a_close_frame(
    serve: Serve, listener: Listener, code: int | None
) -> None:
    """RFC 6455, 5.4 allows it there; `websockets` calls it a protocol error."""
    peer = await open_raw(await serve(listener))
    peer.frame(2, b"half", fin=False)
    peer.close_frame(code, b"enough" if code else b"")
    last = await listener.last()
    assert (last["code"], last["reason"]) == (code or 1005, "enough" if code else "")
    assert len(listener.heard) == 1
    peer.finish()


async def test_a_ping_inside_a_fragmented_message_is_answered_and_the_message_goes_on(
    serve: Serve, listener: Listener
) -> None:
    peer = await open_raw(await serve(listener))
    peer.frame(2, b"one ", fin=False)
    peer.frame(9, b"?")
    peer.frame(0, b"message")
    peer.close_frame(1000)
    await listener.last()
    assert await peer.reader.readexactly(3) == b"\x8a\x01?"
    assert listener.heard[0]["bytes"] == b"one message"
    peer.finish()


async def test_a_message_of_a_mebibyte_in_1024_fragments_is_taken(serve: Serve, listener: Listener) -> None:
    peer = await open_raw(await serve(listener))
    peer.frame(2, bytes(1024), fin=False)
    for _ in range(1022):
        peer.frame(0, bytes(1024), fin=False)
    peer.frame(0, bytes(1024))
    peer.close_frame(1000)
    await listener.last()
    assert [len(message["bytes"]) for message in listener.heard[:-1]] == [1 << 20]
    peer.finish()


@pytest.mark.parametrize(
    "flood",
    [b"\x82\x80\0\0\0\0", b"\x82\x81\0\0\0\0x", b"\x89\x80\0\0\0\0", b"\x03\x80\0\0\0\0"],
    ids=["empty messages", "1-byte messages", "pings", "frames of no kind"],
)
async def test_one_turn_of_the_loop_parses_few_frames(
    serve: Serve, listener: Listener, monkeypatch: pytest.MonkeyPatch, flood: bytes
) -> None:
    """uvicorn parses the 40,000 of one read at once: a second in which no cancel is answered."""
    listener.last_words = {"type": "websocket.close", "code": 4400}
    parsed = 0

    def counted(data: bytes) -> Head | None:
        nonlocal parsed
        parsed += 1
        return read_head(data)

    monkeypatch.setattr(protocol, "read_head", counted)
    peer = await open_raw(await serve(listener))
    peer.writer.write(flood * 20_000)
    most = before = 0
    async with asyncio.timeout(WAIT):
        while parsed <= 500:
            await asyncio.sleep(0)
            most, before = max(most, parsed - before), parsed
    # Two turns of the parser may lie between two of this task's.
    assert 0 < most <= 150
    peer.reset()


async def test_a_page_that_sends_small_messages_fast_is_slowed_and_not_closed(serve: Serve, listener: Listener) -> None:
    peer = await open_raw(await serve(listener))
    began = asyncio.get_running_loop().time()
    for number in range(2500):
        peer.frame(2, str(number).encode())
    peer.close_frame(1000)
    assert (await listener.last())["code"] == 1000
    assert [message["bytes"] for message in listener.heard[:-1]] == [str(number).encode() for number in range(2500)]
    assert asyncio.get_running_loop().time() - began > 1.4
    peer.finish()


async def test_frames_before_the_socket_is_accepted_wait_for_it(serve: Serve, listener: Listener) -> None:
    asked, accept = asyncio.Event(), asyncio.Event()

    async def late(scope: Scope, receive: Receive, send: Send) -> None:
        asked.set()
        await accept.wait()
        await listener(scope, receive, send)

    server = await serve(late)
    peer = await RawPeer.connect(server.port)
    shaking = asyncio.create_task(peer.handshake("/", server.port))
    await asked.wait()  # the handshake comes alone, as uvicorn wants it
    peer.frame(9, b"!")
    peer.frame(2, b"early")
    peer.close_frame(1000)
    await asyncio.sleep(0.1)
    accept.set()
    assert (await shaking)[0] == 101
    assert (await listener.last())["code"] == 1000
    assert listener.heard[0]["bytes"] == b"early"
    peer.finish()


async def test_pongs_are_not_kept_for_a_page_that_reads_nothing(serve: Serve, listener: Listener) -> None:
    server = await serve(listener)
    peer = await open_raw(server)
    [connection] = [one for one in server._server.server_state.connections if isinstance(one, HonestWebSocketProtocol)]
    peer.writer.transport.pause_reading()  # type: ignore[attr-defined]  # the stream's transport is a read transport too
    connection.transport.write(bytes(20_000_000))
    kept = connection.transport.get_write_buffer_size()
    assert kept > 1_000_000
    for _ in range(50):
        peer.frame(9, bytes(125))
    peer.frame(2, b"read")
    async with asyncio.timeout(WAIT):
        while not listener.heard:  # noqa: ASYNC110 - the listener goes on
            await asyncio.sleep(0.01)
    assert connection.transport.get_write_buffer_size() <= kept
    peer.reset()


@pytest.mark.parametrize(
    "odd", [[f"X-{number}: a" for number in range(200)], ["X-A: " + "a" * 9000], ["Content-Length: 0"]]
)
async def test_a_handshake_that_cannot_be_read_is_answered_and_let_go(
    serve: Serve, listener: Listener, odd: list[str]
) -> None:
    """uvicorn leaves the connection open, without a word."""
    server = await serve(listener)
    peer = await RawPeer.connect(server.port)
    async with asyncio.timeout(WAIT):
        status, _, _ = await peer.handshake("/", server.port, *odd)
        assert status in {101, 400}
        if status == 400:
            assert await peer.reader.read() == b""
    assert status == 400 or odd == ["Content-Length: 0"]
    peer.finish()


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
