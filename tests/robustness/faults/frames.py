"""Bytes that a hostile peer sends: HTTP/2 frames made by hand, and WebSocket frames that are not what they say."""

from __future__ import annotations

import re
import struct

from h2.connection import H2Connection
from hpack import Encoder, NeverIndexedHeaderTuple

DATA, HEADERS, RST, SETTINGS, PING, GOAWAY, WINDOW_UPDATE, CONTINUATION = 0, 1, 3, 4, 6, 7, 8, 9
PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
ACK, END_STREAM, END_HEADERS = 1, 1, 4
FRAME_HEAD_BYTES = 9
_MOST_IN_A_FRAME = 16_000
_SAID_GOAWAY = re.compile(rb"\x07\x00\x00\x00\x00\x00.{4}\x00\x00\x00(.)([ -~]*)", re.DOTALL)


def frame(kind: int, flags: int, stream: int, payload: bytes = b"") -> bytes:
    """An HTTP/2 frame."""
    return struct.pack("!I", len(payload))[1:] + struct.pack("!BBI", kind, flags, stream) + payload


def greeting() -> bytes:
    """What a client's connection begins with."""
    connection = H2Connection()
    connection.initiate_connection()
    return bytes(connection.data_to_send())


def header_block(*headers: tuple[str, str]) -> bytes:
    """A header block that can be sent on every stream: nothing in it is indexed."""
    return Encoder().encode([NeverIndexedHeaderTuple(name, value) for name, value in headers], huffman=False)


def call_headers(method: str, *more: tuple[str, str]) -> bytes:
    """The header block of a call of ours."""
    return header_block(
        (":method", "POST"),
        (":scheme", "http"),
        (":path", f"/upload.v1.UploadService/{method}"),
        (":authority", "localhost"),
        ("content-type", "application/grpc"),
        ("te", "trailers"),
        *more,
    )


def call_without_body(stream: int, block: bytes) -> bytes:
    """A call that consists of headers, in as many frames as they need."""
    pieces = [block[start : start + _MOST_IN_A_FRAME] for start in range(0, len(block), _MOST_IN_A_FRAME)]
    last = len(pieces) - 1
    return b"".join(
        frame(
            CONTINUATION if i else HEADERS, (0 if i else END_STREAM) | (END_HEADERS if i == last else 0), stream, each
        )
        for i, each in enumerate(pieces)
    )


def message(payload: bytes) -> bytes:
    """A message of a call, as gRPC frames it: not compressed, and its length."""
    return b"\0" + struct.pack("!I", len(payload)) + payload


def goodbye(heard: bytes) -> str:
    """How a server ended the connection whose last bytes are these: its GOAWAY, its HTTP status, or nothing."""
    if heard.startswith(b"HTTP/"):
        return heard.split(b"\r\n", 1)[0].decode("ascii", "replace")
    if found := _SAID_GOAWAY.findall(heard):
        code, text = found[-1]
        return f"GOAWAY {code[0]} {text.decode('ascii')}".strip()
    return "closed"


def handshake(file_id: str) -> bytes:
    """The request that opens the WebSocket of a file."""
    return (
        f"GET /api/v1/upload/ws/{file_id} HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
        "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
    ).encode()


LIES: tuple[bytes, ...] = (
    # Masked, binary, of 2^63 - 1 bytes; of 2^64 - 1; of 1 GiB; text of 70 KiB that says so in 64 bits.
    b"\x82\xff" + struct.pack("!Q", (1 << 63) - 1) + b"mask" + b"a" * 1000,
    b"\x82\xff" + struct.pack("!Q", (1 << 64) - 1) + b"mask" + b"a" * 1000,
    b"\x82\xff" + struct.pack("!Q", 1 << 30) + b"mask" + b"a" * 1000,
    b"\x81\xff" + struct.pack("!Q", 70_000) + b"mask" + b"a" * 1000,
    # Unmasked; with reserved bits; an unknown kind; a fragmented ping; a ping of 200 bytes; a continuation of nothing.
    b"\x82\x05abcde",
    b"\xf2\x85maskabcde",
    b"\x83\x85maskabcde",
    b"\x09\x80mask",
    b"\x89\xfe\x00\xc8mask" + b"a" * 200,
    b"\x80\x85maskabcde",
    # A close frame of one byte, and one with a code that must not be sent.
    b"\x88\x81maska",
    b"\x88\x82mask" + bytes(a ^ b for a, b in zip(struct.pack("!H", 1006), b"ma", strict=True)),
)
