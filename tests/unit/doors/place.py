"""The WebSocket door on a real port over the real ingest, store and disk."""

from __future__ import annotations

import asyncio
import json
import uuid
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import websockets

from support.stores import url_in
from upload_server.domain.caller import Caller
from upload_server.domain.errors import ShuttingDown
from upload_server.domain.states import File, FileSpec, FileStatus, Source
from upload_server.doors.admission import Admission, Gate
from upload_server.doors.calls import Calls
from upload_server.doors.http.app import WebApp
from upload_server.doors.http.asgi import Receive, Scope, Send, respond
from upload_server.doors.http.guard import Guard
from upload_server.doors.http.pages import default_pages
from upload_server.doors.http.server import HttpServer, bind
from upload_server.doors.websocket import WebSocketDoor
from upload_server.ingest import Ingest
from upload_server.process import Metrics
from upload_server.service import Uploads
from upload_server.sink.disk.sink import DiskSink
from upload_server.store.open import open_store
from upload_server.store.protocol import Store
from upload_server.store.values import Commit, Targets
from upload_server.upkeep.janitor import Janitor
from upload_server.watch import WatchHub

WAIT = 30.0
ANYBODY = Caller(Source.HTTP)
Json = dict[str, Any]


async def no_transcoder(_scope: Scope, _receive: Receive, send: Send) -> None:
    await respond(send, 404, b"{}")


class Place:
    """One node: make it with ``Place.open``."""

    def __init__(self, store: Store, folder: Path, **options: float) -> None:
        clock = lambda: datetime.now(UTC)  # noqa: E731 - a clock is a function
        self.store = store
        self.sink = DiskSink(folder / "bytes")
        self.metrics = Metrics()
        self.hub = WatchHub(store, history=100, bookmark_interval=15, observer=self.metrics)
        self.ingest = Ingest(
            store, self.sink, clock=clock, on_progress=self.hub.publish_progress, observer=self.metrics
        )
        self.janitor = Janitor(
            store, self.sink, self.ingest, clock=clock, upload_ttl=3600, request_ttl=3600, observer=self.metrics
        )
        self.uploads = Uploads(
            store,
            self.ingest,
            self.hub,
            clock=clock,
            new_id=lambda: str(uuid.uuid4()),
            max_file_bytes=1 << 40,
            observer=self.metrics,
        )
        store.on_commit(self._on_commit)
        max_sockets = int(options.pop("max_sockets", 20))
        self.options: dict[str, Any] = {
            "grace_seconds": 0.3,
            "max_grace_seconds": 3600,
            "idle_seconds": 60.0,
            **options,
        }
        self.admission = Admission({Gate.WEBSOCKET: max_sockets})
        calls = Calls(Source.WEBSOCKET, self.admission, self.metrics, timeout=30)
        self.door = WebSocketDoor(self.uploads, self.ingest, calls, clock=clock, observer=self.metrics, **self.options)
        web = WebApp(
            transcoder=no_transcoder,
            websocket=self.serve_socket,
            ready=store.ping,
            metrics=self.metrics,
            calls=calls,
            pages=default_pages(),
        )
        self.http = HttpServer(Guard(web), bind("127.0.0.1", 0), memory=self.ingest.memory)

    async def serve_socket(self, file_id: str, scope: Scope, receive: Receive, send: Send) -> None:
        """By the door of now: tests may change it."""
        await self.door(file_id, scope, receive, send)

    def _on_commit(self, commits: Sequence[Commit]) -> None:
        self.hub.nudge()
        self.janitor.nudge_if_owed(commits)

    @classmethod
    @asynccontextmanager
    async def open(cls, folder: Path, **options: float) -> AsyncIterator[Place]:
        store = await open_store(url_in(folder))
        place = cls(store, folder, **options)
        runs = (place.hub.run(), place.janitor.run(), place.door.run())
        tasks = [asyncio.create_task(run) for run in runs]
        try:
            await place.http.start()
            yield place
        finally:
            await place.drain()
            await place.http.stop()
            await place.ingest.aclose()
            for task in tasks:
                task.cancel()
            await asyncio.wait(tasks)
            await store.close()
        for task in tasks:
            assert task.cancelled() or task.result() is None

    async def drain(self) -> None:
        """End every socket, as a server does that drains without a grace."""
        self.door.drain()
        self.admission.close()
        self.hub.close()
        self.ingest.stop_all(ShuttingDown())
        async with asyncio.timeout(WAIT):
            await self.admission.wait_empty()
            await self.door.finish()

    # What tests do -------------------------------------------------------------------------------------------------

    async def announce(self, size: int, sha256: str = "") -> File:
        return await self.uploads.initiate_upload(FileSpec("a.bin", size, "", sha256), "", ANYBODY)

    async def get(self, file_id: str) -> File:
        return await self.uploads.get_file(file_id, ANYBODY)

    async def until_final(self, file_id: str) -> File:
        """Wait until a file is final."""
        targets = Targets(file_ids=frozenset({file_id}))
        async with asyncio.timeout(WAIT):
            async for _ in self.uploads.watch(targets, "", 0, ANYBODY, until_final=True):
                pass
        return await self.get(file_id)

    async def until_deleted(self, file_id: str) -> None:
        """Wait until nothing of a file is on the disk."""
        async with asyncio.timeout(WAIT):
            while any(one.file_id == file_id for one in self.sink.stored()):  # noqa: ASYNC110 - a folder has no event
                await asyncio.sleep(0.01)

    async def until_closed(self, file_id: str) -> None:
        """Wait until no stream can touch a file."""
        async with asyncio.timeout(WAIT):
            await self.ingest.wait_closed(file_id)

    async def until_claimed(self, file_id: str, fence: int = 1) -> None:
        """Wait until a socket has claimed a file."""
        async with asyncio.timeout(WAIT):
            while (await self.get(file_id)).fence < fence:  # noqa: ASYNC110 - a take-over is no change that is told
                await asyncio.sleep(0.01)

    async def until_sockets(self, at_most: int) -> None:
        """Wait until the door has done with all sockets but so many."""
        async with asyncio.timeout(WAIT):
            while self._open_sockets() > at_most:  # noqa: ASYNC110 - no event from outside
                await asyncio.sleep(0.01)

    def _open_sockets(self) -> float:
        return self.metrics.registry.get_sample_value("upload_open_websockets") or 0

    async def grace_over(self) -> None:
        """Put the door's clock on by the grace of lost sockets: what is tested is that nothing happens then."""
        cancels = self.door._cancels
        cancels._epoch += timedelta(seconds=self.options["grace_seconds"] + 1)
        await cancels._carry_out()
        await self.store.drain()

    def uri(self, file_id: str, query: str = "") -> str:
        return f"ws://127.0.0.1:{self.http.port}/api/v1/upload/ws/{file_id}{query}"

    async def page(self, file_id: str, query: str = "") -> Page:
        return Page(await websockets.connect(self.uri(file_id, query), max_size=None))

    async def writer(self, file_id: str, query: str = "") -> Page:
        """A page that has begun to send: an empty message is one."""
        before = (await self.get(file_id)).fence
        page = await self.page(file_id, query)
        await page.hear("progress")
        await page.send(b"")
        await self.until_claimed(file_id, before + 1)
        return page


class Page:
    """A browser page, as far as it matters."""

    def __init__(self, socket: websockets.ClientConnection) -> None:
        self.socket = socket
        self.heard: list[Json] = []

    async def send(self, data: bytes) -> None:
        await self.socket.send(data)

    async def say(self, **message: object) -> None:
        await self.socket.send(json.dumps(message))

    async def hear(self, kind: str) -> Json:
        """Read messages up to one of this type."""
        async with asyncio.timeout(WAIT):
            while True:
                message: Json = json.loads(await self.socket.recv())
                self.heard.append(message)
                if message["type"] == kind:
                    return message

    async def end(self) -> tuple[Json, int]:
        """Read to the end; returns the last message and the code of the server's close frame."""
        async with asyncio.timeout(WAIT):
            try:
                while True:
                    self.heard.append(json.loads(await self.socket.recv()))
            except websockets.ConnectionClosed as closed:
                if closed.rcvd is None:
                    raise
                return self.heard[-1], closed.rcvd.code

    async def error(self) -> tuple[str, int]:
        """Read to the end; returns the reason of the error that must be last, and the close code."""
        last, code = await self.end()
        assert last["type"] == "error", last
        return str(last["error"]["details"][0]["reason"]), code

    async def close(self, code: int = 1000, reason: str = "") -> None:
        await self.socket.close(code, reason)


def is_uploading(file: File) -> bool:
    return file.status is FileStatus.UPLOADING
