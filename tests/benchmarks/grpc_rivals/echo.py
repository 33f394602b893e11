"""grpc.aio and asyncio alone: a GetFile that finds nothing, a body that is only read; with TLS if files are named."""

from __future__ import annotations

import asyncio
import re
import ssl
import sys
from pathlib import Path
from typing import Any

import grpc
import uvloop

from upload.v1 import upload_pb2 as pb

_END = b"\r\n\r\n"
_CHUNKS = 1 << 60


async def get_file(_request: pb.GetFileRequest, context: Any) -> pb.File:
    """Find nothing."""
    await context.abort(grpc.StatusCode.NOT_FOUND, "no such file")
    raise AssertionError("abort returned")


class Reader(asyncio.Protocol):
    """Answers each request once its body has come, of which it keeps nothing."""

    def __init__(self) -> None:
        self._head = b""
        self._left = -1

    def connection_made(self, transport: Any) -> None:
        """Begin."""
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        """Read on."""
        if self._left < 0:
            self._head += data
            if _END not in self._head:
                return
            head, _, data = self._head.partition(_END)
            self._head = b""
            found = re.search(rb"content-length: *(\d+)", head.lower())
            self._left = int(found[1]) if found else 0
            if b"transfer-encoding" in head.lower():
                # The last chunk says that it is.
                self._left = _CHUNKS
        self._left -= len(data)
        if self._left <= 0 or (self._left > _CHUNKS // 2 and data.endswith(b"0\r\n\r\n")):
            self._left = -1
            self._transport.write(b"HTTP/1.1 201 Created\r\nLocation: /x\r\nContent-Length: 0\r\n\r\n")


async def serve(files: list[Path]) -> None:
    """Serve on free ports, printed on the first line."""
    server = grpc.aio.server()
    handler = grpc.unary_unary_rpc_method_handler(get_file, pb.GetFileRequest.FromString, pb.File.SerializeToString)
    server.add_generic_rpc_handlers(
        (grpc.method_handlers_generic_handler("upload.v1.UploadService", {"GetFile": handler}),)
    )
    context = None
    if files:
        cert, key = files
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(cert, key)
        port = server.add_secure_port(
            "127.0.0.1:0", grpc.ssl_server_credentials([(key.read_bytes(), cert.read_bytes())])
        )
    else:
        port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    http = await asyncio.get_running_loop().create_server(Reader, "127.0.0.1", 0, ssl=context)
    print(port, http.sockets[0].getsockname()[1], flush=True)
    await server.wait_for_termination()


if __name__ == "__main__":
    uvloop.run(serve([Path(name) for name in sys.argv[1:]]))
