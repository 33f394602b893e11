"""docs/security.md: every line of its table names tests that there are."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

TESTS = Path(__file__).parents[1]
PAGE = (TESTS.parent / "docs" / "security.md").read_text()
LINES = re.findall(r"^\| (\d[^|]*) \| ([^|]*) \| ([^|]*) \|$", PAGE.partition("## ASVS")[2], re.MULTILINE)


@pytest.mark.parametrize(("item", "how", "tests"), LINES, ids=[line[0] for line in LINES])
def test_a_line_names_tests_that_there_are_or_says_that_it_is_not_covered(item: str, how: str, tests: str) -> None:
    del item
    named = re.findall(r"`([^`]+)`", tests)
    assert named or how.startswith("**not covered**")
    for name in named:
        path, _, function = name.partition("::")
        assert re.search(rf"^(async )?def {function}\(", (TESTS / path).read_text(), re.MULTILINE), name


def test_all_lines_of_the_table_are_looked_at() -> None:
    table = PAGE.partition("## ASVS")[2].partition("## To report")[0]
    assert len(LINES) == sum(line.startswith("|") for line in table.splitlines()) - 2
