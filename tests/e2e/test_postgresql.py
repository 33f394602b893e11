"""A server process whose rows are on PostgreSQL: started, killed, checked; and what one on SQLite does not pay for."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
from pathlib import Path

import grpc
import psutil
import pytest

from support import postgres
from support.grpc_upload import UploadCall, stub_on, upload
from support.process import ServerProcess, StartServer
from upload.v1 import upload_pb2 as pb

DATA = b"some bytes that are kept" * 1000
# Of a role that the server asks for none.
PASSWORD = "secret"  # noqa: S105


@pytest.fixture
def url() -> str:
    """A store that this test's processes log in to with a password; the server takes any."""
    return postgres.server().new_store().replace("uploads@", f"uploads:{PASSWORD}@")


def run(url: str, data_dir: Path, *words: str) -> subprocess.CompletedProcess[str]:
    """Run a command of the program."""
    clean = {name: value for name, value in os.environ.items() if not name.startswith("UPLOAD_")}
    command = [sys.executable, "-m", "upload_server", *words, "--data-dir", str(data_dir)]
    environment = {**clean, "UPLOAD_DATABASE_URL": url}
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False, env=environment)


async def complete_and_cancel(server: ServerProcess) -> tuple[str, str]:
    """Upload one file, cancel another one in the middle; returns their ids."""
    async with grpc.aio.insecure_channel(server.target) as channel:
        stub = stub_on(channel)
        ids = []
        for name in ("kept", "gone"):
            made = await stub.InitiateUpload(pb.InitiateUploadRequest(filename=name, size_bytes=len(DATA)))
            ids.append(made.file.file_id)
        await upload(stub, ids[0], DATA)
        async with UploadCall(stub, ids[1]) as call:
            await call.send(DATA[:5000])
            await call.hear_until("progress")
            await stub.CancelFile(pb.CancelFileRequest(file_id=ids[1], reason="why not"))
            await call.hear_until("stopped")
    return ids[0], ids[1]


async def status_of(server: ServerProcess, file_id: str) -> str:
    async with grpc.aio.insecure_channel(server.target) as channel:
        found = await stub_on(channel).GetFile(pb.GetFileRequest(file_id=file_id))
    return pb.UploadStatus.Name(found.status)


async def test_a_server_on_postgresql_keeps_what_it_answered(
    url: str, tmp_path: Path, start_server: StartServer
) -> None:
    data_dir = tmp_path / "data"
    server = start_server("--database-url", url, data_dir=data_dir)
    assert PASSWORD not in str(psutil.Process(server.pid).cmdline())
    # Its folder is another one.
    elsewhere = run(url, tmp_path / "else", "serve", "--grpc-port", "0", "--http-port", "0", "--auth", "none")
    assert elsewhere.returncode == 1
    assert "--data-dir: nothing lies there, but another node runs on this database" in elsewhere.stderr
    kept, gone = await complete_and_cancel(server)
    checked = run(url, data_dir, "check", "--json")
    assert (checked.returncode, checked.stderr) == (0, "")
    assert json.loads(checked.stdout)["running"]
    assert json.loads(run(url, data_dir, "audit", "verify", "--json").stdout)["ok"]
    assert len(run(url, data_dir, "audit", "export").stdout.splitlines()) == 6
    listed = run(url, data_dir, "nodes")
    assert (listed.returncode, listed.stdout.count(f"/{server.pid}  ")) == (0, 1)
    assert listed.stdout.endswith("0 uploads  leads\n")
    assert "in use by another upload-server" in run(url, data_dir, "serve", "--grpc-port", "0").stderr
    (tmp_path / "other").mkdir()
    assert "in use by another upload-server" in run(url, tmp_path / "other", "check", "--repair").stderr
    server.kill()

    server = start_server(data_dir=data_dir, environment={"UPLOAD_DATABASE_URL": url})
    assert await status_of(server, kept) == "UPLOAD_STATUS_COMPLETED"
    assert await status_of(server, gone) == "UPLOAD_STATUS_CANCELLED"
    assert server.terminate() == 0

    assert run(url, data_dir, "check", "--hash").returncode == 0
    verified = run(url, data_dir, "audit", "verify", "--json")
    assert json.loads(verified.stdout)["ok"]
    assert json.loads(verified.stdout)["unsealed"] == 0
    assert len(run(url, data_dir, "audit", "export").stdout.splitlines()) == 6
    assert not list(data_dir.glob("*.sqlite3*"))
    assert PASSWORD not in json.dumps(server.log)


async def test_a_server_refuses_a_database_without_the_schema(tmp_path: Path) -> None:
    database = postgres.server()
    url = database.url(database.new_database())
    refused = run(url, tmp_path / "data", "serve", "--log-format", "json")
    assert refused.returncode == 1
    assert "run `upload-server migrate` first" in refused.stderr
    assert "there is no database" in run(url, tmp_path / "data", "check").stderr

    migrated = run(url, tmp_path / "data", "migrate", "--log-format", "json")

    assert (migrated.returncode, "0001_initial" in migrated.stderr) == (0, True)
    assert run(url, tmp_path / "data", "check").returncode == 0


def test_a_server_on_sqlite_does_not_load_the_driver() -> None:
    program = "import sys, upload_server.start; print('psycopg' in sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert loaded.stdout == "False\n"


async def test_of_nodes_that_join_at_once_one_begins_the_place_of_their_bytes(url: str, tmp_path: Path) -> None:
    """Each has an empty folder of its own: files would lie where the other nodes do not look."""

    def start(name: str) -> ServerProcess | str:
        try:
            return ServerProcess(tmp_path / name, ("--database-url", url))
        except AssertionError as error:
            return str(error)

    joined = await asyncio.gather(*(asyncio.to_thread(start, name) for name in ("a", "b")))
    serving = [each for each in joined if isinstance(each, ServerProcess)]
    for server in serving:
        server.kill()
    assert len(serving) == 1
    refused = [each for each in joined if isinstance(each, str)]
    assert all("--data-dir: nothing lies there, but another node runs" in each for each in refused), refused
