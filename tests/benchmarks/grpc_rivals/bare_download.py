"""A DownloadFile by hand: grpc.aio with generated messages of the same size, out of memory."""

from __future__ import annotations

import sys
from collections.abc import AsyncIterator

import grpc

from benchmarks.grpc_rivals.running import run, serve_until_killed
from upload.v1 import upload_pb2 as pb

PIECE = bytes(256 * 1024)


async def download_file(
    request: pb.DownloadFileRequest,  # noqa: ARG001
    context: object,  # noqa: ARG001
) -> AsyncIterator[pb.DownloadFileResponse]:
    """Send as many bytes as the program was told."""
    for _ in range(int(sys.argv[1]) // len(PIECE)):
        yield pb.DownloadFileResponse(data=PIECE)


async def serve() -> None:
    """Serve on a free port, printed on the first line."""
    server = grpc.aio.server()
    handler = grpc.unary_stream_rpc_method_handler(
        download_file, pb.DownloadFileRequest.FromString, pb.DownloadFileResponse.SerializeToString
    )
    generic = grpc.method_handlers_generic_handler("upload.v1.UploadService", {"DownloadFile": handler})
    server.add_generic_rpc_handlers((generic,))
    await serve_until_killed(server)


if __name__ == "__main__":
    run(serve)
