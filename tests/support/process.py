"""A real server process on free ports, with its log at hand. Killed with SIGKILL if a test leaves it running."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Protocol, Self

import psutil

START_SECONDS = 30.0
STOP_SECONDS = 30.0

LogLine = dict[str, object]


class ServerProcess:
    """``upload-server serve`` in a process of its own. ``async`` free: usable from any kind of test."""

    # What Python runs before ``serve``.
    program: Sequence[str] = ("-m", "upload_server")
    start_seconds = START_SECONDS

    def __init__(
        self, data_dir: Path, options: Sequence[str] = (), environment: Mapping[str, str] | None = None
    ) -> None:
        self.data_dir = data_dir
        self.log: list[LogLine] = []
        self._news = threading.Condition()
        command = [sys.executable, *self.program, "serve", "--grpc-port", "0", "--http-port", "0"]
        command += ["--data-dir", str(data_dir), "--log-format", "json", *options]
        clean = {name: value for name, value in os.environ.items() if not name.startswith("UPLOAD_")}
        self.popen = subprocess.Popen(
            command, stderr=subprocess.PIPE, stdin=subprocess.DEVNULL, env={**clean, **(environment or {})}
        )
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()
        try:
            serving = self.wait_log(lambda line: line.get("event") == "serving", self.start_seconds)
        except BaseException:
            self.kill()
            raise
        self.grpc_port = int(str(serving["grpc_port"]))
        self.http_port = int(str(serving["http_port"]))

    @property
    def target(self) -> str:
        """Address of the gRPC port."""
        return f"127.0.0.1:{self.grpc_port}"

    @property
    def url(self) -> str:
        """Base URL of the HTTP port."""
        return f"http://127.0.0.1:{self.http_port}"

    @property
    def pid(self) -> int:
        """The process's id."""
        return self.popen.pid

    def wait_log(self, wanted: Callable[[LogLine], bool], seconds: float = 30.0) -> LogLine:
        """Wait for a line of the log, past or to come."""
        deadline = time.monotonic() + seconds
        seen = 0
        with self._news:
            while True:
                for line in self.log[seen:]:
                    if wanted(line):
                        return line
                seen = len(self.log)
                if not self._reader.is_alive() and self.popen.poll() is not None:
                    raise AssertionError(f"the server ended with {self.popen.returncode}: {self.log[-5:]}")
                if not self._news.wait(min(0.5, max(0.0, deadline - time.monotonic()))) and time.monotonic() > deadline:
                    raise AssertionError(f"no such line in the log; its end: {self.log[-5:]}")

    def stored_bytes(self) -> int:
        """Bytes that lie in the sink."""
        folder = self.data_dir / "bytes"
        return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file()) if folder.exists() else 0

    def rss(self) -> int:
        """Resident memory in bytes."""
        return int(psutil.Process(self.pid).memory_info().rss)

    def terminate(self) -> int:
        """SIGTERM, and wait; returns the exit code."""
        if self.popen.poll() is None:
            self.popen.send_signal(signal.SIGTERM)
        return self._wait()

    def kill(self) -> None:
        """SIGKILL, and wait."""
        if self.popen.poll() is None:
            self.popen.kill()
        self._wait()

    def _wait(self) -> int:
        code = self.popen.wait(STOP_SECONDS)
        self._reader.join(STOP_SECONDS)
        if self.popen.stderr is not None:
            self.popen.stderr.close()
        return code

    def _read(self) -> None:
        assert self.popen.stderr is not None
        for raw in self.popen.stderr:
            try:
                line: LogLine = json.loads(raw)
            except ValueError:
                line = {"event": "not json", "text": raw.decode("utf-8", "replace")}
            with self._news:
                self.log.append(line)
                self._news.notify_all()
        with self._news:
            self._news.notify_all()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.kill()


class StartServer(Protocol):
    """The fixture ``start_server``."""

    def __call__(
        self, *options: str, data_dir: Path | None = None, environment: dict[str, str] | None = None
    ) -> ServerProcess:
        """Start a server with these options."""


async def gone_from_disk(server: ServerProcess, file_id: str) -> None:
    """Wait until nothing of a file lies in the sink. A folder tells nobody when it changes: it is looked at again."""
    async with asyncio.timeout(30):
        while list((server.data_dir / "bytes").rglob(f"*{file_id}*")):  # noqa: ASYNC110 - see above
            await asyncio.sleep(0.01)
