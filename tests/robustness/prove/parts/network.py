"""Bad networks, black holes, hostile peers, and browsers whose line breaks."""

from __future__ import annotations

from robustness.prove.parts.figures import Figures, Share
from robustness.prove.parts.pytests import run_tests

_FILES = (
    *(f"robustness/faults/{name}.py" for name in ("test_network", "test_black_holes", "test_hostile")),
    "clients/tus/cut_lines.py",
)


def run(share: Share, figures: Figures) -> None:
    """Run their tests once."""
    run_tests(_FILES, share, figures)
