"""List the benchmarks, or run one: ``make bench ARGS="sizes"``."""

from __future__ import annotations

import importlib
import pkgutil
import sys
from pathlib import Path


def main() -> None:
    """Run the benchmark that is named, with the rest of the arguments."""
    names = sorted(m.name for m in pkgutil.iter_modules([str(Path(__file__).parent)]) if m.name != "__main__")
    if len(sys.argv) < 2 or sys.argv[1] not in names:
        print("Benchmarks (make bench ARGS='NAME …'):")
        for name in names:
            module = importlib.import_module(f"benchmarks.{name}")
            print(f"  {name:16} {(module.__doc__ or '').strip().splitlines()[0]}")
        return
    module = importlib.import_module(f"benchmarks.{sys.argv[1]}")
    sys.argv = sys.argv[1:]
    module.main()


if __name__ == "__main__":
    main()
