"""The cookie of a page that signs in: safe wherever others can reach the server."""

from __future__ import annotations

from typing import Any

import pytest

from upload_server.domain.observer import Observer
from upload_server.domain.states import Source
from upload_server.doors.admission import Admission
from upload_server.doors.calls import Calls
from upload_server.doors.http.session import SessionDoor
from upload_server.doors.presented import of_scope

SAFE = "__Host-upload_session=abc; Path=/; HttpOnly; SameSite=Strict; Max-Age=28800; Secure"
PLAIN = "upload_session=abc; Path=/; HttpOnly; SameSite=Strict; Max-Age=28800"


@pytest.mark.parametrize(
    ("scheme", "host", "cookie"),
    [
        ("https", "files.example", SAFE),
        ("https", "localhost:8080", SAFE),
        ("http", "files.example", SAFE),
        ("http", "localhost:8080", PLAIN),
        ("http", "127.0.0.1:8080", PLAIN),
        ("http", "[::1]:8080", PLAIN),
    ],
)
async def test_only_this_machine_gets_a_cookie_for_plain_text(scheme: str, host: str, cookie: str) -> None:
    sent: list[Any] = []

    async def send(message: Any) -> None:
        sent.append(message)

    async def receive() -> Any:
        raise AssertionError("it has no body")

    headers = [(b"host", host.encode()), (b"sec-fetch-site", b"same-origin"), (b"authorization", b"Bearer abc")]
    scope = {"type": "http", "method": "POST", "scheme": scheme, "headers": headers, "client": None}
    await SessionDoor(Calls(Source.HTTP, Admission({}), Observer(), timeout=30))(scope, receive, send)
    assert (b"set-cookie", cookie.encode()) in sent[0]["headers"]


@pytest.mark.parametrize(
    ("host", "cookie", "shown"),
    [
        (b"files.example", b"__Host-upload_session=abc", ["Bearer abc"]),
        (b"localhost:8080", b"upload_session=abc", ["Bearer abc"]),
        # A neighbour's domain could have set it.
        (b"files.example", b"upload_session=abc", []),
        (b"files.example", b"upload_session=theirs; __Host-upload_session=mine", ["Bearer mine"]),
        (b"localhost.files.example", b"upload_session=abc", []),
    ],
)
def test_a_cookie_that_is_not_safe_counts_on_this_machine_alone(host: bytes, cookie: bytes, shown: list[str]) -> None:
    headers = [(b"host", host), (b"sec-fetch-site", b"same-origin"), (b"cookie", cookie)]
    assert list(of_scope({"headers": headers}).authorization) == shown
