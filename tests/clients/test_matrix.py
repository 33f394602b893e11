"""One scenario, one running server, every client: announce, upload half, watch, cancel, cancel again, unknown id.

Each client is a program of its own that reports in JSON lines; the reports must be the same.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import grpc
import pytest

from support.process import ServerProcess, gone_from_disk
from upload.v1 import upload_pb2 as pb
from upload.v1 import upload_pb2_grpc

HERE = Path(__file__).parent
CLIENTS = HERE.parents[1] / "clients"
REPORT = [
    {"step": "initiate", "filename": "matrix.bin", "size_bytes": 4 << 20},
    {"step": "half", "bytes_received": 2 << 20},
    {"step": "cancel", "result": "cancelled"},
    {"step": "upload", "reason": "UPLOAD_CANCELLED", "by": "user"},
    {"step": "watch", "statuses": ["uploading", "cancelled"]},
    {"step": "cancel again", "same_request": "the same answer", "new_request": "already cancelled"},
    {"step": "unknown", "reason": "FILE_NOT_FOUND"},
]

pytestmark = pytest.mark.timeout(300)


def missing(what: str) -> None:
    """Skip for want of something; in CI nothing is wanting."""
    if os.environ.get("CI"):
        pytest.fail(what)
    pytest.skip(what)


def run(*command: str | Path, cwd: Path = HERE, environment: dict[str, str] | None = None) -> str:
    """Run a program to its end; what it said is the failure's text."""
    done = subprocess.run(
        [str(word) for word in command],
        cwd=cwd,
        env={**os.environ, **(environment or {})},
        capture_output=True,
        text=True,
        check=False,
        timeout=100,
    )
    assert done.returncode == 0, done.stdout[-5_000:] + done.stderr[-5_000:]
    return done.stdout


def python(server: ServerProcess, _: Path) -> str:
    return run(sys.executable, HERE / "scenario_python.py", server.target)


def typescript(program: str, address: str) -> str:
    """Bundle a program, since Node 20 runs no TypeScript, where it finds the client's packages; and run it."""
    node, folder = shutil.which("node"), CLIENTS / "typescript"
    if node is None:
        missing("needs Node 20 or newer")
    if not (folder / "node_modules").exists():
        missing("needs the client's packages: npm ci in clients/typescript")
    bundle = folder / ".build" / f"{program}-{os.getpid()}.mjs"
    options = ["--bundle", "--platform=node", "--format=esm", "--packages=external", "--log-level=error"]
    run(folder / "node_modules/.bin/esbuild", f"scenario/{program}.ts", *options, f"--outfile={bundle}", cwd=folder)
    try:
        return run(str(node), bundle, address)
    finally:
        bundle.unlink()


def browser(server: ServerProcess, _: Path) -> str:
    return typescript("browser", server.url)


def node(server: ServerProcess, _: Path) -> str:
    return typescript("node", server.target)


def build_go(package: str, folder: Path) -> Path:
    """Compile a program of clients/go."""
    go = shutil.which("go")
    if go is None:
        missing("needs Go")
    program = folder / package
    # cgo would ask for a C compiler; it is of no use here.
    run(str(go), "build", "-o", program, f"./{package}", cwd=CLIENTS / "go", environment={"CGO_ENABLED": "0"})
    return program


def go(server: ServerProcess, folder: Path) -> str:
    return run(build_go("scenario", folder), server.target)


@pytest.mark.parametrize("client", [python, browser, node, go], ids=lambda client: client.__name__)
async def test_every_client_plays_the_same_scenario(
    server: ServerProcess, tmp_path: Path, client: Callable[[ServerProcess, Path], str]
) -> None:
    report = [json.loads(line) for line in client(server, tmp_path).splitlines()]
    file_id = report[0].pop("file_id")
    assert report == REPORT
    with grpc.insecure_channel(server.target) as channel:
        stub = upload_pb2_grpc.UploadServiceStub(channel)
        file = stub.GetFile(pb.GetFileRequest(file_id=file_id), timeout=20)
        events = stub.ListAuditEvents(pb.ListAuditEventsRequest(file_id=file_id), timeout=20).events
    assert (file.cancelled_by, file.cancel_reason) == ("user", "only a demonstration")
    assert [event.to_status for event in events] == ["pending", "uploading", "cancelled"]
    await gone_from_disk(server, file_id)


def test_the_go_example_uploads_cancels_watches_and_downloads(server: ServerProcess, tmp_path: Path) -> None:
    program = build_go("example", tmp_path)
    path = tmp_path / "film.mov"
    path.write_bytes(os.urandom(3_000_000))
    target = {"UPLOAD_SERVER": server.target}
    output = run(program, "upload", path, environment=target).splitlines()
    file_id = output[0].removeprefix("file_id ")
    assert output[-1].startswith("completed ")
    assert run(program, "watch", file_id, environment=target).split() == ["completed"]
    copied = run(program, "download", file_id, tmp_path / "copy", environment=target)
    assert (copied, (tmp_path / "copy").read_bytes()) == ("downloaded 3000000 bytes of film.mov\n", path.read_bytes())
    too_late = subprocess.run(
        [program, "cancel", file_id], env={**os.environ, **target}, capture_output=True, text=True, check=False
    )
    assert too_late.returncode == 1
    assert "FILE_NOT_CANCELLABLE" in too_late.stderr
    with grpc.insecure_channel(server.target) as channel:
        request = pb.InitiateUploadRequest(filename="other", size_bytes=1)
        other = upload_pb2_grpc.UploadServiceStub(channel).InitiateUpload(request, timeout=20).file.file_id
    never = [str(program), "download", other, str(tmp_path / "never")]
    refused = subprocess.run(never, env={**os.environ, **target}, capture_output=True, text=True, check=False)
    assert (refused.returncode, "FILE_NOT_COMPLETED" in refused.stderr) == (1, True)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["copy", "example", "film.mov"]
    assert "Upload cancelled successfully" in run(program, "cancel", other, "no", "more", environment=target)
    assert run(program, "watch", other, environment=target).split() == ["cancelled", "user"]
