"""TLS on both ports of a server: every door through it, certificates replaced under traffic, callers' certificates."""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
import signal
import socket
import ssl
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import grpc
import httpx
import pytest
import websockets

from clients.tus.client import Tus
from support.certificates import Authority, Pair
from support.grpc_upload import stub_on
from support.ports import free_port
from support.process import ServerProcess, StartServer
from support.watching import Watcher, grpc_watch, ndjson_watch, sse_watch
from upload.v1 import upload_pb2 as pb

if TYPE_CHECKING:
    from upload.v1.upload_pb2_grpc import UploadServiceAsyncStub as Stub

MIB = 1024 * 1024
IN_FLIGHT = 64


class Secure(NamedTuple):
    """A server whose HTTP port asks for certificates, as does its second gRPC port; and who signs them."""

    server: ServerProcess
    authority: Authority
    callers: Authority
    caller: Pair
    folder: Path
    mtls_port: int

    @property
    def url(self) -> str:
        return f"https://127.0.0.1:{self.server.http_port}"


@pytest.fixture(scope="module")
def secure(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Secure]:
    folder = tmp_path_factory.mktemp("secure")
    authority, callers = Authority(folder), Authority(folder, "callers")
    trusted = folder / "trusted.pem"
    trusted.write_bytes(callers.file.read_bytes())
    port = free_port()
    options = ("--tls-client-auth", "optional", "--tls-client-ca", str(trusted), "--grpc-mtls-port", str(port))
    with ServerProcess(folder / "data", (*authority.issue("server").options, *options)) as server:
        yield Secure(server, authority, callers, callers.issue("caller", "caller.example"), folder, port)


@asynccontextmanager
async def stub_of(authority: Authority, port: int, client: Pair | None = None) -> AsyncIterator[Stub]:
    options = [("grpc.use_local_subchannel_pool", 1), ("grpc.enable_retries", 0)]
    async with grpc.aio.secure_channel(f"127.0.0.1:{port}", authority.credentials(client), options) as channel:
        yield stub_on(channel)


def client_of(secure: Secure, client: Pair | None = None) -> httpx.AsyncClient:
    return httpx.AsyncClient(base_url=secure.url, verify=secure.authority.context(client), timeout=20)


def shown(port: int) -> bytes:
    """The certificate that a new connection is shown."""
    return ssl.PEM_cert_to_DER_cert(ssl.get_server_certificate(("127.0.0.1", port))).strip()


def first_in(path: Path) -> bytes:
    return ssl.PEM_cert_to_DER_cert(path.read_text().split("-----END CERTIFICATE-----")[0] + ssl.PEM_FOOTER)


async def announce(stub: Stub, size: int = 10) -> str:
    answer = await stub.InitiateUpload(pb.InitiateUploadRequest(filename="a.bin", size_bytes=size))
    return answer.file.file_id


# Doors ---------------------------------------------------------------------------------------------------------------


async def test_every_door_works_through_tls(secure: Secure) -> None:
    async with stub_of(secure.authority, secure.server.grpc_port) as stub, client_of(secure) as client:
        watchers = [Watcher(watch(all=True)) for watch in (grpc_watch(stub), ndjson_watch(client), sse_watch(client))]
        for watcher in watchers:
            await watcher.opening()

        data = os.urandom(2 * MIB)
        put = await stub.PutFile(pb.PutFileRequest(filename="p", size_bytes=100, data=data[:100]))
        assert put.file_id

        tus = Tus(client)
        url = await tus.create(len(data))
        assert (await tus.append(url, 0, data)).status_code == 204
        assert (await tus.file(url))["sha256"] == hashlib.sha256(data).hexdigest()

        file_id = await announce(stub, len(data))
        address = f"wss://127.0.0.1:{secure.server.http_port}/api/v1/upload/ws/{file_id}"
        async with websockets.connect(address, ssl=secure.authority.context()) as page:
            for start in range(0, MIB, 100_000):
                await page.send(data[start : start + 100_000])
            cancelled = await client.post(f"/api/v1/upload/cancel/{file_id}", json={})
            assert cancelled.status_code == 200
            while json.loads(await page.recv())["type"] != "cancelled":
                pass
        for watcher in watchers:
            assert (await watcher.until("CANCELLED"))["file_id"] == file_id
            await watcher.close()


async def test_a_tus_body_in_little_pieces_is_kept_whole(secure: Secure) -> None:
    data = os.urandom(MIB)

    async def pieces() -> AsyncIterator[bytes]:
        for start in range(0, len(data), 1000):
            yield data[start : start + 1000]

    async with client_of(secure) as client:
        tus = Tus(client)
        url = await tus.create(len(data))
        answer = await tus.append(url, 0, pieces(), Content_Length=str(len(data)))
        assert answer.status_code == 204
        assert (await tus.file(url))["sha256"] == hashlib.sha256(data).hexdigest()


async def test_plain_text_gets_nothing(secure: Secure) -> None:
    async with grpc.aio.insecure_channel(secure.server.target) as channel:
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await announce(stub_on(channel))
        assert caught.value.code() is grpc.StatusCode.UNAVAILABLE
    async with httpx.AsyncClient() as client:
        with pytest.raises(httpx.RemoteProtocolError):
            await client.get(f"http://127.0.0.1:{secure.server.http_port}/healthz")


# Certificates of callers ---------------------------------------------------------------------------------------------


async def is_refused(authority: Authority, port: int, client: Pair | None) -> bool:
    async with stub_of(authority, port, client) as stub:
        try:
            await announce(stub)
        except grpc.aio.AioRpcError as error:
            return error.code() is grpc.StatusCode.UNAVAILABLE
        return False


async def is_refused_over_http(secure: Secure, client: Pair | None) -> bool:
    async with client_of(secure, client) as http:
        try:
            return (await http.get("/healthz")).status_code != 200
        except (httpx.ReadError, httpx.RemoteProtocolError, httpx.ConnectError, ssl.SSLError):
            return True


async def test_the_port_for_certificates_takes_those_of_its_signers_only(secure: Secure) -> None:
    stranger = Authority(secure.folder, "stranger").issue("stranger", "caller.example")
    expired = secure.callers.issue("expired", "caller.example", days=-1)
    for client, refused in ((None, True), (stranger, True), (expired, True), (secure.caller, False)):
        assert await is_refused(secure.authority, secure.mtls_port, client) is refused
    # Where it asks and does not require.
    for client, refused in ((None, False), (stranger, True), (expired, True), (secure.caller, False)):
        assert await is_refused_over_http(secure, client) is refused
    assert not await is_refused(secure.authority, secure.server.grpc_port, None)


def session_of(secure: Secure, context: ssl.SSLContext, session: ssl.SSLSession | None) -> ssl.SSLSession | None:
    """Ask one thing over a connection, which may resume one of before; returns its session."""
    with (
        socket.create_connection(("127.0.0.1", secure.server.http_port)) as raw,
        context.wrap_socket(raw, server_hostname="127.0.0.1", session=session) as peer,
    ):
        peer.sendall(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n")
        if not peer.recv(1000).startswith(b"HTTP/1.1 200"):
            raise ssl.SSLError("refused")
        return peer.session


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
async def test_other_signers_count_from_the_next_connection_on(secure: Secure, version: ssl.TLSVersion) -> None:
    context = secure.authority.context(secure.caller)
    context.minimum_version = context.maximum_version = version
    session = session_of(secure, context, None)
    async with stub_of(secure.authority, secure.mtls_port, secure.caller) as open_before:
        await announce(open_before)
        trusted = secure.folder / "trusted.pem"
        others = Authority(secure.folder, "others")
        trusted.write_bytes(others.file.read_bytes())
        reload(secure)
        try:
            with pytest.raises((ssl.SSLError, ConnectionError)):
                session_of(secure, context, session)
            assert await is_refused(secure.authority, secure.mtls_port, secure.caller)
            assert not await is_refused(secure.authority, secure.mtls_port, others.issue("other", "x.example"))
            # A connection is judged once.
            await announce(open_before)
        finally:
            trusted.write_bytes(secure.callers.file.read_bytes())
            reload(secure)


# Certificates that are replaced --------------------------------------------------------------------------------------


def reload(secure: Secure, event: str = "tls.reloaded") -> dict[str, object]:
    """Have a server read its files again; returns what it said."""
    before = len(secure.server.log)
    secure.server.popen.send_signal(signal.SIGHUP)
    return secure.server.wait_log(lambda line: line in secure.server.log[before:] and line["event"] == event)


async def test_certificates_are_replaced_under_cancels_in_flight(secure: Secure) -> None:
    mine = Pair(secure.folder, "server")
    old = shown(secure.server.http_port)
    cancelled = 0
    stop = asyncio.Event()

    async def cancel(stub: Stub) -> None:
        nonlocal cancelled
        while not stop.is_set():
            file_id = await announce(stub)
            answer = await stub.CancelFile(pb.CancelFileRequest(file_id=file_id))
            assert answer.file_id == file_id
            cancelled += 1

    async def more_than(count: int) -> None:
        while cancelled <= count:  # noqa: ASYNC110 - a count has no event
            await asyncio.sleep(0.01)

    async with stub_of(secure.authority, secure.server.grpc_port) as stub, client_of(secure) as client:
        await client.get("/healthz")
        async with asyncio.timeout(30), asyncio.TaskGroup() as group:
            for _ in range(IN_FLIGHT):
                group.create_task(cancel(stub))
            await more_than(IN_FLIGHT)
            mine.take(secure.authority.issue("renewed", days=5))
            await asyncio.to_thread(reload, secure)
            for port in (secure.server.http_port, secure.server.grpc_port):
                assert await asyncio.to_thread(shown, port) == first_in(mine.cert) != old
            await more_than(cancelled + IN_FLIGHT)
            stop.set()
        # The connection of before goes on.
        assert (await client.get("/healthz")).status_code == 200


async def test_a_bad_change_is_told_of_and_the_old_certificate_stays(secure: Secure) -> None:
    mine = Pair(secure.folder, "server")
    good, served = mine.key.read_bytes(), shown(secure.server.http_port)
    mine.key.write_bytes(secure.authority.issue("other").key.read_bytes())
    said = reload(secure, "tls.reload_failed")
    assert str(said["problem"]).startswith("--tls-key: it is not the key of the first certificate")
    assert shown(secure.server.http_port) == shown(secure.server.grpc_port) == served
    async with client_of(secure) as client:
        assert "upload_tls_reload_failed_total 1.0" in (await client.get("/metrics")).text
    mine.key.write_bytes(good)
    reload(secure)


# Starts --------------------------------------------------------------------------------------------------------------


def test_workers_speak_tls_too(tmp_path: Path, start_server: StartServer) -> None:
    authority = Authority(tmp_path)
    mine = authority.issue("server")
    server = start_server(*mine.options, "--workers", "2")
    mine.take(authority.issue("renewed", days=5))
    server.popen.send_signal(signal.SIGHUP)
    for _ in range(2):
        server.wait_log(lambda line: line["event"] == "tls.reloaded")
    told = [line for line in server.log if line["event"] == "tls.reloaded"]
    for port in (server.http_port, server.grpc_port):
        assert shown(port) == first_in(mine.cert)
    assert told
    assert server.terminate() == 0


def test_a_start_with_a_bad_pair_is_refused_in_one_line(tmp_path: Path) -> None:
    old = Authority(tmp_path).issue("old", days=-1)
    command = [sys.executable, "-m", "upload_server", "--data-dir", str(tmp_path / "data"), *old.options]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=30, check=False)
    assert ended.returncode == 1
    (line,) = ended.stderr.strip().splitlines()
    assert "--tls-cert: the certificate expired on" in line
