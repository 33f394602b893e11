"""Fixtures of the transcoder's tests."""

import pytest

from transcoding.toy_service import Toy, make_toy


@pytest.fixture
def toy() -> Toy:
    """The toy app with default options."""
    return make_toy()
