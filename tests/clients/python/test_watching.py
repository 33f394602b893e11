"""Watches over connections that break: resumed by token, no revision twice, none lost."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable

import pytest
from grpc import StatusCode

from clients.python.conftest import Calls
from clients.python.scripted import BROKEN, Refusal, Running
from upload import AsyncClient, errors
from upload.v1 import upload_pb2 as pb
from upload.watching import Memory

Script = Callable[[pb.WatchStatusRequest], AsyncIterator[pb.WatchStatusResponse]]


def state(
    revision: int, file_id: str = "f-1", status: pb.UploadStatus = pb.UPLOAD_STATUS_UPLOADING
) -> pb.WatchStatusResponse:
    file = pb.File(file_id=file_id, revision=revision, status=status)
    return pb.WatchStatusResponse(file=file, resume_token=f"t{revision}")


def bookmark(token: str, *, resynced: bool = False) -> pb.WatchStatusResponse:
    return pb.WatchStatusResponse(bookmark=pb.Bookmark(resynced=resynced), resume_token=token)


def says(*events: pb.WatchStatusResponse, then: Refusal | None = None) -> Script:
    async def script(_: pb.WatchStatusRequest) -> AsyncIterator[pb.WatchStatusResponse]:
        for event in events:
            yield event
        if then is not None:
            raise then

    return script


def revisions(events: list[pb.WatchStatusResponse]) -> list[int]:
    return [event.file.revision for event in events if event.file]


async def test_a_broken_watch_goes_on_with_its_token(call: Calls, scripted: Running) -> None:
    scripted.service.watches = [
        says(state(1), bookmark("t1"), state(2), then=BROKEN),
        says(then=BROKEN),
        says(bookmark("t2"), state(3, status=pb.UPLOAD_STATUS_CANCELLED)),
    ]
    events = await call("watch", ["f-1"], until_final=True)
    assert revisions(events) == [1, 2, 3]
    tokens = [request.resume_token for request in scripted.service.calls["WatchStatus"]]
    assert tokens == ["", "t2", "t2"]
    assert list(scripted.service.calls["WatchStatus"][0].file_ids) == ["f-1"]


async def test_a_revision_that_comes_again_is_dropped(call: Calls, scripted: Running) -> None:
    scripted.service.watches = [
        says(state(1), state(2), then=BROKEN),
        says(state(1), state(2), bookmark("t2"), state(3), state(1, "f-2"), state(4)),
    ]
    events = await call("watch", all=False, file_ids=["f-1", "f-2"], until_final=True)
    assert [(e.file.file_id, e.file.revision) for e in events if e.file] == [
        ("f-1", 1),
        ("f-1", 2),
        ("f-1", 3),
        ("f-2", 1),
        ("f-1", 4),
    ]


async def test_after_a_restored_backup_the_older_state_is_the_truth(call: Calls, scripted: Running) -> None:
    other = state(5, "f-2")
    scripted.service.watches = [
        says(state(3), other, then=BROKEN),
        # Broken before the bookmark: whether this was a resync was never heard, so the token must not move on.
        says(state(2), then=BROKEN),
        says(state(2), other, bookmark("t2", resynced=True), state(3, status=pb.UPLOAD_STATUS_COMPLETED)),
    ]
    events = await call("watch", ["f-1", "f-2"], until_final=True)
    assert revisions(events) == [3, 5, 2, 3]
    assert [request.resume_token for request in scripted.service.calls["WatchStatus"]] == ["", "t5", "t5"]
    assert any(event.bookmark and event.bookmark.resynced for event in events)


@pytest.mark.parametrize(
    "refusal",
    [
        Refusal(StatusCode.NOT_FOUND, "FILE_NOT_FOUND"),
        Refusal(StatusCode.INVALID_ARGUMENT, "INVALID_FIELD"),
    ],
)
async def test_what_no_reconnect_cures_is_raised(call: Calls, scripted: Running, refusal: Refusal) -> None:
    scripted.service.watches = [says(then=refusal)]
    with pytest.raises(errors.BY_REASON[refusal.reason]):
        await call("watch", ["f-1"])


async def test_it_gives_up_when_its_patience_is_used_up(scripted: Running) -> None:
    scripted.service.watches = [says(bookmark("t1"), then=BROKEN), *[says(then=BROKEN)] * 50]
    async with AsyncClient(scripted.target) as client:
        with pytest.raises(errors.ServerUnreachable):
            async for _ in client.watch(all=True, patience=1.0):
                pass
    assert 2 <= len(scripted.service.calls["WatchStatus"]) < 20


async def test_progress_passes_and_asks_for_its_interval(call: Calls, scripted: Running) -> None:
    progress = pb.WatchStatusResponse(progress=pb.Progress(file_id="f-1", bytes_received=5))
    scripted.service.watches = [says(progress, progress)]
    events = await call("watch", ["f-1"], progress_interval=0.25, until_final=True)
    assert len(events) == 2
    assert scripted.service.calls["WatchStatus"][0].progress_interval.ToMilliseconds() == 250


def test_the_memory_is_bounded() -> None:
    memory = Memory(limit=2)
    for name in ("a", "b", "c"):
        assert memory.admit(state(1, name))
    assert not memory.admit(state(1, "c"))
    assert memory.admit(state(1, "a"))
