"""docker-compose.yml and the Dockerfile, as far as they can be checked without Docker."""

import re

import pytest
from support.deployment import JOBS, SERVICES, VOLUMES
from support.paths import ROOT

from dataflow.runtime.settings import Settings

BROKERS = {name: service for name, service in SERVICES.items() if service["image"].startswith("apache/kafka:")}
OURS = {name: service for name, service in SERVICES.items() if "build" in service}


def test_default_brokers_are_those_that_compose_advertises():
    advertised = [
        re.search("EXTERNAL://([^,]+)", broker["environment"]["KAFKA_ADVERTISED_LISTENERS"])[1]
        for broker in BROKERS.values()
    ]
    assert sorted(advertised) == ["localhost:19090", "localhost:19091", "localhost:19092"]
    assert sorted(advertised) == sorted(Settings.model_fields["brokers"].default.split(","))


@pytest.mark.parametrize("name", BROKERS)
def test_broker_advertises_its_own_name_and_publishes_its_own_port(name):
    environment = BROKERS[name]["environment"]
    internal, external = environment["KAFKA_ADVERTISED_LISTENERS"].split(",")
    port = external.rpartition(":")[2]
    assert internal == f"INTERNAL://{name}:9092"
    assert BROKERS[name]["ports"] == [f"127.0.0.1:{port}:{port}"]
    assert environment["KAFKA_LISTENERS"] == f"INTERNAL://:9092,EXTERNAL://:{port},CONTROLLER://:9093"
    assert f"{environment['KAFKA_NODE_ID']}@{name}:9093" in environment["KAFKA_CONTROLLER_QUORUM_VOTERS"].split(",")


@pytest.mark.parametrize("name", BROKERS)
def test_one_broker_may_fail(name):
    environment = BROKERS[name]["environment"]
    replication = {key: value for key, value in environment.items() if key.endswith("REPLICATION_FACTOR")}
    needed = {key: value for key, value in environment.items() if key.endswith(("MIN_ISR", "MIN_INSYNC_REPLICAS"))}
    assert len(replication) == 4 and set(replication.values()) == {3}
    assert len(needed) == 3 and set(needed.values()) == {2}


@pytest.mark.parametrize("name", BROKERS)
def test_each_broker_has_its_data_in_a_volume_of_its_own(name):
    assert BROKERS[name]["volumes"] == [f"{name}:{BROKERS[name]['environment']['KAFKA_LOG_DIRS']}"]
    assert name in VOLUMES


def test_tests_run_the_version_of_kafka_that_compose_starts():
    tested = re.search("<kafka.version>(.+)</kafka.version>", (ROOT / "tests/support/kafka/pom.xml").read_text())[1]
    assert {broker["image"] for broker in BROKERS.values()} == {f"apache/kafka:{tested}"}


@pytest.mark.parametrize("name", SERVICES)
def test_services_restart_and_images_are_pinned(name):
    assert SERVICES[name]["restart"] in ("unless-stopped", "on-failure")
    assert "build" in SERVICES[name] or re.search(r":v?\d+\.\d+\.\d+$", SERVICES[name]["image"])


@pytest.mark.parametrize("name", OURS)
def test_environment_of_our_services_is_known_settings(name):
    known = {f"VISITS_{field.upper()}" for field in Settings.model_fields}
    assert {key for key in OURS[name]["environment"] if not key.startswith("BYTEWAX_")} <= known
    assert OURS[name]["environment"]["VISITS_BROKERS"].split(",") == [f"{broker}:9092" for broker in BROKERS]


def test_job_is_one_cluster_with_one_store_and_waits_for_its_topics():
    for number, (name, job) in enumerate(JOBS.items()):
        environment = job["environment"]
        assert environment["BYTEWAX_PROCESS_ID"] == number
        assert environment["BYTEWAX_ADDRESSES"].split(";")[number] == f"{name}:2101"
        assert job["volumes"] == [f"recovery:{environment['BYTEWAX_RECOVERY_DIRECTORY']}"]
        assert job["depends_on"]["topics"]["condition"] == "service_completed_successfully"


def test_each_page_is_published_to_this_machine_only():
    for number, job in enumerate(JOBS.values()):
        assert job["environment"]["VISITS_PAGE_ADDRESS"] == "0.0.0.0"
        assert job["ports"] == [f"127.0.0.1:{8082 + number}:{job['environment']['VISITS_PAGE_PORT']}"]


def test_image_does_not_run_as_root_and_owns_the_recovery_store():
    dockerfile = (ROOT / "Dockerfile").read_text()
    user = re.findall(r"^USER (\S+)", dockerfile, re.MULTILINE)[-1]
    assert user not in ("root", "0")
    store = JOBS["job-0"]["environment"]["BYTEWAX_RECOVERY_DIRECTORY"]
    assert re.search(rf"install -d -o {user} .*{re.escape(store)}$", dockerfile, re.MULTILINE)
    assert not any("user" in service for service in OURS.values())


def test_image_gets_every_file_that_the_dockerfile_copies():
    copied = re.findall(r"^COPY (?!--from)(.+) \S+$", (ROOT / "Dockerfile").read_text(), re.MULTILINE)
    allowed = re.findall("^!(.+)$", (ROOT / ".dockerignore").read_text(), re.MULTILINE)
    assert sorted(" ".join(copied).split()) == sorted(allowed)
