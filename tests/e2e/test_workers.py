"""``--workers``: several processes that are one server to whoever calls, scrapes, signals or starts another."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import grpc
import httpx
import psutil
import pytest

from support.grpc_upload import UploadCall, stub_on
from support.process import LogLine, ServerProcess, StartServer
from upload.v1 import upload_pb2 as pb

LISTED = 'upload_calls_total{code="OK",door="http",method="ListFiles"}'


def workers_of(server: ServerProcess) -> list[psutil.Process]:
    return psutil.Process(server.pid).children()


def run_server(*options: str) -> subprocess.CompletedProcess[str]:
    clean = {name: value for name, value in os.environ.items() if not name.startswith("UPLOAD_")}
    command = [sys.executable, "-m", "upload_server", *options]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, env=clean, check=False)


@contextlib.contextmanager
def connections_to(server: ServerProcess, count: int) -> Iterator[list[httpx.Client]]:
    """Clients with a connection each, which the system spreads among the workers."""
    with contextlib.ExitStack() as opened:
        clients = [opened.enter_context(httpx.Client(base_url=server.url, timeout=20)) for _ in range(count)]
        yield clients


def series(client: httpx.Client) -> dict[str, float]:
    lines = client.get("/metrics").text.splitlines()
    return {name: float(value) for name, value in (line.rsplit(" ", 1) for line in lines if not line.startswith("#"))}


def served_by(server: ServerProcess, clients: list[httpx.Client]) -> dict[int, int]:
    """How many of the clients' connections each worker has."""
    port = server.http_port
    own = {client.get("/healthz").extensions["network_stream"].get_extra_info("client_addr")[1] for client in clients}
    return {
        worker.pid: sum(
            found.laddr.port == port and bool(found.raddr) and found.raddr.port in own
            for found in worker.net_connections("tcp")
        )
        for worker in workers_of(server)
    }


def tells_the_end_of(pid: int, line: LogLine) -> bool:
    return (line["event"], line.get("worker")) == ("worker.ended", pid)


async def test_connections_spread_and_every_worker_tells_of_all(start_server: StartServer) -> None:
    server = start_server("--workers", "2")
    assert [line["workers"] for line in server.log if line["event"] == "serving"] == [2]
    assert len(workers_of(server)) == 2

    with connections_to(server, 24) as clients:
        spread = await asyncio.to_thread(served_by, server, clients)
        # All on one side: once in eight million runs.
        assert all(spread.values())
        assert sum(spread.values()) == 24
        for client in clients:
            assert client.get("/api/v1/files").status_code == 200
        told = [series(client) for client in clients]
    assert {found[LISTED] for found in told} == {24.0}
    assert {found['upload_files{status="pending"}'] for found in told} == {0.0}
    assert all(found["upload_storage_room_bytes"] > 0 for found in told)
    assert all(found["upload_database_room_bytes"] > 0 for found in told)
    processes = [psutil.Process(server.pid), *workers_of(server)]
    resident = sum(process.memory_info().rss for process in processes)
    assert told[-1]["process_resident_memory_bytes"] == pytest.approx(resident, rel=0.2)
    assert told[-1]["process_start_time_seconds"] == pytest.approx(processes[0].create_time(), abs=1)


async def test_a_worker_that_dies_is_started_anew_and_what_it_counted_stays(start_server: StartServer) -> None:
    server = start_server("--workers", "2")
    async with grpc.aio.insecure_channel(server.target) as channel:
        watch = aiter(stub_on(channel).WatchStatus(pb.WatchStatusRequest(all=True)))
        assert (await anext(watch)).HasField("bookmark")
        with connections_to(server, 16) as clients:
            for client in clients:
                client.get("/api/v1/files")
            found = series(clients[0])
            assert (found["upload_open_watches"], found[LISTED]) == (1, 16)
        before = workers_of(server)
        for worker in before:
            worker.kill()
            ended = await asyncio.to_thread(server.wait_log, partial(tells_the_end_of, worker.pid))
            assert ended["code"] == -signal.SIGKILL
    with connections_to(server, 1) as [client]:
        while True:
            with contextlib.suppress(httpx.TransportError):
                if client.get("/readyz").status_code == 200 and len(workers_of(server)) == 2:
                    break
            await asyncio.sleep(0.05)
        found = series(client)
    assert found[LISTED] == 16
    assert found["upload_open_watches"] == 0
    assert not {worker.pid for worker in before} & {worker.pid for worker in workers_of(server)}
    assert server.terminate() == 0


async def test_workers_that_die_again_and_again_end_the_server(start_server: StartServer) -> None:
    server = start_server("--workers", "2")
    dead = set[int]()
    while server.popen.poll() is None and len(dead) < 20:
        with contextlib.suppress(psutil.NoSuchProcess):
            for worker in workers_of(server):
                if worker.pid not in dead:
                    worker.kill()
                    dead.add(worker.pid)
        await asyncio.sleep(0.05)

    assert await asyncio.to_thread(server.popen.wait, 30) == 1
    problem = await asyncio.to_thread(server.wait_log, lambda line: line["event"] == "cannot start")
    assert problem["problem"] == "6 workers ended within 60 s"


async def test_a_worker_that_cannot_start_anew_ends_the_server(start_server: StartServer) -> None:
    server = start_server("--workers", "2")
    # What a start refuses, and who runs does not ask.
    (server.data_dir / "upload.sqlite3").rename(server.data_dir / "aside")
    (server.data_dir / "upload.sqlite3").mkdir()
    workers_of(server)[0].kill()

    assert await asyncio.to_thread(server.popen.wait, 60) == 1
    # All that it has said is read by then.
    server.kill()
    problems = [line["problem"] for line in server.log if line["event"] == "cannot start"]
    assert len(problems) == 2
    assert str(problems[0]).endswith("upload.sqlite3 cannot be used: unable to open database file")
    assert problems[1] == "a worker could not start; it has said why"


async def test_a_cancel_at_one_worker_stops_the_sender_at_another(start_server: StartServer) -> None:
    """Each cancel comes over a connection of its own; all on one side: once in four thousand runs."""
    server = start_server("--workers", "2")
    data = b"x" * 100_000
    async with grpc.aio.insecure_channel(server.target) as channel, contextlib.AsyncExitStack() as opened:
        calls = {}
        for _ in range(12):
            request = pb.InitiateUploadRequest(filename="a", size_bytes=2 * len(data))
            file_id = (await stub_on(channel).InitiateUpload(request)).file.file_id
            calls[file_id] = await opened.enter_async_context(UploadCall(stub_on(channel), file_id))
            await calls[file_id].send(data)
            await calls[file_id].hear_until("progress")
        listed = await asyncio.to_thread(run_server, "nodes", "--json", "--data-dir", str(server.data_dir))
        nodes = json.loads(listed.stdout)["nodes"]
        assert sorted(node["uploads"] for node in nodes) == [0, 12]
        assert {node["address"].rpartition("/")[2] for node in nodes} == {str(each.pid) for each in workers_of(server)}
        assert [node["leads"] for node in nodes].count(True) == 1
        for file_id, call in calls.items():
            own = [("grpc.use_local_subchannel_pool", 1)]
            async with grpc.aio.insecure_channel(server.target, options=own) as other:
                await stub_on(other).CancelFile(pb.CancelFileRequest(file_id=file_id, reason="elsewhere"))
            stopped = await call.hear_until("stopped")
            assert stopped.stopped.cancel_reason == "elsewhere"


def test_a_drain_drains_all(start_server: StartServer) -> None:
    server = start_server("--workers", "3")
    workers = workers_of(server)

    assert server.terminate() == 0

    assert not any(worker.is_running() for worker in workers)
    assert [line["event"] for line in server.log].count("stopped") == 4
    assert not [line for line in server.log if line["event"] == "not json"]


def test_workers_end_with_their_parent_and_hold_its_folder_until_then(start_server: StartServer) -> None:
    server = start_server("--workers", "2")
    workers = workers_of(server)
    counters = Path(workers[0].environ()["PROMETHEUS_MULTIPROC_DIR"])
    assert counters.is_dir()
    server.kill()

    again = start_server("--workers", "2", data_dir=server.data_dir)

    assert not any(worker.is_running() and worker.status() != psutil.STATUS_ZOMBIE for worker in workers)
    assert len(workers_of(again)) == 2
    assert not counters.exists(), "what a killed parent has left in memory stays until the machine restarts"
    assert again.terminate() == 0


@pytest.mark.parametrize("workers", ["1", "2"])
def test_another_server_on_its_ports_or_its_folder_is_refused(
    start_server: StartServer, tmp_path: Path, workers: str
) -> None:
    server = start_server("--workers", "2")
    for port in ("grpc", "http"):
        ports = {"grpc": "0", "http": "0", port: str(getattr(server, f"{port}_port"))}
        words = ["--workers", workers, "--grpc-port", ports["grpc"], "--http-port", ports["http"]]
        refused = run_server("serve", "--data-dir", str(tmp_path / port), *words)
        assert refused.returncode == 1
        why = f"port {ports[port]}: Address already in use; choose another port with --{port}-port"
        assert f"cannot listen on 127.0.0.1 {why}" in refused.stderr
    words = ["--workers", workers, "--grpc-port", "0", "--http-port", "0"]
    refused = run_server("serve", "--data-dir", str(server.data_dir), *words)
    assert refused.returncode == 1
    assert f"is in use by another upload-server (pid {server.pid})" in refused.stderr


def test_what_keeps_a_server_from_starting_is_said_once_by_whom_it_concerns(tmp_path: Path) -> None:
    words = ["--workers", "2", "--data-dir", str(tmp_path), "--host", "192.0.2.1", "--auth", "none"]
    refused = run_server("serve", *words)
    assert refused.returncode == 1
    assert refused.stderr.count("choose an address of this machine") == 1
    assert "Traceback" not in refused.stderr
