"""Three nodes on PostgreSQL and an object store behind Envoy, on this machine, until Ctrl-C: ``make cluster``.

What they store goes with them. Options: ``--nodes N`` (3), ``--port N`` of Envoy (8000; 0: a free one), ``--storage
folder`` for one folder in the object store's place.
"""

# ruff: noqa: T201 - a person reads it at a terminal

from __future__ import annotations

import argparse
import asyncio
import contextlib
import signal
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from types import FrameType
from typing import NoReturn

import pytest

from e2e.envoy.proxy import EnvoyProcess, Node
from support import object_store
from support.cluster import Cluster
from support.process import ServerProcess


def options() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--nodes", type=int, default=3)
    parser.add_argument("--port", type=int, default=8000)
    parser.add_argument("--storage", choices=("s3", "folder"), default="s3")
    parser.add_argument("--inside", action="store_true", help=argparse.SUPPRESS)
    return parser.parse_args()


def _bucket() -> str:
    """Start an object store; returns the URL of a bucket, the empty text where its packages are not installed."""
    try:
        return object_store.STORES["s3-seaweed"]().new_bucket().url()
    except pytest.skip.Exception as lacking:
        print(f"{lacking}: one folder in its place")
        return ""


def run(nodes: int, port: int, storage: str) -> None:
    """Start everything, say where, and end it when standard input ends."""
    with tempfile.TemporaryDirectory(prefix="cluster-") as folder:
        print("starting PostgreSQL, the storage, the nodes and Envoy …", flush=True)
        bucket = _bucket() if storage == "s3" else ""
        words = ("--storage-url", bucket) if bucket else ()

        def start(data_dir: Path, given: Sequence[str]) -> ServerProcess:
            return ServerProcess(data_dir, given, object_store.environment())

        with Cluster(Path(folder) / "cluster", nodes, words, start=start) as cluster, contextlib.ExitStack() as ending:
            # In the order of the day: senders hear that their node drains before anything else goes.
            ending.callback(lambda: [node.terminate() for node in cluster.nodes])
            endpoints = [Node(node.grpc_port, node.http_port) for node in cluster.nodes]
            with EnvoyProcess(*endpoints, port=port) as proxy:
                asyncio.run(proxy.wait_healthy(*endpoints))
                print(f"Envoy       http://localhost:{proxy.port}/  (page, HTTP/JSON, gRPC, WebSocket, tus)")
                for node in cluster.nodes:
                    print(
                        f"node {node.number}      grpc localhost:{node.grpc_port}, http://localhost:{node.http_port}/,"
                        f" pid {node.server.pid}"
                    )
                print(f"PostgreSQL  {cluster.url}")
                print(f"storage     {bucket or cluster.storage}")
                print(f'try         make demo ARGS="--target localhost:{proxy.port}"')
                print("Ctrl-C ends all of it.", flush=True)
                sys.stdin.read()


def main() -> int:
    """Run the cluster in a session of its own, so that Ctrl-C reaches us alone; returns the exit code."""
    wanted = options()
    if wanted.inside:
        try:
            run(wanted.nodes, wanted.port, wanted.storage)
        except pytest.skip.Exception as lacking:
            print(f"make cluster: {lacking}", file=sys.stderr)
            return 1
        return 0
    signal.signal(signal.SIGTERM, _interrupt)
    # Also in the background, where a shell has it ignored.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    command = [sys.executable, "-m", "support.fleet", "--inside"]
    command += ["--nodes", str(wanted.nodes), "--port", str(wanted.port), "--storage", wanted.storage]
    with subprocess.Popen(command, stdin=subprocess.PIPE, start_new_session=True) as inside:
        with contextlib.suppress(KeyboardInterrupt):
            return inside.wait()
        print("ending it", flush=True)
        assert inside.stdin is not None
        inside.stdin.close()
        return inside.wait()


def _interrupt(_number: int, _frame: FrameType | None) -> NoReturn:
    raise KeyboardInterrupt


if __name__ == "__main__":
    sys.exit(main())
