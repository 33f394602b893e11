"""Collectors that are broken, or nobody's friend: they hold up no end of the process and take none of its memory."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Callable, Iterator

import pytest

from upload_server.process.tracing import Traces

MIB = 1024 * 1024


class Collector:
    """Answers what is sent to it, on one connection after the other, with the pieces that ``answer`` gives."""

    def __init__(self, answer: Callable[[], Iterator[bytes]]) -> None:
        self._answer = answer
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._listener.getsockname()[1]}"
        self.sent = 0
        self.left = threading.Event()
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self) -> None:
        with contextlib.suppress(OSError):
            connection, _ = self._listener.accept()
            with connection, contextlib.suppress(OSError):
                connection.recv(MIB)
                for piece in self._answer():
                    connection.sendall(piece)
                    self.sent += len(piece)
            self.left.set()

    def close(self) -> None:
        self._listener.close()


def _ended(traces: Traces) -> bool:
    """Close, and tell whether that came to an end in some seconds, not in half a minute."""
    closing = threading.Thread(target=traces.close, daemon=True)
    closing.start()
    closing.join(15)
    return not closing.is_alive()


def test_an_answer_that_never_comes_to_its_end_holds_up_no_stop() -> None:
    going_on = threading.Event()

    def dribble() -> Iterator[bytes]:
        yield b"HTTP/1.1 200 OK\r\nX: "
        while not going_on.wait(0.2):
            yield b"x"

    collector = Collector(dribble)
    traces = Traces(collector.url, "1")
    traces.call_finished("GetFile", "OK", 0.0, 0.1, {}, {})
    assert _ended(traces)
    going_on.set()
    assert collector.left.wait(15)
    collector.close()


def test_an_endless_answer_is_not_read(monkeypatch: pytest.MonkeyPatch) -> None:
    def endless() -> Iterator[bytes]:
        yield b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
        for _ in range(1000):
            yield b"100000\r\n" + bytes(MIB) + b"\r\n"

    monkeypatch.setenv("OTEL_BSP_SCHEDULE_DELAY", "10")
    collector = Collector(endless)
    traces = Traces(collector.url, "1")
    traces.call_finished("GetFile", "OK", 0.0, 0.1, {}, {})
    assert collector.left.wait(15)
    # What the system holds for a peer, not what one would read.
    assert collector.sent < 100 * MIB
    assert _ended(traces)
    collector.close()
