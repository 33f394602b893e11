"""A tus client that hides nothing, on the real server."""

from __future__ import annotations

import asyncio
import base64
import contextlib
from collections.abc import Callable, Mapping
from typing import Any, Self

import httpx

from support.doors import Json
from support.eventually import eventually
from support.process import ServerProcess

PATH = "/api/v1/tus"
BYTES = "application/offset+octet-stream"


class Tus:
    """Requests of tus 1.0, one by one."""

    def __init__(self, client: httpx.AsyncClient) -> None:
        self.client = client

    async def ask(self, method: str, url: str = PATH, headers: Mapping[str, str] | None = None, **more: Any) -> Any:
        """Send a request; a header given as empty is left out."""
        all_headers = {"Tus-Resumable": "1.0.0", **(headers or {})}
        kept = {name: value for name, value in all_headers.items() if value}
        return await self.client.request(method, url, headers=kept, **more)

    async def create(self, size: int, filename: str = "a.bin", **metadata: str) -> str:
        """Announce a file; returns its URL."""
        answer = await self.ask(
            "POST", headers={"Upload-Length": str(size), "Upload-Metadata": encoded(filename=filename, **metadata)}
        )
        assert answer.status_code == 201, answer.text
        url: str = answer.headers["location"]
        return url

    async def append(self, url: str, offset: int, data: Any, **headers: str) -> Any:
        """Send bytes."""
        named = {"Content-Type": BYTES, "Upload-Offset": str(offset)}
        named |= {name.replace("_", "-"): value for name, value in headers.items()}
        return await self.ask("PATCH", url, named, content=data)

    async def offset(self, url: str) -> int:
        """Ask for the offset."""
        answer = await self.ask("HEAD", url)
        assert (answer.status_code, answer.headers["cache-control"]) == (200, "no-store")
        return int(answer.headers["upload-offset"])

    async def file(self, url: str) -> Json:
        """The file as the service sees it."""
        file: Json = (await self.client.get(f"/api/v1/files/{file_id_of(url)}")).json()
        return file

    def slow(self, url: str, length: int, offset: int = 0, method: str = "PATCH", /, **headers: str) -> Slow:
        """A request to be sent by hand; ``async with`` it."""
        return Slow(self.client.base_url, url or PATH, length, offset, method, **headers)

    async def until_durable(self, url: str, count: int) -> None:
        """Wait until so many bytes are durable."""
        await self._until(url, lambda file: int(file["bytes_received"]) >= count)

    async def until_uploading(self, url: str) -> None:
        """Wait until a stream was opened on a file."""
        await self._until(url, lambda file: file["status"] == "UPLOAD_STATUS_UPLOADING")

    async def _until(self, url: str, wanted: Callable[[Json], bool]) -> None:
        async def holds() -> bool:
            return wanted(await self.file(url))

        await eventually(holds)


class Slow:
    """A request whose body stops half-way: a sender that listens while it sends, as browsers and httpx do not."""

    def __init__(
        self, server: httpx.URL, url: str, length: int, offset: int = 0, method: str = "PATCH", /, **headers: str
    ) -> None:
        self._host, self._port = server.host, server.port
        named = {
            "Host": f"{server.host}:{server.port}",
            "Tus-Resumable": "1.0.0",
            "Content-Type": BYTES,
            "Content-Length": str(length),
            "Upload-Offset": str(offset),
        } | {name.replace("_", "-"): value for name, value in headers.items()}
        if "Transfer-Encoding" in named:
            del named["Content-Length"]
        if method == "POST":
            del named["Upload-Offset"]
        lines = [f"{method} {url} HTTP/1.1", *(f"{name}: {value}" for name, value in named.items()), "", ""]
        self._head = "\r\n".join(lines).encode()

    async def __aenter__(self) -> Self:
        self._reader, self._writer = await asyncio.open_connection(self._host, self._port)
        self._writer.write(self._head)
        return self

    async def __aexit__(self, *_: object) -> None:
        self.cut()

    async def send(self, data: bytes) -> None:
        """Send bytes of the body."""
        self._writer.write(data)
        await self._writer.drain()

    async def ask(self, method: str, url: str) -> httpx.Response:
        """Send another request on the same connection; returns its answer."""
        self._writer.write(
            f"{method} {url} HTTP/1.1\r\nHost: {self._host}:{self._port}\r\nTus-Resumable: 1.0.0\r\n\r\n".encode()
        )
        return await self.answer(of_head=method == "HEAD")

    async def closed(self, seconds: float) -> None:
        """Wait until the server has closed the connection."""
        async with asyncio.timeout(seconds):
            with contextlib.suppress(ConnectionError):
                await self._reader.read()

    def cut(self) -> None:
        """Break the connection."""
        self._writer.transport.abort()

    async def answer(self, seconds: float = 20, *, of_head: bool = False) -> httpx.Response:
        """What the server says."""
        async with asyncio.timeout(seconds):
            head = await self._reader.readuntil(b"\r\n\r\n")
            status, *lines = head.decode().split("\r\n")
            headers = dict(line.split(": ", 1) for line in lines if line)
            length = 0 if of_head else int(headers.get("content-length", "0"))
            body = await self._reader.readexactly(length)
        return httpx.Response(int(status.split()[1]), headers=headers, content=body)


def encoded(**metadata: str) -> str:
    """Metadata as tus has it."""
    return ",".join(f"{key} {base64.b64encode(value.encode()).decode()}" for key, value in metadata.items())


def file_id_of(url: str) -> str:
    """The file's id in an upload's URL."""
    return url.rpartition("/")[2]


def reason(answer: httpx.Response) -> str:
    """The reason in an error; its body must be a Status of ours."""
    assert answer.headers["content-type"] == "application/json"
    assert answer.headers["tus-resumable"] == "1.0.0"
    body = answer.json()
    assert body.keys() == {"code", "message", "details"}
    info = body["details"][0]
    assert info["domain"] == "upload.v1"
    found: str = info["reason"]
    return found


def metadata(answer: httpx.Response) -> dict[str, str]:
    """What an error says besides its reason."""
    found: dict[str, str] = answer.json()["details"][0]["metadata"]
    return found


def tus_on(server: ServerProcess) -> httpx.AsyncClient:
    """Return a client of a server."""
    return httpx.AsyncClient(base_url=server.url, timeout=60)
