"""Raw HTTP and WebSocket bytes over a socket, for what no decent client sends."""

from __future__ import annotations

import asyncio
import os
import socket
import struct

HANDSHAKE_KEY = "dGhlIHNhbXBsZSBub25jZQ=="


class RawPeer:
    """One connection whose every byte is chosen by the test."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer

    @classmethod
    async def connect(cls, port: int, host: str = "127.0.0.1") -> RawPeer:
        return cls(*await asyncio.open_connection(host, port))

    async def request(self, text: str) -> tuple[int, dict[str, str], bytes]:
        """Send a request head (and body) and read one answer with a content-length."""
        self.writer.write(text.replace("\n", "\r\n").encode())
        return await self.answer()

    async def answer(self) -> tuple[int, dict[str, str], bytes]:
        head = (await self.reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
        headers = dict(line.lower().split(": ", 1) for line in head[1:] if line)
        body = await self.reader.readexactly(int(headers.get("content-length", "0")))
        return int(head[0].split(" ")[1]), headers, body

    async def handshake(self, path: str, port: int, *headers: str) -> tuple[int, dict[str, str], bytes]:
        """Ask for a WebSocket."""
        lines = [
            f"GET {path} HTTP/1.1",
            f"Host: 127.0.0.1:{port}",
            "Connection: Upgrade",
            "Upgrade: websocket",
            "Sec-WebSocket-Version: 13",
            f"Sec-WebSocket-Key: {HANDSHAKE_KEY}",
            *headers,
            "",
            "",
        ]
        return await self.request("\n".join(lines))

    def frame(self, opcode: int, payload: bytes = b"", *, masked: bool = True, fin: bool = True) -> None:
        """Send one frame of less than 64 KiB."""
        first = (0x80 if fin else 0) | opcode
        length = len(payload)
        head = (
            bytes([first, (0x80 if masked else 0) | length])
            if length < 126
            else (bytes([first, (0x80 if masked else 0) | 126]) + struct.pack("!H", length))
        )
        if masked:
            mask = os.urandom(4)
            payload = bytes(byte ^ mask[i % 4] for i, byte in enumerate(payload))
            head += mask
        self.writer.write(head + payload)

    def close_frame(self, code: int | None = None, reason: bytes = b"") -> None:
        self.frame(8, b"" if code is None else struct.pack("!H", code) + reason)

    def reset(self) -> None:
        """Drop the connection with RST."""
        sock = self.writer.get_extra_info("socket")
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.writer.transport.abort()

    def finish(self) -> None:
        """Send FIN without any close frame."""
        self.writer.close()
