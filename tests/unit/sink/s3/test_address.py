"""What a storage URL of an object store may say."""

from __future__ import annotations

import pytest

from upload_server.sink.s3.address import Address, parse_address


@pytest.mark.parametrize(
    ("url", "address"),
    [
        ("s3://bucket", Address("bucket", "", "", "us-east-1")),
        ("s3://my.bucket-1/a/b/", Address("my.bucket-1", "a/b", "", "us-east-1")),
        (
            "s3://bucket/up?endpoint=http://127.0.0.1:8333&region=eu-central-1",
            Address("bucket", "up", "http://127.0.0.1:8333", "eu-central-1"),
        ),
        (
            "s3://bucket?endpoint=https%3A%2F%2Fs3.example.com/",
            Address("bucket", "", "https://s3.example.com", "us-east-1"),
        ),
    ],
)
def test_what_a_url_says(url: str, address: Address) -> None:
    assert parse_address(url) == address


def test_it_is_shown_without_its_options() -> None:
    assert str(parse_address("s3://bucket/up?endpoint=http://host:1")) == "s3://bucket/up"
    assert str(parse_address("s3://bucket")) == "s3://bucket"


@pytest.mark.parametrize(
    "url",
    [
        "s3://",
        "s3:///prefix",
        "s3://Bucket/prefix",
        "s3://ab",
        "s3://bucket/a//b",
        "s3://bucket/../b",
        "s3://bucket/a?b c",
        "s3://bucket/a b",
        "s3://bucket/%0a",
        "s3://bucket?endpoint=localhost:8333",
        "s3://bucket?endpoint=ftp://host",
        "s3://bucket?endpoint=http://host/path",
        "s3://bucket?endpoint=http://key:secret@host",
        "s3://bucket?region=a&region=b",
        "s3://bucket?access_key=AKIA",
        "s3://bucket#part",
        "s3://AKIAKEY:secret@bucket/prefix",
    ],
)
def test_what_no_url_says_and_no_secret_is_repeated(url: str) -> None:
    with pytest.raises(ValueError, match=r"bucket|credentials|prefix|endpoint") as refused:
        parse_address(url)
    for secret in ("secret", "AKIA"):
        assert secret not in str(refused.value).replace("s3://bucket", "")
