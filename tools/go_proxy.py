"""Makes a Go module of clients/go in a folder that GOPROXY=file://… takes: ``python -m tools.go_proxy DIST [MODULE]``.

Its path stands in clients/go/go.mod. Another one that is named replaces it in the copy: in go.mod and in the imports.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
import zipfile
from pathlib import Path

ROOT = Path(__file__).parents[1]
SOURCE = ROOT / "clients" / "go"
_EPOCH = (1980, 1, 1, 0, 0, 0)


def make(folder: Path, version: str, wanted: str = "") -> str:
    """Write the module of ``version`` below ``folder``; returns its path."""
    text = (SOURCE / "go.mod").read_text()
    own = text.split()[1]
    path = wanted or own
    # An import of ours, with or without a name; the same words in generated data stay as they are.
    imports = re.compile(rf'^(import +|\t)((?:\w+ +)?)"{re.escape(own)}(?=[/"])', re.MULTILINE)
    place = folder / re.sub("[A-Z]", lambda match: f"!{match[0].lower()}", path) / "@v"
    place.mkdir(parents=True, exist_ok=True)
    mod = text.replace(own, path, 1)
    (place / "list").write_text(f"{version}\n")
    (place / f"{version}.mod").write_text(mod)
    (place / f"{version}.info").write_text(json.dumps({"Version": version, "Time": "2026-01-01T00:00:00Z"}))
    command = ["git", "ls-files", "--cached", "--others", "--exclude-standard"]
    names = subprocess.check_output(command, cwd=SOURCE)  # noqa: S603 - fixed
    with zipfile.ZipFile(place / f"{version}.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        for name in sorted(names.decode().splitlines()):
            content = mod if name == "go.mod" else (SOURCE / name).read_text()
            if name.endswith(".go"):
                content = imports.sub(rf'\1\2"{path}', content)
            archive.writestr(zipfile.ZipInfo(f"{path}@{version}/{name}", _EPOCH), content)
    return path


if __name__ == "__main__":
    target, release, *other = sys.argv[1:]
    sys.stdout.write(make(Path(target), release, *other) + "\n")
