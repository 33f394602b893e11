"""``python launcher.py POINT[:nth] BUGS serve …``: the server, killed when it comes by a point for the nth time.

``BUGS`` are those of ``robustness.prove.mutants``, joined by ``+``. Either may be empty.
"""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2]))

from robustness.faults.points import install
from robustness.prove.mutants import apply
from upload_server.__main__ import main

if __name__ == "__main__":
    if sys.argv[2]:
        apply(sys.argv[2])
    if sys.argv[1]:
        install(sys.argv[1])
    sys.exit(main(sys.argv[3:]))
