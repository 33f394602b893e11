"""How calls fail: codes, details, metadata, exceptions, and the transcoder's own errors."""

import logging
from collections.abc import Sequence
from typing import Any

import grpc
import pytest
from google.protobuf.any_pb2 import Any as AnyMessage
from google.protobuf.message import Message
from google.rpc.error_details_pb2 import BadRequest, ErrorInfo

from toy.asgi_client import Answer, request
from toy.toy_pb2 import Child
from toy.toy_service import Toy, make_toy
from transcoder import Fault, FaultKind, RequestLimits

STATUSES = {
    1: 499,
    2: 500,
    3: 400,
    4: 504,
    5: 404,
    6: 409,
    7: 403,
    8: 429,
    9: 400,
    10: 409,
    11: 400,
    12: 501,
    13: 500,
    14: 503,
    15: 500,
    16: 401,
}


async def fail(toy: Toy, **fields: Any) -> Answer:
    return await request(toy.app, "POST", "/v1/fail", fields)


@pytest.mark.parametrize("how", ["abort", "abort_with_status", "set_code", "set_code_and_return", "abort_swallowed"])
@pytest.mark.parametrize(("code", "status"), STATUSES.items())
async def test_every_code(toy: Toy, how: str, code: int, status: int) -> None:
    answer = await fail(toy, code=code, how=how, message="why é")
    assert answer.status == status
    assert answer.header("content-type") == "application/json"
    assert answer.json() == {"code": code, "message": "why é", "details": []}
    assert toy.echoes.context is not None
    assert toy.echoes.context.done()


async def test_unauthenticated_carries_a_challenge(toy: Toy) -> None:
    assert (await fail(toy, code=16)).header("www-authenticate") == "Bearer"
    assert (await fail(toy, code=16, how="metadata_and_abort")).header("www-authenticate") == 'Basic realm="toy"'
    assert (await fail(make_toy(www_authenticate="Digest"), code=16)).header("www-authenticate") == "Digest"
    assert (await fail(toy, code=7)).header("www-authenticate") is None


TYPES = "type.googleapis.com/"


@pytest.mark.parametrize("how", ["abort", "abort_with_status"])
async def test_details(toy: Toy, how: str) -> None:
    info = {"@type": f"{TYPES}google.rpc.ErrorInfo", "reason": "R", "domain": "d", "metadata": {"b": "1", "a": "2"}}
    child = {"@type": f"{TYPES}toy.v1.Child", "number": 1, "text_value": "x", "numbers": []}
    duration = {"@type": f"{TYPES}google.protobuf.Duration", "value": "1s"}
    answer = await fail(toy, code=9, how=how, details=[info, child, duration])
    assert (answer.status, answer.json()["details"]) == (400, [info, child, duration])


UNREADABLE = [
    (f"{TYPES}no.such.Type", b"\x01"),
    (f"{TYPES}toy.v1.Child", b"\xff"),
    ("", b"x"),
    ("plain", b""),
]


@pytest.mark.parametrize(("url", "value"), UNREADABLE)
async def test_a_detail_that_cannot_be_read_does_not_hide_the_error(toy: Toy, url: str, value: bytes) -> None:
    text = toy.app.writer.text(_outcome([AnyMessage(type_url=url, value=value)]))
    assert '"code":9' in text
    assert f'"@type":"{url}"' in text


async def test_details_that_are_no_status_do_not_hide_the_error(toy: Toy) -> None:
    answer = await fail(toy, code=9, how="abort_bad_details", message="m")
    assert answer.json() == {"code": 9, "message": "m", "details": []}


def _outcome(details: Sequence[Any]) -> Any:
    from transcoder.status import Outcome  # noqa: PLC0415

    return Outcome(grpc.StatusCode.FAILED_PRECONDITION, "m", details)


async def test_an_unknown_detail_is_printed_as_its_bytes(toy: Toy) -> None:
    text = toy.app.writer.text(_outcome([AnyMessage(type_url=f"{TYPES}no.such.Type", value=b"\x01\x02")]))
    assert text == f'{{"code":9,"message":"m","details":[{{"@type":"{TYPES}no.such.Type","value":"AQI="}}]}}'


@pytest.mark.parametrize("how", ["raise", "none", "wrong_type"])
async def test_what_gRPC_calls_unknown(toy: Toy, how: str, caplog: pytest.LogCaptureFixture) -> None:  # noqa: N802
    with caplog.at_level(logging.ERROR):
        answer = await fail(toy, how=how, message="password")
    assert answer.status == 500
    assert answer.json() == {"code": 2, "message": "an unexpected error occurred", "details": []}
    assert "/toy.v1.Echoes/Fail: unexpected exception" in caplog.text


async def test_an_exception_after_set_code_keeps_the_code(toy: Toy) -> None:
    answer = await fail(toy, code=5, how="raise_with_code", message="password")
    assert (answer.status, answer.json()) == (404, {"code": 5, "message": "", "details": []})


async def test_aborting_with_ok_is_an_error(toy: Toy) -> None:
    answer = await fail(toy, code=0, how="abort", message="m")
    assert (answer.status, answer.json()["code"]) == (500, 2)
    answer = await fail(toy, code=0, how="abort_swallowed", message="m")
    assert (answer.status, answer.json()["code"]) == (500, 2)


async def test_a_handler_that_cancels_itself(toy: Toy) -> None:
    answer = await fail(toy, how="cancel")
    assert (answer.status, answer.json()["code"]) == (499, 1)


async def test_a_response_that_json_cannot_say(toy: Toy, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.ERROR):
        body = {"details": [{"@type": f"{TYPES}google.protobuf.Duration", "value": "1s"}], "how": "metadata"}
        assert (await fail(toy, **body)).status == 200
        toy.echoes._metadata = _broken  # type: ignore[method-assign, assignment]
        answer = await fail(toy, how="metadata")
    assert (answer.status, answer.json()["code"]) == (500, 13)
    assert "cannot be written as JSON" in caplog.text


async def _broken(request_message: Any, *_unused: object) -> Any:
    request_message.details.add(type_url="no.such/Type", value=b"\x01")
    return request_message


async def test_messages_that_are_no_utf8(toy: Toy) -> None:
    async def surrogate(_request: Any, context: Any, _code: object) -> None:
        await context.abort(grpc.StatusCode.NOT_FOUND, 'a\udcffb\n"')

    toy.echoes._metadata = surrogate  # type: ignore[method-assign, assignment]
    answer = await fail(toy, how="metadata")
    assert answer.json()["message"] == 'a?b\n"'


async def test_metadata_comes_back_as_headers(toy: Toy) -> None:
    answer = await fail(toy, how="metadata")
    assert answer.header("grpc-metadata-x-first") == "1"
    assert answer.header("grpc-metadata-x-raw-bin") == "AP8="
    assert answer.header("grpc-metadata-x-last") == "2"
    assert not any("bad key" in name or "break" in name for name, _ in answer.headers)
    answer = await fail(toy, how="metadata_and_abort", code=5)
    assert answer.header("grpc-metadata-x-first") == "1"
    assert answer.header("grpc-metadata-x-last") == "2"
    assert answer.header("grpc-trailer-x-last") is None
    answer = await request(toy.app, "POST", "/v1/fail", {"how": "metadata"}, [("te", "trailers")])
    assert answer.header("grpc-trailer-x-last") == "2"


async def test_details_are_no_header(toy: Toy) -> None:
    answer = await fail(toy, code=9, details=[{"@type": f"{TYPES}toy.v1.Child"}])
    assert not any("grpc-status-details" in name for name, _ in answer.headers)


def describe(fault: Fault) -> Sequence[Message]:
    details: list[Message] = [ErrorInfo(reason=fault.kind, domain="toy")]
    if fault.field:
        violation = BadRequest.FieldViolation(field=fault.field, description=fault.description)
        details.append(BadRequest(field_violations=[violation]))
    return details


@pytest.mark.parametrize(
    ("method", "target", "body", "kind"),
    [
        ("GET", "/nowhere", b"", FaultKind.NOT_FOUND),
        ("PUT", "/v1/echo", b"", FaultKind.METHOD_NOT_ALLOWED),
        ("GET", "/v1/books/%", b"", FaultKind.MALFORMED_PATH),
        ("GET", "/v1/books/" + "x" * 100_000, b"", FaultKind.URL_TOO_LONG),
        ("POST", "/v1/echo", b"x" * 101, FaultKind.BODY_TOO_LARGE),
        ("POST", "/v1/echo", b"{", FaultKind.MALFORMED_JSON),
        ("POST", "/v1/echo", b'{"int32_value": "x"}', FaultKind.INVALID_FIELD),
        ("POST", "/v1/fail", b'{"how": "raise"}', FaultKind.UNEXPECTED),
    ],
)
async def test_the_service_adds_details_to_the_transcoders_errors(
    method: str, target: str, body: bytes, kind: FaultKind
) -> None:
    toy = make_toy(error_details=describe, request_limits=RequestLimits(max_bytes=100))
    answer = await request(toy.app, method, target, body)
    details = answer.json()["details"]
    assert details[0] == {"@type": f"{TYPES}google.rpc.ErrorInfo", "reason": kind, "domain": "toy", "metadata": {}}
    if kind is FaultKind.INVALID_FIELD:
        assert details[1]["field_violations"][0]["field"] == "int32_value"
        assert details[1]["field_violations"][0]["description"] == "expected an integer"


async def test_a_broken_details_hook_hides_nothing(caplog: pytest.LogCaptureFixture) -> None:
    def broken(_fault: Fault) -> Sequence[Message]:
        raise ValueError

    with caplog.at_level(logging.ERROR):
        answer = await request(make_toy(error_details=broken).app, "GET", "/nowhere")
    assert (answer.status, answer.json()["details"]) == (404, [])


async def test_details_may_be_packed_already() -> None:
    def packed(_fault: Fault) -> Sequence[Message]:
        holder = AnyMessage()
        holder.Pack(Child(number=1))
        return [holder]

    answer = await request(make_toy(error_details=packed).app, "GET", "/nowhere")
    assert answer.json()["details"][0]["number"] == 1


@pytest.mark.parametrize(("reason", "status"), [("SHELF_FULL", 507), ("BUSY", 429)])
async def test_a_reason_may_have_an_http_status_of_its_own(reason: str, status: int) -> None:
    info = {"@type": f"{TYPES}google.rpc.ErrorInfo", "reason": reason, "domain": "d", "metadata": {}}
    answer = await fail(make_toy(http_statuses={"SHELF_FULL": 507}), code=8, how="abort", details=[info])
    assert (answer.status, answer.json()["code"], answer.json()["details"]) == (status, 8, [info])
