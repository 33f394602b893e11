"""docs/scaling.md says what its model comes to."""

from __future__ import annotations

import re
from dataclasses import asdict
from pathlib import Path

import pytest

from benchmarks import scaling

PAGE = (Path(__file__).parents[2] / "docs" / "scaling.md").read_text()


def test_the_page_lists_the_figures_of_the_model() -> None:
    listed = {
        name: float(value.replace(",", ""))
        for name, value in re.findall(r"^\| `(\w+)` \| ([\d,]+) \|", PAGE, re.MULTILINE)
    }
    assert listed == asdict(scaling.MODEL)


@pytest.mark.parametrize(
    ("uploads", "cells", "rows"), re.findall(r"^\| (\d+ [MG]) \| (\d+) \| ([\d.]+ [GT]B) \|", PAGE, re.MULTILINE)
)
def test_the_page_counts_cells_and_rows_as_the_model_does(uploads: str, cells: str, rows: str) -> None:
    factors = {"M": 1e6, "G": 1e9, "GB": 1e9, "TB": 1e12}
    count, stored = (float(number) * factors[unit] for number, unit in (uploads.split(), rows.split()))
    assert scaling.cells_for(count, scaling.MODEL) == int(cells)
    assert count * scaling.MODEL.history_bytes == pytest.approx(stored, rel=0.01)


def test_the_page_says_what_one_cell_takes() -> None:
    a_day = round(scaling.uploads_per_day(scaling.MODEL) / 1e6)
    assert f"**{a_day} million uploads a day**" in PAGE
    assert "with watches on\n   ten nodes" in PAGE
    assert round(scaling.nodes_to_watch(scaling.MODEL)) == 10
