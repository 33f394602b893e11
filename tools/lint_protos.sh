#!/usr/bin/env bash
# Protos: lint, format, and no breaking change since the newest release.
set -euo pipefail
cd "$(dirname "$0")/.."
buf lint
buf format --diff --exit-code --path protos/upload
if tag=$(git describe --tags --abbrev=0 --match 'v*' 2>/dev/null); then
  buf breaking --against ".git#tag=$tag,subdir=protos" --path protos/upload
else
  echo "buf breaking: no release tag yet, nothing to compare with"
fi
