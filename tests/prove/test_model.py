"""Model and service agree step by step, whatever the order of calls: on the store, and on a server with restarts."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

from prove.machine import Conformance
from prove.server_system import ServerSystem
from prove.store_system import StoreSystem
from prove.systems import System

# How many times the short form's examples; `make prove` sets it.
_SCALE = int(os.environ.get("PROVE_SCALE", "1"))


def _bounded(examples: int, steps: int) -> settings:
    """The short form is the same every time; the long form looks elsewhere each time and prints how to repeat it."""
    return settings(
        max_examples=examples * _SCALE,
        stateful_step_count=steps,
        derandomize=_SCALE == 1,
        print_blob=True,
        deadline=None,
        database=None,
        suppress_health_check=list(HealthCheck),
    )


class OnTheStore(Conformance):
    """The real SqliteStore, in process."""

    def make_system(self, folder: Path) -> System:
        return StoreSystem(folder)


class OnAServer(Conformance):
    """A real process, by gRPC and HTTP in turn."""

    def make_system(self, folder: Path) -> System:
        return ServerSystem(folder)


class TestStore(OnTheStore.TestCase):  # type: ignore[misc,valid-type]
    settings = _bounded(examples=40, steps=40)


class TestServer(OnAServer.TestCase):  # type: ignore[misc,valid-type]
    settings = _bounded(examples=6, steps=40)


pytestmark = pytest.mark.timeout(100 * _SCALE)
