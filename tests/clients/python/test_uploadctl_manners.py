"""Conventions of uploadctl: beginnings of ids, several of them, formats, filters, encodings, what is skipped."""

from __future__ import annotations

import asyncio
import functools
import itertools
import json
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from clients.python.program import HEARS_CTRL_C, UPLOADCTL, ended, environment, started, uploadctl
from support.process import ServerProcess
from support.proxy import fault_proxy
from upload import AsyncClient, FileSpec
from upload.cli import COMMANDS
from upload.cli.exits import Exit

# uploadctl with batches of two files.
_PROGRAM = "import sys; from upload.cli import main, uploading; uploading.MAX_BATCH_FILES = 2; sys.exit(main())"
SMALL_BATCHES = (sys.executable, "-c", _PROGRAM)


@pytest.fixture
async def client(server: ServerProcess) -> AsyncIterator[AsyncClient]:
    async with AsyncClient(server.target) as client:
        yield client


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    path = tmp_path / "photos"
    path.mkdir()
    for name in "abcde":
        (path / name).write_text(name)
    return path


async def test_an_id_may_be_cut_where_no_other_begins_so(server: ServerProcess, client: AsyncClient) -> None:
    # So many that some share their first four characters.
    batch = await client.initiate_batch([FileSpec(filename="a")] * 2000)
    ids = sorted(batch.file_ids)
    one, other = next(pair for pair in itertools.pairwise(ids) if pair[0][:4] == pair[1][:4])
    refused = await uploadctl(server, "cancel", one[:4])
    assert refused.code == Exit.USAGE
    assert all(f"{file_id} (a, pending)" in refused.err for file_id in (one, other))
    enough = next(length for length in range(36) if one[:length] != other[:length])
    found = await uploadctl(server, "get", one[: enough + 3], "-o", "json")
    assert json.loads(found.out)["file_id"] == one
    assert (await uploadctl(server, "cancel-batch", batch.batch.batch_id[:8])).code == 0
    assert json.loads((await uploadctl(server, "get", one.upper(), "-o", "json")).out)["file_id"] == one
    short = await uploadctl(server, "get", one[:3])
    assert (short.code, "its first 4 characters" in short.err) == (Exit.USAGE, True)
    nobody = await uploadctl(server, "get", "0000-0000")
    assert (nobody.code, "No file has this id" in nobody.err) == (Exit.NOT_FOUND, True)


async def test_several_ids_are_dealt_with_each(server: ServerProcess, client: AsyncClient) -> None:
    ids = [(await client.initiate(name, 1)).file_id for name in "abc"]
    listed = await uploadctl(server, "list", "-n", "2")
    end = await uploadctl(server, "cancel", "nobody", ids[0], "-", "--reason", "all", "-o", "json", stdin=listed.out)
    assert end.code == Exit.NOT_FOUND
    assert [file["file_id"] for file in json.loads(end.out)] == [ids[0], ids[2], ids[1]]
    assert [note["error"]["reason"] for note in end.notes] == ["FILE_NOT_FOUND"]
    shown = await uploadctl(server, "get", *ids)
    assert shown.out.count("cancel_reason:          all") == 3


async def test_lists_are_filtered_and_followed(server: ServerProcess, client: AsyncClient) -> None:
    batch = (await client.initiate_batch([FileSpec(filename="film/1", size_bytes=1)] * 2)).batch
    other = await client.initiate("film/2", 1)
    await client.cancel(other.file_id, reason="late")
    words = ("--status", "pending,cancelled", "--name", "film/", "--since", "1h", "--json")
    listed = await uploadctl(server, "list", *words, "--cancelled-by", "user", "-n", "1")
    assert [file["file_id"] for file in listed.lines] == [other.file_id]
    batches = await uploadctl(server, "list-batches", "--status", "pending", "--since", "1h", "-n", "1", "--json")
    assert batches.lines[0]["batch_id"] == batch.batch_id
    assert (await uploadctl(server, "list", "--until", "1h", "--json", "--limit", "0")).out == ""
    events = await uploadctl(server, "audit", "--to-status", "cancelled", "--source", "grpc", "-n", "1", "--json")
    assert (events.lines[0]["file_id"], events.lines[0]["reason"]) == (other.file_id, "late")

    with started(server, "list", "--watch", "--batch", batch.batch_id, "-o", "json") as process:
        assert process.stdout is not None
        for _ in range(2):
            assert json.loads(await asyncio.to_thread(process.stdout.readline))["status"] == "pending"
        await client.cancel((await client.initiate("elsewhere", 1)).file_id)
        await client.cancel_batch(batch.batch_id)
        for _ in range(2):
            change = json.loads(await asyncio.to_thread(process.stdout.readline))
            assert (change["status"], change["batch_id"]) == ("cancelled", batch.batch_id)


async def test_counts_and_the_caller_are_shown(server: ServerProcess, client: AsyncClient) -> None:
    await client.put(b"hello", filename="hello.txt")
    counted = await uploadctl(server, "stats", "--window", "1h", "--step", "1m", "-o", "json")
    counts = json.loads(counted.out)
    assert len(counts["buckets"]) == 60
    assert {one["status"]: one["files"] for one in counts["files"]}["completed"] >= 1
    assert "too long a time" in (await uploadctl(server, "stats", "--window", "99999999999999w")).err
    text = await uploadctl(server, "stats")
    assert [line.split()[:2] for line in text.out.splitlines()][2] == ["files", "completed"]
    who = await uploadctl(server, "whoami", "-o", "yaml")
    assert 'principal: ""' in who.out


def test_what_cannot_be_read_or_shown_is_no_success() -> None:
    for line, code, words in (
        ("upload - --name y <&-", Exit.FAILED, "What stdin has cannot be read"),
        ("get - <&-", Exit.FAILED, "What stdin has cannot be read"),
        ("completion bash >/dev/full", Exit.SERVER_ERROR, "could not be written: No space left on device."),
    ):
        command = ["bash", "-c", f'"{UPLOADCTL}" {line}']
        ended = subprocess.run(command, capture_output=True, text=True, check=False)
        assert (ended.returncode, words in ended.stderr) == (code, True), ended.stderr


async def test_stdin_is_sent_under_a_name(server: ServerProcess, client: AsyncClient) -> None:
    sent = await uploadctl(server, "upload", "-", "--name", "dir/notes.txt", "-o", "json", stdin="hello")
    file = json.loads(sent.out)
    assert (file["filename"], file["content_type"], file["status"]) == ("dir/notes.txt", "text/plain", "completed")
    assert b"".join([piece async for piece in client.download(file["file_id"])]) == b"hello"
    # As cat: what is closed is not what is empty.
    closed = f'"{UPLOADCTL}" upload - --name empty <&-'
    process = await asyncio.create_subprocess_exec("bash", "-c", closed, env=environment(server))
    assert await process.wait() == Exit.FAILED
    assert (await anext(client.list_files(order_by="created_at desc"))).filename == "dir/notes.txt"


async def test_ids_are_read_until_ctrl_c(server: ServerProcess) -> None:
    assert (await uploadctl(server, "cancel", "-", "--request-id", "r")).code == Exit.USAGE
    process = await asyncio.create_subprocess_exec(
        *(*HEARS_CTRL_C, UPLOADCTL, "get", "-"), stdin=asyncio.subprocess.PIPE, env=environment(server)
    )
    call = Path(f"/proc/{process.pid}/syscall")
    # Read, of stdin.
    while not call.read_text().startswith("0 0x0 "):  # noqa: ASYNC110, ASYNC240 - another process, no disk
        await asyncio.sleep(0.05)
    process.send_signal(signal.SIGINT)
    assert await asyncio.wait_for(process.wait(), 20) == Exit.INTERRUPTED


async def test_a_folder_may_have_more_files_than_a_batch(
    server: ServerProcess, client: AsyncClient, folder: Path
) -> None:
    sent = await uploadctl(server, "upload", str(folder), "--json", program=SMALL_BATCHES)
    assert sent.code == 0
    batches = [line for line in sent.lines if "total_files" in line]
    assert [(batch["total_files"], batch["status"]) for batch in batches] == [(n, "completed") for n in (2, 2, 1)]

    # Resumed in its second batch, with a file that came since.
    specs = [FileSpec(filename=name, size_bytes=1) for name in "cd"]
    again = (await client.initiate_batch(specs)).batch
    (folder / "cc").touch()
    words = ("upload", str(folder), "--resume-batch", again.batch_id, "--json")
    resumed = await uploadctl(server, *words, program=SMALL_BATCHES)
    assert (resumed.code, resumed.notes[0]["event"], resumed.notes[0]["files"]) == (0, "left_out", 3)
    assert sorted(line["filename"] for line in resumed.lines if "filename" in line) == ["c", "d", "e"]


async def test_what_a_folder_has_besides_files_is_noted(server: ServerProcess, folder: Path) -> None:
    (folder / "link").symlink_to(folder / "nowhere")
    fine = await uploadctl(server, "upload", str(folder), "--json")
    assert (fine.code, fine.notes[0]["event"], fine.notes[0]["path"]) == (0, "skipped", str(folder / "link"))
    (folder / "a\\b").touch()
    (folder / "caf\udce9").touch()
    partly = await uploadctl(server, "upload", str(folder))
    assert partly.code == Exit.FAILED
    assert f"Skipped: {folder}/caf\\udce9 has a name that is not UTF-8." in partly.err
    assert "completed, 0 failed, 0 cancelled of 5" in partly.out


@pytest.mark.parametrize("encoding", ["latin-1", "ascii"])
async def test_what_an_encoding_lacks_is_escaped(server: ServerProcess, tmp_path: Path, encoding: str) -> None:
    (tmp_path / "\u65e5\u672c\U0001f600.txt").touch()
    text = await uploadctl(server, "upload", str(tmp_path), PYTHONIOENCODING=encoding)
    assert (text.code, r"\u65e5\u672c\ud83d\ude00.txt" in text.out) == (0, True)
    lines = await uploadctl(server, "list", "-n", "1", "--json", PYTHONIOENCODING=encoding)
    assert lines.lines[0]["filename"] == "\u65e5\u672c\U0001f600.txt"


async def test_results_that_nobody_takes_stop_no_upload(
    server: ServerProcess, client: AsyncClient, folder: Path
) -> None:
    read, nobody = os.pipe()
    os.close(read)
    for target, code in ("/dev/full", Exit.SERVER_ERROR), (f"&{nobody}", Exit.PIPE_CLOSED):
        command = ["bash", "-c", f'exec "{UPLOADCTL}" upload "{folder}" >{target}']
        process = await asyncio.create_subprocess_exec(*command, env=environment(server), pass_fds=[nobody])
        assert await process.wait() == code
        newest = await anext(client.list_batches(order_by="created_at desc"))
        assert (newest.status, newest.completed_files) == ("completed", 5)
    os.close(nobody)
    # So small that all of it waits for the end in Python's own buffer.
    small = await client.put(b"abc", filename="a.txt")
    for words, code, what in (
        ("stats", Exit.SERVER_ERROR, "The results could not be written"),
        (f"download {small.file_id} --to -", Exit.FAILED, "uploadctl: Cannot write to stdout"),
    ):
        line = f'"{UPLOADCTL}" {words} >/dev/full'
        run = functools.partial(
            subprocess.run, ["bash", "-c", line], env=environment(server), stderr=subprocess.PIPE, text=True
        )
        lost = await asyncio.to_thread(run, check=False)
        assert (lost.returncode, lost.stderr) == (code, f"{what}: No space left on device.\n")


async def test_without_a_terminal_progress_is_told_in_lines(
    server: ServerProcess, client: AsyncClient, tmp_path: Path
) -> None:
    path = tmp_path / "huge.bin"
    with path.open("wb") as file:
        file.truncate(100 * 1024**3)
    with started(server, "upload", str(path), "--progress", "0.1") as process:
        assert process.stderr is not None
        file_id = (await asyncio.to_thread(process.stderr.readline)).split()[-1]
        assert " of 100.0 GiB (0 %), " in await asyncio.to_thread(process.stderr.readline)
        await client.cancel(file_id)
        end = await ended(process)
    assert end.code == Exit.CANCELLED


async def test_the_usual_mistakes_with_the_server_are_named(server: ServerProcess) -> None:
    wrong_port = await uploadctl(server, "list", "--server", f"http://127.0.0.1:{server.http_port}", "--timeout", "3")
    assert (wrong_port.code, "speaks HTTP/1.1, not gRPC" in wrong_port.err) == (Exit.UNREACHABLE, True)
    schemed = await uploadctl(None, "list", "-n", "1", "--server", f"http://{server.target}")
    assert schemed.code == 0


async def test_a_watch_that_breaks_says_how_to_go_on(server: ServerProcess, client: AsyncClient) -> None:
    file = await client.initiate("a", 1)
    async with fault_proxy(server.grpc_port) as proxy:
        words = ("watch", file.file_id, "--patience", "0.1", "--server", proxy.target, "--json")
        with started(server, *words) as process:
            assert process.stdout is not None
            token = json.loads(await asyncio.to_thread(process.stdout.readline))["resume_token"]
            # Nobody answers there.
            proxy.backend = 1
            proxy.reset_all()
            end = await ended(process)
    assert (end.code, end.notes[0]["event"]) == (Exit.UNREACHABLE, "resumable")
    assert token in end.notes[0]["message"]


# Runs command lines of a shell, one after the other, in one process and one loop.
EXAMPLES = """
import asyncio, io, shlex, sys
from upload import cli
from upload.cli.arguments import parse
from upload.cli.output import Output

async def run(line):
    words = shlex.split(line, comments=True)
    arguments = parse(words[1:])
    with cli._stdin_read(arguments):
        running = asyncio.ensure_future(cli._run(arguments, Output(arguments.output)))
        # What never ends has shown that it runs.
        done, _ = await asyncio.wait({running}, timeout=0.5 if {"--all", "--watch"} & {*words} else 50)
        if done:
            return running.result()
        running.cancel()
        await asyncio.wait({running})
        return 0

async def main():
    for line in sys.argv[1:]:
        piped, _, line = line.rpartition("| ")
        sys.stdin = io.TextIOWrapper(io.BytesIO(b"hello" if "echo" in piped else b""))
        print(await run(line), line, file=sys.stderr)

asyncio.run(main())
"""


async def test_the_examples_in_the_documents_run(
    server: ServerProcess, client: AsyncClient, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    root = Path(__file__).parents[3]
    text = (root / "docs" / "clients.md").read_text().split("## uploadctl")[1].split("- **Ids**")[0]
    text += (root / "clients" / "python" / "README.md").read_text().split("## uploadctl")[1]
    lines = [line[2:] for line in text.splitlines() if line.startswith("$ ")]
    (tmp_path / "photos").mkdir()
    for name in ("film.mkv", "photos/a"):
        (tmp_path / name).write_bytes(b"x")
    ids = {}
    for name in ("resumed", "cancelled", "other", "watched"):
        ids[name] = (await client.initiate("film.mkv", 1)).file_id
    batches = [(await client.initiate_batch([FileSpec(filename="a", size_bytes=1)])).batch.batch_id for _ in range(2)]
    await client.cancel(ids["watched"])
    ids["deleted"] = (await client.put(b"x", filename="film.mkv")).file_id
    ids["download"] = (await client.put(b"x", filename="film.mkv")).file_id

    def filled(line: str) -> str:
        own = {"watch": "watched", "--resume": "resumed", "download": "download", "delete-content": "deleted"}
        which = next((own[word] for word in line.split() if word in own), "cancelled")
        line = line.replace("OTHER_ID", ids["other"]).replace("FILE_ID", ids[which])
        return line.replace("BATCH_ID", batches["cancel" in line])

    program = (sys.executable, "-c", EXAMPLES)
    known = [line for line in lines if not line.startswith("source")]
    ran = await uploadctl(server, *map(filled, known), program=program)
    codes = [line.split(" ", 1) for line in ran.err.splitlines() if line[:1].isdigit() and " uploadctl " in line]
    expected = ["5" if "--until-final" in line else "0" for line in known]
    assert [code for code, _ in codes] == expected, ran.err
    assert {line.split("uploadctl ")[1].split()[0] for line in lines} == {*COMMANDS, "completion"}
