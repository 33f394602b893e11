"""What the ingest and the janitor rely on, whatever the sink."""

from __future__ import annotations

import uuid

import pytest

from upload_server.sink.protocol import BytesMissing, Sink, SinkError

KIB = 1024


def put(sink: Sink, file_id: str, data: bytes, offset: int = 0, fence: int = 1) -> None:
    file = sink.open(file_id, fence, offset)
    try:
        file.append([data])
        file.sync()
    finally:
        file.close()


def delete(sink: Sink, file_id: str) -> int | SinkError:
    return sink.delete_all({file_id: None})[file_id]


def bytes_of(sink: Sink, file_id: str) -> bytes:
    return b"".join(sink.read(file_id, sink.size(file_id), 7))


def test_what_is_appended_is_read_back_in_order(sink: Sink, file_id: str) -> None:
    file = sink.open(file_id, 1, 0)
    file.append([b"one ", b"", b"two "])
    file.append([memoryview(b"three")])
    file.sync()
    file.close()
    assert bytes_of(sink, file_id) == b"one two three"
    assert sink.size(file_id) == 13


def test_more_pieces_than_a_call_of_the_kernel_takes(sink: Sink, file_id: str) -> None:
    pieces = [bytes([number % 251]) * (number % 5) for number in range(3000)]
    file = sink.open(file_id, 1, 0)
    file.append(pieces)
    file.close()
    assert bytes_of(sink, file_id) == b"".join(pieces)


def test_a_sync_says_where_the_durable_bytes_end_counted_from_the_start_of_the_file(sink: Sink, file_id: str) -> None:
    file = sink.open(file_id, 1, 0)
    assert file.sync() == 0
    file.append([b"one ", memoryview(b"two ")])
    assert file.sync() == 8
    file.append([b"three"])
    assert file.sync() == 13
    file.close()
    file = sink.open(file_id, 2, 8)
    assert file.sync() == 8
    file.append([b"3"])
    assert file.sync() == 9
    file.close()


def test_opening_cuts_off_what_lies_beyond_the_offset(sink: Sink, file_id: str) -> None:
    put(sink, file_id, b"durable, not durable")
    put(sink, file_id, b" and new", offset=7, fence=2)
    assert bytes_of(sink, file_id) == b"durable and new"


def test_opening_at_zero_starts_afresh(sink: Sink, file_id: str) -> None:
    put(sink, file_id, b"first try")
    put(sink, file_id, b"second")
    assert bytes_of(sink, file_id) == b"second"


def test_opening_beyond_what_lies_there_is_refused(sink: Sink, file_id: str) -> None:
    put(sink, file_id, b"short")
    with pytest.raises(BytesMissing):
        sink.open(file_id, 1, 6)
    assert bytes_of(sink, file_id) == b"short"


def test_opening_beyond_zero_creates_nothing(sink: Sink, file_id: str) -> None:
    with pytest.raises(BytesMissing):
        sink.open(file_id, 1, 1)
    assert list(sink.file_ids()) == []


def test_a_file_without_bytes_exists(sink: Sink, file_id: str) -> None:
    put(sink, file_id, b"")
    assert list(sink.file_ids()) == [file_id]
    assert sink.size(file_id) == 0
    assert list(sink.read(file_id, 0, 8)) == []


def test_reading_starts_and_ends_where_it_is_told(sink: Sink, file_id: str) -> None:
    put(sink, file_id, bytes(range(100)))
    assert b"".join(sink.read(file_id, 90, 8, start=33)) == bytes(range(33, 90))
    assert max(len(piece) for piece in sink.read(file_id, 90, 8)) <= 8


def test_reading_more_than_there_is_fails(sink: Sink, file_id: str) -> None:
    put(sink, file_id, b"ten bytes!")
    with pytest.raises(BytesMissing):
        list(sink.read(file_id, 11, 4))


def test_closing_twice_is_safe(sink: Sink, file_id: str) -> None:
    file = sink.open(file_id, 1, 0)
    file.close()
    file.close()


def test_deleting_frees_the_bytes_and_says_how_many(sink: Sink, file_id: str) -> None:
    put(sink, file_id, b"x" * 5 * KIB)
    assert delete(sink, file_id) == 5 * KIB
    assert list(sink.file_ids()) == []
    assert sink.size(file_id) == 0


def test_deleting_again_and_deleting_nothing_is_no_error(sink: Sink, file_id: str) -> None:
    put(sink, file_id, b"x")
    delete(sink, file_id)
    assert delete(sink, file_id) == 0
    assert delete(sink, str(uuid.uuid4())) == 0


def test_deleting_keeps_the_bytes_of_the_fence_that_a_file_may_keep(sink: Sink, file_id: str) -> None:
    other = str(uuid.uuid4())
    put(sink, file_id, b"completed", fence=7)
    put(sink, other, b"cancelled")
    assert sink.delete_all({file_id: 7, other: None}) == {file_id: 0, other: 9}
    assert bytes_of(sink, file_id) == b"completed"
    assert list(sink.file_ids()) == [file_id]


def test_deleting_many_tells_of_each(sink: Sink) -> None:
    ids = [str(uuid.uuid4()) for _ in range(300)]
    for number, file_id in enumerate(ids[:200]):
        put(sink, file_id, b"x" * number)
    outcomes = sink.delete_all(dict.fromkeys(ids))
    assert outcomes == {file_id: number if number < 200 else 0 for number, file_id in enumerate(ids)}
    assert list(sink.file_ids()) == []


def test_an_open_file_that_is_deleted_can_still_be_written_and_closed(sink: Sink, file_id: str) -> None:
    file = sink.open(file_id, 1, 0)
    delete(sink, file_id)
    file.append([b"into nothing"])
    file.close()
    assert sink.size(file_id) == 0


def test_everything_that_lies_there_is_listed(sink: Sink) -> None:
    ids = {str(uuid.uuid4()) for _ in range(50)}
    for file_id in ids:
        put(sink, file_id, b"x")
    listed = list(sink.file_ids())
    assert len(listed) == 50
    assert set(listed) == ids


@pytest.mark.parametrize(
    "name",
    [
        "",
        "..",
        "../../etc/passwd",
        "/etc/passwd",
        "aa/../../b",
        "6BA7B810-9DAD-41D1-80B4-00C04FD430C8",
        "6ba7b8109dad41d180b400c04fd430c8",
        "6ba7b810-9dad-11d1-80b4-00c04fd430c8",  # version 1
        "6ba7b810-9dad-41d1-80b4-00c04fd430c8\n",
        "6ba7b810-9dad-41d1-80b4-00c04fd430c8/x",
        "６ba7b810-9dad-41d1-80b4-00c04fd430c8",  # noqa: RUF001 - a full-width digit
        "6ba7b810-9dad-41d1-80b4-00c04fd430c8\x00",
    ],
)
def test_a_name_that_is_no_id_of_ours_is_refused(sink: Sink, name: str) -> None:
    with pytest.raises(SinkError, match="not an id"):
        sink.open(name, 1, 0)
    with pytest.raises(SinkError, match="not an id"):
        list(sink.read(name, 1, 1))
    # Nothing can lie there, so there is nothing to delete: a deletion owed for it is settled.
    assert delete(sink, name) == 0
    assert sink.size(name) == 0
    assert list(sink.file_ids()) == []


def test_a_file_that_is_put_whole_is_a_draft_until_it_is_kept(sink: Sink, file_id: str) -> None:
    other, absent = str(uuid.uuid4()), str(uuid.uuid4())
    sink.put(file_id, b"whole")
    sink.put(other, b"")
    put(sink, absent, b"no draft")

    assert bytes_of(sink, file_id) == b"whole"
    assert set(sink.file_ids()) == {file_id, other, absent}
    assert set(sink.drafts([file_id, other, absent, str(uuid.uuid4())])) == {file_id, other}

    sink.keep([file_id, absent, str(uuid.uuid4())])
    assert sink.drafts([file_id, other, absent]) == [other]
    assert bytes_of(sink, file_id) == b"whole"
    assert delete(sink, other) == 0
    assert sink.drafts([file_id, other]) == []


def test_a_draft_takes_nobodys_place(sink: Sink, file_id: str) -> None:
    put(sink, file_id, b"first")
    with pytest.raises(SinkError):
        sink.put(file_id, b"second")
    assert bytes_of(sink, file_id) == b"first"
    assert sink.drafts([file_id]) == []


def test_a_stream_takes_the_place_of_a_draft(sink: Sink, file_id: str) -> None:
    sink.put(file_id, b"left by a crash")
    put(sink, file_id, b"a stream's")
    assert bytes_of(sink, file_id) == b"a stream's"
    assert sink.drafts([file_id]) == []
