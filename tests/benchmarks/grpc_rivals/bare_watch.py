"""A WatchStatus by hand: grpc.aio with generated messages, a queue and a generator per stream, nothing stored."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import grpc

from benchmarks.grpc_rivals.running import run, serve_until_killed
from upload.v1 import upload_pb2 as pb

TOKEN = "x" * 38


class Watchable:
    """A CancelFile that puts its event into every stream's queue."""

    def __init__(self) -> None:
        self._queues: set[asyncio.Queue[pb.WatchStatusResponse]] = set()

    async def cancel_file(self, request: pb.CancelFileRequest, context: object) -> pb.CancelFileResponse:  # noqa: ARG002
        """Tell everybody."""
        file = pb.File(file_id=request.file_id, filename="example.pdf", status=pb.UPLOAD_STATUS_CANCELLED, revision=2)
        file.cancelled_by, file.cancel_reason, file.size_bytes = "user", request.reason, 1
        for time in (file.created_at, file.updated_at, file.cancelled_at):
            time.GetCurrentTime()
        event = pb.WatchStatusResponse(file=file, resume_token=TOKEN)
        for queue in self._queues:
            queue.put_nowait(event)
        return pb.CancelFileResponse(message="Upload cancelled successfully", file_id=request.file_id)

    async def watch_status(
        self,
        request: pb.WatchStatusRequest,  # noqa: ARG002
        context: object,  # noqa: ARG002
    ) -> AsyncIterator[pb.WatchStatusResponse]:
        """Yield what comes."""
        queue: asyncio.Queue[pb.WatchStatusResponse] = asyncio.Queue()
        self._queues.add(queue)
        try:
            yield pb.WatchStatusResponse(bookmark=pb.Bookmark(), resume_token=TOKEN)
            while True:
                yield await queue.get()
        finally:
            self._queues.discard(queue)


async def serve() -> None:
    """Serve on a free port, printed on the first line."""
    watchable = Watchable()
    server = grpc.aio.server()
    cancel = grpc.unary_unary_rpc_method_handler(
        watchable.cancel_file, pb.CancelFileRequest.FromString, pb.CancelFileResponse.SerializeToString
    )
    watch = grpc.unary_stream_rpc_method_handler(
        watchable.watch_status, pb.WatchStatusRequest.FromString, pb.WatchStatusResponse.SerializeToString
    )
    handlers: dict[str, grpc.RpcMethodHandler[Any, Any]] = {"CancelFile": cancel, "WatchStatus": watch}
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("upload.v1.UploadService", handlers),))
    await serve_until_killed(server)


if __name__ == "__main__":
    run(serve)
