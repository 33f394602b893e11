"""docs/reliability.md names what there is: every mutant with who catches it, every checker, every profile."""

from __future__ import annotations

from pathlib import Path

from prove.__main__ import PROFILES
from prove.checkers import CHECKERS
from prove.mutants import meaning
from prove.test_mutants import CATCHES

DOCS = (Path(__file__).parents[2] / "docs" / "reliability.md").read_text()


def test_every_mutant_is_in_the_table() -> None:
    for name, catch in CATCHES.items():
        row = f"| `{name}` | {meaning(name)} | `{catch.scenario}`"
        assert row in DOCS
        assert f"| `{catch.checker}` |" in DOCS.split(row)[1].splitlines()[0]


def test_every_checker_and_profile_is_named() -> None:
    assert [name for name in (*CHECKERS, *PROFILES) if f"`{name}`" not in DOCS] == []
