"""Made data.tar.gz, a data directory of the first edition, and seen.json, what its callers saw of it.

Run once, by the first edition's Python, in a clone of commit 5a3d07c; kept to show what lies there, and what `seen` of
a server must be like:

    PYTHONPATH=/path/to/this/clone/tests .venv/bin/python -m e2e.edition_1.make FOLDER
"""

from __future__ import annotations

import base64
import hashlib
import json
import shutil
import sqlite3
import subprocess
import sys
import tarfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import grpc
import httpx
from google.protobuf.json_format import MessageToDict, ParseDict
from google.protobuf.message import Message
from websockets.sync.client import connect

from support.process import ServerProcess
from upload.v1 import upload_pb2 as pb
from upload.v1 import upload_pb2_grpc

if TYPE_CHECKING:
    from upload.v1.upload_pb2_grpc import UploadServiceStub as Stub

Json = dict[str, Any]
HERE = Path(__file__).parent
# Nothing expires and no answer is forgotten, however old the fixture is.
FOR_EVER = ("--upload-ttl", "36500d", "--request-ttl", "36500d")
TUS = {"Tus-Resumable": "1.0.0"}
# Files whose bytes were owed deletion when the server was killed.
OWED = 12


def content(size: int) -> bytes:
    """Return the bytes of every file here of that size."""
    return (bytes(range(251)) * (size // 251 + 1))[:size]


def sha256(size: int) -> str:
    """Return their digest."""
    return hashlib.sha256(content(size)).hexdigest()


@contextmanager
def stub_on(server: ServerProcess) -> Iterator[Stub]:
    """Give the stub of a server."""
    with grpc.insecure_channel(server.target) as channel:
        yield upload_pb2_grpc.UploadServiceStub(channel)


def plain(message: Message) -> Json:
    """Return a message as JSON without the fields that are not set: later editions may have more of them."""
    return MessageToDict(message, preserving_proto_field_name=True)


def seen(server: ServerProcess, asked: Json) -> Json:
    """Return what callers see of a server: rows, lists, trail, answers to repeated requests, a watch that goes on."""
    with stub_on(server) as stub:
        return {
            "files": [plain(stub.GetFile(pb.GetFileRequest(file_id=name))) for name in asked["file_ids"]],
            "batches": [plain(stub.GetBatch(pb.GetBatchRequest(batch_id=name))) for name in asked["batch_ids"]],
            "listed": [file.file_id for file in _listed(stub)],
            "events": [plain(event) for event in _events(stub)],
            "answers": [_answer(stub, method, request) for method, request in asked["requests"]],
            "http_answers": [_http_answer(server, path, body) for path, body in asked["http_requests"]],
            "changes": _changes(stub, asked["resume_token"]),
        }


def _listed(stub: Stub) -> Iterator[pb.File]:
    token = None
    while token != "":
        page = stub.ListFiles(pb.ListFilesRequest(page_size=20, page_token=token))
        yield from page.files
        token = page.next_page_token


def _events(stub: Stub) -> Iterator[pb.AuditEvent]:
    token = None
    while token != "":
        page = stub.ListAuditEvents(pb.ListAuditEventsRequest(page_size=50, page_token=token))
        yield from page.events
        token = page.next_page_token


def _answer(stub: Stub, method: str, request: Json) -> str:
    message = ParseDict(request, getattr(pb, f"{method}Request")())
    answer: Message = getattr(stub, method)(message)
    return answer.SerializeToString(deterministic=True).hex()


def _http_answer(server: ServerProcess, path: str, body: Json) -> str:
    return httpx.post(f"{server.url}{path}", json=body).raise_for_status().text


def _changes(stub: Stub, token: str) -> list[Json]:
    """Return the events from a token on, up to the bookmark."""
    watch = stub.WatchStatus(pb.WatchStatusRequest(all=True, resume_token=token))
    changes = []
    for message in watch:
        event = plain(message)
        del event["resume_token"]
        changes.append(event)
        if message.HasField("bookmark"):
            break
    watch.cancel()
    return changes


class Maker:
    """Fills a server, and notes what is to be asked of it again."""

    def __init__(self, server: ServerProcess, stub: Stub) -> None:
        self.server = server
        self.stub = stub
        self.requests: list[tuple[str, Json]] = []
        self.http_requests: list[tuple[str, Json]] = []

    def call(self, method: str, request: Json) -> Any:
        """Call a method; one with a request id is asked again later."""
        if "request_id" in request:
            self.requests.append((method, request))
        return getattr(self.stub, method)(ParseDict(request, getattr(pb, f"{method}Request")()))

    def post(self, path: str, body: Json) -> None:
        """Call over HTTP; it is asked again later."""
        self.http_requests.append((path, body))
        _http_answer(self.server, path, body)

    def initiate(self, filename: str, size: int, **more: str) -> str:
        """Announce a file."""
        file = self.call("InitiateUpload", {"filename": filename, "size_bytes": size, **more}).file
        return str(file.file_id)

    def batch(self, name: str, sizes: Sequence[int], **more: str) -> tuple[str, list[str]]:
        """Announce files of a batch."""
        specs = [{"filename": f"{name}/{index}.bin", "size_bytes": size} for index, size in enumerate(sizes)]
        answer = self.call("InitiateBatch", {"files": specs, **more})
        return answer.batch.batch_id, list(answer.file_ids)

    def send(self, file_id: str, data: bytes, *, commit: bool = True, digest: str = "") -> None:
        """Send bytes and commit, or leave them lying, durable."""
        messages = [pb.UploadFileRequest(header=pb.UploadHeader(file_id=file_id)), pb.UploadFileRequest(data=data)]
        if commit:
            messages.append(pb.UploadFileRequest(commit=pb.UploadCommit(sha256=digest)))
        for _ in self.stub.UploadFile(iter(messages)):
            pass

    def fail(self, file_id: str, data: bytes) -> None:
        """Send bytes with the digest of others."""
        try:
            self.send(file_id, data, digest=sha256(1))
        except grpc.RpcError:
            return
        raise AssertionError("a wrong digest was taken")

    def wait_final(self, file_id: str) -> None:
        """Wait until a file changes no more."""
        for _ in self.stub.WatchStatus(pb.WatchStatusRequest(file_ids=[file_id], until_final=True)):
            pass

    def cancel_by_socket(self, file_id: str, data: bytes) -> None:
        """Send over a WebSocket and close it, as a page does that is left."""
        with connect(f"ws://127.0.0.1:{self.server.http_port}/api/v1/upload/ws/{file_id}") as socket:
            socket.send(data)
        self.wait_final(file_id)

    def tus(self, filename: str, size: int, data: bytes) -> str:
        """Create an upload over tus and send its first bytes; returns its path."""
        metadata = f"filename {base64.b64encode(filename.encode()).decode()}"
        with httpx.Client(base_url=self.server.url, headers=TUS) as http:
            created = http.post("/api/v1/tus", headers={"Upload-Length": str(size), "Upload-Metadata": metadata})
            path = httpx.URL(created.raise_for_status().headers["Location"]).path
            headers = {"Upload-Offset": "0", "Content-Type": "application/offset+octet-stream"}
            http.patch(path, headers=headers, content=data).raise_for_status()
        return path


def fill(maker: Maker) -> Json:
    """Make files and batches in every state, through every door; returns what is to be gone on with."""
    maker.initiate("pending.bin", 10, content_type="application/pdf", sha256=sha256(10), request_id="initiate-1")
    maker.send(maker.initiate("empty.bin", 0), b"", digest=sha256(0))
    maker.send(maker.initiate("completed ü.bin", 3000, request_id="initiate-2"), content(3000))
    maker.fail(maker.initiate("failed.bin", 100), content(100))
    over_grpc = maker.initiate("cancelled/early.bin", 10)
    maker.call("CancelFile", {"file_id": over_grpc, "reason": 'a "reason"\n\\ 🗑', "request_id": "cancel-1"})
    token = _last_token(maker.stub)
    over_http = maker.initiate("cancelled/late.bin", 500)
    maker.send(over_http, content(200), commit=False)
    maker.post(f"/api/v1/upload/cancel/{over_http}", {"reason": "too late", "request_id": "cancel-2"})
    maker.cancel_by_socket(maker.initiate("cancelled/page.bin", 500), content(200))
    gone = maker.tus("cancelled/tus.bin", 500, content(100))
    httpx.delete(f"{maker.server.url}{gone}", headers=TUS).raise_for_status()
    fill_batches(maker)
    # Last of all, so that a list has it at its end.
    resumable = maker.initiate("resumable.bin", 40_000, sha256=sha256(40_000))
    maker.send(resumable, content(30_000), commit=False)
    return {
        "resume_token": token,
        "resumable": resumable,
        "tus": maker.tus("resumable by tus.bin", 5000, content(2000)),
    }


def fill_batches(maker: Maker) -> None:
    """Make batches in every state."""
    maker.batch("pending", [1, 2, 3], request_id="batch-1")
    _, files = maker.batch("processing", [5, 500, 7])
    maker.send(files[0], content(5))
    maker.send(files[1], content(100), commit=False)
    _, files = maker.batch("completed", [6, 7])
    for file_id, size in zip(files, (6, 7), strict=True):
        maker.send(file_id, content(size))
    _, files = maker.batch("failed", [8, 9])
    maker.send(files[0], content(8))
    maker.fail(files[1], content(9))
    half_way, files = maker.batch("cancelled half-way", [10, 11, 12, 13])
    maker.send(files[0], content(10))
    maker.fail(files[1], content(11))
    maker.send(files[2], content(3), commit=False)
    maker.call("CancelBatch", {"batch_id": half_way, "reason": "enough", "request_id": "cancel-batch-1"})
    _, files = maker.batch("cancelled one by one", [14, 15])
    for file_id in files:
        maker.call("CancelFile", {"file_id": file_id, "reason": "each"})


def _last_token(stub: Stub) -> str:
    watch = stub.WatchStatus(pb.WatchStatusRequest(all=True))
    token = next(message.resume_token for message in watch if message.HasField("bookmark"))
    watch.cancel()
    return token


def owe(data_dir: Path) -> Json:
    """Cancel a batch and kill the server before it has deleted the bytes; returns the cancel, to be asked again."""
    with ServerProcess(data_dir) as server, stub_on(server) as stub:
        maker = Maker(server, stub)
        batch_id, files = maker.batch("owed", [100] * OWED)
        for file_id in files:
            maker.send(file_id, content(50), commit=False)
        maker.call("CancelBatch", {"batch_id": batch_id, "request_id": "cancel-batch-2"})
        server.kill()
    # It reads only: the log that the killed server left is part of the fixture.
    with closing(sqlite3.connect(f"file:{data_dir / 'upload.sqlite3'}?mode=ro", uri=True)) as database:
        [(owed,)] = database.execute("SELECT count(*) FROM owed_deletion").fetchall()
    if not owed:
        raise AssertionError("the server was faster: once more, please")
    return {"requests": maker.requests}


def make(data_dir: Path) -> Json:
    """Make the data directory; returns what is to be asked of it."""
    with ServerProcess(data_dir) as server, stub_on(server) as stub:
        Maker(server, stub).initiate("expired.bin", 10)
        server.terminate()
    # The wall clock has to go on, which nobody can wait for otherwise.
    time.sleep(1.1)
    with ServerProcess(data_dir, ("--upload-ttl", "1s")) as server, stub_on(server) as stub:
        [expiring] = _listed(stub)
        Maker(server, stub).wait_final(expiring.file_id)
        server.terminate()
    with ServerProcess(data_dir) as server, stub_on(server) as stub:
        maker = Maker(server, stub)
        asked = fill(maker) | {"requests": maker.requests, "http_requests": maker.http_requests}
        # It seals the last events before it ends.
        server.terminate()
    asked["requests"] += owe(data_dir)["requests"]
    return asked


def anchor(data_dir: Path) -> str:
    """Return the newest hash of the audit chain, as an operator keeps it."""
    command = [sys.executable, "-m", "upload_server", "audit", "verify", "--json", "--data-dir", str(data_dir)]
    return str(json.loads(subprocess.run(command, check=True, capture_output=True).stdout)["anchor"])


def ids(data_dir: Path, folder: Path) -> Mapping[str, list[str]]:
    """Return the ids of all files and batches, in order of creation, from a copy."""
    shutil.copytree(data_dir, folder)
    with ServerProcess(folder, FOR_EVER) as server, stub_on(server) as stub:
        files = list(_listed(stub))
    batches = dict.fromkeys(file.batch_id for file in files if file.batch_id)
    return {"file_ids": [file.file_id for file in files], "batch_ids": list(batches)}


def main(folder: Path) -> None:
    """Make both files."""
    data_dir = folder / "data"
    asked = make(data_dir)
    with tarfile.open(HERE / "data.tar.gz", "w:gz") as archive:
        for path in sorted(data_dir.rglob("*")):
            if path.is_file() and not path.name.endswith((".lock", "-shm")):
                archive.add(path, path.relative_to(data_dir))
    asked = {**asked, "anchor": anchor(data_dir), **ids(data_dir, folder / "copy")}
    with ServerProcess(folder / "copy", FOR_EVER) as server:
        found = seen(server, asked)
        server.terminate()
    text = json.dumps({"asked": asked, "seen": found}, indent=1, ensure_ascii=False)
    (HERE / "seen.json").write_text(f"{text}\n", encoding="utf-8")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
