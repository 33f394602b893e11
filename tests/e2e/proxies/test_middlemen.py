"""Behind what people put in front: no answer is kept, and watchers hear of a cancel at once, compressed or not."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path

import httpx
import pytest

from e2e.proxies.middlemen import HTTP_1_1, nginx, varnish
from support.process import ServerProcess

pytestmark = pytest.mark.timeout(90)

_HEAR_SECONDS = 5.0
_LINES, _EVENTS = "application/x-ndjson", "text/event-stream"

Middleman = Callable[[Path, int], AbstractContextManager[str]]


def _nginx_1_1(folder: Path, service: int) -> AbstractContextManager[str]:
    return nginx(folder, service, HTTP_1_1)


@pytest.fixture(scope="module", params=[nginx, _nginx_1_1, varnish], ids=["nginx", "nginx with HTTP/1.1", "varnish"])
def front(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, server: ServerProcess
) -> Iterator[str]:
    """The base URL of a program in front of the shared server."""
    middleman: Middleman = request.param
    with middleman(tmp_path_factory.mktemp("front"), server.http_port) as url:
        yield url


async def _announced(client: httpx.AsyncClient) -> str:
    made = await client.post("/api/v1/upload/initiate", json={"filename": "a.pdf", "size_bytes": 5})
    file_id: str = made.json()["file"]["file_id"]
    return file_id


async def test_an_answer_after_a_cancel_is_of_after_the_cancel(front: str) -> None:
    async with httpx.AsyncClient(base_url=front, timeout=20) as client:
        batch = (await client.post("/api/v1/batch/initiate", json={"files": [{"filename": "b"}]})).json()
        batch_id, file_id = batch["batch"]["batch_id"], batch["file_ids"][0]
        looks = [
            (f"/api/v1/files/{file_id}", "UPLOAD_STATUS_CANCELLED"),
            (f"/api/v1/batch/{batch_id}", "BATCH_STATUS_CANCELLED"),
            (f"/api/v1/files?batch_id={batch_id}", "UPLOAD_STATUS_CANCELLED"),
            (f"/api/v1/audit/events?batch_id={batch_id}", '"cancelled"'),
        ]
        for path, after in looks:
            # Twice, for the cache to have it if it takes it.
            for _ in range(2):
                before = await client.get(path)
                assert before.status_code == 200
                assert after not in before.text
        assert (await client.post(f"/api/v1/batch/cancel/{batch_id}")).status_code == 200
        for path, after in looks:
            answer = await client.get(path)
            assert after in answer.text, (path, answer.headers)
            assert answer.headers["cache-control"] == "no-store"


async def test_what_was_not_found_is_not_remembered(front: str) -> None:
    """404 and 405 are cacheable by default (RFC 9111, 4.2.2)."""
    async with httpx.AsyncClient(base_url=front, timeout=20) as client:
        for path in ("/api/v1/files/none", "/api/v1/upload/cancel/none", "/api/v1/nothing", "/api/v1/tus/none"):
            answer = await client.get(path)
            assert answer.status_code in {400, 404, 405, 412}
            assert answer.headers["cache-control"] == "no-store", path


@pytest.mark.parametrize("accept", [_LINES, _EVENTS, "application/json"])
@pytest.mark.parametrize("coding", ["gzip", "identity"])
async def test_a_watcher_hears_of_a_cancel_at_once(front: str, accept: str, coding: str) -> None:
    headers = {"accept": accept, "accept-encoding": coding}
    async with httpx.AsyncClient(base_url=front, timeout=_HEAR_SECONDS) as client:
        file_id = await _announced(client)
        asked = client.stream("GET", "/api/v1/watch", params={"file_ids": file_id}, headers=headers)
        async with asked as response:
            assert response.status_code == 200
            seen = 0
            async for line in response.aiter_lines():
                if "bookmark" in line and not seen:
                    seen = 1
                    assert (await client.post(f"/api/v1/upload/cancel/{file_id}")).status_code == 200
                if "UPLOAD_STATUS_CANCELLED" in line:
                    seen = 2
                    break
    assert seen == 2


async def test_a_page_behind_a_cache_is_told_by_its_tag(front: str) -> None:
    """The page at / may be kept, if it is asked about each time: it is small, and must be of the running program."""
    async with httpx.AsyncClient(base_url=front, timeout=20) as client:
        pages = [await client.get("/") for _ in range(2)]
    assert {page.status_code for page in pages} == {200}
    assert all("no-cache" in page.headers["cache-control"] for page in pages), pages[0].headers


async def test_problems_are_json_behind_them_too(front: str) -> None:
    async with httpx.AsyncClient(base_url=front, timeout=20) as client:
        answer = await client.post("/api/v1/upload/initiate", content=b"{")
    assert answer.status_code == 400
    assert json.loads(answer.text)["details"]
