"""A server that is used badly for a long time: cancelled uploads and broken watches by the thousand, then a look at it.

Memory is judged by its slope after a warm-up, everything else by being back where it was.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import random
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any

import grpc
import httpx
from websockets.asyncio.client import connect
from websockets.exceptions import WebSocketException

from robustness.faults.vitals import Vitals, come_to_rest, vitals
from support.doors import GrpcDoor, HttpDoor, Refusal
from support.process import ServerProcess
from upload.v1 import upload_pb2 as pb
from upload.v1 import upload_pb2_grpc

# What a connection's ways of ending may be; whatever else comes out is a failure of the soak.
_EXPECTED = (grpc.aio.AioRpcError, httpx.TransportError, WebSocketException, OSError, Refusal)
_CHUNK = bytes(64 * 1024)
_SIZE = 4 * 1024 * 1024


@dataclass
class Figures:
    """What a soak has done and found. Memory is in bytes, the slope in bytes a deed."""

    deeds: int = 0
    by_kind: dict[str, int] = field(default_factory=dict)
    # (deeds, rss) after the warm-up.
    memory: list[tuple[int, int]] = field(default_factory=list)
    baseline: Vitals | None = None
    rest: Vitals | None = None

    @property
    def slope(self) -> float:
        """Bytes of memory a deed has cost, by least squares."""
        count = len(self.memory)
        if count < 2:
            return 0.0
        x0 = sum(x for x, _ in self.memory) / count
        y0 = sum(y for _, y in self.memory) / count
        spread = sum((x - x0) ** 2 for x, _ in self.memory)
        return sum((x - x0) * (y - y0) for x, y in self.memory) / spread if spread else 0.0

    def __str__(self) -> str:
        kinds = ", ".join(f"{count} {kind}" for kind, count in sorted(self.by_kind.items()))
        grown = (self.memory[-1][1] - self.memory[0][1]) / 2**20 if self.memory else 0.0
        return (
            f"{self.deeds} deeds ({kinds}); memory grew by {grown:.1f} MiB after the warm-up, {self.slope:.0f} bytes a "
            f"deed; at first {self.baseline}, at rest {self.rest}"
        )


class Soaker:
    """Everything bad that clients do, in turn."""

    def __init__(self, server: ServerProcess, seed: str) -> None:
        self._server = server
        self._random = random.Random(seed)
        self._channel = self._connect()
        self._http = httpx.AsyncClient(base_url=server.url, timeout=20)
        self._door = GrpcDoor(self._channel)
        self._http_door = HttpDoor(self._http)
        self.deeds: dict[str, Callable[[], Awaitable[None]]] = {
            "uploads cancelled": self.cancelled_upload,
            "uploads broken": self.broken_upload,
            "watches broken": self.broken_watch,
            "HTTP watches broken": self.broken_http_watch,
            "WebSockets broken": self.broken_socket,
            "connections broken": self.broken_connection,
            "cancels given up": self.given_up_cancel,
        }

    def _connect(self) -> grpc.aio.Channel:
        return grpc.aio.insecure_channel(self._server.target, options=[("grpc.use_local_subchannel_pool", 1)])

    async def close(self) -> None:
        """Close what is kept open between deeds."""
        await self._http.aclose()
        await self._channel.close()

    async def cancel_the_rest(self) -> None:
        """Cancel what broke before its own deed came to that."""
        for status in ("UPLOAD_STATUS_PENDING", "UPLOAD_STATUS_UPLOADING"):
            while files := (await self._door.call("ListFiles", status=status, page_size=1000))["files"]:
                for file in files:
                    await self._door.call("CancelFile", file_id=file["file_id"])

    async def _initiate(self) -> str:
        made = await self._door.call("InitiateUpload", filename="soak.bin", size_bytes=_SIZE)
        return str(made["file"]["file_id"])

    def _upload(self, channel: grpc.aio.Channel, file_id: str, chunks: int) -> Any:
        """An UploadFile call that sends so many chunks and then says nothing more."""

        async def requests() -> Any:
            yield pb.UploadFileRequest(header=pb.UploadHeader(file_id=file_id))
            for _ in range(chunks):
                yield pb.UploadFileRequest(data=_CHUNK)
            await asyncio.sleep(5)

        return upload_pb2_grpc.UploadServiceStub(channel).UploadFile(requests())

    async def cancelled_upload(self) -> None:
        """Cancelled by somebody else while its bytes come."""
        file_id = await self._initiate()
        call = self._upload(self._channel, file_id, self._random.randrange(4))
        await call.read()
        await (self._door, self._http_door)[self._random.randrange(2)].call("CancelFile", file_id=file_id)
        with contextlib.suppress(grpc.aio.AioRpcError):
            while (message := await call.read()) is not grpc.aio.EOF and message.WhichOneof("message") != "stopped":
                pass
        call.cancel()

    async def broken_upload(self) -> None:
        """The RPC is given up; the file is cancelled for it later."""
        file_id = await self._initiate()
        call = self._upload(self._channel, file_id, self._random.randrange(4))
        if self._random.random() < 0.8:
            await call.read()
        call.cancel()
        await self._door.call("CancelFile", file_id=file_id)

    async def broken_watch(self) -> None:
        """Left after a message or none."""
        stub = upload_pb2_grpc.UploadServiceStub(self._channel)
        call: Any = stub.WatchStatus(pb.WatchStatusRequest(all=True))
        if self._random.random() < 0.7:
            await call.read()
        call.cancel()

    async def broken_http_watch(self) -> None:
        """The same as events over HTTP."""
        headers = {"accept": "text/event-stream"}
        async with self._http.stream("GET", "/api/v1/watch?all=true", headers=headers) as response:
            async for _ in response.aiter_lines():
                return

    async def broken_socket(self) -> None:
        """A page that sends, then leaves with a close frame or without one."""
        url = f"{self._server.url.replace('http', 'ws', 1)}/api/v1/upload/ws/{await self._initiate()}"
        async with connect(url, compression=None, proxy=None) as socket:
            await socket.send(_CHUNK)
            if self._random.random() < 0.5:
                await socket.recv()
            if self._random.random() < 0.5:
                socket.transport.abort()

    async def broken_connection(self) -> None:
        """A whole connection with an upload and a watch on it goes at once."""
        file_id = await self._initiate()
        async with self._connect() as channel:
            call = self._upload(channel, file_id, 2)
            watch: Any = upload_pb2_grpc.UploadServiceStub(channel).WatchStatus(
                pb.WatchStatusRequest(file_ids=[file_id])
            )
            await watch.read()
            if self._random.random() < 0.5:
                await call.read()
        await self._door.call("CancelFile", file_id=file_id)

    async def given_up_cancel(self) -> None:
        """A cancel whose caller does not wait for the answer."""
        file_id = await self._initiate()
        call = upload_pb2_grpc.UploadServiceStub(self._channel).CancelFile(pb.CancelFileRequest(file_id=file_id))
        await asyncio.sleep(self._random.random() * 0.002)
        call.cancel()


async def _worker(soaker: Soaker, figures: Figures, until: Callable[[], bool], turns: itertools.count[int]) -> None:
    kinds = list(soaker.deeds)
    while not until():
        kind = kinds[next(turns) % len(kinds)]
        with contextlib.suppress(*_EXPECTED):
            async with asyncio.timeout(30):
                await soaker.deeds[kind]()
        figures.deeds += 1
        figures.by_kind[kind] = figures.by_kind.get(kind, 0) + 1


async def _all_workers(soaker: Soaker, figures: Figures, until: Callable[[], bool], workers: int) -> None:
    turns = itertools.count()
    async with asyncio.TaskGroup() as group:
        for _ in range(workers):
            group.create_task(_worker(soaker, figures, until, turns))


async def soak(server: ServerProcess, seconds: float, *, workers: int = 12, seed: str = "soak") -> Figures:
    """Soak a server for so long; a quarter is the warm-up. Raises AssertionError when it does not come to rest."""
    soaker = Soaker(server, seed)
    figures = Figures()
    try:
        end = time.monotonic() + seconds / 4
        await _all_workers(soaker, Figures(), lambda: time.monotonic() > end, workers)
        figures.baseline = await _settled(server)
        # In rounds, each to its rest: what is only busy is no leak.
        for _ in range(6):
            end = time.monotonic() + seconds / 8
            await _all_workers(soaker, figures, lambda until=end: time.monotonic() > until, workers)  # type: ignore[misc]
            figures.rest = await come_to_rest(server, figures.baseline, seconds=30, spare=12)
            figures.memory.append((figures.deeds, figures.rest.rss))
        await soaker.cancel_the_rest()
    finally:
        await soaker.close()
    return figures


async def _settled(server: ServerProcess) -> Vitals:
    """Wait until nothing is open."""
    async with asyncio.timeout(30):
        while any((found := await vitals(server)).open):  # noqa: ASYNC110 - another process
            await asyncio.sleep(0.1)
    return found
