"""How files and batches come into being."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest

from contract.store.kit import (
    assert_history_holds,
    audit,
    batch_of,
    command,
    everything,
    new_id,
    now,
    pending,
)
from upload_server.domain.errors import FileNotFound, RequestIdReused
from upload_server.domain.states import Batch, BatchStatus, File, FileSpec, FileStatus
from upload_server.store.protocol import Store


async def test_a_new_file_is_pending_numbered_and_audited(store: Store) -> None:
    file_id, at = new_id(), now()
    spec = FileSpec("dir/über.pdf", 2**40, "application/pdf", "cd" * 32)

    result = await store.initiate_upload(spec, file_id, command("InitiateUpload", "r1", reason="", at=at))

    file = result.answer
    assert (file.file_id, file.filename, file.size_bytes, file.content_type) == (
        file_id,
        "dir/über.pdf",
        2**40,
        "application/pdf",
    )
    assert (file.status, file.revision, file.bytes_received, file.batch_id) == (FileStatus.PENDING, 1, 0, "")
    assert file.created_at == file.updated_at == at
    assert (file.completed_at, file.cancelled_at, file.sha256, file.fence) == (None, None, "", 0)
    assert not result.replayed
    assert await store.get_file(file_id) == file
    assert await audit(store, file_id) == list(result.audited.events)
    [event] = result.audited.events
    assert (event.event_id, event.from_status, event.to_status) == (file.change_no, "", "pending")
    assert (event.actor, event.source, event.request_id) == ("user", "grpc", "r1")
    assert (await store.claim(file_id, 0, command())).answer.expected_sha256 == "cd" * 32


@pytest.mark.parametrize("files", [1, 3, 200])
async def test_a_new_batch_is_pending_and_numbered_after_its_files(store: Store, files: int) -> None:
    specs = [FileSpec(f"{index}.bin", index, "text/plain", "") for index in range(files)]
    ids, batch_id = [new_id() for _ in specs], new_id()

    result = await store.initiate_batch(specs, batch_id, ids, command("InitiateBatch"))

    batch, file_ids = result.answer
    assert file_ids == tuple(ids)
    assert (batch.status, batch.total_files, batch.revision) == (BatchStatus.PENDING, files, 1)
    assert await store.get_batch(batch_id) == batch
    found = await everything(store)
    made = [change.record for change in found[:-1] if isinstance(change.record, File)]
    assert [(file.file_id, file.filename, file.size_bytes) for file in made] == [
        (file_id, spec.filename, spec.size_bytes) for file_id, spec in zip(ids, specs, strict=True)
    ]
    assert found[-1].record == batch
    audited = result.audited
    assert audited.files == files
    assert (audited.first_event_id, audited.last_event_id) == (made[0].change_no, made[-1].change_no)
    assert [event.event_id for event in audited.events] == [batch.change_no]
    await assert_history_holds(store)


async def test_a_repeated_initiate_gives_the_same_file_in_its_current_state(store: Store) -> None:
    spec = FileSpec("a", 1)
    first = await store.initiate_upload(spec, new_id(), command("InitiateUpload", "r", b"f"))
    await store.cancel_file(first.answer.file_id, command())

    again = await store.initiate_upload(spec, new_id(), command("InitiateUpload", "r", b"f"))

    assert again.replayed
    assert again.answer == await store.get_file(first.answer.file_id)
    assert again.answer.status is FileStatus.CANCELLED
    assert again.audited.events == ()
    assert len(await everything(store)) == 1


async def test_a_repeated_batch_initiate_gives_the_same_ids_with_the_current_state(store: Store) -> None:
    specs, ids = [FileSpec("a", 1)] * 70, [new_id() for _ in range(70)]
    first = await store.initiate_batch(specs, new_id(), ids, command("InitiateBatch", "r", b"f"))
    batch_id = first.answer[0].batch_id
    await store.cancel_batch(batch_id, command("CancelBatch"))

    again = await store.initiate_batch(specs, new_id(), [new_id() for _ in specs], command("InitiateBatch", "r", b"f"))

    assert again.replayed
    assert again.answer == (await store.get_batch(batch_id), tuple(ids))
    assert sum(isinstance(change.record, Batch) for change in await everything(store)) == 1


async def test_a_request_id_with_another_request_is_refused(store: Store) -> None:
    await store.initiate_upload(FileSpec("a", 1), new_id(), command("InitiateUpload", "r", b"one"))

    with pytest.raises(RequestIdReused):
        await store.initiate_upload(FileSpec("b", 1), new_id(), command("InitiateUpload", "r", b"two"))

    assert len(await everything(store)) == 1


async def test_a_request_id_counts_within_its_principal_and_method(store: Store) -> None:
    made = command("InitiateUpload", "r", b"one")
    first = await store.initiate_upload(FileSpec("a", 1), new_id(), made)
    others = [
        command("InitiateUpload", "r", b"two", principal="ann"),
        command("Other", "r", b"three"),
        command("InitiateUpload", "", b"four"),
        command("InitiateUpload", "", b"five"),
    ]

    for other in others:
        result = await store.initiate_upload(FileSpec("b", 1), new_id(), other)
        assert result.answer.file_id != first.answer.file_id
        assert not result.replayed


async def test_what_is_announced_belongs_to_its_caller(store: Store) -> None:
    file = await pending(store, principal="ann")
    batch, ids = await batch_of(store, 2, principal="ann")

    assert file.owner == batch.owner == "ann"
    assert (await store.get_file(ids[0], "ann")).owner == "ann"


async def test_what_a_tus_client_said_is_kept_beside_the_file_whatever_becomes_of_it(store: Store) -> None:
    text = "filename YS50eHQ=,folderId Nw=="
    said = FileSpec("a.txt", 3, tus_metadata=text)
    alone = (await store.initiate_upload(said, new_id(), command("InitiateUpload", "r", b"f", principal="ann"))).answer
    again = await store.initiate_upload(FileSpec("a.txt", 3), new_id(), command("InitiateUpload", "r", b"f", "", "ann"))
    assert again.answer == alone == await store.get_file(alone.file_id)
    digest, specs = "ab" * 32, [said, FileSpec("b", 3), replace(said, tus_metadata="b")]
    put = await asyncio.gather(*(store.put_file(spec, new_id(), digest, command("PutFile")) for spec in specs))
    await store.cancel_file(alone.file_id, command())

    assert await store.get_tus_metadata(alone.file_id, "ann") == text
    assert [await store.get_tus_metadata(each.answer.file_id) for each in put] == [text, "", "b"]
    assert await store.get_tus_metadata((await pending(store)).file_id) == ""
    for file_id, sees in ((alone.file_id, "bob"), (new_id(), None)):
        with pytest.raises(FileNotFound):
            await store.get_tus_metadata(file_id, sees)
