from __future__ import annotations

import json
import re
from typing import Any

import httpx
import pytest

from unit.doors.conftest import Serve
from upload_server.domain.errors import DatabaseFailure
from upload_server.domain.observer import Observer
from upload_server.domain.states import Source
from upload_server.doors.admission import Admission
from upload_server.doors.calls import Calls
from upload_server.doors.http.app import WebApp
from upload_server.doors.http.asgi import Receive, Scope, Send, respond
from upload_server.doors.http.pages import default_pages
from upload_server.process import Metrics


async def transcoder(scope: Scope, _receive: Receive, send: Send) -> None:
    if scope["path"] == "/boom":
        raise RuntimeError("secret detail")
    await respond(send, 418, json.dumps({"path": scope["path"], "method": scope["method"]}).encode())


async def no_socket(_file_id: str, _scope: Scope, _receive: Receive, _send: Send) -> None:
    raise AssertionError("no WebSocket in these tests")


class Readiness:
    failing = False

    async def __call__(self) -> None:
        if self.failing:
            raise DatabaseFailure


@pytest.fixture
def readiness() -> Readiness:
    return Readiness()


@pytest.fixture
def app(readiness: Readiness) -> WebApp:
    return WebApp(
        transcoder=transcoder,
        websocket=no_socket,
        ready=readiness,
        metrics=Metrics("1.2.3"),
        calls=Calls(Source.HTTP, Admission({}), Observer(), timeout=30),
        pages=default_pages(),
    )


def reason_of(body: Any) -> str:
    return str(body["details"][0]["reason"])


async def test_healthz_answers_while_the_database_fails(serve: Serve, app: WebApp, readiness: Readiness) -> None:
    server = await serve(app)
    readiness.failing = True
    async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{server.port}") as client:
        assert (await client.get("/healthz")).status_code == 200
        answer = await client.get("/readyz")
        assert answer.status_code == 503
        assert reason_of(answer.json()) == "DATABASE_FAILURE"
        readiness.failing = False
        assert (await client.get("/readyz")).status_code == 200


async def test_a_draining_server_is_alive_but_not_ready(serve: Serve, app: WebApp) -> None:
    server = await serve(app)
    async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{server.port}") as client:
        app.drain()
        answer = await client.get("/readyz")
        assert (answer.status_code, reason_of(answer.json())) == (503, "SHUTTING_DOWN")
        assert (answer.headers["connection"], answer.headers["retry-after"]) == ("close", "1")
        assert (await client.get("/healthz")).status_code == 200


async def test_metrics_are_text_for_prometheus(serve: Serve, app: WebApp) -> None:
    server = await serve(app)
    async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{server.port}") as client:
        answer = await client.get("/metrics")
    assert answer.headers["content-type"].startswith("text/plain; version=0.0.4")
    assert 'upload_build_info{version="1.2.3"} 1.0' in answer.text


async def test_the_first_page_runs_our_files_only_and_loads_nothing_from_elsewhere(serve: Serve, app: WebApp) -> None:
    server = await serve(app)
    async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{server.port}") as client:
        answer = await client.get("/")
        assert answer.status_code == 200
        policy = answer.headers["content-security-policy"]
        assert policy.startswith("default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'")
        assert "unsafe" not in policy
        assert "https://" not in answer.text
        # All by relative addresses: a proxy may serve the page under a prefix. Every one leads somewhere.
        links = re.findall('(?:src|href)="([^"#]+)"', answer.text)
        assert {"console/app.js", "console/app.css", "docs", "metrics"} <= set(links)
        for link in links:
            assert not link.startswith("/")
            assert (await client.get(f"/{link}")).status_code == 200


@pytest.mark.parametrize(
    "path", ["/", "/docs", "/openapi.json", "/healthz", "/readyz", "/metrics", "/api/v1/upload/ws/x"]
)
async def test_the_wrong_verb_is_405_with_allow(serve: Serve, app: WebApp, path: str) -> None:
    server = await serve(app)
    async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{server.port}") as client:
        answer = await client.post(path)
        assert (answer.status_code, answer.headers["allow"]) == (405, "GET, HEAD")
        assert answer.json()["code"] == 12
        assert reason_of(answer.json()) == "METHOD_NOT_ALLOWED"
        assert (await client.head(path)).content == b""


async def test_a_plain_get_of_the_websocket_path_asks_for_an_upgrade(serve: Serve, app: WebApp) -> None:
    server = await serve(app)
    async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{server.port}") as client:
        answer = await client.get("/api/v1/upload/ws/some-id")
    assert (answer.status_code, answer.headers["upgrade"]) == (426, "websocket")


@pytest.mark.parametrize(
    "path", ["/api/v1/files", "/nowhere", "/healthz/", "/api/v1/upload/ws/", "/api/v1/upload/ws/a/b"]
)
async def test_everything_else_goes_to_the_transcoder(serve: Serve, app: WebApp, path: str) -> None:
    server = await serve(app)
    async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{server.port}") as client:
        answer = await client.get(path)
    assert answer.status_code == 418
    assert answer.json()["path"] == path


async def test_an_unexpected_exception_is_internal_with_an_incident_and_no_text(serve: Serve, app: WebApp) -> None:
    server = await serve(app)
    async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{server.port}") as client:
        answer = await client.get("/boom")
    assert answer.status_code == 500
    assert "secret" not in answer.text
    detail = answer.json()["details"][0]
    assert detail["reason"] == "INTERNAL"
    assert len(detail["metadata"]["incident"]) == 32
