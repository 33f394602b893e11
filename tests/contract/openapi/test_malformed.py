"""What never becomes a request is refused like everything else: a Status in JSON."""

from __future__ import annotations

import asyncio
import json

import pytest

from contract.openapi.document import load, validator
from support.process import ServerProcess

HANDSHAKE = (
    b"GET /api/v1/upload/ws/x HTTP/1.1\r\nhost: localhost\r\nconnection: upgrade\r\nupgrade: websocket\r\n"
    b"sec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
)


@pytest.mark.parametrize(
    ("request_bytes", "status", "reason"),
    [
        (b"this is no HTTP\r\n\r\n", 400, "MALFORMED_REQUEST"),
        (b"GET /" + b"x" * 70_000 + b" HTTP/1.1\r\nhost: localhost\r\n\r\n", 400, "MALFORMED_REQUEST"),
        (b"GET / HTTP/1.1\r\nhost: localhost\r\nx: " + b"y" * 70_000, 431, "HEAD_TOO_LARGE"),
        (HANDSHAKE + b"sec-websocket-version: 12\r\n\r\n", 400, "MALFORMED_REQUEST"),
        (HANDSHAKE + b"\r\n", 400, "MALFORMED_REQUEST"),
    ],
    ids=["no HTTP", "a long URL", "a long header", "a handshake of another version", "a handshake without a version"],
)
async def test_malformed_requests(server: ServerProcess, request_bytes: bytes, status: int, reason: str) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", server.http_port)
    writer.write(request_bytes)
    async with asyncio.timeout(15):
        answer = await reader.read()
    writer.close()
    head, _, body = answer.partition(b"\r\n\r\n")
    assert head.startswith(f"HTTP/1.1 {status} ".encode())
    assert b"content-type: application/json" in head
    assert (b"sec-websocket-version: 13" in head) == (b"upgrade" in request_bytes)
    assert b"cache-control: no-store\r\nx-content-type-options: nosniff" in head
    document = load()
    validator(document, document["components"]["schemas"]["google.rpc.Status"]).validate(json.loads(body))
    assert json.loads(body)["details"][0]["reason"] == reason
