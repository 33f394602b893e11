"""A grpc.aio server whose CancelFile does nothing: the limit of any CancelFile in Python."""

from __future__ import annotations

import asyncio
import os
import sys

import grpc
import uvloop
from grpc_health.v1 import health, health_pb2, health_pb2_grpc

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
    print(server.add_insecure_port("127.0.0.1:0"), flush=True)
    await server.start()
    await server.wait_for_termination()


if __name__ == "__main__":
    if "batch" in sys.argv:
        os.sched_setscheduler(0, os.SCHED_BATCH, os.sched_param(0))
    with asyncio.Runner(loop_factory=uvloop.new_event_loop if "uvloop" in sys.argv else None) as runner:
        runner.run(serve())
