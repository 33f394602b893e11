"""A log that is read slowly: it waits in a thread, within a bound, and what is dropped is counted."""

from __future__ import annotations

import io
import threading

from upload_server.process import BackgroundStream


class SlowStream(io.StringIO):
    """A stream whose reader does not read until told to."""

    def __init__(self) -> None:
        super().__init__()
        self.begun = threading.Event()
        self.go_on = threading.Event()

    def write(self, text: str) -> int:
        self.begun.set()
        assert self.go_on.wait(10)
        return super().write(text)


def test_lines_come_in_order_and_closing_writes_them_all() -> None:
    target = io.StringIO()
    stream = BackgroundStream(target)
    for number in range(1000):
        stream.write(f"{number}\n")
    stream.close()
    assert target.getvalue().split() == [str(number) for number in range(1000)]


def test_a_reader_that_does_not_read_holds_up_nobody_and_costs_a_bound() -> None:
    target = SlowStream()
    stream = BackgroundStream(target, max_waiting=10)
    stream.write("first\n")
    assert target.begun.wait(10)
    for number in range(30):
        stream.write(f"{number}\n")
    target.go_on.set()
    stream.close()
    lines = target.getvalue().splitlines()
    assert lines[:11] == ["first", *(str(number) for number in range(10))]
    assert '"lines":20' in lines[-1]


def test_a_stream_that_is_gone_breaks_nothing() -> None:
    target = io.StringIO()
    target.close()
    stream = BackgroundStream(target)
    stream.write("nobody hears\n")
    stream.close()
