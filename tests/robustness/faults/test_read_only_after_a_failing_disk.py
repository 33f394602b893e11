"""A server that opened its database anew while the disk failed never wrote again (part ``io``, seed i1.io.1).

SQLite opens a log that it fails to open for writing for reading alone, and such a connection stays as it is.
"""

from __future__ import annotations

from pathlib import Path

from robustness.faults.shim import Calls, Fault, FaultyDisk, Files, Mode
from robustness.prove.clients import Connections
from support.doors import Refusal
from support.process import StartServer


async def test_a_database_opened_while_the_disk_failed_is_written_to_once_it_works(
    tmp_path: Path, start_server: StartServer
) -> None:
    disk = FaultyDisk(tmp_path / "shim", tmp_path / "data")
    clients = Connections(start_server(environment=dict(disk.environment)))
    door = clients.doors[0]
    outcomes = []
    try:
        file_id = (await door.call("InitiateUpload", filename="a.bin", size_bytes=1))["file"]["file_id"]
        # The commit fails, and so does what the log is opened with to look what became of it.
        disk.set(Fault(Mode.FAIL, Calls.SYNC | Calls.CREATE, Files.DATABASE | Files.LOG))
        for _ in range(3):
            try:
                await door.call("CancelFile", file_id=file_id)
            except Refusal as refusal:
                outcomes.append(refusal.reason)
        disk.clear()
        await door.call("CancelFile", file_id=(await door.call("InitiateUpload", filename="a.bin"))["file"]["file_id"])
    finally:
        await clients.close()

    assert outcomes[-1] == "DATABASE_FAILURE"
