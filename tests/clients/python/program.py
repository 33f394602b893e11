"""Runs uploadctl as a program: with pipes, signals and terminals."""

from __future__ import annotations

import asyncio
import json
import os
import pty
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from support.process import ServerProcess
from support.proxy import FaultProxy

UPLOADCTL = str(Path(sys.executable).with_name("uploadctl"))
# A program started in the background may be told to ignore Ctrl-C, and children inherit that.
HEARS_CTRL_C = ["env", "--default-signal=INT"]
SECONDS = 60.0


@dataclass(frozen=True)
class Ended:
    """What a finished program said."""

    code: int
    out: str
    err: str

    @property
    def lines(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.out.splitlines()]

    @property
    def notes(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.err.splitlines()]


def environment(server: ServerProcess | FaultProxy | None) -> dict[str, str]:
    clean = {name: value for name, value in os.environ.items() if not name.startswith("UPLOAD_")}
    return {**clean, "UPLOAD_SERVER": server.target} if server else clean


@contextmanager
def started(server: ServerProcess | FaultProxy, *arguments: str) -> Iterator[subprocess.Popen[str]]:
    with subprocess.Popen(
        [*HEARS_CTRL_C, UPLOADCTL, *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment(server),
    ) as process:
        try:
            yield process
        finally:
            process.kill()


async def ended(process: subprocess.Popen[str]) -> Ended:
    out, err = await asyncio.to_thread(process.communicate, None, SECONDS)
    return Ended(process.returncode, out, err)


async def uploadctl(
    server: ServerProcess | None, *arguments: str, stdin: str = "", program: Sequence[str] = (UPLOADCTL,), **env: str
) -> Ended:
    process = await asyncio.create_subprocess_exec(
        *program,
        *arguments,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=environment(server) | env,
    )
    out, err = await asyncio.wait_for(process.communicate(stdin.encode()), SECONDS)
    assert process.returncode is not None
    return Ended(process.returncode, out.decode(errors="surrogateescape"), err.decode(errors="surrogateescape"))


async def on_a_terminal(server: ServerProcess, *arguments: str) -> tuple[int, str]:
    """Run uploadctl on a terminal of 160 columns; returns its exit code and what was shown."""
    master, terminal = pty.openpty()
    process = await asyncio.create_subprocess_exec(
        UPLOADCTL,
        *arguments,
        stdout=terminal,
        stderr=terminal,
        env=environment(server) | {"TERM": "xterm", "COLUMNS": "160"},
    )
    os.close(terminal)

    def read_all() -> bytes:
        text = b""
        try:
            while data := os.read(master, 65536):
                text += data
        except OSError:
            pass  # the other end of a terminal was closed
        return text

    text = await asyncio.wait_for(asyncio.to_thread(read_all), SECONDS)
    os.close(master)
    return await process.wait(), text.decode()
