"""Counts the functions of ours that one cancel enters: `make hops`.

A whole server runs in this process on real sockets; a plain gRPC or HTTP client in another thread cancels a file. A
profile hook on every thread notes each call of a function that lies in the server's or the transcoder's folder, from
the request until nothing runs any more: the client has the answer and, with a stream and a watcher, the sender has
`stopped`, the watcher its event, and the bytes are deleted. The sealer starts 0.1 s later and is not counted.
Counted is every function once, however often it runs; lambdas and comprehensions belong to the function around them,
and a coroutine that goes on is not entered again. A function that some round does not enter is none of the cancel's: a
timer fired.
"""

from __future__ import annotations

import argparse
import asyncio
import dis
import http.client
import itertools
import queue
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from types import CodeType, FrameType

import grpc
import structlog

import upload_server
from upload.v1 import upload_pb2 as pb
from upload.v1 import upload_pb2_grpc
from upload_server.options import load
from upload_server.start import serve

_SERVER = Path(upload_server.__file__ or "").parent
# The transcoder's package lies beside the server's.
_FOLDERS = (f"{_SERVER}/", f"{_SERVER.parent}/transcoder/transcoder/")
_RESUME = dis.opmap["RESUME"]
_SECONDS = 10.0
# Nothing runs any more: for so long no function was entered. Before a cancel the seal of the file's creation is
# waited for; after it the deletion of the bytes, but not the seal.
_REST_BEFORE = 0.15
_REST_AFTER = 0.04


class Recorder:
    """Notes the functions that are entered, in order."""

    def __init__(self) -> None:
        self._entered: list[CodeType] = []

    def hook(self, frame: FrameType, event: str, _: object) -> None:
        """Take an event of ``sys.setprofile``."""
        code = frame.f_code
        if event != "call" or code.co_name.startswith("<") or not code.co_filename.startswith(_FOLDERS):
            return
        if not _goes_on(frame):
            self._entered.append(code)

    def start(self) -> None:
        """Begin a list once the server rests."""
        self._rest(_REST_BEFORE)
        self._entered = []

    def stop(self) -> list[CodeType]:
        """End the list once the server rests; returns each function once, in the order of their first calls."""
        self._rest(_REST_AFTER)
        return list(dict.fromkeys(self._entered))

    def _rest(self, seconds: float) -> None:
        """Wait until no function was entered for ``seconds``: nothing tells that a server has no more to do."""
        count = -1
        while count != len(self._entered):
            count = len(self._entered)
            time.sleep(seconds)


def _goes_on(frame: FrameType) -> bool:
    """Whether the frame is a coroutine or a generator that continues: its ``RESUME`` says after what."""
    operation, argument = frame.f_code.co_code[frame.f_lasti : frame.f_lasti + 2]
    return operation == _RESUME and argument & 3 != 0


class Client:
    """Calls the server from a thread of its own, over connections that are open before anything is counted."""

    def __init__(self, grpc_port: int, http_port: int) -> None:
        self._channel = grpc.insecure_channel(f"127.0.0.1:{grpc_port}")
        self._stub: upload_pb2_grpc.UploadServiceStub = upload_pb2_grpc.UploadServiceStub(self._channel)
        self._http = http.client.HTTPConnection("127.0.0.1", http_port, timeout=_SECONDS)

    def initiate(self) -> str:
        """Announce a file."""
        request = pb.InitiateUploadRequest(filename="example.pdf", size_bytes=100)
        return self._stub.InitiateUpload(request, timeout=_SECONDS).file.file_id

    def cancel_grpc(self, file_id: str) -> None:
        """Cancel over gRPC."""
        self._stub.CancelFile(pb.CancelFileRequest(file_id=file_id, reason="wrong file"), timeout=_SECONDS)

    def cancel_http(self, file_id: str) -> None:
        """Cancel over HTTP."""
        headers = {"Content-Type": "application/json"}
        self._http.request("POST", f"/api/v1/upload/cancel/{file_id}", '{"reason": "wrong file"}', headers)
        answer = self._http.getresponse()
        text = answer.read()
        if answer.status != http.HTTPStatus.OK:
            raise RuntimeError(text)

    def upload(self, sent: queue.SimpleQueue[pb.UploadFileRequest | None]) -> Iterator[str]:
        """Open a stream; yields the kinds of the server's messages."""
        requests: Iterator[pb.UploadFileRequest] = iter(sent.get, None)
        for message in self._stub.UploadFile(requests, timeout=_SECONDS):
            yield str(message.WhichOneof("message"))

    def watch(self, file_id: str) -> Iterator[pb.WatchStatusResponse]:
        """Watch a file to its final state."""
        yield from self._stub.WatchStatus(pb.WatchStatusRequest(file_ids=[file_id], until_final=True), timeout=_SECONDS)

    def close(self) -> None:
        """Hang up."""
        self._channel.close()
        self._http.close()


class Listeners:
    """A sender with an open stream and a watcher of one file, each waiting in a thread for the cancel."""

    def __init__(self, client: Client, file_id: str, threads: ThreadPoolExecutor) -> None:
        self._sent: queue.SimpleQueue[pb.UploadFileRequest | None] = queue.SimpleQueue()
        self._sent.put(pb.UploadFileRequest(header=pb.UploadHeader(file_id=file_id)))
        self._upload = client.upload(self._sent)
        next(self._upload)
        self._sent.put(pb.UploadFileRequest(data=b"x" * 10))
        # The ten bytes are durable.
        next(self._upload)
        self._watch = client.watch(file_id)
        while next(self._watch).WhichOneof("event") != "bookmark":
            pass
        self._hear: list[Future[None]] = [threads.submit(self._hear_stopped), threads.submit(self._hear_cancelled)]

    def wait(self) -> None:
        """Wait until both have heard of the cancel."""
        for heard in self._hear:
            heard.result(_SECONDS)

    def close(self) -> None:
        """Let go of the stream and of the watch."""
        self._sent.put(None)
        for stream in (self._upload, self._watch):
            try:
                for _ in stream:
                    pass
            except grpc.RpcError:
                pass  # ABORTED, as it must be for a cancelled file.

    def _hear_stopped(self) -> None:
        while next(self._upload) != "stopped":
            pass

    def _hear_cancelled(self) -> None:
        while next(self._watch).file.status != pb.UPLOAD_STATUS_CANCELLED:
            pass


class Count:
    """Counts cancels on a running server, from the client's thread."""

    def __init__(self, client: Client, recorder: Recorder) -> None:
        self._client = client
        self._recorder = recorder

    def functions(self, cancel: Callable[[str], None], rounds: int, *, heard: bool) -> list[CodeType]:
        """Return the functions that each of ``rounds`` cancels entered; ``heard``: by a sender and a watcher."""
        entered = [self._one(cancel, heard=heard) for _ in range(rounds + 1)]
        # The first one fills caches.
        always = set.intersection(*map(set, entered[1:]))
        return [code for code in entered[-1] if code in always]

    def _one(self, cancel: Callable[[str], None], *, heard: bool) -> list[CodeType]:
        file_id = self._client.initiate()
        with ThreadPoolExecutor() as threads:
            listeners = Listeners(self._client, file_id, threads) if heard else None
            self._recorder.start()
            cancel(file_id)
            if listeners:
                listeners.wait()
            entered = self._recorder.stop()
            if listeners:
                listeners.close()
        return entered


def measure(rounds: int) -> dict[str, list[CodeType]]:
    """Run a server and count; returns the functions by what is cancelled."""
    found: dict[str, list[CodeType]] = {}

    def count(client: Client, recorder: Recorder) -> None:
        counted = Count(client, recorder)
        doors = (("gRPC", client.cancel_grpc), ("HTTP", client.cancel_http))
        for heard, (door, cancel) in itertools.product((False, True), doors):
            what = "with a stream and a watcher" if heard else "pending file"
            found[f"{door}, {what}"] = counted.functions(cancel, rounds, heard=heard)
        client.close()

    asyncio.run(_serve_while(count))
    return found


async def _serve_while(count: Callable[[Client, Recorder], None]) -> None:
    """Run ``count`` in a thread beside a server of which every thread is hooked."""
    loop, stop, recorder = asyncio.get_running_loop(), asyncio.Event(), Recorder()
    counting: list[asyncio.Future[None]] = []

    def started(grpc_port: int, http_port: int) -> None:
        client = Client(grpc_port, http_port)
        counting.append(loop.run_in_executor(None, count, client, recorder))
        counting[0].add_done_callback(lambda _: stop.set())

    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger("critical"))
    threading.setprofile(recorder.hook)
    sys.setprofile(recorder.hook)
    with tempfile.TemporaryDirectory() as folder:
        options = {"data_dir": folder, "grpc_port": "0", "http_port": "0"}
        await serve(load(options, {}), stop, started)
    sys.setprofile(None)
    threading.setprofile(None)
    await counting[0]


def place(code: CodeType) -> str:
    """Return a function's file, seen from the server's folder, and its name."""
    return f"{Path(code.co_filename).relative_to(_SERVER.parent)}: {code.co_qualname}"


def main(arguments: Sequence[str] | None = None) -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(prog="tools.hops", description=__doc__)
    parser.add_argument("--rounds", type=int, default=5, help="cancels of each kind (5)")
    parser.add_argument("--list", action="store_true", help="print the functions too, in order of their first call")
    options = parser.parse_args(arguments)
    found = measure(options.rounds)
    for name, functions in found.items():
        files = len({code.co_filename for code in functions})
        print(f"{name:34} {len(functions):4} functions {files:4} files")
        if options.list:
            print(*(f"    {place(code)}" for code in functions), sep="\n")


if __name__ == "__main__":
    main()
