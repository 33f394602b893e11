"""A toy service over HTTP and JSON: ``python serve.py``, then ``curl localhost:8000/v1/hello/world``."""

import greeter_pb2 as pb
import grpc
import uvicorn

from transcoder import build_app


class Greeter:
    async def SayHello(self, request, context):
        if request.name == "nobody":
            await context.abort(grpc.StatusCode.NOT_FOUND, "nobody is here")
        return pb.HelloReply(message=f"Hello, {request.name}!")

    async def Count(self, request, context):
        for number in range(1, request.up_to + 1):
            yield pb.CountReply(number=number)


app = build_app([(pb.DESCRIPTOR.services_by_name["Greeter"], Greeter())])

if __name__ == "__main__":
    uvicorn.run(app, port=8000)
