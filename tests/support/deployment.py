"""The files for operators, as tests read them."""

import json
import re

import yaml

from .paths import ROOT

OPS = ROOT / "ops"
COMPOSE = yaml.safe_load((ROOT / "docker-compose.yml").read_text())
SERVICES, VOLUMES = COMPOSE["services"], COMPOSE["volumes"]
JOBS = {name: SERVICES[name] for name in ("job-0", "job-1")}
DASHBOARD = json.loads((OPS / "grafana/dashboards/visits.json").read_text())
ALERTS = [rule for group in yaml.safe_load((OPS / "alerts.yml").read_text())["groups"] for rule in group["rules"]]


def queries() -> list[str]:
    """Everything that rules and dashboard ask Prometheus."""
    panels = [target["expr"] for panel in DASHBOARD["panels"] for target in panel.get("targets", [])]
    return panels + [rule["expr"] for rule in ALERTS]


def queried_metrics() -> set[str]:
    return set(re.findall(r"\b(?:visits|bytewax|process)_\w+", " ".join(queries())))
