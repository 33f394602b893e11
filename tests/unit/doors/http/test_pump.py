"""A thread reads the body of a request from a socket that is lent to it, and everything around the body stays."""

from __future__ import annotations

import asyncio
import hashlib
import os
import resource
import socket
from collections.abc import Iterator

import pytest

from unit.doors.conftest import Serve
from unit.doors.raw import RawPeer
from upload_server.doors.http import pump
from upload_server.doors.http.asgi import Receive, Scope, Send, respond
from upload_server.doors.http.protocol import BoundedHttpProtocol
from upload_server.doors.http.pump import LEAST_BYTES, LEND, Lend

KIB = 1024
MIB = 1024 * KIB


@pytest.fixture(autouse=True)
def nothing_stays_lent() -> Iterator[None]:
    yield
    assert not pump._lent


class Borrower:
    """An application that reads bodies as a door does: what the loop has first, then the socket while it has some."""

    def __init__(self) -> None:
        self.lent = 0
        self.by_thread = 0
        self.ends: list[str] = []
        self.ended = asyncio.Event()
        # Set: the socket stays lent until it is set.
        self.go = asyncio.Event()
        self.go.set()
        self.has_lent = asyncio.Event()
        # Answer after so much of a body.
        self.enough: int | None = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return
        digest, size, more = hashlib.sha256(), 0, True
        while more and (self.enough is None or size < self.enough):
            message = await receive()
            if message["type"] == "http.disconnect":
                self.end("gone")
                return
            data, more = message["body"], message["more_body"]
            digest.update(data)
            size += len(data)
            size += await self.borrow(scope.get(LEND), digest)
        self.end("whole" if not more else "left")
        answer = f"{scope['method']} {scope['path']} {size} {digest.hexdigest()}".encode()
        await respond(send, 200, answer)

    async def borrow(self, lend: Lend | None, digest: hashlib._Hash) -> int:
        lent = None if lend is None else lend()
        size = 0
        if lent is not None:
            with lent:
                self.lent += 1
                self.has_lent.set()
                await self.go.wait()
                buffer = bytearray(64 * KIB)
                while count := await asyncio.to_thread(lent.read_into, buffer):
                    digest.update(memoryview(buffer)[:count])
                    size += count
        self.by_thread += size
        return size

    def end(self, how: str) -> None:
        self.ends.append(how)
        self.ended.set()


def head(length: int, path: str = "/body", version: str = "1.1", *more: str) -> bytes:
    lines = [f"PATCH {path} HTTP/{version}", "Host: localhost", f"Content-Length: {length}", *more, "", ""]
    return "\r\n".join(lines).encode()


def said(data: bytes, path: str = "/body", method: str = "PATCH") -> str:
    return f"{method} {path} {len(data)} {hashlib.sha256(data).hexdigest()}"


async def said_to(peer: RawPeer) -> str:
    async with asyncio.timeout(20):
        status, _, body = await peer.answer()
    assert status == 200
    return body.decode()


async def send(peer: RawPeer, data: bytes) -> None:
    peer.writer.write(data)
    async with asyncio.timeout(20):
        await peer.writer.drain()


@pytest.mark.parametrize("size", [LEAST_BYTES, LEAST_BYTES + 1, 3 * MIB, 20 * MIB + 7])
async def test_requests_behind_a_body_are_served_in_their_turn(serve: Serve, size: int) -> None:
    """No thread reads past the body: what follows it on the connection is parsed."""
    app = Borrower()
    peer = await RawPeer.connect((await serve(app)).port)
    first, second = os.urandom(size), os.urandom(2 * MIB)
    get = b"GET /after HTTP/1.1\r\nHost: localhost\r\n\r\n"
    sending = asyncio.create_task(
        send(peer, head(len(first), "/1") + first + get + head(len(second), "/2") + second + get)
    )
    answers = [await said_to(peer) for _ in range(4)]
    await sending
    after = said(b"", "/after", "GET")
    assert answers == [said(first, "/1"), after, said(second, "/2"), after]
    assert app.by_thread > 0
    peer.finish()


async def test_a_body_whose_sender_stops_comes_on_over_the_loop(serve: Serve) -> None:
    app = Borrower()
    peer = await RawPeer.connect((await serve(app)).port)
    data = os.urandom(4 * MIB)
    peer.writer.write(head(len(data)))
    # Each part begins where all before was taken: in mid-piece, by drips, and with what a thread may read.
    for start, end in ((0, 1000), (1000, 1001), (1001, MIB), (MIB, 2 * MIB + 17), (2 * MIB + 17, len(data))):
        await send(peer, data[start:end])
        await asyncio.sleep(0.02)
    assert await said_to(peer) == said(data)
    assert 0 < app.by_thread < len(data)
    peer.finish()


@pytest.mark.parametrize("rest", [1, 1000, LEAST_BYTES // 2])
async def test_a_request_behind_a_rest_that_the_loop_reads(serve: Serve, rest: int) -> None:
    app = Borrower()
    peer = await RawPeer.connect((await serve(app)).port)
    data = os.urandom(MIB + rest)
    await send(peer, head(len(data)) + data[:MIB])
    async with asyncio.timeout(30):
        while not app.by_thread or pump._lent:  # noqa: ASYNC110 - the thread tells nobody
            await asyncio.sleep(0.01)
    await send(peer, data[MIB:] + b"GET /after HTTP/1.1\r\nHost: localhost\r\n\r\n")
    assert [await said_to(peer), await said_to(peer)] == [said(data), said(b"", "/after", "GET")]
    peer.finish()


@pytest.mark.parametrize("how", ["finish", "reset"])
async def test_a_peer_that_leaves_in_mid_body(serve: Serve, how: str) -> None:
    app = Borrower()
    app.go.clear()
    peer = await RawPeer.connect((await serve(app)).port)
    await send(peer, head(8 * MIB) + bytes(300 * KIB))
    await app.has_lent.wait()
    getattr(peer, how)()
    app.go.set()
    async with asyncio.timeout(30):
        await app.ended.wait()
    assert app.ends == ["gone"]


async def test_a_connection_that_is_cut_while_it_is_lent(serve: Serve) -> None:
    """Its peer hears of it at once, and no thread reads what comes on it, nor on the next one of that number."""
    app = Borrower()
    app.go.clear()
    server = await serve(app, stop_seconds=0.1)
    peer = await RawPeer.connect(server.port)
    await send(peer, head(8 * MIB) + bytes(300 * KIB))
    await app.has_lent.wait()
    [lent] = pump._lent
    before = lent.left
    for connection in list(server._server.server_state.connections):
        connection.transport.abort()
    async with asyncio.timeout(30):
        with pytest.raises((asyncio.IncompleteReadError, ConnectionError)):
            await peer.reader.readexactly(1)
    assert not pump._lent
    assert (lent.read_into(bytearray(100)), lent.left) == (0, before)
    app.go.set()
    async with asyncio.timeout(30):
        await app.ended.wait()
    assert app.ends == ["gone"]


async def test_what_is_short_or_of_unknown_length_is_not_lent(serve: Serve) -> None:
    app = Borrower()
    peer = await RawPeer.connect((await serve(app)).port)
    short, chunk = bytes(LEAST_BYTES - 1), bytes(64 * KIB)
    chunked = b"PATCH /c HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n"
    await send(peer, head(len(short)) + short)
    assert await said_to(peer) == said(short)
    await send(peer, chunked + 20 * (b"10000\r\n" + chunk + b"\r\n") + b"0\r\n\r\n")
    assert await said_to(peer) == said(20 * chunk, "/c")
    assert app.lent == 0
    peer.finish()


async def test_bytes_of_another_request_are_not_lent(serve: Serve) -> None:
    """Only while the request's own body comes: a door that asks late gets nothing."""
    kept: list[Lend] = []
    asked: list[bool] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        kept.append(scope[LEND])
        size = 0
        while size < MIB:
            size += len((await receive())["body"])
            if size == MIB // 2 and len(kept) == 2:
                for lend in kept:
                    asked.append((lent := lend()) is not None)
                    if lent is not None:
                        with lent:
                            pass
                half.set()
        await respond(send, 200, b"{}")

    half = asyncio.Event()
    peer = await RawPeer.connect((await serve(app)).port)
    await send(peer, head(MIB) + bytes(MIB))
    await said_to(peer)
    await send(peer, head(MIB) + bytes(MIB // 2))
    async with asyncio.timeout(30):
        await half.wait()
    await send(peer, bytes(MIB // 2))
    await said_to(peer)
    assert asked == [False, True]
    peer.finish()


async def test_what_the_loop_has_read_goes_before_what_a_thread_reads(serve: Serve) -> None:
    """A door that has not taken all that came borrows nothing: bytes would change places."""
    first, more = asyncio.Event(), asyncio.Event()
    asked: list[object] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await receive()
        first.set()
        await more.wait()
        asked.append(scope[LEND]())
        await respond(send, 200, b"{}")

    server = await serve(app)
    peer = await RawPeer.connect(server.port)
    await send(peer, head(MIB) + b"first")
    await first.wait()
    await send(peer, b"second")
    [connection] = server._server.server_state.connections
    assert isinstance(connection, BoundedHttpProtocol)
    async with asyncio.timeout(30):
        while not connection.cycle.body:  # noqa: ASYNC110 - nobody is told what waits there
            await asyncio.sleep(0.01)
    more.set()
    await said_to(peer)
    assert asked == [None]
    peer.finish()


async def test_the_answer_may_come_before_the_body_is_whole(serve: Serve) -> None:
    """Of what then still comes a bounded part is read, as ever, and then the connection ends."""
    app = Borrower()
    app.enough = MIB
    peer = await RawPeer.connect((await serve(app)).port)
    await send(peer, head(8 * MIB) + bytes(2 * MIB))
    answer = await said_to(peer)
    assert MIB <= int(answer.split()[2]) <= 2 * MIB
    assert app.by_thread > 0
    with pytest.raises(ConnectionError):
        await send(peer, bytes(6 * MIB))
    assert app.ends == ["left"]


async def test_100_continue_comes_before_the_body(serve: Serve) -> None:
    app = Borrower()
    peer = await RawPeer.connect((await serve(app)).port)
    peer.writer.write(head(2 * MIB, "/body", "1.1", "Expect: 100-continue"))
    assert await peer.reader.readuntil(b"\r\n\r\n") == b"HTTP/1.1 100 Continue\r\n\r\n"
    await send(peer, bytes(2 * MIB))
    assert await said_to(peer) == said(bytes(2 * MIB))
    assert app.by_thread > 0
    peer.finish()


async def test_a_body_over_http_1_0_ends_its_connection(serve: Serve) -> None:
    app = Borrower()
    peer = await RawPeer.connect((await serve(app)).port)
    await send(peer, head(2 * MIB, "/body", "1.0") + bytes(2 * MIB))
    assert await said_to(peer) == said(bytes(2 * MIB))
    async with asyncio.timeout(30):
        assert await peer.reader.read() == b""
    assert app.by_thread > 0
    peer.finish()


async def test_no_more_sockets_are_lent_than_may_be(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pump, "MOST_LENT", 0)
    app = Borrower()
    peer = await RawPeer.connect((await serve(app)).port)
    await send(peer, head(2 * MIB) + bytes(2 * MIB))
    assert await said_to(peer) == said(bytes(2 * MIB))
    assert app.lent == 0
    peer.finish()


async def test_without_a_descriptor_the_loop_reads() -> None:
    ours, theirs = socket.socketpair()
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (0, hard))
    try:
        assert pump.lend(ours.fileno(), MIB, lambda _: None) is None
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        ours.close()
        theirs.close()
