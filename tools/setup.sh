#!/usr/bin/env bash
# Makes the virtual environment $1 at the pinned versions: with $2 `service` the service and its client, with `everything` also the
# developers' tools and the benchmarks' rivals.
# Uses uv where there is one, else the interpreter's own venv and pip. Safe to run again.
set -euo pipefail
cd "$(dirname "$0")/.."
venv=$1
what=$2
python=${PYTHON:-python3}

if ! "$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
  echo "upload-service needs Python 3.11 or newer; '$python' is $("$python" --version 2>&1 || echo missing)." >&2
  echo "Name another one: make setup PYTHON=python3.12" >&2
  exit 1
fi

echo "Installing into $venv ($what); this takes a minute the first time." >&2
arguments=(--constraint constraints.txt --editable "clients/python[cli]" --editable server/transcoder --editable .)
[ "$what" = service ] || arguments+=(--group dev --group bench)
if command -v uv >/dev/null 2>&1; then
  [ -x "$venv/bin/python" ] || uv venv --quiet --python "$python" "$venv"
  uv pip install --quiet --python "$venv/bin/python" "${arguments[@]}"
else
  [ -x "$venv/bin/python" ] && "$venv/bin/python" -m pip --version >/dev/null 2>&1 || "$python" -m venv --clear "$venv"
  # `--group` came with pip 25.1.
  "$venv/bin/python" -m pip install --quiet --disable-pip-version-check --upgrade 'pip>=25.1'
  "$venv/bin/python" -m pip install --quiet --disable-pip-version-check "${arguments[@]}"
fi
