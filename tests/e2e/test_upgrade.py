"""A data directory of the first edition under today's server: everything is there and as it was, and goes on."""

from __future__ import annotations

import asyncio
import hashlib
import json
import subprocess
import sys
import tarfile
from pathlib import Path

import grpc
import httpx
import pytest

from conftest import open_channel
from e2e.edition_1.make import FOR_EVER, HERE, OWED, TUS, Json, content, plain, seen, sha256, stub_on
from e2e.test_expiry import a_round, leave_old_answer
from support.grpc_upload import UploadCall, upload
from support.grpc_upload import stub_on as async_stub_on
from support.process import ServerProcess, StartServer
from upload.v1 import upload_pb2 as pb

RECORDED: Json = json.loads((HERE / "seen.json").read_text(encoding="utf-8"))
ASKED, SEEN = RECORDED["asked"], RECORDED["seen"]
# Events say the file's name since; but for its creation, which had not kept it, by the file's row.
NAMES = {file["file_id"]: file["filename"] for file in SEEN["files"]}
SEEN["events"] = [
    event | ({"filename": NAMES[event["file_id"]]} if event.get("file_id") and event.get("from_status") else {})
    for event in SEEN["events"]
]


@pytest.fixture
def data_dir(tmp_path: Path) -> Path:
    """A copy of the fixture, as a server that was killed left it."""
    folder = tmp_path / "data"
    with tarfile.open(HERE / "data.tar.gz") as archive:
        archive.extractall(folder, filter="data")
    return folder


@pytest.fixture
def upgraded(data_dir: Path, start_server: StartServer) -> ServerProcess:
    """Today's server on it."""
    return start_server(*FOR_EVER, data_dir=data_dir)


def command(data_dir: Path, *words: str) -> Json:
    """Run a command of the operator; returns the object that it prints."""
    line = [sys.executable, "-m", "upload_server", *words, "--data-dir", str(data_dir), "--json"]
    done = subprocess.run(line, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    answer: Json = json.loads(done.stdout)
    return answer


async def gone(data_dir: Path, file_ids: list[str]) -> None:
    """Wait until no bytes of the files are left. A folder tells nobody when it changes: it is looked at again."""
    async with asyncio.timeout(20):
        while any((data_dir / "bytes" / name[:2] / name).exists() for name in file_ids):  # noqa: ASYNC110 - see above
            await asyncio.sleep(0.02)


def test_callers_see_what_they_saw(upgraded: ServerProcess) -> None:
    now = seen(upgraded, ASKED)

    assert list(now) == list(SEEN)
    for what, before in SEEN.items():
        assert now[what] == before, what


def test_an_upgraded_place_is_sound(upgraded: ServerProcess, data_dir: Path) -> None:
    upgraded.terminate()

    assert command(data_dir, "check", "--hash")["ok"]
    # What was sealed is as it was sealed; what was not is sealed now.
    verified = command(data_dir, "audit", "verify", "--anchor", ASKED["anchor"])
    assert verified["unsealed"] == 0
    assert verified["sealed"] == len(SEEN["events"])


async def test_what_is_there_counts_from_the_upgrade(data_dir: Path, start_server: StartServer) -> None:
    """By the wall clock the fixture grows older every day; its open files and stored answers are kept all the same."""
    start_server(data_dir=data_dir).terminate()
    # Nothing may expire here before a janitor has looked.
    leave_old_answer(data_dir)
    server = start_server("--expiry-grace", "0", "--upload-ttl", "1m", "--request-ttl", "1m", data_dir=data_dir)
    await a_round(data_dir)

    assert seen(server, ASKED) == SEEN


async def test_deletions_that_were_owed_are_done(upgraded: ServerProcess, data_dir: Path) -> None:
    owed = ASKED["file_ids"][-OWED:]

    await gone(data_dir, owed)

    upgraded.terminate()
    assert command(data_dir, "check")["ok"]


async def test_an_open_upload_goes_on_at_its_offset(upgraded: ServerProcess, data_dir: Path) -> None:
    file_id, size, offset = ASKED["resumable"], 40_000, 30_000
    async with open_channel(upgraded) as channel:
        completed = await upload(async_stub_on(channel), file_id, content(size)[offset:], offset)

    assert completed.status == pb.UPLOAD_STATUS_COMPLETED
    assert completed.sha256 == sha256(size)
    folder = data_dir / "bytes" / file_id[:2]
    async with asyncio.timeout(20):
        # What was sent before the upgrade is joined with the rest, and then goes.
        while len(names := [path.name for path in folder.glob(f"{file_id}*")]) > 1:  # noqa: ASYNC110
            await asyncio.sleep(0.05)
    assert names != [file_id]
    assert (folder / names[0]).read_bytes() == content(size)
    assert [event.to_status for event in events_of(upgraded, file_id)] == ["pending", "uploading", "completed"]


async def test_an_open_upload_takes_no_other_offset(upgraded: ServerProcess) -> None:
    async with (
        open_channel(upgraded) as channel,
        UploadCall(async_stub_on(channel), ASKED["resumable"], 29_999) as call,
    ):
        refusal = await call.refused()

    assert (refusal.reason, refusal.metadata["expected_offset"]) == ("OFFSET_MISMATCH", "30000")


def test_an_upload_over_tus_goes_on_at_its_offset(upgraded: ServerProcess) -> None:
    size = 5000
    with httpx.Client(base_url=upgraded.url, headers=TUS) as http:
        head = http.head(ASKED["tus"])
        offset = int(head.headers["Upload-Offset"])
        headers = {"Upload-Offset": str(offset), "Content-Type": "application/offset+octet-stream"}
        patched = http.patch(ASKED["tus"], headers=headers, content=content(size)[offset:])

    assert (offset, int(head.headers["Upload-Length"])) == (2000, size)
    assert (patched.status_code, patched.headers["Upload-Offset"]) == (204, str(size))
    with stub_on(upgraded) as stub:
        file = stub.GetFile(pb.GetFileRequest(file_id=ASKED["tus"].rsplit("/", 1)[1]))
    assert (file.status, file.sha256) == (pb.UPLOAD_STATUS_COMPLETED, sha256(size))


def test_what_is_open_is_cancelled_and_what_is_final_is_not(upgraded: ServerProcess) -> None:
    with stub_on(upgraded) as stub:
        for file in SEEN["files"]:
            request = pb.CancelFileRequest(file_id=file["file_id"], reason="upgraded")
            if file["status"] in {"UPLOAD_STATUS_PENDING", "UPLOAD_STATUS_UPLOADING"}:
                assert stub.CancelFile(request).filename == file["filename"]
            else:
                with pytest.raises(grpc.RpcError, match="FAILED_PRECONDITION"):
                    stub.CancelFile(request)
                assert plain(stub.GetFile(pb.GetFileRequest(file_id=file["file_id"]))) == file


def events_of(server: ServerProcess, file_id: str) -> list[pb.AuditEvent]:
    with stub_on(server) as stub:
        return list(stub.ListAuditEvents(pb.ListAuditEventsRequest(file_id=file_id)).events)


def test_the_fixture_holds_what_is_tested() -> None:
    statuses = {file["status"] for file in SEEN["files"]}
    assert len(statuses) == 5
    assert len({batch["status"] for batch in SEEN["batches"]}) == 5
    assert {file.get("failure_reason", "") for file in SEEN["files"]} == {"", "expired", "checksum_mismatch"}
    assert {event["source"] for event in SEEN["events"]} >= {"grpc", "http", "websocket_close", "tus", "batch_cancel"}
    assert SEEN["changes"][-1] == {"bookmark": {}}
    assert hashlib.sha256(content(40_000)).hexdigest() == sha256(40_000)
