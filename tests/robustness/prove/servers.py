"""Which server is driven: as it is, or with named bugs or circumstances put into it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from support.process import ServerProcess


def starter(data_dir: Path, options: tuple[str, ...] = (), mutants: str = "") -> Callable[[], ServerProcess]:
    """Return what starts the server on ``data_dir``; ``mutants`` are joined by ``+``, none: as it is."""
    start = cluster_starter(mutants)
    return lambda: start(data_dir, options)


def cluster_starter(mutants: str = "") -> type[ServerProcess]:
    """Return what starts any server of several, each with these mutants."""
    if not mutants:
        return ServerProcess

    class Mutated(ServerProcess):
        program = (str(Path(__file__).parent / "mutant_server.py"), mutants)

    return Mutated
