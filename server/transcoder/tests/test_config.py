"""Mistakes in a declaration raise when the app is built, and say where."""

import inspect
from pathlib import Path
from typing import Any

import pytest
from google.api import annotations_pb2
from google.api.http_pb2 import HttpRule
from google.protobuf import descriptor_pb2, descriptor_pool
from google.protobuf.descriptor import ServiceDescriptor
from google.protobuf.text_format import Parse

from toy import toy_pb2
from toy.asgi_client import request
from transcoder import RequestLimits, TranscodingConfigError, build_app

DEPENDENCIES = (
    "google/protobuf/descriptor.proto",
    "google/protobuf/any.proto",
    "google/protobuf/timestamp.proto",
    "google/protobuf/duration.proto",
    "google/protobuf/field_mask.proto",
    "google/protobuf/struct.proto",
    "google/protobuf/wrappers.proto",
    "google/protobuf/empty.proto",
    "google/api/http.proto",
    "google/api/annotations.proto",
    "google/api/httpbody.proto",
    "toy/toy.proto",
)


class Servicer:
    """Has every method, as an echo."""

    async def Call(self, request_message: Any, _context: Any) -> Any:  # noqa: N802
        return request_message


def service(*rules: str, request_type: str = ".toy.v1.Everything", **method: bool) -> ServiceDescriptor:
    """A service in a pool of its own, whose one method has these rules (the first with the rest added)."""
    pool = descriptor_pool.DescriptorPool()
    for name in DEPENDENCIES:
        found = descriptor_pool.Default().FindFileByName(name)
        pool.AddSerializedFile(found.serialized_pb)
    file = descriptor_pb2.FileDescriptorProto(name="made.proto", package="made", syntax="proto3")
    file.dependency.extend(["google/api/annotations.proto", "toy/toy.proto"])
    call = file.service.add(name="Made").method.add(
        name="Call", input_type=request_type, output_type=request_type, **method
    )
    if rules:
        first, *others = (Parse(rule, HttpRule()) for rule in rules)
        first.additional_bindings.extend(others)
        call.options.Extensions[annotations_pb2.http].CopyFrom(first)  # type: ignore[index]
    pool.AddSerializedFile(file.SerializeToString())
    return pool.FindServiceByName("made.Made")


def build(*rules: str, **method: Any) -> Any:
    return build_app([(service(*rules, **method), Servicer())])


@pytest.mark.parametrize(
    ("rule", "reason"),
    [
        ('get: ""', "must begin"),
        ('get: "v1"', "must begin"),
        ('get: "/v1/"', "empty"),
        ('get: "/v1/{string_value"', "not closed"),
        ('get: "/v1/**/x"', "last"),
        ('get: "/v1/{nope}"', "no field 'nope'"),
        ('get: "/v1/{child.nope}"', "no field 'child.nope'"),
        ('get: "/v1/{string_value.x}"', "no field"),
        ('get: "/v1/{stringValue}"', "no field"),
        ('get: "/v1/{strings}"', "repeated"),
        ('get: "/v1/{child}"', "message"),
        ('get: "/v1/{children}"', "message"),
        ('get: "/v1/{children.number}"', "no field"),
        ('get: "/v1/{string_to_int}"', "map"),
        ('get: "/v1/{string_to_int.key}"', "no field"),
        ('get: "/v1/{struct}"', "message"),
        ('get: "/v1/{value}"', "message"),
        ('get: "/v1/{any}"', "message"),
        ('get: "/v1/{any.type_url}"', "no field"),
        ('get: "/v1/{empty}"', "message"),
        ('get: "/v1/{string_value}/{string_value}"', "twice"),
        ('get: "/v1/{choice_text}/{choice_number}"', "oneof"),
        ('post: "/v1" body: "nope"', "no top-level field"),
        ('post: "/v1" body: "stringValue"', "no top-level field"),
        ('post: "/v1" body: "child.number"', "no top-level field"),
        ('post: "/v1/{string_value}" body: "string_value"', "by the path and by the body"),
        ('get: "/v1" response_body: "nope"', "no top-level field"),
        ('get: "/v1" response_body: "*"', "no top-level field"),
        ('get: "/v1" body: "*"', "takes no body"),
        ('custom { kind: "HEAD" path: "/v1" } body: "*"', "takes no body"),
    ],
)
def test_a_rule_that_is_wrong(rule: str, reason: str) -> None:
    with pytest.raises(TranscodingConfigError, match=reason) as error:
        build(rule)
    assert "made.Made.Call" in str(error.value)
    assert rule.split('"')[1] in str(error.value)


@pytest.mark.parametrize(
    ("rule", "reason"),
    [
        ('body: "*"', "without a pattern"),
        ('custom { path: "/v1" }', "no HTTP method"),
        ('custom { kind: "A B" path: "/v1" }', "no HTTP method"),
        ('get: "/v1" additional_bindings { get: "/v2" additional_bindings { get: "/v3" } }', "additional_bindings"),
    ],
)
def test_a_rule_without_its_parts(rule: str, reason: str) -> None:
    with pytest.raises(TranscodingConfigError, match=reason) as error:
        build(rule)
    assert "made.Made.Call" in str(error.value)


@pytest.mark.parametrize(
    "rules",
    [
        ('get: "/v1/{string_value}"', 'get: "/v1/{bytes_value}"'),
        ('get: "/v1"', 'custom { kind: "GET" path: "/v1" }'),
        ('get: "/v1/{string_value=**}:go"', 'get: "/v1/**:go"'),
    ],
)
def test_collisions(rules: tuple[str, ...]) -> None:
    with pytest.raises(TranscodingConfigError, match="collides") as error:
        build(*rules)
    assert str(error.value).count("made.Made.Call") == 2
    assert all(rule.split('"')[-2] in str(error.value) for rule in rules)


def test_the_same_service_twice_collides() -> None:
    pair = (toy_pb2.DESCRIPTOR.services_by_name["Shelves"], None)
    with pytest.raises(TranscodingConfigError, match="GetBook"):
        build_app([pair])
    made = (service('get: "/v1"'), Servicer())
    with pytest.raises(TranscodingConfigError, match="collides"):
        build_app([made, made])


def test_streams_of_requests_cannot_have_rules() -> None:
    with pytest.raises(TranscodingConfigError, match="streams requests"):
        build('post: "/v1" body: "*"', client_streaming=True)
    build(client_streaming=True)  # none: it is left out


def test_a_servicer_that_does_not_fit() -> None:
    class Generator:
        async def Call(self, request_message: Any, _context: Any) -> Any:  # noqa: N802
            yield request_message

    made = service('get: "/v1"')
    with pytest.raises(TranscodingConfigError, match="no method 'Call'"):
        build_app([(made, object())])
    with pytest.raises(TranscodingConfigError, match="async generator"):
        build_app([(made, Generator())])


@pytest.mark.parametrize(
    "options",
    [
        {"request_limits": RequestLimits(max_bytes=0)},
        {"request_limits": RequestLimits(max_elements=0)},
        {"method_limits": {"Nothing": RequestLimits()}},
        {"max_path_bytes": -1},
        {"max_query_bytes": 0},
        {"max_json_depth": 0},
        {"max_json_depth": 10_000},
        {"body_timeout": 0},
        {"body_idle_timeout": 0},
        {"default_timeout": 0},
        {"sse_heartbeat": 0},
        {"www_authenticate": "Bearer\r\nX-Evil: 1"},
        {"sse_id_field": "nope"},
        {"sse_id_field": "labels"},
        {"sse_resume_field": "nope"},
    ],
)
def test_options_that_make_no_sense(options: dict[str, Any]) -> None:
    from toy.toy_service import make_toy  # noqa: PLC0415

    with pytest.raises(TranscodingConfigError):
        make_toy(**options)


async def test_a_service_of_a_pool_of_its_own() -> None:
    app = build(
        'get: "/stamps/{timestamp.seconds}/{wrapped_int64.value}"',
        'post: "/v1/{child.number}" body: "*"',
        'custom { kind: "HEAD" path: "/head" }',
        'get: "/"',
    )
    answer = await request(app, "POST", "/v1/5", {"strings": ["a"], "any": {"@type": "x.y/toy.v1.Child"}})
    assert answer.json()["child"]["number"] == 5
    assert answer.json()["any"]["@type"] == "x.y/toy.v1.Child"
    parts = (await request(app, "GET", "/stamps/5/6")).json()
    assert (parts["timestamp"], parts["wrapped_int64"]) == ("1970-01-01T00:00:05Z", "6")
    assert (await request(app, "HEAD", "/head")).status == 200
    assert (await request(app, "GET", "/head")).status == 405
    assert (await request(app, "GET", "/")).status == 200


async def test_http_body_in_a_pool_of_its_own() -> None:
    app = build('post: "/v1" body: "*"', request_type=".google.api.HttpBody")
    answer = await request(app, "POST", "/v1", b"\xff", [("content-type", "a/b")])
    assert (answer.body, answer.header("content-type")) == (b"\xff", "a/b")


def test_no_rule_no_route() -> None:
    build()


def test_the_page_lists_every_option() -> None:
    """README.md: the first column of its table of options."""
    page = (Path(__file__).parents[1] / "README.md").read_text()
    table = page.split("## Options")[1].split("##")[0]
    rows = [line.split("|")[1] for line in table.splitlines() if line.startswith("| `")]
    listed = [name.strip("` ") for row in rows for name in row.split(",")]
    assert listed == [name for name in inspect.signature(build_app).parameters if name != "services"]
