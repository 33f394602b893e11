from __future__ import annotations

import subprocess
import sys

import pytest

from upload_server.process.descriptors import Descriptors, needed_for


@pytest.mark.parametrize("limit", [8, 64, 128, 200, 1024, 4096, 20_000, 2**31 - 1])
def test_the_shares_stay_within_the_limit(limit: int) -> None:
    shares = Descriptors.of(limit)
    assert shares.uploads >= 1
    assert shares.connections >= 1
    if limit >= 64:
        # Both ports together have as much as uploads, and something is left for the rest.
        assert shares.uploads + 2 * shares.connections <= limit - 40
    assert shares.uploads + 2 * shares.connections <= max(3, limit - min(512, limit // 4))


def test_what_the_defaults_need_is_what_the_shares_give() -> None:
    shares = Descriptors.of(needed_for(4000, 2 * 1000))
    assert shares.uploads >= 4000
    assert shares.connections >= 2 * 1000
    shares = Descriptors.of(needed_for(10, 9000))
    assert shares.connections >= 9000


def test_the_soft_limit_is_raised_to_the_hard_one() -> None:
    code = """
import resource
from upload_server.process.descriptors import raise_limit
resource.setrlimit(resource.RLIMIT_NOFILE, (64, 200))
print(raise_limit(), raise_limit(), *resource.getrlimit(resource.RLIMIT_NOFILE))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["200"] * 4
