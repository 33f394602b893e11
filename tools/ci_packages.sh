#!/usr/bin/env bash
# Installs what tests need from the system and Debian has; does nothing where all of it is there. Needs root.
set -euo pipefail

# A command that tells whether a package is there, and the package.
wanted=(
  # Real browsers look at the pages and upload: three engines.
  "chromium chromium"
  "firefox-esr firefox-esr"
  "WebKitWebDriver webkit2gtk-driver"
  "Xvfb xvfb"
  # What people put in front: a proxy that compresses and keeps, and a cache.
  "nginx nginx-light"
  "varnishd varnish"
  # The other database. Its programs lie in a folder of each version.
  "/usr/lib/postgresql/15/bin/postgres postgresql-15"
  # Disks that fail: our own library, and libfiu.
  "cc gcc"
  "cc libc6-dev"
  "fiu-ctrl fiu-utils"
  # What operators look by: rules and a dashboard of ours.
  "prometheus prometheus"
  # Counts instructions, which no noise of the machine changes.
  "valgrind valgrind"
  # Networks that swallow everything.
  "ip iproute2"
  "nft nftables"
)

missing=()
for pair in "${wanted[@]}"; do
  read -r command package <<<"$pair"
  PATH="$PATH:/usr/sbin:/sbin" command -v "$command" >/dev/null 2>&1 || missing+=("$package")
done
if [ ${#missing[@]} -gt 0 ]; then
  apt-get update -qq
  DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "${missing[@]}" >/dev/null
fi
