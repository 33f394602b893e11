"""uploadctl as a program: against the real service, with Ctrl-C, pipes and a terminal."""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
import pty
import re
import signal
import socket
import stat
import subprocess
import sys
import uuid
from collections.abc import AsyncIterator
from pathlib import Path

import pyte
import pytest

from clients.python.program import SECONDS, UPLOADCTL, ended, environment, on_a_terminal, started, uploadctl
from support.process import ServerProcess, StartServer, gone_from_disk
from support.proxy import fault_proxy
from upload import AsyncClient
from upload.v1 import upload_pb2 as pb


@pytest.fixture
def small(tmp_path: Path) -> Path:
    path = tmp_path / "small.txt"
    path.write_text("hello")
    return path


@pytest.fixture
def huge(tmp_path: Path) -> Path:
    """A file that takes minutes to send, and no room here."""
    path = tmp_path / "huge.bin"
    with path.open("wb") as file:
        file.truncate(100 * 1024**3)
    return path


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    path = tmp_path / "photos"
    (path / "sub").mkdir(parents=True)
    (path / "a.txt").write_text("a")
    (path / "sub" / "b.txt").write_text("bb")
    (path / "empty").touch()
    return path


@pytest.fixture
async def client(server: ServerProcess) -> AsyncIterator[AsyncClient]:
    async with AsyncClient(server.target) as client:
        yield client


async def id_of_started(process: subprocess.Popen[str]) -> str:
    assert process.stderr is not None
    note = json.loads(await asyncio.to_thread(process.stderr.readline))
    while note["event"] != "started":
        note = json.loads(await asyncio.to_thread(process.stderr.readline))
    return str(note["file_id"])


async def under_way(client: AsyncClient, file_id: str) -> None:
    """Wait until bytes of a file are durable."""
    async for event in client.watch([file_id], progress_interval=0.1):
        if event.progress and event.progress.bytes_received:
            return


async def test_a_file_is_sent_and_shown(server: ServerProcess, small: Path) -> None:
    sent = await uploadctl(server, "upload", str(small), "--json")
    assert sent.code == 0
    (file,) = sent.lines
    assert (file["status"], file["filename"], file["bytes_received"]) == ("completed", "small.txt", 5)
    assert file["content_type"] == "text/plain"
    assert file["cancelled_at"] is None
    shown = await uploadctl(server, "--json", "get", file["file_id"])
    assert shown.lines == [file]
    text = await uploadctl(server, "get", file["file_id"])
    assert "status:                 completed" in text.out
    audit = await uploadctl(server, "audit", "--file", file["file_id"], "--oldest")
    assert [re.split(r" {2,}", line)[2] for line in audit.out.splitlines()] == [
        "(new) -> pending",
        "pending -> uploading",
        "uploading -> completed",
    ]


async def test_a_file_is_stored_under_its_name_once_it_is_whole(
    server: ServerProcess, client: AsyncClient, tmp_path: Path
) -> None:
    content = os.urandom(3_000_000)
    file = await client.upload(content, filename="dir/film.mkv")
    folder = tmp_path / "there"
    folder.mkdir()

    stored = await uploadctl(server, "--json", "download", file.file_id, "--to", str(folder))
    assert stored.code == 0
    assert (stored.lines[0]["path"], stored.lines[0]["sha256"]) == (str(folder / "film.mkv"), file.sha256)
    assert (folder / "film.mkv").read_bytes() == content

    # What is there stays, unless one says so.
    (folder / "film.mkv").write_bytes(b"mine")
    refused = await uploadctl(server, "download", file.file_id, "--to", str(folder / "film.mkv"))
    assert (refused.code, "--force" in refused.err) == (6, True)
    assert (folder / "film.mkv").read_bytes() == b"mine"
    assert (await uploadctl(server, "download", file.file_id, "--to", f"{folder}/", "--force")).code == 0
    assert (folder / "film.mkv").read_bytes() == content

    pending = await client.initiate("a.bin", 5)
    late = await uploadctl(server, "download", pending.file_id, "--to", str(folder))
    assert (late.code, "pending" in late.err) == (4, True)
    # Nothing is left of what did not succeed.
    assert [path.name for path in folder.iterdir()] == ["film.mkv"]

    # A device takes the bytes and stays what it is; what cannot be written is said so.
    assert (await uploadctl(server, "download", file.file_id, "--to", "/dev/null", "--force")).code == 0
    assert stat.S_ISCHR(os.stat("/dev/null").st_mode)  # noqa: PTH116 - no disk is asked
    full = await uploadctl(server, "download", file.file_id, "--to", "/dev/full")
    assert (full.code, full.err) == (6, "uploadctl: Cannot write /dev/full: No space left on device.\n")
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(folder / "s"))
    kept = await uploadctl(server, "download", file.file_id, "--to", str(folder / "s"), "--force")
    assert (kept.code, "it is no file" in kept.err) == (6, True)
    assert (folder / "s").is_socket()
    (folder / "s").unlink()
    nowhere = await uploadctl(server, "download", file.file_id, "--to", str(folder / "none" / "x"))
    assert nowhere.err == f"uploadctl: Cannot write {folder / 'none' / 'x'}: No such file or directory.\n"
    # 255 bytes, as long as a name may be.
    assert (await uploadctl(server, "download", file.file_id, "--to", str(folder / ("\u65e5" * 85)))).code == 0

    command = [UPLOADCTL, "download", file.file_id, "--to", "-"]
    piped = await asyncio.to_thread(subprocess.run, command, capture_output=True, env=environment(server), check=True)
    assert piped.stdout == content

    # Other bytes do not take the file's name.
    on_disk = next((server.data_dir / "bytes").rglob(f"{file.file_id}*"))
    on_disk.write_bytes(bytes(len(content)))
    damaged = await uploadctl(server, "download", file.file_id, "--to", str(folder / "damaged"))
    assert (damaged.code, "tell whoever runs it" in damaged.err) == (6, True)
    assert not (folder / "damaged").exists()


async def test_a_folder_is_a_batch_of_relative_names(server: ServerProcess, folder: Path) -> None:
    sent = await uploadctl(server, "upload", str(folder), "--json")
    assert sent.code == 0
    *files, batch = sent.lines
    assert sorted(file["filename"] for file in files) == ["a.txt", "empty", "sub/b.txt"]
    assert (batch["status"], batch["total_files"], batch["completed_files"]) == ("completed", 3, 3)
    listed = await uploadctl(server, "list", "--batch", batch["batch_id"], "--limit", "2", "--json", "--oldest")
    assert [file["filename"] for file in listed.lines] == ["a.txt", "empty"]
    assert listed.notes[0]["event"] == "more"
    newest = await uploadctl(server, "list", "-n", "2", "-o", "json")
    assert [file["filename"] for file in json.loads(newest.out)] == ["sub/b.txt", "empty"]


async def test_several_paths_are_one_batch(server: ServerProcess, folder: Path, small: Path) -> None:
    sent = await uploadctl(server, "upload", str(folder), str(small), "--json")
    names = {line["filename"] for line in sent.lines[:-1]}
    assert names == {"photos/a.txt", "photos/empty", "photos/sub/b.txt", "small.txt"}


async def test_python_m_upload_is_the_same_program(server: ServerProcess) -> None:
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "upload", "--server", server.target, "list", stdout=subprocess.PIPE
    )
    await asyncio.wait_for(process.communicate(), SECONDS)
    assert process.returncode == 0


async def test_ctrl_c_cancels_on_the_server(server: ServerProcess, client: AsyncClient, huge: Path) -> None:
    with started(server, "upload", str(huge), "--json") as process:
        file_id = await id_of_started(process)
        await under_way(client, file_id)
        process.send_signal(signal.SIGINT)
        end = await ended(process)
    assert end.code == 130
    assert [note["event"] for note in end.notes if note["event"] != "failed"] == ["cancelling", "cancelled"]
    file = await client.get(file_id)
    assert (file.status, file.cancel_reason) == ("cancelled", "interrupted")
    await gone_from_disk(server, file_id)


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGHUP, 129)])
async def test_other_ends_of_a_program_cancel_as_ctrl_c_does(
    server: ServerProcess, client: AsyncClient, huge: Path, number: signal.Signals, code: int
) -> None:
    with started(server, "upload", str(huge), "--json") as process:
        file_id = await id_of_started(process)
        await under_way(client, file_id)
        process.send_signal(number)
        end = await ended(process)
    assert end.code == code
    assert (await client.get(file_id)).status == "cancelled"
    await gone_from_disk(server, file_id)


async def test_a_closed_terminal_cancels_although_nobody_reads(
    server: ServerProcess, client: AsyncClient, huge: Path
) -> None:
    main, terminal = pty.openpty()
    # `setsid --ctty` makes the terminal its own: closing the other end then sends SIGHUP, as a closed window does.
    process = await asyncio.create_subprocess_exec(
        *("setsid", "--ctty", "--wait", UPLOADCTL, "upload", str(huge), "--json"),
        stdin=terminal,
        stdout=terminal,
        stderr=terminal,
        env=environment(server),
    )
    os.close(terminal)
    line = b""
    while not line.endswith(b"\n"):
        line += await asyncio.to_thread(os.read, main, 1)
    file_id = json.loads(line)["file_id"]
    await under_way(client, file_id)
    os.close(main)
    async for _ in client.watch([file_id], until_final=True):
        pass
    assert (await client.get(file_id)).status == "cancelled"
    assert await asyncio.wait_for(process.wait(), SECONDS) == 129


async def test_keep_says_how_to_resume_after_sigterm(server: ServerProcess, client: AsyncClient, huge: Path) -> None:
    with started(server, "upload", str(huge), "--keep", "--json") as process:
        file_id = await id_of_started(process)
        await under_way(client, file_id)
        process.send_signal(signal.SIGTERM)
        end = await ended(process)
    assert end.code == 143
    assert [note["event"] for note in end.notes] == ["resumable"]
    assert (await client.get(file_id)).status == "uploading"
    await client.cancel(file_id)


async def test_ctrl_c_cancels_a_batch(server: ServerProcess, client: AsyncClient, huge: Path, small: Path) -> None:
    with started(server, "upload", str(huge), str(small), "--jobs", "1", "--json") as process:
        file_id = await id_of_started(process)
        await under_way(client, file_id)
        process.send_signal(signal.SIGINT)
        end = await ended(process)
    assert end.code == 130
    batch = await client.get_batch((await client.get(file_id)).batch_id)
    assert (batch.status, batch.cancelled_files_count) == ("cancelled", 2)
    assert f"Cancelled batch {batch.batch_id}: all 2 files." in [note["message"] for note in end.notes]


async def test_keep_leaves_the_upload_resumable(server: ServerProcess, client: AsyncClient, tmp_path: Path) -> None:
    path = tmp_path / "big.bin"
    path.write_bytes(os.urandom(1024) * 30 * 1024)
    # So slow that it is not done before Ctrl-C, on a machine that is busy otherwise.
    async with fault_proxy(server.grpc_port, throttle=1024 * 1024) as proxy:
        with started(proxy, "upload", str(path), "--keep", "--json") as process:
            file_id = await id_of_started(process)
            await under_way(client, file_id)
            process.send_signal(signal.SIGINT)
            end = await ended(process)
    assert end.code == 130
    (note,) = end.notes
    assert note["command"] == f"uploadctl upload {path} --resume {file_id}"
    kept = await client.get(file_id)
    assert kept.status == "uploading"
    resumed = await uploadctl(server, "upload", str(path), "--resume", file_id, "--json")
    assert resumed.code == 0
    assert resumed.lines[0]["bytes_received"] == path.stat().st_size


async def test_a_batch_is_resumed_without_what_is_completed(
    server: ServerProcess, client: AsyncClient, folder: Path
) -> None:
    specs = [("a.txt", 1), ("empty", 0), ("sub/b.txt", 2)]
    answer = await client.initiate_batch(pb.FileSpec(filename=name, size_bytes=size) for name, size in specs)
    await client.upload(b"a", resume_file_id=answer.file_ids[0])
    resumed = await uploadctl(server, "upload", str(folder), "--resume-batch", answer.batch.batch_id, "--json")
    assert resumed.code == 0
    *files, batch = resumed.lines
    assert {line["filename"] for line in files} == {"empty", "sub/b.txt"}
    assert batch["status"] == "completed"


async def test_a_resumed_batch_never_mixes_two_sources(
    server: ServerProcess, client: AsyncClient, tmp_path: Path
) -> None:
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "x").write_text(folder)
    given = [str(tmp_path / folder / "x") for folder in ("a", "b")]
    names = [f"{folder}/x" for folder in ("a", "b")]
    answer = await client.initiate_batch(pb.FileSpec(filename=name, size_bytes=1) for name in names)
    batch = ("--resume-batch", answer.batch.batch_id, "--no-checksum", "--json")
    resumed = await uploadctl(server, "upload", *given[::-1], *batch)
    assert resumed.code == 0, resumed.err
    for file_id, content in zip(answer.file_ids, (b"a", b"b"), strict=True):
        assert (await client.get(file_id)).sha256 == hashlib.sha256(content).hexdigest()


async def test_a_batch_of_equal_names_is_not_resumed_by_name(
    server: ServerProcess, client: AsyncClient, small: Path
) -> None:
    spec = pb.FileSpec(filename=small.name, size_bytes=len("hello"))
    answer = await client.initiate_batch([spec, spec])
    refused = await uploadctl(server, "upload", str(small.parent), "--resume-batch", answer.batch.batch_id)
    assert refused.code == 6
    assert f"{small}: several files of the batch are called {small.name}" in refused.err
    assert {file.status async for file in client.list_files(batch_id=answer.batch.batch_id)} == {"pending"}


async def test_the_second_ctrl_c_leaves_without_claiming_anything(start_server: StartServer, huge: Path) -> None:
    server = start_server()
    async with AsyncClient(server.target) as client:
        with started(server, "upload", str(huge), "--json") as process:
            await under_way(client, await id_of_started(process))
            os.kill(server.pid, signal.SIGSTOP)
            process.send_signal(signal.SIGINT)
            assert process.stderr is not None
            assert json.loads(await asyncio.to_thread(process.stderr.readline))["event"] == "cancelling"
            process.send_signal(signal.SIGINT)
            end = await ended(process)
            os.kill(server.pid, signal.SIGCONT)
    assert end.code == 130
    assert [note["event"] for note in end.notes] == ["left"]


async def test_a_cancel_by_someone_else_ends_the_upload_with_5(
    server: ServerProcess, client: AsyncClient, huge: Path
) -> None:
    with started(server, "upload", str(huge)) as process:
        assert process.stderr is not None
        file_id = (await asyncio.to_thread(process.stderr.readline)).split()[-1]
        await under_way(client, file_id)
        await client.cancel(file_id, reason="not \x1b[31mthis")
        end = await ended(process)
    assert end.code == 5
    assert end.err.startswith("huge.bin: The upload was cancelled by user (not \\u001b[31mthis);")


async def test_cancelling_twice_is_fine_and_too_late_is_4(server: ServerProcess, client: AsyncClient) -> None:
    file = await client.initiate("a.txt", 3)
    first = await uploadctl(server, "cancel", file.file_id, "--reason", "enough")
    assert (first.code, first.out) == (0, f"Cancelled a.txt ({file.file_id}).\n")
    again = await uploadctl(server, "cancel", file.file_id)
    assert again.code == 0
    assert "was already cancelled" in again.out
    assert "by user (enough)." in again.out
    done = await client.upload(b"abc", filename="b")
    late = await uploadctl(server, "cancel", done.file_id)
    assert (late.code, late.out) == (4, "")
    assert late.err == "uploadctl: The file is completed and can no longer be cancelled; nothing was changed.\n"
    unknown = await uploadctl(server, "cancel", "nobody", "--json")
    assert unknown.code == 3
    assert unknown.notes[0]["error"]["reason"] == "FILE_NOT_FOUND"


async def test_cancel_batch_counts_its_files(server: ServerProcess, client: AsyncClient) -> None:
    answer = await client.initiate_batch([pb.FileSpec(filename="a", size_bytes=1)] * 3)
    end = await uploadctl(server, "cancel-batch", answer.batch.batch_id, "--json")
    assert end.code == 0
    assert (end.lines[0]["cancelled_files_count"], end.lines[0]["already"]) == (3, False)
    shown = await uploadctl(server, "get", "--batch", answer.batch.batch_id, "--json")
    assert shown.lines[0]["status"] == "cancelled"


async def test_a_piped_watch_writes_json_lines_until_all_are_final(server: ServerProcess, client: AsyncClient) -> None:
    answer = await client.initiate_batch([pb.FileSpec(filename="a", size_bytes=1)] * 2)
    arguments = ("watch", "--batch", answer.batch.batch_id[:9], "--until-final", "-o", "jsonl")
    with started(server, *arguments) as process:
        assert process.stdout is not None
        first = json.loads(await asyncio.to_thread(process.stdout.readline))
        assert first["file"]["status"] == "pending"
        await client.upload(b"a", resume_file_id=answer.file_ids[0])
        await client.cancel(answer.file_ids[1])
        end = await ended(process)
    assert end.code == 5
    assert end.lines[-1]["batch"]["status"] == "completed"
    assert all(line["resume_token"] for line in end.lines)


async def test_ctrl_c_ends_a_watch_quietly(server: ServerProcess, client: AsyncClient) -> None:
    file = await client.initiate("a", 1)
    with started(server, "watch", file.file_id) as process:
        assert process.stdout is not None
        await asyncio.to_thread(process.stdout.readline)
        process.send_signal(signal.SIGINT)
        end = await ended(process)
    assert (end.code, end.err) == (130, "")


async def test_a_reader_that_has_enough_ends_a_list_quietly(server: ServerProcess, client: AsyncClient) -> None:
    for _ in range(3):
        await client.initiate("a", 1)
    read, write = os.pipe()
    os.close(read)
    process = await asyncio.create_subprocess_exec(
        UPLOADCTL, "list", stdout=write, stderr=subprocess.PIPE, env=environment(server)
    )
    os.close(write)
    _, err = await asyncio.wait_for(process.communicate(), SECONDS)
    assert (process.returncode, err) == (141, b"")


async def test_no_server_is_7_and_one_sentence(small: Path) -> None:
    end = await uploadctl(None, "--server", "127.0.0.1:1", "--timeout", "1", "upload", str(small))
    assert (end.code, end.out) == (7, "")
    assert end.err.count("\n") == 1
    assert "connection refused" in end.err


async def test_what_cannot_be_read_is_6(server: ServerProcess, tmp_path: Path) -> None:
    missing = await uploadctl(server, "upload", str(tmp_path / "none"))
    assert missing.code == 6
    assert missing.err == f"uploadctl: Cannot read {tmp_path / 'none'}: No such file or directory.\n"
    (tmp_path / "empty").mkdir()
    empty = await uploadctl(server, "upload", str(tmp_path / "empty"))
    assert (empty.code, "nothing to upload" in empty.err) == (6, True)


async def test_a_wrong_checksum_is_6(server: ServerProcess, small: Path) -> None:
    end = await uploadctl(server, "upload", str(small), "--sha256", "0" * 64)
    assert end.code == 6
    assert "the file is failed" in end.err


async def test_a_terminal_sees_a_moving_bar_and_lines(server: ServerProcess, small: Path) -> None:
    code, shown = await on_a_terminal(server, "upload", str(small))
    assert code == 0
    for text in ("small.txt", "5/5 bytes", "completed"):
        assert text in shown


async def test_bars_and_results_share_a_terminal(server: ServerProcess, client: AsyncClient, tmp_path: Path) -> None:
    folder = tmp_path / "films"
    folder.mkdir()
    for number in range(6):
        (folder / f"{number}.mkv").write_bytes(bytes(12_000_000))
    (folder / "link").symlink_to(tmp_path / "nowhere")
    code, shown = await on_a_terminal(server, "upload", str(folder))
    assert code == 0
    screen = pyte.Screen(160, 40)
    pyte.Stream(screen).feed(shown)
    lines = [line.rstrip() for line in screen.display if line.strip()]
    batch_id = (await anext(client.list_files(order_by="created_at desc"))).batch_id
    files = {file.file_id: file.filename async for file in client.list_files(batch_id=batch_id)}
    assert lines[0].endswith("link is a link that leads nowhere.")
    assert lines[1] == f"Uploading 6 files (68.7 MiB) as batch {batch_id}"
    # A line for each file and the batch, each whole, and no bar is left.
    assert {line.split()[0]: line.split()[-1] for line in lines[2:-1]} == files
    assert lines[-1].startswith(f"batch  {batch_id}  completed")


async def test_a_terminal_can_have_a_live_table(server: ServerProcess, client: AsyncClient) -> None:
    file = await client.initiate("film.mkv", 10)
    await client.cancel(file.file_id, reason="wrong version")
    code, shown = await on_a_terminal(server, "watch", "--table", "--until-final", file.file_id)
    assert code == 5
    for text in (file.file_id, "cancelled", "0 B of 10 B", "film.mkv", "user: wrong version"):
        assert text in shown


@pytest.mark.parametrize("closed", ["<&-", ">&-", "2>&-", "<&- >&- 2>&-"])
async def test_closed_standard_streams_leave_no_upload_behind(
    server: ServerProcess, client: AsyncClient, small: Path, closed: str
) -> None:
    name = f"{uuid.uuid4()}.txt"
    words = f'mv "{small}" {name}; exec "{UPLOADCTL}" upload {name} {closed}'
    process = await asyncio.create_subprocess_exec("sh", "-c", words, env=environment(server), cwd=small.parent)
    assert await asyncio.wait_for(process.wait(), SECONDS) == 0
    found = [file.status async for file in client.list_files() if file.filename == name]
    assert found == ["completed"]
