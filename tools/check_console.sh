#!/usr/bin/env bash
# The TypeScript messages and the page at / are what their sources say: made anew and compared. Needs Node.
# Their types and their lock file are looked at by tests/clients/typescript.
set -euo pipefail
cd "$(dirname "$0")/.."
export PATH="$PWD/.venv/bin:$PATH"
(
  cd clients/typescript
  npm ci --silent
  npm run --silent generate
  node tools/build-console.mjs --check
)
if [ -n "$(git status --porcelain -- clients/typescript/src/gen)" ]; then
  git --no-pager diff --stat -- clients/typescript/src/gen
  echo "The TypeScript messages are not what the protos say: run 'make console' and commit the result." >&2
  exit 1
fi
