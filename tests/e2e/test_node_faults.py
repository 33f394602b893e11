"""A node that is killed, frozen or cut off from the database: the others go on, and it does no harm when it is back."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from contextlib import AsyncExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

import grpc
import pytest

from conftest import open_channel
from support.cluster import Cluster
from support.doors import Refusal, refusal_of_rpc
from support.grpc_upload import CHUNK, UploadCall, stub_on, upload
from upload.v1 import upload_pb2 as pb

if TYPE_CHECKING:
    from upload.v1.upload_pb2_grpc import UploadServiceAsyncStub as Stub

pytestmark = pytest.mark.timeout(180)

DATA = bytes(range(256)) * (CHUNK // 64)
UNSEALED = "SELECT count(*) FROM audit_event WHERE change_no > (SELECT coalesce(max(change_no), 0) FROM audit_seal)"
# A lease, and time for the others to notice.
SECONDS = 30.0


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[Cluster]:
    with Cluster(tmp_path / "cluster", 2, cuttable=True) as running:
        yield running


async def stubs_of(cluster: Cluster, stack: AsyncExitStack) -> list[Stub]:
    return [stub_on(await stack.enter_async_context(open_channel(node.server))) for node in cluster.nodes]


async def begun(at: Stub, call: UploadCall, file_id: str) -> None:
    """Have a quarter of a file be durable."""
    await call.send(DATA[:CHUNK])
    await call.hear_durable(CHUNK)
    assert (await at.GetFile(pb.GetFileRequest(file_id=file_id))).bytes_received == CHUNK


async def announced(stub: Stub) -> str:
    request = pb.InitiateUploadRequest(filename="a.bin", size_bytes=len(DATA))
    return (await stub.InitiateUpload(request)).file.file_id


async def to_the_end(watch: Any) -> Refusal:
    """Return what ends a watch."""
    try:
        while await watch.read() is not grpc.aio.EOF:
            pass
    except grpc.aio.AioRpcError as error:
        return refusal_of_rpc(error)
    raise AssertionError("the watch was not refused")


async def test_a_node_that_is_killed_leaves_everything_to_the_others(cluster: Cluster) -> None:
    async with AsyncExitStack() as stack:
        stubs = await stubs_of(cluster, stack)
        file_id = await announced(stubs[0])
        # Whichever keeps house, the one that is left does from then on.
        gone, left = cluster.nodes
        async with UploadCall(stubs[0], file_id) as call:
            await begun(stubs[1], call, file_id)
            await asyncio.to_thread(gone.kill)
            with pytest.raises(AssertionError, match="no details"):
                await call.hear_until("completed")

        done = await upload(stubs[1], file_id, DATA[CHUNK:], CHUNK)
        assert done.status == pb.UPLOAD_STATUS_COMPLETED
        deadline = time.monotonic() + SECONDS
        while await asyncio.to_thread(cluster.postgres.command, UNSEALED, cluster.database) != "0":
            assert time.monotonic() < deadline
            await asyncio.sleep(0.2)
        assert left.running


async def test_a_node_that_was_frozen_hears_what_was_done_meanwhile(cluster: Cluster) -> None:
    async with AsyncExitStack() as stack:
        stubs = await stubs_of(cluster, stack)
        cancelled, taken = await announced(stubs[0]), await announced(stubs[0])
        frozen = cluster.nodes[0]
        async with UploadCall(stubs[0], cancelled) as first, UploadCall(stubs[0], taken) as second:
            await begun(stubs[1], first, cancelled)
            await begun(stubs[1], second, taken)
            frozen.freeze()
            try:
                await stubs[1].CancelFile(pb.CancelFileRequest(file_id=cancelled, reason="enough"))
                done = await upload(stubs[1], taken, DATA[CHUNK:], CHUNK)
                assert done.status == pb.UPLOAD_STATUS_COMPLETED
            finally:
                frozen.thaw()

            assert (await first.hear_until("stopped")).stopped.cancel_reason == "enough"
            assert (await second.refused()).reason == "WRITER_REPLACED"
        assert (await stubs[0].GetFile(pb.GetFileRequest(file_id=taken))).sha256 == done.sha256


async def test_a_node_that_is_cut_off_ends_its_uploads_and_comes_back(cluster: Cluster) -> None:
    async with AsyncExitStack() as stack:
        stubs = await stubs_of(cluster, stack)
        file_id = await announced(stubs[0])
        off = cluster.nodes[0]
        async with UploadCall(stubs[0], file_id) as call:
            await begun(stubs[1], call, file_id)
            watch: Any = stubs[0].WatchStatus(pb.WatchStatusRequest(all=True))
            while (await watch.read()).WhichOneof("event") != "bookmark":
                pass
            watching = asyncio.create_task(to_the_end(watch))
            off.cut_off()
            began = time.monotonic()
            for refused in (await call.refused(), await watching):
                assert (refused.code, refused.reason) == ("UNAVAILABLE", "SHUTTING_DOWN")
                assert "does not reach its database" in refused.message
            assert time.monotonic() - began < 20
        async with UploadCall(stubs[0], file_id, CHUNK) as again:
            assert (await again.refused()).reason == "SHUTTING_DOWN"
        done = await upload(stubs[1], file_id, DATA[CHUNK:], CHUNK)
        assert done.status == pb.UPLOAD_STATUS_COMPLETED

        off.heal()
        deadline = time.monotonic() + SECONDS
        while True:
            try:
                other = await announced(stubs[0])
                assert (await upload(stubs[0], other, DATA)).status == pb.UPLOAD_STATUS_COMPLETED
            except Exception:
                if time.monotonic() > deadline:
                    raise
            else:
                break
            await asyncio.sleep(0.5)
