"""A server that lets the old end of its trail go, and dies on the way: no event is in neither place, no row is lost."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import grpc
import pytest

from robustness.faults.crashes import LAUNCHER
from support.doors import GrpcDoor, Refusal
from support.grpc_upload import stub_on, upload
from support.process import ServerProcess, StartServer
from support.watching import Watcher, grpc_watch
from unit.upkeep.installation import NOBODY, Installation
from upload.v1 import upload_pb2 as pb

DATA = b"consumed"
RETENTION = ("--keep-content", "1d", "--keep-rows", "7d")


async def live(server: ServerProcess, files: int = 3) -> tuple[list[str], str, str]:
    """Have files and a batch end; returns the files' ids, a watcher's token from before, and one that waits."""
    async with grpc.aio.insecure_channel(server.target) as channel:
        stub, door = stub_on(channel), GrpcDoor(channel)
        first = await door.call("InitiateUpload", filename="consumed", size_bytes=len(DATA))
        gone = [str(first["file"]["file_id"])]
        watcher = Watcher(grpc_watch(stub)(file_ids=gone))
        await watcher.opening()
        await watcher.close()
        await upload(stub, gone[0], DATA)
        await door.call("DeleteContent", file_id=gone[0])
        specs = [pb.FileSpec(filename=f"{number}", size_bytes=5) for number in range(files)]
        batch = await stub.InitiateBatch(pb.InitiateBatchRequest(files=specs))
        await door.call("CancelBatch", batch_id=batch.batch.batch_id)
        waits = await door.call("InitiateUpload", filename="waits", size_bytes=1)
        return [*gone, *batch.file_ids], watcher.token, str(waits["file"]["file_id"])


def grow_old(place: Installation) -> None:
    """Have what has ended be long ago: by the times of rows, which no seal is of."""
    with place.by_hand() as hand:
        hand.execute("UPDATE store_info SET served_seconds = served_seconds + 1e7")
        for table in ("file", "batch"):
            hand.execute(f"UPDATE {table} SET updated_at = '2020-01-01 00:00:00' WHERE status <> 'pending'")  # noqa: S608
        hand.execute("UPDATE file SET active_served = active_served + 1e7 WHERE status = 'pending'")
        hand.execute("UPDATE file SET content_deleted_at = updated_at WHERE content_deleted_at IS NOT NULL")


def die_at(point: str, data_dir: Path) -> None:
    """Run a server until it is killed there."""
    command = [sys.executable, LAUNCHER, point, "", "serve", "--grpc-port", "0", "--http-port", "0"]
    done = subprocess.run([*command, "--data-dir", str(data_dir), *RETENTION], check=False, timeout=60)
    assert done.returncode == -signal.SIGKILL


def assert_whole(place: Installation, exported: int) -> None:
    """Both parts of the trail are one chain, and nothing else is wrong."""
    pruned = place.folder / "pruned"
    verdict = place.run("audit", "verify", "--json", *(("--pruned", str(pruned)) if exported else ()))
    assert (verdict.code, verdict.json["pruned"]) == (0, exported)
    found = place.run("check", "--json")
    # Their times were set by hand.
    assert set(found.kinds) <= {"file.audit", "batch.audit"}


async def test_a_server_that_dies_while_it_prunes_goes_on_from_there(start_server: StartServer) -> None:
    server = start_server()
    gone, token, waits = await live(server)
    server.wait_log(lambda line: line["event"] == "bytes deleted")
    assert server.terminate() == 0
    place = Installation(server.data_dir, NOBODY)
    grow_old(place)
    old = place.rows("SELECT count(*) FROM audit_event")[0][0] - 1

    die_at("write-pruned.after", server.data_dir)
    # Its old end is in both places.
    assert len(list((server.data_dir / "pruned").iterdir())) == 1
    assert_whole(place, 0)
    assert place.rows("SELECT count(*) FROM audit_event") == [(old + 1,)]
    die_at("delete-rows.before", server.data_dir)
    assert_whole(place, old)
    assert place.rows("SELECT count(*) FROM audit_event") == [(1,)]
    assert place.rows("SELECT count(*) FROM file") == [(len(gone) + 1,)]

    again = start_server(*RETENTION)
    again.wait_log(lambda line: line["event"] == "rows deleted" and line["batches"] == 1)
    async with grpc.aio.insecure_channel(again.target) as channel:
        door = GrpcDoor(channel)
        for file_id in gone:
            with pytest.raises(Refusal) as refused:
                await door.call("GetFile", file_id=file_id)
            assert refused.value.reason == "FILE_NOT_FOUND"
        counts = await door.call("GetStatistics")
        assert {each["status"]: each["files"] for each in counts["files"] if each["files"] != "0"} == {
            "UPLOAD_STATUS_PENDING": "1",
            "UPLOAD_STATUS_COMPLETED": "1",
            "UPLOAD_STATUS_CANCELLED": "3",
        }
        watcher = Watcher(grpc_watch(stub_on(channel))(file_ids=[waits], resume_token=token))
        assert [message["file"]["file_id"] for message in await watcher.opening()] == [waits]
        assert watcher.heard[-1]["bookmark"] == {"resynced": True}
        await watcher.close()
    assert again.terminate() == 0
    assert_whole(place, old)
