"""What others see of a command line holds no password."""

from __future__ import annotations

import subprocess
import sys

import pytest

_SHOW = """
import pathlib, sys
from upload_server.process.arguments import hide_passwords
hide_passwords()
print(pathlib.Path("/proc/self/cmdline").read_bytes().rstrip(b"\\0").rpartition(b"\\0")[2].decode(), sys.argv[1])
"""


@pytest.mark.parametrize(
    ("typed", "seen"),
    [
        (
            "--database-url=postgresql://me:s3/cr@et@host:5432/db",
            "--database-url=postgresql://me:xxxxxxxx@host:5432/db",
        ),
        (
            "postgresql://h/db?user=me&password=p%40ss&sslmode=on",
            "postgresql://h/db?user=me&password=xxxxxx&sslmode=on",
        ),
        ("postgresql:///db?sslpassword=open", "postgresql:///db?sslpassword=xxxx"),
        ("postgresql://me@host:5432/db", "postgresql://me@host:5432/db"),
        ("https://issuer.example:8443/realm", "https://issuer.example:8443/realm"),
    ],
)
def test_passwords_of_urls_are_overwritten(typed: str, seen: str) -> None:
    done = subprocess.run([sys.executable, "-c", _SHOW, typed], capture_output=True, text=True, check=True)
    assert done.stdout.split() == [seen, typed]
