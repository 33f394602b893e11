"""An UploadFile by hand: grpc.aio with generated messages that writes, hashes and syncs as we do, and no more."""

from __future__ import annotations

import hashlib
import os
import sys
from collections.abc import AsyncIterator

import grpc

from benchmarks.grpc_rivals.running import run, serve_until_killed
from upload.v1 import upload_pb2 as pb

SYNC_BYTES = 8 * 1024 * 1024


async def upload_file(
    requests: AsyncIterator[pb.UploadFileRequest],
    context: object,  # noqa: ARG001
) -> AsyncIterator[pb.UploadFileResponse]:
    """Take one file into a file of its own."""
    digest, unsynced, received = hashlib.sha256(), 0, 0
    descriptor = os.open(sys.argv[1], os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    try:
        async for request in requests:
            kind = request.WhichOneof("message")
            if kind == "data":
                data = request.data
                os.write(descriptor, data)
                digest.update(data)
                received += len(data)
                unsynced += len(data)
                if unsynced >= SYNC_BYTES:
                    os.fdatasync(descriptor)
                    unsynced = 0
                    yield pb.UploadFileResponse(progress=pb.UploadProgress(bytes_received=received))
            elif kind == "commit":
                os.fdatasync(descriptor)
                yield pb.UploadFileResponse(completed=pb.File(sha256=digest.hexdigest()))
    finally:
        os.close(descriptor)


async def serve() -> None:
    """Serve on a free port, printed on the first line."""
    server = grpc.aio.server(options=[("grpc.max_receive_message_length", 8 * 1024 * 1024)])
    handler = grpc.stream_stream_rpc_method_handler(
        upload_file, pb.UploadFileRequest.FromString, pb.UploadFileResponse.SerializeToString
    )
    generic = grpc.method_handlers_generic_handler("upload.v1.UploadService", {"UploadFile": handler})
    server.add_generic_rpc_handlers((generic,))
    await serve_until_killed(server)


if __name__ == "__main__":
    run(serve)
