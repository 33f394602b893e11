#!/usr/bin/env bash
# Protos: lint, format, and no change that breaks callers: of the newest release; before there is one, of the API
# committed as protos/upload.v1.binpb (`buf build -o protos/upload.v1.binpb --exclude-source-info --path protos/upload`).
set -euo pipefail
cd "$(dirname "$0")/.."
buf lint
buf format --diff --exit-code --path protos/upload
if tag=$(git describe --tags --abbrev=0 --match 'v*' 2>/dev/null); then
  buf breaking --against ".git#tag=$tag"
else
  buf breaking --against protos/upload.v1.binpb
fi
