"""The toy services: echoes, failures of every kind, and streams that tell what happened to them."""

# ruff: noqa: N802 - methods are named by the protos

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Any

import grpc
from google.api.httpbody_pb2 import HttpBody
from google.protobuf.duration_pb2 import Duration
from google.protobuf.empty_pb2 import Empty
from google.protobuf.json_format import ParseDict
from google.protobuf.struct_pb2 import Struct
from google.rpc.error_details_pb2 import RetryInfo
from google.rpc.status_pb2 import Status

from toy import toy_edition_pb2, toy_legacy_pb2, toy_pb2
from transcoder import HttpContext, Transcoder, build_app

CODES = {code.value[0]: code for code in grpc.StatusCode}


class Shelves:
    """Answers with the request, and notes which method was called."""

    def __init__(self) -> None:
        self.called = ""

    async def GetBook(self, request: toy_pb2.Book, _context: HttpContext) -> toy_pb2.Book:
        self.called = "GetBook"
        return request

    async def CreateBook(self, request: toy_pb2.Book, _context: HttpContext) -> toy_pb2.Book:
        self.called = "CreateBook"
        return request

    async def UpdateBook(self, request: toy_pb2.UpdateBookRequest, _context: HttpContext) -> toy_pb2.Book:
        self.called = "UpdateBook"
        answer = toy_pb2.Book()
        answer.CopyFrom(request.book)
        answer.tag_list.extend(request.update_mask.paths)
        answer.shelf = "missing" if request.allow_missing else answer.shelf
        return answer

    async def DeleteBook(self, _request: toy_pb2.Book, _context: HttpContext) -> Empty:
        self.called = "DeleteBook"
        return Empty()

    async def CancelBook(self, request: toy_pb2.Book, _context: HttpContext) -> toy_pb2.Book:
        self.called = "CancelBook"
        return request

    async def StarBook(self, request: toy_pb2.Book, _context: HttpContext) -> toy_pb2.Book:
        self.called = "StarBook"
        return request

    async def DeepBook(self, request: toy_pb2.Book, _context: HttpContext) -> toy_pb2.Book:
        self.called = "DeepBook"
        return request

    async def AnyVerb(self, request: toy_pb2.Book, _context: HttpContext) -> toy_pb2.Book:
        self.called = "AnyVerb"
        return request


class Echoes:
    """Echoes, and fails in the way that it is asked to."""

    def __init__(self) -> None:
        self.last: Any = None
        self.context: HttpContext | None = None
        self.ended = asyncio.Event()
        self.entered = asyncio.Event()
        self.outcome = ""

    async def Echo(self, request: toy_pb2.Everything, _context: HttpContext) -> toy_pb2.Everything:
        self.last = request
        return request

    async def Fail(self, request: toy_pb2.FailRequest, context: HttpContext) -> Any:
        self.context = context
        code = CODES.get(request.code, grpc.StatusCode.OK)
        how = request.how or "abort"
        return await getattr(self, f"_{how}")(request, context, code)

    async def _abort(self, request: toy_pb2.FailRequest, context: HttpContext, code: grpc.StatusCode) -> None:
        status = Status(code=request.code, message=request.message, details=request.details)
        trailing = (("grpc-status-details-bin", status.SerializeToString()),) if request.details else ()
        await context.abort(code, request.message, trailing)

    async def _abort_swallowed(self, request: Any, context: HttpContext, code: grpc.StatusCode) -> Any:
        try:
            await context.abort(code, request.message)
        except Exception:  # noqa: BLE001 - what a careless handler does
            context.set_code(grpc.StatusCode.OK)
            context.set_details("too late")
            context.set_trailing_metadata(())
            return request

    async def _abort_bad_details(self, request: Any, context: HttpContext, code: grpc.StatusCode) -> None:
        await context.abort(code, request.message, (("grpc-status-details-bin", b"\xff\xff\xff"),))

    async def _abort_with_status(self, request: Any, context: HttpContext, code: grpc.StatusCode) -> None:
        @dataclass
        class Given(grpc.Status):
            code: grpc.StatusCode
            details: str
            trailing_metadata: Any

        status = Status(code=request.code, message=request.message, details=request.details)
        trailing = (("grpc-status-details-bin", status.SerializeToString()),)
        await context.abort_with_status(Given(code, request.message, trailing))

    async def _set_code(self, request: Any, context: HttpContext, code: grpc.StatusCode) -> None:
        context.set_code(code)
        context.set_details(request.message)

    async def _set_code_and_return(self, request: Any, context: HttpContext, code: grpc.StatusCode) -> Any:
        context.set_code(code)
        context.set_details(request.message)
        return request

    async def _none(self, *_unused: object) -> None:
        return None

    async def _wrong_type(self, *_unused: object) -> Any:
        return Empty()

    async def _raise(self, request: Any, *_unused: object) -> None:
        raise ValueError(f"secret {request.message}")

    async def _raise_with_code(self, request: Any, context: HttpContext, code: grpc.StatusCode) -> None:
        context.set_code(code)
        raise ValueError(f"secret {request.message}")

    async def _cancel(self, *_unused: object) -> None:
        raise asyncio.CancelledError

    async def _hang(self, *_unused: object) -> Any:
        self.entered.set()
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            self.outcome = "cancelled"
            raise
        finally:
            self.ended.set()

    async def _metadata(self, request: Any, context: HttpContext, _code: object) -> Any:
        await context.send_initial_metadata((("x-first", "1"), ("x-raw-bin", b"\x00\xff"), ("bad key", "x")))
        context.set_trailing_metadata((("x-last", "2"), ("x-break", "a\r\nb: c")))
        return request

    async def _metadata_and_abort(self, request: Any, context: HttpContext, code: grpc.StatusCode) -> None:
        await context.send_initial_metadata((("x-first", "1"),))
        await context.abort(code, request.message, (("x-last", "2"), ("www-authenticate", 'Basic realm="toy"')))

    async def Upload(self, request: toy_pb2.UploadRequest, _context: HttpContext) -> HttpBody:
        self.last = request
        return HttpBody(content_type=request.file.content_type, data=request.file.data)

    async def Blob(self, request: HttpBody, _context: HttpContext) -> toy_pb2.UploadRequest:
        self.last = request
        return toy_pb2.UploadRequest(name="ignored", file=request)

    async def Context(self, _request: toy_pb2.Book, context: HttpContext) -> Struct:
        self.context = context
        metadata: dict[str, list[str]] = {}
        for key, value in context.invocation_metadata():
            metadata.setdefault(key, []).append(value if isinstance(value, str) else value.hex())
        remaining = context.time_remaining()
        seen = {"metadata": metadata, "peer": context.peer(), "remaining": remaining}
        return ParseDict(seen, Struct())


@dataclass
class Streams:
    """Counts, and records how far it came and how it ended."""

    sent: int = 0
    outcome: str = ""
    ended: asyncio.Event = field(default_factory=asyncio.Event)
    entered: asyncio.Event = field(default_factory=asyncio.Event)
    go_on: asyncio.Event = field(default_factory=asyncio.Event)
    last: Any = None

    async def Count(self, request: toy_pb2.CountRequest, context: HttpContext) -> AsyncIterator[toy_pb2.CountResponse]:
        self.last = request
        self.entered.set()
        try:
            for number in range(1, (request.up_to or 0) + 1):
                if number == request.fail_at:
                    await self._fail(request, context)
                self.sent = number
                yield toy_pb2.CountResponse(number=number, token=f"t{number}", labels=["a", "b"])
            await self._end(request, context)
        except asyncio.CancelledError:
            self.outcome = "cancelled"
            raise
        except GeneratorExit:
            self.outcome = "closed"
            raise
        finally:
            self.ended.set()

    async def _fail(self, request: toy_pb2.CountRequest, context: HttpContext) -> None:
        if request.how == "raise":
            raise ValueError("secret")
        if request.how == "unauthenticated":
            await context.abort(grpc.StatusCode.UNAUTHENTICATED, "who are you")
        if request.how == "unavailable":
            status = Status(code=14, message="draining")
            status.details.add().Pack(RetryInfo(retry_delay=Duration(seconds=1, nanos=1)))
            trailing = (("grpc-status-details-bin", status.SerializeToString()),)
            await context.abort(grpc.StatusCode.UNAVAILABLE, "draining", trailing)
        await context.abort(grpc.StatusCode.FAILED_PRECONDITION, "stopped", (("x-last", "2"),))

    async def _end(self, request: toy_pb2.CountRequest, context: HttpContext) -> None:
        if request.how == "hang":
            await asyncio.Event().wait()
        if request.how == "wait":
            await self.go_on.wait()
        if request.how == "drain":
            await self.go_on.wait()
            await context.abort(grpc.StatusCode.UNAVAILABLE, "shutting down")
        if request.how == "set_code":
            context.set_code(grpc.StatusCode.DATA_LOSS)
            context.set_details("at the end")

    async def Download(self, request: toy_pb2.CountRequest, context: HttpContext) -> AsyncIterator[HttpBody]:
        for number in range(1, request.up_to + 1):
            if number == request.fail_at:
                await self._fail(request, context)
            yield HttpBody(content_type="text/x-toy" if number == 1 else "", data=b"%d\n" % number)


class Plain:
    """Echoes for the services of the other syntaxes."""

    async def Echo(self, request: Any, _context: HttpContext) -> Any:
        return request


@dataclass
class Toy:
    """The app over all toy services, with the servicers in reach."""

    app: Transcoder
    shelves: Shelves
    echoes: Echoes
    streams: Streams


def make_toy(**options: Any) -> Toy:
    """A fresh app; `options` are build_app's."""
    shelves, echoes, streams = Shelves(), Echoes(), Streams()
    services = toy_pb2.DESCRIPTOR.services_by_name
    app = build_app(
        [
            (services["Shelves"], shelves),
            (services["Echoes"], echoes),
            (services["Streams"], streams),
            (toy_legacy_pb2.DESCRIPTOR.services_by_name["Legacy"], Plain()),
            (toy_edition_pb2.DESCRIPTOR.services_by_name["Edition"], Plain()),
        ],
        **{"sse_id_field": "token", "sse_resume_field": "resume_token", **options},
    )
    return Toy(app, shelves, echoes, streams)
