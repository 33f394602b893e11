"""``make prove``: all that the figures come from, part by part, in one run with one seed; a table at the end."""

from __future__ import annotations

import argparse
import contextlib
import logging
import random
import signal
import sys
import time
from pathlib import Path

import psutil

from robustness.prove.parts import PARTS, Figures, Share, shares
from robustness.prove.parts.figures import as_json, as_text, rows
from robustness.prove.profiles import PROFILES


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="make prove", description=__doc__)
    parser.add_argument("--minutes", type=float, default=15.0, help="for all parts; what needs more takes more")
    parser.add_argument("--only", type=_parts, default=tuple(PARTS), help=f"of {','.join(PARTS)}")
    parser.add_argument("--cluster", dest="only", action="store_const", const=("cluster",), help="--only cluster")
    parser.add_argument("--seed", default=str(random.SystemRandom().getrandbits(32)), help="of what is tried")
    parser.add_argument("--scale", type=int, default=50, help="at most so many times the short form's model")
    parser.add_argument("--profile", choices=PROFILES, action="append", help="only these histories")
    parser.add_argument("--json", type=Path, help="leave the figures in this file, too")
    return parser.parse_args()


def _parts(text: str) -> tuple[str, ...]:
    names = tuple(text.split(","))
    if unknown := set(names) - PARTS.keys():
        raise argparse.ArgumentTypeError(f"no such part: {', '.join(sorted(unknown))}")
    return names


def main() -> int:
    """Return 0 when all was run and nothing was found."""
    options = _options()
    logging.getLogger("asyncio").setLevel(logging.CRITICAL)
    # Also in the background, where a shell has SIGINT ignored.
    for each in (signal.SIGINT, signal.SIGTERM):
        signal.signal(each, signal.default_int_handler)
    began = time.monotonic()
    reports: dict[str, Figures] = {}
    try:
        for name, seconds in shares(options.only, options.minutes * 60).items():
            _say(f"== {name}, about {seconds:.0f} s, seed {options.seed}")
            share = Share(f"{options.seed}.{name}", seconds, _say, options.scale, tuple(options.profile or ()))
            reports[name] = Figures()
            _run(name, share, reports[name])
        complete = True
    except KeyboardInterrupt:
        complete = False
        _say("interrupted: figures so far")
    finally:
        _end_children()
    found = sum(len(figures.violations) for figures in reports.values())
    if options.json:
        facts = {"seed": options.seed, "minutes": options.minutes, "violations": found}
        options.json.write_text(as_json(reports, facts))
    _say("", as_text(rows(reports)), f"seed {options.seed}, {time.monotonic() - began:.0f} s, {found} violations")
    return 0 if complete and not found else 1


def _run(name: str, share: Share, figures: Figures) -> None:
    """Run a part; one that cannot go on has found something, and the others have their turn."""
    try:
        PARTS[name].run(share, figures)
    except Exception as error:
        logging.getLogger(__name__).exception("%s broke off", name)
        figures.violations.append(f"broke off: {error!r}")
    for violation in figures.violations[:5]:
        _say(f"  {violation}")


def _end_children() -> None:
    """Leave no process behind, however this ends."""
    left = psutil.Process().children(recursive=True)
    for process in left:
        with contextlib.suppress(psutil.NoSuchProcess):
            process.kill()
    psutil.wait_procs(left, timeout=10)


def _say(*lines: str) -> None:
    sys.stdout.write("".join(f"{line}\n" for line in lines))
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())
