"""The named bugs. Each is what a tired engineer might write; where a net lies under it, the net goes too."""

from __future__ import annotations

import inspect

from robustness.prove.mutants import batches, lying_bytes, many, nodes, objects, restarts, state, watching
from robustness.prove.mutants.registry import MUTANTS


def apply(names: str) -> None:
    """Put bugs into this process; several are joined by ``+``. KeyError for one that does not exist."""
    for name in names.split("+"):
        MUTANTS[name]()


def meaning(name: str) -> str:
    """What is wrong in this mutant."""
    return (inspect.getdoc(MUTANTS[name]) or "").splitlines()[0]


__all__ = [
    "MUTANTS",
    "apply",
    "batches",
    "lying_bytes",
    "many",
    "meaning",
    "nodes",
    "objects",
    "restarts",
    "state",
    "watching",
]
