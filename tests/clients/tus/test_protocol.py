"""What tus 1.0 asks of a server, and what this service's contract adds, request by request."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import os
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from typing import Any

import grpc
import pytest

from clients.tus.client import BYTES, PATH, Tus, encoded, file_id_of, metadata, reason, tus_on
from support.eventually import eventually
from support.grpc_upload import stub_on
from support.process import ServerProcess, StartServer, gone_from_disk
from upload.v1 import upload_pb2 as pb

MIB = 1024 * 1024


def checksum(algorithm: str, data: bytes) -> str:
    return f"{algorithm} {base64.b64encode(hashlib.new(algorithm, data).digest()).decode()}"


async def audit(tus: Tus, url: str) -> list[tuple[str, str]]:
    events = (await tus.client.get("/api/v1/audit/events", params={"file_id": file_id_of(url)})).json()["events"]
    return [(event["to_status"], event["source"]) for event in events]


async def taken(tus: Tus) -> int:
    """Bytes that the server has taken from senders in all."""
    for line in (await tus.client.get("/metrics")).text.splitlines():
        if line.startswith("upload_taken_bytes_total "):
            return int(float(line.split()[1]))
    raise AssertionError("no such series")


async def until_taken(tus: Tus, count: int) -> None:
    async def are_taken() -> bool:
        return await taken(tus) >= count

    await eventually(are_taken)


# Core ----------------------------------------------------------------------------------------------------------------


async def test_a_file_in_three_requests(tus: Tus, server: ServerProcess) -> None:
    data = os.urandom(3 * MIB + 5)
    url = await tus.create(len(data), "räksmörgås/a.bin", filetype="image/png")
    assert await tus.offset(url) == 0
    for start in range(0, len(data), 2 * MIB):
        part = data[start : start + 2 * MIB]
        answer = await tus.append(url, start, part)
        assert (answer.status_code, answer.content) == (204, b"")
        assert answer.headers["upload-offset"] == str(start + len(part))
        assert "content-length" not in answer.headers
        assert await tus.offset(url) == start + len(part)
    file = await tus.file(url)
    assert (file["status"], file["filename"]) == ("UPLOAD_STATUS_COMPLETED", "räksmörgås/a.bin")
    assert (file["sha256"], file["content_type"]) == (hashlib.sha256(data).hexdigest(), "image/png")
    assert await audit(tus, url) == [("pending", "tus"), ("uploading", "tus"), ("completed", "tus")]
    (stored,) = (server.data_dir / "bytes").rglob(f"{file_id_of(url)}*")
    assert stored.read_bytes() == data


async def test_head_tells_what_is_known(tus: Tus) -> None:
    url = await tus.create(7, "b.txt", filetype="text/plain")
    answer = await tus.ask("HEAD", url)
    assert answer.headers["upload-length"] == "7"
    assert answer.headers["upload-metadata"] == encoded(filename="b.txt", filetype="text/plain")
    assert answer.headers["tus-resumable"] == "1.0.0"
    assert (await tus.ask("HEAD", f"{url}/")).headers["upload-length"] == "7"


async def test_options_tell_what_is_spoken_also_without_a_version(tus: Tus) -> None:
    for url in (PATH, f"{PATH}/", await tus.create(1)):
        answer = await tus.ask("OPTIONS", url, {"Tus-Resumable": ""})
        assert answer.status_code == 204
        assert answer.headers["tus-version"] == "1.0.0"
        assert answer.headers["tus-max-size"] == str(1024**4)
        assert set(answer.headers["tus-extension"].split(",")) == {
            "creation",
            "creation-with-upload",
            "termination",
            "expiration",
            "checksum",
        }
        assert answer.headers["tus-checksum-algorithm"] == "sha1,sha256,md5"


@pytest.mark.parametrize("version", ["", "0.2.2", "1.0.1"])
async def test_another_version_is_refused_before_anything(tus: Tus, version: str) -> None:
    url = await tus.create(3)
    for method, target in (("POST", PATH), ("HEAD", url), ("PATCH", url), ("DELETE", url)):
        answer = await tus.ask(method, target, {"Tus-Resumable": version, "Upload-Length": "1"})
        assert (answer.status_code, answer.headers["tus-version"]) == (412, "1.0.0")
        assert method == "HEAD" or reason(answer) == "TUS_VERSION_NOT_SUPPORTED"
    assert await audit(tus, url) == [("pending", "tus")]


async def test_a_wrong_offset_is_a_conflict_and_changes_nothing(tus: Tus) -> None:
    url = await tus.create(10)
    assert (await tus.append(url, 0, b"12345")).status_code == 204
    answer = await tus.append(url, 4, b"5")
    assert (answer.status_code, reason(answer)) == (409, "OFFSET_MISMATCH")
    assert metadata(answer)["expected_offset"] == "5"
    assert await tus.offset(url) == 5


async def test_bytes_must_be_declared_as_bytes(tus: Tus) -> None:
    url = await tus.create(3)
    answer = await tus.append(url, 0, b"abc", Content_Type="application/octet-stream")
    assert (answer.status_code, reason(answer)) == (415, "UNSUPPORTED_MEDIA_TYPE")
    assert await tus.offset(url) == 0


@pytest.mark.parametrize("offset", ["", "-1", "x", "1" * 30, "0x1"])
async def test_an_offset_that_is_no_number(tus: Tus, offset: str) -> None:
    url = await tus.create(3)
    answer = await tus.append(url, 0, b"abc", Upload_Offset=offset)
    assert (answer.status_code, reason(answer)) == (400, "INVALID_FIELD")
    assert metadata(answer)["field"] == "Upload-Offset"


async def test_more_bytes_than_announced_are_refused(tus: Tus) -> None:
    url = await tus.create(3)
    answer = await tus.append(url, 0, b"abcd")
    assert (answer.status_code, reason(answer)) == (400, "SIZE_EXCEEDED")
    assert await tus.offset(url) == 0

    async def unannounced() -> AsyncIterator[bytes]:
        yield b"ab"
        await tus.until_durable(url, 2)
        yield b"cd"

    answer = await tus.append(url, 0, unannounced())
    assert (answer.status_code, reason(answer)) == (400, "SIZE_EXCEEDED")
    assert await tus.offset(url) == 2
    assert (await tus.append(url, 2, b"c")).status_code == 204
    assert (await tus.file(url))["status"] == "UPLOAD_STATUS_COMPLETED"


@pytest.mark.parametrize("method", ["PUT", "POST"])
async def test_other_methods_are_not_allowed(tus: Tus, method: str) -> None:
    url = await tus.create(3)
    answer = await tus.ask(method, url)
    assert (answer.status_code, reason(answer)) == (405, "METHOD_NOT_ALLOWED")
    assert answer.headers["allow"] == "PATCH, HEAD, DELETE, OPTIONS"


@pytest.mark.parametrize("file_id", ["no-such-file", "a/b", "%00", "..%2Fetc", "%ff", "x" * 128])
async def test_an_unknown_id(tus: Tus, file_id: str) -> None:
    url = f"{PATH}/{file_id}"
    head = await tus.ask("HEAD", url)
    assert (head.status_code, "upload-offset" in head.headers) == (404, False)
    for answer in (await tus.append(url, 0, b"x"), await tus.ask("DELETE", url)):
        assert (answer.status_code, reason(answer)) == (404, "FILE_NOT_FOUND")


async def test_an_id_that_is_too_long(tus: Tus) -> None:
    url = f"{PATH}/{'x' * 129}"
    for answer in (await tus.append(url, 0, b"x"), await tus.ask("DELETE", url)):
        assert (answer.status_code, reason(answer)) == (400, "INVALID_FIELD")


async def test_another_method_in_a_header_of_a_post(tus: Tus) -> None:
    url = await tus.create(4)
    headers = {"X-HTTP-Method-Override": "PATCH", "Content-Type": BYTES, "Upload-Offset": "0"}
    assert (await tus.ask("POST", url, headers, content=b"ab")).headers["upload-offset"] == "2"
    # Of a method that any page may use nothing else is made.
    answer = await tus.ask("GET", url, {"X-HTTP-Method-Override": "DELETE"})
    assert (answer.status_code, "FILE_NOT_COMPLETED" in answer.text) == (400, True)
    assert (await tus.ask("POST", url, {"X-HTTP-Method-Override": "DELETE"})).status_code == 204
    assert (await tus.file(url))["status"] == "UPLOAD_STATUS_CANCELLED"


# Creation ------------------------------------------------------------------------------------------------------------


async def test_a_file_without_bytes_is_completed_by_its_creation(tus: Tus) -> None:
    url = await tus.create(0)
    assert await tus.offset(url) == 0
    assert (await tus.file(url))["status"] == "UPLOAD_STATUS_COMPLETED"


async def test_a_file_that_nobody_names_is_called_unnamed(tus: Tus) -> None:
    url = (await tus.ask("POST", headers={"Upload-Length": "1"})).headers["location"]
    assert (await tus.file(url))["filename"] == "unnamed"


async def test_names_of_macos_are_brought_into_the_normal_form(tus: Tus) -> None:
    url = await tus.create(1, "re\u0301sume\u0301.pdf")
    assert (await tus.file(url))["filename"] == "r\u00e9sum\u00e9.pdf"


@pytest.mark.parametrize(
    ("headers", "field"),
    [
        ({}, "Upload-Length"),
        ({"Upload-Length": "-5"}, "Upload-Length"),
        ({"Upload-Length": "5,5"}, "Upload-Length"),
        ({"Upload-Defer-Length": "1"}, "Upload-Defer-Length"),
        ({"Upload-Length": "5", "Upload-Concat": "partial"}, "Upload-Concat"),
        ({"Upload-Length": "5", "Upload-Metadata": "filename nobase64!"}, "Upload-Metadata"),
        ({"Upload-Length": "5", "Upload-Metadata": "filename /w=="}, "Upload-Metadata"),
        ({"Upload-Length": "5", "Upload-Metadata": "a YQ==,a YQ=="}, "Upload-Metadata"),
        ({"Upload-Length": "5", "Upload-Metadata": "a YQ== YQ=="}, "Upload-Metadata"),
        ({"Upload-Length": "5", "Upload-Metadata": b"a\xa0YQ=="}, "Upload-Metadata"),
        ({"Upload-Length": "5", "Upload-Metadata": f"abcd {'YQQQ' * 2047}"}, "Upload-Metadata"),
        ({"Upload-Length": "5", "Upload-Metadata": encoded(filename="../x")}, "filename"),
        ({"Upload-Length": "5", "Upload-Metadata": encoded(filename="a\nb")}, "filename"),
        ({"Upload-Length": "5", "Upload-Metadata": encoded(filename="n" * 300)}, "filename"),
        ({"Upload-Length": "5", "Upload-Metadata": encoded(sha256="abc")}, "sha256"),
        ({"Upload-Length": "5", "Upload-Checksum": "crc32 AAAA"}, "Upload-Checksum"),
        ({"Upload-Length": "5", "Upload-Checksum": "sha1 AAAA"}, "Upload-Checksum"),
    ],
)
async def test_a_creation_that_breaks_a_rule_creates_nothing(tus: Tus, headers: dict[str, Any], field: str) -> None:
    answer = await tus.ask("POST", headers=headers)
    assert (answer.status_code, reason(answer)) == (400, "INVALID_FIELD")
    assert metadata(answer)["field"] == field
    assert "location" not in answer.headers


@pytest.mark.parametrize(
    ("given", "filename", "kind"),
    [
        (["filename YS50eHQ=,thumbhash //6AAQ=="], "a.txt", ""),
        (["filename YS50eHQ=,is_confidential"], "a.txt", ""),
        (["filename YS50eHQ=,"], "a.txt", ""),
        (["filename\tYS50eHQ="], "a.txt", ""),
        (["filename YS50eHQ=", "filetype dGV4dC9wbGFpbg=="], "a.txt", "text/plain"),
        (["relativePath dHJpcC9hLmpwZw==,name YS5qcGc="], "trip/a.jpg", ""),
        (["relativePath bnVsbA==,name YS5qcGc="], "a.jpg", ""),
        ([encoded(filename="a", filetype="t" * 142)], "a", ""),
        ([encoded(filename="a", filetype="text/\u00e4")], "a", ""),
        ([",,"], "unnamed", ""),
    ],
)
async def test_metadata_is_read_as_the_protocol_says(tus: Tus, given: list[str], filename: str, kind: str) -> None:
    headers = [("Tus-Resumable", "1.0.0"), ("Upload-Length", "1"), *(("Upload-Metadata", line) for line in given)]
    answer = await tus.client.post(PATH, headers=headers)
    assert answer.status_code == 201, answer.text
    file = await tus.file(answer.headers["location"])
    assert (file["filename"], file["content_type"]) == (filename, kind)
    told = (await tus.ask("HEAD", answer.headers["location"])).headers.get("upload-metadata")
    assert told == ",".join(given)


async def test_metadata_is_told_as_it_was_given_also_after_a_restart(start_server: StartServer) -> None:
    lines = ["Zeta eg==,folderId Nw==", "is_confidential,FILENAME QQ==, filename\tYS50eHQ= ,empty ,a \t//8="]
    most = f"abc {'YQQQ' * 2047}"
    assert len(most) == 8 * 1024
    bodies: list[tuple[str, bytes, list[str]]] = [
        ("3", b"", lines),  # to be sent
        ("3", b"abc", lines),  # whole
        ("3", b"ab", lines),  # begun
        ("0", b"", lines),
        ("3", b"abc", [most]),
    ]
    server, urls = start_server(), []
    async with tus_on(server) as client:
        for size, body, given in bodies:
            headers = [("Tus-Resumable", "1.0.0"), ("Upload-Length", size)]
            headers += [("Content-Type", BYTES)] * bool(body) + [("Upload-Metadata", line) for line in given]
            answer = await client.post(PATH, headers=headers, content=body)
            assert answer.status_code == 201, answer.text
            urls.append(answer.headers["location"])
        made = await client.post("/api/v1/upload/initiate", json={"filename": "a.txt", "size_bytes": "3"})
        urls.append(f"{PATH}/{made.json()['file']['file_id']}")
    assert server.terminate() == 0

    async with tus_on(start_server(data_dir=server.data_dir)) as client:
        tus = Tus(client)
        for url, begun in ((urls[0], 0), (urls[2], 2)):
            assert (await tus.append(url, begun, b"abc"[begun:])).status_code == 204
        told = [(await tus.ask("HEAD", url)).headers["upload-metadata"] for url in urls]
        assert told == [*(",".join(given) for _, _, given in bodies), encoded(filename="a.txt")]
        assert {(await tus.file(url))["status"] for url in urls[:5]} == {"UPLOAD_STATUS_COMPLETED"}


async def test_of_two_lengths_none_is_right(tus: Tus) -> None:
    answer = await tus.client.post(
        PATH, headers=[("Tus-Resumable", "1.0.0"), ("Upload-Length", "10"), ("Upload-Length", "20")]
    )
    assert (answer.status_code, metadata(answer)["field"]) == (400, "Upload-Length")


async def test_a_file_that_is_too_long(tus: Tus) -> None:
    answer = await tus.ask("POST", headers={"Upload-Length": str(1024**4 + 1)})
    assert (answer.status_code, reason(answer)) == (413, "INVALID_FIELD")


@pytest.mark.parametrize("cut", [3, 10])
async def test_bytes_may_come_with_the_creation(tus: Tus, cut: int) -> None:
    data = b"0123456789"
    headers = {"Upload-Length": "10", "Content-Type": BYTES}
    answer = await tus.ask("POST", headers=headers, content=data[:cut])
    assert (answer.status_code, answer.headers["upload-offset"]) == (201, str(cut))
    url = answer.headers["location"]
    if cut < 10:
        assert (await tus.append(url, cut, data[cut:])).status_code == 204
    assert (await tus.file(url))["sha256"] == hashlib.sha256(data).hexdigest()


async def test_a_digest_in_the_metadata_guards_the_whole_file(tus: Tus) -> None:
    url = await tus.create(5, sha256=hashlib.sha256(b"right").hexdigest())
    answer = await tus.append(url, 0, b"wrong")
    assert (answer.status_code, reason(answer)) == (400, "CHECKSUM_MISMATCH")
    assert (await tus.ask("HEAD", url)).status_code == 410
    good = await tus.create(5, sha256=hashlib.sha256(b"right").hexdigest())
    assert (await tus.append(good, 0, b"right")).status_code == 204


# Checksum ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("algorithm", ["sha1", "sha256", "md5"])
async def test_bytes_with_the_right_checksum_stay_and_others_are_dropped(tus: Tus, algorithm: str) -> None:
    data = os.urandom(20 * MIB)
    url = await tus.create(len(data))
    half = len(data) // 2
    good = await tus.append(url, 0, data[:half], Upload_Checksum=checksum(algorithm, data[:half]))
    assert (good.status_code, good.headers["upload-offset"]) == (204, str(half))
    bad = await tus.append(url, half, b"x" * half, Upload_Checksum=checksum(algorithm, data[half:]))
    assert (bad.status_code, reason(bad)) == (460, "CHUNK_CHECKSUM_MISMATCH")
    assert metadata(bad)["expected_offset"] == str(half)
    assert await tus.offset(url) == half
    again = await tus.append(url, half, data[half:], Upload_Checksum=checksum(algorithm, data[half:]))
    assert again.status_code == 204
    assert (await tus.file(url))["sha256"] == hashlib.sha256(data).hexdigest()


async def test_bytes_whose_checksum_cannot_be_known_are_dropped(tus: Tus) -> None:
    url = await tus.create(10)
    async with tus.slow(url, 10, Upload_Checksum=checksum("sha1", b"1234567890")) as sending:
        await sending.send(b"12345")
        await tus.until_uploading(url)
    assert (await tus.append(url, 0, b"12345")).status_code == 204


@pytest.mark.parametrize("given", ["crc32 AAAA", "sha1", "sha1 AAAA", "sha1 ****", "SHA1 AAAA"])
async def test_a_checksum_that_is_none(tus: Tus, given: str) -> None:
    url = await tus.create(1)
    answer = await tus.append(url, 0, b"x", Upload_Checksum=given)
    assert (answer.status_code, reason(answer)) == (400, "INVALID_FIELD")
    assert await tus.offset(url) == 0


async def test_a_wrong_checksum_of_bytes_that_come_with_the_creation(tus: Tus) -> None:
    headers = {"Upload-Length": "2", "Content-Type": BYTES, "Upload-Checksum": checksum("sha1", b"ok")}
    answer = await tus.ask("POST", headers=headers, content=b"no")
    assert (answer.status_code, reason(answer)) == (460, "CHUNK_CHECKSUM_MISMATCH")
    url = answer.headers["location"]
    assert (await tus.append(url, 0, b"ok")).status_code == 204


# Termination ---------------------------------------------------------------------------------------------------------


async def test_delete_cancels_and_says_so_again(tus: Tus, server: ServerProcess) -> None:
    url = await tus.create(100)
    await tus.append(url, 0, b"x" * 50)
    for _ in range(2):
        assert (await tus.ask("DELETE", url)).status_code == 204
    file = await tus.file(url)
    assert (file["status"], file["cancelled_by"]) == ("UPLOAD_STATUS_CANCELLED", "user")
    assert (await audit(tus, url))[-1] == ("cancelled", "tus")
    await gone_from_disk(server, file_id_of(url))
    assert (await tus.ask("HEAD", url)).status_code == 410
    for data in (b"x", b""):
        answer = await tus.append(url, 50, data)
        assert (answer.status_code, reason(answer)) == (410, "FILE_NOT_WRITABLE")
        assert metadata(answer)["status"] == "cancelled"


async def test_delete_of_what_somebody_else_cancelled(tus: Tus) -> None:
    url = await tus.create(100)
    await tus.client.post(f"/api/v1/upload/cancel/{file_id_of(url)}", json={"reason": "mine"})
    answer = await tus.ask("DELETE", url)
    assert (answer.status_code, reason(answer)) == (410, "FILE_NOT_CANCELLABLE")


async def test_a_completed_file_is_not_deleted(tus: Tus) -> None:
    url = await tus.create(2)
    await tus.append(url, 0, b"ok")
    answer = await tus.ask("DELETE", url)
    assert (answer.status_code, reason(answer)) == (400, "FILE_NOT_CANCELLABLE")
    assert metadata(answer)["status"] == "completed"
    assert await tus.offset(url) == 2
    # Its sender may make sure; others hear that there is nothing left to send.
    assert (await tus.append(url, 2, b"")).status_code == 204
    answer = await tus.append(url, 0, b"ok")
    assert (answer.status_code, reason(answer)) == (409, "FILE_NOT_WRITABLE")


async def test_delete_under_a_running_request_wins_at_once(tus: Tus, server: ServerProcess) -> None:
    url = await tus.create(10 * MIB)
    async with tus.slow(url, 10 * MIB) as sending:
        await sending.send(b"x" * MIB)
        await tus.until_durable(url, MIB)
        assert (await tus.ask("DELETE", url)).status_code == 204
        answer = await sending.answer(5)
    assert (answer.status_code, reason(answer)) == (410, "UPLOAD_CANCELLED")
    assert metadata(answer)["cancelled_by"] == "user"
    await gone_from_disk(server, file_id_of(url))


async def test_a_sender_that_sends_before_it_listens_hears_of_the_cancel(tus: Tus) -> None:
    url = await tus.create(100 * MIB)
    async with tus.slow(url, 100 * MIB) as sending:
        await sending.send(b"x" * MIB)
        await tus.until_durable(url, MIB)
        assert (await tus.ask("DELETE", url)).status_code == 204
        for _ in range(20):
            await sending.send(b"x" * MIB)
        assert (await sending.answer()).status_code == 410


# Between two requests ------------------------------------------------------------------------------------------------


async def test_what_came_before_the_connection_broke_is_durable(tus: Tus) -> None:
    url = await tus.create(10)
    async with tus.slow(url, 10) as sending:
        await sending.send(b"12345")
        await tus.until_durable(url, 5)
    assert await tus.offset(url) == 5
    assert (await tus.append(url, 5, b"67890")).status_code == 204
    assert (await tus.file(url))["sha256"] == hashlib.sha256(b"1234567890").hexdigest()


async def test_a_second_request_takes_the_file_over(tus: Tus) -> None:
    """The first time its rival may be a late request of its own: it asks for the offset and goes on. Not the second."""
    url = await tus.create(15)
    async with tus.slow(url, 15) as first:
        await first.send(b"12345")
        await tus.until_durable(url, 5)
        async with tus.slow(url, 10, 5) as second:
            answer = await first.answer()
            assert (answer.status_code, reason(answer)) == (409, "WRITER_REPLACED")
            await second.send(b"abcde")
            await tus.until_durable(url, 10)
            assert (await tus.append(url, 10, b"67890")).status_code == 204
            answer = await second.answer()
            assert (answer.status_code, reason(answer)) == (403, "WRITER_REPLACED")
    assert (await tus.file(url))["sha256"] == hashlib.sha256(b"12345abcde67890").hexdigest()


@pytest.mark.parametrize("given", [{}, {"Upload_Checksum": checksum("sha1", b"x" * 4 * MIB)}])
async def test_a_late_request_takes_nothing_away(tus: Tus, given: dict[str, str]) -> None:
    """It comes when its client has long since sent the bytes by another, which are not durable yet."""
    url, before = await tus.create(4 * MIB), await taken(tus)
    async with tus.slow(url, 4 * MIB) as live:
        await live.send(b"x" * MIB)
        await until_taken(tus, before + MIB)
        async with tus.slow(url, 4 * MIB, **given) as late:
            await late.send(b"x" * 1000)
            assert (await live.answer()).status_code == 409
    assert await tus.offset(url) == MIB
    assert (await tus.append(url, MIB, b"x" * 3 * MIB)).status_code == 204
    assert (await tus.file(url))["sha256"] == hashlib.sha256(b"x" * 4 * MIB).hexdigest()


@pytest.mark.parametrize("given", [{}, {"Upload_Checksum": checksum("sha1", b"x" * 4 * MIB)}])
async def test_a_newer_request_goes_on_behind_what_the_older_one_has_sent(tus: Tus, given: dict[str, str]) -> None:
    url, before = await tus.create(4 * MIB), await taken(tus)
    async with tus.slow(url, 4 * MIB) as older:
        await older.send(b"x" * MIB)
        await until_taken(tus, before + MIB)
        newer = await tus.append(url, 0, b"x" * 4 * MIB, **given)
        assert (newer.status_code, newer.headers["upload-offset"]) == (204, str(4 * MIB))
        assert (await older.answer()).status_code == 409
    assert (await tus.file(url))["sha256"] == hashlib.sha256(b"x" * 4 * MIB).hexdigest()


async def test_a_sender_that_says_nothing_is_told_so(start_server: StartServer) -> None:
    async with tus_on(start_server("--idle-timeout", "500ms")) as client:
        tus = Tus(client)
        url = await tus.create(10)
        async with tus.slow(url, 10) as sending:
            await sending.send(b"12345")
            answer = await sending.answer()
        assert (answer.status_code, reason(answer)) == (503, "UPLOAD_IDLE")
        assert await tus.offset(url) == 5


async def test_too_many_at_once(start_server: StartServer) -> None:
    async with tus_on(start_server("--max-uploads", "1")) as client:
        tus = Tus(client)
        one, other = await tus.create(10), await tus.create(10)
        async with tus.slow(one, 10) as first:
            await first.send(b"1")
            await tus.until_durable(one, 1)
            answer = await tus.append(other, 0, b"x")
            assert (answer.status_code, reason(answer), answer.headers["retry-after"]) == (429, "OVERLOADED", "1")
            assert (await tus.ask("DELETE", one)).status_code == 204
            assert (await first.answer()).status_code == 410


async def test_a_drain_ends_requests_and_what_came_is_durable(start_server: StartServer) -> None:
    server = start_server("--drain-grace", "100ms")
    async with tus_on(server) as client:
        tus = Tus(client)
        url = await tus.create(10)
        async with tus.slow(url, 10) as sending:
            await sending.send(b"12345")
            await tus.until_durable(url, 5)
            stopping = asyncio.create_task(asyncio.to_thread(server.terminate))
            answer = await sending.answer()
        assert (answer.status_code, reason(answer)) == (503, "SHUTTING_DOWN")
        assert await stopping == 0
    async with tus_on(start_server()) as client:
        assert await Tus(client).offset(url) == 5


async def test_an_offset_at_the_end_means_that_the_file_is_completed(start_server: StartServer) -> None:
    """Killed between the last record and the commit: the client would take the offset for success."""
    server = start_server()
    async with tus_on(server) as client:
        tus = Tus(client)
        url = await tus.create(10)
        async with tus.slow(url, 0, Transfer_Encoding="chunked") as sending:
            # All bytes are there but the body's end is not.
            await sending.send(b"a\r\n1234567890\r\n")
            await tus.until_durable(url, 10)
            server.kill()
    async with tus_on(start_server()) as client:
        tus = Tus(client)
        assert (await tus.file(url))["status"] == "UPLOAD_STATUS_UPLOADING"
        assert await tus.offset(url) == 10
        assert (await tus.file(url))["status"] == "UPLOAD_STATUS_COMPLETED"


async def test_when_an_upload_expires_is_told(start_server: StartServer) -> None:
    async with tus_on(start_server("--upload-ttl", "1h")) as client:
        tus = Tus(client)
        creation = await tus.ask("POST", headers={"Upload-Length": "5"})
        appended = await tus.append(creation.headers["location"], 0, b"123")
        for answer in (creation, appended):
            left = parsedate_to_datetime(answer.headers["upload-expires"]) - datetime.now(UTC)
            assert timedelta(minutes=59) < left <= timedelta(hours=1)
        completed = await tus.append(creation.headers["location"], 3, b"45")
        assert "upload-expires" not in completed.headers


async def test_a_file_announced_by_another_door(tus: Tus) -> None:
    answer = await tus.client.post("/api/v1/upload/initiate", json={"filename": "x", "size_bytes": 3})
    url = f"{PATH}/{answer.json()['file']['file_id']}"
    assert (await tus.append(url, 0, b"abc")).status_code == 204
    assert await audit(tus, url) == [("pending", "http"), ("uploading", "tus"), ("completed", "tus")]


async def test_a_foreign_page_changes_nothing(tus: Tus) -> None:
    url = await tus.create(3)
    for method, target in (("POST", PATH), ("PATCH", url), ("DELETE", url)):
        headers = {"Origin": "http://evil.example", "Upload-Length": "1", "X-HTTP-Method-Override": ""}
        assert (await tus.ask(method, target, headers)).status_code == 403
    assert await audit(tus, url) == [("pending", "tus")]


async def test_requests_are_counted(tus: Tus) -> None:
    url = await tus.create(1)
    await tus.append(url, 0, b"x")
    metrics = (await tus.client.get("/metrics")).text
    for method in ("InitiateUpload", "UploadFile"):
        assert f'upload_calls_total{{code="OK",door="tus",method="{method}"}}' in metrics


# What only a commit completes ----------------------------------------------------------------------------------------


async def uploaded_by_grpc(server: ServerProcess, data: bytes, size: int) -> str:
    """Send bytes of a new file over gRPC and leave without a commit; returns its tus URL."""
    async with grpc.aio.insecure_channel(server.target) as channel:
        stub = stub_on(channel)
        file = (await stub.InitiateUpload(pb.InitiateUploadRequest(filename="x", size_bytes=size))).file
        call = stub.UploadFile()
        await call.write(pb.UploadFileRequest(header=pb.UploadHeader(file_id=file.file_id)))
        if data:
            await call.write(pb.UploadFileRequest(data=data))
        await call.done_writing()
        async for _ in call:
            pass
    return f"{PATH}/{file.file_id}"


@pytest.mark.parametrize("data", [b"0123456789", b""])
async def test_what_another_door_has_filled_is_not_completed_by_asking(
    tus: Tus, server: ServerProcess, data: bytes
) -> None:
    url = await uploaded_by_grpc(server, data, len(data))
    for headers in ({}, {"Origin": "http://evil.example"}):
        assert (await tus.ask("HEAD", url, headers)).status_code == 423
    file = await tus.file(url)
    assert (file["status"], file["bytes_received"]) == ("UPLOAD_STATUS_UPLOADING", str(len(data)))
    # Its sender can; and so can one that speaks tus, by a request that says so.
    assert (await tus.append(url, len(data), b"")).status_code == 204
    assert await tus.offset(url) == len(data)


async def test_a_file_of_no_bytes_that_another_door_announced_is_not_completed_by_asking(tus: Tus) -> None:
    answer = await tus.client.post("/api/v1/upload/initiate", json={"filename": "x", "size_bytes": 0})
    url = f"{PATH}/{answer.json()['file']['file_id']}"
    assert (await tus.ask("HEAD", url)).status_code == 423
    assert (await tus.file(url))["status"] == "UPLOAD_STATUS_PENDING"


async def test_who_sends_more_than_announced_has_not_ended_the_file(tus: Tus) -> None:
    url = await tus.create(1000)
    async with tus.slow(url, 0, Transfer_Encoding="chunked") as sending:
        await sending.send(b"3e8\r\n" + b"x" * 1000 + b"\r\n")
        await tus.until_durable(url, 1000)
        await sending.send(b"a\r\n0123456789\r\n0\r\n\r\n")
        answer = await sending.answer()
        assert (answer.status_code, reason(answer)) == (400, "SIZE_EXCEEDED")
    assert (await tus.ask("HEAD", url)).status_code == 423
    assert (await tus.file(url))["status"] == "UPLOAD_STATUS_UPLOADING"


async def test_a_take_over_that_brings_nothing_ends_nothing(tus: Tus, server: ServerProcess) -> None:
    url = await uploaded_by_grpc(server, b"0123456789", 10)
    async with tus.slow(url, 0, 10, Transfer_Encoding="chunked"):
        pass
    assert (await tus.ask("HEAD", url)).status_code == 423
    assert (await tus.file(url))["status"] == "UPLOAD_STATUS_UPLOADING"


async def test_a_foreign_page_does_not_end_what_a_sender_has_brought(tus: Tus) -> None:
    url = await tus.create(10)
    async with tus.slow(url, 0, Transfer_Encoding="chunked") as sending:
        await sending.send(b"a\r\n0123456789\r\n")
        await tus.until_durable(url, 10)
    assert (await tus.ask("HEAD", url, {"Origin": "http://evil.example"})).status_code == 423
    assert (await tus.file(url))["status"] == "UPLOAD_STATUS_UPLOADING"
    assert await tus.offset(url) == 10
    assert (await tus.file(url))["status"] == "UPLOAD_STATUS_COMPLETED"
