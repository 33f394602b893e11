"""A small file whose bytes all come with its creation: one write, and the answers of every other creation."""

from __future__ import annotations

import hashlib
import os

import pytest

from clients.tus.client import BYTES, Tus, encoded, file_id_of, reason, tus_on
from support.eventually import eventually
from support.process import StartServer

KIB = 1024


async def create(tus: Tus, data: bytes, size: int | None = None, **headers: str) -> tuple[int, str, str | None]:
    """Returns the answer's status, the file's place and its offset."""
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    length = str(len(data) if size is None else size)
    answer = await tus.ask("POST", headers={"Upload-Length": length, "Content-Type": BYTES, **named}, content=data)
    assert "upload-expires" not in answer.headers or answer.headers["upload-offset"] != length
    return answer.status_code, answer.headers.get("location", ""), answer.headers.get("upload-offset")


async def moves(tus: Tus, url: str) -> list[tuple[str, str]]:
    answer = await tus.client.get("/api/v1/audit/events", params={"file_id": file_id_of(url)})
    return [(event["to_status"], event["source"]) for event in answer.json()["events"]]


@pytest.mark.parametrize("size", [1, 4 * KIB, 256 * KIB])
async def test_it_is_completed_in_one_write(tus: Tus, size: int) -> None:
    data = os.urandom(size)
    name = encoded(filename="a b.bin", filetype="image/png")

    status, url, offset = await create(tus, data, Upload_Metadata=name)

    assert (status, offset) == (201, str(size))
    file = await tus.file(url)
    assert (file["status"], file["revision"]) == ("UPLOAD_STATUS_COMPLETED", "3")
    assert (file["filename"], file["content_type"]) == ("a b.bin", "image/png")
    assert file["sha256"] == hashlib.sha256(data).hexdigest()
    # Three moments where a stream writes three times.
    assert file["created_at"] == file["completed_at"]
    assert await moves(tus, url) == [("pending", "tus"), ("uploading", "tus"), ("completed", "tus")]
    assert await tus.offset(url) == size


async def test_a_longer_one_takes_a_stream(tus: Tus) -> None:
    status, url, offset = await create(tus, bytes(256 * KIB + 1))
    assert (status, offset) == (201, str(256 * KIB + 1))
    file = await tus.file(url)
    assert (file["status"], file["created_at"] < file["completed_at"]) == ("UPLOAD_STATUS_COMPLETED", True)


async def test_a_wrong_digest_fails_it_as_it_fails_a_stream(tus: Tus) -> None:
    right = hashlib.sha256(b"right").hexdigest()
    status, url, _ = await create(tus, b"right", Upload_Metadata=encoded(sha256=right))
    assert status == 201
    assert (await tus.file(url))["status"] == "UPLOAD_STATUS_COMPLETED"
    status, url, _ = await create(tus, b"wrong", Upload_Metadata=encoded(sha256=right))
    assert status == 400
    assert (await tus.file(url))["status"] == "UPLOAD_STATUS_FAILED"


async def test_a_name_that_breaks_a_rule_is_refused_with_its_bytes(tus: Tus) -> None:
    headers = {"Upload-Length": "1", "Content-Type": BYTES, "Upload-Metadata": encoded(filename="../x")}
    answer = await tus.ask("POST", headers=headers, content=b"x")
    assert (answer.status_code, reason(answer), answer.headers.get("location")) == (400, "INVALID_FIELD", None)


async def test_a_body_that_comes_slowly_takes_a_stream(tus: Tus) -> None:
    async with tus.slow("", 10, 0, "POST", Upload_Length="10", Upload_Metadata=encoded(filename="slow")) as creating:
        await creating.send(b"01234")

        async def is_uploading() -> bool:
            files = (await tus.client.get("/api/v1/files", params={"filename_prefix": "slow"})).json()["files"]
            return [file["status"] for file in files] == ["UPLOAD_STATUS_UPLOADING"]

        await eventually(is_uploading)
        await creating.send(b"56789")
        answer = await creating.answer()
    assert (answer.status_code, answer.headers["upload-offset"]) == (201, "10")
    assert (await tus.file(answer.headers["location"]))["sha256"] == hashlib.sha256(b"0123456789").hexdigest()


async def test_a_connection_that_breaks_in_the_body_leaves_nothing_at_all(start_server: StartServer) -> None:
    server = start_server("--log-level", "debug")
    async with tus_on(server) as client:
        tus = Tus(client)
        async with tus.slow("", 10, 0, "POST", Upload_Length="10") as creating:
            await creating.send(b"01234")
        await eventually(lambda: _is_logged(server.log, "tus.sender_gone"))
        assert (await client.get("/api/v1/files")).json()["files"] == []
        assert (await client.get("/api/v1/audit/events")).json()["events"] == []
        assert [path for path in (server.data_dir / "bytes").rglob("*") if path.is_file()] == []


async def _is_logged(log: list[dict[str, object]], event: str) -> bool:
    return any(line.get("event") == event for line in log)
