"""What holds for object stores alone: names, doubtful answers, assembly against deletion, stores that lie."""

from __future__ import annotations

import os
import threading
import uuid
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor

import pytest

from support import object_store
from support.proxy import FaultProxy, fault_proxy_beside
from upload_server.domain.runs import WHOLE, Run, whole
from upload_server.sink.protocol import BytesThere, Doomed, SinkError, Stored
from upload_server.sink.s3.address import parse_address
from upload_server.sink.s3.client import Bucket
from upload_server.sink.s3.names import MIB
from upload_server.sink.s3.sink import S3Sink

ONE = (Run(1, 0),)


@pytest.fixture(params=object_store.STORES)
def bucket(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> object_store.Bucket:
    for name, value in object_store.environment().items():
        monkeypatch.setenv(name, value)
    return object_store.STORES[request.param]().new_bucket()


@pytest.fixture
def sink(bucket: object_store.Bucket) -> S3Sink:
    return S3Sink(Bucket(parse_address(bucket.url())))


@pytest.fixture
def file_id() -> str:
    return str(uuid.uuid4())


@pytest.fixture
def proxy(bucket: object_store.Bucket) -> Iterator[FaultProxy]:
    with fault_proxy_beside(bucket.store.port) as between:
        yield between


def send(sink: S3Sink, file_id: str, runs: Sequence[Run], data: bytes, size: int, offset: int = 0) -> None:
    file = sink.open(file_id, runs, size, offset)
    file.append([data])
    assert file.sync() == offset + len(data)
    file.close()


def read(sink: S3Sink, file_id: str, runs: Sequence[Run], end: int) -> bytes:
    return b"".join(sink.read(file_id, runs, end, 100_000))


def test_nothing_is_stored_before_a_sync(sink: S3Sink, bucket: object_store.Bucket, file_id: str) -> None:
    file = sink.open(file_id, ONE, 100, 0)
    file.append([b"kept in memory"])
    assert bucket.objects() == {}
    file.close()
    assert file.sync() == 0
    assert bucket.objects() == {}


def test_names_say_whose_bytes_they_are_and_where_they_lie(
    sink: S3Sink, bucket: object_store.Bucket, file_id: str
) -> None:
    size = 17 * MIB
    send(sink, file_id, ONE, os.urandom(size), size)
    place = f"up/loads/open/{file_id}/00000001"
    assert bucket.objects() == {
        f"{place}/0000000000000000-8388608": 8 * MIB,
        f"{place}/0000000008388608-8388608": 8 * MIB,
        f"{place}/0000000016777216-1048576": MIB,
    }
    sink.finish(file_id, ONE, size)
    assert bucket.objects()[f"up/loads/done/{file_id}/1"] == size
    assert sink.delete_all([Doomed(file_id, (1,))]) == {file_id: 2 * size}
    assert bucket.objects() == {}


# At the start, inside a piece, on the border of two, on one of a part, at the end.
@pytest.mark.parametrize("offset", [0, 5, 3 * MIB, 8 * MIB, 9 * MIB - 1, 9 * MIB])
def test_a_take_over_at_any_offset_and_the_old_writer_goes_on(
    sink: S3Sink, bucket: object_store.Bucket, file_id: str, offset: int
) -> None:
    size = 9 * MIB
    data, zombie = os.urandom(size), None
    old = sink.open(file_id, ONE, size, 0)
    old.append([data[: 3 * MIB]])
    old.sync()
    old.append([data[3 * MIB : offset]] if offset > 3 * MIB else [b"never recorded"])
    old.sync()
    zombie = old
    runs = (Run(1, 0), Run(2, offset)) if offset else (Run(2, 0),)
    new = sink.open(file_id, runs, size, offset)
    new.append([data[offset : offset + MIB]])
    zombie.append([b"\0" * MIB])
    new.sync()
    zombie.sync()
    new.append([data[offset + MIB :]])
    zombie.append([b"\0" * MIB])
    zombie.sync()
    if offset < size:
        new.sync()
    assert read(sink, file_id, runs, size) == data
    assert sink.size(file_id, runs) == size
    sink.finish(file_id, runs, size)
    zombie.discard(0)
    assert bucket.read(f"up/loads/done/{file_id}/2") == data
    # What counts from now on is the whole; the rest goes.
    sink.delete_all([Doomed(file_id, (1, 2), kept=2)])
    assert bucket.objects() == {f"up/loads/done/{file_id}/2": size}
    assert read(sink, file_id, (Run(2, 0),), size) == data


def test_two_who_finish_at_once_make_one_file(sink: S3Sink, bucket: object_store.Bucket, file_id: str) -> None:
    size = 20 * MIB
    data = os.urandom(size)
    send(sink, file_id, ONE, data, size)
    other = S3Sink(Bucket(parse_address(bucket.url())))
    with ThreadPoolExecutor(2) as pool:
        for done in [pool.submit(each.finish, file_id, ONE, size) for each in (sink, other)]:
            done.result()
    assert bucket.read(f"up/loads/done/{file_id}/1") == data
    sink.finish(file_id, ONE, size)
    assert bucket.uploads() == []


@pytest.mark.parametrize("late", [0.0, 0.05, 0.1, 0.2])
def test_two_looks_leave_nothing_of_a_file_that_is_cancelled_while_it_is_put_together(
    sink: S3Sink, bucket: object_store.Bucket, file_id: str, late: float
) -> None:
    """What the store answers to an abort is no evidence: one of the two here says that it aborted what it completed."""
    size = 24 * MIB
    send(sink, file_id, ONE, os.urandom(size), size)
    begun = threading.Event()

    def finish() -> None:
        begun.set()
        try:
            sink.finish(file_id, ONE, size)
        except SinkError:
            return

    finishing = threading.Thread(target=finish)
    finishing.start()
    begun.wait()
    # The race is what is tried here, so that nothing can be waited for.
    threading.Event().wait(late)
    first = sink.delete_all([Doomed(file_id, (1,))])[file_id]
    finishing.join()
    second = sink.delete_all([Doomed(file_id, (1,))])[file_id]
    assert isinstance(second, int)
    assert isinstance(first, (int, SinkError))
    assert bucket.objects() == {}
    assert bucket.uploads() == []


def test_assembly_ends_soon_when_nobody_wants_the_file_any_more(
    sink: S3Sink, bucket: object_store.Bucket, file_id: str
) -> None:
    size = 80 * MIB
    send(sink, file_id, ONE, bytes(size), size)
    with pytest.raises(SinkError, match="nobody wants"):
        sink.finish(file_id, ONE, size, lambda: True)
    sink.delete_all([Doomed(file_id, (1,))])
    # A copy that was under way makes the upload anew that was aborted, on some stores: hence the second look.
    sink._assembly._threads.shutdown(wait=True)
    sink.delete_all([Doomed(file_id, (1,))])
    assert bucket.objects() == {}
    assert bucket.uploads() == []


def test_a_put_whose_answer_is_lost_counts(bucket: object_store.Bucket, proxy: FaultProxy, file_id: str) -> None:
    sink = S3Sink(Bucket(parse_address(bucket.url(endpoint=proxy.url))))
    file = sink.open(file_id, ONE, 100, 0)
    file.append([b"carried out and never answered"])
    proxy.down.cut_after = 0
    with ThreadPoolExecutor(1) as pool:
        syncing = pool.submit(file.sync)
        while not bucket.objects():
            threading.Event().wait(0.01)
        proxy.heal()
        assert syncing.result(20) == 30
    assert read(sink, file_id, ONE, 30) == b"carried out and never answered"


def test_an_assembly_whose_last_answer_is_lost_counts(
    bucket: object_store.Bucket, proxy: FaultProxy, file_id: str
) -> None:
    size = 20 * MIB
    data = os.urandom(size)
    sink = S3Sink(Bucket(parse_address(bucket.url(endpoint=proxy.url))))
    send(sink, file_id, ONE, data, size)
    target = f"up/loads/done/{file_id}/1"
    with ThreadPoolExecutor(1) as pool:
        finishing = pool.submit(sink.finish, file_id, ONE, size)
        while target not in bucket.objects() and not finishing.done():
            # Answers are lost, whichever they are, until the object is there.
            proxy.go_away()
            proxy.away = False
            threading.Event().wait(0.3)
        finishing.result(40)
    assert bucket.read(target) == data


def test_a_store_that_is_away_fails_what_waited_for_it_and_the_next_try_goes_on(
    bucket: object_store.Bucket, proxy: FaultProxy, file_id: str
) -> None:
    sink = S3Sink(Bucket(parse_address(bucket.url(endpoint=proxy.url)), patience=0.5))
    send(sink, file_id, ONE, b"durable", 100)
    proxy.go_away()
    file = sink.open(file_id, (Run(1, 0), Run(2, 7)), 100, 0)
    file.append([b"lost"])
    for _ in range(2):
        with pytest.raises(SinkError, match="does not answer"):
            file.sync()
    proxy.away = False
    runs = (Run(1, 0), Run(3, 7))
    send(sink, file_id, runs, b" again", 100, offset=7)
    assert read(sink, file_id, runs, 13) == b"durable again"


def test_of_a_draft_the_mark_goes_and_the_file_stays(sink: S3Sink, bucket: object_store.Bucket, file_id: str) -> None:
    sink.put(file_id, b"whole")
    place = f"up/loads/done/{file_id}/0"
    assert bucket.objects() == {place: 5, f"up/loads/draft/{file_id}": 0}
    assert sink.drafts([file_id, str(uuid.uuid4())]) == [file_id]
    with pytest.raises(BytesThere):
        sink.put(file_id, b"other")
    sink.keep([file_id])
    assert bucket.objects() == {place: 5}
    assert read(sink, file_id, (Run(WHOLE, 0),), 5) == b"whole"
    sink.put(other := str(uuid.uuid4()), b"unwanted")
    sink.delete_all([Doomed(other, (WHOLE,))])
    assert bucket.objects() == {place: 5}


def test_everything_that_lies_there_is_told_once(sink: S3Sink, bucket: object_store.Bucket) -> None:
    pieces, both, whole, begun = (str(uuid.uuid4()) for _ in range(4))
    send(sink, pieces, (Run(3, 0),), b"x", 10)
    send(sink, both, ONE, b"x", 1)
    sink.finish(both, ONE, 1)
    send(sink, both, (Run(2, 0),), b"x", 1)
    sink.put(whole, b"x")
    Bucket(parse_address(bucket.url())).begin(f"done/{begun}/7")
    bucket.put("up/loads/open/not-an-id/00000001/0000000000000000-1", b"x")
    bucket.put("up/loads/note.txt", b"mine")
    bucket.put("up/other/open/x", b"mine")
    told = sorted(Stored(each.file_id, tuple(sorted(each.fences))) for each in sink.stored())
    assert told == sorted([Stored(pieces, (3,)), Stored(both, (1, 2)), Stored(whole, (0,)), Stored(begun, (7,))])
    sink.delete_all([Doomed(each.file_id, each.fences) for each in told])
    assert sorted(bucket.objects()) == [
        "up/loads/note.txt",
        "up/loads/open/not-an-id/00000001/0000000000000000-1",
        "up/other/open/x",
    ]
    assert bucket.uploads() == []


def test_only_what_is_doomed_goes(sink: S3Sink, file_id: str) -> None:
    """A file that is still sent to loses what replaced streams left, and nothing of its own."""
    send(sink, file_id, ONE, b"first", 20)
    send(sink, file_id, (Run(1, 0), Run(4, 5)), b" then", 20, offset=5)
    send(sink, file_id, (Run(2, 0),), b"left over", 20)
    assert sink.delete_all([Doomed(file_id, (2, 3))]) == {file_id: 9}
    assert read(sink, file_id, (Run(1, 0), Run(4, 5)), 10) == b"first then"


def test_a_refused_draft_takes_no_later_one_of_the_same_file_with_it(
    sink: S3Sink, file_id: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever was refused deletes; the next sender of the file comes between that and the look whether all is gone."""
    sink.put(file_id, b"refused")
    delete = Bucket.delete

    def delete_and_wait(self: Bucket, keys: Sequence[str]) -> None:
        monkeypatch.setattr(Bucket, "delete", delete)
        delete(self, keys)
        sink.put(file_id, b"accepted")

    monkeypatch.setattr(Bucket, "delete", delete_and_wait)
    assert sink.delete_all([Doomed(file_id, (WHOLE,))])[file_id] == len(b"refused")
    assert read(sink, file_id, whole(WHOLE), len(b"accepted")) == b"accepted"
