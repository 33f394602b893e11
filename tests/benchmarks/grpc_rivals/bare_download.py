"""A DownloadFile by hand: grpc.aio with generated messages of the same size, out of memory or of an object store."""

from __future__ import annotations

import sys
from collections.abc import AsyncIterator

import grpc
import obstore
from obstore.store import S3Store

from benchmarks.grpc_rivals.running import run, serve_until_killed
from support import object_store
from upload.v1 import upload_pb2 as pb

PIECE = bytes(256 * 1024)


async def from_memory(
    request: pb.DownloadFileRequest,  # noqa: ARG001
    context: object,  # noqa: ARG001
) -> AsyncIterator[pb.DownloadFileResponse]:
    """Send as many bytes as the program was told."""
    for _ in range(int(sys.argv[1]) // len(PIECE)):
        yield pb.DownloadFileResponse(data=PIECE)


async def from_object_store(
    request: pb.DownloadFileRequest,
    context: object,  # noqa: ARG001
) -> AsyncIterator[pb.DownloadFileResponse]:
    """Send the object that is named by the file's id, out of the bucket that the program was told."""
    endpoint, bucket = sys.argv[1].rsplit("/", 1)
    answer = await obstore.get_async(store_at(endpoint, bucket), request.file_id)
    async for block in answer.stream(len(PIECE)):
        for first in range(0, len(block), len(PIECE)):
            yield pb.DownloadFileResponse(data=block[first : first + len(PIECE)])


def store_at(endpoint: str, bucket: str) -> S3Store:
    """Return a bucket of the tests' own, as obstore opens it."""
    return S3Store(
        bucket,
        endpoint=endpoint,
        region=object_store.REGION,
        access_key_id=object_store.ACCESS_KEY,
        secret_access_key=object_store.SECRET_KEY,
        client_options={"allow_http": True, "timeout": "600s"},
    )


async def serve() -> None:
    """Serve on a free port, printed on the first line."""
    server = grpc.aio.server()
    handler = grpc.unary_stream_rpc_method_handler(
        from_memory if sys.argv[1].isdigit() else from_object_store,
        pb.DownloadFileRequest.FromString,
        pb.DownloadFileResponse.SerializeToString,
    )
    generic = grpc.method_handlers_generic_handler("upload.v1.UploadService", {"DownloadFile": handler})
    server.add_generic_rpc_handlers((generic,))
    await serve_until_killed(server)


if __name__ == "__main__":
    run(serve)
