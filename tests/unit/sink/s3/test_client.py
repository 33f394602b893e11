"""How the object store is spoken to, and what its errors become."""

from __future__ import annotations

import threading
import time

import pytest

from support import object_store
from upload_server.sink.protocol import BytesMissing
from upload_server.sink.s3.address import parse_address
from upload_server.sink.s3.client import Bucket, Refused, Unavailable


@pytest.fixture
def bucket(theirs: object_store.Bucket) -> Bucket:
    return Bucket(parse_address(theirs.url()), patience=0)


def test_an_object_is_put_once_read_in_part_and_deleted(bucket: Bucket, theirs: object_store.Bucket) -> None:
    assert bucket.put_new("open/a", bytearray(b"0123456789"))
    assert not bucket.put_new("open/a", b"another")
    assert bucket.read("open/a", 2, 5) == b"234"
    assert bucket.size("open/a") == 10
    assert theirs.objects() == {"up/loads/open/a": 10}
    bucket.delete(["open/a", "open/never"])
    assert bucket.size("open/a") is None
    for end in (5, 20):
        with pytest.raises(BytesMissing):
            bucket.read("open/a", 2, end)


def test_bytes_that_are_not_there_are_told_missing(bucket: Bucket) -> None:
    bucket.put_new("open/a", b"0123456789")
    with pytest.raises(BytesMissing):
        bucket.read("open/a", 5, 11)


def test_a_listing_goes_by_whole_segments_and_over_pages(bucket: Bucket) -> None:
    for name in ("open/a/1", "open/a/2", "open/ab/1", "opener/a/1"):
        bucket.put_new(name, b"x")
    assert sorted(found.key for found in bucket.find("open/a")) == ["open/a/1", "open/a/2"]
    assert bucket.find("nowhere") == []


def test_multipart_uploads_that_are_open_are_listed_until_they_are_aborted(bucket: Bucket) -> None:
    first, second = bucket.begin("done/a/1"), bucket.begin("done/b/1")
    assert sorted(bucket.open_uploads("done")) == sorted([("done/a/1", first), ("done/b/1", second)])
    assert bucket.open_uploads("done/a") == [("done/a/1", first)]
    bucket.abort("done/a/1", first)
    bucket.abort("done/a/1", first)
    bucket.abort("done/b/1", second)
    assert bucket.open_uploads("done") == []


def test_a_store_that_is_away_is_asked_again_until_patience_ends(theirs: object_store.Bucket) -> None:
    (port,) = object_store.free_ports(1)
    url = theirs.url(endpoint=f"http://127.0.0.1:{port}")
    begun = time.monotonic()
    with pytest.raises(Unavailable):
        Bucket(parse_address(url), patience=0.7).put_new("open/a", b"x")
    assert 0.1 < time.monotonic() - begun < 20
    with pytest.raises(Unavailable):
        Bucket(parse_address(url), patience=0).begin("done/a/1")


@pytest.mark.parametrize("theirs", ["s3-seaweed"], indirect=True)
def test_what_was_asked_of_a_paused_store_is_carried_out_when_it_goes_on(theirs: object_store.Bucket) -> None:
    bucket = Bucket(parse_address(theirs.url()))
    theirs.store.pause()
    putting = threading.Thread(target=bucket.put_new, args=("open/a", b"late"))
    try:
        putting.start()
        putting.join(0.3)
        assert putting.is_alive()
    finally:
        theirs.store.go_on()
    putting.join(10)
    assert bucket.size("open/a") == 4


@pytest.mark.parametrize("theirs", ["s3-seaweed"], indirect=True)
def test_no_error_tells_a_secret(theirs: object_store.Bucket, monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[Refused] = []
    for key, secret in (
        (object_store.ACCESS_KEY, "wrong-secret"),
        ("unknown-access", "wrong-secret"),
        (object_store.READER_KEY, object_store.READER_SECRET),
    ):
        monkeypatch.setenv("AWS_ACCESS_KEY_ID", key)
        monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", secret)
        bucket = Bucket(parse_address(theirs.url()), patience=5)
        with pytest.raises(Refused) as refused:
            bucket.put_new("open/a", b"x")
        told.append(refused.value)
        with pytest.raises(Refused) as refused:
            bucket.begin("done/a/1")
        told.append(refused.value)
    assert [error.code for error in told[::2]] == ["SignatureDoesNotMatch", "InvalidAccessKeyId", "AccessDenied"]
    for error in told:
        for chained in (error, error.__cause__, error.__context__ if not error.__suppress_context__ else None):
            assert "-access" not in repr(chained)
            assert "-secret" not in repr(chained)


def test_a_bucket_that_is_missing_is_named_so(theirs: object_store.Bucket) -> None:
    url = theirs.url().replace(theirs.name, "no-such-bucket-here")
    with pytest.raises(Refused) as refused:
        Bucket(parse_address(url)).ask("list_multipart_uploads")
    assert refused.value.code == "NoSuchBucket"
