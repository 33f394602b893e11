"""kill -9 in mid-upload: the bytes reported durable are there, and the upload goes on from them."""

from __future__ import annotations

import asyncio
import hashlib
import signal
import sys
from pathlib import Path

import pytest

from unit.ingest.world import CALLER, KIB, MIB, janitor_of, open_world, send
from upload_server.domain.states import FileStatus
from upload_server.ingest import Limits

ROOT = Path(__file__).parents[3]
SIZE = 64 * MIB
PIECE = bytes(range(256)) * 256

CHILD = """
import asyncio, sys
from pathlib import Path
from unit.ingest.world import KIB, open_world
from upload_server.ingest import Limits

async def main(folder, size):
    piece = bytes(range(256)) * 256
    limits = Limits(sync_bytes=512 * KIB, hop_bytes=128 * KIB)
    async with open_world(Path(folder), limits) as world:
        file_id = await world.initiate(size)
        upload = await world.open(file_id)
        upload.ending.on_news(lambda: print(file_id, upload.durable, flush=True))
        while True:
            await upload.write(piece)
            if upload.received >= size - len(piece):
                await asyncio.Event().wait()

asyncio.run(main(sys.argv[1], int(sys.argv[2])))
"""


async def killed_after(folder: Path, durable: int) -> tuple[str, int]:
    """Run an upload in a process of its own; kill it once it reports so many durable bytes. Returns its last report."""
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-c",
        CHILD,
        str(folder),
        str(SIZE),
        stdout=asyncio.subprocess.PIPE,
        env={"PYTHONPATH": f"{ROOT / 'server'}:{ROOT / 'tests'}"},
    )
    assert process.stdout is not None
    file_id, reported = "", 0
    while reported < durable and (line := await process.stdout.readline()):
        file_id, reported = line.decode().split()[0], int(line.split()[1])
    process.send_signal(signal.SIGKILL)
    for line in (await process.stdout.read()).splitlines():
        reported = int(line.split()[1])
    assert await process.wait() == -signal.SIGKILL
    return file_id, reported


@pytest.mark.parametrize("durable", [1, 5 * MIB, 20 * MIB])
async def test_what_was_durable_survives_a_kill_and_the_upload_is_resumed(tmp_path: Path, durable: int) -> None:
    file_id, reported = await killed_after(tmp_path / "node", durable)
    async with open_world(tmp_path / "node", Limits(lag_bytes=MIB)) as world:
        row = await world.row(file_id)
        assert row.status is FileStatus.UPLOADING
        assert row.bytes_received >= reported >= durable
        whole = PIECE * (SIZE // len(PIECE))
        assert world.sink.bytes_of(file_id) >= row.bytes_received
        upload = await world.open(file_id, row.bytes_received)
        # What the dead process wrote stays in its run, and nobody reads it behind what was durable.
        assert world.sink.fences(file_id) == [1, 2]
        await send(upload, whole[row.bytes_received :], 256 * KIB)
        file = await upload.commit(hashlib.sha256(whole).hexdigest(), CALLER)
        assert file.status is FileStatus.COMPLETED
        await upload.close()
        assert world.sink.content(file_id) == whole


async def test_a_cancel_whose_process_died_is_carried_out_by_the_next(tmp_path: Path) -> None:
    file_id, _ = await killed_after(tmp_path / "node", 2 * MIB)
    async with open_world(tmp_path / "node") as world:
        await world.cancel(file_id)
    async with open_world(tmp_path / "node") as world:
        assert await janitor_of(world).delete_owed() == 1
        assert list(world.sink.file_ids()) == []
        assert (await world.row(file_id)).status is FileStatus.CANCELLED
