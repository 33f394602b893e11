"""The server without its sealer: what sealing costs is told by comparison."""

from __future__ import annotations

import asyncio
import sys

from upload_server.__main__ import main
from upload_server.audit import sealer


class Idle(sealer.Sealer):
    """Seals nothing."""

    async def run(self) -> None:
        await asyncio.Event().wait()


if __name__ == "__main__":
    sealer.Sealer = Idle  # type: ignore[misc]
    sys.exit(main())
