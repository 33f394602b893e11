"""`copy`: a stopped installation becomes another one, whole or not at all, whichever stores the two are."""

from __future__ import annotations

import asyncio
import contextlib
import subprocess
import sys
import time
from pathlib import Path

import grpc
import httpx
import pytest

from contract.store.kit import batch_of, command
from support.grpc_upload import stub_on, upload
from support.process import ServerProcess, StartServer
from support.stores import STORES, shell, url_in
from unit.upkeep.installation import DATA, NOBODY, Installation, Ran
from upload.v1 import upload_pb2 as pb
from upload_server.domain.chain import seals_of
from upload_server.store.inspection import TableRow
from upload_server.store.open import open_store, store_at

MANY = 6_000
BATCHES = 2


@pytest.fixture(params=STORES)
def other(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """The URL of an empty store."""
    (tmp_path / "other").mkdir()
    return url_in(tmp_path / "other", str(request.param))


@pytest.fixture
def shared(tmp_path: Path) -> Path:
    """A folder for the copied bytes."""
    return tmp_path / "copied" / "bytes"


def copy(place: Installation, to: str, shared: Path | None = None) -> Ran:
    return copy_of(place.url, to, *(["--to-storage", shared.as_uri()] if shared else []))


def copy_of(source: str, to: str, *more: str) -> Ran:
    done = subprocess.run(
        [sys.executable, "-m", "upload_server", "copy", "--from", source, "--to", to, *more],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    return Ran(done.returncode, done.stdout, done.stderr)


def tables(url: str) -> dict[str, list[TableRow]]:
    with contextlib.closing(store_at(url).inspect()) as inspection:
        return {name: sorted(rows, key=repr) for name, rows in inspection.tables()}


def is_empty(url: str) -> bool:
    with contextlib.closing(store_at(url).inspect()) as inspection:
        return not any(rows for name, rows in tables(url).items() if name != "store_info") and not (
            inspection.last_change()
        )


def looked_at(url: str, folder: Path, *words: str) -> Ran:
    return Installation(folder, NOBODY).run(*words, "--database-url", url)


def test_an_installation_is_the_same_at_its_new_place(place: Installation, other: str, shared: Path) -> None:
    ran = copy(place, other, shared)

    assert (ran.code, ran.err) == (0, "")
    assert f"the bytes of 4 files: {3 * len(DATA) + 5000} bytes" in ran.out
    assert tables(other) == tables(place.url)
    checked = looked_at(other, shared.parent, "check", "--hash", "--json").json
    assert (checked["ok"], checked["findings"]) == (True, [])
    assert (checked["checked"]["hashed"], checked["checked"]["files"], checked["checked"]["stored"]) == (3, 12, 4)
    verified = looked_at(other, shared.parent, "audit", "verify", "--json")
    assert verified.json == place.run("audit", "verify", "--json").json
    assert verified.json["ok"]
    exported = looked_at(other, shared.parent, "audit", "export").out
    assert exported == place.run("audit", "export").out


async def test_a_server_goes_on_where_the_other_one_stopped(
    place: Installation, other: str, shared: Path, start_server: StartServer
) -> None:
    async def watched(server: ServerProcess, token: str) -> list[pb.WatchStatusResponse]:
        heard = []
        async with grpc.aio.insecure_channel(server.target) as channel:
            request = pb.WatchStatusRequest(file_ids=[place.ids.pending], resume_token=token)
            async for message in stub_on(channel).WatchStatus(request):
                heard.append(message)
                if message.HasField("bookmark"):
                    break
        return heard

    server = start_server(data_dir=place.folder)
    token = (await watched(server, ""))[-1].resume_token
    said = {"Tus-Resumable": "1.0.0", "Upload-Length": "1", "Upload-Metadata": "name cGVuZGluZw==,folder Nw=="}
    async with httpx.AsyncClient(base_url=server.url) as client:
        tus = (await client.post("/api/v1/tus", headers=said)).headers["location"]
    assert server.terminate() == 0
    assert copy(place, other, shared).code == 0

    server = start_server(data_dir=shared.parent, environment={"UPLOAD_DATABASE_URL": other})
    bookmark = (await watched(server, token))[-1].bookmark
    assert bookmark.resynced == (store_at(other).folder is None)
    async with httpx.AsyncClient(base_url=server.url) as client:
        told = (await client.head(tus, headers={"Tus-Resumable": "1.0.0"})).headers
    assert told["upload-metadata"] == said["Upload-Metadata"]
    async with grpc.aio.insecure_channel(server.target) as channel:
        stub = stub_on(channel)
        again = await stub.CancelFile(
            pb.CancelFileRequest(file_id=place.ids.cancelled, reason="why not", request_id="cancel it")
        )
        assert again.file_id == place.ids.cancelled
        uploading = await stub.GetFile(pb.GetFileRequest(file_id=place.ids.uploading))
        await upload(stub, place.ids.uploading, DATA[uploading.bytes_received :], offset=uploading.bytes_received)
        made = await stub.InitiateUpload(pb.InitiateUploadRequest(filename="new", size_bytes=len(DATA)))
        await upload(stub, made.file.file_id, DATA)
        counted = await stub.ListFiles(pb.ListFilesRequest(status=pb.UPLOAD_STATUS_COMPLETED))
    assert len(counted.files) == 6
    assert server.terminate() == 0
    checked = looked_at(other, shared.parent, "check", "--hash", "--json").json
    assert (checked["findings"], checked["checked"]["hashed"]) == ([], 5)
    assert looked_at(other, shared.parent, "audit", "verify", "--json").json["unsealed"] == 0


async def test_tens_of_thousands_of_rows_go_over_and_back(tmp_path: Path, other: str) -> None:
    place = Installation(tmp_path / "data", NOBODY)
    place.folder.mkdir()
    store = await open_store(place.url)
    batches = [(await batch_of(store, MANY))[0] for _ in range(BATCHES)]
    await store.cancel_batch(batches[0].batch_id, command("CancelBatch", "all", b"f", 'why: "\\\t\u2028é'))
    for _ in range(BATCHES):
        found = await store.read_unsealed(MANY)
        assert await store.seal_events(found.head, seals_of(found.events, found.head, store.store_id))
    await store.close()

    assert copy(place, other).code == 0

    assert tables(other) == tables(place.url)
    there = looked_at(other, place.folder, "check", "--json").json
    here = place.run("check", "--json").json
    assert there["checked"] == here["checked"]
    assert there["checked"]["files"] == BATCHES * MANY
    assert (there["findings_by_kind"], there["audit_anchor"]) == (here["findings_by_kind"], here["audit_anchor"])
    copied = await open_store(other)
    _, ids = await batch_of(copied, 2)
    assert (await copied.cancel_file(ids[0], command())).answer.file_id == ids[0]
    await copied.close()
    back = f"sqlite:///{tmp_path / 'back.sqlite3'}"
    assert (await asyncio.to_thread(copy_of, other, back)).code == 0
    assert tables(back) == tables(other)


def test_a_destination_that_is_not_empty_is_refused(place: Installation, other: str, shared: Path) -> None:
    assert copy(place, other).code == 0
    before = tables(other)

    again = copy(place, other, shared)

    assert (again.code, "not empty" in again.err) == (2, True)
    assert tables(other) == before
    assert not shared.exists()


def test_what_runs_is_neither_copied_nor_filled(
    place: Installation, other: str, tmp_path: Path, start_server: StartServer
) -> None:
    server = start_server(data_dir=place.folder)
    refused = copy(place, other)
    assert (refused.code, "in use by another upload-server" in refused.err) == (2, True)
    server.kill()
    server = start_server(data_dir=tmp_path / "third", environment={"UPLOAD_DATABASE_URL": other})
    refused = copy(place, other)
    assert (refused.code, "in use by another upload-server" in refused.err) == (2, True)
    server.kill()
    assert is_empty(other)


def test_a_schema_of_another_program_is_refused(place: Installation, other: str) -> None:
    with place.by_hand(triggers=True) as hand:
        hand.execute("INSERT INTO schema_migration (name, applied) VALUES ('9999_newer', '2030-01-01')")

    refused = copy(place, other)

    assert (refused.code, "step 9999_newer is unknown" in refused.err) == (2, True)


def test_without_the_schema_a_server_of_databases_is_not_filled(place: Installation) -> None:
    from support import postgres  # noqa: PLC0415

    database = postgres.server()
    refused = copy(place, database.url(database.new_database()))
    assert (refused.code, "run `upload-server migrate` first" in refused.err) == (2, True)


async def test_rows_are_all_there_or_none(place: Installation, other: str) -> None:
    """Refused by a late table: its number is there twice."""
    await store_at(other).migrate()
    with shell(other) as hand:
        hand.execute("INSERT INTO owed_deletion (id, file_row) VALUES (1, 1)")
    with place.by_hand() as hand:
        hand.execute("INSERT INTO owed_deletion (id, file_row) SELECT 1, 1")

    refused = await asyncio.to_thread(copy, place, other)

    assert refused.code == 2
    with shell(other) as hand:
        assert hand.execute("SELECT count(*) FROM file").fetchall()[0][0] == 0
        hand.execute("DELETE FROM owed_deletion")
    assert (await asyncio.to_thread(copy, place, other)).code == 0
    assert tables(other) == tables(place.url)


def test_bytes_that_are_not_what_was_uploaded_are_not_copied(place: Installation, other: str, shared: Path) -> None:
    kept = place.bytes_of(place.ids.completed)
    kept.write_bytes(b"x" + DATA[1:])
    refused = copy(place, other, shared)
    assert (refused.code, place.ids.completed in refused.err) == (2, True)
    kept.write_bytes(DATA[1:])
    refused = copy(place, other, shared)
    assert (refused.code, "too early" in refused.err) == (2, True)
    assert is_empty(other)

    kept.write_bytes(DATA)
    assert copy(place, other, shared).code == 0
    assert looked_at(other, shared.parent, "check", "--hash").code == 0


# What the killed program runs: after each file that it has brought it rests.
_RESTING = """
import os, sys, time
import upload_server.upkeep.copying as copying
from upload_server.__main__ import main

whole = copying._digest

def resting(*words):
    digest = whole(*words)
    # Several threads bring files: in one write, or their lines would mix.
    os.write(1, b"brought\\n")
    time.sleep(600)
    return digest

copying._digest = resting
sys.exit(main(sys.argv[1:]))
"""


def test_a_copy_that_was_killed_is_begun_anew(place: Installation, other: str, shared: Path) -> None:
    """Killed when it has brought a file, before any row."""
    words = ["copy", "--from", place.url, "--to", other, "--to-storage", shared.as_uri()]
    with subprocess.Popen([sys.executable, "-c", _RESTING, *words], stdout=subprocess.PIPE, text=True) as running:
        assert running.stdout is not None
        said = running.stdout.readline()
        running.kill()
    assert said == "brought\n"
    assert is_empty(other)
    brought = [path for path in shared.rglob("*") if path.is_file()]
    assert brought
    whole = {path: path.stat().st_mtime_ns for path in brought if path.stat().st_size == len(DATA)}
    deadline = time.monotonic() + 20
    while (ran := copy(place, other, shared)).code:
        # The database may not know yet that its session was killed.
        assert time.monotonic() < deadline, ran.err

    assert looked_at(other, shared.parent, "check", "--hash").code == 0
    assert {path: path.stat().st_mtime_ns for path in whole} == whole


def test_strange_bytes_at_the_destination_are_left_alone(place: Installation, other: str, shared: Path) -> None:
    strange = shared / "00" / "00000000-0000-4000-8000-000000000000"
    strange.parent.mkdir(parents=True)
    strange.write_bytes(b"somebody's")

    refused = copy(place, other, shared)

    assert (refused.code, "--to-storage: it is not empty" in refused.err) == (2, True)
    assert is_empty(other)
    assert strange.read_bytes() == b"somebody's"


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--from", "{here}", "--to", "{here}"], "are the same store"),
        (["--from", "{here}.gone", "--to", "{here}"], "there is no database"),
        (["--from", "{here}", "--to", "{here}.new", "--from-storage", "file:///x"], "needs --to-storage"),
        (["--from", "{here}", "--to", "{here}.new", "--to-storage", "{bytes}"], "are the same"),
        (["--from", "{here}", "--to", "mysql://x"], "a database URL looks like"),
    ],
)
def test_what_makes_no_sense_is_refused(place: Installation, words: list[str], said: str) -> None:
    known = {"here": place.url, "bytes": (place.folder / "bytes").as_uri()}
    command = [sys.executable, "-m", "upload_server", "copy", *(word.format(**known) for word in words)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, said in done.stderr) == (2, True), done.stderr
    assert not place.database.with_name("upload.sqlite3.new").exists()


async def test_a_file_of_no_bytes_lies_at_the_new_place_too(
    start_server: StartServer, other: str, shared: Path
) -> None:
    server = start_server()
    async with grpc.aio.insecure_channel(server.target) as channel:
        stub = stub_on(channel)
        file_id = (await stub.InitiateUpload(pb.InitiateUploadRequest(filename="empty"))).file.file_id
        await upload(stub, file_id, b"")
    await asyncio.to_thread(server.terminate)

    copied = await asyncio.to_thread(copy_of, url_in(server.data_dir), other, "--to-storage", shared.as_uri())

    assert (copied.code, copied.err) == (0, "")
    [lies] = await asyncio.to_thread(lambda: [path for path in shared.rglob("*") if path.name.startswith(file_id)])
    assert lies.stat().st_size == 0
