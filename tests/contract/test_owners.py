"""Two principals and those who see everybody's rows: a watch, a list and the trail tell each what is its own."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator, Sequence
from typing import TYPE_CHECKING

import grpc
import pytest

from support.process import ServerProcess
from support.tokens import Tokens
from upload.v1 import upload_pb2 as pb

if TYPE_CHECKING:
    from upload.v1.upload_pb2_grpc import UploadServiceAsyncStub as Stub


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory, tokens: Tokens) -> Iterator[ServerProcess]:
    with ServerProcess(tmp_path_factory.mktemp("server"), tokens.options) as process:
        yield process


async def announced(stub: Stub, tokens: Tokens, who: str) -> str:
    request = pb.InitiateUploadRequest(filename="a.bin", size_bytes=10)
    return (await stub.InitiateUpload(request, metadata=tokens.metadata(who))).file.file_id


class Watching:
    """A watch of all, and what it has told."""

    def __init__(self, stub: Stub, tokens: Tokens, who: str, token: str = "", owner: str = "") -> None:
        request = pb.WatchStatusRequest(all=True, resume_token=token, owner=owner)
        self._call = stub.WatchStatus(request, metadata=tokens.metadata(who))
        self._messages: AsyncIterator[pb.WatchStatusResponse] = aiter(self._call)
        self.token = ""

    async def opened(self) -> list[str]:
        """The ids that it tells before its first bookmark."""
        return [file_id async for file_id in self._told()]

    async def hear(self, count: int) -> list[str]:
        """The ids that it tells next."""
        found: list[str] = []
        async for file_id in self._told(endless=True):
            found.append(file_id)
            if len(found) == count:
                break
        return found

    async def _told(self, *, endless: bool = False) -> AsyncIterator[str]:
        async with asyncio.timeout(20):
            async for message in self._messages:
                self.token = message.resume_token
                if message.HasField("file"):
                    yield message.file.file_id
                elif message.HasField("bookmark") and not endless:
                    return

    def end(self) -> None:
        self._call.cancel()


async def test_a_watch_of_all_tells_what_its_caller_sees_fresh_live_and_resumed(stub: Stub, tokens: Tokens) -> None:
    files = {who: [await announced(stub, tokens, who)] for who in ("owner", "other")}
    watching = {who: Watching(stub, tokens, who) for who in ("owner", "other", "operator")}
    fresh = {who: await watch.opened() for who, watch in watching.items()}
    files["operator"] = [*files["owner"], *files["other"]]
    for who, told in fresh.items():
        assert [file_id for file_id in told if file_id in files["operator"]] == files[who]

    before = watching["other"].token
    live = [(who, await announced(stub, tokens, who)) for who in ("other", "owner", "other", "owner")]
    wanted = {who: [file_id for name, file_id in live if who in ("operator", name)] for who in watching}
    assert {who: await watch.hear(len(wanted[who])) for who, watch in watching.items()} == wanted
    # A token copied from somebody else is a position, and carries no right.
    resumed = Watching(stub, tokens, "owner", before)
    assert await resumed.opened() == wanted["owner"]
    for watch in (*watching.values(), resumed):
        watch.end()


async def test_an_owner_whom_the_caller_does_not_see_is_as_one_that_nobody_is_called(
    stub: Stub, tokens: Tokens
) -> None:
    mine, theirs = await announced(stub, tokens, "owner"), await announced(stub, tokens, "other")

    async def listed(who: str, owner: str) -> Sequence[str]:
        request = pb.ListFilesRequest(owner=owner, order_by="created_at desc")
        return [file.file_id for file in (await stub.ListFiles(request, metadata=tokens.metadata(who))).files]

    async def audited(who: str, owner: str) -> Sequence[str]:
        request = pb.ListAuditEventsRequest(owner=owner, order_by="event_id desc")
        answer = await stub.ListAuditEvents(request, metadata=tokens.metadata(who))
        assert answer.events or not answer.next_page_token
        return [event.file_id for event in answer.events]

    async def watched(who: str, owner: str) -> Sequence[str]:
        watch = Watching(stub, tokens, who, owner=owner)
        found = await watch.opened()
        watch.end()
        return found

    for ask in (listed, audited, watched):
        assert {mine} <= {*await ask("owner", "ada")} == {*await ask("owner", "")}
        assert await ask("owner", "bob") == await ask("owner", "nobody") == []
        told = await ask("operator", "bob")
        assert theirs in told
        assert mine not in told
        assert {mine, theirs} <= {*await ask("operator", "")}


async def test_an_owner_is_a_filter_of_all_alone(stub: Stub, tokens: Tokens) -> None:
    request = pb.WatchStatusRequest(file_ids=[await announced(stub, tokens, "owner")], owner="ada")
    with pytest.raises(grpc.aio.AioRpcError, match="owner: must be combined with all"):
        await anext(aiter(stub.WatchStatus(request, metadata=tokens.metadata("owner"))))


async def test_the_trail_says_what_proved_a_name_and_where_from(stub: Stub, tokens: Tokens) -> None:
    file_id = await announced(stub, tokens, "owner")
    await stub.CancelFile(pb.CancelFileRequest(file_id=file_id), metadata=tokens.metadata("operator"))

    request = pb.ListAuditEventsRequest(file_id=file_id)
    answer = await stub.ListAuditEvents(request, metadata=tokens.metadata("owner"))

    ids = [f"token:{tokens.secrets[who].split('_')[1]}" for who in ("owner", "operator")]
    assert [(event.actor, event.credential) for event in answer.events] == list(
        zip(("user:ada", "user:sre"), ids, strict=True)
    )
    assert {event.peer for event in answer.events} == {"127.0.0.1"}


async def test_a_stranger_s_cancel_is_that_of_an_unknown_file(stub: Stub, tokens: Tokens) -> None:
    file_id = await announced(stub, tokens, "owner")
    with pytest.raises(grpc.aio.AioRpcError) as foreign:
        await stub.CancelFile(pb.CancelFileRequest(file_id=file_id), metadata=tokens.metadata("other"))
    unknown_id = file_id[::-1]
    with pytest.raises(grpc.aio.AioRpcError) as unknown:
        await stub.CancelFile(pb.CancelFileRequest(file_id=unknown_id), metadata=tokens.metadata("other"))
    assert foreign.value.code() is unknown.value.code() is grpc.StatusCode.NOT_FOUND
    assert foreign.value.details() == (unknown.value.details() or "").replace(unknown_id, file_id)
