"""Fixtures of the transcoder's tests."""

from functools import cache

import pytest

from toy.toy_service import Toy, make_toy


@cache
def built() -> Toy:
    """The toy app: building it costs more than most tests."""
    return make_toy()


@pytest.fixture
def toy() -> Toy:
    """The toy app with default options; its servicers remember nothing."""
    shared = built()
    for servicer in (shared.shelves, shared.echoes, shared.streams):
        vars(servicer).clear()
        servicer.__init__()  # type: ignore[misc]
    return shared
