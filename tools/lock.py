"""Reads pip's installation report, prints a lock: each distribution with its version and the hash of its file.

This repository's own wheels are there by their hashes too, and in no registry: ``--find-links`` names their folder.
"""

from __future__ import annotations

import json
import sys

for item in sorted(json.load(sys.stdin)["install"], key=lambda item: item["metadata"]["name"].lower()):
    digest = item["download_info"]["archive_info"]["hashes"]["sha256"]
    sys.stdout.write(f"{item['metadata']['name']}=={item['metadata']['version']} --hash=sha256:{digest}\n")
