"""Uploads over a WebSocket against another checkout of this service, side by side.

Options: ``--mib N`` size of the file (512), ``--rounds N`` repetitions (3; medians are compared), ``--against PATH``
the other checkout, with its own ``.venv``.
"""

from __future__ import annotations

import argparse
import base64
import contextlib
import socket
import struct
import tempfile
import threading
import time
from pathlib import Path

from websockets.speedups import apply_mask

from benchmarks.grpc_upload import MIB, compare, service
from support.process import ServerProcess

_MASK = b"\x12\x34\x56\x78"
_BINARY, _TEXT = 0x82, 0x81
_MOST_16_BIT = 0xFFFF


def frame(opcode: int, payload: bytes) -> bytes:
    """Make a masked frame."""
    size = len(payload)
    if size < 126:
        head = struct.pack("!BB", opcode, 0x80 | size)
    elif size <= _MOST_16_BIT:
        head = struct.pack("!BBH", opcode, 0x80 | 126, size)
    else:
        head = struct.pack("!BBQ", opcode, 0x80 | 127, size)
    return head + _MASK + apply_mask(payload, _MASK)


def send(server: ServerProcess, file_id: str, size: int, chunk: int) -> float:
    """Send one file in frames that are made once: the sender must not be what is measured."""
    key = base64.b64encode(bytes(16)).decode()
    request = f"GET /api/v1/upload/ws/{file_id} HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade\r\n"
    request += f"Upgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: {key}\r\n\r\n"
    heard = bytearray()
    with socket.create_connection(("127.0.0.1", server.http_port)) as page:
        page.sendall(request.encode())
        while b"\r\n\r\n" not in heard:
            heard += page.recv(4096)

        def listen() -> None:
            while b'"success"' not in heard and (data := page.recv(65536)):
                heard.extend(data)

        listening = threading.Thread(target=listen)
        listening.start()
        began = time.perf_counter()
        frames = frame(_BINARY, bytes(chunk)) * (MIB // chunk)
        for _ in range(size // MIB):
            page.sendall(frames)
        page.sendall(frame(_TEXT, b'{"type":"commit"}'))
        listening.join()
        took = time.perf_counter() - began
    assert b'"success"' in heard, heard[-1000:]
    return took


def main() -> None:
    """Measure in turns, and compare medians."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--mib", type=int, default=512)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--against", default="")
    options = parser.parse_args()
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        sides = [stack.enter_context(service(folder / "ours", send, ""))]
        if options.against:
            sides.append(stack.enter_context(service(folder / "theirs", send, options.against)))
        compare(sides, options.mib * MIB, options.rounds)


if __name__ == "__main__":
    main()
