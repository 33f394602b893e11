"""Every RPC, through every door that it has, by every kind of caller: the owner of what is asked for, another user, an
operator, an auditor, a monitor, and nobody. An RPC without a row here fails."""

from __future__ import annotations

import asyncio
import contextlib
import json
import uuid
from collections.abc import Callable, Coroutine, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import grpc
import httpx
import pytest
import pytest_asyncio
import websockets

from support.doors import GrpcDoor, HttpDoor, Json, Refusal, refusal_of_http, refusal_of_json, refusal_of_rpc
from support.grpc_upload import UploadCall, stub_on
from support.process import ServerProcess
from support.tokens import CALLERS, Tokens
from upload.v1 import upload_pb2 as pb

if TYPE_CHECKING:
    from upload.v1.upload_pb2_grpc import UploadServiceAsyncStub as Stub

RPCS = [method.name for method in pb.DESCRIPTOR.services_by_name["UploadService"].methods]
WHO = [*CALLERS, "nobody"]
# What each may of what the owner has, in the order of WHO: + yes, 0 as if it were not there, - refused.
# Of what makes something new: + something of one's own.
TABLE = {
    "InitiateUpload": "++---",
    "InitiateBatch": "++---",
    "PutFile": "++---",
    "UploadFile": "+0---",
    "GetFile": "+0++-",
    "DownloadFile": "+0+--",
    "ListFiles": "+0++-",
    "GetBatch": "+0++-",
    "ListBatches": "+0++-",
    "WatchStatus": "+0++-",
    "GetStatistics": "+0+++",
    "GetCaller": "+++++",
    "CancelFile": "+0+--",
    "CancelBatch": "+0+--",
    "DeleteContent": "+0+--",
    "ListAuditEvents": "+0++-",
}
DOORS = {
    "UploadFile": ["grpc", "websocket", "tus"],
    "WatchStatus": ["grpc", "lines", "events"],
    "DownloadFile": ["grpc", "http", "tus"],
    "InitiateUpload": ["grpc", "http", "tus"],
    "GetFile": ["grpc", "http", "tus"],
    "CancelFile": ["grpc", "http", "tus"],
}
REFUSALS = {"!": "CREDENTIAL_MISSING", "-": "PERMISSION_DENIED", "0": "{}_NOT_FOUND", "+": "none"}
SPEC: dict[str, Any] = {"filename": "a.bin", "size_bytes": 4}
TUS = {"tus-resumable": "1.0.0"}
BYTES = {"upload-offset": "0", "content-type": "application/offset+octet-stream"}


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory, tokens: Tokens) -> Iterator[ServerProcess]:
    with ServerProcess(tmp_path_factory.mktemp("server"), tokens.options) as process:
        yield process


@dataclass
class World:
    """The doors of one server, and what the owner has in it."""

    server: ServerProcess
    tokens: Tokens
    http: httpx.AsyncClient
    channel: grpc.aio.Channel

    @property
    def stub(self) -> Stub:
        return stub_on(self.channel)

    def door(self, name: str, who: str) -> GrpcDoor | HttpDoor:
        if name == "grpc":
            return GrpcDoor(self.channel, self.tokens.metadata(who))
        return HttpDoor(self.http, self.tokens.header(who))

    async def file(self) -> str:
        file_id: str = (await self.door("grpc", "owner").call("InitiateUpload", **SPEC))["file"]["file_id"]
        return file_id

    async def batch(self) -> str:
        made = await self.door("grpc", "owner").call("InitiateBatch", files=[SPEC])
        batch_id: str = made["batch"]["batch_id"]
        return batch_id

    async def stranger(self) -> str:
        """Somebody who has never announced anything."""
        if "stranger" not in self.tokens.secrets:
            self.tokens.add("stranger", "zoe", "user")
            await self.known("stranger")
        return "stranger"

    async def known(self, who: str) -> None:
        """Wait until the server has read a new token."""
        async with asyncio.timeout(30):
            while (await self.http.get("/api/v1/me", headers=self.tokens.header(who))).status_code == 401:  # noqa: ASYNC110
                await asyncio.sleep(0.05)


@pytest_asyncio.fixture
async def world(server: ServerProcess, tokens: Tokens, http: httpx.AsyncClient, channel: grpc.aio.Channel) -> World:
    return World(server, tokens, http, channel)


# What is asked, through a door, of a thing of the owner's: the id, who asks. Returns the answer, raises Refusal.
Ask = Callable[[World, str, str, str], Coroutine[Any, Any, Json]]


def plain(method: str, field: str = "", **request: Any) -> Ask:
    async def ask(world: World, door: str, who: str, identifier: str) -> Json:
        named = {field: identifier} if field else {}
        return await world.door(door, who).call(method, **named, **request)

    return ask


async def upload(world: World, door: str, who: str, file_id: str) -> Json:
    if door == "grpc":
        return await _upload_grpc(world, who, file_id)
    if door == "tus":
        response = await world.http.patch(
            f"/api/v1/tus/{file_id}",
            content=b"abcd",
            headers={
                **TUS,
                **world.tokens.header(who),
                "upload-offset": "0",
                "content-type": "application/offset+octet-stream",
            },
        )
        return _tus(response)
    url = f"ws://127.0.0.1:{world.server.http_port}/api/v1/upload/ws/{file_id}"
    async with websockets.connect(url, additional_headers=world.tokens.header(who)) as socket:
        # It may be refused before.
        with contextlib.suppress(websockets.ConnectionClosed):
            await socket.send(b"abcd")
        while (said := json.loads(await socket.recv()))["type"] == "progress":
            pass
        if said["type"] == "error":
            raise refusal_of_json(said["error"])
        answer: Json = said["file"]
        return answer


async def _upload_grpc(world: World, who: str, file_id: str) -> Json:
    async with UploadCall(world.stub, file_id, metadata=world.tokens.metadata(who)) as call:
        await call.send(b"abcd")
        await call.say(pb.UploadFileRequest(commit=pb.UploadCommit()))
        try:
            async for heard in call.call:
                if heard.HasField("completed"):
                    return {"owner": heard.completed.owner}
        except grpc.aio.AioRpcError as error:
            raise refusal_of_rpc(error) from None
    raise AssertionError("not completed")


def _tus(response: httpx.Response) -> Json:
    if response.status_code < 300:
        return {"location": response.headers.get("location", "")}
    if not response.content:  # HEAD
        reasons = {401: "CREDENTIAL_MISSING", 403: "PERMISSION_DENIED", 404: "FILE_NOT_FOUND"}
        raise Refusal("", reasons[response.status_code], "")
    raise refusal_of_http(response)


async def watch(world: World, door: str, who: str, file_id: str) -> Json:
    """The first message of a watch of one file."""
    if door == "grpc":
        call = world.stub.WatchStatus(pb.WatchStatusRequest(file_ids=[file_id]), metadata=world.tokens.metadata(who))
        try:
            first = await anext(aiter(call))
        except grpc.aio.AioRpcError as error:
            raise refusal_of_rpc(error) from None
        finally:
            call.cancel()
        return {"file_id": first.file.file_id}
    headers = {**world.tokens.header(who), "accept": "text/event-stream" if door == "events" else "*/*"}
    async with world.http.stream("GET", f"/api/v1/watch?file_ids={file_id}", headers=headers) as response:
        if response.status_code != 200:
            await response.aread()
            raise refusal_of_http(response)
        async for line in response.aiter_lines():
            text = line.removeprefix("data: ")
            if text.startswith("{"):
                body = json.loads(text)
                return {"file_id": body.get("result", body)["file"]["file_id"]}
    raise AssertionError("no message")


async def download(world: World, door: str, who: str, _file_id: str) -> Json:
    """The bytes of a completed file of the owner's."""
    put = await world.door("grpc", "owner").call("PutFile", filename="a", size_bytes=1, data="eA==")
    if door == "grpc":
        request = pb.DownloadFileRequest(file_id=put["file_id"])
        try:
            found = [message async for message in world.stub.DownloadFile(request, metadata=world.tokens.metadata(who))]
        except grpc.aio.AioRpcError as error:
            raise refusal_of_rpc(error) from None
        data = found[-1].data
    else:
        path = f"/api/v1/tus/{put['file_id']}" if door == "tus" else f"/api/v1/files/{put['file_id']}/content"
        response = await world.http.get(path, headers=world.tokens.header(who))
        if response.status_code != 200:
            raise refusal_of_http(response)
        data = response.content
    assert data == b"x"
    return {}


async def let_go(world: World, door: str, who: str, _file_id: str) -> Json:
    """Of the bytes of a completed file of the owner's, which stay where it is refused."""
    owner = world.door("grpc", "owner")
    put = await owner.call("PutFile", filename="a", size_bytes=1, data="eA==")
    try:
        return await world.door(door, who).call("DeleteContent", file_id=put["file_id"])
    except Refusal:
        assert await owner.call("GetFile", file_id=put["file_id"]) == put
        raise


async def by_tus(world: World, method: str, who: str, file_id: str) -> Json:
    headers = {**TUS, **world.tokens.header(who)}
    if method == "InitiateUpload":
        answer = _tus(await world.http.post("/api/v1/tus", headers={**headers, "upload-length": "4"}))
        made = answer["location"].rpartition("/")[2]
        return {"file": await world.door("http", who).call("GetFile", file_id=made)}
    verb = {"GetFile": "HEAD", "CancelFile": "DELETE"}[method]
    return _tus(await world.http.request(verb, f"/api/v1/tus/{file_id}", headers=headers))


@dataclass(frozen=True)
class Row:
    """How one RPC is asked for a thing of the owner's, and whether its answer has that thing."""

    ask: Ask
    of: str = "file"
    has: Callable[[Json, str], bool] = lambda _answer, _id: True


ROWS = {
    "InitiateUpload": Row(plain("InitiateUpload", **SPEC)),
    "InitiateBatch": Row(plain("InitiateBatch", files=[SPEC])),
    "PutFile": Row(plain("PutFile", filename="a", size_bytes=1, data="eA==")),
    "UploadFile": Row(upload),
    "GetFile": Row(plain("GetFile", "file_id")),
    "DownloadFile": Row(download),
    "ListFiles": Row(
        plain("ListFiles", page_size=1000, order_by="created_at desc"),
        has=lambda answer, file_id: file_id in {file["file_id"] for file in answer["files"]},
    ),
    "GetBatch": Row(plain("GetBatch", "batch_id"), "batch"),
    "ListBatches": Row(
        plain("ListBatches", page_size=1000, order_by="created_at desc"),
        "batch",
        lambda answer, batch_id: batch_id in {batch["batch_id"] for batch in answer["batches"]},
    ),
    "WatchStatus": Row(watch),
    "GetStatistics": Row(
        plain("GetStatistics"),
        # Somebody who has never announced anything asks as `other`.
        has=lambda answer, _id: sum(int(count["files"]) for count in answer["files"]) > 0,
    ),
    "GetCaller": Row(plain("GetCaller")),
    "CancelFile": Row(plain("CancelFile", "file_id")),
    "CancelBatch": Row(plain("CancelBatch", "batch_id"), "batch"),
    "DeleteContent": Row(let_go),
    "ListAuditEvents": Row(plain("ListAuditEvents", "file_id"), has=lambda answer, _id: bool(answer["events"])),
}


def test_every_rpc_has_its_row() -> None:
    assert set(RPCS) == set(TABLE) == set(ROWS)
    assert all(len(row) == len(CALLERS) for row in TABLE.values())


@pytest.mark.parametrize(("method", "door"), [(rpc, door) for rpc in RPCS for door in DOORS.get(rpc, ["grpc", "http"])])
async def test_each_caller_gets_what_the_table_says(world: World, method: str, door: str) -> None:
    for who, expected in zip(WHO, [*TABLE[method], "!"], strict=True):
        await _check_cell(world, method, door, who, expected)


async def _check_cell(world: World, method: str, door: str, who: str, expected: str) -> None:
    row, cell = ROWS[method], (method, door, who)
    thing = await (world.batch() if row.of == "batch" else world.file())
    asker = await world.stranger() if (method, who) == ("GetStatistics", "other") else who
    if door == "tus" and method not in {"UploadFile", "DownloadFile"}:
        asked = by_tus(world, method, asker, thing)
    else:
        asked = row.ask(world, door, asker, thing)
    try:
        answer = await asked
    except Refusal as refusal:
        assert refusal.reason == REFUSALS[expected].format(row.of.upper()), cell  # noqa: PT017 - or it answers
        await _check_untouched(world, row, thing)
        return
    if expected == "+":
        assert door == "tus" or row.has(answer, thing), cell
        made = answer.get("file") or answer.get("batch") or answer
        if method in {"InitiateUpload", "InitiateBatch", "PutFile"}:
            assert made["owner"] == CALLERS[who][0], cell
    else:
        # A list or a sum has nothing of it.
        assert expected == "0", cell
        assert not row.has(answer, thing), cell


async def _check_untouched(world: World, row: Row, thing: str) -> None:
    owner = world.door("grpc", "owner")
    if row.of == "batch":
        found = await owner.call("GetBatch", batch_id=thing)
        assert (found["status"], found["revision"]) == ("BATCH_STATUS_PENDING", "1")
    else:
        found = await owner.call("GetFile", file_id=thing)
        assert (found["status"], found["revision"]) == ("UPLOAD_STATUS_PENDING", "1")


PATHS = [
    ("GET", "/api/v1/files/{}"),
    ("POST", "/api/v1/upload/cancel/{}"),
    ("GET", "/api/v1/watch?file_ids={}"),
    ("HEAD", "/api/v1/tus/{}"),
    ("PATCH", "/api/v1/tus/{}"),
    ("DELETE", "/api/v1/tus/{}"),
    ("DELETE", "/api/v1/files/{}/content"),
    ("GET", "/api/v1/audit/events?file_id={}"),
]


@pytest.mark.parametrize(("verb", "path"), PATHS)
async def test_foreign_and_unknown_are_the_same_bytes(world: World, verb: str, path: str) -> None:
    headers = {
        **TUS,
        **world.tokens.header("other"),
        "upload-offset": "0",
        "content-type": "application/offset+octet-stream" if verb == "PATCH" else "application/json",
    }
    answers = []
    for file_id in (await world.file(), str(uuid.uuid4())):
        response = await world.http.request(verb, path.format(file_id), headers=headers)
        kept = {name: value for name, value in response.headers.items() if name != "date"}
        answers.append((response.status_code, response.content.replace(file_id.encode(), b"ID"), kept))
    assert answers[0] == answers[1]
    assert answers[0][0] == (200 if "audit" in path else 404)


@pytest.mark.parametrize("method", ["GetFile", "CancelFile", "DeleteContent"])
async def test_foreign_and_unknown_are_the_same_bytes_over_grpc(world: World, method: str) -> None:
    answers = []
    for file_id in (await world.file(), str(uuid.uuid4())):
        request = getattr(pb, f"{method}Request")(file_id=file_id)
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await getattr(world.stub, method)(request, metadata=world.tokens.metadata("other"))
        details = dict(caught.value.trailing_metadata() or ())["grpc-status-details-bin"]
        assert isinstance(details, bytes)
        answers.append((caught.value.code(), caught.value.details(), details.replace(file_id.encode(), b"ID")))
    assert answers[0] == answers[1]


async def test_a_watch_of_all_is_of_all_that_its_caller_sees(world: World) -> None:
    """Live, and resumed by a token that somebody else had."""
    mine = await world.file()
    calls = {
        who: world.stub.WatchStatus(pb.WatchStatusRequest(all=True), metadata=world.tokens.metadata(who))
        for who in ("owner", "other", "auditor")
    }
    tokens: dict[str, str] = {}
    for who, call in calls.items():
        async for event in call:
            tokens[who] = event.resume_token
            if event.HasField("bookmark"):
                break
    await world.door("grpc", "owner").call("CancelFile", file_id=mine)
    theirs = await world.door("grpc", "other").call("InitiateUpload", **SPEC)
    last = theirs["file"]["file_id"]
    seen = {"owner": {mine}, "other": {last}, "auditor": {mine, last}}
    for who, expected in seen.items():
        found: set[str] = set()
        async with asyncio.timeout(30):
            while found != expected:
                found.add((await anext(aiter(calls[who]))).file.file_id)
        calls[who].cancel()
    stolen = pb.WatchStatusRequest(all=True, resume_token=tokens["owner"])
    resumed = world.stub.WatchStatus(stolen, metadata=world.tokens.metadata("other"))
    async for event in resumed:
        assert event.file.file_id != mine
        if event.HasField("bookmark"):
            break
    resumed.cancel()


async def test_a_watch_ends_when_its_token_expires_and_goes_on_by_its_resume_token(world: World) -> None:
    world.tokens.add("next", "ada", "user")
    await world.known("next")
    file_id = await world.file()
    # Long enough to open three watches in, on a machine that is busy otherwise.
    world.tokens.add("brief", "ada", "user", 15)
    await world.known("brief")
    request = pb.WatchStatusRequest(file_ids=[file_id])
    url, headers = f"/api/v1/watch?file_ids={file_id}", world.tokens.header("brief")

    async def lines() -> str:
        async with world.http.stream("GET", url, headers=headers) as response:
            return [line async for line in response.aiter_lines()][-1]

    async def events() -> str:
        accept = {**headers, "accept": "text/event-stream"}
        async with world.http.stream("GET", url, headers=accept) as response:
            return "".join([line async for line in response.aiter_lines()])

    reading = asyncio.gather(lines(), events())
    watching = world.stub.WatchStatus(request, metadata=world.tokens.metadata("brief"))
    token = (await anext(aiter(watching))).resume_token
    async with asyncio.timeout(60):
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await _to_end(watching)
        last_line, all_events = await reading
    assert refusal_of_rpc(caught.value).reason == "CREDENTIAL_EXPIRED"
    assert refusal_of_json(json.loads(last_line)["error"]).reason == "CREDENTIAL_EXPIRED"
    assert "event: end" in all_events
    assert "CREDENTIAL_EXPIRED" in all_events
    await world.door("grpc", "owner").call("CancelFile", file_id=file_id)
    request.resume_token = token
    resumed = world.stub.WatchStatus(request, metadata=world.tokens.metadata("next"))
    assert (await anext(aiter(resumed))).file.status == pb.UPLOAD_STATUS_CANCELLED
    resumed.cancel()


async def test_a_token_taken_away_ends_its_watches_and_sockets(world: World) -> None:
    world.tokens.add("leaver", "ada", "user")
    await world.known("leaver")
    metadata, header = world.tokens.metadata("leaver"), world.tokens.header("leaver")
    watching = world.stub.WatchStatus(pb.WatchStatusRequest(all=True), metadata=metadata)
    staying = world.stub.WatchStatus(pb.WatchStatusRequest(all=True), metadata=world.tokens.metadata("owner"))
    for call in (watching, staying):
        async for event in call:
            if event.HasField("bookmark"):
                break
    url = f"ws://127.0.0.1:{world.server.http_port}/api/v1/upload/ws/{await world.file()}"
    async with asyncio.timeout(30), websockets.connect(url, additional_headers=header) as socket:
        await socket.send(b"ab")
        await socket.recv()
        world.tokens.revoke("leaver")
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await _to_end(watching)
        assert refusal_of_rpc(caught.value).reason == "CREDENTIAL_INVALID"
        with pytest.raises(websockets.ConnectionClosedError):
            await _to_end(socket)
        assert socket.close_code == 4401
    assert not staying.done()
    staying.cancel()


async def _to_end(call: Any) -> None:
    async for _ in call:
        pass
