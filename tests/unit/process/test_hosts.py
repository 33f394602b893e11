"""What names a host, and which pages are of one origin."""

from __future__ import annotations

import pytest

from upload_server.process.hosts import Origin, is_loopback_name


def test_origins_are_compared_by_scheme_host_and_port() -> None:
    assert Origin.parse("https://app.example") == Origin.parse("https://APP.example:443")
    assert Origin.parse("http://app.example") != Origin.parse("https://app.example")
    assert Origin.served("ws", "app.example") == Origin.parse("http://app.example")
    assert Origin.served("wss", "app.example:444") == Origin.parse("https://app.example:444")


@pytest.mark.parametrize(
    ("name", "loopback"), [("localhost", True), ("127.255.0.1", True), ("[::1]", True), ("::2", False)]
)
def test_loopback_names(name: str, *, loopback: bool) -> None:
    assert is_loopback_name(name) is loopback
