"""The service behind Envoy with deploy/envoy.yaml: what answers the same, and what differs."""

from __future__ import annotations

import asyncio
import contextlib
import json
import struct
import time
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import grpc
import httpx
import pytest
import pytest_asyncio
from websockets.asyncio.client import connect

from e2e.envoy.proxy import EnvoyProcess, Node
from robustness.faults.frames import ACK, END_HEADERS, HEADERS, RST, SETTINGS, call_headers, frame, greeting
from support.process import ServerProcess
from upload.v1 import upload_pb2 as pb
from upload.v1 import upload_pb2_grpc

Json = dict[str, Any]
StartServer = Callable[..., ServerProcess]


@pytest.fixture(scope="module")
def node() -> Node:
    return Node.planned()


@pytest.fixture(scope="module")
def proxy(node: Node) -> Iterator[EnvoyProcess]:
    """Started before the service."""
    with EnvoyProcess(node) as process:
        yield process


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory, node: Node, proxy: EnvoyProcess) -> Iterator[ServerProcess]:
    del proxy
    options = (*node.options, "--bookmark-interval", "1s")
    with ServerProcess(tmp_path_factory.mktemp("behind-envoy"), options) as process:
        yield process


@pytest_asyncio.fixture
async def direct(service: ServerProcess) -> AsyncIterator[httpx.AsyncClient]:
    async with httpx.AsyncClient(base_url=service.url, timeout=20) as client:
        yield client


@pytest_asyncio.fixture
async def through(service: ServerProcess, node: Node, proxy: EnvoyProcess) -> AsyncIterator[httpx.AsyncClient]:
    del service
    await proxy.wait_healthy(node)
    async with httpx.AsyncClient(base_url=proxy.url, timeout=20) as client:
        yield client


async def initiate(client: httpx.AsyncClient, name: str = "example.pdf", size: int = 5) -> str:
    answer = await client.post("/api/v1/upload/initiate", json={"filename": name, "size_bytes": str(size)})
    assert answer.status_code == 200, answer.text
    return str(answer.json()["file"]["file_id"])


async def initiate_batch(client: httpx.AsyncClient, files: int = 3) -> str:
    specs = [{"filename": f"{index}.bin", "size_bytes": "1"} for index in range(files)]
    answer = await client.post("/api/v1/batch/initiate", json={"files": specs})
    assert answer.status_code == 200, answer.text
    return str(answer.json()["batch"]["batch_id"])


async def same(direct: httpx.AsyncClient, through: httpx.AsyncClient, path: str, body: Json) -> tuple[int, Json]:
    """POST to both; status, media type and JSON must be equal."""
    one, other = await direct.post(path, json=body), await through.post(path, json=body)
    assert other.status_code == one.status_code
    assert other.headers["content-type"] == one.headers["content-type"]
    assert other.json() == one.json()
    assert list(other.json()) == list(one.json())
    return one.status_code, one.json()


async def test_before_the_service_is_up_calls_are_refused_and_then_served(
    start_server: StartServer,
) -> None:
    node = Node.planned()
    with EnvoyProcess(node) as proxy:
        async with httpx.AsyncClient(base_url=proxy.url, timeout=20) as client:
            refused = await client.post("/api/v1/upload/cancel/some-id", json={})
            assert refused.status_code == 503
            server = start_server(*node.options)
            await proxy.wait_healthy(node)
            file_id = await initiate(client)
            assert (await client.post(f"/api/v1/upload/cancel/{file_id}", json={})).status_code == 200
            server.kill()
            await proxy.wait_healthy()
            assert (await client.get("/api/v1/files")).status_code == 503
            start_server(*node.options)
            await proxy.wait_healthy(node)
            again = await client.get(f"/api/v1/files/{file_id}")
            assert again.json()["status"] == "UPLOAD_STATUS_CANCELLED"


async def test_calls_go_round_the_nodes_and_past_the_one_that_drains(start_server: StartServer, tmp_path: Path) -> None:
    """Nodes with a store each, so that it shows who was asked."""
    nodes = [Node.planned(), Node.planned()]
    servers = [start_server(*node.options, data_dir=tmp_path / str(index)) for index, node in enumerate(nodes)]
    with EnvoyProcess(*nodes) as proxy:
        await proxy.wait_healthy(*nodes)
        async with httpx.AsyncClient(base_url=proxy.url) as client:
            for index in range(24):
                await initiate(client, f"{index}.bin")
            found = []
            for server in servers:
                async with httpx.AsyncClient(base_url=server.url) as own:
                    found.append(len((await own.get("/api/v1/files")).json()["files"]))
            assert sum(found) == 24
            # All at one node: once in eight million runs.
            assert all(found)
            assert servers[0].terminate() == 0
            await proxy.wait_healthy(nodes[1])
            for index in range(4):
                await initiate(client, f"more {index}.bin")
        async with httpx.AsyncClient(base_url=servers[1].url) as own:
            assert len((await own.get("/api/v1/files")).json()["files"]) == found[1] + 4


async def test_cancel_file_answers_the_same(direct: httpx.AsyncClient, through: httpx.AsyncClient) -> None:
    file_id = await initiate(through)
    path = f"/api/v1/upload/cancel/{file_id}"
    body = {"reason": "not needed", "request_id": f"cancel-{file_id}"}
    fresh = await through.post(path, json=body)
    assert (fresh.status_code, fresh.headers["content-type"]) == (200, "application/json")
    status, answer = await same(direct, through, path, body)
    assert (status, answer) == (200, fresh.json())
    assert list(answer) == ["message", "file_id", "filename", "cancelled_at"]
    assert answer["message"] == "Upload cancelled successfully"


async def test_cancel_batch_answers_the_same(direct: httpx.AsyncClient, through: httpx.AsyncClient) -> None:
    batch_id = await initiate_batch(through)
    path = f"/api/v1/batch/cancel/{batch_id}"
    body = {"request_id": f"cancel-{batch_id}"}
    fresh = await through.post(path, json=body)
    status, answer = await same(direct, through, path, body)
    assert (status, answer) == (200, fresh.json())
    assert answer["cancelled_files_count"] == answer["total_files_in_batch"] == 3
    assert answer["message"] == "Batch upload cancelled successfully"


async def test_a_cancel_without_a_body_is_taken(through: httpx.AsyncClient) -> None:
    file_id = await initiate(through)
    assert (await through.post(f"/api/v1/upload/cancel/{file_id}")).status_code == 200


@pytest.mark.parametrize("kind", ["upload", "batch"])
async def test_unknown_and_not_cancellable_answer_the_same(
    direct: httpx.AsyncClient, through: httpx.AsyncClient, kind: str
) -> None:
    status, answer = await same(direct, through, f"/api/v1/{kind}/cancel/no-such-id", {})
    assert (status, answer["code"]) == (404, 5)
    identifier = await (initiate(direct) if kind == "upload" else initiate_batch(direct))
    path = f"/api/v1/{kind}/cancel/{identifier}"
    assert (await direct.post(path, json={})).status_code == 200
    status, answer = await same(direct, through, path, {})
    assert (status, answer["code"]) == (400, 9)
    assert answer["details"][0]["metadata"]["status"] == "cancelled"
    status, answer = await same(direct, through, path, {"reason": "x" * 501})
    assert (status, answer["details"][0]["reason"]) == (400, "INVALID_FIELD")


async def test_an_escaped_slash_is_part_of_an_id(direct: httpx.AsyncClient, through: httpx.AsyncClient) -> None:
    status, answer = await same(direct, through, "/api/v1/upload/cancel/a%2Fb", {})
    assert (status, answer["details"][0]["metadata"]["file_id"]) == (404, "a/b")


@pytest.mark.parametrize(
    ("verb", "path", "body"),
    [
        ("POST", "/api/v1/upload/cancel/some-id", "{"),
        ("GET", "/api/v1/files?page_sise=3", None),
    ],
)
async def test_what_envoy_refuses_itself_has_the_same_status_in_plain_text(
    direct: httpx.AsyncClient, through: httpx.AsyncClient, verb: str, path: str, body: str | None
) -> None:
    one, other = await direct.request(verb, path, content=body), await through.request(verb, path, content=body)
    assert (one.status_code, other.status_code) == (400, 400)
    assert one.headers["content-type"] == "application/json"
    assert other.headers["content-type"] == "text/plain"


async def test_envoy_drops_unknown_json_fields_and_the_service_refuses_them(
    direct: httpx.AsyncClient, through: httpx.AsyncClient
) -> None:
    """Nothing can be set about it; when this fails, Envoy has learnt to refuse and deploy/envoy.yaml should say so."""
    path, body = "/api/v1/upload/cancel/some-id", '{"reqest_id": "typo"}'
    assert (await direct.post(path, content=body)).status_code == 400
    assert (await through.post(path, content=body)).status_code == 404


@pytest.mark.parametrize(("query", "body", "status"), [("?file_id=%s", "", 403), ("", '{"file_id": "%s"}', 400)])
async def test_nothing_replaces_the_id_in_the_path(
    through: httpx.AsyncClient, query: str, body: str, status: int
) -> None:
    """Envoy's transcoder alone would cancel the other file."""
    named, other = await initiate(through), await initiate(through)
    query, body = (text.replace("%s", other) for text in (query, body))
    answer = await through.post(f"/api/v1/upload/cancel/{named}{query}", content=body)
    assert answer.status_code == status
    for file_id in (named, other):
        assert (await through.get(f"/api/v1/files/{file_id}")).json()["status"] == "UPLOAD_STATUS_PENDING"


async def test_unknown_paths_and_wrong_verbs_are_answered_by_the_node(
    direct: httpx.AsyncClient, through: httpx.AsyncClient
) -> None:
    for verb, path, status in (("GET", "/api/v1/nowhere", 404), ("DELETE", "/api/v1/files", 405)):
        one, other = await direct.request(verb, path), await through.request(verb, path)
        assert (one.status_code, other.status_code) == (status, status)
        assert one.json() == other.json()


async def test_a_large_batch_fits_through(through: httpx.AsyncClient) -> None:
    specs = [{"filename": f"{index}/{'x' * 200}.bin", "size_bytes": "1"} for index in range(10_000)]
    answer = await through.post("/api/v1/batch/initiate", json={"files": specs})
    assert answer.status_code == 200, answer.text
    assert len(answer.json()["file_ids"]) == 10_000


async def test_pages_of_other_origins_make_no_changes(through: httpx.AsyncClient, proxy: EnvoyProcess) -> None:
    file_id = await initiate(through)
    path = f"/api/v1/upload/cancel/{file_id}"
    foreign = await through.post(path, content="{}", headers={"origin": "http://elsewhere.example"})
    assert foreign.status_code == 403
    assert (await through.get(f"/api/v1/files/{file_id}")).json()["status"] == "UPLOAD_STATUS_PENDING"
    own = await through.post(path, content="{}", headers={"origin": f"http://localhost:{proxy.port}"})
    assert own.status_code == 200


async def test_a_nodes_own_pages_stay_its_own(through: httpx.AsyncClient) -> None:
    for path in ("/metrics", "/healthz", "/readyz", "/%6detrics", "/%72eadyz", "/healt%68z", "/metrics?a=%6d"):
        assert (await through.get(path)).status_code == 404, path
    assert (await through.get("/openapi.json")).json()["openapi"].startswith("3.1")


async def test_no_foreign_name_leads_to_the_nodes(through: httpx.AsyncClient, proxy: EnvoyProcess) -> None:
    for host in ("evil.example", f"evil.example:{proxy.port}"):
        assert (await through.get("/api/v1/files", headers={"host": host})).status_code == 404
    for host in ("localhost", f"localhost:{proxy.port}", f"[::1]:{proxy.port}"):
        assert (await through.get("/api/v1/files", headers={"host": host})).status_code == 200, host


async def test_grpc_goes_through(through: httpx.AsyncClient, proxy: EnvoyProcess) -> None:
    file_id = await initiate(through)
    async with grpc.aio.insecure_channel(f"127.0.0.1:{proxy.port}") as channel:
        stub = upload_pb2_grpc.UploadServiceStub(channel)
        answer = await stub.CancelFile(pb.CancelFileRequest(file_id=file_id), timeout=20)
        assert answer.file_id == file_id
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await stub.CancelFile(pb.CancelFileRequest(file_id=file_id), timeout=20)
    assert refused.value.code() is grpc.StatusCode.FAILED_PRECONDITION
    assert "grpc-status-details-bin" in dict(refused.value.trailing_metadata() or ())


async def test_grpc_web_goes_through(through: httpx.AsyncClient) -> None:
    file_id = await initiate(through)
    message = pb.CancelFileRequest(file_id=file_id).SerializeToString()
    answer = await through.post(
        "/upload.v1.UploadService/CancelFile",
        content=struct.pack(">BI", 0, len(message)) + message,
        headers={"content-type": "application/grpc-web+proto", "x-grpc-web": "1"},
    )
    assert answer.status_code == 200
    flags, size = struct.unpack_from(">BI", answer.content)
    assert (flags, pb.CancelFileResponse.FromString(answer.content[5 : 5 + size]).file_id) == (0, file_id)
    assert b"grpc-status:0" in answer.content[5 + size :]


async def test_streams_opened_and_reset_at_once_end_at_envoy(through: httpx.AsyncClient, proxy: EnvoyProcess) -> None:
    # Envoy is connected to the node; what waits for a connection ends there anyway.
    assert (await through.get("/api/v1/files")).status_code == 200
    before = await proxy.statistic("cluster.grpc.upstream_rq_total")
    reader, writer = await asyncio.open_connection("127.0.0.1", proxy.port)
    writer.write(greeting() + frame(SETTINGS, ACK, 0))
    block, reset = call_headers("CancelFile"), struct.pack("!I", 8)
    for stream in range(1, 2001, 2):
        writer.write(frame(HEADERS, END_HEADERS, stream, block) + frame(RST, 0, stream, reset))
    # Envoy hangs up on such a peer: the reader sees a reset, or the broken pipe of a write.
    async with asyncio.timeout(20):
        with contextlib.suppress(ConnectionError):
            await reader.read(-1)
    writer.close()
    # A few of a thousand at most: the health checks of the meantime are among them.
    assert await proxy.statistic("cluster.grpc.upstream_rq_total") - before < 300
    assert (await through.get("/api/v1/files")).status_code == 200


async def test_a_websocket_uploads(through: httpx.AsyncClient, proxy: EnvoyProcess) -> None:
    file_id = await initiate(through, size=6)
    async with connect(f"ws://127.0.0.1:{proxy.port}/api/v1/upload/ws/{file_id}") as socket:
        await socket.send(b"abc")
        await socket.send(b"def")
        await socket.send('{"type": "commit"}')
        messages = [json.loads(message) async for message in socket]
    assert messages[-1]["type"] == "success"
    assert messages[-1]["file"]["status"] == "UPLOAD_STATUS_COMPLETED"


async def test_closing_the_websocket_cancels(
    direct: httpx.AsyncClient, through: httpx.AsyncClient, proxy: EnvoyProcess
) -> None:
    """Envoy hands the page's close frame on: it is not taken for a lost connection, which would wait for a grace."""
    file_id = await initiate(through, size=6)
    watch = direct.stream("GET", "/api/v1/watch", params={"file_ids": file_id, "until_final": "true"})
    async with watch as states:
        async with connect(f"ws://127.0.0.1:{proxy.port}/api/v1/upload/ws/{file_id}") as socket:
            await socket.send(b"abc")
            await socket.recv()
        began = time.monotonic()
        lines = [json.loads(line) async for line in states.aiter_lines()]
    assert time.monotonic() - began < 15
    last = [line["result"]["file"] for line in lines if "file" in line["result"]][-1]
    assert (last["status"], last["cancelled_by"]) == ("UPLOAD_STATUS_CANCELLED", "websocket_close")


async def test_server_sent_events_outlive_envoys_default_timeout(
    direct: httpx.AsyncClient, through: httpx.AsyncClient
) -> None:
    """Its default ends every request after 15 s."""
    file_id = await initiate(direct)
    accept = {"accept": "text/event-stream"}
    began, tokens = time.monotonic(), []
    query = {"file_ids": file_id, "until_final": "true"}
    async with through.stream("GET", "/api/v1/watch", params=query, headers=accept) as events:
        assert events.headers["content-type"] == "text/event-stream"
        lines = events.aiter_lines()
        async for line in lines:
            tokens += [line.removeprefix("id: ")] if line.startswith("id: ") else []
            if time.monotonic() - began > 16:
                break
        await direct.post(f"/api/v1/upload/cancel/{file_id}", json={})
        rest = [line async for line in lines]
    assert len(tokens) > 3
    assert any('"UPLOAD_STATUS_CANCELLED"' in line for line in rest)
    assert "event: end" in rest
    resumed = await through.get("/api/v1/watch", params=query, headers={**accept, "last-event-id": tokens[-1]})
    assert '"UPLOAD_STATUS_CANCELLED"' in resumed.text
