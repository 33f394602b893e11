"""The WebSocket door, end to end: a page's bytes in, and all the ways a socket can end."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import json
import os
import random
import struct
from collections.abc import AsyncIterator, Callable
from datetime import UTC, datetime
from pathlib import Path

import pytest
import pytest_asyncio
import websockets

from unit.doors.place import ANYBODY, WAIT, Place
from unit.doors.raw import RawPeer
from upload_server.domain.caller import Caller
from upload_server.domain.errors import DatabaseFailure
from upload_server.domain.runs import whole
from upload_server.domain.states import AuditEvent, CancelledFile, File, FileStatus, Source
from upload_server.doors.websocket.cancels import CloseCancels
from upload_server.service import Uploads
from upload_server.store.values import Trail


@pytest_asyncio.fixture
async def place(tmp_path: Path) -> AsyncIterator[Place]:
    async with Place.open(tmp_path) as opened:
        yield opened


@pytest_asyncio.fixture
async def patient(tmp_path: Path) -> AsyncIterator[Place]:
    """One whose grace no test outlives unless it puts the clock on."""
    async with Place.open(tmp_path, grace_seconds=3600) as opened:
        yield opened


async def last_event(place: Place, file_id: str) -> AuditEvent:
    page = await place.uploads.list_audit_events(Trail(file_id=file_id), "", 0, "", ANYBODY)
    return page.rows[-1]


async def raw_page(place: Place, file: File, query: str = "") -> RawPeer:
    """A page whose frames the test makes; it is the file's writer."""
    peer = await RawPeer.connect(place.http.port)
    status, _, _ = await peer.handshake(f"/api/v1/upload/ws/{file.file_id}{query}", place.http.port)
    assert status == 101
    await peer.reader.readuntil(b"}")  # the first progress
    peer.frame(2)
    await place.until_claimed(file.file_id)
    return peer


# Bytes in -----------------------------------------------------------------------------------------------------------


async def test_a_page_sends_a_file_and_commits(place: Place) -> None:
    data = os.urandom(3_000_000)
    file = await place.announce(len(data))
    page = await place.page(file.file_id)
    for start in range(0, len(data), 256 * 1024):
        await page.send(data[start : start + 256 * 1024])
    await page.say(type="commit", sha256=hashlib.sha256(data).hexdigest())
    last, code = await page.end()
    assert (last["type"], code) == ("success", 1000)
    assert last["file"]["status"] == "UPLOAD_STATUS_COMPLETED"
    assert last["file"]["sha256"] == hashlib.sha256(data).hexdigest()
    assert b"".join(place.sink.read(file.file_id, whole(1), len(data), 1 << 20)) == data
    assert page.heard[0] == {"type": "progress", "bytes_received": 0}
    event = await last_event(place, file.file_id)
    assert (event.to_status, event.source) == ("completed", "websocket")


async def test_for_an_older_page_the_last_byte_is_the_commit(place: Place) -> None:
    file = await place.announce(5)
    page = await place.page(file.file_id)
    await page.send(b"he")
    await page.send(b"llo")
    last, code = await page.end()
    assert (last["type"], code) == ("success", 1000)


async def test_a_digest_right_behind_the_last_byte_is_honoured(place: Place) -> None:
    file = await place.announce(5)
    page = await place.page(file.file_id)
    await page.send(b"hello")
    await page.say(type="commit", sha256="0" * 64)
    assert await page.error() == ("CHECKSUM_MISMATCH", 4400)
    assert (await place.get(file.file_id)).status is FileStatus.FAILED


async def test_a_digest_of_the_announcement_holds_too(place: Place) -> None:
    file = await place.announce(5, hashlib.sha256(b"other").hexdigest())
    page = await place.page(file.file_id)
    await page.send(b"hello")
    assert await page.error() == ("CHECKSUM_MISMATCH", 4400)


async def test_a_commit_after_the_commit_is_ignored(place: Place) -> None:
    file = await place.announce(5)
    page = await place.page(file.file_id)
    await page.send(b"hello")
    for _ in range(3):
        await page.say(type="commit")
    last, code = await page.end()
    assert (last["type"], code) == ("success", 1000)


async def test_an_empty_file_needs_a_commit(place: Place) -> None:
    file = await place.announce(0)
    page = await place.page(file.file_id)
    await page.send(b"")
    await page.hear("progress")
    await page.say(type="commit", sha256="")
    last, code = await page.end()
    assert (last["type"], code, last["file"]["size_bytes"]) == ("success", 1000, "0")


async def test_an_empty_file_without_a_commit_stays_open_until_idle(tmp_path: Path) -> None:
    async with Place.open(tmp_path, idle_seconds=0.3) as place:
        file = await place.announce(0)
        page = await place.page(file.file_id)
        assert await page.error() == ("UPLOAD_IDLE", 4400)


async def test_progress_counts_durable_bytes_and_is_a_number(place: Place) -> None:
    file = await place.announce(20_000_000)
    page = await place.page(file.file_id)
    for _ in range(10):
        await page.send(bytes(1_000_000))
    await page.hear("progress")
    progress = await page.hear("progress")
    assert 0 < progress["bytes_received"] <= (await place.get(file.file_id)).bytes_received
    await page.say(type="cancel")
    await page.end()
    numbers = [m["bytes_received"] for m in page.heard if m["type"] == "progress"]
    assert numbers == sorted(set(numbers))


async def test_an_upload_is_resumed_where_it_is_durable(place: Place) -> None:
    data = os.urandom(100_000)
    file = await place.announce(len(data))
    first = await place.page(file.file_id, "?on_disconnect=keep")
    await first.send(data[:60_000])
    await first.close()
    await place.until_claimed(file.file_id)
    await place.until_closed(file.file_id)
    assert (await place.get(file.file_id)).bytes_received == 60_000
    second = await place.page(file.file_id, "?offset=60000")
    assert (await second.hear("progress"))["bytes_received"] == 60_000
    await second.send(data[60_000:])
    last, _ = await second.end()
    assert last["file"]["sha256"] == hashlib.sha256(data).hexdigest()


async def test_a_page_that_resumes_after_the_last_byte_completes_without_sending(place: Place) -> None:
    file = await place.announce(5)
    upload = await place.ingest.open(file.file_id, 0, ANYBODY)
    await upload.write(b"hello")
    await upload.close()
    page = await place.page(file.file_id, "?offset=5")
    last, code = await page.end()
    assert (last["type"], code) == ("success", 1000)


async def test_fragments_are_one_message(place: Place) -> None:
    file = await place.announce(6)
    page = await place.page(file.file_id)
    await page.socket.send([b"ab", b"cd", b"ef"])
    last, _ = await page.end()
    assert last["file"]["sha256"] == hashlib.sha256(b"abcdef").hexdigest()


# Cancelling in so many words ----------------------------------------------------------------------------------------


async def test_a_page_cancels(place: Place) -> None:
    file = await place.announce(1_000_000)
    page = await place.page(file.file_id)
    await page.send(b"x" * 1000)
    await page.say(type="cancel", reason="wrong file", extra="ignored")
    last, code = await page.end()
    cancelled = await place.get(file.file_id)
    assert code == 1000
    assert last["type"] == "cancelled"
    assert (last["cancelled_by"], last["reason"]) == ("user", "wrong file")
    assert last["cancelled_at"].endswith("Z")
    assert (cancelled.status, cancelled.cancelled_by) == (FileStatus.CANCELLED, "user")
    assert (await last_event(place, file.file_id)).source == "websocket"
    await place.until_deleted(file.file_id)


async def test_a_cancel_by_somebody_else_is_told_with_4409(place: Place) -> None:
    file = await place.announce(1_000_000)
    page = await place.page(file.file_id)
    await page.send(b"x" * 1000)
    await page.hear("progress")
    answer = await place.uploads.cancel_file(file.file_id, "not needed", "", ANYBODY)
    last, code = await page.end()
    assert (last["type"], code) == ("cancelled", 4409)
    assert (last["cancelled_by"], last["reason"]) == ("user", "not needed")
    assert last["cancelled_at"] == answer.cancelled_at.isoformat().replace("+00:00", "Z")
    await place.until_deleted(file.file_id)


async def test_a_cancel_reaches_a_page_that_reads_nothing_and_sends_nothing(place: Place) -> None:
    file = await place.announce(1_000_000)
    peer = await raw_page(place, file)
    await place.uploads.cancel_file(file.file_id, "", "", ANYBODY)
    await place.until_closed(file.file_id)
    await place.until_deleted(file.file_id)
    peer.finish()


async def test_of_a_commit_and_a_cancel_one_wins_and_the_page_hears_which(place: Place) -> None:
    outcomes = set()
    for turn in range(12):
        file = await place.announce(5)
        page = await place.page(file.file_id)
        await page.send(b"hello")
        await page.say(type="commit")
        if turn % 3 == 0:
            await asyncio.sleep(0.002 * (turn // 3))
        # The socket may be closed already.
        with contextlib.suppress(websockets.ConnectionClosed):
            await page.say(type="cancel", reason="late")
        last, code = await page.end()
        final = await place.get(file.file_id)
        assert code == 1000
        assert {"success": FileStatus.COMPLETED, "cancelled": FileStatus.CANCELLED}[last["type"]] is final.status
        outcomes.add(final.status)
    assert outcomes <= {FileStatus.COMPLETED, FileStatus.CANCELLED}


async def test_a_cancel_after_the_last_byte_and_before_the_commit_wins(place: Place) -> None:
    file = await place.announce(5)
    page = await place.page(file.file_id)
    await page.send(b"hello")
    await page.say(type="cancel")
    last, code = await page.end()
    assert (last["type"], code) == ("cancelled", 1000)


# Closing is cancelling ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("half", [b"", b"half a message"], ids=["", "inside a fragmented message"])
@pytest.mark.parametrize("code", [1000, 1001, None, 4000])
async def test_a_close_frame_cancels_at_once(tmp_path: Path, code: int | None, half: bytes) -> None:
    # With this grace the test would time out if the cancel waited for it.
    async with Place.open(tmp_path, grace_seconds=3600) as place:
        file = await place.announce(1_000_000)
        peer = await raw_page(place, file)
        peer.frame(2, b"x" * 1000)
        if half:
            peer.frame(2, half, fin=False)
        peer.close_frame(code)
        # Our own close frame answers; whoever has waited for it finds the file cancelled.
        await peer.reader.readuntil(b"\x88")
        cancelled = await place.get(file.file_id)
        assert (cancelled.status, cancelled.cancelled_by) == (FileStatus.CANCELLED, "websocket_close")
        assert (await last_event(place, file.file_id)).source == "websocket_close"
        await place.until_deleted(file.file_id)
        peer.finish()


async def test_while_memory_is_short_a_page_goes_on_when_there_is_some_and_its_close_cancels(place: Place) -> None:
    """Other uploads hold all memory: a page's megabyte is read in pieces, later to its end, and a close is heard."""
    data = os.urandom(1 << 20)
    busy = await place.announce(len(data))
    other = await place.announce(10)
    sending, leaving = await place.page(busy.file_id), await place.page(other.file_id)
    for page in (sending, leaving):
        await page.hear("progress")
    place.ingest.memory.hold(1 << 30)
    sent = asyncio.create_task(sending.send(data))
    await leaving.send(b"x")
    await leaving.close(4000, "enough")
    left = await place.until_final(other.file_id)
    assert (left.status, left.cancel_reason) == (FileStatus.CANCELLED, "enough")
    assert not (await place.get(busy.file_id)).status.final
    place.ingest.memory.hold(-(1 << 30))
    await sent
    assert (await sending.end())[0]["type"] == "success"


@pytest.mark.parametrize(
    ("code", "text", "reason"),
    [
        (4000, "user pressed \x00 stop", "user pressed  stop"),
        (4000, "", "the page cancelled the upload"),
        (1000, "user pressed stop", "the page closed the connection"),
        (1001, "", "the page was closed"),
        (1001, "no words of WebKit", "the page was closed"),
        (1000, "WebSocket is closed due to suspension.", "the page closed the connection"),
    ],
)
async def test_the_reason_says_what_happened_and_a_persons_words_come_with_4000(
    place: Place, code: int, text: str, reason: str
) -> None:
    file = await place.announce(1_000_000)
    page = await place.writer(file.file_id)
    await page.close(code, text)
    assert (await place.until_final(file.file_id)).cancel_reason == reason
    assert (await last_event(place, file.file_id)).reason == reason


@pytest.mark.parametrize(
    ("grace", "seconds", "said"),
    [
        ("200ms", 0.2, " for more than 0.2 s"),
        ("1", 1, " for more than 1 s"),
        ("0", 0, ""),
        ("0.3s", 0.3, " for more than 0.3 s"),
    ],
)
async def test_a_page_may_ask_for_another_grace(tmp_path: Path, grace: str, seconds: float, said: str) -> None:
    async with Place.open(tmp_path, grace_seconds=3600) as place:
        file = await place.announce(10)
        peer = await raw_page(place, file, f"?grace={grace}")
        began = asyncio.get_running_loop().time()
        peer.finish()
        cancelled = await place.until_final(file.file_id)
        assert cancelled.cancel_reason == "the connection was lost" + said
        assert seconds <= asyncio.get_running_loop().time() - began < seconds + 20


async def test_a_page_may_ask_for_a_longer_grace_up_to_the_servers_longest(tmp_path: Path) -> None:
    async with Place.open(tmp_path, grace_seconds=0.1, max_grace_seconds=90) as place:
        file = await place.announce(10)
        peer = await raw_page(place, file, "?grace=1.5m")
        peer.finish()
        await place.until_closed(file.file_id)
        await place.until_sockets(0)
        [due] = await place.store.due_cancels(10)
        assert due.reason == "the connection was lost for more than 90 s"
        assert 85 < (due.due_at - datetime.now(UTC)).total_seconds() <= 90
        other = await place.page(file.file_id, "?grace=91s")
        assert await other.error() == ("INVALID_FIELD", 4400)
        assert other.heard[-1]["error"]["details"][0]["metadata"] == {"field": "grace", "limit": "90"}


async def test_a_new_stream_clears_the_time_at_which_a_lost_page_cancels(place: Place) -> None:
    file = await place.announce(10)
    peer = await raw_page(place, file, "?grace=1h")
    peer.finish()
    await place.until_sockets(0)
    assert [due.file_id for due in await place.store.due_cancels(10)] == [file.file_id]
    back = await place.page(file.file_id)
    await back.hear("progress")
    assert len(await place.store.due_cancels(10)) == 1
    await back.send(b"hello")
    await place.until_claimed(file.file_id, 2)
    assert await place.store.due_cancels(10) == []


async def test_the_time_of_a_file_that_was_cancelled_meanwhile_is_nobodys_business(place: Place) -> None:
    file = await place.announce(10)
    peer = await raw_page(place, file, "?grace=1h")
    peer.finish()
    await place.until_sockets(0)
    await place.uploads.cancel_file(file.file_id, "by hand", "", ANYBODY)
    assert await place.store.due_cancels(10) == []


async def test_many_pages_that_are_lost_at_once_are_all_cancelled_for(tmp_path: Path) -> None:
    async with Place.open(tmp_path, max_sockets=200) as place:
        files = [await place.announce(10) for _ in range(150)]
        peers = [await raw_page(place, file) for file in files]
        for peer in peers:
            peer.reset()
        finals = [await place.until_final(file.file_id) for file in files]
        assert {file.cancel_reason for file in finals} == {"the connection was lost for more than 0.3 s"}
        assert await place.store.due_cancels(10) == []


# A socket that has said nothing --------------------------------------------------------------------------------------


@pytest.mark.parametrize("how", ["fin", "1000", "1001", "4000", "unmasked"])
async def test_a_socket_that_never_carried_a_message_claims_nothing_and_cancels_nothing(
    tmp_path: Path, how: str
) -> None:
    async with Place.open(tmp_path, grace_seconds=0) as place:
        file, waiting = await place.announce(10), await place.announce(10)
        sender = await place.writer(file.file_id)
        for each in (file, waiting):
            peer = await RawPeer.connect(place.http.port)
            assert (await peer.handshake(f"/api/v1/upload/ws/{each.file_id}", place.http.port))[0] == 101
            await peer.reader.readuntil(b"}")
            peer.frame(9, b"?")
            if how == "unmasked":
                peer.frame(2, b"x", masked=False)
            elif how != "fin":
                peer.close_frame(int(how))
            peer.finish()
        await place.until_sockets(1)
        await place.grace_over()
        assert (await place.get(waiting.file_id)).status is FileStatus.PENDING
        assert (await place.get(file.file_id)).fence == 1
        await sender.send(b"0123456789")
        assert (await sender.end())[0]["type"] == "success"


async def test_a_socket_that_has_said_nothing_hears_of_a_cancel(place: Place) -> None:
    file = await place.announce(10)
    page = await place.page(file.file_id)
    await page.hear("progress")
    await place.uploads.cancel_file(file.file_id, "not needed", "", ANYBODY)
    last, code = await page.end()
    assert (last["type"], last["reason"], code) == ("cancelled", "not needed", 4409)


async def test_a_page_whose_first_message_meets_the_cancel_hears_of_it(place: Place) -> None:
    for _ in range(10):
        file = await place.announce(10)
        page = await place.page(file.file_id)
        await page.hear("progress")
        sending = asyncio.create_task(page.send(b"hello"))
        await place.uploads.cancel_file(file.file_id, "", "", ANYBODY)
        await sending
        last, code = await page.end()
        assert (last["type"], code) == ("cancelled", 4409)


async def test_a_socket_that_has_said_nothing_hears_that_another_completed_the_file(place: Place) -> None:
    file = await place.announce(5)
    page = await place.page(file.file_id)
    await page.hear("progress")
    sender = await place.writer(file.file_id)
    await sender.send(b"hello")
    assert await page.error() == ("FILE_NOT_WRITABLE", 4400)


@pytest.mark.parametrize(
    ("offered", "chosen"),
    [
        ("upload.v1", "upload.v1"),
        ("chat, upload.v1", "upload.v1"),
        ("chat, superchat", "chat"),
        ("upload.ticket.abc, upload.v1", "upload.v1"),
        ("bearer.abc, mine", "mine"),
        ("upload.ticket.abc", None),
    ],
)
async def test_a_subprotocol_is_chosen_and_never_one_that_carries_a_credential(
    place: Place, offered: str, chosen: str | None
) -> None:
    file = await place.announce(10)
    peer = await RawPeer.connect(place.http.port)
    header = f"Sec-WebSocket-Protocol: {offered}"
    status, headers, _ = await peer.handshake(f"/api/v1/upload/ws/{file.file_id}", place.http.port, header)
    assert (status, headers.get("sec-websocket-protocol")) == (101, chosen)
    peer.finish()


LOST = {
    "fin": "the connection was lost",
    "rst": "the connection was lost",
    "half frame": "the connection was lost",
    "3000": "the page was away",
    "1011": "the page was away",
    "1012": "the page was away",
    "1001 WebSocket is closed due to suspension.": "the browser put the page aside",
}


@pytest.mark.parametrize("how", LOST)
async def test_a_lost_socket_cancels_after_the_grace(tmp_path: Path, how: str) -> None:
    async with Place.open(tmp_path, grace_seconds=0.5) as place:
        file = await place.announce(10_000_000)
        peer = await raw_page(place, file)
        peer.frame(2, b"x" * 1000)
        began = datetime.now(UTC)
        await lose(peer, how)
        cancelled = await place.until_final(file.file_id)
        assert (cancelled.status, cancelled.cancelled_by) == (FileStatus.CANCELLED, "websocket_close")
        assert (cancelled.cancel_reason, cancelled.bytes_received) == (f"{LOST[how]} for more than 0.5 s", 1000)
        assert cancelled.cancelled_at is not None
        assert (cancelled.cancelled_at - began).total_seconds() > 0.4
        peer.finish()


async def lose(peer: RawPeer, how: str) -> None:
    await peer.writer.drain()
    # What is sent by now is read before the connection is seen to end.
    await peer.reader.readuntil(b'"bytes_received": 1000}')
    match how:
        case "fin":
            peer.finish()
        case "rst":
            peer.reset()
        case "half frame":
            peer.writer.write(b"\x82\xfe")
            peer.finish()
        case closed:
            code, _, text = closed.partition(" ")
            peer.close_frame(int(code), text.encode())


async def test_a_page_that_answers_no_ping_is_lost(tmp_path: Path) -> None:
    async with Place.open(tmp_path) as place:
        place.http._config.ws_ping_interval = place.http._config.ws_ping_timeout = 0.2
        file = await place.announce(10_000_000)
        peer = await raw_page(place, file)
        cancelled = await place.until_final(file.file_id)
        assert cancelled.cancel_reason == "the connection was lost for more than 0.3 s"
        peer.finish()


async def test_a_page_that_comes_back_in_time_is_not_cancelled(patient: Place) -> None:
    file = await patient.announce(10)
    peer = await raw_page(patient, file)
    peer.frame(2, b"hello")
    peer.reset()
    await patient.until_closed(file.file_id)
    await patient.writer(file.file_id, f"?offset={(await patient.get(file.file_id)).bytes_received}")
    await patient.until_sockets(1)
    await patient.grace_over()
    assert (await patient.get(file.file_id)).status is FileStatus.UPLOADING


async def test_an_upload_resumed_through_another_door_is_not_cancelled(patient: Place) -> None:
    file = await patient.announce(10)
    peer = await raw_page(patient, file)
    peer.reset()
    await patient.until_closed(file.file_id)
    upload = await patient.ingest.open(file.file_id, 0, Caller(Source.GRPC))
    await patient.until_sockets(0)
    await patient.grace_over()
    assert (await patient.get(file.file_id)).status is FileStatus.UPLOADING
    assert upload.ending.cause is None
    await upload.close()


@pytest.mark.parametrize("how", ["close", "rst"])
async def test_a_page_that_says_keep_keeps(place: Place, how: str) -> None:
    file = await place.announce(10)
    peer = await raw_page(place, file, "?on_disconnect=keep")
    peer.frame(2, b"hello")
    if how == "close":
        peer.close_frame(1000)
    else:
        await peer.reader.readuntil(b'"bytes_received": 5}')
        peer.reset()
    await place.until_closed(file.file_id)
    await place.until_sockets(0)
    await place.grace_over()
    kept = await place.get(file.file_id)
    assert (kept.status, kept.bytes_received) == (FileStatus.UPLOADING, 5)
    peer.finish()


@pytest.mark.parametrize("how", ["close", "rst"])
async def test_a_page_that_leaves_after_the_last_byte_has_committed(place: Place, how: str) -> None:
    file = await place.announce(5)
    peer = await raw_page(place, file)
    peer.frame(2, b"hello")
    if how == "close":
        peer.close_frame(1000)
    else:
        await peer.writer.drain()
        # A reset throws away what was not read yet.
        while place.metrics.registry.get_sample_value("upload_taken_bytes_total") != 5:  # noqa: ASYNC110
            await asyncio.sleep(0.001)
        peer.reset()
    assert (await place.until_final(file.file_id)).status is FileStatus.COMPLETED
    peer.finish()


async def test_a_page_that_left_after_its_last_byte_has_left_when_the_commit_fails(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def failing(*_: object, **__: object) -> None:
        raise DatabaseFailure

    monkeypatch.setattr(place.store, "complete", failing)
    file = await place.announce(5)
    peer = await raw_page(place, file)
    peer.frame(2, b"hello")
    peer.close_frame(1000)
    assert (await place.until_final(file.file_id)).cancelled_by == "websocket_close"
    peer.finish()


async def test_an_old_socket_does_not_cancel_what_a_newer_one_writes(place: Place) -> None:
    file = await place.announce(10)
    old = await place.ingest.open(file.file_id, 0, ANYBODY)
    await place.writer(file.file_id)
    cancels = CloseCancels(place.uploads, clock=lambda: datetime.now(UTC))
    await cancels.closed(old.file, "")
    for grace in (0, 0.01):
        await cancels.lost(old.file, grace, "")
    assert await place.store.due_cancels(10) == []
    assert (await place.get(file.file_id)).status is FileStatus.UPLOADING
    await old.close()


async def test_a_replaced_socket_is_told_and_its_close_cancels_nothing(place: Place) -> None:
    file = await place.announce(10)
    first = await place.writer(file.file_id)
    second = await place.writer(file.file_id)
    assert await first.error() == ("WRITER_REPLACED", 4400)
    await second.send(b"0123456789")
    last, _ = await second.end()
    assert last["type"] == "success"


class Failing(Uploads):
    """The real use cases behind a database that fails a few times first."""

    def fail(self, times: int) -> None:
        self.failures = times

    async def cancel_file(
        self, file_id: str, reason: str, request_id: str, caller: Caller, fence: int | None = None
    ) -> CancelledFile:
        if self.failures:
            self.failures -= 1
            raise DatabaseFailure
        return await super().cancel_file(file_id, reason, request_id, caller, fence)


async def test_a_close_cancels_also_when_the_database_fails_at_first(place: Place) -> None:
    place.uploads.__class__ = Failing
    assert isinstance(place.uploads, Failing)
    place.uploads.fail(2)
    file = await place.announce(10)
    page = await place.writer(file.file_id)
    await page.close()
    assert (await place.until_final(file.file_id)).status is FileStatus.CANCELLED


async def test_a_cancel_that_the_database_does_not_take_is_said_to_have_failed(place: Place) -> None:
    place.uploads.__class__ = Failing
    assert isinstance(place.uploads, Failing)
    place.uploads.fail(1)
    file = await place.announce(10)
    page = await place.page(file.file_id)
    await page.say(type="cancel")
    assert await page.error() == ("DATABASE_FAILURE", 4400)
    assert (await place.get(file.file_id)).status is FileStatus.UPLOADING


# Refusals -----------------------------------------------------------------------------------------------------------


async def test_an_unknown_file_is_4404(place: Place) -> None:
    page = await place.page("no-such-file")
    assert await page.error() == ("FILE_NOT_FOUND", 4404)


@pytest.mark.parametrize("file_id", ["x" * 129, "%ff%fe", "a%2Fb", "%00"])
async def test_odd_ids_are_refused_and_nothing_else(place: Place, file_id: str) -> None:
    page = await place.page(file_id)
    reason, code = await page.error()
    assert (reason, code) in {("INVALID_FIELD", 4400), ("FILE_NOT_FOUND", 4404)}


async def test_a_final_file_is_not_writable(place: Place) -> None:
    file = await place.announce(10)
    await place.uploads.cancel_file(file.file_id, "", "", ANYBODY)
    page = await place.page(file.file_id)
    assert await page.error() == ("FILE_NOT_WRITABLE", 4400)
    metadata = page.heard[-1]["error"]["details"][0]["metadata"]
    assert (metadata["status"], metadata["cancelled_by"]) == ("cancelled", "user")


async def test_a_wrong_offset_names_the_right_one(place: Place) -> None:
    file = await place.announce(10)
    page = await place.page(file.file_id, "?offset=3")
    assert await page.error() == ("OFFSET_MISMATCH", 4400)
    assert page.heard[-1]["error"]["details"][0]["metadata"]["expected_offset"] == "0"
    assert (await place.get(file.file_id)).status is FileStatus.PENDING


@pytest.mark.parametrize(
    "query",
    [
        "?offset=",
        "?offset=-1",
        "?offset=1.5",
        "?offset=x",
        "?offset=0&offset=1",
        "?offset=%D9%A1",
        "?offset=99999999999999999999",
        "?on_disconnect=kepp",
        "?grace=",
        "?grace=-1s",
        "?grace=1e3",
        "?grace=soon",
        "?grace=nan",
        "?grace=5m&grace=5m",
        "?grace=61m",
        "?" + "a" * 5000,
    ],
)
async def test_a_bad_query_is_refused_and_nothing_changed(place: Place, query: str) -> None:
    file = await place.announce(10)
    page = await place.page(file.file_id, query)
    assert await page.error() == ("INVALID_FIELD", 4400)
    assert (await place.get(file.file_id)).status is FileStatus.PENDING


@pytest.mark.parametrize(
    "text",
    [
        "",
        "hello",
        "{",
        "[]",
        "null",
        '"cancel"',
        "{}",
        '{"type":"CANCEL"}',
        '{"type":null}',
        '{"type":["cancel"]}',
        '{"type":"commit","sha265":"00"}',
        "[" * 10_000,
        '{"type":"cancel","reason":"' + "x" * 20_000 + '"}',
    ],
)
async def test_a_text_that_is_no_known_message_is_refused(place: Place, text: str) -> None:
    file = await place.announce(10)
    page = await place.page(file.file_id)
    await page.send(b"hello")
    await page.socket.send(text)
    assert await page.error() == ("UNEXPECTED_MESSAGE", 4400)
    assert page.heard[-2] == {"type": "progress", "bytes_received": 5}
    kept = await place.get(file.file_id)
    assert (kept.status, kept.bytes_received) == (FileStatus.UPLOADING, 5)


@pytest.mark.parametrize(
    "text",
    [
        '{"type":"cancel","reason":5}',
        '{"type":"cancel","reason":"\\ud800"}',
        json.dumps({"type": "cancel", "reason": "x" * 501}),
        '{"type":"commit","sha256":"xyz"}',
        '{"type":"commit","sha256":0}',
    ],
)
async def test_a_message_with_a_bad_member_is_refused(place: Place, text: str) -> None:
    file = await place.announce(5)
    page = await place.page(file.file_id)
    await page.send(b"hello")
    await page.socket.send(text)
    assert await page.error() == ("INVALID_FIELD", 4400)
    assert (await place.get(file.file_id)).status is FileStatus.UPLOADING


async def test_a_reason_of_500_characters_is_taken(place: Place) -> None:
    file = await place.announce(5)
    page = await place.page(file.file_id)
    await page.say(type="cancel", reason="\U0001f600" * 500)
    last, code = await page.end()
    assert (last["reason"], code) == ("\U0001f600" * 500, 1000)


async def test_a_message_that_passes_the_size_is_dropped_whole(place: Place) -> None:
    file = await place.announce(10)
    page = await place.page(file.file_id)
    await page.send(b"hello")
    await page.send(b"0123456789")
    assert await page.error() == ("SIZE_EXCEEDED", 4400)
    kept = await place.get(file.file_id)
    assert (kept.status, kept.bytes_received) == (FileStatus.UPLOADING, 5)


@pytest.mark.parametrize("first", [60_000, 100_000])
async def test_a_message_that_passes_the_size_is_dropped_whole_however_it_comes(place: Place, first: int) -> None:
    file = await place.announce(100_000)
    peer = await raw_page(place, file)
    head = struct.pack("!BBQ4s", 0x82, 0xFF, 200_000, b"\0\0\0\0")
    peer.writer.write(head + bytes(first))
    # It is refused by the length that its head tells, before the rest of it comes.
    assert b"SIZE_EXCEEDED" in await peer.reader.readuntil(b"SIZE_EXCEEDED")
    peer.finish()
    await place.until_closed(file.file_id)
    kept = await place.get(file.file_id)
    assert (kept.status, kept.bytes_received) == (FileStatus.UPLOADING, 0)


async def test_bytes_after_the_last_byte_are_too_many(place: Place) -> None:
    file = await place.announce(5)
    page = await place.page(file.file_id)
    await page.send(b"hello")
    await page.send(b"!")
    assert await page.error() == ("SIZE_EXCEEDED", 4400)
    assert (await place.get(file.file_id)).status is FileStatus.UPLOADING


async def test_a_commit_before_the_last_byte_is_too_early(place: Place) -> None:
    file = await place.announce(10)
    page = await place.page(file.file_id)
    await page.send(b"hello")
    await page.say(type="commit")
    assert await page.error() == ("UPLOAD_INCOMPLETE", 4400)
    kept = await place.get(file.file_id)
    assert (kept.status, kept.bytes_received) == (FileStatus.UPLOADING, 5)


async def test_a_binary_message_has_at_most_a_mebibyte(place: Place) -> None:
    file = await place.announce(10_000_000)
    page = await place.page(file.file_id)
    await page.send(bytes(1024 * 1024))
    await page.send(bytes(1024 * 1024 + 1))
    assert await page.error() == ("INVALID_FIELD", 4400)
    assert (await place.get(file.file_id)).bytes_received == 1024 * 1024


@pytest.mark.parametrize("sizes", [[1_060_000], [1_200_000], [5_000_000], [700_000, 700_000]], ids=str)
async def test_a_message_that_is_too_large_is_told_with_its_limit_and_the_upload_stays(
    tmp_path: Path, sizes: list[int]
) -> None:
    async with Place.open(tmp_path, grace_seconds=0) as place:
        file = await place.announce(10_000_000)
        page = await place.page(file.file_id)
        await page.send(b"hello")
        await page.socket.send([bytes(size) for size in sizes] if len(sizes) > 1 else bytes(sizes[0]))
        assert await page.error() == ("INVALID_FIELD", 4400)
        assert page.heard[-1]["error"]["details"][0]["metadata"] == {"field": "data", "limit": str(1 << 20)}
        assert page.heard[-2] == {"type": "progress", "bytes_received": 5}
        await stays(place, file)


def pings(peer: RawPeer) -> None:
    for _ in range(200):
        peer.frame(9)


def fragments(peer: RawPeer) -> None:
    peer.frame(2, fin=False)
    for _ in range(1100):
        peer.frame(0, fin=False)


BROKEN: dict[str, Callable[[RawPeer], object]] = {
    "unmasked": lambda peer: peer.frame(2, b"x", masked=False),
    "bad utf-8": lambda peer: peer.frame(1, b"\xff"),
    # Of no kind that there is, and always the same: bytes at random have a close frame in them now and then.
    "garbage": lambda peer: peer.writer.write(b"\xff" + random.Random(3).randbytes(4095)),
    "oversize": lambda peer: peer.writer.write(b"\x82\xff" + (2_000_000).to_bytes(8, "big") + b"mask"),
    "a close frame that is none": lambda peer: peer.frame(8, b"\x03"),
    "a close frame with an impossible code": lambda peer: peer.close_frame(1006),
    "pings": pings,
    "fragments": fragments,
}


@pytest.mark.parametrize("how", BROKEN)
async def test_a_page_that_breaks_the_protocol_is_closed_by_us_which_cancels_nothing(tmp_path: Path, how: str) -> None:
    async with Place.open(tmp_path, grace_seconds=0) as place:
        file = await place.announce(10_000_000)
        peer = await raw_page(place, file)
        peer.frame(2, b"hello")
        BROKEN[how](peer)
        if "close frame" not in how:
            code = 1008 if how in {"pings", "fragments"} else 4400
            async with asyncio.timeout(WAIT):
                said = await peer.reader.readuntil(b"\x88\x02" + code.to_bytes(2, "big"))
            assert b'"type": "error"' in said
        await stays(place, file)
        peer.finish()


async def stays(place: Place, file: File) -> None:
    """Wait until the socket of a page that sent 5 bytes is over: its upload can be resumed."""
    await place.until_sockets(0)
    await place.grace_over()
    kept = await place.get(file.file_id)
    assert (kept.status, kept.bytes_received) == (FileStatus.UPLOADING, 5)


async def test_an_idle_page_is_told_and_its_upload_stays(tmp_path: Path) -> None:
    async with Place.open(tmp_path, idle_seconds=0.4, grace_seconds=0) as place:
        file = await place.announce(10)
        page = await place.page(file.file_id)
        await page.send(b"hello")
        assert await page.error() == ("UPLOAD_IDLE", 4400)
        await place.until_sockets(0)
        await place.grace_over()
        kept = await place.get(file.file_id)
        assert (kept.status, kept.bytes_received) == (FileStatus.UPLOADING, 5)


async def test_too_many_sockets_are_1013(tmp_path: Path) -> None:
    async with Place.open(tmp_path, max_sockets=2) as place:
        files = [await place.announce(10) for _ in range(3)]
        pages = [await place.page(file.file_id) for file in files[:2]]
        for page in pages:
            await page.hear("progress")
        third = await place.page(files[2].file_id)
        assert await third.error() == ("OVERLOADED", 1013)
        assert "retry_delay" in third.heard[-1]["error"]["details"][1]
        await pages[0].say(type="cancel")
        await pages[0].end()
        # The place is free once the server is done with the socket, a moment after the page heard it close.
        await place.until_sockets(1)
        again = await place.page(files[2].file_id)
        await again.hear("progress")


async def test_another_path_is_404_and_no_socket(place: Place) -> None:
    peer = await RawPeer.connect(place.http.port)
    status, _, body = await peer.handshake("/api/v1/other", place.http.port)
    assert status == 404
    assert json.loads(body)["code"] == 5
    peer.finish()


async def test_what_nobody_foresaw_is_internal_with_an_incident(place: Place) -> None:
    async def broken(*_: object) -> None:
        raise RuntimeError("secret detail")

    place.ingest.open = broken  # type: ignore[method-assign, assignment]
    page = await place.page((await place.announce(10)).file_id)
    await page.send(b"")
    assert await page.error() == ("INTERNAL", 4400)
    assert "secret" not in json.dumps(page.heard)
    assert len(page.heard[-1]["error"]["details"][0]["metadata"]["incident"]) == 32


# Drain --------------------------------------------------------------------------------------------------------------


async def test_on_shutdown_pages_hear_1012_and_uploads_stay(place: Place) -> None:
    file = await place.announce(10)
    page = await place.page(file.file_id)
    await page.send(b"hello")
    for _ in range(2):
        await page.hear("progress")
    stopping = asyncio.create_task(place.drain())
    assert await page.error() == ("SHUTTING_DOWN", 1012)
    await stopping
    assert page.heard[-2] == {"type": "progress", "bytes_received": 5}
    assert (await place.get(file.file_id)).status is FileStatus.UPLOADING


async def test_on_shutdown_a_page_that_has_said_nothing_hears_1012(place: Place) -> None:
    file = await place.announce(10)
    page = await place.page(file.file_id)
    await page.hear("progress")
    stopping = asyncio.create_task(place.drain())
    assert await page.error() == ("SHUTTING_DOWN", 1012)
    await stopping
    assert (await place.get(file.file_id)).status is FileStatus.PENDING


async def test_a_page_whose_silence_behind_the_last_byte_was_its_commit_cancels_nothing(place: Place) -> None:
    file = await place.announce(5)
    upload = await place.ingest.open(file.file_id, 0, ANYBODY)
    await upload.write(b"hello")
    await upload.close()
    page = await place.page(file.file_id, "?offset=5")
    await place.until_claimed(file.file_id, 2)
    await page.close()
    assert (await place.until_final(file.file_id)).status is FileStatus.COMPLETED


async def test_a_draining_door_lets_open_sockets_go_on_and_refuses_new_ones(place: Place) -> None:
    file, other = await place.announce(10), await place.announce(10)
    page = await place.page(file.file_id)
    await page.hear("progress")
    place.admission.close()
    late = await place.page(other.file_id)
    assert await late.error() == ("SHUTTING_DOWN", 1012)
    await page.send(b"0123456789")
    last, _ = await page.end()
    assert last["type"] == "success"


async def test_a_drain_forgets_lost_sockets(patient: Place) -> None:
    lost = await patient.announce(10)
    peer = await raw_page(patient, lost)
    peer.reset()
    await patient.until_closed(lost.file_id)
    await patient.until_sockets(0)
    open_still = await patient.announce(10)
    second = await raw_page(patient, open_still)
    patient.door.drain()
    second.reset()
    await patient.until_sockets(0)
    await patient.grace_over()
    for file in (lost, open_still):
        assert (await patient.get(file.file_id)).status is FileStatus.UPLOADING


async def test_the_http_servers_own_stop_cancels_nothing(place: Place) -> None:
    file = await place.announce(10)
    await place.writer(file.file_id)
    await place.http.stop()
    await place.until_sockets(0)
    await place.grace_over()
    assert (await place.get(file.file_id)).status is FileStatus.UPLOADING


async def test_sockets_and_calls_are_counted(place: Place) -> None:
    file = await place.announce(5)
    page = await place.page(file.file_id)
    await page.hear("progress")
    assert place.metrics.registry.get_sample_value("upload_open_websockets") == 1
    await page.send(b"hello")
    await page.end()
    await place.until_sockets(0)
    sample = place.metrics.registry.get_sample_value
    assert sample("upload_open_websockets") == 0
    assert sample("upload_calls_total", {"method": "UploadFile", "door": "websocket", "code": "OK"}) == 1
    assert sample("upload_taken_bytes_total") == 5
