"""What a part of ``make prove`` may use, and what it reports."""

from __future__ import annotations

import json
import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Share:
    """One part's share of a run: its seed, and the seconds after which it begins nothing new."""

    seed: str
    seconds: float
    # Tells whoever waits what was done.
    say: Callable[[str], None]
    # At most so many times the short form's examples of the model.
    scale: int = 5
    # Only these profiles of histories; empty: all.
    profiles: tuple[str, ...] = ()

    def turns(self) -> Iterable[str]:
        """Seeds for one round after the other, until the time is over; at least one."""
        end = time.monotonic() + self.seconds
        number = 0
        while not number or time.monotonic() < end:
            yield f"{self.seed}.{number}"
            number += 1


@dataclass
class Figures:
    """What a part has done and found. Counts add up; of ``worst`` the greatest counts."""

    counts: Counter[str] = field(default_factory=Counter)
    worst: dict[str, float] = field(default_factory=dict)
    # Broken promises, each in a line that names the folder of its history.
    violations: list[str] = field(default_factory=list)
    # Skipped work, and why.
    notes: list[str] = field(default_factory=list)

    def at_worst(self, name: str, value: float) -> None:
        """Remember a value if it is the greatest so far."""
        self.worst[name] = max(value, self.worst.get(name, value))

    def add_violations(self, texts: Iterable[str], folder: Path) -> None:
        """Add violations whose history lies in a folder."""
        self.violations += [f"{text} (history in {folder})" for text in texts]


def rows(reports: Mapping[str, Figures]) -> list[tuple[str, str, str]]:
    """The table: part, what, how much."""
    table = []
    for part, figures in reports.items():
        table += [(part, name, f"{value:,}") for name, value in figures.counts.items()]
        table += [(part, name, f"{value:,.1f}") for name, value in figures.worst.items()]
        table += [(part, "left out", note) for note in figures.notes]
        table.append((part, "violations", str(len(figures.violations))))
    return table


def as_text(table: list[tuple[str, str, str]]) -> str:
    """The table in columns; a part is named once."""
    widths = [max(len(row[i]) for row in table) for i in range(2)]
    lines = []
    before = ""
    for part, name, value in table:
        lines.append(f"{'' if part == before else part:<{widths[0]}}  {name:<{widths[1]}}  {value:>10}")
        before = part
    return "\n".join(lines)


def as_json(reports: Mapping[str, Figures], facts: Mapping[str, Any]) -> str:
    """The same for programs, with facts of the whole run."""
    parts = {name: {**vars(figures), "counts": dict(figures.counts)} for name, figures in reports.items()}
    return json.dumps({**facts, "parts": parts}, indent=2) + "\n"
