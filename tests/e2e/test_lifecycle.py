"""A server's life: start, what is refused at start, kill, restart, drain."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import json
import os
import signal
import socket
import sqlite3
import subprocess
import sys
import time
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any, TypeAlias

import grpc
import httpx
import psutil
import pytest
import websockets
from google.protobuf.descriptor_pb2 import FileDescriptorProto
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc

from support.doors import GrpcDoor, HttpDoor, Refusal, refusal_of_http, refusal_of_rpc
from support.grpc_upload import CHUNK, UploadCall, stub_on, upload
from support.process import ServerProcess, StartServer, gone_from_disk
from upload.v1 import upload_pb2 as pb
from upload_server.store import migrations

WatchCall: TypeAlias = "grpc.aio.UnaryStreamCall[pb.WatchStatusRequest, pb.WatchStatusResponse]"

MIB = 1024 * 1024
SERVICE = "upload.v1.UploadService"
ANY_PORTS = ("--grpc-port", "0", "--http-port", "0", "--log-format", "json")


def run_server(*options: str, **environment: str) -> subprocess.CompletedProcess[str]:
    clean = {name: value for name, value in os.environ.items() if not name.startswith("UPLOAD_")}
    return subprocess.run(
        [sys.executable, "-m", "upload_server", *options],
        capture_output=True,
        text=True,
        timeout=30,
        env={**clean, **environment},
        check=False,
    )


async def test_killed_in_mid_upload_it_goes_on_where_the_bytes_are_durable(start_server: StartServer) -> None:
    data = os.urandom(24 * MIB)
    first = start_server()
    async with grpc.aio.insecure_channel(first.target) as channel:
        stub = stub_on(channel)
        file_id = (await stub.InitiateUpload(pb.InitiateUploadRequest(filename="a", size_bytes=len(data)))).file.file_id
        async with UploadCall(stub, file_id) as call:
            for start in range(0, 16 * MIB, CHUNK):
                await call.send(data[start : start + CHUNK])
            await call.hear_durable(8 * MIB)
            # It has no files to read again, and goes on.
            first.popen.send_signal(signal.SIGHUP)
            assert (await stub.GetFile(pb.GetFileRequest(file_id=file_id))).file_id == file_id
            first.kill()
        received = max(m.progress.bytes_received for m in call.heard)
    second = start_server()
    async with grpc.aio.insecure_channel(second.target) as channel:
        stub = stub_on(channel)
        file = await stub.GetFile(pb.GetFileRequest(file_id=file_id))
        assert file.status == pb.UPLOAD_STATUS_UPLOADING
        assert received <= file.bytes_received <= 16 * MIB
        completed = await upload(stub, file_id, data[file.bytes_received :], file.bytes_received)
        assert completed.status == pb.UPLOAD_STATUS_COMPLETED
        # The older run goes a moment later.
        runs = (second.data_dir / "bytes").rglob(f"{file_id}*")
        stored = max(runs, key=lambda path: int(path.suffix[1:] or "0")).read_bytes()
        assert hashlib.sha256(stored).digest() == hashlib.sha256(data).digest()


async def test_a_cancel_answered_before_a_kill_is_true_after_it_and_its_bytes_go(start_server: StartServer) -> None:
    first = start_server()
    async with grpc.aio.insecure_channel(first.target) as channel:
        stub = stub_on(channel)
        made = await stub.InitiateUpload(pb.InitiateUploadRequest(filename="a", size_bytes=64 * MIB))
        file_id = made.file.file_id
        async with UploadCall(stub, file_id) as call:
            for _ in range(40):
                await call.send(b"x" * CHUNK)
            await call.hear_durable(8 * MIB)
            request = pb.CancelFileRequest(file_id=file_id, reason="now", request_id="r1")
            answer = await stub.CancelFile(request)
            first.kill()
    second = start_server()
    async with grpc.aio.insecure_channel(second.target) as channel:
        stub = stub_on(channel)
        file = await stub.GetFile(pb.GetFileRequest(file_id=file_id))
        assert (file.status, file.cancelled_at) == (pb.UPLOAD_STATUS_CANCELLED, answer.cancelled_at)
        assert (await stub.CancelFile(request)).SerializeToString() == answer.SerializeToString()
        await gone_from_disk(second, file_id)


def test_a_second_server_on_the_same_directory_is_refused(start_server: StartServer) -> None:
    first = start_server()
    second = run_server("serve", "--data-dir", str(first.data_dir), "--grpc-port", "0", "--http-port", "0")
    assert second.returncode == 1
    assert f"is in use by another upload-server (pid {first.pid})" in second.stderr
    assert "Traceback" not in second.stderr


@pytest.mark.parametrize("port", ["grpc", "http"])
def test_a_port_in_use_is_refused_with_reason_and_option(start_server: StartServer, tmp_path: Path, port: str) -> None:
    first = start_server()
    ports = {"grpc": "0", "http": "0", port: str(getattr(first, f"{port}_port"))}
    second = run_server(
        "--data-dir", str(tmp_path / "other"), "--grpc-port", ports["grpc"], "--http-port", ports["http"]
    )
    assert second.returncode == 1
    why = f"port {ports[port]}: Address already in use; choose another port with --{port}-port"
    assert f"cannot listen on 127.0.0.1 {why}" in second.stderr
    assert "Traceback" not in second.stderr


NO_PROTECTION = "anybody who reaches this address can upload and cancel: --auth none"


def test_an_address_that_others_reach_is_warned_of(tmp_path: Path) -> None:
    """TEST-NET-1 is no address of this machine, so nothing is opened to anybody."""
    done = run_server("--host", "192.0.2.1", "--auth", "none", "--data-dir", str(tmp_path), "--log-format", "json")
    warning, *_, problem = (json.loads(line) for line in done.stderr.splitlines())
    assert (warning["event"], warning["level"], warning["host"]) == (NO_PROTECTION, "warning", "192.0.2.1")
    assert problem["problem"].startswith("cannot listen on 192.0.2.1 port 8080: ")
    assert done.returncode == 1


def test_loopback_is_not_warned_of(server: ServerProcess) -> None:
    assert not [line for line in server.log if line.get("event") == NO_PROTECTION]


@pytest.mark.parametrize(
    ("options", "environment", "says"),
    [
        (["--idle-timeout", "soon"], {}, "--idle-timeout: 'soon' is not a duration"),
        (["--http-port", "70000"], {}, "--http-port: must be from 0 to 65535"),
        (["--max-message-bytes", "1"], {}, "--max-message-bytes: must be from 1MiB"),
        (["--allowed-origins", "*"], {}, "--allowed-origins: '*' is not an origin"),
        (["--log-format", "xml"], {}, "--log-format: must be one of"),
        ([], {"UPLOAD_GRPC_PORT": "x"}, "UPLOAD_GRPC_PORT: 'x' is not a whole number"),
        (["--no-such-option", "1"], {}, "--no-such-option"),
        (["--gprc-port", "1"], {}, "--gprc-port 1; did you mean --grpc-port?"),
        # A part of an option's name is none: `--delete` must not delete.
        (["--grpc-po", "1"], {}, "--grpc-po 1; did you mean --grpc-port?"),
        (["check", "--repair", "--delete"], {}, "upload-server check: error: unrecognized arguments: --delete"),
        (
            ["token", "create", "ada", "--rol", "user"],
            {},
            "token create: error: unrecognized arguments: --rol user; did",
        ),
    ],
)
def test_a_wrong_setting_is_named(options: list[str], environment: dict[str, str], says: str) -> None:
    done = run_server(*options, **environment)
    assert done.returncode == 2
    assert says in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("command", ["serve", "migrate"])
def test_a_data_directory_that_cannot_be_one_is_told_in_one_line(tmp_path: Path, command: str) -> None:
    (tmp_path / "file").touch()
    for directory in (tmp_path / "file", tmp_path / "file" / "below"):
        done = run_server(command, "--data-dir", str(directory), "--grpc-port", "0", "--http-port", "0")
        assert done.returncode == 1
        assert f"--data-dir: {directory} cannot be used" in done.stderr
        assert "Traceback" not in done.stderr
    kept = ("--keep-content", "1d", "--keep-rows", "8d", "--pruned-dir", str(tmp_path / "none" / "pruned"))
    done = run_server(command, "--data-dir", str(tmp_path / "data"), *kept)
    assert (done.returncode, f"--pruned-dir: {kept[-1]}: it, or the folder" in done.stderr) == (1, True)


def test_migrations_are_applied_once_by_a_command_of_their_own(tmp_path: Path, start_server: StartServer) -> None:
    directory = tmp_path / "new"
    steps = sorted(path.stem for path in Path(str(migrations.__file__)).parent.glob("0*.py"))
    for applied in (", ".join(steps), "nothing to do"):
        done = run_server("migrate", "--data-dir", str(directory), "--log-format", "json")
        last = json.loads(done.stderr.splitlines()[-1])
        assert (done.returncode, last["event"], last["applied"]) == (0, "migrated", applied)
    assert not [line for line in start_server(data_dir=directory).log if str(line["event"]).startswith("up: ")]


def test_settings_come_from_the_environment_and_options_win(start_server: StartServer) -> None:
    server = start_server(environment={"UPLOAD_HTTP_PORT": "1", "UPLOAD_MAX_FILE_BYTES": "10", "UPLOAD_HTTP_PROT": "2"})
    assert server.http_port != 1
    answer = httpx.post(f"{server.url}/api/v1/upload/initiate", json={"filename": "a", "size_bytes": 11})
    assert "must be from 0 to 10" in answer.text
    warning = server.wait_log(lambda line: line.get("event") == "unknown environment variable")
    assert (warning["found"], warning["meant"]) == ("UPLOAD_HTTP_PROT", "UPLOAD_HTTP_PORT")


async def _reflection_tells_of_itself_services_and_methods(channel: grpc.aio.Channel, name: str) -> None:
    ask = reflection_pb2.ServerReflectionRequest
    method: Any = channel.stream_stream(
        f"/{name}/ServerReflectionInfo",
        request_serializer=ask.SerializeToString,
        response_deserializer=reflection_pb2.ServerReflectionResponse.FromString,
    )
    symbols = (f"{SERVICE}.CancelFile", f"{SERVICE}.Nothing", name, "upload.v1.File.file_id")
    asked = [ask(list_services=""), *(ask(file_containing_symbol=symbol) for symbol in symbols)]
    services, cancel, nothing, itself, field = [answer async for answer in method(iter(asked))]
    assert {SERVICE, name} <= {service.name for service in services.list_services_response.service}
    assert nothing.error_response.error_code == grpc.StatusCode.NOT_FOUND.value[0]
    for answer, package in ((cancel, "upload.v1"), (itself, name.rpartition(".")[0]), (field, "upload.v1")):
        files = map(FileDescriptorProto.FromString, answer.file_descriptor_response.file_descriptor_proto)
        assert package in {file.package for file in files}


async def test_health_and_reflection(server: ServerProcess, channel: grpc.aio.Channel) -> None:
    health = health_pb2_grpc.HealthStub(channel)
    for service in ("", SERVICE):
        answer = await health.Check(health_pb2.HealthCheckRequest(service=service))
        assert answer.status == health_pb2.HealthCheckResponse.SERVING
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await health.Check(health_pb2.HealthCheckRequest(service="nobody"))
    assert caught.value.code() is grpc.StatusCode.NOT_FOUND
    for version in ("v1", "v1alpha"):
        await _reflection_tells_of_itself_services_and_methods(channel, f"grpc.reflection.{version}.ServerReflection")
    async with httpx.AsyncClient(base_url=server.url) as client:
        assert (await client.get("/healthz")).status_code == 200
        assert (await client.get("/readyz")).status_code == 200


async def test_reflection_can_be_off(start_server: StartServer) -> None:
    server = start_server("--reflection", "false")
    async with grpc.aio.insecure_channel(server.target) as channel:
        reflection = reflection_pb2_grpc.ServerReflectionStub(channel)
        # Nothing is written: a write that meets the refusal would hide it behind INTERNAL.
        call = reflection.ServerReflectionInfo()
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await call.read()
        assert caught.value.code() is grpc.StatusCode.UNIMPLEMENTED


async def test_a_drain_says_so_first_ends_streams_and_keeps_what_is_durable(
    start_server: StartServer, tmp_path: Path
) -> None:
    manager = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    manager.bind(str(tmp_path / "notify"))
    server = start_server("--drain-grace", "3s", environment={"NOTIFY_SOCKET": str(tmp_path / "notify")})
    assert manager.recv(1000).startswith(b"READY=1\nSTATUS=Serving")
    async with grpc.aio.insecure_channel(server.target) as channel:
        stub = stub_on(channel)
        made = await stub.InitiateUpload(pb.InitiateUploadRequest(filename="a", size_bytes=10))
        health = health_pb2_grpc.HealthStub(channel).Watch(health_pb2.HealthCheckRequest(service=SERVICE))
        assert (await health.read()).status == health_pb2.HealthCheckResponse.SERVING
        async with UploadCall(stub, made.file.file_id) as call:
            await call.send(b"12345")
            await call.hear_until("progress")
            began = time.monotonic()
            stopping = asyncio.create_task(asyncio.to_thread(server.terminate))
            assert (await health.read()).status == health_pb2.HealthCheckResponse.NOT_SERVING
            with pytest.raises(grpc.aio.AioRpcError) as refused:
                await stub.CancelFile(pb.CancelFileRequest(file_id=made.file.file_id))
            assert refusal_of_rpc(refused.value).reason == "SHUTTING_DOWN"
            error = await call.refused()
            assert (error.code, error.reason) == ("UNAVAILABLE", "SHUTTING_DOWN")
        assert await stopping == 0
        assert time.monotonic() - began < 3 + 2 + 10
        assert manager.recv(1000).startswith(b"STOPPING=1")
        manager.close()
    assert not list(server.data_dir.glob("*-wal")) or not (server.data_dir / "upload.sqlite3-wal").stat().st_size
    second = start_server()
    async with grpc.aio.insecure_channel(second.target) as channel:
        file = await stub_on(channel).GetFile(pb.GetFileRequest(file_id=made.file.file_id))
        assert (file.status, file.bytes_received) == (pb.UPLOAD_STATUS_UPLOADING, 5)


async def test_an_upload_that_ends_within_the_grace_is_completed(start_server: StartServer) -> None:
    server = start_server("--drain-grace", "20s")
    async with grpc.aio.insecure_channel(server.target) as channel:
        stub = stub_on(channel)
        made = await stub.InitiateUpload(pb.InitiateUploadRequest(filename="a", size_bytes=10))
        async with UploadCall(stub, made.file.file_id) as call:
            await call.send(b"12345")
            await call.hear_until("progress")
            stopping = asyncio.create_task(asyncio.to_thread(server.terminate))
            await asyncio.to_thread(server.wait_log, lambda line: line.get("event") == "draining")
            await call.send(b"67890")
            await call.commit()
            assert (await call.hear_until("completed")).completed.status == pb.UPLOAD_STATUS_COMPLETED
        assert await stopping == 0


@pytest.mark.parametrize("transport", ["grpc", "http"])
async def test_a_call_that_runs_when_the_drain_begins_has_the_grace(start_server: StartServer, transport: str) -> None:
    """A cancel waits for the database while the server is told to stop: it is answered, not cut off."""
    server = start_server("--drain-grace", "20s")
    async with grpc.aio.insecure_channel(server.target) as channel, httpx.AsyncClient(base_url=server.url) as client:
        door = GrpcDoor(channel) if transport == "grpc" else HttpDoor(client)
        file_id = (await door.call("InitiateUpload", filename="a", size_bytes=1))["file"]["file_id"]
        with contextlib.closing(sqlite3.connect(server.data_dir / "upload.sqlite3", isolation_level=None)) as other:
            other.execute("BEGIN IMMEDIATE")
            cancelling = asyncio.create_task(door.call("CancelFile", file_id=file_id))
            assert not (await asyncio.wait({cancelling}, timeout=0.5))[0]
            stopping = asyncio.create_task(asyncio.to_thread(server.terminate))
            # Longer than what is left to a call once the grace is over.
            assert not (await asyncio.wait({cancelling, stopping}, timeout=3))[0]
            other.execute("ROLLBACK")
        assert (await cancelling)["file_id"] == file_id
        assert await stopping == 0


async def test_a_watcher_that_does_not_read_does_not_hold_up_the_end(start_server: StartServer) -> None:
    server = start_server("--drain-grace", "20s")
    # Else the client takes megabytes ahead.
    small_window = [("grpc.http2.bdp_probe", 0)]
    async with grpc.aio.insecure_channel(server.target, small_window) as channel:
        stub, door = stub_on(channel), GrpcDoor(channel)
        deaf, witness = stub.WatchStatus(everything := pb.WatchStatusRequest(all=True)), stub.WatchStatus(everything)
        for watch in (deaf, witness):
            assert (await next_event(watch)).WhichOneof("event") == "bookmark"
        # Many times what a peer that does not read is sent ahead.
        await door.call("InitiateBatch", files=[{"filename": "a" * 200, "size_bytes": 9}] * 2000)
        for _ in range(2001):
            await next_event(witness)
        began = time.monotonic()
        assert await asyncio.to_thread(server.terminate) == 0
        assert time.monotonic() - began < 15


async def test_what_hangs_does_not_hold_up_the_end(start_server: StartServer) -> None:
    """A request that never comes whole, and streams over every door that say nothing more."""
    server = start_server("--drain-grace", "1s")
    async with grpc.aio.insecure_channel(server.target) as channel, AsyncExitStack() as stack:
        door = GrpcDoor(channel)
        made = await door.call("InitiateBatch", files=[{"filename": name, "size_bytes": 9} for name in "abc"])
        over_grpc, over_websocket, over_tus = made["file_ids"]
        call = await stack.enter_async_context(UploadCall(stub_on(channel), over_grpc))
        await call.hear_until("progress")
        uri = f"ws://127.0.0.1:{server.http_port}/api/v1/upload/ws/{over_websocket}"
        await (await stack.enter_async_context(websockets.connect(uri))).recv()
        answers: list[asyncio.StreamReader] = []
        head = b"Host: localhost\r\nContent-Length: 9\r\n"
        tus = b"Tus-Resumable: 1.0.0\r\nUpload-Offset: 0\r\nContent-Type: application/offset+octet-stream\r\n"
        for request in (
            b"POST /api/v1/upload/initiate HTTP/1.1\r\n" + head + b"\r\n{",
            b"PATCH /api/v1/tus/" + over_tus.encode() + b" HTTP/1.1\r\n" + head + tus + b"\r\nx",
        ):
            reader, writer = await asyncio.open_connection("127.0.0.1", server.http_port)
            stack.callback(writer.close)
            writer.write(request)
            answers.append(reader)
        await asyncio.to_thread(server.wait_log, lambda line: line.get("source") == "tus")
        began = time.monotonic()
        assert await asyncio.to_thread(server.terminate) == 0
        assert time.monotonic() - began < 1 + 2 + 10
        heads = [await answer.readline() for answer in answers]
    assert heads == [b"HTTP/1.1 503 Service Unavailable\r\n"] * 2
    assert not [line for line in server.log if "exception" in line]


async def next_event(call: WatchCall) -> pb.WatchStatusResponse:
    message = await asyncio.wait_for(call.read(), 20)
    assert isinstance(message, pb.WatchStatusResponse)
    return message


async def test_a_thousand_watches_and_a_cancel_on_one_channel(start_server: StartServer) -> None:
    """Streams per connection must not starve a cancel; and a drain with all of them open is quick."""
    server = start_server("--drain-grace", "20s")
    async with grpc.aio.insecure_channel(server.target) as channel:
        stub = stub_on(channel)
        door = GrpcDoor(channel)
        file_id = (await door.call("InitiateUpload", filename="a", size_bytes=1))["file"]["file_id"]
        calls = [stub.WatchStatus(pb.WatchStatusRequest(file_ids=[file_id])) for _ in range(1000)]
        for call in calls:
            assert (await next_event(call)).HasField("file")
            assert (await next_event(call)).HasField("bookmark")
        await stub.CancelFile(pb.CancelFileRequest(file_id=file_id), timeout=20)
        for call in calls:
            assert (await next_event(call)).file.status == pb.UPLOAD_STATUS_CANCELLED
        began = time.monotonic()
        assert await asyncio.to_thread(server.terminate) == 0
        assert time.monotonic() - began < 15


async def test_a_caller_that_gives_up_does_not_undo_its_cancel(channel: grpc.aio.Channel) -> None:
    """CANCELLED over gRPC means that a caller gave up waiting; the change it asked for is made all the same."""
    door, raw = GrpcDoor(channel), stub_on(channel)
    for _ in range(30):
        file_id = (await door.call("InitiateUpload", filename="a", size_bytes=1))["file"]["file_id"]
        call = raw.CancelFile(pb.CancelFileRequest(file_id=file_id, request_id=file_id), timeout=20)
        await asyncio.sleep(0.0005)
        call.cancel()
        again = await raw.CancelFile(pb.CancelFileRequest(file_id=file_id, request_id=file_id))
        file = await raw.GetFile(pb.GetFileRequest(file_id=file_id))
        assert (file.status, file.cancelled_at) == (pb.UPLOAD_STATUS_CANCELLED, again.cancelled_at)


async def test_too_many_of_a_kind_are_refused_and_cancels_still_pass(start_server: StartServer) -> None:
    server = start_server("--max-watches", "2", "--max-uploads", "1")
    async with grpc.aio.insecure_channel(server.target) as channel:
        stub, door = stub_on(channel), GrpcDoor(channel)
        file_id = (await door.call("InitiateUpload", filename="a", size_bytes=1))["file"]["file_id"]
        watches = [stub.WatchStatus(pb.WatchStatusRequest(all=True)) for _ in range(3)]
        refused = 0
        for watch in watches:
            try:
                await watch.read()
            except grpc.aio.AioRpcError as error:
                refusal = refusal_of_rpc(error)
                assert (refusal.code, refusal.reason) == ("RESOURCE_EXHAUSTED", "OVERLOADED")
                assert refusal.retry_seconds > 0
                refused += 1
        assert refused == 1
        async with httpx.AsyncClient(base_url=server.url) as client:
            over_http = await client.get("/api/v1/watch?all=true")
        assert over_http.status_code == 429
        assert refusal_of_http(over_http).retry_seconds > 0
        async with UploadCall(stub, file_id) as first, UploadCall(stub, file_id) as second:
            outcomes = await asyncio.gather(first.hear(), second.hear(), return_exceptions=True)
            assert sum(isinstance(o, Refusal) and o.reason == "OVERLOADED" for o in outcomes) == 1, outcomes
            await door.call("CancelFile", file_id=file_id)


def test_log_lines_tell_each_change_of_status(start_server: StartServer) -> None:
    server = start_server()
    made = httpx.post(
        f"{server.url}/api/v1/batch/initiate", json={"files": [{"filename": "a"}, {"filename": "b"}]}
    ).json()
    batch_id = made["batch"]["batch_id"]
    evil = 'x"}\n{"event":"forged"}\x1b[31m'
    httpx.post(f"{server.url}/api/v1/batch/cancel/{batch_id}", json={"reason": evil, "request_id": "r"})
    line = server.wait_log(lambda line: line.get("batch_id") == batch_id and line.get("to") == "cancelled")
    assert (line["from"], line["actor"], line["source"], line["request_id"]) == ("pending", "user", "http", "r")
    assert line["files"] == 2
    assert int(str(line["last_event_id"])) - int(str(line["first_event_id"])) == 1
    assert float(str(line["latency_ms"])) > 0
    assert not [line for line in server.log if line.get("event") in {"forged", "not json"}]


def test_metrics_tell_of_cancels(start_server: StartServer) -> None:
    server = start_server()
    made = httpx.post(f"{server.url}/api/v1/upload/initiate", json={"filename": "a"}).json()
    cancel = f"{server.url}/api/v1/upload/cancel/"
    httpx.post(cancel + made["file"]["file_id"], json={})
    httpx.post(cancel + made["file"]["file_id"], json={})
    httpx.post(cancel + "nothing", json={})
    text = httpx.get(f"{server.url}/metrics").text
    for outcome in ("cancelled", "too_late", "unknown"):
        assert f'upload_cancels_total{{outcome="{outcome}",source="http"}} 1.0' in text
    assert 'upload_calls_total{code="OK",door="http",method="CancelFile"} 1.0' in text


@pytest.mark.parametrize("closed", ["<&-", ">&-", "2>&-", "<&- >&- 2>&-"])
async def test_closed_standard_streams_break_nothing(tmp_path: Path, closed: str) -> None:
    """Else sockets get their numbers: a shell closes what is written to, and words meant for a person go into a row."""
    ports = "--grpc-port 0 --http-port 0 --log-format json"
    log = tmp_path / "log"
    told = "" if "2>" in closed else f"2>{log}"
    words = f'exec "{sys.executable}" -m upload_server serve {ports} --data-dir "{tmp_path / "data"}" {told} {closed}'
    process = await asyncio.create_subprocess_exec("sh", "-c", words)
    try:
        async with asyncio.timeout(30):
            while not (port := _listening(process.pid)):  # noqa: ASYNC110 - another process
                await asyncio.sleep(0.05)
        async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}") as client:
            await HttpDoor(client).call("InitiateUpload", filename="a", size_bytes=1)
        for number in range(3):
            assert not os.readlink(f"/proc/{process.pid}/fd/{number}").startswith(("socket", "anon"))  # noqa: PTH115
        process.terminate()
        assert await asyncio.wait_for(process.wait(), 20) == 0
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
    if told:
        assert '"stopped"' in log.read_text()


def _listening(pid: int) -> int:
    """The HTTP port of a server that tells nobody; 0 while there is none."""
    ports = [c.laddr.port for c in psutil.Process(pid).net_connections("inet") if c.status == psutil.CONN_LISTEN]
    for port in ports:
        with contextlib.suppress(httpx.HTTPError):
            if httpx.get(f"http://127.0.0.1:{port}/healthz", timeout=5).status_code == 200:
                return int(port)
    return 0


def test_grpc_core_writes_no_lines_of_its_own(start_server: StartServer, tmp_path: Path) -> None:
    taken = str(start_server().grpc_port)
    options = ("serve", "--grpc-port", taken, "--http-port", "0", "--log-format", "json")
    done = run_server(*options, "--data-dir", str(tmp_path / "other"))
    assert [json.loads(line)["event"] for line in done.stderr.splitlines()] == ["cannot start"]
    # Unless the operator wants them.
    done = run_server(*options, "--data-dir", str(tmp_path / "other"), GRPC_VERBOSITY="ERROR")
    assert done.stderr.startswith("E")


def test_a_folder_that_everybody_may_write_to_is_refused(tmp_path: Path) -> None:
    folder = tmp_path / "data"
    folder.mkdir()
    folder.chmod(0o777)
    done = run_server(
        "serve", "--grpc-port", "0", "--http-port", "0", "--data-dir", str(folder), "--log-format", "json"
    )
    assert done.returncode == 1
    [line] = [json.loads(line) for line in done.stderr.splitlines()]
    assert "chmod o-w" in line["problem"]
    assert list(folder.iterdir()) == []
    # The same of a folder that the database alone lies in.
    database = f"sqlite:///{folder / 'upload.sqlite3'}"
    done = run_server("serve", *ANY_PORTS, "--data-dir", str(tmp_path / "mine"), "--database-url", database)
    assert done.returncode == 1
    assert f"chmod o-w {folder}" in done.stderr
    assert list(folder.iterdir()) == []


@pytest.mark.parametrize("name", ["server.lock", "upload.sqlite3.lock", "upload.sqlite3-wal", "upload.sqlite3-shm"])
@pytest.mark.parametrize("how", ["symlink_to", "hardlink_to"])
def test_links_in_the_place_of_our_files_lead_nowhere(
    tmp_path: Path, start_server: StartServer, name: str, how: str
) -> None:
    folder, victim = tmp_path / "data", tmp_path / "victim"
    folder.mkdir(mode=0o770)
    folder.chmod(0o770)
    victim.write_text("precious")
    getattr(folder / name, how)(victim)
    done = run_server(
        "serve", "--grpc-port", "0", "--http-port", "0", "--data-dir", str(folder), "--log-format", "json"
    )
    assert done.returncode == 1
    warned, refused = [json.loads(line) for line in done.stderr.splitlines()]
    assert "may write to it" in warned["why"]
    assert str(folder / name) in refused["problem"], "which file it is"
    assert victim.read_text() == "precious"
    # Out of the way, the server starts.
    (folder / name).unlink()
    server = start_server(data_dir=folder)
    assert server.terminate() == 0


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root to give links away")
@pytest.mark.parametrize("name", ["data", "data/bytes"])
def test_a_strangers_link_in_the_place_of_a_folder_is_refused(tmp_path: Path, name: str) -> None:
    elsewhere, link = tmp_path / "elsewhere", tmp_path / name
    elsewhere.mkdir()
    link.parent.mkdir(exist_ok=True)
    link.symlink_to(elsewhere)
    os.lchown(link, 65534, 65534)
    done = run_server("serve", *ANY_PORTS, "--data-dir", str(tmp_path / "data"))
    assert done.returncode == 1
    assert str(link) in done.stderr
    assert list(elsewhere.iterdir()) == []


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root to give folders away")
def test_a_folder_of_another_user_is_taken_with_a_warning(tmp_path: Path, start_server: StartServer) -> None:
    folder = tmp_path / "data"
    folder.mkdir()
    os.chown(folder, 65534, 65534)
    server = start_server(data_dir=folder)
    [line] = [line for line in server.log if line["event"] == "others may change what lies in our folder"]
    assert "65534" in str(line["why"])
