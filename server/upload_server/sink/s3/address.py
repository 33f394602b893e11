"""Decides what a storage URL of an object store says: bucket, prefix, endpoint, region. Credentials never stand in it.

Must not know whether any of it is there.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from urllib.parse import parse_qsl, unquote, urlsplit

_LOOKS_LIKE = "s3://bucket/prefix?endpoint=https://host:port&region=name"
_BUCKET = re.compile(r"[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]")
_SEGMENT = re.compile(r"[A-Za-z0-9!_.*'()-]+")
# What AWS calls its oldest region, and most other servers theirs.
_REGION = "us-east-1"
_MAX_PREFIX = 512


@dataclass(frozen=True, slots=True)
class Address:
    """Where objects lie: the keys of ours in ``bucket`` begin with ``prefix`` and a slash, unless that is empty."""

    bucket: str
    prefix: str
    # Empty: AWS's own of the region.
    endpoint: str
    region: str

    def __str__(self) -> str:
        """As it is shown to people."""
        return f"s3://{self.bucket}/{self.prefix}".rstrip("/")

    def key(self, name: str) -> str:
        """Return the whole key of an object of ours."""
        return f"{self.prefix}/{name}" if self.prefix else name


def parse_address(url: str) -> Address:
    """Read a storage URL; raises ValueError, whose text repeats nothing that might be a secret."""
    parts = urlsplit(url)
    if "@" in parts.netloc:
        raise ValueError("credentials do not belong in it: others see them; AWS_ACCESS_KEY_ID and the like name them")
    if not _BUCKET.fullmatch(parts.netloc):
        raise ValueError(f"it must name a bucket, as {_LOOKS_LIKE}")
    prefix = unquote(parts.path).strip("/")
    segments = prefix.split("/") if prefix else []
    if len(prefix) > _MAX_PREFIX or any(s in (".", "..") or not _SEGMENT.fullmatch(s) for s in segments):
        raise ValueError("its prefix may hold letters, digits and -_.!*'() between slashes, and at most 512 of them")
    options = parse_qsl(parts.query, keep_blank_values=True)
    known = dict(options)
    if parts.fragment or len(known) != len(options) or not known.keys() <= {"endpoint", "region"}:
        raise ValueError(f"it takes endpoint and region, once each, as {_LOOKS_LIKE}")
    return Address(parts.netloc, prefix, _endpoint(known.get("endpoint", "")), known.get("region") or _REGION)


def _endpoint(text: str) -> str:
    parts = urlsplit(text)
    if text and (
        parts.scheme not in ("http", "https")
        or not parts.hostname
        or "@" in parts.netloc
        or parts.path.strip("/")
        or parts.query
    ):
        raise ValueError(f"its endpoint must be a scheme, a host and a port, as {_LOOKS_LIKE}")
    return text.rstrip("/")
