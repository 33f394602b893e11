"""deploy/envoy-secure.yaml: TLS for the world, mTLS to the node, JWTs checked twice, certificates handed on."""

from __future__ import annotations

import base64
import hashlib
import ssl
from collections.abc import Iterator

import grpc
import httpx
import pytest
import websockets

from e2e.envoy.secure import ANN, SecureEnvoy, World
from support.certificates import Pair
from support.issuer import Issuer, SigningKey
from support.process import ServerProcess
from upload.v1 import upload_pb2 as pb


@pytest.fixture(scope="module")
def issuer() -> Iterator[Issuer]:
    with Issuer() as started:
        yield started


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory, issuer: Issuer) -> Iterator[World]:
    folder = tmp_path_factory.mktemp("secure")
    made = World(folder, issuer.url)
    with (
        ServerProcess(folder / "data", made.options) as made.server,
        SecureEnvoy(made.node, folder, issuer.url) as made.envoy,
    ):
        yield made


@pytest.fixture(autouse=True)
async def ready(world: World) -> None:
    await world.envoy.wait_healthy(world.node)


async def actor(client: httpx.AsyncClient, file_id: str) -> str:
    """Who the trail says has announced a file."""
    answer = await client.get("/api/v1/audit/events", params={"file_id": file_id})
    return str(answer.json()["events"][0]["actor"])


async def test_a_token_names_its_caller_through_every_door(world: World, issuer: Issuer) -> None:
    token = issuer.token()
    async with world.client(token) as client:
        status, file_id = await world.put(client)
        assert status == 200
        assert await actor(client, file_id) == "user:jwt:ann"
        assert (await client.get("/metrics")).status_code == (await client.get("/%6detrics")).status_code == 404
        assert "strict-transport-security" in (await client.get(f"/api/v1/files/{file_id}")).headers
        address = f"wss://127.0.0.1:{world.envoy.port}/api/v1/upload/ws/{file_id}"
        head = {"Authorization": f"Bearer {token}"}
        async with websockets.connect(address, ssl=world.outside.context(), additional_headers=head) as page:
            assert "progress" in str(await page.recv())
    async with world.stub() as stub:
        found = await stub.ListFiles(pb.ListFilesRequest(), metadata=(("authorization", f"Bearer {token}"),))
        assert file_id in [file.file_id for file in found.files]


async def test_a_certificate_that_envoy_saw_names_its_caller(world: World) -> None:
    async with world.client(pair=world.ann) as client:
        status, file_id = await world.put(client)
        assert status == 200
        assert await actor(client, file_id) == f"user:cert:uri:{ANN}"
    async with world.stub(world.ann) as stub:
        assert file_id in [file.file_id for file in (await stub.ListFiles(pb.ListFilesRequest())).files]


async def test_what_callers_say_of_certificates_is_thrown_away(world: World) -> None:
    forged = f"Hash={'ab' * 32};URI=spiffe://example/root"
    async with world.client(x_forwarded_client_cert=forged) as client:
        assert (await world.put(client))[0] == 401
    async with world.client(pair=world.ann, x_forwarded_client_cert=forged) as client:
        _, file_id = await world.put(client)
        assert await actor(client, file_id) == f"user:cert:uri:{ANN}"
    async with world.stub() as stub:
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await stub.ListFiles(pb.ListFilesRequest(), metadata=(("x-forwarded-client-cert", forged),))
        assert caught.value.code() is grpc.StatusCode.UNAUTHENTICATED
    refusal = world.server.wait_log(lambda line: line["event"] == "auth.refused")
    # Of a caller on loopback Envoy tells the address of the machine; the node itself sees Envoy on loopback.
    assert refusal["peer"] not in {"127.0.0.1", ""}


async def test_forged_tokens_end_at_envoy_and_at_the_node(world: World, issuer: Issuer) -> None:
    forged = SigningKey("first").sign(issuer.claims())
    async with world.client(forged) as client:
        assert (await world.put(client))[0] == 401
    # Past Envoy, with its own certificate.
    context = world.inside.context(Pair(world.folder, "inside"))
    url = f"https://127.0.0.1:{world.node.http_port}"
    async with httpx.AsyncClient(base_url=url, verify=context) as direct:
        for headers in ({"authorization": f"Bearer {forged}"}, {}):
            assert (await direct.get("/api/v1/files", headers=headers)).status_code == 401


async def test_another_ones_word_on_certificates_does_not_count(world: World) -> None:
    eve = world.inside.name("eve", uris=["spiffe://example/eve"])
    headers = {"x-forwarded-client-cert": f"Hash={'ab' * 32};URI={ANN}", "x-forwarded-for": "1.2.3.4"}
    url = f"https://127.0.0.1:{world.node.http_port}"
    async with httpx.AsyncClient(base_url=url, verify=world.inside.context(eve), headers=headers) as direct:
        status, file_id = await world.put(direct)
        assert status == 200
        assert await actor(direct, file_id) == "user:cert:uri:spiffe://example/eve"
    nameless = world.inside.name("nameless", dns=["x.example"])
    async with httpx.AsyncClient(base_url=url, verify=world.inside.context(nameless)) as direct:
        assert (await direct.get("/api/v1/files")).status_code == 401


async def test_a_bound_token_counts_with_the_certificate_that_envoy_saw(world: World, issuer: Issuer) -> None:
    der = ssl.PEM_cert_to_DER_cert(world.ann.cert.read_text())
    digest = base64.urlsafe_b64encode(hashlib.sha256(der).digest()).rstrip(b"=").decode()
    token = issuer.token(cnf={"x5t#S256": digest})
    async with world.client(token, world.ann) as client:
        assert (await world.put(client))[0] == 200
    async with world.client(token) as client:
        assert (await world.put(client))[0] == 401


async def test_a_page_that_came_by_https_is_the_services_own(world: World, issuer: Issuer) -> None:
    token = issuer.token()
    own = f"https://127.0.0.1:{world.envoy.port}"
    for origin, status in ((own, 200), (own.replace("https", "http"), 403), ("https://evil.example", 403)):
        async with world.client(token, origin=origin) as client:
            assert (
                await client.post("/api/v1/upload/initiate", json={"filename": "a", "size_bytes": "1"})
            ).status_code == status
