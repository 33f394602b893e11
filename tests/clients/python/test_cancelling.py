"""Cancels and other calls whose answers are lost, by both clients."""

from __future__ import annotations

import pytest
from grpc import StatusCode

from clients.python.conftest import Calls
from clients.python.scripted import BROKEN, INTERNAL, UNKNOWN_OUTCOME, Refusal, Running
from upload import errors
from upload.v1 import upload_pb2 as pb


async def test_a_cancel_carries_a_request_id_of_its_own(call: Calls, scripted: Running) -> None:
    scripted.service.add("f-1")
    scripted.service.add("f-2")
    outcome = await call("cancel", "f-1", reason="enough")
    await call("cancel", "f-2")
    first, second = scripted.service.calls["CancelFile"]
    assert first.request_id != second.request_id != ""
    assert (first.reason, outcome.already, outcome.filename) == ("enough", False, "a.bin")
    assert outcome.cancelled_at.isoformat() == "2024-01-01T12:00:00+00:00"


@pytest.mark.parametrize("lost", [BROKEN, UNKNOWN_OUTCOME, INTERNAL])
async def test_a_lost_answer_is_asked_for_again_under_the_same_id(
    call: Calls, scripted: Running, lost: Refusal
) -> None:
    scripted.service.add("f-1")
    scripted.service.lost["CancelFile"] = [lost]
    outcome = await call("cancel", "f-1")
    assert not outcome.already
    ids = [request.request_id for request in scripted.service.calls["CancelFile"]]
    assert len(ids) == 2
    assert len(set(ids)) == 1
    assert scripted.service.files["f-1"].revision == 2


@pytest.mark.parametrize(
    "refusal", [Refusal(StatusCode.INTERNAL, "DATABASE_FAILURE"), Refusal(StatusCode.UNAVAILABLE, "SHUTTING_DOWN")]
)
async def test_a_server_that_recovers_is_asked_again(call: Calls, scripted: Running, refusal: Refusal) -> None:
    scripted.service.add("f-1")
    scripted.service.faults["CancelFile"] = [refusal] * 2
    assert not (await call("cancel", "f-1")).already


async def test_overload_is_waited_out_as_long_as_the_server_asks(call: Calls, scripted: Running) -> None:
    scripted.service.add("f-1")
    overloaded = Refusal(StatusCode.RESOURCE_EXHAUSTED, "OVERLOADED", retry_after=0.05)
    scripted.service.faults["CancelFile"] = [overloaded]
    await call("cancel", "f-1")
    scripted.service.faults["CancelFile"] = [Refusal(StatusCode.RESOURCE_EXHAUSTED, "OVERLOADED", retry_after=3600)]
    with pytest.raises(errors.Overloaded) as caught:
        await call("cancel", "f-1")
    assert caught.value.retry_after == 3600


async def test_already_cancelled_is_done_and_tells_the_facts(call: Calls, scripted: Running) -> None:
    scripted.service.mark_cancelled(scripted.service.add("f-1"), "by mistake", by="batch_cancel")
    outcome = await call("cancel", "f-1")
    assert (outcome.already, outcome.cancelled_by, outcome.cancel_reason) == (
        True,
        "batch_cancel",
        "by mistake",
    )
    assert outcome.filename == "a.bin"


async def test_too_late_is_an_error_that_names_the_state(call: Calls, scripted: Running) -> None:
    scripted.service.add("f-1", status=pb.UPLOAD_STATUS_COMPLETED, revision=3)
    with pytest.raises(errors.FileNotCancellable) as caught:
        await call("cancel", "f-1")
    assert (caught.value.status, caught.value.revision) == ("completed", 3)
    assert caught.value.code is StatusCode.FAILED_PRECONDITION
    assert len(scripted.service.calls["CancelFile"]) == 1


async def test_when_no_answer_comes_the_error_carries_the_request_id(call: Calls, scripted: Running) -> None:
    scripted.service.add("f-1")
    scripted.service.faults["CancelFile"] = [UNKNOWN_OUTCOME] * 99
    with pytest.raises(errors.OutcomeUnknown, match="same request id") as caught:
        await call("cancel", "f-1", request_id="mine")
    assert caught.value.metadata["request_id"] == "mine"


async def test_a_repeated_announcement_makes_one_file(call: Calls, scripted: Running) -> None:
    scripted.service.lost["InitiateUpload"] = [UNKNOWN_OUTCOME]
    file = await call("initiate", "a.txt", 3)
    assert list(scripted.service.files) == [file.file_id]


async def test_unknown_ids_and_incidents_are_told_at_once(call: Calls, scripted: Running) -> None:
    with pytest.raises(errors.FileNotFound) as caught:
        await call("get", "nobody")
    assert caught.value.file_id == "nobody"
    scripted.service.faults["GetFile"] = [Refusal(StatusCode.INTERNAL, "INTERNAL", "Internal error", {"incident": "7"})]
    with pytest.raises(errors.InternalError) as broken:
        await call("get", "f-1")
    assert broken.value.metadata["incident"] == "7"
    assert len(scripted.service.calls["GetFile"]) == 2


async def test_reads_ride_over_an_unavailable_server(call: Calls, scripted: Running) -> None:
    scripted.service.add("f-1")
    scripted.service.faults["GetFile"] = [BROKEN] * 3
    assert (await call("get", "f-1")).file_id == "f-1"


async def test_pages_are_fetched_as_needed(call: Calls, scripted: Running) -> None:
    for number in range(5):
        scripted.service.add(f"f-{number}")
    files = await call("list_files", status="pending", page_size=2)
    assert [file.file_id for file in files] == [f"f-{number}" for number in range(5)]
    assert [request.page_token for request in scripted.service.calls["ListFiles"]] == ["", "2", "4"]
    assert scripted.service.calls["ListFiles"][0].status == pb.UPLOAD_STATUS_PENDING


async def test_no_server_is_told_soon_and_plainly(call: Calls, scripted: Running) -> None:
    await scripted.stop()
    with pytest.raises(errors.ServerUnreachable, match=r"check that the server runs"):
        await call("get", "f-1")
