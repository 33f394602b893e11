"""A node behind deploy/envoy-secure.yaml: TLS for the world, mTLS to the node."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import grpc
import httpx
import yaml

from e2e.envoy.proxy import DEPLOY, EnvoyProcess, Node
from support.certificates import Authority, Pair
from support.grpc_upload import stub_on
from support.issuer import AUDIENCE
from support.process import ServerProcess

if TYPE_CHECKING:
    from upload.v1.upload_pb2_grpc import UploadServiceAsyncStub as Stub

ANN = "spiffe://example/ann"


class SecureEnvoy(EnvoyProcess):
    """That file, with files and ports of the test."""

    config_file = "envoy-secure.yaml"

    def __init__(self, node: Node, folder: Path, issuer: str, *, port: int = 0, signs_in: bool = False) -> None:
        """``signs_in``: browsers sign in, by the filter of deploy/oauth2.yaml."""
        self._tls = folder
        self._issuer = issuer
        self._signs_in = signs_in
        super().__init__(node, port=port)

    @property
    def url(self) -> str:
        return f"https://127.0.0.1:{self.port}"

    def _adapt(self, config: Any, nodes: tuple[Node, ...]) -> Any:
        if self._signs_in:
            _add_sign_in(config)
        clusters = config["static_resources"]["clusters"]
        issuer = clusters.pop()
        del issuer["transport_socket"]
        host, port = self._issuer.removeprefix("http://").split(":")
        address = {"address": host, "port_value": int(port)}
        issuer["load_assignment"]["endpoints"][0]["lb_endpoints"][0]["endpoint"]["address"]["socket_address"] = address
        adapted = super()._adapt(config, nodes)
        clusters.append(issuer)
        adapted["static_resources"]["clusters"] = clusters
        text = json.dumps(adapted).replace('"tls/', f'"{self._tls}/').replace('"tls"', f'"{self._tls}"')
        return json.loads(
            text.replace("https://id.example.com", self._issuer).replace("https://uploads.example.com", AUDIENCE)
        )


def _add_sign_in(config: Any) -> None:
    """Do by hand what deploy/oauth2.yaml says at its head."""
    more = yaml.safe_load((DEPLOY / "oauth2.yaml").read_text())
    config["static_resources"]["secrets"] += more["secrets"]
    (chain,) = config["static_resources"]["listeners"][0]["filter_chains"]
    chain["filters"][0]["typed_config"]["http_filters"].insert(0, more["filter"])


class World:
    """A node, Envoy before it, an issuer, and who signs whose certificates."""

    def __init__(self, folder: Path, issuer: str) -> None:
        self.folder = folder
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
            *("--jwt-issuer", issuer, "--jwt-audience", AUDIENCE),
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
