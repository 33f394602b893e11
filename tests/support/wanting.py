"""What a test does on a machine that lacks what it needs."""

from __future__ import annotations

import os
from typing import NoReturn

import pytest


def missing(what: str) -> NoReturn:
    """Skip for want of something; in CI nothing is wanting."""
    if os.environ.get("CI"):
        pytest.fail(what)
    pytest.skip(what)
