"""Which server is driven: as it is, or with named bugs or circumstances put into it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from support.process import ServerProcess


def starter(data_dir: Path, options: tuple[str, ...] = (), mutants: str = "") -> Callable[[], ServerProcess]:
    """Return what starts the server on ``data_dir``; ``mutants`` are joined by ``+``, none: as it is."""
    if not mutants:
        return lambda: ServerProcess(data_dir, options)

    class Mutated(ServerProcess):
        program = (str(Path(__file__).parent / "mutant_server.py"), mutants)

    return lambda: Mutated(data_dir, options)
