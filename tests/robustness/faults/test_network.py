"""Networks that are late, slow, cut, half-open or silent: the truth can be learned, and nothing is left behind."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import random
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager

import grpc
import httpx
import pytest
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import WebSocketException

from robustness.faults.vitals import come_to_rest, vitals
from robustness.prove.clients import content_of
from support.doors import Door, GrpcDoor, HttpDoor, Json, Refusal
from support.grpc_upload import CHUNK, UploadCall, stub_on, upload
from support.process import ServerProcess, StartServer
from support.proxy import FaultProxy, fault_proxy
from upload.v1 import upload_pb2 as pb

pytestmark = pytest.mark.timeout(120)

MIB = 1024 * 1024
SIZE = 3 * MIB


class Ways:
    """A server, and the same ways in to it: straight, and through proxies that can be made bad."""

    def __init__(self, server: ServerProcess, to_grpc: FaultProxy, to_http: FaultProxy) -> None:
        self.server = server
        self.to_grpc = to_grpc
        self.to_http = to_http
        self._close = contextlib.AsyncExitStack()
        self.door: Door
        self.far: dict[str, Door] = {}

    async def open(self) -> None:
        straight = await self._channel(self.server.target)
        self.stub = stub_on(straight)
        self.door = GrpcDoor(straight)
        far = await self._channel(self.to_grpc.target)
        self.far_stub = stub_on(far)
        client = await self._close.enter_async_context(httpx.AsyncClient(base_url=self.to_http.url, timeout=20))
        self.far = {"grpc": GrpcDoor(far), "http": HttpDoor(client)}

    async def _channel(self, target: str) -> grpc.aio.Channel:
        options = [
            ("grpc.use_local_subchannel_pool", 1),
            ("grpc.max_reconnect_backoff_ms", 200),
            ("grpc.enable_retries", 0),
        ]
        return await self._close.enter_async_context(grpc.aio.insecure_channel(target, options=options))

    async def close(self) -> None:
        await self._close.aclose()

    async def initiate(self, size: int = SIZE) -> str:
        made = await self.door.call("InitiateUpload", filename="a.bin", size_bytes=size)
        return str(made["file"]["file_id"])

    async def file(self, file_id: str) -> Json:
        return await self.door.call("GetFile", file_id=file_id)

    def socket(self, file_id: str, query: str = "") -> connect:
        url = f"{self.to_http.url.replace('http', 'ws', 1)}/api/v1/upload/ws/{file_id}{query}"
        return connect(url, compression=None, proxy=None, max_size=None)

    def heal(self) -> None:
        self.to_grpc.heal()
        self.to_http.heal()


@pytest.fixture
async def ways(start_server: StartServer) -> AsyncIterator[Ways]:
    server = start_server("--websocket-grace", "0.2", "--idle-timeout", "2", "--bookmark-interval", "0.1")
    async with around(server) as found:
        yield found


@asynccontextmanager
async def around(server: ServerProcess) -> AsyncIterator[Ways]:
    async with fault_proxy(server.grpc_port) as to_grpc, fault_proxy(server.http_port) as to_http:
        ways = Ways(server, to_grpc, to_http)
        await ways.open()
        try:
            yield ways
        finally:
            await ways.close()


# Senders that do not mind what becomes of them ---------------------------------------------------------------------


async def send_by_grpc(ways: Ways, file_id: str, size: int, offset: int = 0) -> None:
    data = content_of(file_id, size)
    with contextlib.suppress(Refusal, AssertionError, grpc.aio.AioRpcError, TimeoutError):
        await upload(ways.far_stub, file_id, data[offset:], offset)


async def send_by_websocket(ways: Ways, file_id: str, size: int, query: str = "?on_disconnect=keep") -> None:
    data = content_of(file_id, size)
    with contextlib.suppress(WebSocketException, OSError, TimeoutError):
        async with ways.socket(file_id, query) as socket:
            for start in range(0, size, CHUNK):
                await socket.send(data[start : start + CHUNK])
            await _read_all(socket)


async def _read_all(socket: ClientConnection) -> None:
    async for _ in socket:
        pass


Sender = Callable[[Ways, str, int], Coroutine[None, None, None]]
SENDERS: dict[str, Sender] = {"grpc": send_by_grpc, "websocket": send_by_websocket}


async def resume(ways: Ways, file_id: str) -> Json:
    """Send the rest. The cut stream may still be opening: it then takes the file over once more."""
    for _ in range(5):
        file = await ways.file(file_id)
        if file["status"] == "UPLOAD_STATUS_COMPLETED":
            return file
        offset = int(file["bytes_received"])
        try:
            await upload(ways.stub, file_id, content_of(file_id, int(file["size_bytes"]))[offset:], offset)
        except Refusal as refusal:
            if refusal.reason not in {"WRITER_REPLACED", "OFFSET_MISMATCH", "FILE_NOT_WRITABLE"}:
                raise
        except AssertionError as error:
            # The stream ended while grpcio wrote on it: it does not say with what.
            if "no details" not in str(error):
                raise
    raise AssertionError(f"it could not be resumed: {file}")


async def closed(ways: Ways) -> None:
    """Wait until the server holds no stream any more."""
    async with asyncio.timeout(20):
        while (await vitals(ways.server)).uploads:  # noqa: ASYNC110 - another process
            await asyncio.sleep(0.05)


# Late and slow -----------------------------------------------------------------------------------------------------


async def test_an_upload_over_a_late_and_slow_line_is_whole(ways: Ways) -> None:
    ways.to_grpc.up.delay = ways.to_grpc.down.delay = 0.02
    ways.to_grpc.up.throttle = 4 * MIB
    file_id = await ways.initiate(MIB)

    await send_by_grpc(ways, file_id, MIB)

    file = await ways.file(file_id)
    assert file["status"] == "UPLOAD_STATUS_COMPLETED"
    assert file["sha256"] == hashlib.sha256(content_of(file_id, MIB)).hexdigest()


async def test_a_cancel_reaches_a_sender_whose_line_is_slow(ways: Ways) -> None:
    ways.to_grpc.up.throttle = 2 * MIB
    file_id = await ways.initiate(64 * MIB)
    async with UploadCall(ways.far_stub, file_id) as call:

        async def send() -> None:
            while True:
                await call.send(bytes(CHUNK))

        sending = asyncio.create_task(send())
        await call.hear_durable(CHUNK)
        await ways.door.call("CancelFile", file_id=file_id)
        stopped = (await call.hear_until("stopped")).stopped
        sending.cancel()

    assert stopped.cancelled_by == "user"
    await closed(ways)


# Cut after k bytes ---------------------------------------------------------------------------------------------------


# Where an upload can be cut: within the greeting, at the header, in the bytes, near the commit and in the answers.
CUTS = [("up", k) for k in (1, 60, 400, 100_000, MIB, SIZE - 10, SIZE + 400)] + [("down", k) for k in (1, 60, 150, 400)]


@pytest.mark.parametrize("politely", [False, True], ids=["reset", "closed"])
@pytest.mark.parametrize("sender", SENDERS)
async def test_an_upload_cut_anywhere_can_be_resumed_or_is_whole(ways: Ways, sender: str, politely: bool) -> None:
    proxy = ways.to_grpc if sender == "grpc" else ways.to_http
    for way, k in CUTS:
        direction = getattr(proxy, way)
        direction.cut_after, direction.politely = k, politely
        file_id = await ways.initiate()
        async with asyncio.timeout(30):
            await SENDERS[sender](ways, file_id, SIZE)
        ways.heal()
        proxy.reset_all()
        await closed(ways)

        file = await ways.file(file_id)
        content = content_of(file_id, SIZE)
        assert file["status"] in {f"UPLOAD_STATUS_{word}" for word in ("PENDING", "UPLOADING", "COMPLETED")}, (way, k)
        if file["status"] != "UPLOAD_STATUS_COMPLETED":
            assert way == "down" or k < SIZE + 1000
            file = await resume(ways, file_id)
        assert file["sha256"] == hashlib.sha256(content).hexdigest(), (way, k)


async def asked_until_answered(door: Door, **request: str) -> Json:
    """Ask for a cancel again and again; the first tries may still meet the connection that was reset."""
    while True:
        with contextlib.suppress(AssertionError, httpx.TransportError):
            return await door.call("CancelFile", **request)


@pytest.mark.parametrize("door", ["grpc", "http"])
async def test_an_answer_lost_after_the_commit_is_told_again(ways: Ways, door: str) -> None:
    proxy = ways.to_grpc if door == "grpc" else ways.to_http
    file_id = await ways.initiate()
    # A connection that is made already: only the answer is still to come.
    await ways.far[door].call("GetFile", file_id=file_id)
    proxy.down.swallow = True
    asking = asyncio.create_task(ways.far[door].call("CancelFile", file_id=file_id, reason="why", request_id="r"))
    async with asyncio.timeout(20):
        while (await ways.file(file_id))["status"] != "UPLOAD_STATUS_CANCELLED":  # noqa: ASYNC110 - as above
            await asyncio.sleep(0.01)
    proxy.reset_all()
    with pytest.raises((Refusal, AssertionError, httpx.TransportError)):
        await asking
    ways.heal()

    async with asyncio.timeout(20):
        again = await asked_until_answered(ways.far[door], file_id=file_id, reason="why", request_id="r")
    events = (await ways.door.call("ListAuditEvents", file_id=file_id))["events"]

    assert again["cancelled_at"] == (await ways.file(file_id))["cancelled_at"]
    assert [event["to_status"] for event in events] == ["pending", "cancelled"]
    assert events[-1]["request_id"] == "r"


async def test_a_watch_cut_anywhere_resumes_without_a_hole(ways: Ways) -> None:
    ids = [await ways.initiate(1) for _ in range(30)]
    choose = random.Random("watch cuts")
    heard: list[str] = []
    token = ""
    pending = list(ids)
    while True:
        ways.heal()
        proxy = ways.to_http
        proxy.down.cut_after = choose.randint(200, 2500)
        if pending:
            await ways.door.call("CancelFile", file_id=pending.pop())
        else:
            ways.heal()
        query = httpx.QueryParams([("all", "true"), *([("resume_token", token)] if token else [])])
        async with httpx.AsyncClient(base_url=proxy.url) as client:
            with contextlib.suppress(httpx.TransportError):
                async with client.stream("GET", "/api/v1/watch", params=query) as response:
                    async for line in response.aiter_lines():
                        if not line.endswith("}"):
                            break
                        message = httpx.Response(200, content=line).json()["result"]
                        token = message["resume_token"]
                        if message.get("file", {}).get("status") == "UPLOAD_STATUS_CANCELLED":
                            heard.append(message["file"]["file_id"])
                        if "bookmark" in message and not pending:
                            break
        if len(heard) >= len(ids):
            break

    assert sorted(heard) == sorted(ids)


# Half-open and silent ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("sender", SENDERS)
async def test_a_sender_that_falls_silent_is_let_go_and_its_file_can_be_resumed(ways: Ways, sender: str) -> None:
    proxy = ways.to_grpc if sender == "grpc" else ways.to_http
    file_id = await ways.initiate()
    sending = asyncio.create_task(SENDERS[sender](ways, file_id, SIZE))
    # Slow enough not to be done before anybody has looked.
    proxy.up.throttle = MIB // 4
    async with asyncio.timeout(20):
        while not int((await ways.file(file_id))["bytes_received"]):  # noqa: ASYNC110 - as above
            await asyncio.sleep(0.02)

    # Nothing more reaches the server, no end either; the client thinks that all is well.
    proxy.up.swallow = True
    await closed(ways)

    file = await ways.file(file_id)
    assert file["status"] == "UPLOAD_STATUS_UPLOADING"
    sending.cancel()
    await asyncio.gather(sending, return_exceptions=True)
    assert (await resume(ways, file_id))["sha256"] == hashlib.sha256(content_of(file_id, SIZE)).hexdigest()


async def test_a_page_whose_socket_breaks_is_cancelled_for_after_the_grace(ways: Ways) -> None:
    file_id = await ways.initiate()
    async with ways.socket(file_id) as socket:
        await socket.send(bytes(CHUNK))
        await socket.recv()
        for link in list(ways.to_http.links):
            link.lose_server()
        async with asyncio.timeout(60):
            while (await ways.file(file_id))["status"] != "UPLOAD_STATUS_CANCELLED":  # noqa: ASYNC110 - as above
                await asyncio.sleep(0.02)

    assert (await ways.file(file_id))["cancelled_by"] == "websocket_close"


# Nothing is left behind ----------------------------------------------------------------------------------------------


async def _break_one(ways: Ways, choose: random.Random) -> None:
    """Use a connection of one's own, which breaks somewhere."""
    file_id = await ways.initiate(MIB)
    kind = choose.choice(["grpc", "websocket", "watch", "ndjson"])
    moment = choose.random() * 0.2

    async def use() -> None:
        if kind == "websocket":
            await send_by_websocket(ways, file_id, MIB, "")
        elif kind == "ndjson":
            url = f"{ways.to_http.url}/api/v1/watch?all=true"
            async with httpx.AsyncClient() as client, client.stream("GET", url) as response:
                async for _ in response.aiter_lines():
                    pass
        else:
            options = [("grpc.use_local_subchannel_pool", 1)]
            async with grpc.aio.insecure_channel(ways.to_grpc.target, options=options) as channel:
                if kind == "grpc":
                    await upload(stub_on(channel), file_id, content_of(file_id, MIB))
                else:
                    async for _ in ways_watch(channel, file_id):
                        pass

    task = asyncio.create_task(use())
    await asyncio.wait([task], timeout=moment)
    for link in list(ways.to_grpc.links | ways.to_http.links):
        choose.choice([link.reset, link.lose_client, link.lose_server])()
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


async def ways_watch(channel: grpc.aio.Channel, file_id: str) -> AsyncIterator[object]:
    call = stub_on(channel).WatchStatus(pb.WatchStatusRequest(file_ids=[file_id]))
    try:
        async for message in call:
            yield message
    finally:
        call.cancel()


async def test_broken_connections_leave_nothing_behind(start_server: StartServer) -> None:
    server = start_server("--websocket-grace", "0.2", "--idle-timeout", "2")
    choose = random.Random("broken connections")
    async with around(server) as warm:
        await asyncio.gather(*(_break_one(warm, choose) for _ in range(8)))
    baseline = await vitals(server)
    async with around(server) as ways:
        for _ in range(12):
            await asyncio.gather(*(_break_one(ways, choose) for _ in range(8)))

    rest = await come_to_rest(server, baseline)

    print(f"{baseline} at first, {rest} after 96 broken connections")
    # Pools of threads fill up as they are used, to a bound.
    assert rest.threads <= baseline.threads + 16
