"""A log that is read slowly: it waits in a thread, within a bound, and what is dropped is counted."""

from __future__ import annotations

import contextlib
import io
import os
import subprocess
import sys
import threading
from pathlib import Path

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


# Writes many long lines at once, more than a pipe takes, when told to.
_WRITER = """
import sys
from upload_server.process.log_stream import BackgroundStream

word, turns = sys.argv[1:]
stream = BackgroundStream(sys.stdout)
stream.take_turns(int(turns))
print("here", file=sys.stderr, flush=True)
sys.stdin.read()
for _ in range(1000):
    stream.write(word * 3000 + "\\n")
stream.close()
"""


def test_processes_that_share_a_target_write_whole_lines_in_turns(tmp_path: Path) -> None:
    read, write = os.pipe()
    with (tmp_path / "turns").open("wb") as turns:
        number = turns.fileno()
        writers = [
            subprocess.Popen(
                [sys.executable, "-c", _WRITER, word, str(number)],
                stdin=subprocess.PIPE,
                stdout=write,
                stderr=subprocess.PIPE,
                pass_fds=[number],
            )
            for word in "abcd"
        ]
        os.close(write)
        with contextlib.ExitStack() as running:
            for writer in writers:
                running.enter_context(writer)
                assert writer.stderr is not None
                assert writer.stderr.readline() == b"here\n"
            for writer in writers:
                assert writer.stdin is not None
                writer.stdin.close()
            with os.fdopen(read, "rb") as heard:
                lines = heard.read().splitlines()
    assert len(lines) == 4000
    assert {(len(line), *set(line)) for line in lines} == {(3000, byte) for byte in b"abcd"}
