"""Drives an ASGI app in memory, byte for byte: no client library in between tidies a URL."""

import asyncio
import json
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import unquote

HeaderItems = Iterable[tuple[str, str]]


@dataclass
class Answer:
    """What the app sent."""

    status: int = 0
    headers: list[tuple[str, str]] = field(default_factory=list)
    chunks: list[bytes] = field(default_factory=list)
    complete: bool = False

    @property
    def body(self) -> bytes:
        return b"".join(self.chunks)

    def header(self, name: str) -> str | None:
        return next((value for key, value in self.headers if key == name), None)

    def all(self, name: str) -> list[str]:
        return [value for key, value in self.headers if key == name]

    def json(self) -> Any:
        return json.loads(self.body)

    def lines(self) -> list[Any]:
        return [json.loads(line) for line in self.body.splitlines()]


class Exchange:
    """One request whose body, disconnect and pace of reading the test decides."""

    def __init__(self, app: Any, method: str, target: str, headers: HeaderItems = (), root_path: str = "") -> None:
        path, _, query = target.partition("?")
        self.answer = Answer()
        self.incoming: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
        self.sent = asyncio.Condition()
        self.may_send = asyncio.Event()
        self.may_send.set()
        self._app = app
        self._scope = {
            "type": "http",
            "asgi": {"version": "3.0"},
            "http_version": "1.1",
            "method": method,
            "scheme": "http",
            "path": unquote(root_path + path),
            "raw_path": (root_path + path).encode("latin-1"),
            "query_string": query.encode("latin-1"),
            "root_path": root_path,
            "headers": [(key.lower().encode(), value.encode("latin-1")) for key, value in headers],
            "client": ("192.0.2.7", 4711),
            "server": ("127.0.0.1", 80),
        }

    def feed(self, body: bytes = b"", *, more: bool = False) -> None:
        self.incoming.put_nowait({"type": "http.request", "body": body, "more_body": more})

    def disconnect(self) -> None:
        self.incoming.put_nowait({"type": "http.disconnect"})

    async def run(self) -> Answer:
        await self._app(self._scope, self.incoming.get, self._send)
        return self.answer

    async def chunks(self, count: int) -> None:
        """Waits until the app has sent that many non-empty chunks."""
        async with self.sent:
            await self.sent.wait_for(lambda: len(self.answer.chunks) >= count)

    async def _send(self, message: dict[str, Any]) -> None:
        await self.may_send.wait()
        async with self.sent:
            if message["type"] == "http.response.start":
                assert not self.answer.status
                self.answer.status = message["status"]
                self.answer.headers = [(key.decode(), value.decode()) for key, value in message["headers"]]
            else:
                assert self.answer.status
                assert not self.answer.complete
                if message.get("body"):
                    self.answer.chunks.append(message["body"])
                self.answer.complete = not message.get("more_body", False)
            self.sent.notify_all()


async def request(
    app: Any,
    method: str,
    target: str,
    body: bytes | str | dict[str, Any] | list[Any] = b"",
    headers: HeaderItems = (),
    *,
    root_path: str = "",
) -> Answer:
    """One plain request; a dict or list is sent as JSON."""
    if isinstance(body, dict | list):
        body = json.dumps(body)
    if isinstance(body, str):
        body = body.encode()
    exchange = Exchange(app, method, target, headers, root_path)
    exchange.feed(body)
    answer = await exchange.run()
    if answer.complete and (length := answer.header("content-length")) is not None and method != "HEAD":
        assert int(length) == len(answer.body)
    return answer
