"""docs/reliability.md names what there is: every mutant with who catches it, every checker, every profile."""

from __future__ import annotations

import re
from pathlib import Path

from robustness.faults.catches import CRASH_CATCHES
from robustness.prove.catches import CATCHES
from robustness.prove.checkers import CHECKERS
from robustness.prove.cluster_stage import CLUSTER_CATCHES
from robustness.prove.mutants import meaning
from robustness.prove.object_stage import OBJECT_CATCHES
from robustness.prove.parts import PARTS
from robustness.prove.profiles import PROFILES

ROOT = Path(__file__).parents[3]
DOCS = (ROOT / "docs" / "reliability.md").read_text()


def test_every_mutant_is_in_the_table() -> None:
    for name, catch in CATCHES.items():
        row = f"| `{name}` | {meaning(name)} | `{catch.scenario}`"
        assert row in DOCS
        assert f"| `{catch.checker}` |" in DOCS.split(row)[1].splitlines()[0]


def test_every_mutant_of_nodes_is_in_the_table() -> None:
    for name, catch in CLUSTER_CATCHES.items():
        row = f"| `{name}` | {meaning(name)} | `{catch.scenario}`"
        assert row in DOCS
        assert f"| `{catch.checker}` |" in DOCS.split(row)[1].splitlines()[0]


def test_every_mutant_of_object_stores_is_in_the_table() -> None:
    rows = [f"| `{name}` | {meaning(name)} | `{scenario}` |" for name, scenario in OBJECT_CATCHES.items()]
    assert [row for row in rows if row not in DOCS] == []


def test_every_mutant_of_crashes_is_in_the_table() -> None:
    for name, catch in CRASH_CATCHES.items():
        row = f"| `{name}` | {meaning(name)} | `{catch.point.partition(':')[0]}`"
        assert row in DOCS
        assert f"| `{catch.checker}` |" in DOCS.split(row)[1].splitlines()[0]


def test_every_checker_profile_and_part_is_named() -> None:
    assert [name for name in (*CHECKERS, *PROFILES, *PARTS) if f"`{name}`" not in DOCS] == []


def test_every_test_that_is_named_is_there() -> None:
    named = re.findall(r"`((?:tests|server)/[\w./]+\.\w+)`", DOCS)
    assert named
    assert [name for name in named if not (ROOT / name).exists()] == []
