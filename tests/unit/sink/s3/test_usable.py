"""Which buckets are refused at start, and in which words."""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest

from support import object_store
from upload_server.domain.errors import CannotStart
from upload_server.sink.s3.address import parse_address
from upload_server.sink.s3.client import Bucket
from upload_server.sink.s3.usable import refuse_unusable


def refusal(url: str) -> str:
    with pytest.raises(CannotStart) as refused:
        refuse_unusable(Bucket(parse_address(url), patience=0.3))
    text = str(refused.value)
    assert text.startswith("--storage-url: ")
    assert "secret-never" not in text
    return text


def test_a_good_bucket_is_left_as_it_was(theirs: object_store.Bucket) -> None:
    refuse_unusable(Bucket(parse_address(theirs.url())))
    assert theirs.objects() == {}
    assert theirs.uploads() == []


def test_a_bucket_that_is_missing(theirs: object_store.Bucket) -> None:
    text = refusal(theirs.url().replace(theirs.name, "no-such-bucket-here"))
    assert "there is no bucket no-such-bucket-here" in text
    assert "make it" in text


@pytest.mark.parametrize("theirs", ["s3-seaweed"], indirect=True)
def test_a_bucket_that_keeps_old_versions(theirs: object_store.Bucket) -> None:
    theirs.client.put_bucket_versioning(Bucket=theirs.name, VersioningConfiguration={"Status": "Enabled"})
    assert "suspend its versioning" in refusal(theirs.url())
    theirs.client.put_bucket_versioning(Bucket=theirs.name, VersioningConfiguration={"Status": "Suspended"})
    refuse_unusable(Bucket(parse_address(theirs.url())))


@pytest.mark.parametrize("theirs", ["s3-seaweed"], indirect=True)
def test_a_bucket_with_object_lock(theirs: object_store.Bucket) -> None:
    theirs.client.create_bucket(Bucket=f"{theirs.name}-l", ObjectLockEnabledForBucket=True)
    # Such a bucket has versions too; that they are suspended does not unlock it.
    with contextlib.suppress(Exception):
        theirs.client.put_bucket_versioning(Bucket=f"{theirs.name}-l", VersioningConfiguration={"Status": "Suspended"})
    text = refusal(theirs.url().replace(theirs.name, f"{theirs.name}-l"))
    assert "object lock" in text or "versioning" in text


@pytest.mark.parametrize("theirs", ["s3-seaweed"], indirect=True)
@pytest.mark.parametrize(
    ("key", "secret", "words"),
    [
        (object_store.ACCESS_KEY, "wrong-secret-never-shown", "does not know our credentials"),
        ("nobody", "wrong-secret-never-shown", "does not know our credentials"),
        (object_store.READER_KEY, object_store.READER_SECRET, "may not write"),
    ],
)
def test_credentials_that_are_wrong_or_not_enough(
    theirs: object_store.Bucket, monkeypatch: pytest.MonkeyPatch, key: str, secret: str, words: str
) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", key)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", secret)
    text = refusal(theirs.url())
    assert words in text
    assert key not in text


@pytest.mark.parametrize("theirs", ["s3-seaweed"], indirect=True)
def test_no_credentials_at_all(theirs: object_store.Bucket, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in list(os.environ):
        if name.startswith("AWS_"):
            monkeypatch.delenv(name)
    for name, value in object_store.environment().items():
        if not name.endswith(("_ID", "_KEY")):
            monkeypatch.setenv(name, value)
    assert "set AWS_ACCESS_KEY_ID" in refusal(theirs.url())


class _Page(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        page, status = b"<html>a page of somebody's</html>", 200
        if self.path.startswith("/late"):
            page, status = b"<Error><Code>RequestTimeTooSkewed</Code><Message>Late</Message></Error>", 403
        self.send_response(status)
        self.send_header("Content-Length", str(len(page)))
        self.end_headers()
        self.wfile.write(page)

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def web_server() -> Iterator[int]:
    with HTTPServer(("127.0.0.1", 0), _Page) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield server.server_port
        server.shutdown()
        thread.join()


@pytest.mark.parametrize("theirs", ["s3-seaweed"], indirect=True)
def test_an_endpoint_where_nobody_or_no_object_store_listens(theirs: object_store.Bucket, web_server: int) -> None:
    (port,) = object_store.free_ports(1)
    text = refusal(theirs.url(endpoint=f"http://127.0.0.1:{port}"))
    assert "no object store answers" in text
    assert str(port) in text
    assert f"127.0.0.1:{web_server}" in refusal(theirs.url(endpoint=f"http://127.0.0.1:{web_server}"))
    assert "have NTP set both clocks" in refusal(f"s3://late/x?endpoint=http://127.0.0.1:{web_server}")
