"""Model and service driven side by side by Hypothesis, at length: the store in process, then a server process."""

from __future__ import annotations

import random
import tempfile
import traceback
from pathlib import Path

from hypothesis import HealthCheck, seed, settings
from hypothesis.stateful import run_state_machine_as_test

from robustness.prove.machine import Conformance
from robustness.prove.parts.figures import Figures, Share
from robustness.prove.server_system import ServerSystem
from robustness.prove.store_system import StoreSystem

# The short form's numbers of examples.
_SYSTEMS = ((StoreSystem, 40), (ServerSystem, 6))
_STEPS = 40


def run(share: Share, figures: Figures) -> None:
    """Make up sequences of calls, ``scale`` times as many as the short form if there is time for it."""
    for number, text in zip(range(share.scale), share.turns(), strict=False):
        for system, examples in _SYSTEMS:
            _drive(system, examples, f"{text} {system.__name__}", figures)
        share.say(
            f"round {number}, seed {text}: {figures.counts['calls compared']} calls, {len(figures.violations)} found"
        )


def _drive(system: type[StoreSystem | ServerSystem], examples: int, text: str, figures: Figures) -> None:
    class Counted(Conformance):
        def make_system(self, folder: Path) -> StoreSystem | ServerSystem:
            return system(folder)

        def teardown(self) -> None:
            figures.counts["sequences of calls"] += 1
            figures.counts["calls compared"] += self.model.tick
            super().teardown()

    bounded = settings(
        max_examples=examples,
        stateful_step_count=_STEPS,
        print_blob=True,
        deadline=None,
        database=None,
        suppress_health_check=list(HealthCheck),
    )
    try:
        run_state_machine_as_test(seed(random.Random(text).getrandbits(64))(Counted), settings=bounded)
    except Exception as error:  # noqa: BLE001 - whatever differs is what was looked for
        figures.violations.append(f"model, seed {text}: {error!r} ({_keep_report(error)})")


def _keep_report(error: Exception) -> Path:
    """Leave the failing sequence of calls in a file."""
    path = Path(tempfile.mkdtemp(prefix="prove-")) / "model.txt"
    path.write_text("".join(traceback.format_exception(error)))
    return path
