"""A real headless browser, driven over its DevTools protocol: what a page asked for, complained of and shows."""

from __future__ import annotations

import asyncio
import json
import re
import shutil
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from websockets.asyncio.client import ClientConnection, connect

Json = dict[str, Any]

PROGRAM = shutil.which("chromium")
_START_SECONDS = 30.0
# No sandbox: CI runs as root. Nothing of the browser's own goes out.
_OPTIONS = (
    "--headless=new",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--window-size=1400,1000",
    "--remote-debugging-port=0",
)


@dataclass
class Tab:
    """One page of the browser."""

    socket: ClientConnection
    session: str
    requests: list[str] = field(default_factory=list)
    complaints: list[str] = field(default_factory=list)
    _last: int = 0

    async def call(self, method: str, **params: Any) -> Json:
        """Call a method of the protocol, noting events that come meanwhile."""
        self._last += 1
        message = {"id": self._last, "method": method, "params": params}
        if self.session:
            message["sessionId"] = self.session
        await self.socket.send(json.dumps(message))
        while True:
            answer: Json = json.loads(await self.socket.recv())
            if answer.get("id") == self._last:
                assert "error" not in answer, answer
                return dict(answer["result"])
            self._note(answer)

    def _note(self, event: Json) -> None:
        method, params = event.get("method"), event.get("params", {})
        if method == "Network.requestWillBeSent":
            self.requests.append(params["request"]["url"])
        elif method == "Log.entryAdded" and params["entry"]["level"] in {"error", "warning"}:
            self.complaints.append(params["entry"]["text"])
        elif method == "Runtime.consoleAPICalled" and params["type"] in {"error", "warning", "assert"}:
            self.complaints.append(str(params["args"]))
        elif method == "Runtime.exceptionThrown":
            self.complaints.append(str(params["exceptionDetails"]))

    async def evaluate(self, expression: str) -> Any:
        """Value of a JavaScript expression; a promise is awaited."""
        answer = await self.call("Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in answer, answer["exceptionDetails"]
        return answer["result"].get("value")

    async def wait_for(self, expression: str, seconds: float = 20.0) -> None:
        """Wait until an expression is true, asked at every frame of the page."""
        frames = f"""new Promise((resolve, reject) => {{
            const end = performance.now() + {seconds * 1000};
            const look = () => ({expression}) ? resolve(true)
                : performance.now() > end ? reject(new Error("it never came true"))
                : requestAnimationFrame(look);
            look();
        }})"""
        await self.evaluate(frames)


@asynccontextmanager
async def open_tab(url: str) -> AsyncIterator[Tab]:
    """Start a browser with a profile of its own and open ``url`` in it; both are gone afterwards."""
    assert PROGRAM is not None
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile:
        process = await asyncio.create_subprocess_exec(
            PROGRAM, *_OPTIONS, f"--user-data-dir={Path(profile)}", "about:blank", stderr=asyncio.subprocess.PIPE
        )
        try:
            assert process.stderr is not None
            async with asyncio.timeout(_START_SECONDS):
                address = await _address(process.stderr)
            async with connect(address, max_size=None) as socket:
                browser = Tab(socket, "")
                target = (await browser.call("Target.createTarget", url="about:blank"))["targetId"]
                attached = await browser.call("Target.attachToTarget", targetId=target, flatten=True)
                tab = Tab(socket, attached["sessionId"], _last=browser._last)
                for domain in ("Network", "Log", "Runtime", "Page"):
                    await tab.call(f"{domain}.enable")
                await tab.call("Page.navigate", url=url)
                yield tab
        finally:
            process.kill()
            await process.communicate()


async def _address(output: asyncio.StreamReader) -> str:
    while line := (await output.readline()).decode():
        if match := re.search(r"DevTools listening on (ws://\S+)", line):
            return match[1]
    raise AssertionError("chromium ended before it listened")
