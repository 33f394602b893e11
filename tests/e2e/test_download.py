"""The bytes of completed files, back over HTTP and gRPC: whole and in parts, under conditions, to those who leave."""

from __future__ import annotations

import asyncio
import hashlib
import os
import re
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import grpc
import httpx
import psutil
import pytest
import pytest_asyncio

from support import object_store
from support.doors import refusal_of_json, refusal_of_rpc
from support.grpc_upload import stub_on, upload
from support.process import ServerProcess, StartServer
from upload.v1 import upload_pb2 as pb

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from upload.v1.upload_pb2_grpc import UploadServiceAsyncStub as Stub

MIB = 1024 * 1024
# More than a thread sends before it looks to others, and no multiple of anything.
DATA = os.urandom(9 * MIB + 17)
DIGEST = hashlib.sha256(DATA).hexdigest()


@pytest.fixture(scope="module", params=["disk", *object_store.STORES])
def server(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    options: tuple[str, ...] = ()
    if request.param != "disk":
        options = ("--storage-url", object_store.STORES[request.param]().new_bucket().url())
    folder = tmp_path_factory.mktemp("data")
    with ServerProcess(folder, options, environment=object_store.environment()) as started:
        yield started


@pytest_asyncio.fixture
async def stub(server: ServerProcess) -> AsyncIterator[Stub]:
    async with grpc.aio.insecure_channel(server.target) as channel:
        yield stub_on(channel)


@pytest_asyncio.fixture
async def http(server: ServerProcess) -> AsyncIterator[httpx.AsyncClient]:
    async with httpx.AsyncClient(base_url=server.url, timeout=30) as client:
        yield client


async def completed(stub: Stub, data: bytes = DATA, filename: str = "a.bin", content_type: str = "") -> str:
    request = pb.InitiateUploadRequest(filename=filename, size_bytes=len(data), content_type=content_type)
    file_id = (await stub.InitiateUpload(request)).file.file_id
    await upload(stub, file_id, data)
    return file_id


async def completed_once(server: ServerProcess, stub: Stub) -> str:
    """Return a file of the bytes ``DATA``, one for all tests on a server."""
    if server.target not in _COMPLETED:
        _COMPLETED[server.target] = await completed(stub)
    return _COMPLETED[server.target]


_COMPLETED: dict[str, str] = {}


def content(file_id: str) -> str:
    return f"/api/v1/files/{file_id}/content"


async def download(stub: Stub, **fields: object) -> tuple[pb.File, bytes]:
    call = stub.DownloadFile(pb.DownloadFileRequest(**fields))  # type: ignore[arg-type]
    first, *others = [message async for message in call]
    assert all(0 < len(message.data) <= 256 * 1024 for message in others)
    return first.file, b"".join(message.data for message in others)


async def test_a_completed_file_comes_back_as_it_was_sent(stub: Stub, http: httpx.AsyncClient) -> None:
    file_id = await completed(stub, content_type="text/html")

    for url in (content(file_id), f"/api/v1/tus/{file_id}"):
        answer = await http.get(url)
        assert answer.status_code == 200
        assert answer.content == DATA
        assert answer.headers["etag"] == f'"{DIGEST}"'
        assert answer.headers["content-length"] == str(len(DATA))
        # Bytes of a stranger: no browser shows them as a page of ours, nor lets another page embed them.
        assert answer.headers["content-type"] == "text/html"
        assert answer.headers["content-disposition"].startswith("attachment;")
        assert answer.headers["content-security-policy"] == "sandbox; default-src 'none'"
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert answer.headers["cache-control"] == "private, no-cache"

    # A range is one of GET alone.
    head = await http.head(content(file_id), headers={"range": "bytes=0-1"})
    assert (head.status_code, head.content) == (200, b"")
    assert {**head.headers, "date": ""} == {**answer.headers, "date": ""}

    file, data = await download(stub, file_id=file_id)
    assert data == DATA
    assert file == await stub.GetFile(pb.GetFileRequest(file_id=file_id))


@pytest.mark.parametrize("size", [0, 1, 64 * 1024 - 1, 64 * 1024])
async def test_files_of_any_size_come_back(stub: Stub, http: httpx.AsyncClient, size: int) -> None:
    data = os.urandom(size)
    file_id = await completed(stub, data)
    answer = await http.get(content(file_id))
    assert (answer.status_code, answer.content, answer.headers["content-length"]) == (200, data, str(size))
    assert (await download(stub, file_id=file_id))[1] == data


SIZE = len(DATA)


@pytest.mark.parametrize(
    ("asked", "part"),
    [
        ("bytes=0-9", range(10)),
        ("bytes=5-5", range(5, 6)),
        ("BYTES=9-", range(9, SIZE)),
        ("bytes=-7", range(SIZE - 7, SIZE)),
        (f"bytes=-{SIZE + 1}", range(SIZE)),
        (f"bytes=100-{2**63 - 1}", range(100, SIZE)),
        (f"bytes={8 * MIB - 1}-{8 * MIB}", range(8 * MIB - 1, 8 * MIB + 1)),
        (f"bytes={SIZE - 1}-", range(SIZE - 1, SIZE)),
    ],
)
async def test_a_part_is_answered_with_that_part(
    server: ServerProcess, stub: Stub, http: httpx.AsyncClient, asked: str, part: range
) -> None:
    answer = await http.get(content(await completed_once(server, stub)), headers={"range": asked})
    assert answer.status_code == 206
    assert answer.headers["content-range"] == f"bytes {part.start}-{part.stop - 1}/{SIZE}"
    assert answer.content == DATA[part.start : part.stop]


@pytest.mark.parametrize(
    "asked", ["bytes=5-2", "bytes=0-1,4-5", "items=0-1", "bytes=", "bytes=-", "bytes=a-b", f"bytes={'9' * 40}-"]
)
async def test_what_is_no_single_range_of_bytes_is_answered_with_all(
    stub: Stub, http: httpx.AsyncClient, asked: str
) -> None:
    answer = await http.get(content(await completed(stub, b"all")), headers={"range": asked})
    assert (answer.status_code, answer.content) == (200, b"all")


@pytest.mark.parametrize("asked", ["bytes=3-", "bytes=99-100", "bytes=-0"])
async def test_a_part_beyond_the_end_is_refused_with_the_size(stub: Stub, http: httpx.AsyncClient, asked: str) -> None:
    answer = await http.get(content(await completed(stub, b"all")), headers={"range": asked})
    assert (answer.status_code, answer.headers["content-range"]) == (416, "bytes */3")
    refusal = refusal_of_json(answer.json())
    assert (refusal.reason, refusal.metadata["limit"], [*refusal.violations]) == ("INVALID_FIELD", "3", ["Range"])


async def test_conditions_are_judged_by_the_digest(stub: Stub, http: httpx.AsyncClient) -> None:
    data = b"conditional"
    url, etag = content(await completed(stub, data)), f'"{hashlib.sha256(data).hexdigest()}"'

    async def get(**headers: str) -> tuple[int, bytes]:
        answer = await http.get(url, headers={name.replace("_", "-"): value for name, value in headers.items()})
        return answer.status_code, answer.content

    assert await get(if_none_match=f'"x", W/{etag}') == (304, b"")
    assert await get(if_none_match="*") == (304, b"")
    assert await get(if_none_match='"x"') == (200, data)
    assert await get(if_match=etag) == (200, data)
    assert (await get(if_match=f"W/{etag}"))[0] == 412
    status, body = await get(if_match='"x"')
    assert (status, b"PRECONDITION_FAILED" in body) == (412, True)
    assert await get(range="bytes=0-1", if_range=etag) == (206, data[:2])
    # What was stored in part is of other bytes: all of these.
    assert await get(range="bytes=0-1", if_range='"x"') == (200, data)


@pytest.mark.parametrize(
    ("filename", "plain", "full"),
    [
        ("dir/plain name.pdf", "plain name.pdf", "plain%20name.pdf"),
        ('na\u00efve "x" 100%.txt', "na_ve _x_ 100_.txt", "na%C3%AFve%20%22x%22%20100%25.txt"),
        ("\u65e5\u672c;.txt", "__;.txt", "%E6%97%A5%E6%9C%AC%3B.txt"),
    ],
)
async def test_the_file_is_named_by_its_last_segment(
    stub: Stub, http: httpx.AsyncClient, filename: str, plain: str, full: str
) -> None:
    answer = await http.head(content(await completed(stub, b"x", filename)))
    expected = f"attachment; filename=\"{plain}\"; filename*=UTF-8''{full}"
    assert answer.headers["content-disposition"] == expected


async def test_only_completed_files_have_bytes_to_read(stub: Stub, http: httpx.AsyncClient) -> None:
    made = await stub.InitiateUpload(pb.InitiateUploadRequest(filename="a", size_bytes=1))
    for file_id, status, reason in (
        (made.file.file_id, 400, "FILE_NOT_COMPLETED"),
        ("unknown", 404, "FILE_NOT_FOUND"),
    ):
        answer = await http.get(content(file_id))
        assert (answer.status_code, refusal_of_json(answer.json()).reason) == (status, reason)
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await download(stub, file_id=file_id)
        assert refusal_of_rpc(refused.value).reason == reason
    assert refusal_of_json((await http.get(content(made.file.file_id))).json()).metadata["status"] == "pending"

    answer = await http.post(content(made.file.file_id))
    assert (answer.status_code, answer.headers["allow"]) == (405, "DELETE, GET, HEAD, OPTIONS")


async def test_a_part_over_grpc_is_judged_by_the_size(server: ServerProcess, stub: Stub) -> None:
    file_id = await completed_once(server, stub)
    assert (await download(stub, file_id=file_id, offset=5, length=10))[1] == DATA[5:15]
    assert (await download(stub, file_id=file_id, offset=SIZE - 3, length=10))[1] == DATA[-3:]
    assert (await download(stub, file_id=file_id, offset=SIZE))[1] == b""
    for fields in ({"offset": SIZE + 1}, {"offset": -1}, {"length": -1}):
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await download(stub, file_id=file_id, **fields)
        refusal = refusal_of_rpc(refused.value)
        assert (refusal.reason, [*refusal.violations]) == ("INVALID_FIELD", [*fields])


async def test_a_connection_goes_on_behind_a_download(server: ServerProcess, stub: Stub) -> None:
    file_id = await completed_once(server, stub)
    request = f"GET {content(file_id)} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode()
    reader, writer = await asyncio.open_connection("127.0.0.1", int(server.url.rpartition(":")[2]))
    # Two at once: the second waits for the end of the first.
    writer.write(request + request)
    for _ in range(2):
        head = await reader.readuntil(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 200")
        assert await reader.readexactly(SIZE) == DATA
    writer.write(request.replace(b"HTTP/1.1", b"HTTP/1.0"))
    assert (await reader.read()).partition(b"\r\n\r\n")[2] == DATA
    writer.close()


async def begun(http: httpx.AsyncClient, file_id: str) -> httpx.Response:
    """Return the answer whose head has come, and whose bytes nobody has asked for."""
    return await http.send(http.build_request("GET", content(file_id)), stream=True)


async def take(answer: httpx.Response, into: bytearray) -> None:
    """Add the bytes of an answer, as far as they come."""
    async for some in answer.aiter_raw():
        into += some


def open_to_callers(server: ServerProcess) -> int:
    """Files, and connections of callers; those to an object store stay for the next request."""
    process = psutil.Process(server.pid)
    ports = {int(address.rpartition(":")[2]) for address in (server.url, server.target)}
    callers = [one for one in process.net_connections() if one.laddr.port in ports]
    return len(process.open_files()) + len(callers)


async def test_nothing_is_left_of_those_who_leave_in_the_midst(server: ServerProcess, stub: Stub) -> None:
    file_id = await completed(stub, DATA * 4)
    address = ("127.0.0.1", int(server.url.rpartition(":")[2]))
    await download(stub, file_id=file_id, length=1)
    before = open_to_callers(server)
    for _ in range(8):
        with socket.create_connection(address) as sock:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            sock.sendall(f"GET {content(file_id)} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
            assert sock.recv(12) == b"HTTP/1.1 200"
        call = stub.DownloadFile(pb.DownloadFileRequest(file_id=file_id))
        await call.read()
        call.cancel()
    async with asyncio.timeout(20):
        while open_to_callers(server) > before:  # noqa: ASYNC110 - another process
            await asyncio.sleep(0.02)
    assert [line for line in server.log if line["level"] == "error"] == []


async def test_a_peer_that_takes_nothing_holds_nobody_up(server: ServerProcess, stub: Stub) -> None:
    file_id = await completed(stub, DATA * 4)
    url = f"{server.url}{content(file_id)}"
    address = ("127.0.0.1", int(server.url.rpartition(":")[2]))
    before = resident(server)
    # More than there are threads.
    socks = [socket.create_connection(address) for _ in range(12)]
    calls = [stub.DownloadFile(pb.DownloadFileRequest(file_id=file_id)) for _ in range(12)]
    try:
        for sock in socks:
            sock.sendall(f"GET {content(file_id)} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
        async with httpx.AsyncClient(timeout=30) as client:
            assert (await client.get(url)).content == DATA * 4
            assert re.search(r"^upload_", (await client.get(f"{server.url}/metrics")).text, re.MULTILINE)
        # A few blocks of each are in memory, and not the file.
        await asyncio.gather(*(call.read() for call in calls))
        assert resident(server) - before < 24 * 6 * MIB
        # One that has waited takes the rest.
        socks[0].settimeout(20)
        got = await asyncio.to_thread(_read_all, socks[0], 4 * SIZE)
        assert hashlib.sha256(got).digest() == hashlib.sha256(DATA * 4).digest()
    finally:
        for sock in socks:
            sock.close()
        for call in calls:
            call.cancel()


def resident(server: ServerProcess) -> int:
    """Bytes of memory that the server has."""
    return int(psutil.Process(server.pid).memory_info().rss)


def _read_all(sock: socket.socket, size: int) -> bytes:
    got = bytearray()
    while b"\r\n\r\n" not in got:
        got += sock.recv(65536)
    del got[: got.index(b"\r\n\r\n") + 4]
    while len(got) < size and (more := sock.recv(1 << 20)):
        got += more
    return bytes(got)


async def test_more_than_may_download_at_once_are_refused(start_server: StartServer) -> None:
    server = start_server("--max-downloads", "1")
    async with grpc.aio.insecure_channel(server.target) as channel, httpx.AsyncClient(base_url=server.url) as client:
        stub = stub_on(channel)
        file_id = await completed(stub, DATA * 2)
        call = stub.DownloadFile(pb.DownloadFileRequest(file_id=file_id))
        await call.read()
        refused = await client.get(content(file_id))
        assert (refused.status_code, refusal_of_json(refused.json()).reason) == (429, "OVERLOADED")
        assert refused.headers["retry-after"] == "1"
        # To look is no download.
        assert (await client.head(content(file_id))).status_code == 200
        call.cancel()


async def test_bytes_that_are_gone_are_an_error_and_never_other_bytes(start_server: StartServer) -> None:
    server = start_server()
    async with grpc.aio.insecure_channel(server.target) as channel, httpx.AsyncClient(base_url=server.url) as client:
        stub = stub_on(channel)
        file_id = await completed(stub, DATA)
        (path,) = (server.data_dir / "bytes").rglob(f"{file_id}*")
        async with client.stream("GET", content(file_id)) as answer:
            # The file goes under a download: it ends whole.
            path.rename(path.with_name("aside"))
            assert await answer.aread() == DATA
        assert (await client.get(content(file_id))).status_code == 500
        _put_back(path, DATA[:-5])
        with pytest.raises(httpx.RemoteProtocolError):
            await client.get(content(file_id))
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await download(stub, file_id=file_id)
        assert refusal_of_rpc(refused.value).reason == "STORAGE_FAILURE"
        line = await asyncio.to_thread(server.wait_log, lambda line: line["event"] == "storage failed under a download")
        assert line["file_id"] == file_id


@pytest.mark.parametrize("kind", [*object_store.STORES])
async def test_what_an_object_store_has_lost_is_an_error_and_never_other_bytes(tmp_path: Path, kind: str) -> None:
    bucket = object_store.STORES[kind]().new_bucket()
    with ServerProcess(tmp_path, ("--storage-url", bucket.url()), object_store.environment()) as server:
        async with grpc.aio.insecure_channel(server.target) as channel, httpx.AsyncClient(base_url=server.url) as http:
            stub = stub_on(channel)
            file_id = await completed(stub)
            (key,) = (key for key in bucket.objects() if f"done/{file_id}" in key)
            bucket.put(key, DATA[:-5])
            answer, got = await begun(http, file_id), bytearray()
            with pytest.raises(httpx.RemoteProtocolError):
                await take(answer, got)
            assert got == DATA[:-5]
            with pytest.raises(grpc.aio.AioRpcError) as refused:
                await download(stub, file_id=file_id)
            assert refusal_of_rpc(refused.value).reason == "STORAGE_FAILURE"
            bucket.delete_all()
            answer = await http.get(content(file_id))
            assert (answer.status_code, refusal_of_json(answer.json()).reason) == (500, "STORAGE_FAILURE")
        line = await asyncio.to_thread(server.wait_log, lambda line: line["event"] == "storage failed under a download")
        assert line["file_id"] == file_id


async def test_bytes_that_are_let_go_are_gone_and_a_download_under_way_ends_whole(
    server: ServerProcess, stub: Stub, http: httpx.AsyncClient
) -> None:
    """From a disk; what an object store has no more ends with CONTENT_DELETED. Never with other bytes."""
    file_id = await completed(stub, DATA * 2)
    started = await stub.GetFile(pb.GetFileRequest(file_id=file_id))
    call = stub.DownloadFile(pb.DownloadFileRequest(file_id=file_id))
    got = bytearray()
    for _ in range(2):
        message = await call.read()
        assert isinstance(message, pb.DownloadFileResponse)
        got += message.data
    behind, taken = await begun(http, file_id), bytearray()
    query = {"reason": "consumed", "request_id": f"let-go-{file_id}"}

    answers = [await http.delete(content(file_id), params=query) for _ in range(2)]

    assert [answer.status_code for answer in answers] == [200, 200]
    assert answers[0].content == answers[1].content
    file = await stub.GetFile(pb.GetFileRequest(file_id=file_id))
    assert (file.status, file.revision) == (pb.UPLOAD_STATUS_COMPLETED, started.revision + 1)
    assert (file.content_deleted_by, file.content_uri) == ("user", "")
    for answer in (await http.get(content(file_id)), await http.delete(content(file_id))):
        refusal = refusal_of_json(answer.json())
        assert (answer.status_code, refusal.reason, refusal.metadata["status"]) == (400, "CONTENT_DELETED", "completed")
    assert (await http.get(f"/api/v1/tus/{file_id}")).status_code == 400
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await download(stub, file_id=file_id)
    assert refusal_of_rpc(refused.value).reason == "CONTENT_DELETED"
    try:
        while isinstance(message := await call.read(), pb.DownloadFileResponse):
            got += message.data
        assert got == DATA * 2
    except grpc.aio.AioRpcError as error:
        assert refusal_of_rpc(error).reason == "CONTENT_DELETED"  # noqa: PT017 - or it ends whole
        assert (DATA * 2).startswith(got)
    try:
        await take(behind, taken)
        assert taken == DATA * 2
    except httpx.RemoteProtocolError:
        assert (DATA * 2).startswith(taken)
    async with asyncio.timeout(20):
        while list((server.data_dir / "bytes").rglob(f"{file_id}*")):  # noqa: ASYNC110 - another process
            await asyncio.sleep(0.02)


def _put_back(path: Path, data: bytes) -> None:
    path.write_bytes(data)
