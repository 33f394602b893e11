"""The unary calls do what the contract says, the same through every door."""

from __future__ import annotations

import asyncio
import itertools
import time
import uuid
from datetime import datetime
from typing import TYPE_CHECKING, Any

import grpc
import httpx
import pytest
from google.protobuf.duration_pb2 import Duration
from google.protobuf.timestamp_pb2 import Timestamp

from support.doors import Door, GrpcDoor, HttpDoor, Json, Refusal
from upload.v1 import upload_pb2 as pb

if TYPE_CHECKING:
    from upload.v1.upload_pb2_grpc import UploadServiceAsyncStub as Stub


def fresh() -> str:
    return uuid.uuid4().hex


async def initiate(door: Door, **overrides: Any) -> Json:
    spec = {"filename": "a.bin", "size_bytes": 10, **overrides}
    file: Json = (await door.call("InitiateUpload", **spec))["file"]
    return file


async def initiate_batch(door: Door, count: int) -> Json:
    return await door.call("InitiateBatch", files=[{"filename": f"{i}.bin", "size_bytes": i} for i in range(count)])


async def refused(door: Door, method: str, **request: Any) -> Refusal:
    with pytest.raises(Refusal) as caught:
        await door.call(method, **request)
    return caught.value


async def events(door: Door, **filters: Any) -> list[Json]:
    page = await door.call("ListAuditEvents", page_size=1000, **filters)
    assert not page["next_page_token"]
    found: list[Json] = page["events"]
    return found


async def test_a_new_file_is_pending_at_revision_one(door: Door) -> None:
    file = await initiate(door, filename="dir/é.pdf", size_bytes=5, content_type="application/pdf")
    assert file["status"] == "UPLOAD_STATUS_PENDING"
    assert file["revision"] == "1"
    assert file["bytes_received"] == "0"
    assert file["filename"] == "dir/é.pdf"
    assert file["created_at"].endswith("Z")
    assert uuid.UUID(file["file_id"]).version == 4
    assert await door.call("GetFile", file_id=file["file_id"]) == file


async def test_where_nobody_has_to_say_who_calls_everybody_may_all(door: Door) -> None:
    me = await door.call("GetCaller")
    assert (me["principal"], me["roles"], me["credential"], me["quotas"]) == ("", [], "", [])
    assert me["may"] == ["audit", "cancel", "count", "download", "metrics", "read", "write"]


async def test_cancel_answers_four_fields_and_the_file_says_who_when_and_why(door: Door) -> None:
    file = await initiate(door, filename="example.pdf")
    answer = await door.call("CancelFile", file_id=file["file_id"], reason="changed my mind")
    assert list(answer) == ["message", "file_id", "filename", "cancelled_at"]
    assert answer["message"] == "Upload cancelled successfully"
    assert answer["filename"] == "example.pdf"
    after = await door.call("GetFile", file_id=file["file_id"])
    assert after["status"] == "UPLOAD_STATUS_CANCELLED"
    assert after["cancelled_at"] == answer["cancelled_at"] == after["updated_at"]
    assert (after["cancelled_by"], after["cancel_reason"]) == ("user", "changed my mind")
    assert after["revision"] == "2"


async def test_cancel_again_is_refused_naming_the_state(door: Door) -> None:
    file = await initiate(door)
    answer = await door.call("CancelFile", file_id=file["file_id"])
    again = await refused(door, "CancelFile", file_id=file["file_id"])
    assert (again.code, again.reason) == ("FAILED_PRECONDITION", "FILE_NOT_CANCELLABLE")
    assert again.metadata == {
        "file_id": file["file_id"],
        "status": "cancelled",
        "revision": "2",
        "cancelled_at": answer["cancelled_at"],
        "cancelled_by": "user",
    }
    assert again.preconditions == {file["file_id"]: ("STATUS", "is cancelled")}
    assert len(await events(door, file_id=file["file_id"])) == 2


async def test_cancel_with_the_same_request_id_repeats_its_answer(door: Door) -> None:
    file, request_id = await initiate(door), fresh()
    first = await door.call("CancelFile", file_id=file["file_id"], reason="x", request_id=request_id)
    assert await door.call("CancelFile", file_id=file["file_id"], reason="x", request_id=request_id) == first
    other = await refused(door, "CancelFile", file_id=file["file_id"], reason="y", request_id=request_id)
    assert (other.code, other.reason) == ("INVALID_ARGUMENT", "REQUEST_ID_REUSED")
    assert len(await events(door, file_id=file["file_id"])) == 2


async def test_an_answer_is_repeated_through_another_door(
    channel: grpc.aio.Channel, http: httpx.AsyncClient, door: Door
) -> None:
    other: Door = HttpDoor(http) if isinstance(door, GrpcDoor) else GrpcDoor(channel)
    request: Json = {"file_id": (await initiate(door))["file_id"], "reason": "x", "request_id": fresh()}
    assert await other.call("CancelFile", **request) == await door.call("CancelFile", **request)


async def test_a_refused_cancel_keeps_no_answer(door: Door) -> None:
    request_id, missing = fresh(), str(uuid.uuid4())
    await refused(door, "CancelFile", file_id=missing, request_id=request_id)
    file = await initiate(door)
    await door.call("CancelFile", file_id=file["file_id"], request_id=request_id)


async def test_request_ids_are_apart_by_method(door: Door) -> None:
    request_id = fresh()
    file = await initiate(door, request_id=request_id)
    await door.call("CancelFile", file_id=file["file_id"], request_id=request_id)


async def test_initiate_with_the_same_request_id_gives_the_same_file_in_its_current_state(door: Door) -> None:
    request_id = fresh()
    file = await initiate(door, request_id=request_id)
    await door.call("CancelFile", file_id=file["file_id"])
    again = await initiate(door, request_id=request_id)
    assert again["file_id"] == file["file_id"]
    assert again["status"] == "UPLOAD_STATUS_CANCELLED"
    other = await refused(door, "InitiateUpload", filename="b.bin", size_bytes=10, request_id=request_id)
    assert other.reason == "REQUEST_ID_REUSED"


async def test_initiate_batch_with_the_same_request_id_gives_the_same_ids(door: Door) -> None:
    request: Json = {"files": [{"filename": "a", "size_bytes": 1}] * 3, "request_id": fresh()}
    first = await door.call("InitiateBatch", **request)
    assert await door.call("InitiateBatch", **request) == first


async def test_a_batch_is_cancelled_with_its_files(door: Door) -> None:
    made = await initiate_batch(door, 5)
    batch_id = made["batch"]["batch_id"]
    assert made["batch"]["status"] == "BATCH_STATUS_PENDING"
    assert made["batch"]["total_files"] == 5
    early = await door.call("CancelFile", file_id=made["file_ids"][0], reason="one")
    answer = await door.call("CancelBatch", batch_id=batch_id, reason="all")
    assert list(answer) == ["message", "batch_id", "cancelled_files_count", "total_files_in_batch", "cancelled_at"]
    assert answer["message"] == "Batch upload cancelled successfully"
    assert (answer["cancelled_files_count"], answer["total_files_in_batch"]) == (4, 5)
    batch = await door.call("GetBatch", batch_id=batch_id)
    assert batch["status"] == "BATCH_STATUS_CANCELLED"
    assert (batch["cancelled_by"], batch["cancel_reason"]) == ("user", "all")
    assert batch["cancelled_files_count"] == 5
    files = (await door.call("ListFiles", batch_id=batch_id))["files"]
    assert [file["file_id"] for file in files] == made["file_ids"]
    assert [file["cancelled_by"] for file in files] == ["user"] + ["batch_cancel"] * 4
    assert files[0]["cancelled_at"] == early["cancelled_at"]
    assert {file["cancelled_at"] for file in files[1:]} == {answer["cancelled_at"]}
    again = await refused(door, "CancelBatch", batch_id=batch_id)
    assert (again.code, again.reason, again.metadata["status"]) == (
        "FAILED_PRECONDITION",
        "BATCH_NOT_CANCELLABLE",
        "cancelled",
    )
    assert again.preconditions == {batch_id: ("STATUS", "is cancelled")}


async def test_a_batch_cancel_repeats_its_answer_by_request_id(door: Door) -> None:
    made, request_id = await initiate_batch(door, 2), fresh()
    batch_id = made["batch"]["batch_id"]
    first = await door.call("CancelBatch", batch_id=batch_id, request_id=request_id)
    assert await door.call("CancelBatch", batch_id=batch_id, request_id=request_id) == first
    # A file of it was not cancelled "by this request_id".
    file = await refused(door, "CancelFile", file_id=made["file_ids"][0], request_id=request_id)
    assert file.reason == "FILE_NOT_CANCELLABLE"


async def test_a_batch_whose_files_are_all_cancelled_is_cancelled(door: Door) -> None:
    made = await initiate_batch(door, 2)
    for file_id in made["file_ids"]:
        last = await door.call("CancelFile", file_id=file_id)
    batch = await door.call("GetBatch", batch_id=made["batch"]["batch_id"])
    assert (batch["status"], batch["cancelled_by"]) == ("BATCH_STATUS_CANCELLED", "all_files")
    assert batch["cancelled_at"] == last["cancelled_at"]


async def test_the_audit_trail_tells_everything_once(door: Door) -> None:
    made, request_id = await initiate_batch(door, 3), fresh()
    batch_id = made["batch"]["batch_id"]
    await door.call("CancelBatch", batch_id=batch_id, reason="over", request_id=request_id)
    found = await events(door, batch_id=batch_id)
    assert len(found) == 8
    numbers = [int(event["event_id"]) for event in found]
    assert numbers == sorted(set(numbers))
    cancels = [event for event in found if event["to_status"] == "cancelled"]
    assert {(e["actor"], e["reason"], e["request_id"]) for e in cancels} == {("user", "over", request_id)}
    assert [e["source"] for e in cancels if e["file_id"]] == ["batch_cancel"] * 3
    assert [e["source"] for e in cancels if not e["file_id"]] == [door.name]
    assert [e["from_status"] for e in found[:4]] == [""] * 4
    one = await events(door, file_id=made["file_ids"][1])
    assert [(e["from_status"], e["to_status"]) for e in one] == [("", "pending"), ("pending", "cancelled")]


@pytest.mark.parametrize("method", ["GetFile", "CancelFile"])
@pytest.mark.parametrize("file_id", ["nothing", "x" * 128, "../../etc/passwd", "a b\x00c", "%2e%2e"])
async def test_an_unknown_file_is_not_found(door: Door, method: str, file_id: str) -> None:
    error = await refused(door, method, file_id=file_id)
    assert (error.code, error.reason) == ("NOT_FOUND", "FILE_NOT_FOUND")


@pytest.mark.parametrize("method", ["GetBatch", "CancelBatch"])
async def test_an_unknown_batch_is_not_found(door: Door, method: str) -> None:
    error = await refused(door, method, batch_id=str(uuid.uuid4()))
    assert (error.code, error.reason) == ("NOT_FOUND", "BATCH_NOT_FOUND")


LONG = "x" * 129
UPSIDE_DOWN: Json = {"created_after": "2024-01-02T00:00:00Z", "created_before": "2024-01-01T00:00:00Z"}
BAD_REQUESTS: list[tuple[str, Json, str]] = [
    ("InitiateUpload", {"filename": ""}, "filename"),
    ("InitiateUpload", {"filename": "é" * 256}, "filename"),
    ("InitiateUpload", {"filename": "/".join(["é" * 255] * 9)}, "filename"),
    ("InitiateUpload", {"filename": "/etc/passwd"}, "filename"),
    ("InitiateUpload", {"filename": "a/../b"}, "filename"),
    ("InitiateUpload", {"filename": "a//b"}, "filename"),
    ("InitiateUpload", {"filename": "./a"}, "filename"),
    ("InitiateUpload", {"filename": "a/"}, "filename"),
    ("InitiateUpload", {"filename": "a\\b"}, "filename"),
    ("InitiateUpload", {"filename": "a\nb"}, "filename"),
    ("InitiateUpload", {"filename": "a\x85b"}, "filename"),
    ("InitiateUpload", {"filename": "e\u0301"}, "filename"),
    ("InitiateUpload", {"filename": "a", "size_bytes": -1}, "size_bytes"),
    ("InitiateUpload", {"filename": "a", "size_bytes": 2**40 + 1}, "size_bytes"),
    ("InitiateUpload", {"filename": "a", "content_type": "x" * 128}, "content_type"),
    ("InitiateUpload", {"filename": "a", "sha256": "abc"}, "sha256"),
    ("InitiateUpload", {"filename": "a", "sha256": "g" * 64}, "sha256"),
    ("InitiateUpload", {"filename": "a", "sha256": "a" * 64 + "\n"}, "sha256"),
    ("InitiateUpload", {"filename": "a", "sha256": "\u0663" * 64}, "sha256"),
    ("InitiateUpload", {"filename": "a", "request_id": LONG}, "request_id"),
    ("InitiateBatch", {"files": []}, "files"),
    ("InitiateBatch", {"files": [{"filename": "a"}] * 10_001}, "files"),
    ("InitiateBatch", {"files": [{"filename": "a"}, {"filename": ".."}]}, "files[1].filename"),
    ("GetFile", {"file_id": LONG}, "file_id"),
    ("GetBatch", {"batch_id": LONG}, "batch_id"),
    ("CancelFile", {"file_id": LONG}, "file_id"),
    ("CancelFile", {"file_id": "a", "reason": "x" * 501}, "reason"),
    ("CancelFile", {"file_id": "a", "request_id": LONG}, "request_id"),
    ("CancelBatch", {"batch_id": LONG}, "batch_id"),
    ("CancelBatch", {"batch_id": "a", "reason": "x" * 501}, "reason"),
    ("ListFiles", {"page_size": 1001}, "page_size"),
    ("ListFiles", {"page_size": -1}, "page_size"),
    ("ListFiles", {"page_token": "garbage"}, "page_token"),
    ("ListFiles", {"status": 17}, "status"),
    ("ListFiles", {"batch_id": LONG}, "batch_id"),
    ("ListFiles", {"statuses": ["UPLOAD_STATUS_UNSPECIFIED"]}, "statuses[0]"),
    ("ListFiles", {"statuses": ["UPLOAD_STATUS_PENDING", 17]}, "statuses[1]"),
    ("ListFiles", {"statuses": ["UPLOAD_STATUS_PENDING"] * 6}, "statuses"),
    ("ListFiles", {"status": "UPLOAD_STATUS_FAILED", "statuses": ["UPLOAD_STATUS_PENDING"]}, "statuses"),
    ("ListFiles", {"order_by": "created_at asc"}, "order_by"),
    ("ListFiles", {"order_by": "CREATED_AT"}, "order_by"),
    ("ListFiles", {"order_by": "filename"}, "order_by"),
    ("ListFiles", {"owner": "x" * 256}, "owner"),
    ("ListFiles", {"filename_prefix": "x" * 4097}, "filename_prefix"),
    ("ListFiles", {"filename_prefix": "e\u0301"}, "filename_prefix"),
    ("ListFiles", {"cancelled_by": "x" * 261}, "cancelled_by"),
    ("ListFiles", {"cancelled_by": "user", "status": "UPLOAD_STATUS_PENDING"}, "cancelled_by"),
    ("ListFiles", {"without_batch": True, "batch_id": "a"}, "without_batch"),
    ("ListFiles", UPSIDE_DOWN, "created_before"),
    ("ListFiles", {**UPSIDE_DOWN, "created_after": UPSIDE_DOWN["created_before"]}, "created_before"),
    ("ListBatches", UPSIDE_DOWN, "created_before"),
    ("ListBatches", {"cancelled_by": "user", "statuses": ["BATCH_STATUS_FAILED"]}, "cancelled_by"),
    ("ListAuditEvents", {"order_by": "created_at"}, "order_by"),
    ("ListAuditEvents", {"actor": "x" * 261}, "actor"),
    ("ListAuditEvents", {"owner": "x" * 256}, "owner"),
    ("ListAuditEvents", {"source": "carrier pigeon"}, "source"),
    ("ListAuditEvents", {"to_status": "UPLOAD_STATUS_PENDING"}, "to_status"),
    (
        "ListAuditEvents",
        {"occurred_after": "2024-01-02T00:00:00Z", "occurred_before": "2024-01-01T00:00:00Z"},
        "occurred_before",
    ),
    ("ListBatches", {"page_size": 1001}, "page_size"),
    ("ListBatches", {"page_token": "garbage"}, "page_token"),
    ("ListBatches", {"status": 17}, "status"),
    ("ListBatches", {"statuses": ["BATCH_STATUS_PENDING", 0]}, "statuses[1]"),
    ("ListBatches", {"status": "BATCH_STATUS_FAILED", "statuses": ["BATCH_STATUS_FAILED"]}, "statuses"),
    ("ListBatches", {"order_by": "updated_at"}, "order_by"),
    ("GetStatistics", {"window": "86410s", "step": "10s"}, "window"),
    ("GetStatistics", {"window": "-10s", "step": "10s"}, "window"),
    ("GetStatistics", {"window": "2410s", "step": "10s"}, "window"),
    ("GetStatistics", {"window": "50s", "step": "20s"}, "window"),
    ("GetStatistics", {"window": "0.5s", "step": "10s"}, "window"),
    ("GetStatistics", {"window": "60s"}, "step"),
    ("GetStatistics", {"window": "60s", "step": "0.5s"}, "step"),
    ("GetStatistics", {"window": "60s", "step": "15s"}, "step"),
    ("GetStatistics", {"window": "60s", "step": "-10s"}, "step"),
    ("GetStatistics", {"step": "10s"}, "step"),
    ("ListAuditEvents", {"page_size": 1001}, "page_size"),
    ("ListAuditEvents", {"page_token": "AAAA"}, "page_token"),
    ("ListAuditEvents", {"page_size": -1}, "page_size"),
    ("ListAuditEvents", {"file_id": LONG}, "file_id"),
    ("ListAuditEvents", {"batch_id": LONG}, "batch_id"),
    ("InitiateUpload", {"filename": "a", "content_type": "tëxt/plain"}, "content_type"),
    ("InitiateUpload", {"filename": "a", "request_id": "a\x00b"}, "request_id"),
    ("InitiateBatch", {"files": [{"filename": "a"}], "request_id": LONG}, "request_id"),
    ("CancelFile", {"file_id": "a", "reason": "a\x00b"}, "reason"),
    ("CancelBatch", {"batch_id": "a", "request_id": LONG}, "request_id"),
]


@pytest.mark.parametrize(("method", "request_", "field"), BAD_REQUESTS)
async def test_a_bad_field_is_named_with_its_rule(door: Door, method: str, request_: Json, field: str) -> None:
    error = await refused(door, method, **request_)
    assert (error.code, error.reason) == ("INVALID_ARGUMENT", "INVALID_FIELD")
    assert field in error.violations
    assert error.violations[field].startswith(("must", "is", "belongs"))


@pytest.mark.parametrize("filename", ["a", "a/b/c.txt", "ä" * 127, "📷.jpg", "..a", "a..", " ", "COM1", "日本語.pdf"])
async def test_names_are_data(door: Door, filename: str) -> None:
    assert (await initiate(door, filename=filename))["filename"] == filename


async def test_lists_go_by_pages_without_gap_or_repeat(door: Door) -> None:
    made = await initiate_batch(door, 7)
    batch_id, seen, token = made["batch"]["batch_id"], [], ""
    while True:
        page = await door.call("ListFiles", batch_id=batch_id, page_size=3, page_token=token)
        seen += [file["file_id"] for file in page["files"]]
        token = page["next_page_token"]
        if not token:
            break
        assert len(page["files"]) == 3
    assert seen == made["file_ids"]


# Each bound of the contract at its edge: what is just within it is taken.
FILE_AT_THE_BOUNDS: list[Json] = [
    {"filename": "a" + "ä" * 127},
    {"size_bytes": 0},
    {"size_bytes": 2**40},
    {"content_type": "x" * 127},
    {"sha256": "AB" * 32},
    {"request_id": "é" * 128},
]


@pytest.mark.parametrize("spec", FILE_AT_THE_BOUNDS, ids=str)
async def test_what_is_just_within_the_bounds_is_announced(door: Door, spec: Json) -> None:
    if "request_id" in spec:
        spec = {"request_id": spec["request_id"][: -len(door.name)] + door.name}
    file = await initiate(door, **spec)
    assert {name: file[name] for name in spec.keys() & {"filename", "content_type"}} == {
        name: spec[name] for name in spec.keys() & {"filename", "content_type"}
    }
    assert file["size_bytes"] == str(spec.get("size_bytes", 10))


async def test_the_longest_reason_is_kept_whole(door: Door) -> None:
    file, reason = await initiate(door), "é😀" * 250
    await door.call("CancelFile", file_id=file["file_id"], reason=reason)
    assert (await door.call("GetFile", file_id=file["file_id"]))["cancel_reason"] == reason
    assert (await events(door, file_id=file["file_id"]))[-1]["reason"] == reason


async def test_a_page_has_fifty_rows_unless_told_otherwise_and_at_most_a_thousand(door: Door) -> None:
    batch_id = (await initiate_batch(door, 1001))["batch"]["batch_id"]
    for method, rows in (("ListFiles", "files"), ("ListAuditEvents", "events")):
        usual = await door.call(method, batch_id=batch_id)
        largest = await door.call(method, batch_id=batch_id, page_size=1000)
        assert [len(page[rows]) for page in (usual, largest)] == [50, 1000]


async def test_lists_are_in_order_of_creation_whatever_becomes_of_the_files(door: Door) -> None:
    first = await initiate(door)
    batch = await initiate_batch(door, 2)
    last = await initiate(door)
    made = [first["file_id"], *batch["file_ids"], last["file_id"]]
    # What changed last is not listed last.
    await door.call("CancelFile", file_id=made[0])
    await door.call("CancelFile", file_id=made[2])
    for status, wanted in (("PENDING", [made[1], made[3]]), ("CANCELLED", [made[0], made[2]]), ("UNSPECIFIED", made)):
        seen, token = [], ""
        while True:
            page = await door.call("ListFiles", status=f"UPLOAD_STATUS_{status}", page_size=1000, page_token=token)
            seen += [file["file_id"] for file in page["files"] if file["file_id"] in made]
            if not (token := page["next_page_token"]):
                break
        assert seen == wanted


async def every_page(door: Door, method: str, rows: str, **request: Any) -> list[Json]:
    found: list[Json] = []
    token = ""
    while True:
        page = await door.call(method, page_token=token, **request)
        found += page[rows]
        if not (token := page["next_page_token"]):
            return found


async def test_the_newest_are_first_when_asked_for(door: Door) -> None:
    await initiate(door)
    before = await initiate(door)
    made = await initiate_batch(door, 3)
    last = await initiate(door)
    order = [last["file_id"], *reversed(made["file_ids"]), before["file_id"]]
    await door.call("CancelFile", file_id=order[2])

    page = await door.call("ListFiles", order_by="created_at desc", page_size=5)
    assert [file["file_id"] for file in page["files"]] == order
    page = await door.call("ListFiles", order_by="created_at desc", page_size=2, page_token=page["next_page_token"])
    assert not {file["file_id"] for file in page["files"]} & {*order}
    of_batch = await every_page(
        door, "ListFiles", "files", batch_id=made["batch"]["batch_id"], order_by="created_at desc", page_size=2
    )
    assert [file["file_id"] for file in of_batch] == order[1:4]
    files = await every_page(door, "ListFiles", "files", page_size=1000)
    times = [datetime.fromisoformat(file["created_at"]) for file in files]
    assert times == sorted(times)


async def test_several_states_are_listed_together_in_order(door: Door) -> None:
    made = await initiate_batch(door, 5)
    batch_id, ids = made["batch"]["batch_id"], made["file_ids"]
    await door.call("CancelFile", file_id=ids[1])
    await door.call("CancelFile", file_id=ids[3])
    both = ["UPLOAD_STATUS_CANCELLED", "UPLOAD_STATUS_PENDING"]
    open_ = ["UPLOAD_STATUS_UPLOADING", "UPLOAD_STATUS_PENDING", "UPLOAD_STATUS_PENDING"]

    for statuses, wanted in ((both, ids), (open_, [ids[0], ids[2], ids[4]])):
        for size in (2, 1000):
            found = await every_page(door, "ListFiles", "files", batch_id=batch_id, statuses=statuses, page_size=size)
            assert [file["file_id"] for file in found] == wanted
        found = await every_page(door, "ListFiles", "files", statuses=statuses, page_size=1000)
        assert [file["file_id"] for file in found if file["file_id"] in ids] == wanted


async def test_batches_are_listed_like_files(door: Door) -> None:
    made = [(await initiate_batch(door, 2))["batch"]["batch_id"] for _ in range(3)]
    await door.call("CancelBatch", batch_id=made[1], reason="the wrong folder")

    page = await door.call("ListBatches", order_by="created_at desc", page_size=3)
    assert [batch["batch_id"] for batch in page["batches"]] == made[::-1]
    assert page["batches"][1] == await door.call("GetBatch", batch_id=made[1])
    assert page["batches"][1]["cancel_reason"] == "the wrong folder"
    for filters, wanted in (
        ({}, made),
        ({"status": "BATCH_STATUS_CANCELLED"}, [made[1]]),
        ({"statuses": ["BATCH_STATUS_PENDING"]}, [made[0], made[2]]),
        ({"statuses": ["BATCH_STATUS_PENDING", "BATCH_STATUS_CANCELLED"]}, made),
        ({"statuses": ["BATCH_STATUS_COMPLETED"]}, []),
    ):
        found = await every_page(door, "ListBatches", "batches", page_size=2, **filters)
        assert [batch["batch_id"] for batch in found if batch["batch_id"] in made] == wanted


async def test_support_finds_who_cancelled_what_and_why(door: Door) -> None:
    name = fresh()
    file = await initiate(door, filename=f"{name}/report.pdf")
    batch = await door.call("InitiateBatch", files=[{"filename": f"{name}/{i}"} for i in range(2)])
    later = await initiate(door, filename=f"{name} is another")
    await door.call("CancelFile", file_id=file["file_id"], reason="the wrong customer")
    await door.call("CancelBatch", batch_id=batch["batch"]["batch_id"])
    ids = [file["file_id"], *batch["file_ids"]]

    async def found(**filters: Any) -> list[str]:
        rows = await every_page(door, "ListFiles", "files", page_size=2, filename_prefix=f"{name}/", **filters)
        return [row["file_id"] for row in rows]

    assert await found() == ids
    assert await found(order_by="created_at desc", cancelled_by="batch_cancel") == ids[:0:-1]
    assert await found(cancelled_by="user") == ids[:1]
    assert await found(cancelled_by="user", status="UPLOAD_STATUS_CANCELLED", owner="") == ids[:1]
    assert await found(created_after=file["created_at"]) == ids[1:]
    assert await found(created_before=file["created_at"]) == []
    assert await found(created_before=later["created_at"]) == ids
    assert await found(updated_after=later["created_at"]) == ids
    assert await found(owner="somebody") == []
    batches = await every_page(door, "ListBatches", "batches", filename_prefix=f"{name}/", cancelled_by="user")
    assert [row["batch_id"] for row in batches] == [batch["batch"]["batch_id"]]
    assert await every_page(door, "ListBatches", "batches", filename_prefix=f"{name} ") == []
    # Longer than what is compared of a name: by its first 255 characters.
    deep = await door.call("InitiateBatch", files=[{"filename": f"{name}-/{'d' * 240}/{'e' * 240}"}])
    rows = await every_page(door, "ListFiles", "files", filename_prefix=f"{name}-/{'d' * 240}/{'e' * 200}")
    assert [row["file_id"] for row in rows] == deep["file_ids"]
    rows = await every_page(door, "ListBatches", "batches", filename_prefix=f"{name}-/{'d' * 240}/{'e' * 200}")
    assert [row["batch_id"] for row in rows] == [deep["batch"]["batch_id"]]


async def test_the_trail_is_asked_for_who_what_and_when(door: Door) -> None:
    file = await initiate(door)
    batch = await initiate_batch(door, 2)
    await door.call("CancelFile", file_id=file["file_id"], reason="the wrong file")
    await door.call("CancelBatch", batch_id=batch["batch"]["batch_id"])

    async def found(**filters: Any) -> list[tuple[str, str]]:
        wanted = {"occurred_after": file["created_at"], "page_size": 2, **filters}
        rows = await every_page(door, "ListAuditEvents", "events", **wanted)
        return [(row["to_status"], row["source"]) for row in rows]

    source = door.name
    of_files = [("cancelled", "batch_cancel")] * 2
    assert await found(to_status="cancelled") == [("cancelled", source), *of_files, ("cancelled", source)]
    newest = await found(order_by="event_id desc")
    assert newest == (await found())[::-1] == await found(order_by="occurred_at desc")
    assert await found(source="expiry") == await found(actor="nobody") == []
    assert await found(owner="somebody") == []
    assert await found(actor="user", source=source) == [row for row in newest[::-1] if row[1] == source]
    assert await found(occurred_before=batch["batch"]["created_at"]) == []


async def statistics(door: Door, **request: Any) -> tuple[dict[str, int], dict[str, int], Json]:
    answer = await door.call("GetStatistics", **request)
    files = {count["status"].removeprefix("UPLOAD_STATUS_").lower(): int(count["files"]) for count in answer["files"]}
    batches = {
        count["status"].removeprefix("BATCH_STATUS_").lower(): int(count["batches"]) for count in answer["batches"]
    }
    return files, batches, answer


async def test_statistics_count_what_was_answered(door: Door) -> None:
    files, batches, answer = await statistics(door)
    assert list(files) == ["pending", "uploading", "completed", "failed", "cancelled"]
    assert list(batches) == ["pending", "processing", "completed", "failed", "cancelled"]
    assert answer["buckets"] == []

    made = await initiate_batch(door, 3)
    await door.call("CancelFile", file_id=made["file_ids"][0])
    after, after_batches, _ = await statistics(door)
    assert (after["pending"], after["cancelled"]) == (files["pending"] + 2, files["cancelled"] + 1)
    assert after_batches["pending"] == batches["pending"] + 1
    await door.call("CancelBatch", batch_id=made["batch"]["batch_id"])
    after, after_batches, _ = await statistics(door)
    assert (after["pending"], after["cancelled"]) == (files["pending"], files["cancelled"] + 3)
    assert after_batches["cancelled"] == batches["cancelled"] + 1


async def test_statistics_say_since_when_they_count_cancels_that_came_too_late(door: Door) -> None:
    _, _, before = await statistics(door)
    file = await initiate(door)
    await door.call("CancelFile", file_id=file["file_id"])
    for _ in range(2):
        await refused(door, "CancelFile", file_id=file["file_id"])
    await refused(door, "CancelFile", file_id="nobody's")
    _, _, after = await statistics(door)
    assert int(after["cancels_too_late"]) == int(before["cancels_too_late"]) + 2
    assert after["counted_since"] == before["counted_since"]
    assert datetime.fromisoformat(after["counted_since"]) < datetime.fromisoformat(file["created_at"])


async def test_statistics_tell_what_happened_in_steps_of_time(door: Door) -> None:
    def total(answer: Json, name: str) -> int:
        return sum(int(bucket[name]) for bucket in answer["buckets"])

    names = ("begun", "completed", "failed", "cancelled", "cancels_too_late")
    _, _, before = await statistics(door, window="86400s", step="360s")
    assert len(before["buckets"]) == 240
    starts = [datetime.fromisoformat(bucket["start_at"]).timestamp() for bucket in before["buckets"]]
    assert [start % 360 for start in starts] == [0] * 240
    assert {later - earlier for earlier, later in itertools.pairwise(starts)} == {360}
    assert starts[-1] <= time.time() < starts[-1] + 2 * 360

    made = await initiate_batch(door, 4)
    await door.call("CancelBatch", batch_id=made["batch"]["batch_id"])
    await refused(door, "CancelFile", file_id=made["file_ids"][0])
    _, _, after = await statistics(door, window="86400s", step="360s")
    assert [total(after, name) - total(before, name) for name in names] == [4, 0, 0, 4, 1]


async def test_an_unknown_filter_lists_nothing(door: Door) -> None:
    assert (await door.call("ListFiles", batch_id="nothing"))["files"] == []
    assert await events(door, file_id="nothing") == await events(door, batch_id="nothing") == []


async def test_a_page_token_belongs_to_its_filter(door: Door) -> None:
    made = await initiate_batch(door, 3)
    page = await door.call("ListFiles", batch_id=made["batch"]["batch_id"], page_size=1)
    others: list[Json] = [
        {},
        {"batch_id": "other"},
        {"status": "UPLOAD_STATUS_PENDING"},
        {"batch_id": made["batch"]["batch_id"], "statuses": ["UPLOAD_STATUS_PENDING"]},
        {"batch_id": made["batch"]["batch_id"], "order_by": "created_at desc"},
        {"batch_id": made["batch"]["batch_id"], "filename_prefix": "0"},
        {"batch_id": made["batch"]["batch_id"], "created_after": "2024-01-01T00:00:00Z"},
    ]
    for other in others:
        error = await refused(door, "ListFiles", page_size=1, page_token=page["next_page_token"], **other)
        assert list(error.violations) == ["page_token"]
    # Nor is it one of batches, or of the audit trail.
    for method in ("ListBatches", "ListAuditEvents"):
        error = await refused(door, method, page_token=page["next_page_token"])
        assert list(error.violations) == ["page_token"]


async def test_lists_filter_by_status(door: Door) -> None:
    made = await initiate_batch(door, 3)
    await door.call("CancelFile", file_id=made["file_ids"][1])
    page = await door.call("ListFiles", batch_id=made["batch"]["batch_id"], status="UPLOAD_STATUS_CANCELLED")
    assert [file["file_id"] for file in page["files"]] == [made["file_ids"][1]]


async def test_a_read_begun_after_an_answer_sees_it(channel: grpc.aio.Channel, http: httpx.AsyncClient) -> None:
    """Through every door and by every read, also one that was made just before and might be remembered."""
    doors: list[Door] = [GrpcDoor(channel), HttpDoor(http)]
    made = await initiate_batch(doors[0], 4)
    batch_id, file_ids = made["batch"]["batch_id"], made["file_ids"]

    async def cancelled(door: Door, file_id: str) -> list[object]:
        """What each read says of how many files are cancelled, and whether this one is."""
        file, batch, listed, trail = await asyncio.gather(
            door.call("GetFile", file_id=file_id),
            door.call("GetBatch", batch_id=batch_id),
            door.call("ListFiles", batch_id=batch_id, status="UPLOAD_STATUS_CANCELLED"),
            door.call("ListAuditEvents", batch_id=batch_id),
        )
        steps = [event["to_status"] for event in trail["events"] if event["file_id"]]
        counts = batch["cancelled_files_count"], len(listed["files"]), steps.count("cancelled")
        return [file["status"] == "UPLOAD_STATUS_CANCELLED", *counts]

    async def all_say(file_id: str, *, is_cancelled: bool, count: int) -> None:
        said = await asyncio.gather(*(cancelled(door, file_id) for door in doors))
        assert said == [[is_cancelled, count, count, count]] * 2

    for count, file_id in enumerate(file_ids[:3]):
        await all_say(file_id, is_cancelled=False, count=count)
        await doors[count % 2].call("CancelFile", file_id=file_id)
        await all_say(file_id, is_cancelled=True, count=count + 1)
    await all_say(file_ids[3], is_cancelled=False, count=3)
    await doors[1].call("CancelBatch", batch_id=batch_id)
    await all_say(file_ids[3], is_cancelled=True, count=4)
    # What is new is listed at once.
    for door, other in (doors, doors[::-1]):
        newest = [(await each.call("ListFiles", order_by="created_at desc", page_size=1))["files"] for each in doors]
        new = await initiate(door)
        assert new not in newest[0] + newest[1]
        for each in (other, door):
            assert (await each.call("ListFiles", order_by="created_at desc", page_size=1))["files"] == [new]


async def test_of_many_cancels_at_once_one_wins(door: Door) -> None:
    file = await initiate(door)
    results = await asyncio.gather(
        *(door.call("CancelFile", file_id=file["file_id"], reason=str(i)) for i in range(20)), return_exceptions=True
    )
    winners = [r for r in results if isinstance(r, dict)]
    losers = [r for r in results if isinstance(r, Refusal)]
    assert (len(winners), len(losers)) == (1, 19)
    assert {r.reason for r in losers} == {"FILE_NOT_CANCELLABLE"}
    assert {r.metadata["cancelled_at"] for r in losers} == {winners[0]["cancelled_at"]}
    assert len(await events(door, file_id=file["file_id"])) == 2


async def test_a_batch_of_ten_thousand_is_made_and_cancelled_in_one_call_each(door: Door) -> None:
    made = await initiate_batch(door, 10_000)
    assert len(set(made["file_ids"])) == 10_000
    answer = await door.call("CancelBatch", batch_id=made["batch"]["batch_id"])
    assert answer["cancelled_files_count"] == answer["total_files_in_batch"] == 10_000


async def test_the_largest_batch_with_the_longest_fields_fits(door: Door) -> None:
    """Bounds that hold together: 10,000 files with all that may be said of each stay under 8 MiB."""
    longest = {"size_bytes": 2**40, "content_type": "x" * 127, "sha256": "ab" * 32}
    made = await door.call("InitiateBatch", files=[{"filename": f"{i:0255}", **longest} for i in range(10_000)])
    batch_id = made["batch"]["batch_id"]
    await door.call("CancelBatch", batch_id=batch_id, reason="\U0001f600" * 500)
    seen: list[str] = []
    token = ""
    while len(seen) < 1000:
        page = await door.call("ListFiles", batch_id=batch_id, page_size=1000, page_token=token)
        seen += [file["filename"] for file in page["files"]]
        token = page["next_page_token"]
    assert seen == [f"{i:0255}" for i in range(len(seen))]


async def test_a_page_ends_at_256_kib(stub: Stub, http: httpx.AsyncClient) -> None:
    """However many rows were asked for, nobody can have megabytes made of a hundred bytes."""
    spec = pb.FileSpec(filename="ä" * 127, content_type="x" * 127, size_bytes=2**40, sha256="ab" * 32)
    made = await stub.InitiateBatch(pb.InitiateBatchRequest(files=[spec] * 300))
    batch_id = made.batch.batch_id
    await stub.CancelBatch(pb.CancelBatchRequest(batch_id=batch_id, reason="\U0001f600" * 500, request_id="é" * 128))
    files, events, token = [], [], ""
    while True:
        page = await stub.ListFiles(pb.ListFilesRequest(batch_id=batch_id, page_size=1000, page_token=token))
        files += [file.file_id for file in page.files]
        # Near the bound: a page is not cut for nothing.
        assert page.ByteSize() <= 256 * 1024
        if not (token := page.next_page_token):
            break
        assert page.ByteSize() > 200 * 1024
    assert files == list(made.file_ids)
    while True:
        trail = await stub.ListAuditEvents(
            pb.ListAuditEventsRequest(batch_id=batch_id, page_size=1000, page_token=token)
        )
        events += [event.event_id for event in trail.events]
        assert trail.ByteSize() <= 256 * 1024
        if not (token := trail.next_page_token):
            break
        assert trail.ByteSize() > 200 * 1024
    assert len(set(events)) == len(events) == 602
    # As JSON it is longer, by its names and escapes.
    answer = await http.get("/api/v1/files", params={"batch_id": batch_id, "page_size": 1000})
    assert answer.json()["next_page_token"]
    assert len(answer.content) < 512 * 1024


async def test_a_message_over_8_mib_is_refused_by_grpc_itself(stub: Stub) -> None:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await stub.CancelFile(pb.CancelFileRequest(file_id="a", reason="x" * 8 * 1024 * 1024))
    assert caught.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED


@pytest.mark.parametrize("seconds", [-(2**62), 2**62, 253_402_300_800])
async def test_a_time_beyond_all_years_is_the_callers_mistake(stub: Stub, seconds: int) -> None:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await stub.ListFiles(pb.ListFilesRequest(created_after=Timestamp(seconds=seconds)))
    assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await stub.GetStatistics(pb.GetStatisticsRequest(window=Duration(seconds=seconds), step=Duration(seconds=10)))
    assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT
