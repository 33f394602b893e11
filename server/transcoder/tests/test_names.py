"""Fields that are named as the methods of every message are fields like any others, on every way in and out."""

from __future__ import annotations

from typing import Any

import pytest
from google.api import annotations_pb2
from google.api.http_pb2 import HttpRule
from google.protobuf import any_pb2, descriptor_pb2, descriptor_pool, duration_pb2
from google.protobuf.message import Message

from toy.asgi_client import request
from transcoder import build_app

METHODS = sorted({"Extensions", *(name for name in dir(Message) if not name.startswith("_"))})
LABEL = descriptor_pb2.FieldDescriptorProto.LABEL_OPTIONAL
STRING = descriptor_pb2.FieldDescriptorProto.TYPE_STRING
MESSAGE = descriptor_pb2.FieldDescriptorProto.TYPE_MESSAGE
Json = dict[str, Any]


class Servicer:
    """Echoes."""

    async def Call(self, request_message: Any, _context: Any) -> Any:  # noqa: N802
        return request_message


@pytest.fixture
def app() -> Any:
    pool = descriptor_pool.DescriptorPool()
    for needed in ("google/protobuf/descriptor.proto", "google/api/http.proto", "google/api/annotations.proto"):
        pool.AddSerializedFile(descriptor_pool.Default().FindFileByName(needed).serialized_pb)
    for module in (any_pb2, duration_pb2):
        pool.AddSerializedFile(module.DESCRIPTOR.serialized_pb)
    pool.Add(odd_file())
    return build_app([(pool.FindServiceByName("odd.Odds"), Servicer())])


def odd_file() -> descriptor_pb2.FileDescriptorProto:
    """A message with a field for each method, and all that makes the transcoder call one."""
    file = descriptor_pb2.FileDescriptorProto(name="odd.proto", package="odd", syntax="proto2")
    file.dependency.extend(
        [
            "google/api/annotations.proto",
            any_pb2.DESCRIPTOR.name,
            duration_pb2.DESCRIPTOR.name,
        ]
    )
    odd = file.message_type.add(name="Odd")
    for number, name in enumerate(METHODS, 1):
        odd.field.add(name=name, number=number, label=LABEL, type=STRING)
    for number, (name, kind) in enumerate(
        {"child": ".odd.Odd", "any": ".google.protobuf.Any", "time": ".google.protobuf.Duration"}.items(), 100
    ):
        odd.field.add(name=name, number=number, label=LABEL, type=MESSAGE, type_name=kind)
    odd.oneof_decl.add(name="either")
    for number, name in enumerate(("one", "other"), 110):
        odd.field.add(name=name, number=number, label=LABEL, type=STRING, oneof_index=0)
    odd.extension_range.add(start=1000, end=1001)
    file.extension.add(name="more", number=1000, label=LABEL, type=STRING, extendee=".odd.Odd")
    service = file.service.add(name="Odds")
    call = service.method.add(name="Call", input_type=".odd.Odd", output_type=".odd.Odd")
    rule = HttpRule(post="/whole", body="*")
    rule.additional_bindings.add(get="/path/{child.SetInParent}")
    rule.additional_bindings.add(post="/part", body="*", response_body="time")
    call.options.Extensions[annotations_pb2.http].CopyFrom(rule)  # type: ignore[index]
    return file


async def test_a_body_and_an_answer(app: Any) -> None:
    plain: Json = dict.fromkeys(METHODS, "x")
    odd = {**plain, "child": plain, "time": "1s", "one": "1", "[odd.more]": "2"}
    odd["any"] = {"@type": "x/odd.Odd", **plain}
    answer = await request(app, "POST", "/whole", odd)
    assert (answer.status, answer.json()) == (200, odd)


async def test_a_path_and_a_query(app: Any) -> None:
    answer = await request(app, "GET", "/path/a?child.Clear=b&child.child.HasField=c&child.time=2s&one=3&WhichOneof=d")
    child = {"SetInParent": "a", "Clear": "b", "child": {"HasField": "c"}, "time": "2s"}
    assert (answer.status, answer.json()) == (200, {"WhichOneof": "d", "one": "3", "child": child})
    assert (await request(app, "GET", "/path/a?one=1&other=2&WhichOneof=d")).status == 400


async def test_a_part_of_the_answer(app: Any) -> None:
    assert (await request(app, "POST", "/part", {"HasField": "x", "time": "3s"})).json() == "3s"
    assert (await request(app, "POST", "/part", {"HasField": "x"})).json() is None
