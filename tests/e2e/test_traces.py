"""Calls through every door become spans of their callers' traces, at a collector."""

from __future__ import annotations

import contextlib
import gzip
import queue
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import grpc
import httpx
import pytest
import websockets

from support.grpc_upload import stub_on
from support.process import StartServer
from upload.v1 import upload_pb2 as pb

TRACE, PARENT = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
HEADERS = {"traceparent": f"00-{TRACE}-{PARENT}-01"}
OPENMETRICS = "application/openmetrics-text;version=1.0.0,text/plain;version=0.0.4;q=0.5,*/*;q=0.1"


class Collector:
    """What takes spans by OTLP over HTTP."""

    def __init__(self) -> None:
        from opentelemetry.proto.collector.trace.v1 import trace_service_pb2  # noqa: PLC0415

        spans = self.spans = queue.Queue[Any]()

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                if self.headers.get("Content-Encoding") == "gzip":
                    body = gzip.decompress(body)
                assert self.path == "/v1/traces"
                for resource in trace_service_pb2.ExportTraceServiceRequest.FromString(body).resource_spans:
                    for scope in resource.scope_spans:
                        for span in scope.spans:
                            spans.put(span)
                self.send_response(200)
                self.send_header("Content-Length", "0")
                self.end_headers()

            def log_message(self, *_: object) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def take(self) -> list[tuple[str, dict[str, str], list[str]]]:
        """Method, attributes and steps of the calls so far, which belong to the callers' trace and last some time."""
        spans = list(self.spans.queue)
        assert {span.trace_id.hex() for span in spans} == {TRACE}
        calls = {span.span_id: span for span in spans if span.parent_span_id.hex() == PARENT}
        steps: dict[bytes, list[str]] = {one: [] for one in calls}
        for span in spans:
            assert 0 <= span.end_time_unix_nano - span.start_time_unix_nano < 30e9
            if span.span_id not in calls:
                call = calls[span.parent_span_id]
                assert call.start_time_unix_nano <= span.start_time_unix_nano
                assert span.end_time_unix_nano <= call.end_time_unix_nano
                steps[span.parent_span_id].append(span.name)
        return [
            (
                call.name.rpartition("/")[2],
                {pair.key: pair.value.string_value for pair in call.attributes},
                steps[call.span_id],
            )
            for call in calls.values()
        ]


@pytest.fixture
def collector() -> Iterator[Collector]:
    collector = Collector()
    yield collector
    collector.server.shutdown()
    collector.server.server_close()


async def test_a_call_through_each_door_is_a_span_of_its_callers_trace(
    collector: Collector, start_server: StartServer
) -> None:
    server = start_server("--otlp-endpoint", collector.url, environment={"OTEL_BSP_SCHEDULE_DELAY": "50"})
    async with (
        grpc.aio.insecure_channel(server.target) as channel,
        httpx.AsyncClient(base_url=server.url, headers=HEADERS) as http,
    ):
        stub, metadata = stub_on(channel), tuple(HEADERS.items())
        request = pb.InitiateUploadRequest(filename="a", size_bytes=1)
        file_id = (await stub.InitiateUpload(request, metadata=metadata)).file.file_id
        assert (await http.post(f"/api/v1/upload/cancel/{file_id}", json={})).status_code == 200
        put = (await http.post("/api/v1/upload/put", json={"filename": "b", "size_bytes": 1, "data": "eA=="})).json()
        assert (await http.post(f"/api/v1/upload/cancel/{put['file_id']}", json={})).status_code == 400
        assert (await http.get(f"/api/v1/files/{put['file_id']}/content")).content == b"x"
        tus = {"Tus-Resumable": "1.0.0", "Upload-Length": "1", "Upload-Metadata": "filename Yg=="}
        assert (await http.post("/api/v1/tus", headers=tus)).status_code == 201
        uri = f"ws://127.0.0.1:{server.http_port}/api/v1/upload/ws/{put['file_id']}"
        async with websockets.connect(uri, additional_headers=HEADERS) as page:
            with contextlib.suppress(websockets.ConnectionClosed):  # it is completed already
                while await page.recv():
                    pass
        plain = await http.get("/metrics")
        examples = await http.get("/metrics", headers={"Accept": OPENMETRICS})
    assert plain.headers["Content-Type"].startswith("text/plain")
    assert TRACE not in plain.text
    assert examples.headers["Content-Type"].startswith("application/openmetrics-text")
    # Sent at its end, all of it.
    assert server.terminate() == 0
    spans = collector.take()
    assert len(spans) == 7
    doors = {(method, about["upload.door"]) for method, about, _ in spans}
    assert doors == {
        ("InitiateUpload", "grpc"),
        *((method, "http") for method in ("CancelFile", "PutFile", "DownloadFile")),
        ("InitiateUpload", "tus"),
        ("UploadFile", "websocket"),
    }
    assert all(about.get("upload.file_id") for _, about, _ in spans), spans
    waits = {method: steps for method, about, steps in spans if "upload.reason" not in about}
    commit = ["store.wait", "store.write", "store.commit"]
    assert waits["InitiateUpload"] == waits["CancelFile"] == commit
    assert waits["PutFile"] == ["storage.put", *commit]
    examples_of_ours = [line for line in examples.text.splitlines() if TRACE in line]
    assert any(line.startswith("upload_call_duration_seconds_bucket") for line in examples_of_ours)
    cancels = [about for method, about, _ in spans if method == "CancelFile"]
    assert {about["upload.file_id"] for about in cancels} == {file_id, put["file_id"]}
    assert [about["upload.reason"] for about in cancels if "upload.reason" in about] == ["FILE_NOT_CANCELLABLE"]
