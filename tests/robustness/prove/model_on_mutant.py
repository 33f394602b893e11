"""``python model_on_mutant.py NAME``: drives the model beside a store with a named bug.

Exits with 3 when they differ.
"""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2]))

from hypothesis import HealthCheck, Phase, settings
from hypothesis.stateful import run_state_machine_as_test

from robustness.prove.machine import Conformance
from robustness.prove.mutants import apply
from robustness.prove.store_system import StoreSystem
from robustness.prove.systems import System

DIFFERENT = 3


class OnTheStore(Conformance):
    """The store of this process, bug and all."""

    def make_system(self, folder: Path) -> System:
        return StoreSystem(folder)


def main(name: str) -> int:
    """Look for a difference, and leave it as it is found."""
    apply(name)
    bounded = settings(
        max_examples=100,
        stateful_step_count=40,
        derandomize=True,
        deadline=None,
        database=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    try:
        run_state_machine_as_test(OnTheStore, settings=bounded)
    except AssertionError:
        return DIFFERENT
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
