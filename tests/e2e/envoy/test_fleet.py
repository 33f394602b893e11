"""Three nodes on one PostgreSQL and one folder behind Envoy: to whoever calls it they are one service."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import grpc
import httpx
import psutil
import pytest

from e2e.envoy.proxy import EnvoyProcess, Node
from support.cluster import Cluster
from support.cluster import Node as Server
from support.grpc_upload import UploadCall, stub_on, upload
from upload import AsyncClient
from upload.v1 import upload_pb2 as pb

DATA = b"some bytes of a file" * 5000
pytestmark = pytest.mark.timeout(400)


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[Cluster]:
    with Cluster(tmp_path / "cluster") as running:
        yield running


@pytest.fixture
def proxy(cluster: Cluster) -> Iterator[EnvoyProcess]:
    with EnvoyProcess(*map(endpoint, cluster.nodes)) as process:
        yield process


def endpoint(server: Server) -> Node:
    return Node(server.grpc_port, server.http_port)


def through(proxy: EnvoyProcess) -> grpc.aio.Channel:
    return grpc.aio.insecure_channel(f"127.0.0.1:{proxy.port}", options=[("grpc.use_local_subchannel_pool", 1)])


def gauge(server: Server, name: str) -> float:
    text = httpx.get(f"http://127.0.0.1:{server.http_port}/metrics", timeout=10).text
    return next(float(line.split()[1]) for line in text.splitlines() if line.startswith(f"{name} "))


async def announce(stub: object, size: int = len(DATA)) -> str:
    made = await stub.InitiateUpload(pb.InitiateUploadRequest(filename="a", size_bytes=size))  # type: ignore[attr-defined]
    return str(made.file.file_id)


async def test_a_cancel_at_any_node_stops_the_sender_at_another(cluster: Cluster, proxy: EnvoyProcess) -> None:
    await proxy.wait_healthy(*map(endpoint, cluster.nodes))
    async with through(proxy) as channel:
        stub = stub_on(channel)
        for server in cluster.nodes:
            file_id = await announce(stub)
            async with UploadCall(stub, file_id) as call:
                await call.send(DATA[:5000])
                await call.hear_until("progress")
                url = f"http://127.0.0.1:{server.http_port}/api/v1/upload/cancel/{file_id}"
                async with httpx.AsyncClient() as client:
                    answer = await client.post(url, json={"reason": "elsewhere"})
                assert answer.status_code == 200
                assert (await call.hear_until("stopped")).stopped.cancel_reason == "elsewhere"
            # And by the proxy, whichever node it asks.
            found = await stub.GetFile(pb.GetFileRequest(file_id=file_id))
            assert found.status == pb.UPLOAD_STATUS_CANCELLED
        kept = await announce(stub)
        assert (await upload(stub, kept, DATA)).status == pb.UPLOAD_STATUS_COMPLETED


async def test_a_watch_goes_on_at_another_node_when_its_own_is_killed(cluster: Cluster, proxy: EnvoyProcess) -> None:
    """Asked anew at once, before a health check has failed: nothing is heard of the dead node."""
    nodes = list(map(endpoint, cluster.nodes))
    await proxy.wait_healthy(*nodes)
    async with AsyncClient(f"127.0.0.1:{proxy.port}") as client:
        file_id = (await client.initiate("a", len(DATA))).file_id
        events = client.watch([file_id], until_final=True)
        heard = [await anext(events), await anext(events)]
        assert heard[1].bookmark
        watching = [server for server in cluster.nodes if gauge(server, "upload_open_watches")]
        assert len(watching) == 1

        await asyncio.to_thread(watching[0].kill)
        await client.cancel(file_id)

        async with asyncio.timeout(30):
            heard += [event async for event in events]
        statuses = [event.file.status for event in heard if event.file]
        assert statuses == ["pending", "cancelled"]
        assert not any(event.bookmark.resynced for event in heard if event.bookmark)
        async with through(proxy) as channel:
            for _ in range(10):
                found = await stub_on(channel).GetFile(pb.GetFileRequest(file_id=file_id))
                assert found.status == pb.UPLOAD_STATUS_CANCELLED

    await asyncio.to_thread(watching[0].start)
    await proxy.wait_healthy(*nodes)


def test_make_cluster_runs_everything_and_ends_it(tmp_path: Path) -> None:
    """What `make cluster` starts, with the demo against it."""
    root = Path(__file__).parents[3]
    command = [sys.executable, "-m", "support.fleet", "--port", "0"]
    with subprocess.Popen(
        command, cwd=root / "tests", stdout=subprocess.PIPE, text=True, env={**os.environ, "TMPDIR": str(tmp_path)}
    ) as running:
        assert running.stdout is not None
        said: list[str] = []
        while not said or said[-1] != "Ctrl-C ends all of it.\n":
            said.append(running.stdout.readline())
            assert said[-1], said
        assert sum("node" in line and "pid" in line for line in said) == 3
        url = next(word for line in said for word in line.split() if line.startswith("Envoy") and "http" in word)
        assert "<html" in httpx.get(url).text
        demo = [sys.executable, "tools/demo.py", "--seconds", "4", "--target", url.split("/")[2]]
        subprocess.run(demo, cwd=root, check=True, timeout=60, capture_output=True)
        listed = httpx.get(f"{url}api/v1/files", params={"page_size": 50}).json()["files"]
        assert listed
        started = psutil.Process(running.pid).children(recursive=True)
        assert len(started) > 5
        running.send_signal(signal.SIGINT)
        assert running.wait(60) == 0
    gone, left = psutil.wait_procs(started, 30)
    assert (len(gone) > 5, left) == (True, [])
    assert not list(tmp_path.iterdir())
