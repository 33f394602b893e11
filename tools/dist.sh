#!/usr/bin/env bash
# Makes all packages below the folder $1, checks them, and installs each into an empty environment. Takes minutes, and
# fetches tools and dependencies by their ordinary clients. GO_MODULE names another path of the Go module.
set -euo pipefail
cd "$(dirname "$0")/.."
rm -rf "$1" && mkdir -p "$1"/{python,npm,go,sbom}
dist=$(cd "$1" && pwd)
work=$(mktemp -d)
trap 'chmod -R u+w "$work"; rm -rf "$work"' EXIT
python=${PYTHON:-python3}
version=$(sed -n 's/^version = "\(.*\)"$/\1/p' pyproject.toml)
SOURCE_DATE_EPOCH=$(git log -1 --format=%ct)
export SOURCE_DATE_EPOCH PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_CONSTRAINT=

step() { printf '== %s\n' "$1"; }
environment() { "$python" -m venv "$work/$1" && "$work/$1/bin/python" -m pip install --quiet --upgrade 'pip>=25.1'; }

step "one version everywhere"
for file in clients/python/pyproject.toml server/transcoder/pyproject.toml; do grep -qx "version = \"$version\"" "$file"; done
grep -q "\"version\": \"$version\"" clients/typescript/package.json
for place in clients/python clients/typescript clients/go server/transcoder; do cmp LICENSE "$place/LICENSE"; done

step "wheels and sdists"
environment tools
"$work/tools/bin/pip" install --quiet build twine cyclonedx-bom
for place in . clients/python server/transcoder; do
  # The wheel is made of the sdist: nothing is in one alone.
  "$work/tools/bin/python" -m build --outdir "$dist/python" "$place" >/dev/null
done
"$work/tools/bin/twine" check --strict "$dist"/python/*
# Not `grep -q`, which leaves before all is listed.
for made in "$dist"/python/*; do
  case $made in
    *.whl) "$python" -m zipfile -l "$made" | grep 'dist-info/licenses/LICENSE' ;;
    *) tar -tzf "$made" | grep '/LICENSE$' ;;
  esac >/dev/null || { echo "no license in $made" >&2; exit 1; }
done

step "they install into empty environments and run"
environment wheels
wheels=("$dist"/python/*.whl)
"$work/wheels/bin/pip" install --quiet --constraint constraints.txt "${wheels[@]}"
environment sdists
"$work/sdists/bin/pip" install --quiet --constraint constraints.txt "$dist"/python/*.tar.gz
for made in wheels sdists; do
  (
    cd "$work"
    "$made/bin/pip" check
    "$made/bin/upload-server" --version
    "$made/bin/uploadctl" --version
    "$made/bin/python" -I -c 'import upload, transcoder, upload_server.app'
  )
done
# What others use without the server brings all that it needs.
for module in upload:upload_client transcoder:upload_transcoder; do
  environment "${module%:*}"
  "$work/${module%:*}/bin/pip" install --quiet --constraint constraints.txt "$dist"/python/"${module#*:}"-*.whl
  (cd "$work/${module%:*}" && bin/pip check && bin/python -I -c "import ${module%:*}")
done
"$work/upload/bin/uploadctl" --version

step "the lock of everything, with extras, and the SBOM"
server=$(ls "$dist"/python/upload_service-*.whl)
"$work/wheels/bin/pip" install --quiet --dry-run --ignore-installed --constraint constraints.txt --report - \
  "${wheels[@]/$server/$server[postgres,s3,jwt,otel]}" | "$python" tools/lock.py >"$dist/requirements.lock"
environment locked
"$work/locked/bin/pip" install --quiet --require-hashes --find-links "$dist/python" --requirement "$dist/requirements.lock"
(cd "$work/locked" && bin/pip check && bin/python -I -c 'import psycopg, obstore, boto3, jwt, opentelemetry.sdk')
"$work/locked/bin/upload-server" --version
"$work/tools/bin/cyclonedx-py" environment "$work/locked" --of JSON -o "$dist/sbom/python.cdx.json"

step "the npm package"
(cd clients/typescript && npm ci --silent && npm pack --silent --pack-destination "$dist/npm" >/dev/null &&
  npm sbom --sbom-format cyclonedx --omit dev >"$dist/sbom/npm.cdx.json")
mkdir "$work/page"
(
  cd "$work/page"
  npm init --yes >/dev/null
  npm install --silent "$dist"/npm/upload-client-*.tgz
  test -f node_modules/upload-client/LICENSE
  node --input-type=module -e 'import { UploadClient } from "upload-client"; new UploadClient({ baseUrl: "http://localhost:1" })'
)

step "the Go module"
module=$("$python" -m tools.go_proxy "$dist/go" "v$version" "${GO_MODULE:-}")
mkdir "$work/program"
(
  cd "$work/program"
  export GOPROXY="file://$dist/go,$(go env GOPROXY)" GONOSUMDB="$module" GOFLAGS=-modcacherw GOMODCACHE="$work/modules" CGO_ENABLED=0
  go mod init program.test
  go get "$module@v$version"
  printf 'package main\n\nimport v1 "%s/upload/v1"\n\nfunc main() { _ = v1.NewUploadServiceClient(nil) }\n' "$module" >main.go
  go mod tidy
  go build -o program .
  go build "$module/example"
) 2>&1 | sed '/^go: downloading/d'
"$work/program/program"

(cd "$dist" && find . -type f ! -name SHA256SUMS | sort | xargs sha256sum >SHA256SUMS)
step "made in $dist"
