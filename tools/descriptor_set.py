"""Writes deploy/upload.binpb, the descriptors that Envoy's transcoder works from: `make descriptors`.

From the generated Python, not by `buf build`: the types of the error details belong to it too, and are not among our
protos. Deterministic.
"""

import sys
from pathlib import Path

from google.api import annotations_pb2
from google.protobuf.descriptor import FileDescriptor
from google.protobuf.descriptor_pb2 import FileDescriptorProto, FileDescriptorSet
from google.rpc import error_details_pb2, status_pb2

from upload.v1 import upload_pb2

_ROOTS = (upload_pb2.DESCRIPTOR, annotations_pb2.DESCRIPTOR, status_pb2.DESCRIPTOR, error_details_pb2.DESCRIPTOR)


def descriptor_set() -> bytes:
    """Every file that is needed, each after those it imports."""
    files: dict[str, FileDescriptorProto] = {}
    for root in _ROOTS:
        _collect(root, files)
    return FileDescriptorSet(file=files.values()).SerializeToString(deterministic=True)


def _collect(file: FileDescriptor, files: dict[str, FileDescriptorProto]) -> None:
    for dependency in file.dependencies:
        _collect(dependency, files)
    if file.name not in files:
        copy = FileDescriptorProto()
        file.CopyToProto(copy)
        files[file.name] = copy


if __name__ == "__main__":
    Path(sys.argv[1]).write_bytes(descriptor_set())
