"""Model and service agree step by step, whatever the order of calls: on the store, and on a server with restarts."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

from robustness.prove.machine import Conformance
from robustness.prove.model_on_mutant import DIFFERENT, OnTheStore
from robustness.prove.server_system import ServerSystem
from robustness.prove.systems import System

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


class OnAServer(Conformance):
    """A real process, by gRPC and HTTP in turn."""

    def make_system(self, folder: Path) -> System:
        return ServerSystem(folder)


class TestStore(OnTheStore.TestCase):  # type: ignore[misc,valid-type]
    settings = _bounded(examples=30, steps=40)


class TestServer(OnAServer.TestCase):  # type: ignore[misc,valid-type]
    settings = _bounded(examples=4, steps=40)


# Bugs that show when calls come one by one.
SEEN = ("counter_off_by_one", "audit_row_missing", "revision_not_raised", "request_id_forgotten", "expiry_ignores_age")


@pytest.mark.parametrize("bug", SEEN)
def test_the_model_sees_a_bug(bug: str) -> None:
    script = Path(__file__).parent / "model_on_mutant.py"
    ended = subprocess.run([sys.executable, script, bug], capture_output=True, text=True, timeout=120, check=False)
    assert ended.returncode == DIFFERENT, ended.stderr


pytestmark = pytest.mark.timeout(240 * _SCALE)
