"""What only HTTP has: bodies that are no JSON or too large, wrong verbs, unknown fields, exact answers."""

from __future__ import annotations

import json
import re
from collections.abc import AsyncIterator

import httpx
import pytest

from support.doors import Refusal, refusal_of_http

INITIATE = "/api/v1/upload/initiate"


async def announce(http: httpx.AsyncClient) -> str:
    response = await http.post(INITIATE, json={"filename": "example.pdf", "size_bytes": 5})
    file_id: str = response.json()["file"]["file_id"]
    return file_id


async def test_a_cancel_answers_exactly_so(http: httpx.AsyncClient) -> None:
    file_id = await announce(http)
    response = await http.post(f"/api/v1/upload/cancel/{file_id}", json={"reason": "x"})
    assert (response.status_code, response.headers["content-type"]) == (200, "application/json")
    assert re.fullmatch(
        rf'{{"message":\s?"Upload cancelled successfully",\s?"file_id":\s?"{file_id}",\s?"filename":\s?"example.pdf",'
        rf'\s?"cancelled_at":\s?"\d{{4}}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d{{3}}|\.\d{{6}})?Z"}}',
        response.text,
    )


async def test_a_batch_cancel_answers_numbers(http: httpx.AsyncClient) -> None:
    made = (await http.post("/api/v1/batch/initiate", json={"files": [{"filename": "a"}, {"filename": "b"}]})).json()
    response = await http.post(f"/api/v1/batch/cancel/{made['batch']['batch_id']}")
    body = response.json()
    assert list(body) == ["message", "batch_id", "cancelled_files_count", "total_files_in_batch", "cancelled_at"]
    assert (body["cancelled_files_count"], body["total_files_in_batch"]) == (2, 2)


@pytest.mark.parametrize("body", [b"", b"{}"])
async def test_a_cancel_needs_no_body(http: httpx.AsyncClient, body: bytes) -> None:
    response = await http.post(f"/api/v1/upload/cancel/{await announce(http)}", content=body)
    assert response.status_code == 200


async def refused(http: httpx.AsyncClient, method: str, path: str, content: bytes = b"") -> tuple[int, Refusal]:
    response = await http.request(method, path, content=content)
    return response.status_code, refusal_of_http(response)


@pytest.mark.parametrize(
    "content",
    [
        b"{",
        b"[]",
        b"null",
        b"null x",
        b'{"filename": NaN}',
        b'{"filename": "a", "filename": "b"}',
        b'{"filename": "\xff"}',
        b'{"filename": "\\ud800"}',
        b"[" * 20_000,
        b'{"size_bytes": ' + b"9" * 60_000 + b"}",
    ],
    ids=["cut", "list", "null", "rest", "nan", "twice", "utf8", "surrogate", "deep", "digits"],
)
async def test_a_malformed_body_is_refused_and_changes_nothing(http: httpx.AsyncClient, content: bytes) -> None:
    status, error = await refused(http, "POST", INITIATE, content)
    assert (status, error.reason) == (400, "INVALID_FIELD")
    assert all(error.violations)
    assert error.metadata["field"] == next(iter(error.violations))


async def test_a_mistyped_field_is_not_lost(http: httpx.AsyncClient) -> None:
    file_id = await announce(http)
    status, error = await refused(http, "POST", f"/api/v1/upload/cancel/{file_id}", b'{"requestid": "r"}')
    assert (status, error.reason, list(error.violations)) == (400, "INVALID_FIELD", ["requestid"])
    assert (await http.get(f"/api/v1/files/{file_id}")).json()["status"] == "UPLOAD_STATUS_PENDING"
    status, error = await refused(http, "GET", "/api/v1/files?pagesize=3")
    assert (status, list(error.violations)) == (400, ["pagesize"])


async def test_what_a_delete_says_may_stand_in_its_body_or_in_its_query(http: httpx.AsyncClient) -> None:
    file = (await http.post("/api/v1/upload/put", json={"filename": "a", "size_bytes": 1, "data": "YQ=="})).json()
    path = f"/api/v1/files/{file['file_id']}/content"
    says = {"reason": "consumed", "request_id": f"let-go-{file['file_id']}"}
    status, error = await refused(http, "DELETE", path, json.dumps({**says, "requestid": "r"}).encode())
    assert (status, list(error.violations)) == (400, ["requestid"])
    answers = [await http.request("DELETE", path, json=says), await http.delete(path, params=says)]
    assert [answer.status_code for answer in answers] == [200, 200]
    assert answers[0].content == answers[1].content
    newest = {"file_id": file["file_id"], "order_by": "event_id desc", "page_size": 1}
    [event] = (await http.get("/api/v1/audit/events", params=newest)).json()["events"]
    assert {key: event[key] for key in says} == says


async def test_both_spellings_of_a_field_are_taken(http: httpx.AsyncClient) -> None:
    response = await http.post(INITIATE, json={"filename": "a", "sizeBytes": "7", "contentType": "text/plain"})
    assert response.json()["file"]["size_bytes"] == "7"


@pytest.mark.parametrize("chunked", [False, True])
async def test_a_body_of_100_mb_is_refused_and_its_sender_hears_it(http: httpx.AsyncClient, chunked: bool) -> None:
    async def chunks() -> AsyncIterator[bytes]:
        for _ in range(100):
            yield b" " * 1_000_000

    response = await http.post(INITIATE, content=chunks() if chunked else b" " * 100_000_000)
    assert response.status_code == 413
    assert refusal_of_http(response).reason == "BODY_TOO_LARGE"


@pytest.mark.parametrize(
    ("method", "path", "allow"),
    [("GET", INITIATE, "POST"), ("DELETE", "/api/v1/files/x", "GET"), ("POST", "/api/v1/watch", "GET")],
)
async def test_a_wrong_verb_says_which_are_right(http: httpx.AsyncClient, method: str, path: str, allow: str) -> None:
    response = await http.request(method, path)
    assert response.status_code == 405
    assert allow in response.headers["allow"].replace(" ", "").split(",")
    refusal_of_http(response)


async def test_tickets_are_an_unknown_path_where_nobody_says_who_calls(http: httpx.AsyncClient) -> None:
    answers = [await http.post(path, json={"file_id": "a"}) for path in ("/api/v1/tickets", "/api/v1/tackets")]
    assert answers[0].status_code == 404
    assert answers[0].text.replace("tickets", "tackets") == answers[1].text


@pytest.mark.parametrize(
    "path", ["/api/v1/nothing", "/api/v1/files/", "/api/v1/files/a/b", "/api/v2/files", "/api/v1//files"]
)
async def test_an_unknown_path_is_404_with_a_status(http: httpx.AsyncClient, path: str) -> None:
    status, error = await refused(http, "GET", path)
    assert (status, error.code) == (404, "NOT_FOUND")


@pytest.mark.parametrize("origin", ["https://evil.example", "null", "http://localhost:1"])
async def test_a_page_of_another_origin_changes_nothing(http: httpx.AsyncClient, origin: str) -> None:
    file_id = await announce(http)
    response = await http.post(f"/api/v1/upload/cancel/{file_id}", headers={"origin": origin})
    assert response.status_code == 403
    assert (await http.get(f"/api/v1/files/{file_id}")).json()["status"] == "UPLOAD_STATUS_PENDING"


async def test_on_loopback_the_host_must_be_a_loopback_name(http: httpx.AsyncClient) -> None:
    assert (await http.get("/api/v1/files", headers={"host": "rebound.example"})).status_code == 403
    assert (await http.get("/api/v1/files", headers={"host": "localhost"})).status_code == 200


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/api/v1/files"),
        ("GET", "/api/v1/files/unknown"),
        ("GET", "/api/v1/batch/unknown"),
        ("GET", "/api/v1/audit/events"),
        ("GET", "/api/v1/watch?file_ids=unknown"),
        ("GET", "/api/v1/nowhere"),
        ("DELETE", "/api/v1/files"),
        ("OPTIONS", "/api/v1/files"),
        ("POST", "/api/v1/upload/cancel/unknown"),
        ("POST", INITIATE),
        ("OPTIONS", "/api/v1/tus"),
        ("HEAD", "/api/v1/tus/unknown"),
        ("HEAD", "/api/v1/files/unknown/content"),
        ("OPTIONS", "/api/v1/files/unknown/content"),
    ],
)
async def test_no_cache_keeps_an_answer(http: httpx.AsyncClient, method: str, path: str) -> None:
    """A cache may keep what says nothing: after the cancel it would still tell "pending"."""
    response = await http.request(method, path)
    assert response.headers["cache-control"] == "no-store"
    assert response.headers["x-content-type-options"] == "nosniff"


async def test_streams_pass_proxies_as_they_come(http: httpx.AsyncClient) -> None:
    for accept in ("*/*", "application/json", "text/event-stream"):
        async with http.stream("GET", "/api/v1/watch?all=true", headers={"accept": accept}) as response:
            assert response.headers["cache-control"] == "no-store"
            assert response.headers["x-accel-buffering"] == "no"
            assert response.headers["x-content-type-options"] == "nosniff"


async def test_no_reason_ends_a_line_of_a_watch_or_turns_it(http: httpx.AsyncClient) -> None:
    file_id = await announce(http)
    reason = "one\u2028event: end\u2029data: {}\u0085two, turned \u202e\u2066 and \u009b31m red: ä \u4e2d"
    await http.post(f"/api/v1/upload/cancel/{file_id}", json={"reason": reason})
    watch = {"file_ids": file_id, "until_final": "true"}
    text = (await http.get("/api/v1/watch", params=watch)).text
    assert not set("\u0085\u009b\u2028\u2029\u202e\u2066") & set(text)
    lines = [json.loads(line) for line in text.splitlines()]
    assert lines[0]["result"]["file"]["cancel_reason"] == reason
    events = await http.get("/api/v1/watch", params=watch, headers={"accept": "text/event-stream"})
    assert events.text.splitlines().count("event: end") == 1
    # What ends with OK before its first message is 204, in both forms.
    watch["resume_token"] = lines[-1]["result"]["resume_token"]
    for headers in ({}, {"accept": "text/event-stream"}):
        resumed = await http.get("/api/v1/watch", params=watch, headers=headers)
        assert (resumed.status_code, resumed.content) == (204, b"")
