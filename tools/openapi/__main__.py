"""A protoc plugin: grpc-gateway's protoc-gen-openapiv3 with proto field names, its document finished by this package.

buf gives descriptors on standard input and takes the files on standard output (see buf.gen.openapi.yaml).
"""

import json
import os
import subprocess
import sys

from google.protobuf.compiler import plugin_pb2
from google.protobuf.descriptor_pb2 import DescriptorProto

from tools.openapi.finish import finish

# A maintained generator that writes 3.1 and takes path variables out of the body. `go run` with a version fetches and
# builds it once and needs no go.mod here.
GENERATOR = "github.com/grpc-ecosystem/grpc-gateway/v2/protoc-gen-openapiv3@v2.33.0"


def main() -> None:
    """Answer one request of buf."""
    request = plugin_pb2.CodeGeneratorRequest.FromString(sys.stdin.buffer.read())
    sys.stdout.buffer.write(respond(request).SerializeToString())


def respond(request: plugin_pb2.CodeGeneratorRequest) -> plugin_pb2.CodeGeneratorResponse:
    """Return the one finished document."""
    for proto in request.proto_file:
        for message in proto.message_type:
            _use_proto_names(message)
    response = _generate(request)
    if response.error:
        return response
    (file,) = response.file
    document = finish(json.loads(file.content), request.proto_file)
    file.name = "openapi.json"
    file.content = json.dumps(document, indent=2, ensure_ascii=False) + "\n"
    return response


def _use_proto_names(message: DescriptorProto) -> None:
    """The generator names fields by their JSON names and has no option for the others, which the service prints."""
    for field in message.field:
        field.json_name = field.name
    for nested in message.nested_type:
        _use_proto_names(nested)


def _generate(request: plugin_pb2.CodeGeneratorRequest) -> plugin_pb2.CodeGeneratorResponse:
    # cgo would ask for a C compiler; the plugin has no use for it.
    environment = {**os.environ, "CGO_ENABLED": "0"}
    command = ["go", "run", GENERATOR]
    answer = subprocess.check_output(command, input=request.SerializeToString(), env=environment)  # noqa: S603 - fixed
    return plugin_pb2.CodeGeneratorResponse.FromString(answer)


if __name__ == "__main__":
    main()
