"""Peers that do not read what they are answered: no next answer is made for them, and the longest deaf is cut."""

from __future__ import annotations

import asyncio

from unit.doors.conftest import Serve
from unit.doors.raw import RawPeer
from upload_server.doors.http.asgi import Receive, Scope, Send, respond
from upload_server.doors.http.untaken import Untaken

MIB = 1024 * 1024
ASK = "GET /{number} HTTP/1.1\r\nHost: localhost\r\n\r\n"
WAIT = 20.0


class Large:
    """An application whose answers are 2 MiB: more than the system takes for a peer that does not read."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.news = asyncio.Event()

    async def __call__(self, scope: Scope, _receive: Receive, send: Send) -> None:
        self.asked.append(scope["path"])
        await respond(send, 200, scope["path"].encode() * MIB)
        self.news.set()

    async def answered(self, count: int) -> None:
        while len(self.asked) < count:
            self.news.clear()
            await self.news.wait()


async def deaf_peer(port: int, *paths: str) -> RawPeer:
    peer = await RawPeer.connect(port)
    peer.reader._transport.pause_reading()  # type: ignore[attr-defined]
    peer.writer.write("".join(ASK.replace("/{number}", path) for path in paths).encode())
    return peer


def listen(peer: RawPeer) -> None:
    peer.reader._transport.resume_reading()  # type: ignore[attr-defined]


async def test_no_next_request_is_served_to_a_peer_that_does_not_read(serve: Serve) -> None:
    large = Large()
    server = await serve(large)
    async with asyncio.timeout(WAIT):
        peer = await deaf_peer(server.port, "/1", "/2", "/3")
        await large.answered(1)
        # Not pipelined, but after the answer; and with a body that nobody has asked for.
        peer.writer.write(ASK.replace("/{number}", "/4").encode())
        peer.writer.write(b"POST /5 HTTP/1.1\r\nHost: localhost\r\nContent-Length: 3\r\n\r\nabc")
        other = await RawPeer.connect(server.port)
        for _ in range(3):
            assert (await other.request(ASK.replace("/{number}", "/x").replace("\r\n", "\n")))[0] == 200
        assert large.asked == ["/1", "/x", "/x", "/x"]
        listen(peer)
        for number in range(1, 6):
            status, _, body = await peer.answer()
            assert (status, body) == (200, f"/{number}".encode() * MIB)
        for each in (peer, other):
            each.finish()


async def test_the_peer_that_has_not_read_for_longest_is_cut(serve: Serve) -> None:
    large = Large()
    server = await serve(large, untaken=Untaken(5 * MIB))
    async with asyncio.timeout(WAIT):
        peers = []
        for number in range(1, 6):
            peers.append(await deaf_peer(server.port, f"/{number}"))
            await large.answered(number)
        for peer in peers[:2]:
            listen(peer)
            assert len(await peer.reader.read()) < 2 * MIB
        # What was cut, or is read, leaves its room to others.
        for number, peer in enumerate(peers[3:], 4):
            listen(peer)
            assert (await peer.answer())[2] == f"/{number}".encode() * MIB
        others = [await deaf_peer(server.port, "/6"), await deaf_peer(server.port, "/7")]
        await large.answered(7)
        for number, peer in enumerate(others, 6):
            listen(peer)
            assert (await peer.answer())[2] == f"/{number}".encode() * MIB
        for peer in (*peers, *others):
            peer.finish()
