"""`adopt` gives an owner what has none, with its stored answers, and nothing else."""

from __future__ import annotations

from dataclasses import replace

import pytest

from contract.store.kit import assert_history_holds, batch_of, command, new_id, pending
from upload_server.domain.states import FileSpec
from upload_server.store.inspection import CannotAdopt
from upload_server.store.open import StoreAt
from upload_server.store.values import Listing


async def owners(store_at: StoreAt) -> dict[str, str]:
    store = await store_at.open()
    rows = [
        *((file.file_id, file.owner) for file in (await store.list_files(Listing(), None, 100)).rows),
        *((batch.batch_id, batch.owner) for batch in (await store.list_batches(Listing(), None, 100)).rows),
    ]
    await assert_history_holds(store)
    await store.close()
    return dict(rows)


async def test_what_has_no_owner_gets_one_with_its_answers(backend: StoreAt) -> None:
    store = await backend.open()
    spec, asked = FileSpec("a", 1), command("InitiateUpload", "r", b"f")
    first = (await store.initiate_upload(spec, new_id(), asked)).answer
    cancel = command("CancelFile", "c", b"f")
    second = await pending(store)
    answer = (await store.cancel_file(second.file_id, cancel)).answer
    batch, members = await batch_of(store, 2)
    theirs = await pending(store, principal="bob")
    await store.close()

    lock = backend.lock()
    mending = backend.mend()
    assert mending.adopt("ann", file_id=first.file_id) == (1, 0, 1)
    assert mending.adopt("ann", batch_id=batch.batch_id) == (2, 1, 0)
    for wrong, why in (
        ({"file_id": members[0]}, "belongs to ann already"),
        ({"file_id": theirs.file_id}, "belongs to bob already"),
        ({"batch_id": batch.batch_id}, "belongs to ann already"),
        ({"file_id": "nothing"}, "there is no file nothing"),
    ):
        with pytest.raises(CannotAdopt, match=why):
            mending.adopt("eve", **wrong)
    assert mending.adopt("eve") == (1, 0, 1)
    mending.close()
    lock.release()

    of_ann = dict.fromkeys((first.file_id, batch.batch_id, *members), "ann")
    assert await owners(backend) == of_ann | {second.file_id: "eve", theirs.file_id: "bob"}
    store = await backend.open()
    for name, again in (("ann", asked), ("eve", cancel)):
        caller = replace(again.caller, principal=name, sees=name)
        if again is asked:
            assert (await store.initiate_upload(spec, new_id(), again._replace(caller=caller))).replayed
        else:
            replayed = await store.cancel_file(second.file_id, again._replace(caller=caller))
            assert (replayed.answer, replayed.replayed) == (answer, True)
    await store.close()


async def test_a_file_of_a_batch_is_adopted_with_it(backend: StoreAt) -> None:
    store = await backend.open()
    batch, members = await batch_of(store, 1)
    await store.close()
    lock = backend.lock()
    mending = backend.mend()
    with pytest.raises(CannotAdopt, match=f"--batch {batch.batch_id}"):
        mending.adopt("ann", file_id=members[0])
    mending.close()
    lock.release()
