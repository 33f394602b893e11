#!/usr/bin/env bash
# The transcoder installs into an empty environment by itself and needs nothing of the service.
set -euo pipefail
cd "$(dirname "$0")/.."
place=$(mktemp -d)
trap 'rm -rf "$place"' EXIT
"${PYTHON:-python3}" -m venv "$place/venv"
"$place/venv/bin/python" -m pip install --quiet --disable-pip-version-check ./server/transcoder
cd "$place"
"$place/venv/bin/python" -I - <<'CODE'
import importlib.util

import transcoder

assert transcoder.build_app
for name in ("upload", "upload_server"):
    assert importlib.util.find_spec(name) is None, name
CODE
