"""Decides what gRPC reflection tells, under both of its names: v1, which new tools ask for, and v1alpha.

Must not know what the services do.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterable
from typing import Any, Final

import grpc
from google.protobuf import text_format
from google.protobuf.descriptor import FileDescriptor
from google.protobuf.descriptor_pb2 import FileDescriptorProto
from google.protobuf.descriptor_pool import Default, DescriptorPool
from grpc_reflection.v1alpha import reflection, reflection_pb2

from upload_server.domain.errors import UploadError
from upload_server.doors.calls import Calls, abort

_NAMES: Final = ("grpc.reflection.v1.ServerReflection", reflection.SERVICE_NAME)


def _v1() -> DescriptorPool:
    """A pool of the newer name's messages, which are the same on the wire; grpcio has no generated code of them."""
    file = FileDescriptorProto.FromString(reflection_pb2.DESCRIPTOR.serialized_pb)
    pool = DescriptorPool()
    pool.Add(text_format.Parse(str(file).replace("v1alpha", "v1"), FileDescriptorProto()))
    return pool


class _Symbols:
    """All generated code and v1. Finds the file of a method too, which protobuf's own pool does not."""

    def __init__(self) -> None:
        self._pools = (Default(), _v1())

    def __getattr__(self, name: str) -> Any:
        return getattr(self._pools[0], name)

    def FindFileByName(self, name: str) -> FileDescriptor:  # noqa: N802 - protobuf's name
        """Return the file of that name; raises KeyError."""
        return self._first(lambda pool: pool.FindFileByName(name))

    def FindFileContainingSymbol(self, name: str) -> FileDescriptor:  # noqa: N802 - protobuf's name
        """Return the file that declares a message, a service, a method; raises KeyError."""
        try:
            return self._first(lambda pool: pool.FindFileContainingSymbol(name))
        except KeyError:
            return self._first(lambda pool: pool.FindMethodByName(name).containing_service.file)

    def _first(self, find: Callable[[Any], FileDescriptor]) -> FileDescriptor:
        try:
            return find(self._pools[0])
        except KeyError:
            return find(self._pools[1])


class _Reflection:
    """Reflection, for whoever has said who they are."""

    def __init__(self, names: Iterable[str], calls: Calls) -> None:
        self._served = reflection.aio.ReflectionServicer(names, _Symbols())
        self._calls = calls

    async def info(self, requests: Any, context: Any) -> AsyncIterator[Any]:
        """Answer what is asked."""
        try:
            await self._calls.identify("Reflection", context)
        except UploadError as error:
            await abort(context, error)
        async for answer in self._served.ServerReflectionInfo(requests, context):
            yield answer


def add_reflection(server: grpc.aio.Server, names: Iterable[str], calls: Calls) -> None:
    """Have the server tell of these services and of reflection itself."""
    handler = grpc.stream_stream_rpc_method_handler(
        _Reflection([*names, *_NAMES], calls).info,
        reflection_pb2.ServerReflectionRequest.FromString,
        reflection_pb2.ServerReflectionResponse.SerializeToString,
    )
    for name in _NAMES:
        server.add_registered_method_handlers(name, {"ServerReflectionInfo": handler})
