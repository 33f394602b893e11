"""Prometheus scrapes servers: the rules hold, each query of the dashboard finds something, a traced server names spans.

Needs `prometheus`.
"""

from __future__ import annotations

import contextlib
import json
import shutil
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml

from support.ports import free_port
from support.process import StartServer
from support.wanting import missing

DEPLOY = Path(__file__).parents[2] / "deploy"
RULES = DEPLOY / "prometheus" / "rules.yaml"
TESTS = RULES.with_name("rules.test.yaml")
# Of which a healthy server without TLS or callers with names has none.
SILENT = ("upload_tls_", "upload_auth_refused", "upload_refused_requests")
EXEMPLARS = "--enable-feature=exemplar-storage"
SECONDS = 60.0


@pytest.fixture(autouse=True)
def _installed() -> None:
    if shutil.which("prometheus") is None:
        missing("needs Debian's package prometheus")


def queries() -> list[str]:
    dashboard = json.loads((DEPLOY / "grafana" / "upload-service.json").read_text())
    found = [target["expr"] for panel in dashboard["panels"] for target in panel.get("targets", ())]
    return [query.replace("$instance", ".*").replace("$__rate_interval", "10s") for query in found]


@pytest.fixture
def prometheus(tmp_path: Path, start_server: StartServer) -> Iterator[tuple[httpx.Client, httpx.Client, httpx.Client]]:
    """A server, one that is traced (to nowhere), and a Prometheus that scrapes both each second."""
    server, traced = start_server(), start_server("--otlp-endpoint", "http://127.0.0.1:9", data_dir=tmp_path / "traced")
    rules = yaml.safe_load(RULES.read_text())
    for group in rules["groups"]:
        group["interval"] = "1s"
    (tmp_path / "rules.yaml").write_text(yaml.safe_dump(rules))
    config = {
        "global": {"scrape_interval": "1s"},
        "rule_files": [str(tmp_path / "rules.yaml")],
        "scrape_configs": [
            {
                "job_name": "upload",
                "static_configs": [{"targets": [one.url.removeprefix("http://") for one in (server, traced)]}],
            },
        ],
    }
    (tmp_path / "prometheus.yaml").write_text(yaml.safe_dump(config))
    port = free_port()
    options = (f"--config.file={tmp_path}/prometheus.yaml", f"--storage.tsdb.path={tmp_path}/tsdb", EXEMPLARS)
    process = subprocess.Popen(
        ["prometheus", *options, f"--web.listen-address=127.0.0.1:{port}"],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        urls = server.url, traced.url, f"http://127.0.0.1:{port}"
        with contextlib.ExitStack() as stack:
            service, named, client = (stack.enter_context(httpx.Client(base_url=url)) for url in urls)
            yield service, named, client
    finally:
        process.kill()
        process.wait()


def use(service: httpx.Client) -> None:
    """Announce and cancel, put, cancel too late, and ask for what is not there."""
    announced = service.post("/api/v1/upload/initiate", json={"filename": "a", "size_bytes": 1}).json()["file"]
    service.post(f"/api/v1/upload/cancel/{announced['file_id']}", json={})
    put = service.post("/api/v1/upload/put", json={"filename": "b", "size_bytes": 1, "data": "eA=="}).json()
    assert service.post(f"/api/v1/upload/cancel/{put['file_id']}", json={}).status_code == 400
    assert service.get("/api/v1/files/nothing").status_code == 404


class NotReady(Exception):
    """Prometheus listens, and has not read its own past yet."""


def ask(client: httpx.Client, query: str) -> list[Any]:
    answer = client.get("/api/v1/query", params={"query": query})
    if answer.status_code == 503:
        raise NotReady(answer.text)
    assert answer.status_code == 200, (query, answer.text)
    found: list[Any] = answer.json()["data"]["result"]
    return found


def test_the_rules_hold() -> None:
    for command in (
        ["check", "rules", "--lint=all", str(RULES)],
        ["test", "rules", str(TESTS)],
    ):
        done = subprocess.run(["promtool", *command], capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr


def traces(client: httpx.Client) -> set[str]:
    """The traces of which calls are examples."""
    now = time.time()
    asked = {"query": "upload_call_duration_seconds_bucket", "start": str(now - 600), "end": str(now + 600)}
    found = client.get("/api/v1/query_exemplars", params=asked).json()["data"]
    return {example["labels"]["trace_id"] for series in found for example in series["exemplars"]}


def test_each_query_of_the_dashboard_finds_something(
    prometheus: tuple[httpx.Client, httpx.Client, httpx.Client],
) -> None:
    service, traced, client = prometheus
    silent = [query for query in queries() if not any(name in query for name in SILENT)]
    assert len(silent) > 20
    deadline = time.monotonic() + SECONDS
    while silent:
        # Rates need a change between two scrapes, so the server is used until each has seen one.
        use(service)
        use(traced)
        assert time.monotonic() < deadline, silent
        # It may not listen yet.
        with contextlib.suppress(httpx.TransportError, NotReady):
            silent = [query for query in silent if not ask(client, query)]
    for query in queries():
        ask(client, query)
    # Each of them has been scraped by now: the one by text, the other one by OpenMetrics.
    assert traces(client)
    assert not ask(client, 'ALERTS{alertstate="firing",severity="page"}')
