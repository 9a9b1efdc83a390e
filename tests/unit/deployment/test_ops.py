"""The files for operators (Prometheus, Grafana, Kubernetes) and the page that explains them."""

import os
import re
import shutil
import subprocess

import pytest
import yaml
from support.deployment import ALERTS, DASHBOARD, JOBS, OPS, SERVICES, queried_metrics
from support.paths import ROOT

from dataflow.runtime import cluster
from dataflow.runtime.settings import Settings

PAGE = (ROOT / "docs/operations.md").read_text()


# --- Prometheus and Grafana ---


@pytest.mark.parametrize(
    "arguments", ["check config prometheus.yml", "check rules alerts.yml", "test rules alerts.test.yml"]
)
def test_promtool_finds_nothing_wrong(arguments):
    if shutil.which("promtool") is None:
        pytest.skip("promtool is not installed (Debian: package prometheus)")
    run = subprocess.run(["promtool", *arguments.split()], cwd=OPS, capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stdout + run.stderr


@pytest.mark.parametrize("rule", ALERTS, ids=lambda rule: rule["alert"])
def test_each_alert_has_a_summary_and_a_section_of_the_runbook(rule):
    assert rule["labels"]["severity"] in ("page", "ticket")
    assert rule["annotations"].keys() == {"summary", "description", "runbook"}
    assert rule["annotations"]["runbook"] == f"docs/operations.md#{rule['alert'].lower()}"
    assert f"\n### {rule['alert']}\n" in PAGE


def test_every_alert_has_unit_tests():
    tests = (OPS / "alerts.test.yml").read_text()
    assert all(tests.count(rule["alert"]) >= 2 for rule in ALERTS)


def test_every_queried_metric_is_documented():
    explained = set(re.findall(r"`((?:visits|bytewax)_\w+)`", PAGE))
    assert {
        re.sub("_(sum|count)$", "", name) for name in queried_metrics() if not name.startswith("process_")
    } <= explained


def test_dashboard_panels_use_the_provisioned_data_source():
    [source] = yaml.safe_load((OPS / "grafana/datasources.yml").read_text())["datasources"]
    asked = {target["datasource"]["uid"] for panel in DASHBOARD["panels"] for target in panel.get("targets", [])}
    assert asked == {source["uid"]}
    assert source["url"].removeprefix("http://").split(":")[0] in SERVICES
    ids = [panel["id"] for panel in DASHBOARD["panels"]]
    assert len(set(ids)) == len(ids)


def test_compose_scrapes_every_process_and_mounts_files_that_are_there():
    [scrape] = yaml.safe_load((OPS / "prometheus.yml").read_text())["scrape_configs"]
    assert scrape["static_configs"][0]["targets"] == [f"{name}:3030" for name in JOBS]
    for name in ("prometheus", "grafana"):
        assert SERVICES[name]["profiles"] == ["metrics"]
        for mount in SERVICES[name]["volumes"]:
            if mount.startswith("./"):
                assert (ROOT / mount.split(":")[0]).exists()
    for job in JOBS.values():
        assert job["environment"]["BYTEWAX_DATAFLOW_API_ENABLED"] == 1
        assert f":{job['environment']['VISITS_HEALTH_PORT']}/ready" in job["healthcheck"]["test"][-1]


# --- Kubernetes ---

OBJECTS = {each["kind"]: each for each in yaml.safe_load_all((OPS / "kubernetes.yml").read_text())}
SET = OBJECTS["StatefulSet"]["spec"]
POD = SET["template"]["spec"]
[CONTAINER] = POD["containers"]
ENVIRONMENT = {each["name"]: each.get("value") for each in CONTAINER["env"]}
HOSTS = OBJECTS["ConfigMap"]["data"]["hosts"]


@pytest.mark.parametrize("number", range(SET["replicas"]))
def test_a_pod_knows_its_number_and_all_addresses(number, monkeypatch, tmp_path):
    for name in [name for name in os.environ if name.startswith("BYTEWAX_")]:
        monkeypatch.delenv(name)
    for name, value in ENVIRONMENT.items():
        if value is not None:
            monkeypatch.setenv(name, value)
    (tmp_path / "hosts").write_text(HOSTS)
    monkeypatch.setenv("BYTEWAX_HOSTFILE_PATH", str(tmp_path / "hosts"))
    monkeypatch.setenv("BYTEWAX_POD_NAME", f"{OBJECTS['StatefulSet']['metadata']['name']}-{number}")
    assert cluster.process_id() == number
    service = OBJECTS["Service"]["metadata"]["name"]
    assert cluster.addresses().split(";")[number] == f"visits-{number}.{service}:2101"
    assert len(cluster.addresses().split(";")) == SET["replicas"]


def test_pods_start_together_and_resolve_before_they_are_ready():
    assert SET["podManagementPolicy"] == "Parallel"
    assert SET["updateStrategy"]["type"] == "OnDelete"
    assert SET["serviceName"] == OBJECTS["Service"]["metadata"]["name"]
    assert OBJECTS["Service"]["spec"]["publishNotReadyAddresses"] is True
    assert (
        OBJECTS["Service"]["spec"]["selector"]
        == SET["selector"]["matchLabels"]
        == SET["template"]["metadata"]["labels"]
    )


def test_all_pods_share_one_recovery_store_which_the_image_can_write():
    claim = OBJECTS["PersistentVolumeClaim"]
    assert claim["spec"]["accessModes"] == ["ReadWriteMany"]
    volumes = {each["name"]: each for each in POD["volumes"]}
    assert volumes["recovery"]["persistentVolumeClaim"]["claimName"] == claim["metadata"]["name"]
    mounts = {each["name"]: each["mountPath"] for each in CONTAINER["volumeMounts"]}
    assert mounts["recovery"] == ENVIRONMENT["BYTEWAX_RECOVERY_DIRECTORY"]
    assert ENVIRONMENT["BYTEWAX_HOSTFILE_PATH"].startswith(mounts["hosts"] + "/")
    user = re.search(r"--uid (\d+)", (ROOT / "Dockerfile").read_text())[1]
    assert POD["securityContext"]["runAsUser"] == POD["securityContext"]["fsGroup"] == int(user)


def test_a_pod_restarts_when_not_alive_and_never_for_its_lag():
    paths = {kind: CONTAINER[kind + "Probe"]["httpGet"]["path"] for kind in ("startup", "liveness", "readiness")}
    assert paths == {"startup": "/live", "liveness": "/live", "readiness": "/ready"}
    ports = {each["name"]: str(each["containerPort"]) for each in CONTAINER["ports"]}
    assert ports["health"] == ENVIRONMENT["VISITS_HEALTH_PORT"]
    assert ports["metrics"] == ENVIRONMENT["BYTEWAX_DATAFLOW_API_PORT"]
    assert POD["terminationGracePeriodSeconds"] >= 30


def test_environment_of_a_pod_is_known_settings():
    known = {f"VISITS_{field.upper()}" for field in Settings.model_fields}
    assert {name for name in ENVIRONMENT if not name.startswith("BYTEWAX_")} <= known
