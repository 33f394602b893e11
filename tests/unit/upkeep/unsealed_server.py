"""The server without its sealer: what sealing costs is told by comparison."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

from support.process import ServerProcess
from upload_server.__main__ import main
from upload_server.upkeep import sealer


class Unsealed(ServerProcess):
    """A server that seals nothing."""

    program = (str(Path(__file__)),)


class Idle(sealer.Sealer):
    """Seals nothing."""

    async def run(self) -> None:
        await asyncio.Event().wait()


if __name__ == "__main__":
    sealer.Sealer = Idle  # type: ignore[misc]
    sys.exit(main())
