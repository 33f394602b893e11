"""What lies in deploy/ speaks of settings, commands and names that there are."""

from __future__ import annotations

import dataclasses
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from upload_server.config import Config
from upload_server.options import env_name, load
from upload_server.process.metrics import Metrics

DEPLOY = Path(__file__).parents[2] / "deploy"
FILES = [path for path in DEPLOY.rglob("*") if path.suffix in {".yaml", ".service"} or path.name == "Containerfile"]
OURS = {env_name(item) for item in dataclasses.fields(Config)}


def documents(*names: str) -> list[Any]:
    return [document for name in names for document in yaml.safe_load_all((DEPLOY / name).read_text())]


def environments(value: Any) -> Iterator[dict[str, str]]:
    """The environments of containers and of Compose's services."""
    if isinstance(value, dict):
        found = value.get("env", value.get("environment"))
        if isinstance(found, list):
            yield {entry["name"]: entry["value"] for entry in found}
        elif isinstance(found, dict):
            yield found
        for item in value.values():
            yield from environments(item)
    elif isinstance(value, list):
        for item in value:
            yield from environments(item)


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(DEPLOY)))
def test_settings_are_ours(path: Path) -> None:
    assert set(re.findall(r"\bUPLOAD_[A-Z_]+\b", path.read_text())) <= OURS


def test_a_server_starts_with_the_environments() -> None:
    kubernetes = documents("kubernetes/base/statefulset.yaml", "kubernetes/postgresql/nodes.yaml")
    found = [*environments(kubernetes), *environments(documents("compose.yaml"))]
    image = dict(re.findall(r"\b(UPLOAD_[A-Z_]+)=(\S+)", (DEPLOY / "Containerfile").read_text().partition("ENV ")[2]))
    assert len(found) == 3
    for environment in found:
        config = load({}, {**image, **environment})
        # Not the one that only migrates.
        if "UPLOAD_AUTH" in environment:
            config.check_auth()


def test_rules_and_dashboard_ask_for_metrics_that_there_are() -> None:
    rules = documents("prometheus/rules.yaml")
    expressions = [rule["expr"] for group in rules[0]["groups"] for rule in group["rules"]]
    dashboard = json.loads((DEPLOY / "grafana" / "upload-service.json").read_text())
    expressions += [target["expr"] for panel in dashboard["panels"] for target in panel.get("targets", ())]
    asked = set(re.findall(r"\bupload_[a-z_]+", "\n".join(expressions)))
    recorded = {rule["record"] for group in rules[0]["groups"] for rule in group["rules"] if "record" in rule}
    assert set(re.findall(r"\bupload:[a-z0-9_:]+", "\n".join(expressions))) == recorded
    # The service adds the rooms, which are asked for at each scrape.
    there = {"upload_database_room_bytes", "upload_storage_room_bytes"}
    for family in Metrics("0").registry.collect():
        suffixes = {"counter": ("_total",), "histogram": ("_bucket", "_count")}.get(family.type, ("",))
        there |= {family.name + suffix for suffix in suffixes}
    assert len(asked) > 15
    assert asked <= there


def test_a_pod_has_time_to_drain_and_is_nobody() -> None:
    (pods,) = documents("kubernetes/base/statefulset.yaml")
    spec = pods["spec"]["template"]["spec"]
    (container,) = spec["containers"]
    wait = container["lifecycle"]["preStop"]["sleep"]["seconds"]
    assert spec["terminationGracePeriodSeconds"] > wait + Config().drain_grace + 3 * 2
    assert spec["securityContext"]["runAsUser"] == 65534
    assert container["securityContext"]["readOnlyRootFilesystem"]
    assert pods["spec"]["replicas"] == 1
