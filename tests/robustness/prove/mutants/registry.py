"""How bugs get their names."""

from __future__ import annotations

from collections.abc import Callable

Mutant = Callable[[], None]
MUTANTS: dict[str, Mutant] = {}


def mutant(apply: Mutant) -> Mutant:
    """Enter a bug into the list, by the name of what applies it; the first line of its docstring says what is wrong."""
    MUTANTS[apply.__name__] = apply
    return apply
