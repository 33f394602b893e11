"""Attacks of a client that speaks gRPC and HTTP well, and whose messages are the trouble."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import random
from collections.abc import Callable, Iterable

import grpc
import httpx

from robustness.faults.attacks.target import Target
from upload.v1 import upload_pb2 as pb
from upload.v1 import upload_pb2_grpc

_SERVICE = "/upload.v1.UploadService/"
_LARGEST = 8 * 2**20 - 4096
_OPEN = [("grpc.max_send_message_length", -1), ("grpc.max_receive_message_length", -1)]


def _long_names(count: int) -> pb.InitiateBatchRequest:
    """The largest rows there are."""
    return pb.InitiateBatchRequest(
        files=[pb.FileSpec(filename=f"{i:05}" + "a" * 250, content_type="a" * 127, size_bytes=1) for i in range(count)]
    )


async def fill(target: Target) -> None:
    """Announce a thousand files whose names are as long as may be, for pages to be large."""
    async with grpc.aio.insecure_channel(f"127.0.0.1:{target.grpc_port}") as channel:
        await upload_pb2_grpc.UploadServiceStub(channel).InitiateBatch(_long_names(1000), wait_for_ready=True)


async def _call(target: Target, requests: Iterable[tuple[str, bytes]], compression: grpc.Compression) -> None:
    """Make calls one after the other on a connection of their own; refusals are what one expects."""
    address = f"127.0.0.1:{target.grpc_port}"
    async with grpc.aio.insecure_channel(address, options=_OPEN, compression=compression) as channel:
        methods: dict[str, Callable[..., grpc.aio.UnaryUnaryCall[bytes, bytes]]] = {}
        for method, body in requests:
            if target.over:
                return
            call = methods.setdefault(method, channel.unary_unary(_SERVICE + method))
            try:
                await call(body, timeout=target.seconds_left + 1)
                target.ends["OK"] += 1
            except grpc.aio.AioRpcError as error:
                target.ends[error.code().name] += 1
            await target.struck("messages")


async def _post(target: Target, bodies: Iterable[tuple[str, bytes]]) -> None:
    async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{target.http_port}", timeout=30) as client:
        for path, body in bodies:
            if target.over:
                return
            with contextlib.suppress(httpx.HTTPError):
                async with asyncio.timeout(target.seconds_left + 1):
                    answer = await client.post(path, content=body, headers={"content-type": "application/json"})
                target.ends[f"{answer.status_code}"] += 1
            await target.struck("bodies")


async def many_elements(target: Target) -> None:
    """Messages of as many empty elements, and of as many unknown fields, as fit: 512 KiB, 8 MiB, and 8 MiB in gzip."""
    half, whole = (b"\x0a\x00" * (size // 2) for size in (2**19, _LARGEST))
    unknown = b"\xf8\x07\x00" * (_LARGEST // 3)
    words = [(b"\x0a\x00" * 32_000)]
    small = [(method, words[0]) for method in ("WatchStatus", "CancelFile", "ListFiles")]
    large = [("InitiateBatch", half), ("InitiateBatch", whole), ("InitiateBatch", unknown), *small]
    target.begin()
    await asyncio.gather(
        _call(target, itertools.cycle(large), grpc.Compression.NoCompression),
        _call(target, itertools.cycle(large), grpc.Compression.Gzip),
    )


async def many_values(target: Target) -> None:
    """JSON bodies of as many values as fit: empty files, unknown keys, deep lists, digits, escapes."""
    room = _LARGEST
    files = b'{"files":[' + b"{}," * (room // 3 - 10) + b"{}]}"
    keys = b"{" + b",".join(b'"k%06d":1' % i for i in range(600_000)) + b"}"
    deep = b'{"files":' + b"[" * (room - 100)
    digits = b'{"files":[{"size_bytes":' + b"9" * (room - 100) + b"}]}"
    escapes = b'{"files":[{"filename":"' + b"\\u00e4" * (room // 6 - 20) + b'"}]}'
    batch, upload = "/api/v1/batch/initiate", "/api/v1/upload/initiate"
    bodies = [(batch, each) for each in (files, keys, deep, digits, escapes)] + [(upload, keys[:60_000])]
    target.begin()
    await asyncio.gather(*(_post(target, itertools.cycle(bodies[i:] + bodies[:i])) for i in (0, 3)))


async def large_reads(target: Target) -> None:
    """Twenty readers of the largest pages there are, over both doors."""
    await fill(target)

    async def read(_: int) -> None:
        async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{target.http_port}", timeout=30) as client:
            while not target.over:
                with contextlib.suppress(httpx.HTTPError):
                    answer = await client.get("/api/v1/files", params={"page_size": 1000})
                    target.ends[f"{answer.status_code}"] += 1
                await target.struck("pages")

    ask = pb.ListFilesRequest(page_size=1000).SerializeToString()
    over_grpc = (_call(target, itertools.repeat(("ListFiles", ask)), grpc.Compression.NoCompression) for _ in range(5))
    target.begin()
    await asyncio.gather(*map(read, range(20)), *over_grpc)


async def largest_batches(target: Target) -> None:
    """Batches of 10,000 files, announced and cancelled again, as an honest caller may; twice at once."""
    request = _long_names(10_000)
    seed = random.Random(1)

    async def one() -> None:
        async with grpc.aio.insecure_channel(f"127.0.0.1:{target.grpc_port}", options=_OPEN) as channel:
            stub = upload_pb2_grpc.UploadServiceStub(channel)
            while not target.over:
                with contextlib.suppress(grpc.aio.AioRpcError):
                    made = await stub.InitiateBatch(request, timeout=30)
                    await stub.CancelBatch(pb.CancelBatchRequest(batch_id=made.batch.batch_id), timeout=30)
                    target.ends["OK"] += 1
                await target.struck("batches")
                await asyncio.sleep(seed.random() / 100)

    target.begin()
    await asyncio.gather(one(), one())
