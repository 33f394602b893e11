"""A completed file back: over HTTP beside nginx (``sendfile on``), over gRPC beside a bare grpc.aio stream.

Needs nginx and curl; with ``--on s3-seaweed`` or ``s3-versity`` the file lies in an object store, beside obstore's own
GET of it. Options: ``--mib N`` bytes of the file (1024), ``--rounds N`` (5; medians of one interleaved run).
"""

from __future__ import annotations

import argparse
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import grpc
import obstore
import psutil

from benchmarks.grpc_rivals.bare_download import store_at
from benchmarks.object_store import new_bucket
from support import object_store
from support.ports import free_port
from support.process import ServerProcess
from upload import Client
from upload.v1 import upload_pb2 as pb
from upload.v1 import upload_pb2_grpc

MIB = 1024 * 1024
_NGINX = """
daemon off; worker_processes 1; user root; error_log {folder}/error.log; pid {folder}/nginx.pid;
events {{}}
http {{
  access_log off; sendfile on; tcp_nopush on;
  server {{ listen 127.0.0.1:{port}; root {folder}; }}
}}
"""


@dataclass
class Side:
    """One of those that are compared: how it is asked, the processes that answer, and what was measured."""

    name: str
    fetch: Callable[[], int]
    processes: list[psutil.Process]
    seconds: list[float] = field(default_factory=list)
    cpu: list[float] = field(default_factory=list)

    def measure(self, size: int) -> None:
        """Fetch once."""
        before = self._cpu()
        begun = time.perf_counter()
        got = self.fetch()
        self.seconds.append(time.perf_counter() - begun)
        self.cpu.append(self._cpu() - before)
        assert got == size, (self.name, got)

    def _cpu(self) -> float:
        return sum(sum(process.cpu_times()[:2]) for process in self.processes)


def over_http(url: str) -> int:
    """Return how many bytes curl was sent."""
    command = ["curl", "-s", "-o", "/dev/null", "-w", "%{size_download}", url]
    return int(subprocess.run(command, capture_output=True, check=True, text=True).stdout)


def over_grpc(target: str, file_id: str) -> int:
    """Return how many bytes a stream had."""
    with grpc.insecure_channel(target) as channel:
        call = upload_pb2_grpc.UploadServiceStub(channel).DownloadFile(pb.DownloadFileRequest(file_id=file_id))
        return sum(len(message.data) for message in call)


@contextmanager
def nginx(path: Path) -> Iterator[Side]:
    """Serve a file as nginx does."""
    with tempfile.TemporaryDirectory() as name:
        folder, port = Path(name), free_port()
        folder.chmod(0o755)
        (folder / "file").symlink_to(path)
        (folder / "nginx.conf").write_text(_NGINX.format(folder=folder, port=port))
        with subprocess.Popen(["nginx", "-c", str(folder / "nginx.conf")]) as process:
            try:
                url = f"http://127.0.0.1:{port}/file"
                subprocess.run(
                    ["curl", "-s", "-o", "/dev/null", "--retry-connrefused", "--retry", "9", url], check=True
                )
                workers = psutil.Process(process.pid).children()
                yield Side("nginx, sendfile on", lambda: over_http(url), workers)
            finally:
                process.terminate()


@contextmanager
def bare(source: str, file_id: str = "") -> Iterator[Side]:
    """Serve as bare grpc.aio does: so many bytes, or the object that is named in the bucket at a URL."""
    command = [sys.executable, "-m", "benchmarks.grpc_rivals.bare_download", source, "uvloop"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            target = f"127.0.0.1:{int(process.stdout.readline())}"
            yield Side("bare grpc.aio stream", lambda: over_grpc(target, file_id), [psutil.Process(process.pid)])
        finally:
            process.kill()


def plainly(bucket: object_store.Bucket, key: str) -> int:
    """Return how many bytes obstore got of an object."""
    store = store_at(bucket.store.endpoint, bucket.name)
    return sum(len(piece) for piece in obstore.get(store, key).stream(min_chunk_size=MIB))


def from_object_store(on: str, size: int, rounds: int) -> None:
    """Compare with obstore, which is asked in this process."""
    with (
        new_bucket(on) as bucket,
        tempfile.TemporaryDirectory(dir=os.environ.get("TMPDIR")) as folder,
        ServerProcess(Path(folder), ("--storage-url", bucket.url()), object_store.environment()) as server,
    ):
        file_id = announce(server, size)
        (key,) = (key for key in bucket.objects() if f"done/{file_id}" in key)
        ours = [psutil.Process(server.pid)]
        url = f"{server.url}/api/v1/files/{file_id}/content"
        theirs = Side("obstore GET", lambda: plainly(bucket, key), [psutil.Process()])
        http = Side("GET …/content", lambda: over_http(url), ours)
        grpc_stream = Side("DownloadFile", lambda: over_grpc(server.target, file_id), ours)
        with bare(f"{bucket.store.endpoint}/{bucket.name}", key) as stream:
            run([theirs, http, stream, grpc_stream], [None, theirs, theirs, theirs], size, rounds)


def announce(server: ServerProcess, size: int) -> str:
    """Upload random bytes; returns the id."""
    with Client(server.target) as client:
        blocks = (os.urandom(MIB) for _ in range(size // MIB))
        return client.upload(blocks, filename="a", size_bytes=size).file_id


def run(sides: list[Side], others: list[Side | None], size: int, rounds: int) -> None:
    """Measure by turns, print the table."""
    for _ in range(rounds):
        for side in sides:
            side.measure(size)
    print(f"{size // MIB} MiB, median of {rounds}      MB/s   CPU s   x the other")
    for other, side in zip(others, sides, strict=True):
        took = statistics.median(side.seconds)
        ratio = f"{statistics.median(other.seconds) / took:10.2f}" if other else ""
        print(f"{side.name:26} {size / took / 1e6:8.0f} {statistics.median(side.cpu):7.2f} {ratio}")


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--mib", type=int, default=1024)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--on", choices=sorted(object_store.KINDS))
    options = parser.parse_args()
    size = options.mib * MIB
    if options.on:
        from_object_store(options.on, size, options.rounds)
        return
    if shutil.which("nginx") is None or shutil.which("curl") is None:
        raise SystemExit("nginx and curl are needed: tools/ci_packages.sh installs them")
    with tempfile.TemporaryDirectory(dir=os.environ.get("TMPDIR")) as folder, ServerProcess(Path(folder)) as server:
        file_id = announce(server, size)
        (path,) = (server.data_dir / "bytes").rglob(f"{file_id}*")
        ours = [psutil.Process(server.pid)]
        url = f"{server.url}/api/v1/files/{file_id}/content"
        with nginx(path) as theirs, bare(str(size)) as stream:
            sides = [
                theirs,
                Side("GET …/content", lambda: over_http(url), ours),
                stream,
                Side("DownloadFile", lambda: over_grpc(server.target, file_id), ours),
            ]
            run(sides, [None, sides[0], None, sides[2]], size, options.rounds)
