#!/usr/bin/env bash
# The generated code is what `buf generate` makes of the protos today: fails on any difference or untracked file.
set -euo pipefail
cd "$(dirname "$0")/.."
buf generate
if [ -n "$(git status --porcelain -- clients/python/upload/v1)" ]; then
  git --no-pager diff --stat -- clients/python/upload/v1
  git status --short -- clients/python/upload/v1
  echo "The generated code is not what the protos say: run 'make generate' and commit the result." >&2
  exit 1
fi
