"""A grpc.aio server whose CancelFile does nothing: the limit of any CancelFile in Python."""

from __future__ import annotations

import grpc
from grpc_health.v1 import health, health_pb2, health_pb2_grpc

from benchmarks.grpc_rivals.running import run, serve_until_killed
from upload.v1 import upload_pb2 as pb

SERVICE = "upload.v1.UploadService"


async def cancel_file(request: pb.CancelFileRequest, context: object) -> pb.CancelFileResponse:  # noqa: ARG001
    """Return an answer of the usual size."""
    answer = pb.CancelFileResponse(
        message="Upload cancelled successfully", file_id=request.file_id, filename="example.pdf"
    )
    answer.cancelled_at.GetCurrentTime()
    return answer


async def serve() -> None:
    """Serve on a free port, printed on the first line."""
    server = grpc.aio.server()
    handler = grpc.unary_unary_rpc_method_handler(
        cancel_file, pb.CancelFileRequest.FromString, pb.CancelFileResponse.SerializeToString
    )
    generic = grpc.method_handlers_generic_handler(SERVICE, {"CancelFile": handler})
    server.add_generic_rpc_handlers((generic,))
    # A proxy in front sends calls only where it is told that all is well; asked after the above, so calls pay nothing.
    alive = health.aio.HealthServicer()
    await alive.set(SERVICE, health_pb2.HealthCheckResponse.SERVING)
    health_pb2_grpc.add_HealthServicer_to_server(alive, server)
    await serve_until_killed(server)


if __name__ == "__main__":
    run(serve)
