"""Circumstances of several nodes on one store."""

from __future__ import annotations

from robustness.prove.mutants.registry import mutant
from robustness.prove.patching import change
from upload_server.store.commands import store


@mutant
def bell_cut_off() -> None:
    """No bug: a node hears no bell, so that it looks by itself."""
    change(store, "WritingStore._hear_bell", ("if self._rung is not None:", "if False:"))
