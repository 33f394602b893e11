"""Files that come whole, and a server that dies between their bytes and their rows: none is lost, nothing is left."""

from __future__ import annotations

import asyncio
import hashlib
import subprocess
import sys
from pathlib import Path
from typing import Any

import grpc
import httpx
import pytest

from robustness.faults.crashes import LAUNCHER
from robustness.faults.points import TORN, WHOLE_POINTS
from support.grpc_upload import stub_on
from support.process import ServerProcess
from upload.v1 import upload_pb2 as pb

pytestmark = pytest.mark.timeout(120)

# The time at which the server dies there; some come by while it starts, too.
_OF_DISK, _OF_STORE = (
    [f"{name}.{when}:{nth}" for name in names for when in ("before", "after")]
    for names, nth in ((("append", "sync", "sync-folder"), 5), (("finish", "commit"), 40))
)
POINTS = (*(f"{point}:5" for point in (*WHOLE_POINTS, TORN)), *_OF_DISK, *_OF_STORE, "answer.before:20")
# What the bytes of a draft tell of themselves, left out.
UNMARKED = "from upload_server.sink.disk import sink; sink._DRAFT_MODE = 0o600;"


def content(number: int) -> bytes:
    return hashlib.sha512(str(number).encode()).digest() * 64


class Senders:
    """Bring whole files by every door until the server is gone; know what was answered."""

    def __init__(self, server: ServerProcess) -> None:
        self._server = server
        # Digests by id of what was acknowledged.
        self.completed: dict[str, str] = {}
        self._next = 0

    async def send(self) -> None:
        async with grpc.aio.insecure_channel(self._server.target) as channel, httpx.AsyncClient(timeout=10) as http:
            stub: Any = stub_on(channel)
            workers = [self._put(stub), self._put(stub), self._stream(stub), self._tus(http)]
            await asyncio.gather(*(self._until_lost(work) for work in workers))

    async def _until_lost(self, work: Any) -> None:
        with pytest.raises((grpc.aio.AioRpcError, httpx.HTTPError)):
            await work

    def _data(self) -> bytes:
        self._next += 1
        return content(self._next)

    def _note(self, file_id: str, data: bytes) -> None:
        self.completed[file_id] = hashlib.sha256(data).hexdigest()

    async def _put(self, stub: Any) -> None:
        while True:
            data = self._data()
            file = await stub.PutFile(pb.PutFileRequest(filename="a", size_bytes=len(data), data=data), timeout=20)
            self._note(file.file_id, data)

    async def _stream(self, stub: Any) -> None:
        while True:
            data = self._data()
            request = pb.InitiateUploadRequest(filename="a", size_bytes=len(data))
            file_id = (await stub.InitiateUpload(request, timeout=20)).file.file_id
            messages = [
                pb.UploadFileRequest(header=pb.UploadHeader(file_id=file_id)),
                pb.UploadFileRequest(data=data),
                pb.UploadFileRequest(commit=pb.UploadCommit()),
            ]
            async for answer in stub.UploadFile(iter(messages), timeout=20):
                if answer.HasField("completed"):
                    self._note(file_id, data)

    async def _tus(self, http: httpx.AsyncClient) -> None:
        while True:
            data = self._data()
            headers = {
                "Tus-Resumable": "1.0.0",
                "Upload-Length": str(len(data)),
                "Content-Type": "application/offset+octet-stream",
            }
            answer = await http.post(f"{self._server.url}/api/v1/tus", headers=headers, content=data)
            assert answer.status_code == 201
            self._note(answer.headers["location"].rpartition("/")[2], data)


def doomed(data_dir: Path, point: str, bug: str = "") -> ServerProcess:
    """A server that dies at a point."""
    code = f"import runpy, sys; {bug} runpy.run_path({LAUNCHER!r}, run_name='__main__')"

    class Doomed(ServerProcess):
        program = ("-c", code, point, "")

    return Doomed(data_dir)


async def survive(data_dir: Path, point: str, bug: str = "", *, most: int = 1, seconds: float = 30) -> list[str]:
    """Have a server die under its senders, then start another one; returns the files that no row knows after that.

    More than ``most`` are looked at again, for so long.
    """
    server = doomed(data_dir, point, bug)
    senders = Senders(server)
    try:
        await asyncio.wait_for(senders.send(), 60)
        assert await asyncio.to_thread(server.popen.wait, 20) < 0
    finally:
        server.kill()
    again = ServerProcess(data_dir)
    try:
        async with grpc.aio.insecure_channel(again.target) as channel:
            stub: Any = stub_on(channel)
            page = await stub.ListFiles(pb.ListFilesRequest(page_size=1000))
            known = {file.file_id: file for file in page.files}
            assert not page.next_page_token
            for file_id, digest in senders.completed.items():
                assert known[file_id].sha256 == digest
            completed = {file_id for file_id, file in known.items() if file.sha256}
            stray = await _settled(data_dir, completed, most, seconds)
        assert again.terminate() == 0
    finally:
        again.kill()
    return stray


async def _settled(data_dir: Path, completed: set[str], most: int, seconds: float) -> list[str]:
    """Wait until the bytes that lie there are those of completed files but for so many; returns what else stays."""
    deadline = asyncio.get_running_loop().time() + seconds
    while True:
        names = [path.name for path in (data_dir / "bytes").rglob("*-*") if path.is_file()]
        # Each file under one name: its id, and a stream's fence unless it came whole.
        stored = {name.partition(".")[0]: name for name in names}
        stray = [name for file_id, name in stored.items() if file_id not in completed]
        stray += [name for name in names if name not in stored.values()]
        if len(stray) <= most or asyncio.get_running_loop().time() > deadline:
            break
        await asyncio.sleep(0.1)
    assert completed <= stored.keys()
    return sorted(stray)


@pytest.mark.parametrize("point", POINTS)
async def test_nothing_is_lost_and_nothing_left_over(tmp_path: Path, point: str) -> None:
    data = tmp_path / "data"

    stray = await survive(data, point)

    # Of an announced file that was cut off bytes may be left: its sender may come back.
    assert len(stray) <= 1
    checked = await asyncio.to_thread(
        subprocess.run,
        [sys.executable, "-m", "upload_server", "check", "--hash", "--data-dir", str(data)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert (checked.returncode, checked.stdout.splitlines()[-1]) == (0, "nothing wrong"), checked.stdout


async def test_without_their_mark_drafts_would_stay_for_ever(tmp_path: Path) -> None:
    assert await survive(tmp_path / "data", "put.before:20", UNMARKED, most=0, seconds=4)
