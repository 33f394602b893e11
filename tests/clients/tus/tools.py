"""Tools that others wrote: processes with tus-js-client and tuspy, and a browser's page with tus-js-client or Uppy."""

from __future__ import annotations

import asyncio
import http.server
import json
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from clients.tus.client import PATH
from support.doors import Json
from support.wanting import missing

NODE = Path(__file__).parent / "node"
FIRST_NODE = 20


def node() -> str:
    """The Node to run."""
    found = shutil.which("node")
    version = subprocess.check_output([found, "--version"], text=True).removeprefix("v") if found else "0."
    if found is None or int(version.partition(".")[0]) < FIRST_NODE:
        missing(f"needs Node {FIRST_NODE} or newer")
    if not (NODE / "node_modules").exists():
        missing("needs clients of others: npm ci in tests/clients/tus/node")
    return found


class NodeClient:
    """tus-js-client on one upload in a process of its own."""

    def __init__(self, endpoint: str, size: int, **more: Any) -> None:
        self._node = node()
        self._order = json.dumps({"endpoint": endpoint, "size": size, **more})
        self.heard: list[Json] = []

    async def __aenter__(self) -> Self:
        self._process = await asyncio.create_subprocess_exec(
            self._node, "client.mjs", self._order, cwd=NODE, stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._process.returncode is None:
            self._process.kill()
        await self._process.communicate()

    def say(self, line: str) -> None:
        """Tell it to go on, or to end."""
        assert self._process.stdin is not None
        self._process.stdin.write(f"{line}\n".encode())

    async def hear(self, *events: str, seconds: float = 60) -> Json:
        """Return the next event of these kinds, passing over others."""
        assert self._process.stdout is not None
        async with asyncio.timeout(seconds):
            while line := await self._process.stdout.readline():
                self.heard.append(json.loads(line))
                if self.heard[-1]["event"] in events:
                    return self.heard[-1]
        raise AssertionError(f"it ended: {self.heard}")

    def answers(self, method: str) -> list[int]:
        """Statuses of what it was answered so far."""
        return [one["status"] for one in self.heard if one["event"] == "answer" and one["method"] == method]


async def tuspy(url: str, *arguments: str | Path) -> Json:
    """Run the script to its end; returns what it says."""
    program = Path(__file__).parent / "tuspy_client.py"
    command = [sys.executable, str(program), f"{url}{PATH}", *map(str, arguments)]
    process = await asyncio.create_subprocess_exec(*command, stdout=asyncio.subprocess.PIPE)
    said, _ = await process.communicate()
    answer: Json = json.loads(said)
    return answer


@contextmanager
def client_page(folder: Path, client: str) -> Iterator[str]:
    """Serve a page with ``uppy`` or ``tus`` (tus-js-client) from an origin of its own; yields the origin."""
    node()
    build = ["node_modules/.bin/esbuild", f"{client}.mjs", "--bundle", "--log-level=error", "--format=iife"]
    subprocess.run([*build, f"--outfile={folder / 'client.js'}"], cwd=NODE, check=True)
    (folder / "index.html").write_text("<!doctype html><title>A client</title><script src=client.js></script>")
    with _Files(folder) as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{server.server_address[1]}"
        server.shutdown()
        thread.join()


class _Files(http.server.ThreadingHTTPServer):
    def __init__(self, folder: Path) -> None:
        self._folder = folder
        super().__init__(("127.0.0.1", 0), _Quiet)

    def finish_request(self, request: Any, client_address: Any) -> None:
        _Quiet(request, client_address, self, directory=str(self._folder))


class _Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *_: object) -> None:
        """Say nothing."""
