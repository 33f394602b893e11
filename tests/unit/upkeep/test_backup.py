"""`backup`: rows and bytes of one moment, beside a server that writes, whole under its name or not there."""

from __future__ import annotations

import asyncio
import fcntl
import os
import stat
import subprocess
import sys
from pathlib import Path
from typing import Any

import grpc

from support.grpc_upload import UploadCall, stub_on
from support.process import StartServer
from unit.upkeep.installation import DATA, NOBODY, Installation, Ran
from unit.upkeep.test_copying import tables
from unit.upkeep.test_running import busy
from upload.v1 import upload_pb2 as pb


def strangers_modes(folder: Path) -> set[int]:
    """What others than the owner may do with what lies in a folder."""
    return {stat.S_IMODE(path.stat().st_mode) & 0o077 for path in (folder, *folder.rglob("*"))}


def test_a_backup_is_the_installation_again(place: Installation, tmp_path: Path) -> None:
    backup = tmp_path / "backup"
    # What an interrupted one has left is used, or goes.
    left_over = tmp_path
    for name in ("backup.unfinished", "bytes", place.ids.cancelled[:2]):
        left_over /= name
        left_over.mkdir(mode=0o700)
    (left_over / f"{place.ids.cancelled}.1").write_bytes(b"of before")
    made = place.run("backup", "--to", str(backup))
    assert (made.code, made.err) == (0, "")
    assert f"the bytes of 4 files: {3 * len(DATA) + 5000} bytes" in made.out
    copy = Installation(backup, NOBODY)
    checked = copy.run("check", "--hash", "--json").json
    assert (checked["findings"], checked["checked"]["hashed"], checked["checked"]["stored"]) == ([], 3, 4)
    assert tables(copy.url) == tables(place.url)
    assert strangers_modes(backup) == {0}
    assert sorted(path.name for path in backup.iterdir()) == ["bytes", "manifest.json", "upload.sqlite3"]
    assert not backup.with_name("backup.unfinished").exists()

    again = place.run("backup", "--to", str(backup))
    assert (again.code, again.out) == (2, "")
    assert "is there already" in again.err


def test_a_backup_goes_into_a_folder_of_its_own_alone(place: Installation, tmp_path: Path) -> None:
    other = tmp_path / "other"
    other.mkdir(mode=0o755)
    (tmp_path / "linked.unfinished").symlink_to(other)
    (tmp_path / "dangling").symlink_to(tmp_path / "nowhere")
    for to, says in (
        (place.folder / "backup", "of which it would be a copy"),
        (place.folder / "bytes" / "ab", "of which it would be a copy"),
        (tmp_path / "linked", "is no folder, or a link"),
        (tmp_path / "dangling", "is there already"),
    ):
        refused = place.run("backup", "--to", str(to))
        assert (refused.code, says in refused.err) == (2, True), refused.err
    # Whoever could put the link there would have had our files, and we would have deleted theirs.
    assert (list(other.iterdir()), stat.S_IMODE(other.stat().st_mode)) == ([], 0o755)
    assert not (place.folder / "backup.unfinished").exists()


def test_what_nobody_can_read_is_said(place: Installation, tmp_path: Path) -> None:
    program = [sys.executable, "-m", "upload_server"]
    path = tmp_path / "tokens"
    for words, says in (
        (["check", "--data-dir", str(place.folder)], "cannot be written to standard output: No space left"),
        (["token", "create", "ada", "--tokens-file", str(path)], "nobody has seen the token: take the line"),
    ):
        with Path("/dev/full").open("w") as full:
            ended = subprocess.run([*program, *words], stdout=full, stderr=subprocess.PIPE, text=True, check=False)
        assert (ended.returncode, says in ended.stderr) == (2, True), ended.stderr
        assert len(ended.stderr.splitlines()) == 1


def test_what_is_wrong_at_the_source_is_said_and_copied_as_it_is(place: Installation, tmp_path: Path) -> None:
    place.bytes_of(place.ids.completed).unlink()
    with place.bytes_of(place.ids.in_batch).open("r+b") as file:
        file.write(b"x")
    made = place.run("backup", "--to", str(tmp_path / "backup"), "--json")
    assert made.code == 1
    assert made.kinds == ["bytes.missing"]
    assert made.json["files"] == 3
    (damaged,) = made.json["damaged"]
    assert place.ids.in_batch in damaged


def test_two_backups_of_one_name_do_not_mix(place: Installation, tmp_path: Path) -> None:
    (tmp_path / "backup.unfinished").mkdir()
    at_work = os.open(tmp_path / "backup.unfinished", os.O_RDONLY)
    try:
        fcntl.flock(at_work, fcntl.LOCK_EX)
        refused = place.run("backup", "--to", str(tmp_path / "backup"))
    finally:
        os.close(at_work)
    assert refused.code == 2
    assert "another backup is at work" in refused.err
    assert list((tmp_path / "backup.unfinished").iterdir()) == []


async def test_an_open_file_that_is_completed_between_two_tries_has_its_own_bytes(
    start_server: StartServer, tmp_path: Path
) -> None:
    server, data = start_server(), os.urandom(20_000)
    async with grpc.aio.insecure_channel(server.target) as channel:
        stub = stub_on(channel)
        made = await stub.InitiateUpload(pb.InitiateUploadRequest(filename="resumed", size_bytes=len(data)))
        file_id = made.file.file_id
        async with UploadCall(stub, file_id) as call:
            await call.send(data[:5000])
            await call.hear_durable(5000)
    server.terminate()
    # Another process goes on with it: the bytes lie in two runs until the file is completed.
    server = start_server()
    async with grpc.aio.insecure_channel(server.target) as channel, UploadCall(stub_on(channel), file_id, 5000) as call:
        await call.send(data[5000:])
        await call.hear_durable(len(data))
        first = await asyncio.to_thread(_back_up, server.data_dir, tmp_path / "backup")
        await call.commit()
        await call.hear_until("completed")
    assert first.code == 0
    assert len(list((tmp_path / "backup" / "bytes").rglob(f"{file_id}.*"))) == 2
    # As if it had been interrupted before it was whole.
    (tmp_path / "backup").rename(tmp_path / "backup.unfinished")
    again = await asyncio.to_thread(_back_up, server.data_dir, tmp_path / "backup")
    assert again.code == 0, again.err
    checked = Installation(tmp_path / "backup", NOBODY).run("check", "--hash", "--json").json
    assert (checked["findings"], checked["checked"]["hashed"]) == ([], 1)


def _back_up(data_dir: Path, folder: Path) -> Ran:
    return Installation(data_dir, NOBODY).run("backup", "--to", str(folder))


def test_another_database_than_sqlite_says_how_it_is_backed_up(tmp_path: Path) -> None:
    refused = Installation(tmp_path, NOBODY).run(
        *("backup", "--to", str(tmp_path / "backup"), "--database-url", "postgresql://127.0.0.1:1/upload")
    )
    assert refused.code == 2
    assert "pg_dump" in refused.err


async def test_rows_and_bytes_belong_together_beside_a_busy_server(start_server: StartServer, tmp_path: Path) -> None:
    server = start_server()
    stop = asyncio.Event()
    async with asyncio.TaskGroup() as group:
        clients = [group.create_task(busy(server, str(number), stop)) for number in range(2)]
        for number in range(2):
            command = ("backup", "--data-dir", server.data_dir, "--to", tmp_path / f"backup-{number}")
            process = await asyncio.create_subprocess_exec(
                *(sys.executable, "-m", "upload_server", *command), stdout=subprocess.PIPE, stderr=subprocess.STDOUT
            )
            out, _ = await process.communicate()
            assert process.returncode == 0, out.decode()
        stop.set()
    assert all(client.result() for client in clients)
    for number in range(2):
        copy = Installation(tmp_path / f"backup-{number}", NOBODY)
        checked = copy.run("check", "--hash", "--json").json
        assert checked["findings"] == []
        assert checked["checked"]["files"] > 0
    again: Any = start_server(data_dir=tmp_path / "backup-1")
    assert again.terminate() == 0
