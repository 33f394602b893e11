"""Connections on their way to TLS: bounded in number and time, and nothing of theirs is read past OpenSSL."""

from __future__ import annotations

import asyncio
import hashlib
import os
import ssl
from typing import Any

import pytest

from support.certificates import Authority
from unit.doors.conftest import Serve
from unit.doors.raw import RawPeer
from upload_server.doors.http import protocol
from upload_server.doors.http import tls as listening
from upload_server.doors.http.asgi import Receive, Scope, Send, respond
from upload_server.doors.http.pump import LEAST_BYTES, LEND
from upload_server.process.tls import ClientAuth, TlsFiles, read_pair


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("certificates"))


@pytest.fixture(scope="module")
def secure(authority: Authority) -> dict[str, Any]:
    pair = authority.issue("server")
    context = read_pair(TlsFiles(pair.cert, pair.key, None, ClientAuth.NONE)).context
    return {"tls": lambda: context}


async def digest_of_body(scope: Scope, receive: Receive, send: Send) -> None:
    digest, more = hashlib.sha256(), True
    while more:
        message = await receive()
        digest.update(message["body"])
        more = message["more_body"]
    await respond(send, 200, f'"{scope["scheme"]} {LEND in scope} {digest.hexdigest()}"'.encode())


async def connect(port: int, authority: Authority) -> RawPeer:
    context = authority.context()
    return RawPeer(*await asyncio.open_connection("127.0.0.1", port, ssl=context))


async def closed(peer: RawPeer) -> None:
    async with asyncio.timeout(30):
        with pytest.raises((asyncio.IncompleteReadError, ConnectionError)):
            await peer.reader.readexactly(1)


async def test_a_long_body_is_not_read_past_openssl(serve: Serve, secure: dict[str, Any], authority: Authority) -> None:
    server = await serve(digest_of_body, **secure)
    peer = await connect(server.port, authority)
    body = os.urandom(4 * LEAST_BYTES)
    peer.writer.write(f"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: {len(body)}\r\n\r\n".encode() + body)
    _, _, answer = await peer.answer()
    assert answer.decode() == f'"https False {hashlib.sha256(body).hexdigest()}"'
    peer.finish()


async def test_a_handshake_that_does_not_end_is_cut(
    serve: Serve, secure: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(listening, "HANDSHAKE_SECONDS", 0.05)
    server = await serve(digest_of_body, **secure)
    peer = await RawPeer.connect(server.port)
    await closed(peer)
    peer.finish()


async def test_half_handshakes_count_and_the_oldest_gives_way(
    serve: Serve, secure: dict[str, Any], authority: Authority, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(listening, "HANDSHAKE_SECONDS", 3600.0)
    server = await serve(digest_of_body, max_connections=4, **secure)
    halves = [await RawPeer.connect(server.port) for _ in range(4)]
    peer = await connect(server.port, authority)
    assert (await peer.request("GET / HTTP/1.1\nHost: x\n\n"))[0] == 200
    await closed(halves[0])
    assert not halves[-1].reader.at_eof()
    for left in (*halves, peer):
        left.finish()


async def test_an_idle_connection_gives_way_to_a_handshake(
    serve: Serve, secure: dict[str, Any], authority: Authority, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(protocol, "HEAD_SECONDS", 3600.0)
    server = await serve(digest_of_body, max_connections=2, **secure)
    peers = [await connect(server.port, authority) for _ in range(3)]
    assert (await peers[-1].request("GET / HTTP/1.1\nHost: x\n\n"))[0] == 200
    await closed(peers[0])
    for peer in peers:
        peer.finish()


async def test_handshakes_end_with_the_server(serve: Serve, secure: dict[str, Any]) -> None:
    server = await serve(digest_of_body, **secure)
    peer = await RawPeer.connect(server.port)
    await server.stop()
    await closed(peer)
    peer.finish()


@pytest.mark.filterwarnings("ignore:ssl.TLSVersion.TLSv1_1 is deprecated:DeprecationWarning")
@pytest.mark.parametrize(("most", "taken"), [(ssl.TLSVersion.TLSv1_1, False), (ssl.TLSVersion.TLSv1_2, True)])
async def test_older_versions_than_1_2_are_refused(
    most: ssl.TLSVersion, taken: bool, serve: Serve, secure: dict[str, Any], authority: Authority
) -> None:
    server = await serve(digest_of_body, **secure)
    context = authority.context()
    context.set_ciphers("DEFAULT:@SECLEVEL=0")
    context.minimum_version = ssl.TLSVersion.MINIMUM_SUPPORTED
    context.maximum_version = most
    connecting = asyncio.open_connection("127.0.0.1", server.port, ssl=context)
    if taken:
        _, writer = await connecting
        writer.close()
    else:
        with pytest.raises((ssl.SSLError, ConnectionError)):
            await connecting


async def test_browsers_are_told_to_stay_with_https(serve: Serve, secure: dict[str, Any], authority: Authority) -> None:
    server = await serve(digest_of_body, https_only=True, **secure)
    peer = await connect(server.port, authority)
    _, headers, _ = await peer.request("GET / HTTP/1.1\nHost: x\n\n")
    assert headers["strict-transport-security"] == "max-age=31536000"
    peer.finish()
