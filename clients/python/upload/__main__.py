"""``uploadctl``, which ``python -m upload`` is as well."""

import signal
import sys


def main() -> int:
    """Load the program and run it; Ctrl-C meanwhile ends it without a word, not with a traceback."""
    heard = signal.getsignal(signal.SIGINT) is signal.default_int_handler
    if heard:
        signal.signal(signal.SIGINT, signal.SIG_DFL)
    from upload.cli import main as run  # noqa: PLC0415 - takes a part of a second

    if heard:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    return run()


if __name__ == "__main__":
    sys.exit(main())
