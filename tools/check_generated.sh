#!/usr/bin/env bash
# The generated files are what the generators make of the protos today: fails on any difference or untracked file.
set -euo pipefail
cd "$(dirname "$0")/.."
generated=(clients/python/upload/v1 clients/go server/upload_server/doors/http/openapi/openapi.json deploy/upload.binpb)

buf generate
python -m tools.descriptor_set deploy/upload.binpb
if command -v go >/dev/null 2>&1; then
  buf generate --template buf.gen.openapi.yaml
  CGO_ENABLED=0 buf generate --template buf.gen.go.yaml
elif [ -n "${CI:-}" ]; then
  echo "CI needs Go: the OpenAPI document and the Go client could not be checked." >&2
  exit 1
else
  echo "Skipped: the OpenAPI document and the Go client are not checked, their generators need Go."
fi

if [ -n "$(git status --porcelain -- "${generated[@]}")" ]; then
  git --no-pager diff --stat -- "${generated[@]}"
  git status --short -- "${generated[@]}"
  echo "Generated files are not what the protos say: run 'make generate generate-go descriptors openapi' and commit the result." >&2
  exit 1
fi
