"""Tokens of an OpenID provider that nobody here wrote: found by discovery, through every door, over a rotation."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import grpc
import httpx
import pytest
import websockets

from clients.oidc.provider import Provider, serving
from clients.tus.client import Tus, encoded
from support.grpc_upload import stub_on
from support.issuer import AUDIENCE
from support.process import ServerProcess, StartServer
from upload.v1 import upload_pb2 as pb

if TYPE_CHECKING:
    from upload.v1.upload_pb2_grpc import UploadServiceAsyncStub as Stub


@pytest.fixture(scope="module")
def provider() -> Iterator[Provider]:
    with serving() as started:
        yield started


@pytest.fixture(scope="module")
def guarded(provider: Provider, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    options = ("--auth", "required", "--jwt-issuer", f"corp={provider.url}", "--jwt-audience", AUDIENCE)
    with ServerProcess(tmp_path_factory.mktemp("guarded"), options) as server:
        yield server


def head(token: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {token}"}


def client_of(server: ServerProcess, token: str = "") -> httpx.AsyncClient:
    return httpx.AsyncClient(base_url=server.url, headers=head(token) if token else {}, timeout=20)


@asynccontextmanager
async def stub_of(server: ServerProcess) -> AsyncIterator[Stub]:
    async with grpc.aio.insecure_channel(server.target) as channel:
        yield stub_on(channel)


async def test_a_token_opens_every_door(provider: Provider, guarded: ServerProcess) -> None:
    token = provider.token()
    metadata = (("authorization", f"Bearer {token}"),)
    async with stub_of(guarded) as stub, client_of(guarded, token) as client:
        announced = await stub.InitiateUpload(
            pb.InitiateUploadRequest(filename="a.bin", size_bytes=10), metadata=metadata
        )
        file_id = announced.file.file_id
        address = f"ws://127.0.0.1:{guarded.http_port}/api/v1/upload/ws/{file_id}"
        async with websockets.connect(address, additional_headers=head(token)) as page:
            assert "progress" in str(await page.recv())
        tus = Tus(client)
        assert await tus.offset(await tus.create(10)) == 0
        watch = stub.WatchStatus(pb.WatchStatusRequest(all=True), metadata=metadata)
        assert await anext(aiter(watch))
        watch.cancel()
        assert (await client.post(f"/api/v1/upload/cancel/{file_id}", json={})).status_code == 200
        file = (await client.get(f"/api/v1/files/{file_id}")).json()
        assert file["cancelled_by"] == "user:corp:ann"


async def test_without_a_token_and_beyond_its_scope_nothing_opens(provider: Provider, guarded: ServerProcess) -> None:
    async with client_of(guarded) as nobody:
        assert (await nobody.get("/api/v1/files")).status_code == 401
    async with client_of(guarded, provider.token("upload.read")) as reader:
        assert (await reader.get("/api/v1/files")).status_code == 200
        refused = await reader.post("/api/v1/upload/initiate", json={"filename": "a", "size_bytes": 1})
        assert refused.status_code == 403
        headers = {"Tus-Resumable": "1.0.0", "Upload-Length": "1", "Upload-Metadata": encoded(filename="a")}
        assert (await reader.post("/api/v1/tus", headers=headers)).status_code == 403
    changed = provider.token()[:-6] + "AAAAAA"
    async with client_of(guarded, changed) as forger:
        assert (await forger.get("/api/v1/files")).status_code == 401
    refusal = guarded.wait_log(lambda line: line.get("why") == "its signature is wrong")
    assert "Bearer" not in str(refusal)
    assert changed not in str(guarded.log)


async def test_keys_of_before_and_after_a_rotation_count(provider: Provider, start_server: StartServer) -> None:
    before = provider.token()
    provider.rotate()
    options = ("--auth", "required", "--jwt-issuer", provider.url, "--jwt-audience", AUDIENCE)
    server = start_server(*options)
    for token in (before, provider.token()):
        async with client_of(server, token) as client:
            assert (await client.get("/api/v1/files")).status_code == 200
