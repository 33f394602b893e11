"""``python stalled_disk.py serve …``: the server on a disk whose writes of uploads never return."""

from __future__ import annotations

import sys
import threading
from collections.abc import Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2]))

from support.process import ServerProcess
from upload_server.__main__ import main
from upload_server.sink.disk.file import DiskFile
from upload_server.sink.protocol import Chunk


class StalledServer(ServerProcess):
    """A server of this kind. Threads of it never end."""

    program = (str(Path(__file__)),)


def _stall(_self: DiskFile, _chunks: Sequence[Chunk]) -> None:
    threading.Event().wait()


if __name__ == "__main__":
    DiskFile.append = _stall  # type: ignore[assignment,method-assign]
    sys.exit(main(sys.argv[1:]))
