"""``python launcher.py POINT[:nth] serve …``: the server, killed when it comes by a point for the nth time."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent))

from faults.points import install
from upload_server.__main__ import main

if __name__ == "__main__":
    install(sys.argv[1])
    sys.exit(main(sys.argv[2:]))
