"""Expiry of whole processes: by the wall clock and by the time served, over restarts, and beside a slow batch."""

from __future__ import annotations

import asyncio
import functools
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import grpc

from support.grpc_upload import UploadCall, stub_on, upload
from support.process import ServerProcess, StartServer
from support.proxy import fault_proxy
from support.stores import shell, url_in
from upload.v1 import upload_pb2 as pb

UPLOADCTL = str(Path(sys.executable).with_name("uploadctl"))
DAY = 24 * 3600
# The service's wall clock is ahead by the seconds in a file.
SHIFTED = """
import os, sys
from datetime import UTC, datetime, timedelta
from pathlib import Path
from upload_server import app
shift = Path(os.environ["TEST_CLOCK_SHIFT"])
app.utc_now = lambda: datetime.now(UTC) + timedelta(seconds=float(shift.read_text()))
from upload_server.__main__ import main
sys.exit(main(sys.argv[1:]))
"""


class ShiftedServer(ServerProcess):
    """A server whose wall clock a test sets."""

    program = ("-c", SHIFTED)


@contextmanager
def shifted(data_dir: Path, shift: Path, *options: str) -> Iterator[ServerProcess]:
    with ShiftedServer(data_dir, options, {"TEST_CLOCK_SHIFT": str(shift)}) as server:
        yield server


async def half_sent_and_waiting(server: ServerProcess) -> tuple[str, str]:
    """Leave a file with durable bytes, and one that nobody has sent to."""
    async with grpc.aio.insecure_channel(server.target) as channel:
        stub = stub_on(channel)
        asked = [pb.InitiateUploadRequest(filename="a", size_bytes=10, request_id=each) for each in "ab"]
        names = [(await stub.InitiateUpload(each)).file.file_id for each in asked]
        async with UploadCall(stub, names[0]) as call:
            await call.send(b"12345")
            await call.half_close()
            while await call.hear() is not None:
                pass
    return names[0], names[1]


async def states(server: ServerProcess, *file_ids: str) -> list[str]:
    async with grpc.aio.insecure_channel(server.target) as channel:
        files = [await stub_on(channel).GetFile(pb.GetFileRequest(file_id=each)) for each in file_ids]
    return [file.failure_reason or pb.UploadStatus.Name(file.status).removeprefix("UPLOAD_STATUS_") for file in files]


async def a_round(data_dir: Path) -> None:
    """Wait until the janitor has looked: it forgets answers after it has expired files."""

    def old(hand: object) -> int:
        return hand.execute("SELECT count(*) FROM stored_answer WHERE method = 'old'").fetchone()[0]  # type: ignore[attr-defined,no-any-return]

    with shell(url_in(data_dir)) as hand:
        async with asyncio.timeout(20):
            while old(hand):  # noqa: ASYNC110 - a database tells nobody when it changes
                await asyncio.sleep(0.02)


def leave_old_answer(data_dir: Path) -> None:
    with shell(url_in(data_dir)) as hand:
        hand.execute(
            "INSERT INTO stored_answer (principal, method, request_id, fingerprint, answer, created_at, created_served)"
            " VALUES ('', 'old', 'old', '', '', '1990-01-01 00:00:00.000000', -1e9)"
        )


def steps_told(server: ServerProcess) -> list[float]:
    """Steps of the wall clock that the log tells, in seconds."""
    told = [line["seconds"] for line in server.log if "wall clock was set" in str(line["event"])]
    return [round(float(str(seconds)), -2) for seconds in told]


def told_more_than(server: ServerProcess, number: int, _: object) -> bool:
    return len(steps_told(server)) > number


async def test_a_clock_that_is_set_expires_nothing_and_is_told(tmp_path: Path) -> None:
    data_dir, shift = tmp_path / "data", tmp_path / "shift"
    shift.write_text("0")
    with shifted(data_dir, shift) as server:
        files = await half_sent_and_waiting(server)
        for number, seconds in enumerate(("90000", "0", "-90000", "0")):
            shift.write_text(seconds)
            await asyncio.to_thread(server.wait_log, functools.partial(told_more_than, server, number))
        assert steps_told(server) == [90_000, -90_000, -90_000, 90_000]
    # Ahead while nobody served: as a clock that was behind at boot, and is corrected.
    for seconds in ("90000", "-90000", "0"):
        leave_old_answer(data_dir)
        shift.write_text(seconds)
        with shifted(data_dir, shift, "--expiry-grace", "0") as server:
            await a_round(data_dir)
            assert await states(server, *files) == ["UPLOADING", "PENDING"]
            async with grpc.aio.insecure_channel(server.target) as channel:
                again = await stub_on(channel).InitiateUpload(
                    pb.InitiateUploadRequest(filename="a", size_bytes=10, request_id="a")
                )
            assert again.file.file_id == files[0]


async def test_a_server_that_was_down_for_long_expires_nothing_at_its_start(
    start_server: StartServer, tmp_path: Path
) -> None:
    data_dir = tmp_path / "data"
    server = start_server(data_dir=data_dir)
    files = await half_sent_and_waiting(server)
    server.terminate()
    with shell(url_in(data_dir)) as hand:
        # As after 25 hours.
        hand.execute("UPDATE file SET active_at = datetime(active_at, '-25 hours') || '.000000'")
    leave_old_answer(data_dir)

    server = start_server("--expiry-grace", "0", data_dir=data_dir)
    await a_round(data_dir)

    assert await states(server, *files) == ["UPLOADING", "PENDING"]
    async with grpc.aio.insecure_channel(server.target) as channel:
        # Whoever paused it goes on.
        completed = await upload(stub_on(channel), files[0], b"67890", 5)
    assert completed.status == pb.UPLOAD_STATUS_COMPLETED


async def test_the_time_served_goes_on_over_restarts(start_server: StartServer, tmp_path: Path) -> None:
    data_dir, ttl = tmp_path / "data", 3.0
    options = ("--upload-ttl", f"{ttl}s", "--expiry-grace", "0")
    server = start_server(*options, data_dir=data_dir)
    files = await half_sent_and_waiting(server)
    began = up = time.monotonic()
    starts = 0
    # None of them alone is up for as long as the TTL; how long starts take does not matter.
    while (found := await states(server, *files)) != ["expired", "expired"]:
        assert time.monotonic() - began < 30 * ttl
        if time.monotonic() - up > 0.4 * ttl:
            starts += 1
            server.terminate()
            server = start_server(*options, data_dir=data_dir)
            up = time.monotonic()
        await asyncio.sleep(0.1)

    assert found == ["expired", "expired"]
    assert starts >= 2
    async with grpc.aio.insecure_channel(server.target) as channel:
        events = (await stub_on(channel).ListAuditEvents(pb.ListAuditEventsRequest(file_id=files[0]))).events
    reason = events[-1].reason.split()
    # Both ages, by the clock the longer one: nobody served between two starts.
    assert reason[:3] == ["expired:", "idle", "for"]
    assert int(reason[3]) >= int(reason[9]) >= ttl


async def test_the_end_of_a_long_batch_lives_while_the_batch_is_sent(start_server: StartServer, tmp_path: Path) -> None:
    server = start_server("--upload-ttl", "2s", "--expiry-grace", "0")
    folder, size = tmp_path / "folder", 500_000
    folder.mkdir()
    for number in range(6):
        (folder / f"{number}.bin").write_bytes(os.urandom(size))
    began = time.monotonic()
    async with fault_proxy(server.grpc_port, throttle=350_000) as proxy:
        clean = {name: value for name, value in os.environ.items() if not name.startswith("UPLOAD_")}
        uploading = await asyncio.create_subprocess_exec(
            *(UPLOADCTL, "upload", "--jobs", "1", str(folder)),
            env={**clean, "UPLOAD_SERVER": proxy.target},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )
        said, _ = await asyncio.wait_for(uploading.communicate(), 60)

    assert uploading.returncode == 0, said.decode()
    # The last one waited for longer than it may alone.
    assert time.monotonic() - began > 3 * 2
    async with grpc.aio.insecure_channel(server.target) as channel:
        listed = (await stub_on(channel).ListFiles(pb.ListFilesRequest())).files
    assert [file.status for file in listed] == [pb.UPLOAD_STATUS_COMPLETED] * 6


async def test_an_abandoned_batch_expires(start_server: StartServer) -> None:
    server = start_server("--upload-ttl", "1s", "--expiry-grace", "0")
    async with grpc.aio.insecure_channel(server.target) as channel:
        stub = stub_on(channel)
        specs = [pb.FileSpec(filename=f"{number}", size_bytes=1) for number in range(3)]
        made = await stub.InitiateBatch(pb.InitiateBatchRequest(files=specs))
        async for event in stub.WatchStatus(
            pb.WatchStatusRequest(batch_ids=[made.batch.batch_id], until_final=True), timeout=30
        ):
            last = event
        assert last.batch.status == pb.BATCH_STATUS_FAILED
    assert await states(server, *made.file_ids) == ["expired"] * 3
