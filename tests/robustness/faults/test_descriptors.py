"""Few descriptors: uploads are refused before connections, idle connections make way, new callers can cancel."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import sys
from collections.abc import Iterator
from contextlib import AsyncExitStack
from pathlib import Path
from typing import TYPE_CHECKING

import grpc
import httpx
import pytest

from support.doors import HttpDoor, Refusal
from support.grpc_upload import UploadCall, stub_on, upload
from support.process import START_SECONDS, ServerProcess
from upload.v1 import upload_pb2 as pb

if TYPE_CHECKING:
    from upload.v1.upload_pb2_grpc import UploadServiceAsyncStub as Stub

pytestmark = pytest.mark.timeout(4 * START_SECONDS)

# Python runs this instead of the server, with the hard limit before the server's own arguments.
_LIMITED = """
import os, resource, sys
hard = int(sys.argv[1])
resource.setrlimit(resource.RLIMIT_NOFILE, (min(64, hard), hard))
os.execv(sys.executable, [sys.executable, "-m", "upload_server", *sys.argv[2:]])
"""


def limited(data_dir: Path, hard: int) -> ServerProcess:
    """A server that may have so many descriptors, and has 64 at first."""

    class Limited(ServerProcess):
        program = ("-c", _LIMITED, str(hard))

    return Limited(data_dir)


@contextlib.contextmanager
def idle_connections(port: int, count: int) -> Iterator[list[socket.socket]]:
    """Connections on which nothing is ever said."""
    with contextlib.ExitStack() as held:
        yield [held.enter_context(socket.create_connection(("127.0.0.1", port))) for _ in range(count)]


async def cancel_by_command(server: ServerProcess, file_id: str) -> None:
    """Cancel as a person would: another process, a new connection."""
    uploadctl = [sys.executable, "-c", "import sys, upload.cli; sys.exit(upload.cli.main())"]
    words = ("--server", server.target, "--timeout", "15", "cancel", file_id)
    process = await asyncio.create_subprocess_exec(*uploadctl, *words, stderr=asyncio.subprocess.PIPE)
    _, said = await process.communicate()
    assert process.returncode == 0, said


@pytest.mark.parametrize("hard", [80, 160, 4096])
async def test_uploads_are_refused_before_a_new_caller_cannot_cancel(tmp_path: Path, hard: int) -> None:
    with limited(tmp_path / "data", hard) as server:
        warned = [line for line in server.log if "limit of open files" in str(line["event"])]
        assert [line["limit"] for line in warned] == [hard]
        async with grpc.aio.insecure_channel(server.target) as channel, AsyncExitStack() as calls:
            stub = stub_on(channel)
            specs = [pb.FileSpec(filename=f"{index}", size_bytes=10) for index in range(60)]
            ids = (await stub.InitiateBatch(pb.InitiateBatchRequest(files=specs))).file_ids
            streams = [await calls.enter_async_context(UploadCall(stub, file_id)) for file_id in ids]
            for stream in streams:
                await stream.send(b"x")
            refusals = [refusal for refusal in await asyncio.gather(*map(_refusal, streams)) if refusal]
            assert {refusal.reason for refusal in refusals} <= {"OVERLOADED"}
            assert 60 - len(refusals) == min(60, int(str(warned[0]["uploads"])))
            with idle_connections(server.http_port, 50):
                open_ids = [f.file_id for f in (await stub.ListFiles(_UPLOADING)).files]
                assert len(open_ids) == 60 - len(refusals)
                await cancel_by_command(server, open_ids[0])
                async with httpx.AsyncClient(base_url=server.url) as client:
                    await HttpDoor(client).call("CancelFile", file_id=open_ids[1])
                    # Its descriptors are free again: another upload finds place.
                    refused = [file_id for file_id in ids if file_id not in open_ids]
                    if refused:
                        await _upload_soon(stub, refused[0])
        assert not [line for line in server.log if line["level"] == "error"]


async def test_idle_connections_to_the_grpc_port_hold_up_nobody(tmp_path: Path) -> None:
    with limited(tmp_path / "data", 200) as server:
        async with grpc.aio.insecure_channel(server.target) as channel:
            stub = stub_on(channel)
            first = (await stub.InitiateUpload(pb.InitiateUploadRequest(filename="first", size_bytes=5))).file.file_id
            with idle_connections(server.grpc_port, 200):
                await upload(stub, first, b"first")
                for number in range(10):
                    request = pb.InitiateUploadRequest(filename=f"{number}", size_bytes=5)
                    file_id = (await stub.InitiateUpload(request)).file.file_id
                    async with UploadCall(stub, file_id) as call:
                        await call.send(b"x")
                        await call.hear_durable(1)
                        async with httpx.AsyncClient(base_url=server.url) as client:
                            await HttpDoor(client).call("CancelFile", file_id=file_id)
                        await call.hear_until("stopped")
            # They are gone: new callers of gRPC are served again.
            file_id = (await stub.InitiateUpload(pb.InitiateUploadRequest(filename="last", size_bytes=5))).file.file_id
            await cancel_by_command(server, file_id)
        assert not [line for line in server.log if line["level"] in {"error", "not json"}]


_UPLOADING = pb.ListFilesRequest(status=pb.UPLOAD_STATUS_UPLOADING, page_size=1000)


async def _refusal(stream: UploadCall) -> Refusal | None:
    """How a stream was refused, None once a byte of it is durable."""
    try:
        await stream.hear_durable(1)
    except Refusal as refusal:
        return refusal
    return None


async def _upload_soon(stub: Stub, file_id: str) -> None:
    """Upload, as soon as the cancelled streams have let go of their files."""
    async with asyncio.timeout(30):
        while True:
            with contextlib.suppress(Refusal):
                await upload(stub, file_id, bytes(10))
                return
