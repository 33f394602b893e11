"""What a checker says."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Violation:
    """A promise that is broken, and by what."""

    checker: str
    text: str

    def __str__(self) -> str:
        return f"{self.checker}: {self.text}"
