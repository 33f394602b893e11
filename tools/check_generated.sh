#!/usr/bin/env bash
# The generated files are what the generators make of the protos today: fails on any difference or untracked file.
set -euo pipefail
cd "$(dirname "$0")/.."
generated=(clients/python/upload/v1 server/upload_server/web/openapi/openapi.json deploy/upload.binpb)

buf generate
python -m tools.descriptor_set deploy/upload.binpb
if command -v go >/dev/null 2>&1; then
  buf generate --template buf.gen.openapi.yaml
elif [ -n "${CI:-}" ]; then
  echo "CI needs Go: the OpenAPI document could not be checked." >&2
  exit 1
else
  echo "Skipped: the OpenAPI document is not checked, its generator needs Go."
fi

if [ -n "$(git status --porcelain -- "${generated[@]}")" ]; then
  git --no-pager diff --stat -- "${generated[@]}"
  git status --short -- "${generated[@]}"
  echo "Generated files are not what the protos say: run 'make generate descriptors openapi' and commit the result." >&2
  exit 1
fi
