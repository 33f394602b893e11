"""``python -m upload``: the same as ``uploadctl``."""

import sys

from upload.cli import main

if __name__ == "__main__":
    sys.exit(main())
