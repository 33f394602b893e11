"""``python mutant_server.py NAME serve …``: the server with one named bug (``tests/robustness/prove/mutants.py``)."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2]))

from robustness.prove.mutants import apply
from upload_server.__main__ import main

if __name__ == "__main__":
    apply(sys.argv[1])
    sys.exit(main(sys.argv[2:]))
