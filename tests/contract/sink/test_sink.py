"""What the ingest and the janitor rely on, whatever the sink."""

from __future__ import annotations

import os
import uuid
from collections.abc import Sequence
from pathlib import Path

import pytest

from upload_server.domain.runs import WHOLE, Run, whole
from upload_server.sink.open import open_sink
from upload_server.sink.protocol import BytesMissing, BytesThere, Doomed, Sink, SinkError, SinkFile

KIB = 1024
MIB = 1024 * KIB
FIRST = (Run(1, 0),)
# As announced, where a test does not care.
SIZE = 20 * MIB


def put(sink: Sink, file_id: str, data: bytes, runs: Sequence[Run] = FIRST, offset: int = 0) -> None:
    file = sink.open(file_id, runs, SIZE, offset)
    try:
        file.append([data])
        file.sync()
    finally:
        file.close()


def delete(sink: Sink, file_id: str, *fences: int) -> int | SinkError:
    return sink.delete_all([Doomed(file_id, fences or (1,))])[file_id]


def bytes_of(sink: Sink, file_id: str, runs: Sequence[Run] = FIRST, end: int | None = None) -> bytes:
    return b"".join(sink.read(file_id, runs, sink.size(file_id, runs) if end is None else end, 64 * KIB))


def ids_in(sink: Sink) -> list[str]:
    return [one.file_id for one in sink.stored()]


def fences_of(sink: Sink, file_id: str) -> set[int]:
    return {fence for one in sink.stored() if one.file_id == file_id for fence in one.fences}


def test_what_is_appended_is_read_back_in_order(sink: Sink, file_id: str) -> None:
    file = sink.open(file_id, FIRST, 13, 0)
    file.append([b"one ", b"", b"two "])
    file.append([memoryview(b"three")])
    file.sync()
    file.close()
    assert bytes_of(sink, file_id) == b"one two three"
    assert sink.size(file_id, FIRST) == 13


def test_more_pieces_than_a_call_of_the_kernel_takes(sink: Sink, file_id: str) -> None:
    pieces = [bytes([number % 251]) * (number % 5) for number in range(3000)]
    file = sink.open(file_id, FIRST, SIZE, 0)
    file.append(pieces)
    file.sync()
    file.close()
    assert bytes_of(sink, file_id) == b"".join(pieces)


def test_a_sync_says_where_the_durable_bytes_end_counted_from_the_start_of_the_file(sink: Sink, file_id: str) -> None:
    file = sink.open(file_id, FIRST, 13, 0)
    assert file.sync() == 0
    file.append([b"one ", memoryview(b"two ")])
    assert file.sync() == 8
    file.append([b"three"])
    assert file.sync() == 13
    file.close()
    file = sink.open(file_id, [Run(1, 0), Run(2, 8)], 9, 8)
    assert file.sync() == 8
    file.append([b"3"])
    assert file.sync() == 9
    file.close()


def test_opening_beyond_what_lies_there_is_refused(sink: Sink, file_id: str) -> None:
    put(sink, file_id, b"short")
    with pytest.raises(BytesMissing):
        sink.open(file_id, [Run(1, 0), Run(2, 6)], SIZE, 6)
    if sink.continues:
        with pytest.raises(BytesMissing):
            sink.open(file_id, FIRST, SIZE, 6)
    assert bytes_of(sink, file_id) == b"short"
    assert fences_of(sink, file_id) == {1}


def test_opening_beyond_zero_creates_nothing(sink: Sink, file_id: str) -> None:
    with pytest.raises(BytesMissing):
        sink.open(file_id, [Run(1, 0), Run(2, 1)], SIZE, 1)
    assert ids_in(sink) == []


def test_a_file_without_bytes_is_whole(sink: Sink, file_id: str) -> None:
    put(sink, file_id, b"")
    sink.finish(file_id, FIRST, 0)
    assert ids_in(sink) == [file_id]
    assert sink.size(file_id, whole(1)) == 0
    assert list(sink.read(file_id, whole(1), 0, 8)) == []


def test_reading_starts_and_ends_where_it_is_told(sink: Sink, file_id: str) -> None:
    put(sink, file_id, bytes(range(100)))
    assert b"".join(sink.read(file_id, FIRST, 90, 8, start=33)) == bytes(range(33, 90))


def test_a_block_that_is_read_is_little_more_than_was_asked_for(sink: Sink, file_id: str) -> None:
    data = os.urandom(4 * MIB)
    put(sink, file_id, data)
    blocks = list(sink.read(file_id, FIRST, len(data), 64 * KIB))
    assert b"".join(blocks) == data
    assert max(map(len, blocks)) <= MIB


def test_reading_more_than_there_is_fails(sink: Sink, file_id: str) -> None:
    put(sink, file_id, b"ten bytes!")
    with pytest.raises(BytesMissing):
        list(sink.read(file_id, FIRST, 11, 4))


def test_closing_twice_is_safe(sink: Sink, file_id: str) -> None:
    file = sink.open(file_id, FIRST, SIZE, 0)
    file.close()
    file.close()


def test_a_later_stream_goes_on_with_a_run_on_disk(tmp_path: Path, file_id: str) -> None:
    sink = open_sink((tmp_path / "bytes").as_uri())
    assert sink.continues
    put(sink, file_id, b"durable, not durable")
    put(sink, file_id, b" and new", offset=7)
    assert bytes_of(sink, file_id) == b"durable and new"
    put(sink, file_id, b"afresh")
    assert bytes_of(sink, file_id) == b"afresh"
    assert fences_of(sink, file_id) == {1}


# Runs ----------------------------------------------------------------------------------------------------------------

# At the start, inside a piece, at the end of what was sent, on a border of parts and beside it.
OFFSETS = (0, 1, 5 * KIB, 64 * KIB, 8 * MIB - 1, 8 * MIB, 8 * MIB + 1, 9 * MIB)


def taken_over(sink: Sink, file_id: str, old: bytes, new: bytes, offset: int) -> tuple[SinkFile, list[Run]]:
    """Have one stream send ``old``, and another one go on from ``offset``; returns the first, and the runs by then."""
    zombie = sink.open(file_id, FIRST, SIZE, 0)
    for start in range(0, len(old), MIB):
        zombie.append([old[start : start + MIB]])
    zombie.sync()
    runs = [Run(1, 0), Run(2, offset)] if offset else [Run(2, 0)]
    put(sink, file_id, new[offset:], runs, offset)
    return zombie, runs


@pytest.mark.parametrize("offset", OFFSETS)
def test_a_file_of_two_runs_has_of_the_first_what_counts_and_the_rest_of_the_second(
    sink: Sink, file_id: str, offset: int
) -> None:
    old, rest = os.urandom(9 * MIB), os.urandom(2 * MIB)
    new = old[:offset] + rest
    zombie, runs = taken_over(sink, file_id, old, new, offset)
    zombie.append([b"z" * MIB])
    zombie.sync()
    zombie.close()

    assert sink.size(file_id, runs) == len(new)
    assert bytes_of(sink, file_id, runs) == new
    assert b"".join(sink.read(file_id, runs, len(new), MIB, start=max(0, offset - 3))) == new[max(0, offset - 3) :]
    sink.finish(file_id, runs, len(new))
    assert bytes_of(sink, file_id, whole(2)) == new
    # Another commit may still be refused: the runs stay as they are.
    assert bytes_of(sink, file_id, runs) == new
    delete_others = sink.delete_all([Doomed(file_id, (1, 2), 2)])[file_id]
    assert isinstance(delete_others, int)
    assert fences_of(sink, file_id) == {2}
    assert bytes_of(sink, file_id, whole(2)) == new


@pytest.mark.parametrize("at", ["append", "sync", "discard", "close", "everything"])
@pytest.mark.parametrize("when", ["before the newcomer's bytes", "before the end", "after the end"])
def test_a_writer_that_wakes_late_changes_no_byte_of_the_file(sink: Sink, file_id: str, at: str, when: str) -> None:
    zombie = sink.open(file_id, FIRST, SIZE, 0)
    zombie.append([b"a" * 1000])
    zombie.sync()
    zombie.append([b"b" * 500])
    runs = [Run(1, 0), Run(2, 1000)]

    def wake() -> None:
        if at in ("append", "everything"):
            zombie.append([b"z" * 700])
        if at in ("sync", "everything"):
            zombie.sync()
        if at in ("discard", "everything"):
            zombie.discard(1000)
        zombie.close()

    file = sink.open(file_id, runs, 1600, 1000)
    if when == "before the newcomer's bytes":
        wake()
    file.append([b"n" * 600])
    file.sync()
    if when == "before the end":
        wake()
    file.close()
    sink.finish(file_id, runs, 1600)
    if when == "after the end":
        wake()
    assert bytes_of(sink, file_id, whole(2), 1600) == b"a" * 1000 + b"n" * 600
    assert bytes_of(sink, file_id, runs, 1600) == b"a" * 1000 + b"n" * 600


def test_a_writer_that_opens_late_changes_no_byte_of_the_file(sink: Sink, file_id: str) -> None:
    """It had claimed the file, and was stopped before it opened it; the next one found its run empty."""
    put(sink, file_id, b"a" * 1000)
    runs = [Run(1, 0), Run(3, 1000)]
    put(sink, file_id, b"n" * 600, runs, 1000)
    sink.finish(file_id, runs, 1600)

    zombie = sink.open(file_id, [Run(1, 0), Run(2, 1000)], 1600, 1000)
    zombie.append([b"z" * 600])
    zombie.sync()
    zombie.discard(1000)
    zombie.close()

    assert bytes_of(sink, file_id, whole(3), 1600) == b"a" * 1000 + b"n" * 600
    assert fences_of(sink, file_id) == {1, 3}


def test_what_was_refused_is_deleted_but_for_what_counts(sink: Sink, file_id: str) -> None:
    file = sink.open(file_id, FIRST, SIZE, 0)
    file.append([b"a" * 1000])
    file.sync()
    file.append([b"b" * 1000])
    file.sync()
    file.discard(1000)
    file.close()
    assert sink.size(file_id, FIRST) == 1000
    assert bytes_of(sink, file_id) == b"a" * 1000


def test_what_counts_stays_when_it_ends_in_the_middle_of_what_was_synced_at_once(sink: Sink, file_id: str) -> None:
    file = sink.open(file_id, FIRST, SIZE, 0)
    file.append([b"a" * 1000])
    file.sync()
    file.discard(500)
    file.close()
    assert bytes_of(sink, file_id)[:500] == b"a" * 500


def test_many_runs_become_one(sink: Sink, file_id: str) -> None:
    runs, data = list[Run](), b""
    for number in range(1, 30):
        runs.append(Run(number * 3, len(data)))
        part = bytes([number]) * (number * 1000)
        put(sink, file_id, part + b"never counted", runs, len(data))
        data += part
    put(sink, file_id, b"", [*runs, Run(1000, len(data))], len(data))
    runs.append(Run(1000, len(data)))
    put(sink, file_id, b"end", runs, len(data))
    data += b"end"
    assert bytes_of(sink, file_id, runs, len(data)) == data
    sink.finish(file_id, runs, len(data))
    assert bytes_of(sink, file_id, whole(1000), len(data)) == data


# Finish --------------------------------------------------------------------------------------------------------------


def test_finishing_twice_is_finishing_once(sink: Sink, file_id: str) -> None:
    new = os.urandom(9 * MIB)
    zombie, runs = taken_over(sink, file_id, new[: 2 * MIB], new, MIB)
    zombie.close()
    sink.finish(file_id, runs, len(new))
    sink.finish(file_id, runs, len(new))
    assert bytes_of(sink, file_id, whole(2), len(new)) == new


def test_a_replaced_writer_that_finishes_late_harms_nobody(sink: Sink, file_id: str) -> None:
    """It was stopped in its commit; the next one sends the last bytes anew."""
    put(sink, file_id, b"a" * 1000)
    old, runs = [Run(1, 0), Run(2, 1000)], [Run(1, 0), Run(2, 1000), Run(3, 1500)]
    put(sink, file_id, b"b" * 1000, old, 1000)
    put(sink, file_id, b"c" * 500, runs, 1500)
    sink.finish(file_id, old, 2000)
    sink.finish(file_id, runs, 2000)
    sink.finish(file_id, old, 2000)
    assert bytes_of(sink, file_id, whole(3), 2000) == b"a" * 1000 + b"b" * 500 + b"c" * 500
    assert bytes_of(sink, file_id, runs, 2000) == b"a" * 1000 + b"b" * 500 + b"c" * 500


def test_finishing_gives_up_when_it_is_told_to_and_may_begin_again(sink: Sink, file_id: str) -> None:
    new = os.urandom(9 * MIB)
    zombie, runs = taken_over(sink, file_id, new[: 8 * MIB], new, 8 * MIB)
    zombie.close()
    with pytest.raises(SinkError):
        sink.finish(file_id, runs, len(new), lambda: True)
    assert bytes_of(sink, file_id, runs, len(new)) == new
    sink.finish(file_id, runs, len(new), lambda: False)
    assert bytes_of(sink, file_id, whole(2), len(new)) == new


@pytest.mark.parametrize("gone", [(1,), (2,), (1, 2)])
def test_what_is_deleted_cannot_be_finished(sink: Sink, file_id: str, gone: tuple[int, ...]) -> None:
    zombie, runs = taken_over(sink, file_id, b"a" * 1000, b"a" * 1000 + b"n" * 500, 1000)
    zombie.close()
    delete(sink, file_id, *gone)
    with pytest.raises(BytesMissing):
        sink.finish(file_id, runs, 1500)


def test_a_deletion_of_what_was_finished_leaves_nothing(sink: Sink, file_id: str) -> None:
    zombie, runs = taken_over(sink, file_id, b"a" * 1000, b"a" * 1000 + b"n" * 500, 1000)
    zombie.close()
    sink.finish(file_id, runs, 1500)
    assert isinstance(delete(sink, file_id, 1, 2), int)
    assert ids_in(sink) == []


# Deletion and listing ------------------------------------------------------------------------------------------------


def test_deleting_frees_the_bytes_and_says_how_many(sink: Sink, file_id: str) -> None:
    put(sink, file_id, b"x" * 5 * KIB)
    assert sink.size_under(file_id, (1, 2)) == 5 * KIB
    assert delete(sink, file_id) == 5 * KIB
    assert ids_in(sink) == []
    assert sink.size(file_id, FIRST) == sink.size_under(file_id, (1,)) == 0


def test_deleting_again_and_deleting_nothing_is_no_error(sink: Sink, file_id: str) -> None:
    put(sink, file_id, b"x")
    delete(sink, file_id)
    assert delete(sink, file_id) == 0
    assert delete(sink, str(uuid.uuid4())) == 0


def test_only_what_lies_under_the_fences_goes(sink: Sink, file_id: str) -> None:
    put(sink, file_id, b"first")
    put(sink, file_id, b"second", [Run(2, 0)])
    put(sink, file_id, b"third", [Run(3, 0)])
    delete(sink, file_id, 1, 3)
    assert fences_of(sink, file_id) == {2}
    assert bytes_of(sink, file_id, [Run(2, 0)]) == b"second"


def test_deleting_keeps_the_bytes_of_the_fence_that_a_file_may_keep(sink: Sink, file_id: str) -> None:
    other, runs = str(uuid.uuid4()), [Run(7, 0)]
    put(sink, file_id, b"completed", runs)
    sink.finish(file_id, runs, 9)
    put(sink, other, b"cancelled")
    outcomes = sink.delete_all([Doomed(file_id, (6, 7), 7), Doomed(other, (1,))])
    assert outcomes[other] == 9
    assert isinstance(outcomes[file_id], int)
    assert bytes_of(sink, file_id, whole(7)) == b"completed"
    assert ids_in(sink) == [file_id]


def test_deleting_many_tells_of_each(sink: Sink) -> None:
    ids = [str(uuid.uuid4()) for _ in range(60)]
    for number, file_id in enumerate(ids[:40], start=1):
        put(sink, file_id, b"x" * number)
    outcomes = sink.delete_all([Doomed(file_id, (1,)) for file_id in ids])
    assert outcomes == {file_id: number if number <= 40 else 0 for number, file_id in enumerate(ids, start=1)}
    assert ids_in(sink) == []


def test_an_open_file_that_is_deleted_can_still_be_written_and_closed(sink: Sink, file_id: str) -> None:
    file = sink.open(file_id, FIRST, SIZE, 0)
    delete(sink, file_id)
    file.append([b"into nothing"])
    file.close()
    assert sink.size(file_id, FIRST) == 0


def test_everything_that_lies_there_is_listed_once(sink: Sink) -> None:
    ids = {str(uuid.uuid4()) for _ in range(30)}
    for file_id in ids:
        put(sink, file_id, b"x")
        put(sink, file_id, b"x", [Run(1, 0), Run(12, 1)], 1)
    sink.put(another := str(uuid.uuid4()), b"whole")
    listed = {one.file_id: sorted(one.fences) for one in sink.stored()}
    assert listed == {**{each: [1, 12] for each in ids}, another: [WHOLE]}
    assert len(list(sink.stored())) == 31


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
        "6ba7b810-9dad-41d1-80b4-00c04fd430c8.1",
        "６ba7b810-9dad-41d1-80b4-00c04fd430c8",  # noqa: RUF001 - a full-width digit
        "6ba7b810-9dad-41d1-80b4-00c04fd430c8\x00",
    ],
)
def test_a_name_that_is_no_id_of_ours_is_refused(sink: Sink, name: str) -> None:
    with pytest.raises(SinkError, match="not an id"):
        sink.open(name, FIRST, 1, 0)
    with pytest.raises(SinkError, match="not an id"):
        list(sink.read(name, FIRST, 1, 1))
    # Nothing can lie there, so there is nothing to delete: a deletion owed for it is settled.
    assert delete(sink, name) == 0
    assert sink.size(name, FIRST) == sink.size_under(name, (1,)) == 0
    assert ids_in(sink) == []


# Files that come whole -----------------------------------------------------------------------------------------------


def test_a_file_that_is_put_whole_is_a_draft_until_it_is_kept(sink: Sink, file_id: str) -> None:
    other, absent = str(uuid.uuid4()), str(uuid.uuid4())
    sink.put(file_id, b"whole")
    sink.put(other, b"")
    put(sink, absent, b"no draft")

    assert bytes_of(sink, file_id, whole(WHOLE)) == b"whole"
    assert set(ids_in(sink)) == {file_id, other, absent}
    assert set(sink.drafts([file_id, other, absent, str(uuid.uuid4())])) == {file_id, other}

    sink.keep([file_id, absent, str(uuid.uuid4())])
    assert sink.drafts([file_id, other, absent]) == [other]
    assert bytes_of(sink, file_id, whole(WHOLE)) == b"whole"
    assert delete(sink, other, WHOLE) == 0
    assert sink.drafts([file_id, other]) == []


def test_of_two_who_put_the_same_file_one_does(sink: Sink, file_id: str) -> None:
    sink.put(file_id, b"first")
    with pytest.raises(BytesThere):
        sink.put(file_id, b"second")
    assert bytes_of(sink, file_id, whole(WHOLE)) == b"first"
    assert sink.drafts([file_id]) == [file_id]


def test_a_draft_and_a_stream_are_out_of_each_others_way(sink: Sink, file_id: str) -> None:
    """A node puts the file whole, another one has a stream on it: the row takes one of them."""
    put(sink, file_id, b"a stream's")
    sink.put(file_id, b"whole")
    assert bytes_of(sink, file_id) == b"a stream's"
    assert bytes_of(sink, file_id, whole(WHOLE)) == b"whole"
    delete(sink, file_id, WHOLE)
    assert bytes_of(sink, file_id) == b"a stream's"
    assert fences_of(sink, file_id) == {1}
