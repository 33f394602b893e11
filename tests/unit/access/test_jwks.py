"""Keys of an issuer that is down, huge, slow, redirects, lies about its name, or rotates them."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import rsa

from support.issuer import Issuer, SigningKey
from upload_server.access import jwks
from upload_server.access.jwks import Keys, KeysUnusable, check_url, fetch, of_file, of_issuer, of_url, read_keys
from upload_server.domain.errors import CannotStart

DISCOVERY = "/.well-known/openid-configuration"


@pytest.fixture
def issuer() -> Iterator[Issuer]:
    with Issuer() as started:
        yield started


class World:
    def __init__(self, issuer: Issuer) -> None:
        self.now = 1000.0
        self.keys = Keys(of_issuer(issuer.url), clock=lambda: self.now)

    async def has(self, kid: str) -> bool:
        return await self.keys.get(kid) is not None


@pytest.mark.parametrize(
    ("path", "status", "body", "headers", "words"),
    [
        ("/jwks", 503, b"", {}, "answers 503"),
        ("/jwks", 302, b"", {"Location": "/other"}, "answers 302; .* no redirect"),
        (DISCOVERY, 301, b"", {"Location": "/jwks"}, "answers 301"),
        ("/jwks", 200, b"x" * (jwks.MAX_BYTES + 1), {}, "larger than 256 KiB"),
        ("/jwks", 200, b"<html>", {}, "no JSON"),
        ("/jwks", 200, b"[" * 100_000, {}, "no JSON"),
        ("/jwks", 200, b"[]", {}, "no JSON object"),
        ("/jwks", 200, b"{}", {}, "no list of keys"),
        ("/jwks", 200, json.dumps({"keys": [{}] * 65}).encode(), {}, "65 keys, more than 64"),
        (DISCOVERY, 200, b'{"issuer": "https://other"}', {}, "calls itself 'https://other'"),
    ],
)
def test_a_source_that_is_not_good_gives_no_keys(
    path: str, status: int, body: bytes, headers: dict[str, str], words: str, issuer: Issuer
) -> None:
    issuer.instead[path] = (status, body, headers)
    with pytest.raises(KeysUnusable, match=words):
        read_keys(of_issuer(issuer.url)())
    assert "/other" not in issuer.asked


def test_keys_at_a_place_that_others_can_change_on_the_way_are_not_fetched(issuer: Issuer) -> None:
    found = {"issuer": issuer.url, "jwks_uri": "http://keys.example/jwks"}
    issuer.instead[DISCOVERY] = (200, json.dumps(found).encode(), {})
    with pytest.raises(KeysUnusable, match="not safe"):
        of_issuer(issuer.url)()


@pytest.mark.parametrize(
    ("url", "taken"),
    [
        ("https://id.example/", True),
        ("http://localhost:1/x", True),
        ("http://[::1]/", True),
        ("http://id.example/", False),
        ("http://127.0.0.1.example/", False),
        ("file:///etc/passwd", False),
        ("https://a:b@id.example/", False),
        ("https://", False),
        ("https://id.example:x/", False),
        ("https://id.example:0/", False),
    ],
)
def test_keys_come_over_tls_or_from_this_machine(url: str, taken: bool) -> None:
    if taken:
        assert check_url(url) == url
    else:
        with pytest.raises(ValueError, match=r"must begin with|is not a URL"):
            check_url(url)


def test_nobody_there_is_said_plainly(issuer: Issuer) -> None:
    url = issuer.url.rpartition(":")[0] + ":1/"
    with pytest.raises(KeysUnusable, match="cannot be read"):
        fetch(url)


def test_a_source_that_drips_is_left(issuer: Issuer, monkeypatch: pytest.MonkeyPatch) -> None:
    moments = iter([0.0, 0.0, *[time.monotonic() + 1e9] * 100])
    monkeypatch.setattr(jwks, "_PIECE", 10)
    monkeypatch.setattr(time, "monotonic", lambda: next(moments))
    with pytest.raises(KeysUnusable, match="within 5 s"):
        fetch(f"{issuer.url}/jwks")


def key(**changed: Any) -> dict[str, Any]:
    return {**SigningKey("k").jwk, **changed}


@pytest.mark.parametrize(
    "jwk",
    [
        key(use="enc"),
        key(kid=None),
        key(kid=7),
        key(key_ops=["sign"]),
        key(key_ops=None),
        key(key_ops=5),
        key(kty=[]),
        {"kty": "oct", "kid": "k", "k": "AAAA"},
        SigningKey("k", "RS256", rsa.generate_private_key(65537, 1024)).jwk,  # noqa: S505 - that is the point
        "k",
    ],
)
def test_keys_that_are_not_for_us_are_left_out(jwk: Any) -> None:
    good = SigningKey("good", "RS256").jwk
    assert read_keys(json.dumps({"keys": [jwk, good]}).encode()).keys() == {"good"}


def test_two_keys_of_one_name_are_refused() -> None:
    with pytest.raises(KeysUnusable, match="same id"):
        read_keys(json.dumps({"keys": [key(), key()]}).encode())


async def test_a_new_key_is_looked_for_but_not_for_everybody(issuer: Issuer) -> None:
    world = World(issuer)
    assert await world.has("first")
    issuer.keys.append(SigningKey("second"))
    asked = len(issuer.asked)
    found = await asyncio.gather(*(world.has(f"guessed {number}") for number in range(100)))
    assert not any(found)
    assert len(issuer.asked) == asked
    world.now += jwks.ASK_AGAIN_SECONDS
    assert await asyncio.gather(*(world.has("second") for _ in range(100))) == [True] * 100
    assert len(issuer.asked) == asked + 2


async def test_keys_outlive_their_issuer_by_a_day(issuer: Issuer) -> None:
    world = World(issuer)
    await world.keys.refresh()
    issuer.instead["/jwks"] = (500, b"", {})
    world.now += jwks.KEEP_SECONDS
    await world.keys.refresh()
    assert await world.has("first")
    world.now += 1
    assert not await world.has("first")
    del issuer.instead["/jwks"]
    world.now += jwks.ASK_AGAIN_SECONDS
    assert await world.has("first")


async def test_a_key_that_was_taken_away_counts_no_more(issuer: Issuer) -> None:
    world = World(issuer)
    assert await world.has("first")
    edition = world.keys.edition
    await world.keys.refresh()
    assert world.keys.edition == edition
    issuer.keys[:] = [SigningKey("second")]
    await world.keys.refresh()
    assert not await world.has("first")
    assert world.keys.edition == edition + 1


async def test_keys_may_lie_in_a_file_or_at_a_url(issuer: Issuer, tmp_path: Path) -> None:
    file = tmp_path / "jwks.json"
    file.write_text(json.dumps({"keys": [SigningKey("of a file").jwk]}))
    keys = Keys(of_file(file))
    keys.must_read()
    assert await keys.get("of a file")
    assert await Keys(of_url(f"{issuer.url}/jwks")).get("first")
    with pytest.raises(CannotStart, match=r"^--jwt-jwks: .* cannot be read"):
        Keys(of_file(tmp_path / "none")).must_read()
